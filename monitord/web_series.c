/* web_series.c - see web_series.h. */
#include "monitord/web_series.h"

#include <math.h>
#include <string.h>

void web_series_open(struct web_series *s, double point_s)
{
    memset(s, 0, sizeof *s);
    s->point_s = point_s;
}

static int is_memory(int curve)
{
    return curve < SAMPLE_SERIES;
}

static void point_join(int curve, struct web_point *p, const struct web_point *other)
{
    if (!is_memory(curve))
        p->sum += other->sum;
    else if (!p->count || other->sum > p->sum)
        p->sum = other->sum;
    p->count += other->count;
}

/* Twice the time a point. */
static void neighbours_join(struct web_series *s)
{
    int half = (s->points + 1) / 2;
    for (int c = 0; c < WEB_CURVES; c++) {
        for (int i = 0; i < half; i++) {
            struct web_point joined = s->at[c][2 * i];
            if (2 * i + 1 < s->points && s->at[c][2 * i + 1].count)
                point_join(c, &joined, &s->at[c][2 * i + 1]);
            s->at[c][i] = joined;
        }
        memset(s->at[c] + half, 0, (size_t)(WEB_POINTS_MAX - half) * sizeof s->at[c][0]);
    }
    s->points = half;
    s->point_s *= 2;
}

void web_series_put(struct web_series *s, int curve, double time_s, double value)
{
    if (!isfinite(value) || !isfinite(time_s))
        return;
    if (s->points == 0)
        s->began_s = time_s;
    while (time_s - s->began_s >= WEB_POINTS_MAX * s->point_s)
        neighbours_join(s);
    int place = time_s > s->began_s ? (int)((time_s - s->began_s) / s->point_s) : 0;
    if (place < s->points)
        place = s->points - 1;
    s->points = place + 1;
    point_join(curve, &s->at[curve][place], &(struct web_point){value, 1});
}

double web_series_value(const struct web_series *s, int curve, int point)
{
    const struct web_point *p = &s->at[curve][point];
    if (!p->count)
        return NAN;
    return is_memory(curve) ? p->sum : p->sum / p->count;
}

const char *web_series_name(int curve)
{
    static const char *const others[] = {"loss", "steps_per_s", "wait_share", "learning_rate",
                                         "gpu_utilisation"};
    return is_memory(curve) ? sample_name(curve) : others[curve - SAMPLE_SERIES];
}
