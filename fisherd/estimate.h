/* estimate.h - the jobs of fisherd: asked for by `estimate`, done one at a time, answered for ever
 * after. */
#ifndef FISHERD_ESTIMATE_H
#define FISHERD_ESTIMATE_H

#include <stdint.h>

#include "fisherd/work.h"
#include "proto/daemon.h"

enum { ESTIMATE_QUEUE_MAX = 8 };

enum estimate_state {
    ESTIMATE_IDLE,
    ESTIMATE_OPENING,
    ESTIMATE_SUMMING,
    ESTIMATE_BLOCK,
    ESTIMATE_JOINING
};

/* A job and who asked for it last. */
struct estimate_job {
    struct msg_estimate request;
    struct link_peer peer;
};

struct estimator {
    enum estimate_state state;
    struct estimate_job queue[ESTIMATE_QUEUE_MAX]; /* [0] is in work unless IDLE */
    uint32_t queued;
    uint64_t jobs; /* begun by this process */
    struct work work;
    double began_s, published_s;
    uint64_t samples_skipped; /* that an earlier process had summed */
};

/* Take a request and answer it. Never waits. */
void estimate_request(struct estimator *s, struct daemon *d, const struct link_peer *peer,
                      const struct msg_estimate *m);

/* One piece of work: an enum daemon_result. */
int estimate_turn(struct estimator *s, struct daemon *d, int *sleep_ms, struct err *e);

void estimate_close(struct estimator *s);

#endif
