/* table_csv.c - a CSV file as a source of rows: what is a number, what is missing. csv.h cuts the
 * file into fields, columns.h says which of them are targets.
 */
#include "pipelines/prepare/table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "pipelines/prepare/columns.h"
#include "pipelines/prepare/csv.h"

struct source {
    struct table_source base; /* first: what callers see */
    struct csv csv;
    struct columns columns;
    uint64_t first_line;
    int drop;
};

/* ---- rows ----------------------------------------------------------------------------------- */

static int source_begin(struct table_source *base, struct digest *digest, struct err *e)
{
    struct source *s = (struct source *)base;
    base->dropped = 0;
    base->share = 0;
    if (csv_rewind(&s->csv, digest, e) < 0)
        return -1;
    return s->columns.header && csv_row(&s->csv, e) < 0 ? -1 : 0;
}

/* The class in a column, *label NULL where it may be missing and is: empty, NA, NaN, or a whole
 * number below 0 as in PyTorch, unless the file that is followed has such a class. */
static enum csv_number class_read(struct source *s, uint32_t column, const char **label)
{
    double number = 0;
    *label = csv_trimmed(&s->csv, column);
    enum csv_number kind = csv_number(*label, &number);
    if (!s->base.keeps_missing)
        return kind == CSV_MISSING ? CSV_MISSING : CSV_NUMBER;
    int none = kind == CSV_MISSING || (kind == CSV_NUMBER && number < 0 && number == floor(number));
    if (none && !like_has_class(&s->base.like, *label))
        *label = NULL;
    return CSV_NUMBER;
}

/* A value, NaN for a target that may be missing and is. */
static enum csv_number value_read(struct source *s, uint32_t column, double *values)
{
    uint32_t place = s->columns.place[column];
    enum csv_number kind = csv_number(csv_field(&s->csv, column), &values[place]);
    if (kind != CSV_MISSING || place < s->base.features || !s->base.keeps_missing)
        return kind;
    values[place] = NAN;
    return CSV_NUMBER;
}

static int value_refuse(const struct source *s, uint32_t column, enum csv_number kind,
                        struct err *e)
{
    const char *name = columns_name(&s->columns, column);
    int target = s->columns.place[column] >= s->base.features;
    if (kind != CSV_MISSING || (!target && !s->base.like.path))
        return csv_refuse(&s->csv, column, name, kind, e);
    if (target)
        err_set(
            e, EXIT_CODE_PERMANENT,
            "the target has no value (empty, NA or NaN); prepare.missing: drop leaves such rows "
            "out, model.missing_targets: true keeps them");
    else
        err_set(e, EXIT_CODE_PERMANENT,
                "the feature has no value (empty, NA or NaN); new rows (prepare.like) are told "
                "apart by their number, so that none is left out: each needs all of its features");
    return csv_place(&s->csv, column, name, e);
}

/* 1: a row; 0: a value is missing and the row is to be dropped; -1. */
static int row_convert(struct source *s, double *values, const char **label, struct err *e)
{
    int whole = 1;
    if (s->csv.field_count != s->columns.count)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: line %llu has %u columns; expected %u as in line %llu", s->csv.path,
                       (unsigned long long)s->csv.line, s->csv.field_count, s->columns.count,
                       (unsigned long long)s->first_line);
    for (uint32_t i = 0; i < s->columns.count; i++) {
        enum csv_number kind = s->columns.place[i] == COLUMN_CLASS ? class_read(s, i, label)
                                                                   : value_read(s, i, values);
        if (kind == CSV_NUMBER)
            continue;
        if (kind != CSV_MISSING || !s->drop)
            return value_refuse(s, i, kind, e);
        whole = 0;
    }
    return whole;
}

/* Empty lines are skipped; of new rows of one column one between rows may be one without a value.
 */
static int row_read(struct source *s, struct err *e)
{
    uint64_t line = s->csv.line_next;
    int more = csv_row(&s->csv, e);
    if (more <= 0 || s->csv.line == line || s->columns.count > 1 || !s->base.like.path)
        return more;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s: line %llu is empty; in new rows (prepare.like) of one column it may be one "
                   "without its feature, and none is left out: fill or remove it",
                   s->csv.path, (unsigned long long)line);
}

static int source_next(struct table_source *base, double *values, const char **label, struct err *e)
{
    struct source *s = (struct source *)base;
    int more;
    while ((more = row_read(s, e)) > 0) {
        int whole = row_convert(s, values, label, e);
        if (whole < 0)
            return -1;
        if (whole)
            break;
        base->dropped++;
    }
    base->share = csv_share(&s->csv);
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
    columns_free(&s->columns);
    csv_close(&s->csv);
    like_close(&s->base.like);
    free(s);
}

/* ---- together ------------------------------------------------------------------------------- */

int table_csv_open(struct table_source **s_p, const struct options *o, struct err *e)
{
    struct stat st;
    char delimiter;
    struct source *s = calloc(1, sizeof *s);
    *s_p = NULL;
    if (!s)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", o->data_source);
    s->base = (struct table_source){.command = "csv",
                                    .path = o->data_source,
                                    .options = o,
                                    .keeps_missing = table_keeps_missing(o),
                                    .begin = source_begin,
                                    .next = source_next,
                                    .where = source_where,
                                    .close = source_close};
    s->drop = table_drops(o);
    if (like_read(&s->base.like, o->prepare_like, e) < 0 ||
        csv_delimiter(o->prepare_delimiter, &delimiter, e) < 0 ||
        csv_open(&s->csv, o->data_source, delimiter, e) < 0 ||
        columns_read(&s->columns, &s->csv, o, &s->base.like, e) < 0) {
        source_close(&s->base);
        return -1;
    }
    s->first_line = s->csv.line;
    s->base.features = s->columns.features;
    s->base.targets = s->columns.targets;
    s->base.unlabelled = s->columns.unlabelled;
    s->base.columns = s->columns.feature_names;
    s->base.target_columns = s->columns.target_names;
    if (fstat(s->csv.fd, &st) == 0)
        own_stamp_file(s->base.stamp, sizeof s->base.stamp, o->data_source, &st);
    *s_p = &s->base;
    return 0;
}
