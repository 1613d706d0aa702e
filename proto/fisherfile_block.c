/* fisherfile_block.c - one block and the root's attributes, written and read: see fisherfile.h.
 * Digests are over what the arrays hold, not over files, so that a part and the joined file agree
 * however they are packed.
 */
#include "proto/fisherfile_private.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *fisherfile_block_name(char name[FISHERFILE_BLOCK_BYTES], uint64_t index)
{
    snprintf(name, FISHERFILE_BLOCK_BYTES, "blocks/%05" PRIu64, index);
    return name;
}

static int block_digest(const struct fisherfile_block *b, char hex[65], struct err *e)
{
    struct digest *d;
    char line[128];
    int bytes =
        snprintf(line, sizeof line, "%s %" PRIu64 " %" PRIu64 "\n", b->form, b->first, b->count);
    if (digest_open(&d, e) < 0)
        return -1;
    digest_bytes(d, line, (uint64_t)bytes);
    for (int i = 0; i < b->arrays; i++)
        digest_array(d, b->array[i].name, b->array[i].type, 1, &b->array[i].count,
                     b->array[i].data);
    digest_close(&d, hex);
    return 0;
}

static int arrays_write(struct h5writer *w, const char *name, struct fisherfile_block *block,
                        const struct h5packed *packed, struct err *e)
{
    char path[FISHERFILE_BLOCK_BYTES + FISHERFILE_NAME_BYTES + 1];
    block->bytes = 0;
    for (int i = 0; i < block->arrays; i++) {
        struct fisherfile_array *a = &block->array[i];
        snprintf(path, sizeof path, "%s/%s", name, a->name);
        a->type = packed[i].type;
        a->count = packed[i].count;
        a->data = (void *)(uintptr_t)packed[i].data; /* borrowed, for the digest */
        if (h5writer_packed(w, path, &packed[i], e) < 0)
            return -1;
        block->bytes += h5packed_bytes(&packed[i]);
    }
    return 0;
}

int fisherfile_block_write(struct h5writer *w, uint64_t index, struct fisherfile_block *block,
                           const struct h5packed *packed, struct err *e)
{
    char name[FISHERFILE_BLOCK_BYTES], hex[65];
    fisherfile_block_name(name, index);
    ensure(block->arrays > 0 && block->arrays <= FISHERFILE_ARRAYS_MAX);
    if (arrays_write(w, name, block, packed, e) < 0 || block_digest(block, hex, e) < 0 ||
        h5writer_u64(w, name, "first", block->first, e) < 0 ||
        h5writer_u64(w, name, "count", block->count, e) < 0 ||
        h5writer_text(w, name, "tensors", block->tensors, e) < 0 ||
        h5writer_text(w, name, "form", block->form, e) < 0 ||
        h5writer_f64(w, name, "sum", block->sum, e) < 0 ||
        h5writer_f64(w, name, "norm", block->norm, e) < 0 ||
        h5writer_f64(w, name, "error", block->error, e) < 0 ||
        h5writer_f64(w, name, "noise", block->noise, e) < 0 ||
        h5writer_u64(w, name, "bytes", block->bytes, e) < 0)
        return -1;
    return h5writer_text(w, name, "digest", hex, e);
}

static int attributes_read(struct h5reader *r, const char *name, struct fisherfile_block *b,
                           char digest[65], struct err *e)
{
    if (h5reader_u64(r, name, "first", &b->first, e) < 0 ||
        h5reader_u64(r, name, "count", &b->count, e) < 0 ||
        h5reader_text(r, name, "tensors", b->tensors, sizeof b->tensors, e) < 0 ||
        h5reader_text(r, name, "form", b->form, sizeof b->form, e) < 0 ||
        h5reader_f64(r, name, "sum", &b->sum, e) < 0 ||
        h5reader_f64(r, name, "norm", &b->norm, e) < 0 ||
        h5reader_f64(r, name, "error", &b->error, e) < 0 ||
        h5reader_f64(r, name, "noise", &b->noise, e) < 0 ||
        h5reader_u64(r, name, "bytes", &b->bytes, e) < 0)
        return -1;
    return h5reader_text(r, name, "digest", digest, 65, e);
}

struct arrays_visit {
    struct h5reader *r;
    const char *path;
    struct fisherfile_block *block;
    struct err *e;
};

static int array_visit(void *self, const struct h5array *found)
{
    struct arrays_visit *v = self;
    struct fisherfile_block *b = v->block;
    const char *name = strrchr(found->name, '/') + 1;
    if (b->arrays == FISHERFILE_ARRAYS_MAX || found->rank != 1 ||
        strlen(name) >= FISHERFILE_NAME_BYTES)
        return err_set(v->e, EXIT_CODE_PERMANENT,
                       "%s of %s is not an array of a block of the Fisher information", found->name,
                       v->path);
    struct fisherfile_array *a = &b->array[b->arrays];
    *a = (struct fisherfile_array){.type = found->type, .count = found->dims[0]};
    snprintf(a->name, sizeof a->name, "%s", name);
    a->data = malloc(found->bytes ? found->bytes : 1);
    if (!a->data)
        return err_errno(v->e, EXIT_CODE_TEMPORARY, "cannot read %s of %s", found->name, v->path);
    b->arrays++;
    return h5reader_read(v->r, found, a->data, v->e);
}

