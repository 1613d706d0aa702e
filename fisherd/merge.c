/* merge.c - see merge.h. */
#include "fisherd/merge.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/fisher_code.h"

/* A damaged file costs its estimate and no more: without it trainerd asks for that first, and for
 * the sum again afterwards. */
static int source_damaged(const struct merge_source *s, struct err *e)
{
    if (e->code == EXIT_CODE_TEMPORARY || access(s->path, F_OK) < 0)
        return -1;
    if (unlink(s->path) < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot remove the damaged file %s", s->path);
    e->code = EXIT_CODE_TEMPORARY;
    return err_prefix(e, "%s is removed, to be made again", s->path);
}

static int source_open(struct merge *m, const char *task, size_t bytes,
                       const struct fisherfile_meta *wanted, struct fisherfile_meta *meta,
                       struct err *e)
{
    if (m->count == MERGE_TASKS_MAX)
        return err_set(e, EXIT_CODE_PERMANENT, "more than %d tasks are to be merged",
                       MERGE_TASKS_MAX);
    struct merge_source *s = &m->source[m->count++];
    snprintf(s->path, sizeof s->path, "fisher/%.*s.h5", (int)(bytes < 64 ? bytes : 64), task);
    if (fisherfile_open(&s->file, s->path, meta, e) < 0)
        return source_damaged(s, e);
    if (meta->parameters != wanted->parameters || meta->blocks != wanted->blocks)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has %" PRIu64 " parameters in %" PRIu64 " blocks, the model %" PRIu64
                       " in %" PRIu64 "; remove the file to have it made again",
                       s->path, meta->parameters, meta->blocks, wanted->parameters, wanted->blocks);
    return 0;
}

int merge_open(struct merge *m, const struct msg_estimate *job, struct fisherfile_meta *meta,
               struct err *e)
{
    struct fisherfile_meta last;
    const char *at = job->merge;
    memset(m, 0, sizeof *m);
    for (size_t bytes; *at; at += bytes + strspn(at + bytes, " "))
        if (source_open(m, at, bytes = strcspn(at, " "), meta, &last, e) < 0)
            return -1;
    if (source_open(m, job->task, strlen(job->task), meta, &last, e) < 0)
        return -1;
    if (strcmp(last.parameters_sha256, job->digest) != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s was made from parameters %.12s, the job is about %.12s",
                       m->source[m->count - 1].path, last.parameters_sha256, job->digest);
    for (int i = 0; i < m->count; i++)
        m->source[i].weight = pow(job->gamma, m->count - 1 - i);
    meta->samples = last.samples;
    snprintf(meta->labels, sizeof meta->labels, "%s", last.labels);
    snprintf(meta->estimator, sizeof meta->estimator, "online: %d tasks, gamma %g; %.80s", m->count,
             job->gamma, last.estimator);
    return 0;
}

void merge_close(struct merge *m)
{
    for (int i = 0; i < m->count; i++)
        fisherfile_close(&m->source[i].file);
    free(m->values);
    memset(m, 0, sizeof *m);
}

static int room_make(struct merge *m, uint64_t count, struct err *e)
{
    if (count <= m->room)
        return 0;
    free(m->values);
    m->values = malloc(count * sizeof *m->values);
    m->room = m->values ? count : 0;
    return m->values ? 0 : err_errno(e, EXIT_CODE_TEMPORARY, "cannot merge a block");
}

/* What the file has of the block into m->values. */
static int source_decode(struct merge *m, const struct merge_source *s,
                         const struct fisherfile_block *block, const struct fisherfile_block *range,
                         struct err *e)
{
    struct fisher_code code;
    if (block->first != range->first || block->count != range->count)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s is cut into other blocks than this run's block_size makes; remove the "
                       "file to have it made again",
                       s->path);
    if (fisher_code_begin(&code, block->form, block->count, e) < 0)
        return err_prefix(e, "%s", s->path);
    for (int i = 0; i < block->arrays; i++)
        fisher_code_add(&code, block->array[i].name, h5type_name(block->array[i].type),
                        block->array[i].count, block->array[i].data);
    return fisher_decode(&code, m->values, e) < 0 ? err_prefix(e, "%s", s->path) : 0;
}

/* The next block of each file; decoded and added if values is not NULL. */
static int blocks_take(struct merge *m, struct fisherfile_block *range, float *values,
                       struct err *e)
{
    double noise = 0, norm = 0;
    for (int i = 0; i < m->count; i++) {
        struct merge_source *s = &m->source[i];
        struct fisherfile_block block;
        int more = fisherfile_next(s->file, &block, e);
        ensure(more != 0); /* it has as many blocks as the model */
        if (more < 0)
            return source_damaged(s, e);
        int result = values ? source_decode(m, s, &block, range, e) : 0;
        fisherfile_block_free(&block);
        if (result < 0)
            return -1;
        for (uint64_t k = 0; values && k < range->count; k++)
            values[k] += (float)(s->weight * (double)m->values[k]);
        noise += pow(s->weight * block.noise * block.norm, 2);
    }
    for (uint64_t k = 0; values && k < range->count; k++)
        norm += (double)values[k] * (double)values[k];
    range->noise = norm > 0 ? sqrt(noise / norm) : 0;
    m->next++;
    return 0;
}

int merge_block(struct merge *m, uint64_t index, struct fisherfile_block *range, float *values,
                struct err *e)
{
    ensure(m->next <= index);
    if (room_make(m, range->count, e) < 0)
        return -1;
    memset(values, 0, range->count * sizeof *values);
    while (m->next < index) /* parts that an earlier process has made */
        if (blocks_take(m, range, NULL, e) < 0)
            return -1;
    return blocks_take(m, range, values, e);
}
