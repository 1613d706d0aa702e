/* bars_data.c - see bars_data.h: the two passes over a file of bars. */
#include "pipelines/prepare/bars_data.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROGRESS_BARS = 4096 /* between looks at the clock */ };

const char *bars_feature_names(const struct bars_data *d)
{
    return d->features == BAR_FEATURES_MAX
               ? "open_return\nhigh_return\nlow_return\nclose_return\nlog_volume"
               : "open_return\nhigh_return\nlow_return\nclose_return";
}

int bars_data_open(struct bars_data *d, const struct options *o, struct err *e)
{
    struct window windows[TIMEFRAMES_MAX];
    memset(d, 0, sizeof *d);
    if (windows_parse(o->prepare_timeframes, windows, &d->series_count, e) < 0 ||
        bars_file_open(&d->file, o->data_source, o->prepare_missing[0] == 'd', e) < 0)
        return -1;
    d->features = BAR_FEATURES_MAX - !bars_file_has_volume(&d->file);
    for (uint32_t i = 0; i < d->series_count; i++)
        d->series[i] =
            (struct series){.window = windows[i], .features = d->features, .end = INT64_MIN};
    return 0;
}

void bars_data_close(struct bars_data *d)
{
    bars_file_close(&d->file);
    for (uint32_t i = 0; i < d->series_count; i++)
        series_free(&d->series[i]);
    free(d->time);
    free(d->close);
    free(d->start);
    memset(d, 0, sizeof *d);
}

static void progress(struct bars_data *d, const char *what, uint64_t bars)
{
    const struct csv *c = &d->file.csv;
    if (bars % PROGRESS_BARS == 0)
        progress_show(&d->progress, "bars", what, csv_share(c));
}

/* ---- the distance of the bars --------------------------------------------------------------- */

/* Distances between neighbours: each timeframe's own count, all others together. */
struct distances {
    uint64_t bars, other;
    struct {
        const struct timeframe *frame;
        uint64_t count;
    } each[32];
    int64_t least;
    uint64_t least_line;
};

static void distance_note(struct distances *s, int64_t seconds, uint64_t line)
{
    const struct timeframe *frame = timeframe_of(seconds);
    if (seconds < s->least) {
        s->least = seconds;
        s->least_line = line;
    }
    if (!frame) {
        s->other++;
        return;
    }
    int i = 0;
    while (s->each[i].frame && s->each[i].frame != frame)
        i++;
    s->each[i].frame = frame;
    s->each[i].count++;
}

static int frame_decide(struct bars_data *d, const struct distances *s, struct err *e)
{
    uint64_t most = 0;
    const char *path = d->file.csv.path;
    if (s->bars < 2)
        return err_set(e, EXIT_CODE_PERMANENT, "%s holds %llu bars; at least 2 are needed", path,
                       (unsigned long long)s->bars);
    for (int i = 0; s->each[i].frame; i++)
        if (s->each[i].count > most) {
            most = s->each[i].count;
            d->frame = s->each[i].frame;
        }
    if (most <= s->other)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: most of its bars are not one of the lengths M1 to M30, H1 to H12 or D1 "
                       "apart (the least, in line %llu, is %lld s); bars of one such timeframe are "
                       "needed",
                       path, (unsigned long long)s->least_line, (long long)s->least);
    if (s->least < d->frame->seconds)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: line %llu, column %lld is %lld s after the bar before it, while most "
                       "bars are %s apart; bars of one timeframe are needed",
                       path, (unsigned long long)s->least_line,
                       (long long)d->file.column[BAR_DATE] + 1, (long long)s->least,
                       d->frame->name);
    return 0;
}

static int frame_find(struct bars_data *d, struct digest *digest, struct err *e)
{
    struct distances s = {.least = INT64_MAX};
    struct bar bar;
    int64_t before = 0;
    int more = bars_file_begin(&d->file, digest, e);
    while (more == 0 && (more = bars_file_next(&d->file, &bar, e)) > 0) {
        if (s.bars++)
            distance_note(&s, bar.time - before, d->file.csv.line);
        before = bar.time;
        progress(d, "reading", s.bars);
        more = 0;
    }
    if (more < 0 || frame_decide(d, &s, e) < 0)
        return -1;
    if (s.bars > BARS_MAX)
        return err_set(e, EXIT_CODE_PERMANENT, "%s holds %llu bars; at most %d are accepted",
                       d->file.csv.path, (unsigned long long)s.bars, BARS_MAX);
    d->capacity = (uint32_t)s.bars;
    for (uint32_t i = 0; i < d->series_count; i++)
        if (d->series[i].window.frame->seconds % d->frame->seconds)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "prepare.timeframes has %s, which cannot be made of the bars of %s, %s; "
                           "accepted are multiples of that",
                           d->series[i].window.frame->name, d->file.csv.path, d->frame->name);
    return 0;
}

/* ---- the bars ------------------------------------------------------------------------------- */

static int stretch_begin(struct bars_data *d, struct err *e)
{
    if (d->stretches + 1 >= d->stretches_max) {
        uint32_t more = d->stretches_max ? 2 * d->stretches_max : 64;
        uint32_t *start = realloc(d->start, more * sizeof *start);
        if (!start)
            return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", d->file.csv.path);
        d->start = start;
        d->stretches_max = more;
    }
    d->start[d->stretches++] = d->count;
    return 0;
}

static int bar_take(struct bars_data *d, const struct bar *bar, uint64_t gap_bars, struct err *e)
{
    char shown[MOMENT_BYTES];
    if (d->count == d->capacity)
        return seen_changed(d->file.csv.path, e);
    if (d->count && (bar->time - d->time[0]) % d->frame->seconds)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "%s: line %llu, column %lld: %s is no whole number of bars of %s, as which the bars of "
            "this file were recognised by their distance, after the first",
            d->file.csv.path, (unsigned long long)d->file.csv.line,
            (long long)d->file.column[BAR_DATE] + 1, moment_show(bar->time, shown), d->frame->name);
    int cut = 1;
    if (d->count) {
        int64_t distance = (bar->time - d->time[d->count - 1]) / d->frame->seconds;
        cut = (uint64_t)(distance - 1) > gap_bars;
    }
    if (cut && stretch_begin(d, e) < 0)
        return -1;
    for (uint32_t i = 0; i < d->series_count; i++)
        if (series_take(&d->series[i], bar, d->count, d->frame->seconds, cut, e) < 0)
            return -1;
    d->time[d->count] = bar->time;
    d->close[d->count++] = log(bar->close);
    return 0;
}

int bars_data_load(struct bars_data *d, const struct options *o, struct digest *digest,
                   struct err *e)
{
    struct bar bar;
    if (frame_find(d, digest, e) < 0)
        return -1;
    d->time = malloc(d->capacity * sizeof *d->time);
    d->close = malloc(d->capacity * sizeof *d->close);
    if (!d->time || !d->close)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", d->file.csv.path);
    int more = bars_file_begin(&d->file, NULL, e);
    while (more == 0 && (more = bars_file_next(&d->file, &bar, e)) > 0) {
        if (bar_take(d, &bar, o->prepare_gap_bars, e) < 0)
            return -1;
        progress(d, "making bars", d->count);
        more = 0;
    }
    if (more < 0)
        return -1;
    if (d->count != d->capacity)
        return seen_changed(d->file.csv.path, e);
    d->start[d->stretches] = d->count;
    return 0;
}
