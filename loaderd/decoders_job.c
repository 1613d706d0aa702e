/* decoders_job.c - see decoders_private.h: what a thread does with what it has taken, on its own:
 * no other thread waits for it meanwhile, and only job_drop looks at what the others do.
 */
#include "loaderd/decoders_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "loaderd/h5source.h"

void worker_open(struct worker *w)
{
    *w = (struct worker){0};
    decoder_open(&w->decoder, &w->opened);
}

void worker_close(struct worker *w)
{
    decoder_close(&w->decoder);
    free(w->raw.at);
    free(w->whole.at);
    *w = (struct worker){0};
}

/* NULL and *e: no memory. */
static void *buffer_get(struct buffer *b, uint64_t bytes, struct err *e)
{
    if (b->capacity < bytes) {
        free(b->at);
        b->at = malloc(bytes);
        b->capacity = b->at ? bytes : 0;
    }
    if (!b->at)
        err_set(e, EXIT_CODE_TEMPORARY, "cannot get %llu bytes for a chunk",
                (unsigned long long)bytes);
    return b->at;
}

/* Where the job's chunk is decoded to: its place, if it goes there whole, else a buffer. */
static void *job_place(struct worker *w, const struct decoders_job *job, struct err *e)
{
    if (job->whole)
        return job->whole;
    if (job->part_count == 1 && job->part[0].take_bytes == job->chunk_bytes)
        return job->part[0].out;
    return buffer_get(&w->whole, job->chunk_bytes, e);
}

int taken_read(const struct taken *t, void *out, double *seconds, struct err *e)
{
    const struct decoders_job *job = t->job;
    double begin = decoders_clock_s();
    uint64_t at = job->at + t->first;
    int failed = job->read(job->fd, out, t->bytes, at) != 0;
    *seconds = decoders_clock_s() - begin;
    if (!failed)
        return 0;
    if (errno)
        err_set(e, EXIT_CODE_PERMANENT, "%llu bytes at byte %llu: %s", (unsigned long long)t->bytes,
                (unsigned long long)at, strerror(errno));
    else
        err_set(e, EXIT_CODE_PERMANENT, "the file was cut and ends before byte %llu",
                (unsigned long long)(job->at + job->bytes));
    if (job->chunk == UINT64_MAX)
        return err_prefix(e, "%s cannot be read", job->name);
    return err_prefix(e, "chunk %llu of %s cannot be read", (unsigned long long)job->chunk,
                      job->name);
}

int taken_decode(struct worker *w, const struct taken *t, double *read_s, struct err *e)
{
    const struct decoders_job *job = t->job;
    if (w->opened.code) {
        *e = w->opened;
        return -1;
    }
    unsigned char *raw = buffer_get(&w->raw, job->bytes, e);
    if (!raw || taken_read(t, raw, read_s, e) != 0)
        return -1;
    char *out = job_place(w, job, e);
    if (!out)
        return -1;
    if (decode_chunk(&w->decoder, job->plan, job->mask, raw, job->bytes, out, job->chunk_bytes,
                     e) != 0)
        return err_prefix(e, "chunk %llu of %s cannot be decoded", (unsigned long long)job->chunk,
                          job->name);
    for (uint32_t i = 0; i < job->part_count; i++)
        if (job->part[i].out != out)
            memcpy(job->part[i].out, out + job->part[i].skip_bytes, job->part[i].take_bytes);
    return 0;
}

/* What lies around the bytes of a job and is another's that is not read yet: the end of the last
 * one before it (NULL: none) in *low, where the first one behind it begins in *high. 1; 0: one
 * overlaps it. With the lock held. */
static int neighbours_find(struct decoders *p, const struct decoders_job *job,
                           struct decoders_job **before, uint64_t *low, uint64_t *high)
{
    for (unsigned i = 0; i < p->job_count; i++) {
        struct decoders_job *other = &p->jobs[i];
        if (!other->wanted || other == job)
            continue;
        uint64_t end = other->at + other->bytes;
        if (other->at >= job->at + job->bytes) {
            *high = other->at < *high ? other->at : *high;
        } else if (end > job->at) {
            return 0;
        } else if (!*before || end > *low) {
            *before = other;
            *low = end;
        }
    }
    return 1;
}

void job_drop(struct decoders *p, struct decoders_job *job)
{
    struct decoders_job *before = NULL;
    uint64_t end = job->at + job->bytes, low = 0, high = UINT64_MAX;
    if (!job->drop)
        return;
    pthread_mutex_lock(&p->lock);
    job->wanted = 0;
    int alone = neighbours_find(p, job, &before, &low, &high);
    end = job->drop_end > end ? job->drop_end : end;
    if (before && end > before->drop_end && job->at - low < SOURCE_FOLIO_BYTES)
        before->drop_end = end;
    pthread_mutex_unlock(&p->lock);
    if (alone)
        job->drop(job->fd, job->at, end - job->at, low, high);
}
