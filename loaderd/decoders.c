/* decoders.c - see decoders.h. One lock guards two lists (free jobs, jobs to do) and the batches; a
 * thread holds it only to take or to give back. Nobody spins: the machine's cores belong to the
 * trainer.
 */
#include "loaderd/decoders.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "loaderd/h5source.h"

struct buffer {
    unsigned char *at;
    uint64_t capacity;
};

/* What a thread decodes with. */
struct worker {
    struct decoder decoder;
    struct err opened;        /* code 0: the decoder is open */
    struct buffer raw, whole; /* a stored chunk; one decoded of which parts are wanted */
};

enum {
    READ_BYTES = 256 << 10, /* that a thread reads at a time, at least: whole pages */
    PAGE_BYTES = 4096,
    MAIN_READS_BELOW = 4, /* threads: the main one has more than enough to do for so many */
};

struct decoders {
    pthread_mutex_t lock;
    /* A job to do or the end, for workers and for those that only read; a job came free. */
    pthread_cond_t work, read, done;
    struct decoders_job *jobs, *free_list, *todo, **todo_end;
    unsigned job_count;
    int closing;
    struct worker own; /* of the main thread, where there are no others */
    unsigned workers, readers;
    pthread_t thread[DECODERS_THREADS_MAX]; /* the workers, then those that only read */
    unsigned threads;                       /* of them: started */
};

/* What a thread has taken: a job, or of a plain one some of its bytes. */
struct taken {
    struct decoders_job *job; /* NULL: nothing */
    uint64_t first, bytes;
};

double decoders_clock_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void worker_open(struct worker *w)
{
    *w = (struct worker){0};
    decoder_open(&w->decoder, &w->opened);
}

static void worker_close(struct worker *w)
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

/* What is stored, to `out`; *seconds it took. */
static int taken_read(const struct taken *t, void *out, double *seconds, struct err *e)
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

/* Read and decode one job. A part of a chunk goes through `whole`, which the thread keeps. */
static int taken_decode(struct worker *w, const struct taken *t, double *read_s, struct err *e)
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

/* What a job read leaves the page cache, as far as no other job is to read it, which may have been
 * read ahead. What two jobs want goes when the second is done; what the kernel keeps together with
 * bytes of a job before this one, with that. */
static void job_drop(struct decoders *p, struct decoders_job *job)
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

/* The first job to do, or NULL: the first plain one where only that will do. With the lock held. */
static struct decoders_job **todo_find(struct decoders *p, int only_plain)
{
    struct decoders_job **at = &p->todo;
    while (only_plain && *at && !(*at)->plain_out)
        at = &(*at)->next;
    return at;
}

/* Whoever takes one wakes the next, so that the main thread need not wake them all. */
static void others_wake(struct decoders *p)
{
    if (p->todo)
        pthread_cond_signal(&p->work);
    if (p->readers && *todo_find(p, 1))
        pthread_cond_signal(&p->read);
}

