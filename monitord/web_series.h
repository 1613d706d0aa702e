/* web_series.h - curves of a run for the page, on one axis of time, in a table of fixed size.
 *
 * Pure. A point covers point_s seconds; when the table is full neighbours are joined and point_s
 * doubles, so that a run of any length is whole. Memory keeps its largest value, all else its mean.
 */
#ifndef MONITORD_WEB_SERIES_H
#define MONITORD_WEB_SERIES_H

#include <stdint.h>

#include "monitord/sample.h"

enum {
    WEB_POINTS_MAX = 600,
    /* the curves: those of samples (sample.h) first */
    WEB_LOSS = SAMPLE_SERIES,
    WEB_RATE, /* steps a second */
    WEB_WAIT, /* share of the time, 0 to 1 */
    WEB_LEARNING_RATE,
    WEB_GPU, /* its utilisation, 0 to 1 */
    WEB_CURVES
};

struct web_point {
    double sum; /* of memory: the largest */
    uint32_t count;
};

struct web_series {
    double began_s, point_s; /* Unix time of the first point's begin, and what a point covers */
    int points;              /* that have begun */
    struct web_point at[WEB_CURVES][WEB_POINTS_MAX];
};

void web_series_open(struct web_series *s, double point_s);

/* A value that is no number is passed over; one from before the newest point counts to that. */
void web_series_put(struct web_series *s, int curve, double time_s, double value);

/* NaN: nothing was measured. */
double web_series_value(const struct web_series *s, int curve, int point);

/* "trainerd", "loss", ...: borrowed for ever. */
const char *web_series_name(int curve);

#endif
