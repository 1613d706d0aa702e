/* threads.c - see threads.h.
 *
 * A job is published as one 64-bit ticket {generation, items, next}; a thread takes item `next` by
 * compare and exchange of the whole ticket. While an item is left the job is not over, and a job's
 * task and argument are not replaced before it is over: so a successful exchange proves that what
 * was read before it belongs to that job, and a thread that slept through a job cannot take
 * anything from it.
 */
#include "engine/threads.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
    ITEM_BITS = 16,
    ITEMS_MAX = (1 << ITEM_BITS) - 1,
    SPINS = 1000,             /* 20 to 40 us: longer than the caller's own work between two jobs */
    STACK_BYTES = 1024 * 1024 /* of which POOL_STACK_USED are used */
};

struct pool {
    _Atomic uint64_t ticket; /* generation << 32 | items << 16 | next */
    _Atomic(pool_task *) task;
    _Atomic(void *) argument;
    _Atomic uint64_t first; /* number of the ticket's item 0 */
    _Atomic uint32_t done;  /* items finished; the caller sleeps on it */
    _Atomic uint32_t caller_waits;
    _Atomic uint32_t generation; /* the others sleep on it */
    _Atomic uint32_t sleepers;
    _Atomic int stop;
    int threads, started;
    struct pool_thread {
        struct pool *pool;
        pthread_t id;
        int index;
    } thread[POOL_THREADS_MAX];
};

static void futex_wait(_Atomic uint32_t *word, uint32_t expected)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static void spin_pause(void)
{
#if defined(__x86_64__)
    _mm_pause();
#endif
}

/* Moments of weights that saw no gradient for a thousand steps reach the denormal range, where some
 * processors are a hundred times slower. Returns the state to restore. */
static unsigned denormals_flush(void)
{
#if defined(__x86_64__)
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040); /* flush to zero, denormals are zero */
    return before;
#else
    return 0;
#endif
}

static void denormals_restore(unsigned before)
{
#if defined(__x86_64__)
    _mm_setcsr(before);
#else
    (void)before;
#endif
}

/* Take items until none is left. */
static void pool_work(struct pool *pool, int thread)
{
    for (;;) {
        uint64_t ticket = atomic_load(&pool->ticket);
        uint32_t next = ticket & ITEMS_MAX, items = ticket >> ITEM_BITS & ITEMS_MAX;
        if (next >= items)
            return;
        pool_task *task = atomic_load(&pool->task);
        void *argument = atomic_load(&pool->argument);
        uint64_t first = atomic_load(&pool->first);
        if (!atomic_compare_exchange_strong(&pool->ticket, &ticket, ticket + 1))
            continue;
        task(argument, first + next, thread);
        if (atomic_fetch_add(&pool->done, 1) + 1 == items && atomic_load(&pool->caller_waits))
            futex_wake(&pool->done, 1);
    }
}

/* Until the generation is another than `seen`; returns it. */
static uint32_t generation_wait(struct pool *pool, uint32_t seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&pool->generation) != seen)
            return atomic_load(&pool->generation);
        spin_pause();
    }
    atomic_fetch_add(&pool->sleepers, 1);
    while (atomic_load(&pool->generation) == seen)
        futex_wait(&pool->generation, seen);
    atomic_fetch_sub(&pool->sleepers, 1);
    return atomic_load(&pool->generation);
}

static void *thread_main(void *argument)
{
    struct pool_thread *self = argument;
    uint32_t seen = 0;
    denormals_flush();
    for (;;) {
        seen = generation_wait(self->pool, seen);
        if (atomic_load(&self->pool->stop))
            return NULL;
        pool_work(self->pool, self->index);
    }
}

static void generation_advance(struct pool *pool)
{
    atomic_fetch_add(&pool->generation, 1);
    if (atomic_load(&pool->sleepers))
        futex_wake(&pool->generation, INT_MAX);
}

static void done_wait(struct pool *pool, uint32_t items)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&pool->done) == items)
            return;
        spin_pause();
    }
    atomic_store(&pool->caller_waits, 1);
    for (uint32_t done; (done = atomic_load(&pool->done)) != items;)
        futex_wait(&pool->done, done);
    atomic_store(&pool->caller_waits, 0);
}

static void job_run(struct pool *pool, uint64_t first, uint32_t items)
{
    uint64_t generation = (uint32_t)(atomic_load(&pool->ticket) >> 32) + 1u;
    atomic_store(&pool->first, first);
    atomic_store(&pool->done, 0);
    atomic_store(&pool->ticket, generation << 32 | (uint64_t)items << ITEM_BITS);
    if (items > 1 && pool->threads > 1)
        generation_advance(pool);
    pool_work(pool, 0);
    done_wait(pool, items);
}

void pool_run(struct pool *pool, pool_task *task, void *argument, uint64_t items)
{
    unsigned before = denormals_flush();
    atomic_store(&pool->task, task);
    atomic_store(&pool->argument, argument);
    for (uint64_t first = 0; first < items; first += ITEMS_MAX)
        job_run(pool, first, items - first < ITEMS_MAX ? (uint32_t)(items - first) : ITEMS_MAX);
    denormals_restore(before);
}

static int threads_start(struct pool *pool, const pthread_attr_t *attributes, struct err *e)
{
    for (int i = 1; i < pool->threads; i++) {
        struct pool_thread *t = &pool->thread[i];
        char name[24];
        t->pool = pool;
        t->index = i;
        int error = pthread_create(&t->id, attributes, thread_main, t);
        if (error)
            return err_set(e, EXIT_CODE_TEMPORARY, "cannot start engine thread %d of %d: %s", i,
                           pool->threads, strerror(error));
        pool->started++;
        snprintf(name, sizeof name, "engine-%d", i); /* 15 letters at most: i <= 255 */
        pthread_setname_np(t->id, name);
    }
    return 0;
}

int pool_open(struct pool **pool_p, int threads, struct err *e)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    ensure(threads >= 1 && threads <= POOL_THREADS_MAX);
    struct pool *pool = *pool_p = calloc(1, sizeof *pool);
    if (!pool)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot allocate the engine's thread pool");
    pool->threads = threads;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = threads_start(pool, &attributes, e);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (result < 0)
        pool_close(pool_p);
    return result;
}

void pool_close(struct pool **pool_p)
{
    struct pool *pool = *pool_p;
    if (!pool)
        return;
    atomic_store(&pool->stop, 1);
    generation_advance(pool);
    for (int i = 1; i <= pool->started; i++)
        pthread_join(pool->thread[i].id, NULL);
    free(pool);
    *pool_p = NULL;
}
