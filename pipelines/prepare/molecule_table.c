/* molecule_table.c - a table with a column of SMILES as a source of molecules.
 *
 * Its rows may have more or fewer columns than the first, so long as those asked for are there; one
 * that lacks them has no structure. In a table with tabs quotes mean nothing, as names of chemicals
 * hold them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/prepare/csv.h"
#include "pipelines/prepare/molecule_source.h"

struct source {
    struct molecule_source base; /* first: what callers see */
    struct csv csv;
    uint32_t smiles, key; /* columns */
    int keyed;
    int first_held; /* the first row was read and is to be given */
    uint64_t number;
};

static int source_next(struct molecule_source *base, struct molecule_entry *entry, struct err *e)
{
    struct source *s = (struct source *)base;
    int more = s->first_held ? 1 : csv_row(&s->csv, e);
    s->first_held = 0;
    if (more <= 0)
        return more;
    base->share = csv_share(&s->csv);
    *entry = (struct molecule_entry){.smiles = "", .key = "", .number = s->number++};
    if (s->smiles < s->csv.field_count)
        entry->smiles = csv_trimmed(&s->csv, s->smiles);
    if (s->keyed && s->key < s->csv.field_count)
        entry->key = csv_trimmed(&s->csv, s->key);
    return 1;
}

static void source_where(const struct molecule_source *base, char *text, size_t bytes)
{
    const struct source *s = (const struct source *)base;
    const char *slash = strrchr(s->csv.path, '/');
    snprintf(text, bytes, "%.80s, line %llu", slash ? slash + 1 : s->csv.path,
             (unsigned long long)s->csv.line);
}

static void source_close(struct molecule_source *base)
{
    struct source *s = (struct source *)base;
    csv_close(&s->csv);
    text_files_close(&base->files);
    free(s);
}

/* The column `wanted`, by name in the first row or by number. */
static int column_find(struct source *s, const char *wanted, const char *option, int header,
                       uint32_t *column, struct err *e)
{
    for (uint32_t i = 0; header && i < s->csv.field_count; i++)
        if (strcmp(csv_trimmed(&s->csv, i), wanted) == 0) {
            *column = i;
            return 0;
        }
    if (csv_column_number(wanted, s->csv.field_count, column))
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s has no column \"%.100s\" (%s) among the %u of its first row%s", s->csv.path,
                   wanted, option, s->csv.field_count,
                   header ? "" : "; a number from 0 is accepted where no row holds names");
}

/* auto: there are names if the column of SMILES is asked for by one. */
static int has_header(const struct options *o)
{
    uint32_t column;
    if (strcmp(o->prepare_header, "auto") != 0)
        return o->prepare_header[0] == 'y';
    return !csv_column_number(o->prepare_smiles, CSV_FIELDS_MAX, &column);
}

/* New rows may come in a table of their own, whose first row tells the column, and need no key. */
static int says_smiles(struct source *s)
{
    for (uint32_t i = 0; i < s->csv.field_count; i++)
        if (strcasecmp(csv_trimmed(&s->csv, i), "smiles") == 0)
            return s->smiles = i, 1;
    return 0;
}

static int columns_find(struct source *s, const struct options *o, struct err *e)
{
    int header = has_header(o), more = csv_row(&s->csv, e);
    if (more <= 0)
        return more < 0 ? -1 : err_set(e, EXIT_CODE_PERMANENT, "%s holds no row", o->data_source);
    if (o->prepare_like[0] && says_smiles(s))
        return 0;
    s->keyed = o->prepare_inchikey[0] && !o->prepare_like[0];
    if (column_find(s, o->prepare_smiles, "prepare.smiles", header, &s->smiles, e) < 0 ||
        (s->keyed &&
         column_find(s, o->prepare_inchikey, "prepare.inchikey", header, &s->key, e) < 0))
        return -1;
    s->first_held = !header;
    return 0;
}

static int source_begin(struct molecule_source *base, struct digest *digest, struct err *e)
{
    struct source *s = (struct source *)base;
    return csv_rewind(&s->csv, digest, e) < 0 ? -1 : columns_find(s, base->options, e);
}

/* A tab in the first line decides; else the option does. */
static int delimiter_find(const struct options *o, char *delimiter, struct err *e)
{
    struct lines l;
    char *line;
    int more = lines_open(&l, o->data_source, NULL, e);
    if (more == 0)
        more = lines_next(&l, &line, e);
    if (more == 0 || (more > 0 && !strchr(line, '\t')))
        more = csv_delimiter(o->prepare_delimiter, delimiter, e);
    else if (more > 0)
        *delimiter = '\t';
    if (more >= 0 && l.zstd)
        more = err_set(e, EXIT_CODE_PERMANENT,
                       "%s is compressed and no file of MassBank records; a table is read as it is",
                       o->data_source);
    lines_close(&l);
    return more < 0 ? -1 : 0;
}

int molecule_source_table(struct molecule_source **s_p, const struct options *o, struct err *e)
{
    char delimiter;
    if (delimiter_find(o, &delimiter, e) < 0)
        return -1;
    struct source *s = calloc(1, sizeof *s);
    if (!s)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", o->data_source);
    s->base = (struct molecule_source){
        .begin = source_begin, .next = source_next, .where = source_where, .close = source_close};
    if (csv_open(&s->csv, o->data_source, delimiter, e) < 0) {
        source_close(&s->base);
        return -1;
    }
    s->csv.unquoted = delimiter == '\t';
    *s_p = &s->base;
    return 0;
}
