/* columns.c - see columns.h. */
#include "pipelines/prepare/columns.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The column that `wanted` names, or -1 and *e. */
static int64_t column_find(const struct columns *c, const char *wanted, struct err *e)
{
    uint32_t found = 0, column = 0;
    for (uint32_t i = 0; c->names && i < c->count; i++)
        if (strcmp(c->names[i], wanted) == 0) {
            column = i;
            found++;
        }
    if (found == 1 || (found == 0 && csv_column_number(wanted, c->count, &column)))
        return column;
    char list[300] = "", name[CSV_SHOWN_BYTES];
    size_t used = 0;
    for (uint32_t i = 0; c->names && i < c->count && used < sizeof list - CSV_SHOWN_BYTES - 8; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "; it has ",
                                 csv_show(c->names[i], name));
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s has %s column \"%.100s\" (prepare.target) among its %u%s%s", c->csv->path,
                   found ? "more than one" : "no", wanted, c->count, list,
                   c->names ? "" : ", which have no names");
}

static int is_name(const struct columns *c, const char *text)
{
    for (uint32_t i = 0; c->names && i < c->count; i++)
        if (strcmp(c->names[i], text) == 0)
            return 1;
    return 0;
}

/* Is none of the columns one that prepare.target names? */
static int targets_absent(const struct columns *c, const struct options *o)
{
    char text[OPTION_TEXT_MAX + 1], *rest = text, *name;
    uint32_t column;
    snprintf(text, sizeof text, "%s", o->prepare_target);
    int absent = c->names && !is_name(c, text);
    while (absent && (name = strsep(&rest, ",")))
        absent =
            !is_name(c, name + strspn(name, " ")) && !csv_column_number(name, c->count, &column);
    return absent;
}

/* Mark the targets' columns: their places count from 0, or COLUMN_CLASS; UNMARKED elsewhere. */
enum { UNMARKED = UINT32_MAX - 1 };

static int target_mark(struct columns *c, const char *wanted, struct err *e)
{
    int64_t column = column_find(c, wanted, e);
    if (column < 0)
        return -1;
    if (c->place[column] != UNMARKED)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "prepare.target names column %" PRId64 " of %s twice (\"%.100s\")", column,
                       c->csv->path, wanted);
    c->place[column] = c->targets++;
    return 0;
}

/* *e says which of several targets there is not. */
static int several_refuse(const struct options *o, struct err *e)
{
    struct err reason = *e;
    return !o->prepare_like[0] ? -1
                               : err_set(e, reason.code,
                                         "%s; new rows come with the columns of all targets, where "
                                         "fields may be empty, or of none",
                                         reason.text);
}

/* prepare.target as one name, if it is one (it may hold commas), else as a list of them. */
static int targets_mark(struct columns *c, const struct options *o, struct err *e)
{
    char text[OPTION_TEXT_MAX + 1], *rest = text, *name;
    int values = strcmp(o->prepare_task, "values") == 0;
    snprintf(text, sizeof text, "%s", o->prepare_target);
    for (uint32_t i = 0; i < c->count; i++)
        c->place[i] = UNMARKED;
    c->features = c->count;
    if (c->unlabelled)
        return 0;
    if (!values || is_name(c, text)) {
        if (target_mark(c, text, e) < 0)
            return strchr(text, ',') && !values
                       ? err_set(e, EXIT_CODE_PERMANENT,
                                 "prepare.target is \"%.100s\", which is no column of %s; several "
                                 "targets are accepted where prepare.task is values",
                                 text, c->csv->path)
                       : -1;
    } else {
        while ((name = strsep(&rest, ",")))
            if (target_mark(c, name + strspn(name, " "), e) < 0)
                return several_refuse(o, e);
    }
    if (c->targets == c->count)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "prepare.target names all %u columns of %s; at least one feature is needed",
                       c->count, c->csv->path);
    c->features = c->count - c->targets;
    return 0;
}

