/* web_metrics.h - the live runs' figures for Prometheus, in its text format (version 0.0.4).
 *
 * A figure that is not known, or no number, is left out. docs/METRICS.md lists them.
 */
#ifndef MONITORD_WEB_METRICS_H
#define MONITORD_WEB_METRICS_H

#include <stdio.h>

#include "monitord/web_follow.h"
#include "monitord/web_state.h"

/* A live run, as it is now: what it has said, and of its record what is used here. */
struct web_figures {
    const struct web_follow *follow;
    int speaks;              /* monitord measures */
    pid_t pids[STAGE_COUNT]; /* 0: it does not run */
    uint32_t restarts[STAGE_COUNT];
    uint64_t planned_bytes[SAMPLE_SERIES]; /* 0: not known */
    double validation_loss;                /* NaN: no epoch has been evaluated */
    uint32_t advice_count;                 /* HISTORY_ADVICE_MAX at most */
};

/* Of the run in whose directory one stands. */
void web_figures_take(struct web_figures *g, const struct web_record *r,
                      const struct web_follow *f);

/* And of the runs in w that have ended by themselves in the last hour with which code. */
void web_metrics_write(const struct web_figures *figures, int count, const struct web_runs *w,
                       FILE *out);

/* The page about them all, docs/METRICS.md. */
void web_metrics_reference(FILE *out);

#endif
