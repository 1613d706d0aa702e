/* bars.c - `prepare bars`: bars of one timeframe become windows of several and their future.
 *
 *   train/features/M1 [N, 480, F], ../M5 [N, 288, F], ...  f32   oldest bar first
 *   train/targets     [N, K]   f32   log returns of the close over the next 1 to K bars, times
 *                                    prepare.target_scale
 *   train/times       [N]      i64   when the row is decided: the end of its last bar, Unix time
 *   train/begins      [N]      u8    1 where it does not go on from the row before it
 *                                    (data.stateful)
 *   validation/...             the same of the last rows
 *   normalise/mean, normalise/standard_deviation   [timeframes, F]   f64   of the training rows
 *
 * With prepare.like there are no train and no targets.
 *
 * Attributes: timeframes of the groups features (in the order of the options); of the root those of
 * every prepared file, columns (the features' names), target_names (log_return_1 to K) and
 * timeframe (of the source). bars_data.h says what a bar is, bars_rows.h what a row is. Bars are
 * held in memory, windows are not: rows go to the file as they are made.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "pipelines/prepare/bars_like.h"
#include "pipelines/prepare/bars_rows.h"
#include "pipelines/prepare/own.h"
#include "pipelines/prepare/piece.h"
#include "pipelines/prepare/place.h"
#include "pipelines/prepare/prepare.h"

#define LAYOUT_VERSION "bars 2"
enum { CHUNK_ROWS = 256, PROGRESS_ROWS = 64 };
enum { TARGETS = TIMEFRAMES_MAX, TIMES, BEGINS, SETS }; /* behind the timeframes */

struct bars {
    const struct options *options;
    struct bars_data data;
    struct bars_rows rows;
    struct bars_like like;
    struct digest *digest;
    struct h5writer *writer;
    struct piece piece[2][SETS]; /* of train, of validation */
    int normalised;              /* with these */
    double mean[TIMEFRAMES_MAX][BAR_FEATURES_MAX], deviation[TIMEFRAMES_MAX][BAR_FEATURES_MAX];
};

/* ---- normalising ---------------------------------------------------------------------------- */

/* In how many training rows each bar of series i stands: cover[count + 1], from differences. */
static void cover_count(struct bars *b, uint32_t i, uint32_t *cover)
{
    struct bars_rows *r = &b->rows;
    const struct series *s = &b->data.series[i];
    bars_rows_begin(r);
    while (bars_rows_next(r) && r->row < r->train_rows) {
        cover[r->done[i] - s->window.bars]++;
        cover[r->done[i]]--; /* modulo 2^32: the sums are right */
    }
    for (uint32_t k = 1; k <= s->count; k++)
        cover[k] += cover[k - 1];
}

/* Mean and deviation of a feature over the training rows' windows. */
static void feature_measure(const struct series *s, uint32_t feature, const uint32_t *cover,
                            double *mean, double *deviation)
{
    double count = 0, sum = 0, squares = 0;
    const float *value = s->value + feature;
    for (uint32_t k = 0; k < s->count; k++) {
        count += cover[k];
        sum += cover[k] * (double)value[(size_t)k * s->features];
    }
    *mean = sum / count;
    for (uint32_t k = 0; k < s->count; k++) {
        double d = (double)value[(size_t)k * s->features] - *mean;
        squares += cover[k] * d * d;
    }
    *deviation = squares > 0 ? sqrt(squares / count) : 1; /* a constant feature becomes 0 */
}

static void feature_normalise(struct series *s, uint32_t feature, double mean, double deviation)
{
    for (uint32_t k = 0; k < s->count; k++) {
        float *v = &s->value[(size_t)k * s->features + feature];
        *v = (float)(((double)*v - mean) / deviation);
    }
}

static int measure(struct bars *b, struct err *e)
{
    for (uint32_t i = 0; i < b->data.series_count; i++) {
        struct series *s = &b->data.series[i];
        uint32_t *cover = calloc((size_t)s->count + 1, sizeof *cover);
        if (!cover)
            return err_errno(e, EXIT_CODE_TEMPORARY, "cannot measure %s", b->data.file.csv.path);
        cover_count(b, i, cover);
        for (uint32_t f = 0; f < s->features; f++)
            feature_measure(s, f, cover, &b->mean[i][f], &b->deviation[i][f]);
        free(cover);
    }
    return 0;
}

