/* profile.h - the memory profile of a run: logs/memory_profile/memory_profile_YYYYMMDD_HHMMSS.json
 * and .png.
 *
 * Only when monitor.profile asks for it. Samples are kept in a table of fixed size: when it is
 * full, neighbours are joined (the larger value stays, of the GPU's utilisation the mean) and from
 * then on a row covers twice as many samples, so a run of any length is whole and its peaks are
 * true. Events (tasks, epochs, checkpoints, restarts, other micro-batches, advice, users' marks)
 * come from the journals at each writing, since streams may drop; of too many checkpoints, ends of
 * epochs or marks every second one is left out, as often as needed. The JSON file is rewritten
 * durably every 10 s and at the end; the picture is drawn at the end. A restarted monitord begins a
 * new file.
 */
#ifndef MONITORD_PROFILE_H
#define MONITORD_PROFILE_H

#include <stdint.h>
#include <stdio.h>

#include "monitord/sample.h"
#include "proto/err.h"

enum {
    PROFILE_ROWS_MAX = 4096,
    PROFILE_EVENTS_MAX = 1024,
};

struct profile_row {
    double time_s;                     /* since the profile began */
    uint64_t rss_bytes[SAMPLE_SERIES]; /* 0: not running */
    uint64_t together_bytes;           /* all stages in one sample */
    double gpu_sum;                    /* of its utilisation, over so many of the row's samples */
    uint32_t gpu_count;
};

struct profile_event {
    double time_s;
    char stage[17], what[17], label[81]; /* which holds a mark */
};

struct profile {
    char name[65];  /* of the run */
    char base[128]; /* path without .json or .png, relative to the run */
    double began_unix_s, sample_s;
    double write_due_s;                            /* since the profile began */
    struct profile_row rows[PROFILE_ROWS_MAX + 1]; /* behind the full ones: the open one */
    uint32_t row_count, open_samples, row_samples; /* full rows; samples in the open one, of one */
    struct profile_event events[PROFILE_EVENTS_MAX];
    uint32_t event_count, events_dropped;
};

void profile_open(struct profile *p, const char *name, double sample_s, double now_unix_s);

void profile_add(struct profile *p, const struct sample_round *round);

/* 1 when profile_write should be called. */
int profile_due(const struct profile *p, double now_unix_s);

/* Take the events from the journals and write the JSON file durably. */
int profile_write(struct profile *p, double now_unix_s, struct err *e);

/* How many events of that kind there are. */
uint32_t profile_events(const struct profile *p, const char *what);

/* Write what gnuplot draws the picture from (plot.c), but for the terminal; there are samples. */
void profile_script(const struct profile *p, FILE *out);

/* Draw the picture with gnuplot (plot.c), which is given limit_s seconds. */
int profile_draw(const struct profile *p, double limit_s, struct err *e);

/* Full rows and, if there is something in it, the open one. */
static inline uint32_t profile_rows(const struct profile *p)
{
    return p->row_count + (p->open_samples > 0);
}

/* Mean utilisation of the GPU in a row, NaN: there is none. */
double profile_gpu(const struct profile_row *row);

/* Is there any? */
int profile_has_gpu(const struct profile *p);

/* Largest value of a series; of the sum of the stages when series is SAMPLE_SERIES. */
uint64_t profile_peak(const struct profile *p, int series);

#endif
