/* plan_bases.h - what each process takes before it has any work, as `prepare bases` measured it,
 * and the device that trainerd works on.
 *
 * The lines "base.trainerd=24813568" of the run's file `bases`, or of --plan's standard input.
 * Pages that stages share (libraries) count in each, as their resident memory does.
 */
#ifndef TRAINERD_PLAN_BASES_H
#define TRAINERD_PLAN_BASES_H

#include <stdint.h>

#include "proto/err.h"

struct device; /* engine/device.h */

struct plan_bases {
    uint64_t trainerd, fisherd, loaderd, monitord; /* bytes */
    uint64_t fisherd_idle;                         /* of one that is never asked */
    uint64_t reader;                               /* one of loaderd's: its private memory */
    /* the caller's to set (compute_bases) */
    const struct device *device; /* open, borrowed; NULL: the CPU */
    uint64_t driver;             /* of the host's memory, what opening it took */
};

/* Takes key ("trainerd") and value; others are ignored. */
void plan_bases_set(struct plan_bases *b, const char *key, const char *value);

/* Are all there? -1 (permanent) and a sentence that names one that is not, and where it is missing.
 */
int plan_bases_check(const struct plan_bases *b, const char *where, struct err *e);

/* The run's file, from its directory. -1 (permanent) when it is not there or not whole. */
int plan_bases_read(struct plan_bases *b, const char *path, struct err *e);

#endif