/* As the training rows give it, or as the file that is followed has it. */
static int normalise(struct bars *b, struct err *e)
{
    uint32_t features = b->data.features;
    b->normalised =
        b->like.path ? b->like.normalised : strcmp(b->options->prepare_normalise, "standard") == 0;
    if (!b->normalised)
        return 0;
    if (!b->like.path && measure(b, e) < 0)
        return -1;
    for (uint32_t i = 0; i < b->data.series_count; i++)
        for (uint32_t f = 0; f < features; f++) {
            if (b->like.path) {
                b->mean[i][f] = b->like.mean[i * features + f];
                b->deviation[i][f] = b->like.deviation[i * features + f];
            }
            feature_normalise(&b->data.series[i], f, b->mean[i][f], b->deviation[i][f]);
        }
    return 0;
}

/* ---- the file ------------------------------------------------------------------------------- */

static int set_begin(struct bars *b, int validation, int set, const char *name, enum h5type type,
                     int rank, uint64_t second, uint64_t third, uint64_t chunk_rows, struct err *e)
{
    char path[64];
    uint64_t dims[] = {validation ? b->rows.validation_rows : b->rows.train_rows, second, third};
    snprintf(path, sizeof path, "%s/%s", validation ? "validation" : "train", name);
    return piece_begin(&b->piece[validation][set], b->writer, path, type, rank, dims, chunk_rows,
                       e);
}

static int split_begin(struct bars *b, int validation, struct err *e)
{
    const struct bars_data *d = &b->data;
    char name[32], list[64] = "";
    uint64_t row_bytes = 0;
    for (uint32_t i = 0; i < d->series_count; i++)
        row_bytes += (uint64_t)d->series[i].window.bars * d->features * sizeof(float);
    uint64_t chunk_rows = piece_chunk_rows(row_bytes, CHUNK_ROWS);
    for (uint32_t i = 0; i < d->series_count; i++) {
        const struct window *w = &d->series[i].window;
        snprintf(name, sizeof name, "features/%s", w->frame->name);
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? " " : "",
                 w->frame->name);
        if (set_begin(b, validation, (int)i, name, H5TYPE_F32, 3, w->bars, d->features, chunk_rows,
                      e) < 0)
            return -1;
    }
    if ((b->rows.horizon && set_begin(b, validation, TARGETS, "targets", H5TYPE_F32, 2,
                                      b->rows.horizon, 0, chunk_rows, e) < 0) ||
        set_begin(b, validation, TIMES, "times", H5TYPE_I64, 1, 0, 0, 16 * chunk_rows, e) < 0 ||
        set_begin(b, validation, BEGINS, "begins", H5TYPE_U8, 1, 0, 0, 128 * chunk_rows, e) < 0)
        return -1;
    return h5writer_text(b->writer, validation ? "validation/features" : "train/features",
                         "timeframes", list, e);
}

static int row_write(struct bars *b, struct piece *p, struct err *e)
{
    const struct bars_data *d = &b->data;
    const struct bars_rows *r = &b->rows;
    for (uint32_t i = 0; i < d->series_count; i++) {
        const struct series *s = &d->series[i];
        size_t from = (size_t)(r->done[i] - s->window.bars) * s->features;
        if (piece_add(&p[i], s->value + from, 1, e) < 0)
            return -1;
    }
    int64_t decided = d->time[r->bar] + d->frame->seconds;
    /* between the parts rows may be left out */
    unsigned char begins = r->begins || r->row == r->rows - r->validation_rows;
    if (piece_add(&p[TIMES], &decided, 1, e) < 0 || piece_add(&p[BEGINS], &begins, 1, e) < 0)
        return -1;
    unsigned char *target = r->horizon ? piece_row(&p[TARGETS], e) : NULL;
    if (r->horizon && !target)
        return -1;
    for (uint32_t k = 1; k <= r->horizon; k++, target += sizeof(float)) {
        float v =
            (float)((d->close[r->bar + k] - d->close[r->bar]) * b->options->prepare_target_scale);
        memcpy(target, &v, sizeof v);
    }
    return 0;
}

