/* table.h - a user's table, whatever its format, becomes the dense HDF5 layout.
 *
 *   train/features, validation/features   [N, F]  f32, or the smallest of u8 i8 u16 i16 that holds
 *                                                 every value exactly
 *   train/targets, validation/targets     [N]     u8 or u16: class numbers; i8, i16 or i32 where
 *                                                 some are missing, which are -1; or
 *                                         [N, K]  f32: values (prepare.task), NaN where missing
 *   normalise/mean, normalise/standard_deviation [F] f64, of the training rows (prepare.normalise)
 *
 * and attributes of the root: fingerprint (of options and contents), source, source_stamp, layout,
 * columns (the features' names, one a line); of classes class_count and classes (their texts, one a
 * line, when the numbers are ours), of values target_columns.
 *
 * With prepare.like there is no group train, and where the source has no targets none of those;
 * targets may be missing, and no row is left out: it is told apart from others by its number.
 *
 * The source is read from its beginning two times (kinds and classes; rows), three with
 * prepare.normalise (mean and deviation need the split, and the split the number of rows); never
 * more than a few chunks of it are held.
 */
#ifndef PIPELINES_PREPARE_TABLE_H
#define PIPELINES_PREPARE_TABLE_H

#include <stdint.h>

#include "pipelines/prepare/like.h"
#include "pipelines/prepare/own.h"
#include "proto/err.h"
#include "proto/h5file.h"
#include "proto/options.h"

enum { TABLE_VALUES_MAX = 1 << 20 };

/* Where rows come from. Values are finite and fit a float32, but for a NaN as a missing target;
 * rows that prepare.missing drops do not come. */
struct table_source {
    const char *command; /* "csv", for what is printed */
    const char *path;
    const struct options *options;
    char stamp[OWN_STAMP_BYTES]; /* names, sizes and times of the files */
    uint32_t features;           /* of a row */
    uint32_t targets;            /* values that follow them; 0: a label tells the class */
    int unlabelled;              /* there are neither */
    int keeps_missing;           /* targets may be missing (model.missing_targets, or new rows) */
    struct like like;            /* prepare.like; owned by the source */
    const char *columns;         /* the features' names, one a line; NULL: they have none */
    const char *target_columns;  /* the targets' names likewise; NULL for classes, too */
    uint64_t dropped;            /* rows, since begin */
    double share;                /* read so far, 0 to 1 */

    /* Go to the first row; what is read from now on enters `digest` unless it is NULL. */
    int (*begin)(struct table_source *s, struct digest *digest, struct err *e);
    /* 1 and a row, values[features + targets] (the label is borrowed until the next call; NULL: the
     * class is missing); 0: no more, and the source is what it was when it was opened; -1. */
    int (*next)(struct table_source *s, double *values, const char **label, struct err *e);
    /* Name the row read last: "line 7". */
    void (*where)(const struct table_source *s, char *text, size_t bytes);
    void (*close)(struct table_source *s);
};

/* May targets be missing? Those of new rows, which follow another file, always. */
static inline int table_keeps_missing(const struct options *o)
{
    return o->missing_targets || o->prepare_like[0];
}

/* Are rows with another missing value left out? New rows are told apart by their numbers: none is.
 */
static inline int table_drops(const struct options *o)
{
    return o->prepare_missing[0] == 'd' && !o->prepare_like[0];
}

/* see maker.version */
#define TABLE_CSV_VERSION "table 2"
#define TABLE_NPY_VERSION "table 1"

/* Make `out` from the source, at once or not at all. */
int table_convert(struct table_source *s, const char *out, const char *stamp, struct err *e);

/* Open a source: o->data_source and the options of the section prepare. 0, or -1 and nothing to
 * close. */
int table_csv_open(struct table_source **s_p, const struct options *o, struct err *e);
int table_npy_open(struct table_source **s_p, const struct options *o, struct err *e);

#endif
