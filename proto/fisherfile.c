/* fisherfile.c - see fisherfile.h: blocks of a diagonal, each durable on its own, joined to one
 * file.
 *
 * A part holds what the joined file will hold of its block, so joining is reading and writing one
 * block after the other. Digests are over values, not over files: a part, the joined file, and a
 * file compressed at another level agree.
 */
#include "proto/fisherfile.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/h5file.h"
#include "proto/log.h"

/* 256 KiB a chunk: what a reader of a few parameters has to unpack. */
enum { CHUNK_VALUES = 65536, PATH_BYTES = 4200, NAME_BYTES = 32 };

static const char *block_name(char name[NAME_BYTES], uint64_t index)
{
    snprintf(name, NAME_BYTES, "blocks/%05" PRIu64, index);
    return name;
}

static const char *part_path(char path[PATH_BYTES], const char *part_dir, uint64_t index)
{
    snprintf(path, PATH_BYTES, "%s/%05" PRIu64 ".h5", part_dir, index);
    return path;
}

static void block_digest(struct digest *d, const char *name, uint64_t count, const float *values)
{
    digest_array(d, name, H5TYPE_F32, 1, &count, values);
}

static int block_write(struct h5writer *w, uint64_t index, const struct fisherfile_block *block,
                       const float *values, int level, struct err *e)
{
    char name[NAME_BYTES];
    const uint64_t chunk[1] = {CHUNK_VALUES};
    block_name(name, index);
    if (h5writer_gzip(w, name, H5TYPE_F32, 1, &block->count, chunk, level, values, e) < 0 ||
        h5writer_u64(w, name, "first", block->first, e) < 0)
        return -1;
    return h5writer_text(w, name, "tensors", block->tensors, e);
}

/* Read block `index` into *values (grown to fit; *room numbers fit) and *block. */
static int block_read(struct h5reader *r, const char *path, uint64_t index,
                      struct fisherfile_block *block, float **values, uint64_t *room, struct err *e)
{
    char name[NAME_BYTES];
    struct h5array a;
    if (h5reader_array(r, block_name(name, index), &a, e) < 0 ||
        h5reader_u64(r, name, "first", &block->first, e) < 0 ||
        h5reader_text(r, name, "tensors", block->tensors, sizeof block->tensors, e) < 0)
        return -1;
    if (a.type != H5TYPE_F32 || a.rank != 1)
        return err_set(e, EXIT_CODE_PERMANENT, "%s of %s is not one row of float32", name, path);
    block->count = a.dims[0];
    if (block->count > *room) {
        float *more = realloc(*values, a.bytes);
        if (!more)
            return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s of %s", name, path);
        *values = more;
        *room = block->count;
    }
    return h5reader_read(r, &a, *values, e);
}

static int one_digest(uint64_t index, uint64_t count, const float *values, char hex[65],
                      struct err *e)
{
    struct digest *d;
    char name[NAME_BYTES];
    if (digest_open(&d, e) < 0)
        return -1;
    block_digest(d, block_name(name, index), count, values);
    digest_close(&d, hex);
    return 0;
}

int fisherfile_write_part(const char *part_dir, uint64_t index, const char *job,
                          const struct fisherfile_block *block, const float *values, int level,
                          struct err *e)
{
    char path[PATH_BYTES], hex[65];
    struct h5writer *w;
    if (mkdir(part_dir, 0700) < 0 && errno != EEXIST)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot make directory %s", part_dir);
    h5writer_sweep(part_path(path, part_dir, index));
    if (one_digest(index, block->count, values, hex, e) < 0 || h5writer_open(&w, path, e) < 0)
        return -1;
    if (block_write(w, index, block, values, level, e) < 0 ||
        h5writer_text(w, "", "job", job, e) < 0 || h5writer_text(w, "", "digest", hex, e) < 0) {
        h5writer_abandon(&w);
        return -1;
    }
    return h5writer_commit(&w, e);
}