static int rows_write(struct bars *b, struct err *e)
{
    struct bars_rows *r = &b->rows;
    uint64_t first = r->rows - r->validation_rows;
    bars_rows_begin(r);
    while (bars_rows_next(r)) {
        if (r->row % PROGRESS_ROWS == 0)
            progress_show(&b->data.progress, "bars", "writing", (double)r->row / (double)r->rows);
        if (r->row >= r->train_rows && r->row < first)
            continue;
        if (row_write(b, b->piece[r->row >= first], e) < 0)
            return -1;
    }
    for (int i = 0; i < 2 * SETS; i++)
        if (piece_flush(&b->piece[i / SETS][i % SETS], e) < 0)
            return -1;
    return 0;
}

/* "log_return_1" and so on, one a line: the most that prepare.horizon accepts fit an attribute. */
static int target_names_write(struct bars *b, struct err *e)
{
    size_t used = 0;
    char *names = malloc(b->rows.horizon * sizeof "log_return_4096" + 1);
    if (!names)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot name the targets");
    for (uint32_t k = 1; k <= b->rows.horizon; k++)
        used += (size_t)sprintf(names + used, "%slog_return_%u", k > 1 ? "\n" : "", k);
    int result = used ? h5writer_text(b->writer, "", "target_names", names, e) : 0;
    free(names);
    return result;
}

static int attributes_write(struct bars *b, const char *stamp, struct err *e)
{
    const struct bars_data *d = &b->data;
    double flat[2][TIMEFRAMES_MAX * BAR_FEATURES_MAX];
    uint64_t dims[] = {d->series_count, d->features};
    if (own_attributes(b->writer, &b->digest, d->file.csv.path, stamp, "dense", e) < 0 ||
        h5writer_text(b->writer, "", "columns", bars_feature_names(d), e) < 0 ||
        h5writer_text(b->writer, "", "timeframe", d->frame->name, e) < 0 ||
        target_names_write(b, e) < 0)
        return -1;
    if (!b->normalised)
        return 0;
    for (uint32_t i = 0; i < d->series_count * d->features; i++) {
        flat[0][i] = b->mean[i / d->features][i % d->features];
        flat[1][i] = b->deviation[i / d->features][i % d->features];
    }
    return h5writer_array(b->writer, "normalise/mean", H5TYPE_F64, 2, dims, flat[0], e) < 0 ||
                   h5writer_array(b->writer, "normalise/standard_deviation", H5TYPE_F64, 2, dims,
                                  flat[1], e) < 0
               ? -1
               : 0;
}

/* How many rows between the parts are lost, why, and what would change it. */
static void purged_print(const struct bars_rows *r)
{
    uint64_t purged = r->rows - r->train_rows - r->validation_rows;
    if (purged == 0)
        return;
    fprintf(stderr,
            "prepare bars: %" PRIu64 " rows between them (%.1f %%) are left out, because their "
            "targets reach %s\n",
            purged, 100.0 * (double)purged / (double)r->rows,
            r->purge_windows ? "prices that the rows to evaluate show; prepare.purge: targets or "
                               "shorter windows (prepare.timeframes) keep more"
                             : "into those of the rows to evaluate (prepare.purge)");
}

/* On standard output where other rows are followed: who asks about new ones (predict.sh) is told.
 */
static void dropped_print(const struct bars *b)
{
    const struct bars_file *f = &b->data.file;
    if (f->dropped)
        fprintf(b->like.path ? stdout : stderr,
                "prepare bars: %" PRIu64 " bars with missing values were dropped "
                "(prepare.missing), the first in line %" PRIu64 " of %s; no row is decided at "
                "their ends\n",
                f->dropped, f->dropped_line, f->csv.path);
}

