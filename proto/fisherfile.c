/* fisherfile.c - see fisherfile.h: blocks of a diagonal, each a file of its own, joined to one, and
 * read one after the other. A part holds what the joined file will hold of its block, so joining is
 * reading a block, to see that it is whole, and copying its group, packed as it is.
 */
#include "proto/fisherfile_private.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/log.h"

struct fisherfile {
    char path[FISHERFILE_PATH_BYTES];
    struct h5reader *reader;
    struct fisherfile_meta meta;
    struct fisherfile_sum sum;
    uint64_t index; /* of the next block */
};

struct fisherfile_join {
    struct h5writer *writer;
    struct fisherfile_sum sum;
    uint64_t index; /* of the next part */
};

static const char *part_path(char path[FISHERFILE_PATH_BYTES], const char *part_dir, uint64_t index)
{
    snprintf(path, FISHERFILE_PATH_BYTES, "%s/%05" PRIu64 ".h5", part_dir, index);
    return path;
}

int fisherfile_write_part(const char *part_dir, uint64_t index, const char *job,
                          struct fisherfile_block *block, const struct h5packed *packed,
                          struct err *e)
{
    char path[FISHERFILE_PATH_BYTES];
    struct h5writer *w;
    if (mkdir(part_dir, 0700) < 0 && errno != EEXIST)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot make directory %s", part_dir);
    if (h5writer_open(&w, part_path(path, part_dir, index), e) < 0)
        return -1;
    if (fisherfile_block_write(w, index, block, packed, e) < 0 ||
        h5writer_text(w, "", "job", job, e) < 0) {
        h5writer_abandon(&w);
        return -1;
    }
    return h5writer_place(&w, e);
}

/* Open a part and read its block, job and digest checked. fisherfile_block_free and h5reader_close
 * are due either way. */
static int part_read(struct h5reader **r_p, const char *path, uint64_t index, const char *job,
                     struct fisherfile_block *block, char hex[65], struct err *e)
{
    char found[129];
    block->arrays = 0;
    if (h5reader_open(r_p, path, e) < 0 ||
        h5reader_text(*r_p, "", "job", found, sizeof found, e) < 0)
        return -1;
    if (strcmp(found, job) != 0)
        return err_set(e, EXIT_CODE_PERMANENT, "%s is of the job %s, not of %s", path, found, job);
    return fisherfile_block_read(*r_p, path, index, block, hex, e);
}

int fisherfile_has_part(const char *part_dir, uint64_t index, const char *job, struct err *e)
{
    char path[FISHERFILE_PATH_BYTES], hex[65];
    struct fisherfile_block block;
    struct h5reader *r = NULL;
    if (access(part_path(path, part_dir, index), F_OK) < 0)
        return 0;
    int result = part_read(&r, path, index, job, &block, hex, e);
    fisherfile_block_free(&block);
    h5reader_close(&r);
    if (result == 0)
        return 1;
    if (e->code == EXIT_CODE_TEMPORARY)
        return -1;
    log_warn("part=%s \"removed and made again: %s\"", path, e->text);
    if (unlink(path) < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot remove %s", path);
    return 0;
}

void fisherfile_remove_parts(const char *part_dir)
{
    char path[FISHERFILE_PATH_BYTES + NAME_MAX];
    DIR *d = opendir(part_dir);
    if (!d)
        return;
    for (struct dirent *entry; (entry = readdir(d));) {
        const char *dot = strstr(entry->d_name, ".h5");
        if (!dot)
            continue;
        snprintf(path, sizeof path, "%s/%s", part_dir, entry->d_name);
        unlink(path);
    }
    closedir(d);
    rmdir(part_dir);
}

static int part_join(struct h5writer *w, struct fisherfile_sum *sum, const char *part_dir,
                     uint64_t index, const struct fisherfile_meta *meta, struct err *e)
{
    char path[FISHERFILE_PATH_BYTES], name[FISHERFILE_BLOCK_BYTES], hex[65];
    struct fisherfile_block block;
    struct h5reader *r = NULL;
    int result = part_read(&r, part_path(path, part_dir, index), index, meta->job, &block, hex, e);
    if (result < 0)
        e->code = EXIT_CODE_TEMPORARY; /* the next process makes it again */
    else
        result = fisherfile_sum_add(sum, meta->job, index, meta->parameters, &block, hex, e);
    fisherfile_block_free(&block);
    if (result == 0)
        result = h5writer_copy(w, fisherfile_block_name(name, index), r, e);
    h5reader_close(&r);
    return result;
}

int fisherfile_join_open(struct fisherfile_join **j_p, const char *path, struct err *e)
{
    struct fisherfile_join *j = *j_p = calloc(1, sizeof *j);
    if (!j)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot write %s", path);
    h5writer_sweep(path);
    return digest_open(&j->sum.digest, e) < 0 ? -1 : h5writer_open_many(&j->writer, path, e);
}

void fisherfile_join_close(struct fisherfile_join **j_p)
{
    struct fisherfile_join *j = *j_p;
    char ignored[65];
    if (!j)
        return;
    h5writer_abandon(&j->writer);
    digest_close(&j->sum.digest, ignored);
    free(j);
    *j_p = NULL;
}

/* What all blocks together say of the file. */
static int meta_fill(struct fisherfile_sum *sum, const char *part_dir, struct fisherfile_meta *meta,
                     struct err *e)
{
    if (sum->next != meta->parameters)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the parts in %s cover %" PRIu64 " of %" PRIu64 " parameters", part_dir,
                       sum->next, meta->parameters);
    meta->trace = sum->trace;
    meta->bytes = sum->bytes;
    meta->error = sum->squares > 0 ? sqrt(sum->differences / sum->squares) : 0;
    meta->noise = sum->squares > 0 ? sqrt(sum->noises / sum->squares) : 0;
    digest_close(&sum->digest, meta->digest);
    return 0;
}

