/* table.c - see table.h: the passes over a source, the split, and the file that comes out. */
#include "pipelines/prepare/table.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/prepare/labels.h"
#include "pipelines/prepare/progress.h"
#include "proto/order.h"

#define LAYOUT_VERSION "table 1"
enum {
    GZIP_LEVEL = 1, /* as prepare idx */
    FEATURE_CHUNK_ROWS = 256,
    FEATURE_CHUNK_BYTES_MAX = 4 << 20,
    TARGET_CHUNK_ROWS = 8192,
    ATTRIBUTE_BYTES_MAX = 65000,
    SPLIT_KEY = 0x73706c69, /* "spli": the split's own stream of the seed */
};

/* A data set that is written as its chunks fill. */
struct piece {
    char name[32];
    enum h5type type;
    uint64_t rows, row_bytes, chunk_rows, held;
    unsigned char *data;
};

struct table {
    struct table_source *source;
    const struct options *options;
    struct digest *digest;
    struct h5writer *writer;
    struct labels labels;
    double *values, *mean, *deviation;
    double low, high; /* of all values */
    int whole;        /* all values are whole numbers */
    uint64_t rows, validation_rows;
    enum h5type feature_type, target_type;
    struct piece piece[2][2]; /* [validation][features, targets] */
    struct progress progress;
};

/* ---- passes --------------------------------------------------------------------------------- */

/* Read all rows once; visit(t, row, label) sees t->values. */
static int pass(struct table *t, const char *what, struct digest *digest,
                int (*visit)(struct table *t, uint64_t row, const char *label, struct err *e),
                struct err *e)
{
    const char *label;
    uint64_t row = 0;
    int more = t->source->begin(t->source, digest, e);
    while (more == 0 && (more = t->source->next(t->source, t->values, &label, e)) > 0) {
        if (visit(t, row++, label, e) < 0)
            return -1;
        progress_show(&t->progress, what, row, t->source->share);
        more = 0;
    }
    if (more < 0)
        return -1;
    if (t->rows == 0)
        t->rows = row;
    if (t->rows != row)
        return err_set(e, EXIT_CODE_TEMPORARY, "%s changed while it was read", t->source->path);
    return 0;
}

static int row_scan(struct table *t, uint64_t row, const char *label, struct err *e)
{
    (void)row;
    for (uint32_t i = 0; i < t->source->values; i++) {
        double v = t->values[i];
        t->low = v < t->low ? v : t->low;
        t->high = v > t->high ? v : t->high;
        if (t->whole && v != rint(v))
            t->whole = 0;
    }
    if (labels_add(&t->labels, label, e) == 0)
        return 0;
    char where[64];
    t->source->where(t->source, where, sizeof where);
    return err_prefix(e, "%s: %s", t->source->path, where);
}

/* Is it a row of the validation part? A pure function of the seed, the number of rows and the row.
 */
static int in_validation(const struct table *t, uint64_t row)
{
    if (t->options->prepare_split[0] == 'l') /* last */
        return row >= t->rows - t->validation_rows;
    uint64_t key = order_key(t->options->prepare_split_seed, SPLIT_KEY);
    return order_permute(key, t->rows, row) < t->validation_rows;
}

/* Welford's mean and sum of squares, over the training rows. */
static int row_measure(struct table *t, uint64_t row, const char *label, struct err *e)
{
    (void)label, (void)e;
    if (row >= t->rows || in_validation(t, row))
        return 0;
    double count = (double)++t->piece[0][0].held;
    for (uint32_t i = 0; i < t->source->values; i++) {
        double d = t->values[i] - t->mean[i];
        t->mean[i] += d / count;
        t->deviation[i] += d * (t->values[i] - t->mean[i]);
    }
    return 0;
}

static int measure(struct table *t, struct err *e)
{
    t->mean = calloc(t->source->values, sizeof *t->mean);
    t->deviation = calloc(t->source->values, sizeof *t->deviation);
    if (!t->mean || !t->deviation)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot measure %s", t->source->path);
    if (pass(t, "measuring", NULL, row_measure, e) < 0)
        return -1;
    for (uint32_t i = 0; i < t->source->values; i++) {
        t->deviation[i] = sqrt(t->deviation[i] / (double)t->piece[0][0].held);
        if (t->deviation[i] == 0) /* a constant column becomes 0 */
            t->deviation[i] = 1;
    }
    t->piece[0][0].held = 0;
    return 0;
}

/* ---- the file ------------------------------------------------------------------------------- */

static enum h5type feature_type(const struct table *t)
{
    static const struct {
        enum h5type type;
        double low, high;
    } small[] = {{H5TYPE_U8, 0, 255},
                 {H5TYPE_I8, -128, 127},
                 {H5TYPE_U16, 0, 65535},
                 {H5TYPE_I16, -32768, 32767}};
    for (size_t i = 0; t->whole && !t->mean && i < sizeof small / sizeof small[0]; i++)
        if (t->low >= small[i].low && t->high <= small[i].high)
            return small[i].type;
    return H5TYPE_F32;
}