static void summary_print(const struct bars *b, const char *out)
{
    const struct bars_data *d = &b->data;
    const struct bars_rows *r = &b->rows;
    char from[MOMENT_BYTES], to[MOMENT_BYTES];
    fprintf(stderr,
            "prepare bars: %u bars of %s from %s to %s in %u stretch%s (cut where more than "
            "%" PRIu64 " are missing)\n",
            d->count, d->frame->name, moment_show(d->time[0], from),
            moment_show(d->time[d->count - 1], to), d->stretches, d->stretches > 1 ? "es" : "",
            b->options->prepare_gap_bars);
    dropped_print(b);
    fprintf(stderr, "prepare bars: %" PRIu64 " rows of", r->rows);
    for (uint32_t i = 0; i < d->series_count; i++)
        fprintf(stderr, " %s:%u", d->series[i].window.frame->name, d->series[i].window.bars);
    fprintf(stderr,
            " x %u features and %u targets, %" PRIu64 " to train and %" PRIu64
            " to evaluate -> %s\n",
            d->features, r->horizon, r->train_rows, r->validation_rows, out);
    purged_print(r);
}

/* ---- the command ---------------------------------------------------------------------------- */

static void bars_close(void *self)
{
    struct bars *b = self;
    char hex[65];
    progress_end(&b->data.progress);
    h5writer_abandon(&b->writer);
    digest_close(&b->digest, hex);
    for (int i = 0; i < 2 * SETS; i++)
        piece_close(&b->piece[i / SETS][i % SETS]);
    bars_data_close(&b->data);
    free(b);
}

static int bars_open(void **self_p, const struct options *o, struct err *e)
{
    struct bars *b = calloc(1, sizeof *b);
    if (!b)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", o->data_source);
    b->options = o;
    int result = bars_data_open(&b->data, o, e);
    if (result == 0)
        result = bars_like_read(&b->like, o->prepare_like, &b->data, e);
    if (result < 0)
        bars_close(b);
    else
        *self_p = b;
    return result;
}

static int bars_stamp(void *self, char *stamp, size_t bytes, struct err *e)
{
    const struct bars *b = self;
    const struct options *o = b->options;
    struct stat st;
    int used = snprintf(
        stamp, bytes,
        "bars timeframes=%s horizon=%" PRIu64 " stride=%" PRIu64 " gap_bars=%" PRIu64
        " gap_windows=%s purge=%s missing=%s fraction=%.17g normalise=%s target_scale=%.17g%s%s\n",
        o->prepare_timeframes, o->prepare_horizon, o->prepare_stride, o->prepare_gap_bars,
        o->prepare_gap_windows, o->prepare_purge, o->prepare_missing,
        o->prepare_validation_fraction, o->prepare_normalise, o->prepare_target_scale,
        b->like.path ? " like=" : "", b->like.fingerprint);
    if (fstat(b->data.file.csv.fd, &st) != 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot read %s", o->data_source);
    own_stamp_file(stamp + used, bytes - (size_t)used, o->data_source, &st);
    return 0;
}

static int bars_make(void *self, const char *out, const char *stamp, struct err *e)
{
    struct bars *b = self;
    if (digest_open(&b->digest, e) < 0)
        return -1;
    own_digest_options(b->digest, stamp);
    if (bars_data_load(&b->data, b->options, b->digest, e) < 0 ||
        bars_like_check(&b->like, &b->data, e) < 0 ||
        bars_rows_open(&b->rows, &b->data, b->options, e) < 0 || normalise(b, e) < 0)
        return -1;
    if (place_begin(&b->writer, out, e) < 0 || (!b->like.path && split_begin(b, 0, e) < 0) ||
        split_begin(b, 1, e) < 0 || rows_write(b, e) < 0 || attributes_write(b, stamp, e) < 0 ||
        place_commit(&b->writer, out, e) < 0)
        return -1;
    progress_end(&b->data.progress);
    summary_print(b, out);
    return 0;
}

int prepare_bars(int argc, char **argv)
{
    static const struct maker bars = {
        .name = "bars",
        .does = "Turns a CSV file of bars (time, open, high, low, close, volume) of one timeframe "
                "into one HDF5\nfile: groups train and validation, each with a group features of "
                "windows of several timeframes\n[N, bars, F] (prepare.timeframes) and targets [N, "
                "K], the log returns over the next 1 to K bars.",
        .version = LAYOUT_VERSION,
        .open = bars_open,
        .stamp = bars_stamp,
        .make = bars_make,
        .close = bars_close,
    };
    return own_prepare(argc, argv, &bars);
}