int fisherfile_join_next(struct fisherfile_join *j, const char *part_dir,
                         struct fisherfile_meta *meta, struct err *e)
{
    if (j->index < meta->blocks)
        return part_join(j->writer, &j->sum, part_dir, j->index++, meta, e);
    if (meta_fill(&j->sum, part_dir, meta, e) < 0 ||
        fisherfile_meta_write(j->writer, meta, e) < 0 || h5writer_commit(&j->writer, e) < 0)
        return -1;
    fisherfile_remove_parts(part_dir);
    return 1;
}

int fisherfile_join(const char *path, const char *part_dir, struct fisherfile_meta *meta,
                    struct err *e)
{
    struct fisherfile_join *j;
    int done = fisherfile_join_open(&j, path, e);
    while (done == 0)
        done = fisherfile_join_next(j, part_dir, meta, e);
    fisherfile_join_close(&j);
    return done < 0 ? -1 : 0;
}

int fisherfile_read_meta(const char *path, struct fisherfile_meta *meta, struct err *e)
{
    struct h5reader *r;
    memset(meta, 0, sizeof *meta);
    if (h5reader_open(&r, path, e) < 0)
        return -1;
    int result = fisherfile_meta_read(r, meta, e);
    h5reader_close(&r);
    return result;
}

int fisherfile_open(struct fisherfile **f_p, const char *path, struct fisherfile_meta *meta,
                    struct err *e)
{
    struct fisherfile *f = *f_p = calloc(1, sizeof *f);
    if (!f)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", path);
    snprintf(f->path, sizeof f->path, "%s", path);
    if (digest_open(&f->sum.digest, e) < 0 || h5reader_open(&f->reader, path, e) < 0 ||
        fisherfile_meta_read(f->reader, &f->meta, e) < 0) {
        fisherfile_close(f_p);
        return -1;
    }
    *meta = f->meta;
    return 0;
}

void fisherfile_close(struct fisherfile **f_p)
{
    struct fisherfile *f = *f_p;
    char ignored[65];
    if (!f)
        return;
    h5reader_close(&f->reader);
    digest_close(&f->sum.digest, ignored);
    free(f);
    *f_p = NULL;
}

static int end_check(struct fisherfile *f, struct err *e)
{
    char hex[65] = "";
    digest_close(&f->sum.digest, hex);
    if (f->sum.next == f->meta.parameters && strcmp(hex, f->meta.digest) == 0)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s is damaged: %" PRIu64 " of %" PRIu64 " parameters, digest %s, stored is %s",
                   f->path, f->sum.next, f->meta.parameters, hex, f->meta.digest);
}

int fisherfile_next(struct fisherfile *f, struct fisherfile_block *block, struct err *e)
{
    char hex[65];
    block->arrays = 0;
    ensure(f->sum.digest); /* not called again after the end */
    if (f->index == f->meta.blocks)
        return end_check(f, e);
    if (fisherfile_block_read(f->reader, f->path, f->index, block, hex, e) < 0 ||
        fisherfile_sum_add(&f->sum, f->path, f->index, f->meta.parameters, block, hex, e) < 0) {
        fisherfile_block_free(block);
        return -1;
    }
    f->index++;
    return 1;
}
