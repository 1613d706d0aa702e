/* molecule_source.c - see molecule_source.h: what data.source is, and its stamp. */
#include "pipelines/prepare/molecule_source.h"

#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "pipelines/prepare/stamp.h"

enum { FILES_MAX = 10000000, STAMP_MAX = 512 };

void text_files_free(struct text_files *files)
{
    for (uint64_t i = 0; i < files->count; i++)
        free(files->path[i]);
    free(files->path);
    *files = (struct text_files){.path = NULL};
}

static int file_add(struct text_files *files, const char *path, uint64_t bytes, struct err *e)
{
    if ((files->count & (files->count + 1)) == 0) { /* room for 1, 3, 7, ... */
        char **more = realloc(files->path, (2 * files->count + 1) * sizeof *more);
        if (!more)
            return err_errno(e, EXIT_CODE_TEMPORARY, "cannot list the source");
        files->path = more;
    }
    files->path[files->count] = strdup(path);
    if (!files->path[files->count])
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot list the source");
    files->count++;
    files->bytes += bytes;
    return files->count < FILES_MAX
               ? 0
               : err_set(e, EXIT_CODE_PERMANENT, "%s is one of over %d files", path, FILES_MAX);
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int ends_in(const char *name, const char *ending)
{
    size_t length = strlen(name), end = strlen(ending);
    return length > end && strcmp(name + length - end, ending) == 0;
}

/* The .txt files below a directory, in the order of their names. */
static int directory_list(struct text_files *files, const char *path, struct err *e)
{
    char *roots[] = {strdup(path), NULL};
    FTS *tree =
        roots[0] ? fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, by_name) : NULL;
    int result = tree ? 0 : err_errno(e, EXIT_CODE_PERMANENT, "cannot list %s", path);
    for (FTSENT *entry; result == 0 && (entry = fts_read(tree));) {
        if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR)
            result = err_set(e, EXIT_CODE_PERMANENT, "cannot list %s: %s", entry->fts_path,
                             strerror(entry->fts_errno));
        else if (entry->fts_info == FTS_F &&
                 (ends_in(entry->fts_name, ".txt") || ends_in(entry->fts_name, ".txt.zst")))
            result = file_add(files, entry->fts_path, (uint64_t)entry->fts_statp->st_size, e);
    }
    if (tree)
        fts_close(tree);
    free(roots[0]);
    if (result == 0 && files->count == 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s holds no .txt file; a directory of MassBank records, a file of them, or "
                       "a table with SMILES is accepted",
                       path);
    return result;
}

/* 1: a directory; 0: a file; -1. */
static int source_is_directory(const char *path, struct err *e)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot find data.source %s", path);
    return S_ISDIR(st.st_mode);
}

/* Of many files: how many, how large, and a digest of their own stamps. */
static int directory_stamp(const char *path, char *stamp, size_t bytes, struct err *e)
{
    struct text_files files = {.path = NULL};
    struct digest *digest = NULL;
    char hex[65], one[STAMP_MAX];
    int result = directory_list(&files, path, e);
    if (result == 0)
        result = digest_open(&digest, e);
    for (uint64_t i = 0; result == 0 && i < files.count; i++) {
        result = stamp_file(files.path[i], one, sizeof one, e);
        digest_bytes(digest, one, result == 0 ? strlen(one) + 1 : 0);
    }
    if (digest)
        digest_close(&digest, hex);
    if (result == 0)
        snprintf(stamp, bytes, "%llu files %llu bytes %s", (unsigned long long)files.count,
                 (unsigned long long)files.bytes, hex);
    text_files_free(&files);
    return result;
}

int molecule_source_stamp(const struct options *o, char *stamp, size_t bytes, struct err *e)
{
    int directory = source_is_directory(o->data_source, e);
    if (directory < 0)
        return -1;
    return directory ? directory_stamp(o->data_source, stamp, bytes, e)
                     : stamp_file(o->data_source, stamp, bytes, e);
}

int molecule_source_open(struct molecule_source **s_p, const struct options *o,
                         struct digest *digest, struct err *e)
{
    struct text_files files = {.path = NULL};
    struct stat st;
    int records = 1, result = 0;
    *s_p = NULL;
    int directory = source_is_directory(o->data_source, e);
    if (directory < 0)
        return -1;
    if (directory) {
        result = directory_list(&files, o->data_source, e);
    } else {
        records = massbank_begins(o->data_source, e);
        if (records > 0)
            result = stat(o->data_source, &st) != 0
                         ? err_errno(e, EXIT_CODE_PERMANENT, "cannot find %s", o->data_source)
                         : file_add(&files, o->data_source, (uint64_t)st.st_size, e);
    }
    if (result < 0 || records < 0) {
        text_files_free(&files);
        return -1;
    }
    return records ? molecule_source_massbank(s_p, &files, o, digest, e)
                   : molecule_source_table(s_p, o, digest, e);
}
