/* decoders.c - see decoders.h. One lock guards two lists (free jobs, jobs to do) and the batches; a
 * thread holds it only to take or to give back. Nobody spins for work: the machine's cores belong
 * to the trainer.
 */
#include "loaderd/decoders_private.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

enum {
    READ_BYTES = 512 << 10, /* that a thread reads at a time, at least: whole pages */
    PAGE_BYTES = 4096,
    MAIN_READS_BELOW = 4, /* threads: the main one has more than enough to do for so many */
    JOBS_A_WAKE = 4,      /* of those that are only read */
    FREE_PART = 4,        /* of the jobs: free again, it is worth to wake the main thread */
};

double decoders_clock_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* How often this thread has given up its core until something comes: not as one that was put aside
 * for another. */
static uint64_t thread_sleeps(void)
{
    struct rusage now;
    getrusage(RUSAGE_THREAD, &now);
    return (uint64_t)now.ru_nvcsw;
}

/* The first job to do, or NULL: the first plain one where only that will do. With the lock held. */
static struct decoders_job **todo_find(struct decoders *p, int only_plain)
{
    struct decoders_job **at = &p->todo;
    while (only_plain && *at && !(*at)->plain_out)
        at = &(*at)->next;
    return at;
}

/* Where a thread sleeps that can do what waits; NULL: none does. Whoever takes something wakes it,
 * so that the main thread, on whom all of them wait, need not wake them all. With the lock held; it
 * is woken without, for it would have to wait for the lock. */
static pthread_cond_t *sleeper_find(struct decoders *p)
{
    p->unwoken = 0;
    if (p->asleep[1] && *todo_find(p, 1))
        return &p->read;
    return p->asleep[0] && p->todo ? &p->work : NULL;
}

static void sleeper_wake(pthread_cond_t *at)
{
    if (at)
        pthread_cond_signal(at);
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
    t.sleeper = sleeper_find(p);
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
    int batch_done = !--job->batch->busy;
    job->next = p->free_list;
    p->free_list = job;
    if (++p->free_count >= p->free_awaited || batch_done)
        pthread_cond_signal(&p->done);
}

/* What was taken is done. Called with the lock held, which is given up meanwhile. */
static void taken_do(struct decoders *p, struct worker *w, const struct taken *t)
{
    struct decoders_job *job = t->job;
    pthread_mutex_unlock(&p->lock);
    sleeper_wake(t->sleeper);
    struct err e = {0};
    double begin = decoders_clock_s(), read_s = 0, decode_s = 0;
    uint64_t sleeps = 0;
    if (job->plain_out) {
        uint64_t before = thread_sleeps();
        taken_read(t, job->plain_out + t->first, &read_s, &e);
        sleeps = thread_sleeps() - before;
    } else {
        taken_decode(w, t, &read_s, &e);
        decode_s = decoders_clock_s() - begin - read_s;
    }
    pthread_mutex_lock(&p->lock);
    struct decoders_batch *batch = job->batch;
    batch->read_s += read_s;
    batch->decode_s += decode_s;
    batch->sleeps += sleeps;
    if (e.code && !batch->failure.code)
        batch->failure = e;
    if (!--job->takers && job->taken == job->bytes)
        job_end(p, job);
}

/* Waits for something to do. job NULL: the end. */
static struct taken job_next(struct decoders *p, int only_plain)
{
    while (!*todo_find(p, only_plain) && !p->closing) {
        p->asleep[only_plain]++;
        pthread_cond_wait(only_plain ? &p->read : &p->work, &p->lock);
        p->asleep[only_plain]--;
    }
    return job_take(p, only_plain);
}

static struct timespec clock_at(double s)
{
    return (struct timespec){.tv_sec = (time_t)s, .tv_nsec = (long)(1e9 * (s - floor(s)))};
}

/* The main thread has to wait for a batch to be done, or until so many jobs are free, or until
 * `end_s` of the clock: it takes one, if that is to be read, which needs no decoder. With the lock
 * held. */
static void wait_or_read(struct decoders *p, unsigned free_awaited, double end_s)
{
    if (p->threads < MAIN_READS_BELOW && p->todo && p->todo->plain_out) {
        struct taken t = job_take(p, 1);
        taken_do(p, NULL, &t);
        return;
    }
    if (p->unwoken)
        sleeper_wake(sleeper_find(p));
    p->free_awaited = free_awaited;
    if (isinf(end_s)) {
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

/* Held for less time than it takes to sleep: who finds it held looks again for a while. */
static void lock_open(pthread_mutex_t *lock)
{
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(lock, &kind);
    pthread_mutexattr_destroy(&kind);
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
    p->job_count = p->free_count = job_count;
    p->todo_end = &p->todo;
    lock_open(&p->lock);
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
        unsigned enough = (p->job_count + FREE_PART - 1) / FREE_PART;
        do
            wait_or_read(p, enough, end_s);
        while (!p->free_list && decoders_clock_s() < end_s);
    }
    struct decoders_job *job = p->free_list;
    if (job) {
        p->free_list = job->next;
        p->free_count--;
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
    struct taken t = {job, 0, job->bytes, NULL};
    job->taken = job->bytes;
    job->takers = 1;
    taken_do(p, w, &t);
}

/* Whom to wake for it: at once for one to be decoded, which takes long; else for a few together.
 * With the lock held. */
static pthread_cond_t *job_queue(struct decoders *p, struct decoders_job *job)
{
    *p->todo_end = job;
    p->todo_end = &job->next;
    if (!job->plain_out)
        return p->asleep[0] ? &p->work : NULL;
    return ++p->unwoken == JOBS_A_WAKE ? sleeper_find(p) : NULL;
}

void decoders_submit(struct decoders *p, struct decoders_job *job)
{
    pthread_cond_t *sleeper = NULL;
    pthread_mutex_lock(&p->lock);
    job_begin(job);
    if (p->workers)
        sleeper = job_queue(p, job);
    else
        job_do(p, &p->own, job);
    pthread_mutex_unlock(&p->lock);
    sleeper_wake(sleeper);
}

void decoders_wake(struct decoders *p)
{
    pthread_mutex_lock(&p->lock);
    pthread_cond_t *sleeper = p->unwoken ? sleeper_find(p) : NULL;
    pthread_mutex_unlock(&p->lock);
    sleeper_wake(sleeper);
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
        wait_or_read(p, UINT_MAX, INFINITY);
    pthread_mutex_unlock(&p->lock);
}

void decoders_pause(struct decoders *p, const struct decoders_batch *batch, double seconds)
{
    pthread_mutex_lock(&p->lock);
    if (batch->busy)
        wait_or_read(p, UINT_MAX, decoders_clock_s() + seconds);
    pthread_mutex_unlock(&p->lock);
}
