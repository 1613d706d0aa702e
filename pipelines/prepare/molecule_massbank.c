/* molecule_massbank.c - MassBank records as a source of molecules: the records of all files. */
#include "pipelines/prepare/molecule_source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct source {
    struct molecule_source base; /* first: what callers see */
    struct text_files files;
    struct digest *digest;
    uint64_t file;       /* the one that is open; files.count: none is left */
    uint64_t bytes_done; /* of the files before it */
    struct lines lines;
    int open;
    uint64_t number; /* of the next record */
    struct massbank_record record;
};

static int source_next(struct molecule_source *base, struct molecule_entry *entry, struct err *e)
{
    struct source *s = (struct source *)base;
    int more = 0;
    while (more == 0 && s->file < s->files.count) {
        if (!s->open && lines_open(&s->lines, s->files.path[s->file], s->digest, e) < 0)
            return -1;
        s->open = 1;
        more = massbank_next(&s->lines, &s->record, e);
        if (more == 0) {
            s->bytes_done += s->lines.bytes_read;
            lines_close(&s->lines);
            s->open = 0;
            s->file++;
        }
    }
    if (more <= 0)
        return more;
    if (s->files.bytes)
        base->share = (double)(s->bytes_done + s->lines.bytes_read) / (double)s->files.bytes;
    *entry = (struct molecule_entry){
        .smiles = s->record.smiles,
        .key = s->record.inchikey[0] ? s->record.inchikey : s->record.inchi,
        .record = &s->record,
        .number = s->number++,
    };
    return 1;
}

static void source_where(const struct molecule_source *base, char *text, size_t bytes)
{
    const struct source *s = (const struct source *)base;
    const char *slash = strrchr(s->lines.path, '/');
    snprintf(text, bytes, "%.80s, line %llu, record %s", slash ? slash + 1 : s->lines.path,
             (unsigned long long)s->record.line, s->record.accession);
}

static void source_close(struct molecule_source *base)
{
    struct source *s = (struct source *)base;
    lines_close(&s->lines);
    text_files_free(&s->files);
    free(s->record.peak);
    free(s);
}

int molecule_source_massbank(struct molecule_source **s_p, struct text_files *files,
                             const struct options *o, struct digest *digest, struct err *e)
{
    struct source *s = calloc(1, sizeof *s);
    if (s) {
        s->files = *files;
        s->record.peak = malloc(MASSBANK_PEAKS_MAX * sizeof *s->record.peak);
    }
    if (!s || !s->record.peak) {
        err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", o->data_source);
        if (s)
            source_close(&s->base);
        else
            text_files_free(files);
        return -1;
    }
    s->base = (struct molecule_source){.path = o->data_source,
                                       .spectra = 1,
                                       .next = source_next,
                                       .where = source_where,
                                       .close = source_close};
    s->digest = digest;
    *s_p = &s->base;
    return 0;
}
