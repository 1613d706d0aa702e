/* bars_series.c - the bars of one timeframe, made one after the other from those of the file; see
 * bars_data.h.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/prepare/bars_data.h"

void series_free(struct series *s)
{
    free(s->value);
    free(s->first);
    free(s->known);
    s->value = NULL;
    s->first = s->known = NULL;
}

static int series_grow(struct series *s, struct err *e)
{
    if (s->count < s->capacity)
        return 0;
    uint32_t capacity = s->capacity ? 2 * s->capacity : 1024;
    float *value = realloc(s->value, (size_t)capacity * s->features * sizeof *value);
    s->value = value ? value : s->value;
    uint32_t *first = realloc(s->first, capacity * sizeof *first);
    s->first = first ? first : s->first;
    uint32_t *known = realloc(s->known, capacity * sizeof *known);
    s->known = known ? known : s->known;
    if (!value || !first || !known)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot get memory for the bars of %s",
                         s->window.frame->name);
    s->capacity = capacity;
    return 0;
}

/* The bar being made is complete; the file's bar `index` told so. */
static int series_end(struct series *s, uint32_t index, struct err *e)
{
    if (series_grow(s, e) < 0)
        return -1;
    const struct bar *bar = &s->bar;
    float *value = s->value + (size_t)s->count * s->features;
    double base = s->previous > 0 ? s->previous : bar->open;
    value[0] = (float)log(bar->open / base);
    value[1] = (float)log(bar->high / base);
    value[2] = (float)log(bar->low / base);
    value[3] = (float)log(bar->close / base);
    if (s->features == BAR_FEATURES_MAX)
        value[4] = (float)log1p(bar->volume);
    s->first[s->count] = s->begun;
    s->known[s->count] = index;
    s->count++;
    s->previous = bar->close;
    s->end = INT64_MIN;
    return 0;
}

int series_take(struct series *s, const struct bar *bar, uint32_t index, uint32_t seconds, int cut,
                struct err *e)
{
    int making = s->end != INT64_MIN;
    if (making && (cut || bar->time >= s->end)) {
        if (series_end(s, index, e) < 0)
            return -1;
        making = 0;
    }
    if (cut)
        s->previous = 0;
    if (!making) {
        int64_t length = s->window.frame->seconds, past = bar->time % length;
        s->bar = *bar;
        s->begun = index;
        s->end = bar->time - (past < 0 ? past + length : past) + length;
    } else {
        s->bar.high = fmax(s->bar.high, bar->high);
        s->bar.low = fmin(s->bar.low, bar->low);
        s->bar.close = bar->close;
        s->bar.volume += bar->volume;
    }
    return bar->time + seconds >= s->end ? series_end(s, index, e) : 0;
}
