/* rate.h - speed over the last second or so, from points a tenth of a second apart. */
#ifndef TRAINERD_RATE_H
#define TRAINERD_RATE_H

#include <stdint.h>

enum { RATE_POINTS = 12 };

struct rate_point {
    double time_s, wait_s; /* monotonic; spent waiting for data so far */
    uint64_t steps, rows;  /* done so far */
};

struct rate {
    struct rate_point points[RATE_POINTS]; /* a ring; zeroed storage is an empty one */
    uint64_t count;                        /* ever added */
};

void rate_add(struct rate *r, const struct rate_point *point);
const struct rate_point *rate_newest(const struct rate *r); /* NULL: none */

/* Between the oldest and the newest point; all 0 with fewer than two. */
void rate_read(const struct rate *r, double *steps_per_s, double *rows_per_s, double *wait_share);

#endif
