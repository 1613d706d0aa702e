/* bars_rows.c - see bars_rows.h. */
#include "pipelines/prepare/bars_rows.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "pipelines/prepare/split.h"

void bars_rows_begin(struct bars_rows *r)
{
    r->row = r->possible = 0;
    r->bar = r->next = r->stretch = 0;
    memset(r->done, 0, sizeof r->done);
}

/* The file's bar with which the window of series i begins. */
static uint32_t window_first(const struct bars_rows *r, uint32_t i)
{
    const struct series *s = &r->data->series[i];
    return s->first[r->done[i] - s->window.bars];
}

static int row_begins(const struct bars_rows *r)
{
    return r->row == 0 || r->stretch != r->last_stretch ||
           window_first(r, r->shortest) > r->last + 1;
}

static int is_possible(const struct bars_rows *r)
{
    const struct bars_data *d = r->data;
    uint32_t begin = d->start[r->stretch], end = d->start[r->stretch + 1];
    if (end - r->bar <= r->horizon)
        return 0;
    for (uint32_t i = 0; i < d->series_count; i++) {
        if (r->done[i] < d->series[i].window.bars)
            return 0;
        if ((r->all_cut || i == r->shortest) && window_first(r, i) < begin)
            return 0;
    }
    return 1;
}

int bars_rows_next(struct bars_rows *r)
{
    const struct bars_data *d = r->data;
    while (r->next < d->count) {
        r->bar = r->next++;
        if (r->bar == d->start[r->stretch + 1])
            r->stretch++;
        for (uint32_t i = 0; i < d->series_count; i++)
            while (r->done[i] < d->series[i].count && d->series[i].known[r->done[i]] <= r->bar)
                r->done[i]++;
        if (is_possible(r) && (r->possible++ + r->lead) % r->stride == 0) {
            r->row = (r->possible - 1 + r->lead) / r->stride - (r->lead > 0);
            r->begins = row_begins(r);
            r->last = r->bar;
            r->last_stretch = r->stretch;
            return 1;
        }
    }
    return 0;
}

/* The first bar of the file whose price went into the present row. */
static uint32_t price_first(const struct bars_rows *r)
{
    uint32_t first = r->bar;
    for (uint32_t i = 0; i < r->data->series_count; i++)
        if (window_first(r, i) < first)
            first = window_first(r, i);
    return first ? first - 1 : 0; /* the close before it, unless a cut lies between */
}

static int rows_refuse(const struct bars_rows *r, struct err *e)
{
    const struct bars_data *d = r->data;
    char windows[200] = "";
    uint32_t longest = 0;
    size_t used = 0;
    for (uint32_t i = 0; i < d->series_count; i++)
        used += (size_t)snprintf(windows + used, sizeof windows - used, "%s:%u (%u complete), ",
                                 d->series[i].window.frame->name, d->series[i].window.bars,
                                 d->series[i].count);
    for (uint32_t i = 0; i < d->stretches; i++)
        if (d->start[i + 1] - d->start[i] > longest)
            longest = d->start[i + 1] - d->start[i];
    return err_set(
        e, EXIT_CODE_PERMANENT,
        "%s gives %" PRIu64 " rows and at least %d are needed: its %u bars of %s lie in "
        "%u stretches between cuts, the longest of %u bars; a row takes %sand %u bars of "
        "targets (prepare.timeframes, prepare.horizon, prepare.gap_bars)",
        d->file.csv.path, r->rows, r->horizon ? 2 : 1, d->count, d->frame->name, d->stretches,
        longest, windows, r->horizon);
}

static int rows_divide(struct bars_rows *r, const struct options *o, struct err *e)
{
    r->validation_rows = split_validation(o, r->rows);
    bars_rows_begin(r);
    while (bars_rows_next(r) && r->row < r->rows - r->validation_rows)
        ;
    uint32_t bar = r->bar, first = price_first(r), end = r->purge_windows ? first : bar + 1;
    bars_rows_begin(r);
    while (bars_rows_next(r) && r->bar < bar && r->bar + r->horizon < end)
        r->train_rows = r->row + 1;
    if (r->train_rows > 0)
        return 0;
    if (!r->purge_windows)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s leaves no row to train: the targets of one (the next %u bars) must end "
                       "before those of the first row to evaluate begin; more bars, a shorter "
                       "prepare.horizon or another prepare.validation_fraction are needed",
                       r->data->file.csv.path, r->horizon);
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s leaves no row to train: the first row to evaluate shows %u bars back, and "
                   "with prepare.purge: windows the targets of a row to train must end before "
                   "those; more bars, shorter windows (prepare.timeframes), another "
                   "prepare.validation_fraction or prepare.purge: targets are needed",
                   r->data->file.csv.path, bar - first);
}

int bars_rows_open(struct bars_rows *r, const struct bars_data *d, const struct options *o,
                   struct err *e)
{
    memset(r, 0, sizeof *r);
    r->data = d;
    r->horizon = o->prepare_like[0] ? 0 : (uint32_t)o->prepare_horizon;
    r->stride = o->prepare_stride;
    r->all_cut = strcmp(o->prepare_gap_windows, "none") == 0;
    r->purge_windows = strcmp(o->prepare_purge, "windows") == 0;
    for (uint32_t i = 1; i < d->series_count; i++)
        if (d->series[i].window.frame->seconds < d->series[r->shortest].window.frame->seconds)
            r->shortest = i;
    bars_rows_begin(r);
    while (bars_rows_next(r))
        r->rows++;
    if (r->rows < 1 || (r->horizon && r->rows < 2))
        return rows_refuse(r, e);
    if (r->horizon)
        return rows_divide(r, o, e);
    r->lead = (r->stride - (r->possible - 1) % r->stride) % r->stride;
    r->validation_rows = r->rows;
    return 0;
}