/* Features take their places in the columns' order, values of targets behind them. */
static int places_give(struct columns *c, const struct options *o, struct err *e)
{
    uint32_t next = 0;
    c->place = malloc(c->count * sizeof *c->place);
    if (!c->place)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", c->csv->path);
    if (targets_mark(c, o, e) < 0)
        return -1;
    int values = strcmp(o->prepare_task, "values") == 0 && !c->unlabelled;
    for (uint32_t i = 0; i < c->count; i++)
        c->place[i] = c->place[i] == UNMARKED ? next++
                      : values                ? c->place[i] + c->features
                                              : COLUMN_CLASS;
    if (!values)
        c->targets = 0;
    return 0;
}

/* A first row with a field, the targets aside, that is no number holds names. unlabelled: no column
 * is a target, whatever its number. */
static int looks_like_header(const struct columns *c, const char *targets, int unlabelled)
{
    char text[OPTION_TEXT_MAX + 1], *rest = text, *name;
    unsigned char *is_target = calloc(c->count, 1);
    int header = 0;
    double value;
    snprintf(text, sizeof text, "%s", targets);
    while (is_target && !header && (name = strsep(&rest, ","))) {
        uint32_t column;
        if (csv_column_number(name, c->count, &column))
            is_target[column] = !unlabelled;
        else
            header = 1; /* a target is known by name */
    }
    for (uint32_t i = 0; is_target && !header && i < c->count; i++)
        header = !is_target[i] && csv_number(csv_field(c->csv, i), &value) == CSV_NO_NUMBER;
    free(is_target);
    return header;
}

static int names_keep(struct columns *c, struct csv *csv, struct err *e)
{
    c->names = calloc(c->count, sizeof *c->names);
    for (uint32_t i = 0; c->names && i < c->count; i++)
        if (!(c->names[i] = strdup(csv_trimmed(csv, i))))
            break;
    if (!c->names || !c->names[c->count - 1])
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", c->csv->path);
    return 0;
}

/* The names of the columns whose places are first to first + count - 1, one a line. */
static char *list_make(const struct columns *c, uint32_t first, uint32_t count)
{
    size_t bytes = 1;
    for (uint32_t i = 0; i < c->count; i++)
        bytes += strlen(c->names[i]) + 1;
    const char **name = calloc(count, sizeof *name);
    char *list = malloc(bytes), *at = list;
    for (uint32_t i = 0; name && list && i < c->count; i++)
        if (c->place[i] >= first && c->place[i] - first < count)
            name[c->place[i] - first] = c->names[i];
    for (uint32_t i = 0; name && list && i < count; i++)
        at += sprintf(at, "%s%s", i ? "\n" : "", name[i]);
    if (!name) {
        free(list);
        list = NULL;
    }
    free(name);
    return list;
}

static int names_list(struct columns *c, struct err *e)
{
    c->feature_names = list_make(c, 0, c->features);
    if (c->targets)
        c->target_names = list_make(c, c->features, c->targets);
    return c->feature_names && (c->target_names || !c->targets)
               ? 0
               : err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", c->csv->path);
}

int columns_read(struct columns *c, struct csv *csv, const struct options *o,
                 const struct like *like, struct err *e)
{
    memset(c, 0, sizeof *c);
    c->csv = csv;
    int more = csv_row(csv, e);
    if (more < 0)
        return -1;
    if (more == 0)
        return err_set(e, EXIT_CODE_PERMANENT, "%s holds no row", c->csv->path);
    c->count = c->csv->field_count;
    if (strcmp(o->prepare_header, "auto") == 0)
        c->header =
            looks_like_header(c, o->prepare_target, like->path && c->count == like->features);
    else
        c->header = o->prepare_header[0] == 'y';
    if (c->header && names_keep(c, csv, e) < 0)
        return -1;
    c->unlabelled = like->path && (c->count == like->features || targets_absent(c, o));
    if (c->count < 2 && !c->unlabelled)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: line %llu has 1 column; features and a target are needed (is "
                       "prepare.delimiter right?)",
                       c->csv->path, (unsigned long long)c->csv->line);
    if (places_give(c, o, e) < 0 || (c->header && names_list(c, e) < 0))
        return -1;
    return like_check(like, csv->path, c->features, c->feature_names, e);
}

void columns_free(struct columns *c)
{
    for (uint32_t i = 0; c->names && i < c->count; i++)
        free(c->names[i]);
    free(c->names);
    free(c->place);
    free(c->feature_names);
    free(c->target_names);
    memset(c, 0, sizeof *c);
}
