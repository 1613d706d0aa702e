/* text_files.c - see text_files.h. */
#include "pipelines/prepare/text_files.h"

#include <errno.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "proto/h5file.h"

enum { BUFFER_BYTES = 256 << 10 };

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int file_add(struct text_files *f, const FTSENT *entry, struct digest *d, struct err *e)
{
    if (f->count == TEXT_FILES_MAX)
        return err_set(e, EXIT_CODE_PERMANENT, "there are more than %d files, with %s",
                       TEXT_FILES_MAX, entry->fts_path);
    if (f->count == f->capacity) {
        uint64_t capacity = f->capacity ? 2 * f->capacity : 256;
        struct text_file *file = realloc(f->file, capacity * sizeof *file);
        if (!file)
            return err_errno(e, EXIT_CODE_TEMPORARY, "cannot list the files");
        f->file = file;
        f->capacity = capacity;
    }
    const struct stat *st = entry->fts_statp;
    char *path = strdup(entry->fts_path);
    if (!path)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot list the files");
    f->file[f->count++] = (struct text_file){.path = path, .seen = seen_of(st)};
    f->stored_bytes += (uint64_t)st->st_size;
    digest_bytes(d, path, strlen(path) + 1);
    digest_bytes(d, &st->st_size, sizeof st->st_size);
    digest_bytes(d, &st->st_mtim, sizeof st->st_mtim);
    return 0;
}

static int entry_take(struct text_files *f, FTS *walk, FTSENT *entry, struct digest *d,
                      struct err *e)
{
    int hidden = entry->fts_level > 0 && entry->fts_name[0] == '.';
    switch (entry->fts_info) {
    case FTS_F:
        return hidden ? 0 : file_add(f, entry, d, e);
    case FTS_D:
        if (hidden)
            fts_set(walk, entry, FTS_SKIP);
        return 0;
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
        errno = entry->fts_errno;
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot read %s", entry->fts_path);
    case FTS_DC:
        return err_set(e, EXIT_CODE_PERMANENT, "the directory %s lies within itself",
                       entry->fts_path);
    default:
        return 0;
    }
}

int text_files_open(struct text_files *f, const char *path, struct err *e)
{
    char *const roots[] = {(char *)(uintptr_t)path, NULL}; /* fts reads them only */
    struct digest *d = NULL;
    FTSENT *entry;
    int result = -1;
    memset(f, 0, sizeof *f);
    FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, by_name);
    if (!walk) {
        err_errno(e, EXIT_CODE_PERMANENT, "cannot read %s", path);
        goto out;
    }
    if (digest_open(&d, e) < 0)
        goto out;
    while ((errno = 0, entry = fts_read(walk)))
        if (entry_take(f, walk, entry, d, e) < 0)
            goto out;
    if (errno)
        err_errno(e, EXIT_CODE_PERMANENT, "cannot read %s", path);
    else
        result = 0;
out:
    if (walk)
        fts_close(walk);
    digest_close(&d, f->digest);
    return result;
}

void text_files_close(struct text_files *f)
{
    for (uint64_t i = 0; i < f->count; i++)
        free(f->file[i].path);
    free(f->file);
    memset(f, 0, sizeof *f);
}

int text_file_read(const struct text_file *f,
                   int (*take)(void *self, const void *data, uint64_t bytes, struct err *e),
                   void *self, struct err *e)
{
    const char *path = f->path;
    int got, result = -1, code = Z_OK;
    unsigned char *buffer = malloc(BUFFER_BYTES);
    gzFile gz = gzopen(path, "rbe"); /* reads plain files as they are */
    if (!buffer || !gz) {
        err_errno(e, gz ? EXIT_CODE_TEMPORARY : EXIT_CODE_PERMANENT, "cannot open %s", path);
        goto out;
    }
    gzbuffer(gz, BUFFER_BYTES);
    while ((got = gzread(gz, buffer, BUFFER_BYTES)) > 0)
        if (take(self, buffer, (uint64_t)got, e) < 0)
            goto out;
    const char *why = gzerror(gz, &code);
    if (code == Z_ERRNO)
        err_errno(e, EXIT_CODE_PERMANENT, "cannot read %s", path);
    else if (code == Z_BUF_ERROR)
        err_set(e, EXIT_CODE_PERMANENT, "%s is too short: its gzip stream does not end", path);
    else if (code != Z_OK && code != Z_STREAM_END)
        err_set(e, EXIT_CODE_PERMANENT, "%s is damaged: gzip says %s", path, why);
    else
        result = seen_check(&f->seen, path, e);
out:
    if (gz)
        gzclose(gz);
    free(buffer);
    return result;
}
