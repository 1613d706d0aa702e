/* rate.c - see rate.h. */
#include "trainerd/rate.h"

void rate_add(struct rate *r, const struct rate_point *point)
{
    r->points[r->count++ % RATE_POINTS] = *point;
}

const struct rate_point *rate_newest(const struct rate *r)
{
    return r->count ? &r->points[(r->count - 1) % RATE_POINTS] : 0;
}

void rate_read(const struct rate *r, double *steps_per_s, double *rows_per_s, double *wait_share)
{
    *steps_per_s = *rows_per_s = *wait_share = 0;
    if (r->count < 2)
        return;
    const struct rate_point *to = rate_newest(r);
    const struct rate_point *from = &r->points[r->count > RATE_POINTS ? r->count % RATE_POINTS : 0];
    double seconds = to->time_s - from->time_s;
    if (seconds <= 0)
        return;
    *steps_per_s = (double)(to->steps - from->steps) / seconds;
    *rows_per_s = (double)(to->rows - from->rows) / seconds;
    *wait_share = (to->wait_s - from->wait_s) / seconds;
    if (*wait_share > 1)
        *wait_share = 1;
}