static void value_store(unsigned char *at, enum h5type type, double v)
{
    float f = (float)v;
    int32_t n = type == H5TYPE_F32 ? 0 : (int32_t)v;
    memcpy(at, type == H5TYPE_F32 ? (const void *)&f : (const void *)&n, h5type_bytes(type));
}

static int piece_flush(struct table *t, struct piece *p, struct err *e)
{
    uint64_t rows = p->held;
    p->held = 0;
    return rows ? h5writer_rows_append(t->writer, p->name, p->data, rows, e) : 0;
}

/* The place of the next row, or NULL and *e. */
static unsigned char *piece_row(struct table *t, struct piece *p, struct err *e)
{
    if (p->held == p->chunk_rows && piece_flush(t, p, e) < 0)
        return NULL;
    return p->data + p->row_bytes * p->held++;
}

/* A row of the validation part may lie that far from all that was measured. */
static int normalised_refuse(const struct table *t, uint32_t feature, struct err *e)
{
    char where[64];
    t->source->where(t->source, where, sizeof where);
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s: %s: feature %u is more than a float32 holds when it is normalised by mean "
                   "%g and deviation %g",
                   t->source->path, where, feature, t->mean[feature], t->deviation[feature]);
}

static int row_write(struct table *t, uint64_t row, const char *label, struct err *e)
{
    int64_t class = labels_class(&t->labels, label);
    if (row >= t->rows || class < 0)
        return err_set(e, EXIT_CODE_TEMPORARY, "%s changed while it was read", t->source->path);
    struct piece *p = t->piece[in_validation(t, row)];
    unsigned char *features = piece_row(t, &p[0], e);
    unsigned char *target = features ? piece_row(t, &p[1], e) : NULL;
    if (!target)
        return -1;
    value_store(target, t->target_type, (double)class);
    uint32_t step = h5type_bytes(t->feature_type);
    for (uint32_t i = 0; i < t->source->values; i++, features += step) {
        double v = t->values[i];
        if (t->mean)
            v = (v - t->mean[i]) / t->deviation[i];
        if (fabs(v) > FLT_MAX)
            return normalised_refuse(t, i, e);
        value_store(features, t->feature_type, v);
    }
    return 0;
}

static int piece_begin(struct table *t, int validation, int targets, struct err *e)
{
    struct piece *p = &t->piece[validation][targets];
    snprintf(p->name, sizeof p->name, "%s/%s", validation ? "validation" : "train",
             targets ? "targets" : "features");
    p->type = targets ? t->target_type : t->feature_type;
    p->rows = validation ? t->validation_rows : t->rows - t->validation_rows;
    p->row_bytes = (targets ? 1 : t->source->values) * (uint64_t)h5type_bytes(p->type);
    p->chunk_rows = targets ? TARGET_CHUNK_ROWS : FEATURE_CHUNK_BYTES_MAX / p->row_bytes;
    if (!targets && p->chunk_rows > FEATURE_CHUNK_ROWS)
        p->chunk_rows = FEATURE_CHUNK_ROWS;
    if (p->chunk_rows > p->rows)
        p->chunk_rows = p->rows;
    p->data = malloc(p->chunk_rows * p->row_bytes);
    if (!p->data)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot get memory for a chunk of rows");
    uint64_t dims[2] = {p->rows, t->source->values};
    return h5writer_rows_begin(t->writer, p->name, p->type, targets ? 1 : 2, dims, p->chunk_rows,
                               GZIP_LEVEL, e);
}

/* The classes' texts, one a line, in the order of their numbers. */
static int classes_write(struct table *t, struct err *e)
{
    size_t used = 0;
    char *text = malloc(ATTRIBUTE_BYTES_MAX + LABEL_BYTES_MAX + 2);
    if (!text)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot list the classes");
    for (uint32_t i = 0; i < t->labels.count && used <= ATTRIBUTE_BYTES_MAX; i++)
        used += (size_t)sprintf(text + used, "%s%s", i ? "\n" : "", t->labels.label[i].text);
    int result;
    if (used > ATTRIBUTE_BYTES_MAX)
        result = err_set(e, EXIT_CODE_PERMANENT,
                         "the names of the %u classes take more than %d bytes; number them from 0 "
                         "in the source",
                         t->labels.count, ATTRIBUTE_BYTES_MAX);
    else
        result = h5writer_text(t->writer, "", "classes", text, e);
    free(text);
    return result;
}