int fisherfile_block_read(struct h5reader *r, const char *path, uint64_t index,
                          struct fisherfile_block *block, char hex[65], struct err *e)
{
    char name[FISHERFILE_BLOCK_BYTES], stored[65];
    struct arrays_visit visit = {r, path, block, e};
    memset(block, 0, sizeof *block);
    fisherfile_block_name(name, index);
    if (!h5reader_is_group(r, name))
        return err_set(e, EXIT_CODE_PERMANENT, "%s has no group %s", path, name);
    if (attributes_read(r, name, block, stored, e) < 0 ||
        h5reader_each(r, name, array_visit, &visit, e) < 0 || block_digest(block, hex, e) < 0)
        return -1;
    if (strcmp(hex, stored) != 0)
        return err_set(e, EXIT_CODE_PERMANENT, "%s of %s is damaged: digest %s, stored is %s", name,
                       path, hex, stored);
    return 0;
}

void fisherfile_block_free(struct fisherfile_block *block)
{
    for (int i = 0; i < block->arrays; i++)
        free(block->array[i].data);
    block->arrays = 0;
}

int fisherfile_sum_add(struct fisherfile_sum *s, const char *path, uint64_t index,
                       uint64_t parameters, const struct fisherfile_block *block,
                       const char hex[65], struct err *e)
{
    if (block->first != s->next || block->count == 0 || block->count > parameters - s->next)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "block %" PRIu64 " of %s covers %" PRIu64 " parameters from %" PRIu64
                       " on, wanted from %" PRIu64 " on and at most to %" PRIu64,
                       index, path, block->count, block->first, s->next, parameters);
    s->next += block->count;
    s->bytes += block->bytes;
    s->trace += block->sum;
    s->squares += block->norm * block->norm;
    s->differences += block->norm * block->error * (block->norm * block->error);
    s->noises += block->norm * block->noise * (block->norm * block->noise);
    digest_bytes(s->digest, hex, 64);
    return 0;
}

int fisherfile_meta_write(struct h5writer *w, const struct fisherfile_meta *m, struct err *e)
{
    if (h5writer_text(w, "", "job", m->job, e) < 0 ||
        h5writer_text(w, "", "task", m->task, e) < 0 ||
        h5writer_text(w, "", "checkpoint", m->checkpoint, e) < 0 ||
        h5writer_text(w, "", "parameters_sha256", m->parameters_sha256, e) < 0 ||
        h5writer_text(w, "", "estimator", m->estimator, e) < 0 ||
        h5writer_text(w, "", "labels", m->labels, e) < 0 ||
        h5writer_text(w, "", "compression", m->compression, e) < 0 ||
        h5writer_u64(w, "", "samples", m->samples, e) < 0 ||
        h5writer_u64(w, "", "parameters", m->parameters, e) < 0 ||
        h5writer_u64(w, "", "blocks", m->blocks, e) < 0 ||
        h5writer_u64(w, "", "block_size", m->block_size, e) < 0 ||
        h5writer_f64(w, "", "trace", m->trace, e) < 0 ||
        h5writer_f64(w, "", "error", m->error, e) < 0 ||
        h5writer_f64(w, "", "noise", m->noise, e) < 0 ||
        h5writer_u64(w, "", "bytes", m->bytes, e) < 0 ||
        h5writer_f64(w, "", "bytes_per_parameter", (double)m->bytes / (double)m->parameters, e) < 0)
        return -1;
    return h5writer_text(w, "", "digest", m->digest, e);
}

int fisherfile_meta_read(struct h5reader *r, struct fisherfile_meta *m, struct err *e)
{
    if (h5reader_text(r, "", "job", m->job, sizeof m->job, e) < 0 ||
        h5reader_text(r, "", "task", m->task, sizeof m->task, e) < 0 ||
        h5reader_text(r, "", "checkpoint", m->checkpoint, sizeof m->checkpoint, e) < 0 ||
        h5reader_text(r, "", "parameters_sha256", m->parameters_sha256, sizeof m->parameters_sha256,
                      e) < 0 ||
        h5reader_text(r, "", "estimator", m->estimator, sizeof m->estimator, e) < 0 ||
        h5reader_text(r, "", "labels", m->labels, sizeof m->labels, e) < 0 ||
        h5reader_text(r, "", "compression", m->compression, sizeof m->compression, e) < 0 ||
        h5reader_u64(r, "", "samples", &m->samples, e) < 0 ||
        h5reader_u64(r, "", "parameters", &m->parameters, e) < 0 ||
        h5reader_u64(r, "", "blocks", &m->blocks, e) < 0 ||
        h5reader_u64(r, "", "block_size", &m->block_size, e) < 0 ||
        h5reader_f64(r, "", "trace", &m->trace, e) < 0 ||
        h5reader_f64(r, "", "error", &m->error, e) < 0 ||
        h5reader_f64(r, "", "noise", &m->noise, e) < 0 ||
        h5reader_u64(r, "", "bytes", &m->bytes, e) < 0)
        return -1;
    return h5reader_text(r, "", "digest", m->digest, sizeof m->digest, e);
}
