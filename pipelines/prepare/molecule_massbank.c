/* molecule_massbank.c - MassBank records as a source of molecules: the records of all files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/prepare/molecule_source.h"

struct source {
    struct molecule_source base; /* first: what callers see */
    struct digest *digest;
    uint64_t file;       /* the one that is open, or the next one */
    uint64_t bytes_done; /* of the files before it */
    struct lines lines;
    int open;
    uint64_t number; /* of the next record */
    struct massbank_record record;
};

static int source_begin(struct molecule_source *base, struct digest *digest, struct err *e)
{
    struct source *s = (struct source *)base;
    (void)e;
    s->digest = digest;
    return 0;
}

static int ends_in(const char *name, const char *ending)
{
    size_t length = strlen(name), end = strlen(ending);
    return length > end && strcmp(name + length - end, ending) == 0;
}

/* A single file may be called as it likes; beside records lie lists and licences. */
static int is_wanted(const struct source *s, const char *path)
{
    return strcmp(path, s->base.options->data_source) == 0 || ends_in(path, ".txt") ||
           ends_in(path, ".txt.zst");
}

/* Open the next wanted file. 1; 0: there is none; -1. */
static int file_open(struct source *s, struct err *e)
{
    const struct text_files *f = &s->base.files;
    while (s->file < f->count && !is_wanted(s, f->file[s->file].path))
        s->bytes_done += (uint64_t)f->file[s->file++].seen.bytes;
    if (s->file == f->count)
        return 0;
    s->open = 1;
    return lines_open(&s->lines, f->file[s->file].path, s->digest, e) < 0 ? -1 : 1;
}

static void file_close(struct source *s)
{
    s->bytes_done += (uint64_t)s->base.files.file[s->file++].seen.bytes;
    lines_close(&s->lines);
    s->open = 0;
}

static int source_next(struct molecule_source *base, struct molecule_entry *entry, struct err *e)
{
    struct source *s = (struct source *)base;
    int more;
    while ((more = s->open ? 1 : file_open(s, e)) > 0) {
        more = massbank_next(&s->lines, &s->record, e);
        if (more != 0)
            break;
        file_close(s);
    }
    if (more <= 0)
        return more;
    base->share =
        (double)(s->bytes_done + s->lines.bytes_read) / (double)(base->files.stored_bytes + 1);
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
    text_files_close(&base->files);
    free(s->record.peak);
    free(s);
}

int molecule_source_massbank(struct molecule_source **s_p, struct err *e)
{
    struct source *s = calloc(1, sizeof *s);
    struct peak *peak = malloc(MASSBANK_PEAKS_MAX * sizeof *peak);
    if (!s || !peak) {
        free(s);
        free(peak);
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot keep the peaks of a record");
    }
    s->base = (struct molecule_source){.spectra = 1,
                                       .begin = source_begin,
                                       .next = source_next,
                                       .where = source_where,
                                       .close = source_close};
    s->record.peak = peak;
    *s_p = &s->base;
    return 0;
}
