/* sums.h - the sums of squared gradients of all parameters while an estimate is made.
 *
 * A model of one block has them in memory, and a kill begins anew. Larger ones lie in files of the
 * part directory, mapped, of which a block is resident at a time:
 *
 *   sums-0, sums-1   two generations: one is committed (its head names the position that it holds),
 *                    the other is worked on; committing makes it the committed one and then the old
 *                    one a copy of it, to be worked on
 *   half             the sums at half of the samples, from which the noise is estimated
 *
 * A kill leaves a committed generation: the estimate goes on at its position, to the same bits.
 * Their storage is taken at the start, so that a full disk is an error there and not in the middle.
 *
 * What goes through all numbers in files (copying, writing out, clearing) is done a block at a time
 * by sums_turn, so that it keeps no turn of the process busy for longer, however slow the disk:
 *
 *   sums_open, sums_half, sums_commit      say what is to be done
 *   while ((done = sums_turn(&s, e)) == 0) others have their turn
 */
#ifndef FISHERD_SUMS_H
#define FISHERD_SUMS_H

#include <stdint.h>

#include "proto/err.h"

enum sums_file { SUMS_0, SUMS_1, SUMS_HALF, SUMS_FILES };

struct sums_config {
    const char *directory, *job; /* borrowed */
    uint64_t numbers, resident;  /* of all; of a block: no more are in memory at a time */
    uint64_t half_at;            /* position of sums_half; 0: never */
};

enum sums_step { SUMS_CLEAR, SUMS_KEEP_HALF, SUMS_WRITE_OUT, SUMS_COPY, SUMS_STEPS };

struct sums {
    struct sums_config config;
    float *at;   /* [numbers], added to by the caller while nothing is pending */
    float *half; /* [numbers], once has_half */
    int has_half;
    double weight, half_weight; /* of the samples in `at`, added to as it is; of those in `half` */
    uint64_t position;          /* samples in `at` when opened or last committed */
    unsigned pending; /* what sums_turn has to do, by enum sums_step, the first one first */
    uint64_t next;    /* number of that step */
    int go_on;        /* behind the commit under way */
    int fd[SUMS_FILES], working;
    void *map[SUMS_FILES];
    int made[SUMS_FILES]; /* the file was not there before */
};

/* Sums of 0 at position 0, or those that a process before left of the same job. -1: temporary
 * (memory, disk). sums_close is due either way. */
int sums_open(struct sums *s, const struct sums_config *c, struct err *e);
void sums_close(struct sums *s); /* files stay; harmless twice */

/* All of them in memory at once? */
static inline int sums_in_memory(const struct sums *s)
{
    return s->config.numbers <= s->config.resident;
}

/* Parameters first .. that are not needed for now: their memory is given back, the numbers stay. */
void sums_release(struct sums *s, uint64_t first, uint64_t count);

/* Do a block's worth of what is to be done. 1: there was nothing left, `at` may be used; 0: there
 * may be more; -1. */
int sums_turn(struct sums *s, struct err *e);

/* Keep the sums as they are, at config.half_at. */
void sums_half(struct sums *s);

/* Make what is in `at`, which are the sums of the first `position` samples, survive a kill; nothing
 * where they are in memory. go_on: they are to be added to; else only read from now on. */
void sums_commit(struct sums *s, uint64_t position, int go_on);

/* Delete the files of whatever job; harmless when there are none. */
void sums_remove(const char *directory);

#endif
