/* bars_data.h - all bars of a file in memory: the log prices of the file's own timeframe, and the
 * features of every timeframe that rows show.
 *
 * Time is cut where more than prepare.gap_bars bars of the file are missing; what lies between two
 * cuts is a stretch. A bar of a longer timeframe is made of the file's bars that begin in its
 * interval of the clock, wherever in it they begin (open of the first, highest high, lowest low,
 * close of the last, sum of volumes); a cut ends it, and what follows in the same interval is
 * another bar. It is complete when a bar of the file has reached the end of its interval or the
 * first one behind it has come: nothing is known earlier than a bar of the file that tells it.
 *
 * Features of a bar: log of open, high, low and close, each over the close of the bar before of its
 * timeframe (of the first in a stretch over its own open), and log(1 + volume). About 50 bytes a
 * bar of the file.
 */
#ifndef PIPELINES_PREPARE_BARS_DATA_H
#define PIPELINES_PREPARE_BARS_DATA_H

#include <stdint.h>

#include "pipelines/prepare/bars_file.h"
#include "pipelines/prepare/progress.h"
#include "pipelines/prepare/timeframe.h"
#include "proto/options.h"

enum { BARS_MAX = 1 << 26, BAR_FEATURES_MAX = 5 };

/* The complete bars of one timeframe, oldest first. */
struct series {
    struct window window;
    uint32_t features, count, capacity;
    float *value;    /* [count, features] */
    uint32_t *first; /* [count], index of the file's bar it begins with */
    uint32_t *known; /* [count], index of the file's bar at whose end it is complete */
    /* the bar that is being made */
    struct bar bar;
    int64_t end;     /* of its interval; INT64_MIN: there is none */
    uint32_t begun;  /* index of the file's bar */
    double previous; /* close of the bar before in this stretch, 0: none */
};

struct bars_data {
    struct bars_file file;
    const struct timeframe *frame; /* of the file */
    uint32_t features, count, capacity;
    int64_t *time;   /* [count] */
    double *close;   /* [count], logarithms */
    uint32_t *start; /* [stretches + 1], where each begins; count behind the last */
    uint32_t stretches, stretches_max;
    struct series series[TIMEFRAMES_MAX];
    uint32_t series_count;
    struct progress progress;
};

/* The features' names, one a line. */
const char *bars_feature_names(const struct bars_data *d);

/* Open o->data_source and read the options. 0, or -1; bars_data_close is due in both cases. */
int bars_data_open(struct bars_data *d, const struct options *o, struct err *e);
void bars_data_close(struct bars_data *d); /* harmless twice */

/* Read the file two times (the distance of its bars must be known first); its bytes enter `digest`.
 */
int bars_data_load(struct bars_data *d, const struct options *o, struct digest *digest,
                   struct err *e);

/* One bar of the file into a series of that length or longer; cut: it begins a stretch. */
int series_take(struct series *s, const struct bar *bar, uint32_t index, uint32_t seconds, int cut,
                struct err *e);
void series_free(struct series *s);

#endif