/* One part with its job and its digest checked; *values as in block_read. */
static int part_read(const char *path, uint64_t index, const char *job,
                     struct fisherfile_block *block, float **values, uint64_t *room, struct err *e)
{
    char found[129], stored[65], hex[65];
    struct h5reader *r;
    if (h5reader_open(&r, path, e) < 0)
        return -1;
    int result = -1;
    if (h5reader_text(r, "", "job", found, sizeof found, e) < 0 ||
        h5reader_text(r, "", "digest", stored, sizeof stored, e) < 0)
        goto out;
    if (strcmp(found, job) != 0) {
        err_set(e, EXIT_CODE_PERMANENT, "%s is of the job %s, not of %s", path, found, job);
        goto out;
    }
    if (block_read(r, path, index, block, values, room, e) < 0 ||
        one_digest(index, block->count, *values, hex, e) < 0)
        goto out;
    if (strcmp(hex, stored) != 0)
        err_set(e, EXIT_CODE_PERMANENT, "%s is damaged: digest %s, stored is %s", path, hex,
                stored);
    else
        result = 0;
out:
    h5reader_close(&r);
    return result;
}

int fisherfile_has_part(const char *part_dir, uint64_t index, const char *job, struct err *e)
{
    char path[PATH_BYTES];
    struct fisherfile_block block;
    float *values = NULL;
    uint64_t room = 0;
    if (access(part_path(path, part_dir, index), F_OK) < 0)
        return 0;
    int result = part_read(path, index, job, &block, &values, &room, e);
    free(values);
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
    char path[PATH_BYTES + NAME_MAX];
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

/* Add one block: it must begin where the one before ended. */
static int block_join(struct h5writer *w, struct digest *d, struct fisherfile_meta *meta,
                      uint64_t index, uint64_t *next, const struct fisherfile_block *block,
                      const float *values, int level, struct err *e)
{
    char name[NAME_BYTES];
    if (block->first != *next || block->count > meta->parameters - *next)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "block %" PRIu64 " of %s covers parameters from %" PRIu64
                       " on, wanted from %" PRIu64,
                       index, meta->job, block->first, *next);
    for (uint64_t i = 0; i < block->count; i++)
        meta->trace += (double)values[i];
    block_digest(d, block_name(name, index), block->count, values);
    *next += block->count;
    return block_write(w, index, block, values, level, e);
}

static int parts_join(struct h5writer *w, struct digest *d, const char *part_dir,
                      struct fisherfile_meta *meta, int level, struct err *e)
{
    char path[PATH_BYTES];
    struct fisherfile_block block;
    float *values = NULL;
    uint64_t room = 0, next = 0;
    int result = 0;
    meta->trace = 0;
    for (uint64_t i = 0; result == 0 && i < meta->blocks; i++) {
        result = part_read(part_path(path, part_dir, i), i, meta->job, &block, &values, &room, e);
        if (result == 0)
            result = block_join(w, d, meta, i, &next, &block, values, level, e);
    }
    if (result == 0 && next != meta->parameters)
        result = err_set(e, EXIT_CODE_PERMANENT,
                         "the parts in %s cover %" PRIu64 " of %" PRIu64 " parameters", part_dir,
                         next, meta->parameters);
    free(values);
    return result;
}

static int meta_write(struct h5writer *w, const struct fisherfile_meta *m, struct err *e)
{
    if (h5writer_text(w, "", "job", m->job, e) < 0 ||
        h5writer_text(w, "", "task", m->task, e) < 0 ||
        h5writer_text(w, "", "checkpoint", m->checkpoint, e) < 0 ||
        h5writer_text(w, "", "parameters_sha256", m->parameters_sha256, e) < 0 ||
        h5writer_text(w, "", "estimator", m->estimator, e) < 0 ||
        h5writer_text(w, "", "labels", m->labels, e) < 0 ||
        h5writer_u64(w, "", "samples", m->samples, e) < 0 ||
        h5writer_u64(w, "", "parameters", m->parameters, e) < 0 ||
        h5writer_u64(w, "", "blocks", m->blocks, e) < 0 ||
        h5writer_u64(w, "", "block_size", m->block_size, e) < 0 ||
        h5writer_f64(w, "", "trace", m->trace, e) < 0)
        return -1;
    return h5writer_text(w, "", "digest", m->digest, e);
}