/* A job, or of a plain one as much as is worth a thread's while. With the lock held. */
static struct taken job_take(struct decoders *p, int only_plain)
{
    struct decoders_job **at = todo_find(p, only_plain), *job = *at;
    if (!job)
        return (struct taken){NULL};
    struct taken t = {job, job->taken, job->bytes - job->taken};
    uint64_t shares = t.bytes / READ_BYTES;
    if (job->plain_out && shares > 1)
        t.bytes = (t.bytes / shares + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    job->taken += t.bytes;
    job->takers++;
    if (job->taken == job->bytes) {
        *at = job->next;
        if (!*at)
            p->todo_end = at;
    }
    others_wake(p);
    return t;
}

/* Nobody is at the job any more: it is free again. Called with the lock held, which is given up
 * meanwhile. */
static void job_end(struct decoders *p, struct decoders_job *job)
{
    if (job->drop) {
        pthread_mutex_unlock(&p->lock);
        job_drop(p, job);
        pthread_mutex_lock(&p->lock);
    }
    job->batch->busy--;
    job->next = p->free_list;
    p->free_list = job;
    pthread_cond_signal(&p->done);
}

/* What was taken is done. Called with the lock held, which is given up meanwhile. */
static void taken_do(struct decoders *p, struct worker *w, const struct taken *t)
{
    struct decoders_job *job = t->job;
    pthread_mutex_unlock(&p->lock);
    struct err e = {0};
    double begin = decoders_clock_s(), read_s = 0, decode_s = 0;
    if (job->plain_out) {
        taken_read(t, job->plain_out + t->first, &read_s, &e);
    } else {
        taken_decode(w, t, &read_s, &e);
        decode_s = decoders_clock_s() - begin - read_s;
    }
    pthread_mutex_lock(&p->lock);
    struct decoders_batch *batch = job->batch;
    batch->read_s += read_s;
    batch->decode_s += decode_s;
    if (e.code && !batch->failure.code)
        batch->failure = e;
    if (!--job->takers && job->taken == job->bytes)
        job_end(p, job);
}

/* Waits for something to do. job NULL: the end. */
static struct taken job_next(struct decoders *p, int only_plain)
{
    while (!*todo_find(p, only_plain) && !p->closing)
        pthread_cond_wait(only_plain ? &p->read : &p->work, &p->lock);
    return job_take(p, only_plain);
}

static struct timespec clock_at(double s)
{
    return (struct timespec){.tv_sec = (time_t)s, .tv_nsec = (long)(1e9 * (s - floor(s)))};
}

/* The main thread has to wait for a job to be done, until `end_s` of the clock: it takes one, if
 * that is to be read, which needs no decoder. With the lock held. */
static void wait_or_read(struct decoders *p, double end_s)
{
    if (p->threads < MAIN_READS_BELOW && p->todo && p->todo->plain_out) {
        struct taken t = job_take(p, 1);
        taken_do(p, NULL, &t);
    } else if (isinf(end_s)) {
        pthread_cond_wait(&p->done, &p->lock);
    } else {
        struct timespec end = clock_at(end_s);
        pthread_cond_clockwait(&p->done, &p->lock, CLOCK_MONOTONIC, &end);
    }
}

static void *worker_main(void *self)
{
    struct decoders *p = self;
    struct worker w;
    worker_open(&w);
    pthread_mutex_lock(&p->lock);
    for (struct taken t; (t = job_next(p, 0)).job;)
        taken_do(p, &w, &t);
    pthread_mutex_unlock(&p->lock);
    worker_close(&w);
    return NULL;
}

static void *reading_main(void *self)
{
    struct decoders *p = self;
    pthread_mutex_lock(&p->lock);
    for (struct taken t; (t = job_next(p, 1)).job;)
        taken_do(p, NULL, &t);
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static int threads_start(struct decoders *p, unsigned count, void *(*of)(void *))
{
    for (unsigned end = p->threads + count; p->threads < end; p->threads++)
        if (pthread_create(&p->thread[p->threads], NULL, of, p) != 0)
            return -1;
    return 0;
}

int decoders_open(struct decoders **p_p, unsigned workers, unsigned readers, struct err *e)
{
    ensure(workers <= DECODERS_WORKERS_MAX && readers <= DECODERS_THREADS_MAX - workers);
    struct decoders *p = calloc(1, sizeof *p);
    *p_p = p;
    unsigned job_count = 2 * (workers + readers) + 2; /* each thread one in work and one waiting */
    if (p)
        p->jobs = calloc(job_count, sizeof *p->jobs);
    if (!p || !p->jobs) {
        free(p);
        *p_p = NULL;
        return err_set(e, EXIT_CODE_TEMPORARY, "cannot make the decoding threads: out of memory");
    }
    p->job_count = job_count;
    p->todo_end = &p->todo;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->read, NULL);
    pthread_cond_init(&p->done, NULL);
    for (unsigned i = 0; i < job_count; i++) {
        p->jobs[i].next = p->free_list;
        p->free_list = &p->jobs[i];
    }
    if (!workers)
        worker_open(&p->own);
    p->workers = workers;
    p->readers = readers;
    if (threads_start(p, workers, worker_main) == 0 && threads_start(p, readers, reading_main) == 0)
        return 0;
    decoders_close(p_p);
    return err_set(e, EXIT_CODE_TEMPORARY, "cannot start %u decoding threads", workers + readers);
}

void decoders_close(struct decoders **p_p)
{
    struct decoders *p = *p_p;
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->closing = 1;
    pthread_cond_broadcast(&p->work);
    pthread_cond_broadcast(&p->read);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->threads; i++)
        pthread_join(p->thread[i], NULL);
    worker_close(&p->own);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->read);
    pthread_cond_destroy(&p->done);
    pthread_mutex_destroy(&p->lock);
    free(p->jobs);
    free(p);
    *p_p = NULL;
}

struct decoders_job *decoders_take(struct decoders *p, double seconds)
{
    pthread_mutex_lock(&p->lock);
    if (!p->free_list) {
        double end_s = decoders_clock_s() + seconds;
        do
            wait_or_read(p, end_s);
        while (!p->free_list && decoders_clock_s() < end_s);
    }
    struct decoders_job *job = p->free_list;
    if (job) {
        p->free_list = job->next;
        *job = (struct decoders_job){0};
    }
    pthread_mutex_unlock(&p->lock);
    return job;
}

/* With the lock held. */
static void job_begin(struct decoders_job *job)
{
    job->next = NULL;
    job->wanted = job->drop != NULL;
    job->batch->busy++;
}

/* The whole of it, by the caller, with the lock held. */
static void job_do(struct decoders *p, struct worker *w, struct decoders_job *job)
{
    struct taken t = {job, 0, job->bytes};
    job->taken = job->bytes;
    job->takers = 1;
    taken_do(p, w, &t);
}

void decoders_submit(struct decoders *p, struct decoders_job *job)
{
    pthread_mutex_lock(&p->lock);
    job_begin(job);
    if (p->workers) {
        *p->todo_end = job;
        p->todo_end = &job->next;
        others_wake(p);
    } else {
        job_do(p, &p->own, job);
    }
    pthread_mutex_unlock(&p->lock);
}

void decoders_do(struct decoders *p, struct decoders_job *job)
{
    ensure(job->plain_out);
    pthread_mutex_lock(&p->lock);
    job_begin(job);
    job_do(p, NULL, job);
    pthread_mutex_unlock(&p->lock);
}

int decoders_is_done(struct decoders *p, const struct decoders_batch *batch)
{
    pthread_mutex_lock(&p->lock);
    int done = !batch->busy;
    pthread_mutex_unlock(&p->lock);
    return done;
}

void decoders_wait(struct decoders *p, const struct decoders_batch *batch)
{
    pthread_mutex_lock(&p->lock);
    while (batch->busy)
        wait_or_read(p, INFINITY);
    pthread_mutex_unlock(&p->lock);
}

void decoders_pause(struct decoders *p, const struct decoders_batch *batch, double seconds)
{
    pthread_mutex_lock(&p->lock);
    if (batch->busy)
        wait_or_read(p, decoders_clock_s() + seconds);
    pthread_mutex_unlock(&p->lock);
}