static int attributes_write(struct table *t, const char *stamp, struct err *e)
{
    char hex[65];
    uint64_t dims[1] = {t->source->values};
    digest_close(&t->digest, hex);
    if (h5writer_text(t->writer, "", "fingerprint", hex, e) < 0 ||
        h5writer_text(t->writer, "", "source", t->source->path, e) < 0 ||
        h5writer_text(t->writer, "", "source_stamp", stamp, e) < 0 ||
        h5writer_text(t->writer, "", "layout", "dense", e) < 0 ||
        h5writer_u64(t->writer, "", "class_count", t->labels.classes, e) < 0)
        return -1;
    if (t->labels.mapped && classes_write(t, e) < 0)
        return -1;
    /* Nothing reads the names back: a table too wide to list them goes without. */
    if (t->source->columns && strlen(t->source->columns) <= ATTRIBUTE_BYTES_MAX &&
        h5writer_text(t->writer, "", "columns", t->source->columns, e) < 0)
        return -1;
    return t->mean && (h5writer_array(t->writer, "normalise/mean", H5TYPE_F64, 1, dims, t->mean,
                                      e) < 0 ||
                       h5writer_array(t->writer, "normalise/standard_deviation", H5TYPE_F64, 1,
                                      dims, t->deviation, e) < 0)
               ? -1
               : 0;
}

static int file_write(struct table *t, const char *out, const char *stamp, struct err *e)
{
    t->feature_type = feature_type(t);
    t->target_type = t->labels.classes <= 256 ? H5TYPE_U8 : H5TYPE_U16;
    if (h5writer_open(&t->writer, out, e) < 0)
        return -1;
    for (int i = 0; i < 4; i++)
        if (piece_begin(t, i / 2, i % 2, e) < 0)
            return -1;
    if (pass(t, "writing", NULL, row_write, e) < 0)
        return -1;
    for (int i = 0; i < 4; i++)
        if (piece_flush(t, &t->piece[i / 2][i % 2], e) < 0)
            return -1;
    return attributes_write(t, stamp, e) < 0 ? -1 : h5writer_commit(&t->writer, e);
}

/* ---- together ------------------------------------------------------------------------------- */

static int split_choose(struct table *t, struct err *e)
{
    if (t->rows < 2)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has %" PRIu64 " usable rows; at least 2 are needed, one to train with "
                       "and one to evaluate",
                       t->source->path, t->rows);
    t->validation_rows =
        (uint64_t)llround((double)t->rows * t->options->prepare_validation_fraction);
    if (t->validation_rows < 1)
        t->validation_rows = 1;
    if (t->validation_rows > t->rows - 1)
        t->validation_rows = t->rows - 1;
    return 0;
}

static void summary_print(const struct table *t, const char *out)
{
    const char *command = t->source->command;
    fprintf(stderr,
            "prepare %s: %" PRIu64 " rows of %u features (%s), %" PRIu64 " to train and %" PRIu64
            " to evaluate, %u classes -> %s\n",
            command, t->rows, t->source->values, h5type_name(t->feature_type),
            t->rows - t->validation_rows, t->validation_rows, t->labels.classes, out);
    if (t->source->dropped)
        fprintf(stderr, "prepare %s: %" PRIu64 " rows with missing values were dropped\n", command,
                t->source->dropped);
    if (!t->labels.mapped)
        return;
    fprintf(stderr, "prepare %s: classes", command);
    for (uint32_t i = 0; i < t->labels.count && i < 10; i++)
        fprintf(stderr, "%s %u = %s", i ? "," : "", i, t->labels.label[i].text);
    fputs(t->labels.count > 10 ? ", ... (attribute classes)\n" : "\n", stderr);
}

static int convert(struct table *t, const char *out, const char *stamp, struct err *e)
{
    /* A stamp begins with the options, in one line. */
    digest_bytes(t->digest, LAYOUT_VERSION, sizeof LAYOUT_VERSION);
    digest_bytes(t->digest, stamp, strcspn(stamp, "\n"));
    t->values = calloc(t->source->values, sizeof *t->values);
    if (!t->values)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", t->source->path);
    t->whole = 1;
    t->low = INFINITY;
    t->high = -INFINITY;
    if (pass(t, "reading", t->digest, row_scan, e) < 0 || split_choose(t, e) < 0)
        return -1;
    if (labels_number(&t->labels, e) < 0)
        return err_prefix(e, "%s", t->source->path);
    if (strcmp(t->options->prepare_normalise, "standard") == 0 && measure(t, e) < 0)
        return -1;
    return file_write(t, out, stamp, e);
}

int table_convert(struct table_source *s, const struct options *o, const char *out,
                  const char *stamp, struct err *e)
{
    char hex[65];
    struct table *t = calloc(1, sizeof *t);
    if (!t)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", s->path);
    t->source = s;
    t->progress.command = s->command;
    t->options = o;
    int result = labels_open(&t->labels, e) < 0 || digest_open(&t->digest, e) < 0
                     ? -1
                     : convert(t, out, stamp, e);
    progress_end(&t->progress);
    if (result == 0)
        summary_print(t, out);
    h5writer_abandon(&t->writer);
    digest_close(&t->digest, hex);
    labels_close(&t->labels);
    for (int i = 0; i < 4; i++)
        free(t->piece[i / 2][i % 2].data);
    free(t->values);
    free(t->mean);
    free(t->deviation);
    free(t);
    return result;
}