static int meta_read(struct h5reader *r, struct fisherfile_meta *m, struct err *e)
{
    if (h5reader_text(r, "", "job", m->job, sizeof m->job, e) < 0 ||
        h5reader_text(r, "", "task", m->task, sizeof m->task, e) < 0 ||
        h5reader_text(r, "", "checkpoint", m->checkpoint, sizeof m->checkpoint, e) < 0 ||
        h5reader_text(r, "", "parameters_sha256", m->parameters_sha256, sizeof m->parameters_sha256,
                      e) < 0 ||
        h5reader_text(r, "", "estimator", m->estimator, sizeof m->estimator, e) < 0 ||
        h5reader_text(r, "", "labels", m->labels, sizeof m->labels, e) < 0 ||
        h5reader_u64(r, "", "samples", &m->samples, e) < 0 ||
        h5reader_u64(r, "", "parameters", &m->parameters, e) < 0 ||
        h5reader_u64(r, "", "blocks", &m->blocks, e) < 0 ||
        h5reader_u64(r, "", "block_size", &m->block_size, e) < 0 ||
        h5reader_f64(r, "", "trace", &m->trace, e) < 0)
        return -1;
    return h5reader_text(r, "", "digest", m->digest, sizeof m->digest, e);
}

int fisherfile_join(const char *path, const char *part_dir, struct fisherfile_meta *meta, int level,
                    struct err *e)
{
    struct h5writer *w = NULL;
    struct digest *d = NULL;
    char ignored[65];
    int result = -1;
    h5writer_sweep(path);
    if (digest_open(&d, e) < 0 || h5writer_open(&w, path, e) < 0)
        goto out;
    if (parts_join(w, d, part_dir, meta, level, e) < 0)
        goto out;
    digest_close(&d, meta->digest);
    if (meta_write(w, meta, e) < 0 || h5writer_commit(&w, e) < 0)
        goto out;
    fisherfile_remove_parts(part_dir);
    result = 0;
out:
    h5writer_abandon(&w);
    digest_close(&d, ignored);
    return result;
}

int fisherfile_read_meta(const char *path, struct fisherfile_meta *meta, struct err *e)
{
    struct h5reader *r;
    memset(meta, 0, sizeof *meta);
    if (h5reader_open(&r, path, e) < 0)
        return -1;
    int result = meta_read(r, meta, e);
    h5reader_close(&r);
    return result;
}

/* One block to its place in values[meta->parameters]. */
static int block_place(struct h5reader *r, const char *path, const struct fisherfile_meta *meta,
                       uint64_t index, uint64_t *next, float *values, struct digest *d,
                       struct err *e)
{
    char name[NAME_BYTES];
    struct h5array a;
    uint64_t first;
    if (h5reader_array(r, block_name(name, index), &a, e) < 0 ||
        h5reader_u64(r, name, "first", &first, e) < 0)
        return -1;
    if (a.type != H5TYPE_F32 || a.rank != 1 || first != *next ||
        a.dims[0] > meta->parameters - first)
        return err_set(e, EXIT_CODE_PERMANENT, "%s of %s does not follow the block before it", name,
                       path);
    if (h5reader_read(r, &a, values + first, e) < 0)
        return -1;
    block_digest(d, name, a.dims[0], values + first);
    *next += a.dims[0];
    return 0;
}

int fisherfile_read(const char *path, const struct fisherfile_meta *meta, float *values,
                    struct err *e)
{
    struct h5reader *r = NULL;
    struct digest *d = NULL;
    char hex[65];
    uint64_t next = 0;
    int result = -1;
    if (h5reader_open(&r, path, e) < 0 || digest_open(&d, e) < 0)
        goto out;
    for (uint64_t i = 0; i < meta->blocks; i++)
        if (block_place(r, path, meta, i, &next, values, d, e) < 0)
            goto out;
    digest_close(&d, hex);
    if (next != meta->parameters || strcmp(hex, meta->digest) != 0)
        err_set(e, EXIT_CODE_PERMANENT,
                "%s is damaged: %" PRIu64 " of %" PRIu64 " parameters, digest %s, stored is %s",
                path, next, meta->parameters, hex, meta->digest);
    else
        result = 0;
out:
    h5reader_close(&r);
    digest_close(&d, hex);
    return result;
}
