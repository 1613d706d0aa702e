/* bars_like.h - prepare.like of bars: what new windows have in common with a file that was prepared
 * of other bars: timeframe, features, windows, normalisation.
 *
 * A row is then decided at the end of every prepare.stride-th bar, counted back from the newest,
 * and has no targets: what follows it is not known.
 */
#ifndef PIPELINES_PREPARE_BARS_LIKE_H
#define PIPELINES_PREPARE_BARS_LIKE_H

#include "pipelines/prepare/bars_data.h"

struct bars_like {
    const char *path;                               /* borrowed; NULL: no file is followed */
    char fingerprint[65];                           /* of it */
    char timeframe[8], columns[128];                /* its attributes */
    uint64_t windows[TIMEFRAMES_MAX];               /* bars of each; 0: it has no such timeframe */
    int normalised;                                 /* with these: */
    double mean[TIMEFRAMES_MAX * BAR_FEATURES_MAX]; /* [timeframes, features] */
    double deviation[TIMEFRAMES_MAX * BAR_FEATURES_MAX];
};

/* Read it, as far as the options ask for its timeframes; an empty path gives a zeroed struct. -1
 * and *e (permanent): `prepare bars` did not make it. */
int bars_like_read(struct bars_like *l, const char *path, const struct bars_data *d, struct err *e);

/* Are the bars that were loaded such as those? Always, where no file is followed. */
int bars_like_check(const struct bars_like *l, const struct bars_data *d, struct err *e);

#endif
