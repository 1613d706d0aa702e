/* table_csv.c - a CSV file as a source of rows: which column is the target, what is a number, what
 * is missing. csv.h cuts the file into fields.
 */
#include "pipelines/prepare/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/prepare/csv.h"
#include "pipelines/prepare/stamp.h"

enum { NAME_SHOWN = 40 };

struct source {
    struct table_source base; /* first: what callers see */
    struct csv csv;
    uint32_t columns, target;
    int header, drop;
    uint64_t first_line;
    char **names; /* [columns], or NULL */
};

/* A field of a sentence: short, one line. */
static const char *shown(const char *text, char buffer[NAME_SHOWN])
{
    snprintf(buffer, NAME_SHOWN, "%s", text);
    for (char *c = buffer; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    return buffer;
}

/* "FILE: line 3, column 2 (height)" before the sentence. */
static int place_error(const struct source *s, uint32_t column, struct err *e)
{
    char name[NAME_SHOWN] = "";
    if (s->names)
        shown(s->names[column], name);
    return err_prefix(e, "%s: line %llu, column %u%s%s%s", s->csv.path,
                      (unsigned long long)s->csv.line, column + 1, name[0] ? " (" : "", name,
                      name[0] ? ")" : "");
}

/* ---- rows ----------------------------------------------------------------------------------- */

static int source_begin(struct table_source *base, struct digest *digest, struct err *e)
{
    struct source *s = (struct source *)base;
    base->dropped = 0;
    base->share = 0;
    if (csv_rewind(&s->csv, digest, e) < 0)
        return -1;
    return s->header && csv_row(&s->csv, e) < 0 ? -1 : 0;
}

static int value_refuse(const struct source *s, uint32_t column, enum csv_number kind,
                        struct err *e)
{
    static const char *const why[] = {
        [CSV_MISSING] = "no value; prepare.missing: drop leaves such rows out",
        [CSV_INFINITE] = "larger than a float32 holds; expected a finite number",
        [CSV_NO_NUMBER] = "no number; expected one like 12, -3.5 or 1e-4",
    };
    char text[NAME_SHOWN];
    err_set(e, EXIT_CODE_PERMANENT, "\"%s\" is %s", shown(csv_field(&s->csv, column), text),
            why[kind]);
    return place_error(s, column, e);
}

/* 1: a row; 0: a value is missing and the row is to be dropped; -1. */
static int row_convert(struct source *s, double *values, const char **label, struct err *e)
{
    int whole = 1;
    if (s->csv.field_count != s->columns)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: line %llu has %u columns; expected %u as in line %llu", s->csv.path,
                       (unsigned long long)s->csv.line, s->csv.field_count, s->columns,
                       (unsigned long long)s->first_line);
    for (uint32_t i = 0; i < s->columns; i++) {
        char *field = s->csv.text + s->csv.field[i];
        enum csv_number kind = CSV_NUMBER;
        if (i == s->target) {
            *label = csv_trimmed(field);
            kind = (*label)[0] ? CSV_NUMBER : CSV_MISSING;
        } else {
            kind = csv_number(field, values++);
        }
        if (kind == CSV_NUMBER)
            continue;
        if (kind != CSV_MISSING || !s->drop)
            return value_refuse(s, i, kind, e);
        whole = 0;
    }
    return whole;
}

static int source_next(struct table_source *base, double *values, const char **label, struct err *e)
{
    struct source *s = (struct source *)base;
    int more;
    while ((more = csv_row(&s->csv, e)) > 0) {
        int whole = row_convert(s, values, label, e);
        if (whole < 0)
            return -1;
        if (whole)
            break;
        base->dropped++;
    }
    if (s->csv.bytes)
        base->share = (double)s->csv.bytes_read / (double)s->csv.bytes;
    return more;
}

static void source_where(const struct table_source *base, char *text, size_t bytes)
{
    const struct source *s = (const struct source *)base;
    snprintf(text, bytes, "line %llu", (unsigned long long)s->csv.line);
}

static void source_close(struct table_source *base)
{
    struct source *s = (struct source *)base;
    for (uint32_t i = 0; s->names && i < s->columns; i++)
        free(s->names[i]);
    free(s->names);
    free(base->columns);
    csv_close(&s->csv);
    free(s);
}

