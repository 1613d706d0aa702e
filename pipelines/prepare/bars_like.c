/* bars_like.c - see bars_like.h. */
#include "pipelines/prepare/bars_like.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "proto/h5file.h"

static int numbers_read(struct h5reader *r, const char *name, const struct bars_data *d,
                        double *numbers, struct err *e)
{
    struct h5array a;
    if (h5reader_array(r, name, &a, e) < 0)
        return -1;
    if (a.type != H5TYPE_F64 || a.rank != 2 || a.dims[0] != d->series_count ||
        a.dims[1] > BAR_FEATURES_MAX)
        return err_set(e, EXIT_CODE_PERMANENT, "%s is not of the %u timeframes that are asked for",
                       name, d->series_count);
    return h5reader_read(r, &a, numbers, e);
}

static int file_read(struct bars_like *l, struct h5reader *r, const struct bars_data *d,
                     struct err *e)
{
    if (h5reader_text(r, "", "fingerprint", l->fingerprint, sizeof l->fingerprint, e) < 0 ||
        h5reader_text(r, "", "timeframe", l->timeframe, sizeof l->timeframe, e) < 0 ||
        h5reader_text(r, "", "columns", l->columns, sizeof l->columns, e) < 0)
        return -1;
    for (uint32_t i = 0; i < d->series_count; i++) {
        char name[64];
        struct h5array a;
        snprintf(name, sizeof name, "validation/features/%s", d->series[i].window.frame->name);
        if (h5reader_has(r, name) && h5reader_array(r, name, &a, e) < 0)
            return -1;
        l->windows[i] = h5reader_has(r, name) && a.rank == 3 ? a.dims[1] : 0;
    }
    l->normalised = h5reader_has(r, "normalise");
    return l->normalised &&
                   (numbers_read(r, "normalise/mean", d, l->mean, e) < 0 ||
                    numbers_read(r, "normalise/standard_deviation", d, l->deviation, e) < 0)
               ? -1
               : 0;
}

int bars_like_read(struct bars_like *l, const char *path, const struct bars_data *d, struct err *e)
{
    struct h5reader *r = NULL;
    *l = (struct bars_like){0};
    if (!*path)
        return 0;
    l->path = path;
    int result = h5reader_open(&r, path, e) < 0 ? -1 : file_read(l, r, d, e);
    h5reader_close(&r);
    return result == 0 ? 0
                       : err_prefix(e,
                                    "prepare.like: %s is no file of `prepare bars` for these "
                                    "options",
                                    path);
}

int bars_like_check(const struct bars_like *l, const struct bars_data *d, struct err *e)
{
    if (!l->path)
        return 0;
    if (strcmp(l->timeframe, d->frame->name) != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s holds bars of %s, %s (prepare.like) was made of bars of %s",
                       d->file.csv.path, d->frame->name, l->path, l->timeframe);
    if (strcmp(l->columns, bars_feature_names(d)) != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has %s volume, and what %s (prepare.like) was made of has %s",
                       d->file.csv.path, bars_file_has_volume(&d->file) ? "a" : "no", l->path,
                       bars_file_has_volume(&d->file) ? "none" : "one");
    for (uint32_t i = 0; i < d->series_count; i++)
        if (l->windows[i] != d->series[i].window.bars)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "prepare.timeframes asks for %u bars of %s, %s (prepare.like) has "
                           "windows of %" PRIu64,
                           d->series[i].window.bars, d->series[i].window.frame->name, l->path,
                           l->windows[i]);
    return 0;
}
