/* threads.h - the engine's own fixed threads: the caller and threads - 1 others work through a list
 * of items.
 *
 * Which thread takes which item is left to chance; everything whose order decides bits is keyed by
 * the item. A waiting thread spins for some tens of microseconds and then sleeps in the kernel, so
 * that a busy machine loses little. Threads block all signals and flush denormal numbers to zero,
 * the caller's for the time of a job.
 */
#ifndef ENGINE_THREADS_H
#define ENGINE_THREADS_H

#include <stdint.h>

#include "proto/err.h"

enum {
    POOL_THREADS_MAX = 256,
    POOL_STACK_PACKED = 352 * 1024, /* of each one's stack, at most: the factors of a product
                                       (engine/cpu/product.c) */
    POOL_STACK_USED = POOL_STACK_PACKED + 16 * 1024 /* and what calls it */
};

/* thread: 0 .. threads - 1, 0 being the caller. */
typedef void pool_task(void *argument, uint64_t item, int thread);

struct pool;

int pool_open(struct pool **pool_p, int threads, struct err *e);
void pool_close(struct pool **pool_p); /* harmless twice */

/* Runs task(argument, i, thread) once for each i = 0 .. items - 1 and returns when all are done.
 * One caller at a time; a task must not call pool_run. */
void pool_run(struct pool *pool, pool_task *task, void *argument, uint64_t items);

#endif