/* ---- the first row -------------------------------------------------------------------------- */

static int target_find(struct source *s, const char *wanted, struct err *e)
{
    uint32_t found = 0;
    for (uint32_t i = 0; s->names && i < s->columns; i++)
        if (strcmp(s->names[i], wanted) == 0) {
            s->target = i;
            found++;
        }
    if (found == 1 || (found == 0 && csv_column_number(wanted, s->columns, &s->target)))
        return 0;
    char list[300] = "", name[NAME_SHOWN];
    size_t used = 0;
    for (uint32_t i = 0; s->names && i < s->columns && used < sizeof list - NAME_SHOWN - 8; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "; it has ",
                                 shown(s->names[i], name));
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s has %s column \"%.100s\" (prepare.target) among its %u%s%s", s->csv.path,
                   found ? "more than one" : "no", wanted, s->columns, list,
                   s->names ? "" : ", which have no names");
}

/* A first row with a field, the target aside, that is no number holds names. */
static int looks_like_header(const struct source *s, const char *wanted)
{
    uint32_t target = UINT32_MAX;
    double value;
    if (!csv_column_number(wanted, s->columns, &target))
        return 1; /* the target is known by name */
    for (uint32_t i = 0; i < s->columns; i++)
        if (i != target && csv_number(csv_field(&s->csv, i), &value) == CSV_NO_NUMBER)
            return 1;
    return 0;
}

static int names_keep(struct source *s, struct err *e)
{
    s->names = calloc(s->columns, sizeof *s->names);
    for (uint32_t i = 0; s->names && i < s->columns; i++)
        if (!(s->names[i] = strdup(csv_trimmed(s->csv.text + s->csv.field[i]))))
            break;
    if (!s->names || !s->names[s->columns - 1])
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", s->csv.path);
    return 0;
}

/* The features' names, one a line. */
static int columns_list(struct source *s, struct err *e)
{
    size_t bytes = 1;
    for (uint32_t i = 0; i < s->columns; i++)
        bytes += strlen(s->names[i]) + 1;
    char *at = s->base.columns = malloc(bytes);
    if (!at)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", s->csv.path);
    *at = 0;
    for (uint32_t i = 0; i < s->columns; i++)
        if (i != s->target)
            at += sprintf(at, "%s%s", at == s->base.columns ? "" : "\n", s->names[i]);
    return 0;
}

static int first_row_read(struct source *s, const struct options *o, struct err *e)
{
    int more = csv_row(&s->csv, e);
    if (more < 0)
        return -1;
    if (more == 0)
        return err_set(e, EXIT_CODE_PERMANENT, "%s holds no row", s->csv.path);
    s->columns = s->csv.field_count;
    s->first_line = s->csv.line;
    if (s->columns < 2)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: line %llu has 1 column; features and a target are needed (is "
                       "prepare.delimiter right?)",
                       s->csv.path, (unsigned long long)s->csv.line);
    if (strcmp(o->prepare_header, "auto") == 0)
        s->header = looks_like_header(s, o->prepare_target);
    else
        s->header = o->prepare_header[0] == 'y';
    if ((s->header && names_keep(s, e) < 0) || target_find(s, o->prepare_target, e) < 0)
        return -1;
    s->base.values = s->columns - 1;
    return s->header ? columns_list(s, e) : 0;
}

int table_csv_open(struct table_source **s_p, const struct options *o, struct err *e)
{
    struct source *s = calloc(1, sizeof *s);
    *s_p = NULL;
    if (!s)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", o->data_source);
    s->base = (struct table_source){.command = "csv",
                                    .path = o->data_source,
                                    .begin = source_begin,
                                    .next = source_next,
                                    .where = source_where,
                                    .close = source_close};
    s->drop = o->prepare_missing[0] == 'd';
    char delimiter;
    int result = csv_delimiter(o->prepare_delimiter, &delimiter, e);
    if (result == 0)
        result = csv_open(&s->csv, o->data_source, delimiter, e);
    if (result == 0)
        result = first_row_read(s, o, e);
    if (result == 0)
        result = stamp_file(o->data_source, s->base.stamp, sizeof s->base.stamp, e);
    if (result < 0)
        source_close(&s->base);
    else
        *s_p = &s->base;
    return result;
}
