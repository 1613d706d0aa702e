/* table.c - see table.h: the passes over a source, the split, and the file that comes out. */
#include "pipelines/prepare/table.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/prepare/labels.h"
#include "pipelines/prepare/piece.h"
#include "pipelines/prepare/place.h"
#include "pipelines/prepare/progress.h"
#include "pipelines/prepare/seen.h"
#include "pipelines/prepare/split.h"

enum {
    FEATURE_CHUNK_ROWS = 256,
    TARGET_CHUNK_ROWS = 8192,
    ATTRIBUTE_BYTES_MAX = 65000,
    PROGRESS_ROWS = 1024, /* between looks at the clock */
};

struct table {
    struct table_source *source;
    const struct options *options;
    struct digest *digest;
    struct h5writer *writer;
    struct labels labels;
    double *values, *mean, *deviation;
    double low, high; /* of all features' values */
    int whole;        /* they are whole numbers */
    uint64_t rows, validation_rows, measured_rows;
    uint64_t missing; /* targets, of all rows */
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
    const char *label = "";
    uint64_t row = 0;
    int more = t->source->begin(t->source, digest, e);
    while (more == 0 && (more = t->source->next(t->source, t->values, &label, e)) > 0) {
        if (visit(t, row++, label, e) < 0)
            return -1;
        if (row % PROGRESS_ROWS == 0)
            progress_show(&t->progress, t->source->command, what, t->source->share);
        more = 0;
    }
    if (more < 0)
        return -1;
    if (t->rows == 0)
        t->rows = row;
    return t->rows == row ? 0 : seen_changed(t->source->path, e);
}

static int row_scan(struct table *t, uint64_t row, const char *label, struct err *e)
{
    (void)row;
    for (uint32_t i = 0; i < t->source->features; i++) {
        double v = t->values[i];
        t->low = v < t->low ? v : t->low;
        t->high = v > t->high ? v : t->high;
        if (t->whole && v != rint(v))
            t->whole = 0;
    }
    for (uint32_t i = 0; i < t->source->targets; i++)
        t->missing += isnan(t->values[t->source->features + i]) != 0;
    uint32_t known = t->labels.count;
    if (t->source->targets || t->source->unlabelled)
        return 0;
    if (!label) {
        t->missing++;
        return 0;
    }
    int result = labels_add(&t->labels, label, e);
    if (result == 0 && t->source->like.class_names && t->labels.count > known)
        result = err_set(e, EXIT_CODE_PERMANENT,
                         "the class \"%.60s\" is none of those of %s (prepare.like)", label,
                         t->source->like.path);
    if (result == 0)
        return 0;
    char where[64];
    t->source->where(t->source, where, sizeof where);
    return err_prefix(e, "%s: %s", t->source->path, where);
}

static int in_validation(const struct table *t, uint64_t row)
{
    return t->source->like.path || split_evaluates(t->options, t->rows, t->validation_rows, row);
}

/* Welford's mean and sum of squares, over the training rows. */
static int row_measure(struct table *t, uint64_t row, const char *label, struct err *e)
{
    (void)label, (void)e;
    if (row >= t->rows || in_validation(t, row))
        return 0;
    double count = (double)++t->measured_rows;
    for (uint32_t i = 0; i < t->source->features; i++) {
        double d = t->values[i] - t->mean[i];
        t->mean[i] += d / count;
        t->deviation[i] += d * (t->values[i] - t->mean[i]);
    }
    return 0;
}

/* As the file that is followed has it; *e only for memory. */
static int measure_like(struct table *t, struct err *e)
{
    const struct like *like = &t->source->like;
    size_t bytes = t->source->features * sizeof *t->mean;
    if (!like->mean)
        return 0;
    t->mean = malloc(bytes);
    t->deviation = malloc(bytes);
    if (!t->mean || !t->deviation)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", t->source->path);
    memcpy(t->mean, like->mean, bytes);
    memcpy(t->deviation, like->deviation, bytes);
    return 0;
}

static int measure(struct table *t, struct err *e)
{
    t->mean = calloc(t->source->features, sizeof *t->mean);
    t->deviation = calloc(t->source->features, sizeof *t->deviation);
    if (!t->mean || !t->deviation)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot measure %s", t->source->path);
    if (pass(t, "measuring", NULL, row_measure, e) < 0)
        return -1;
    for (uint32_t i = 0; i < t->source->features; i++) {
        t->deviation[i] = sqrt(t->deviation[i] / (double)t->measured_rows);
        if (t->deviation[i] == 0) /* a constant column becomes 0 */
            t->deviation[i] = 1;
    }
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

static int features_store(const struct table *t, unsigned char *at, struct err *e)
{
    uint32_t step = h5type_bytes(t->feature_type);
    for (uint32_t i = 0; i < t->source->features; i++, at += step) {
        double v = t->values[i];
        if (!(v >= t->low && v <= t->high) || (t->whole && v != rint(v)))
            return seen_changed(t->source->path, e); /* the type was chosen for other values */
        if (t->mean)
            v = (v - t->mean[i]) / t->deviation[i];
        if (fabs(v) > FLT_MAX)
            return normalised_refuse(t, i, e);
        value_store(at, t->feature_type, v);
    }
    return 0;
}

static int row_write(struct table *t, uint64_t row, const char *label, struct err *e)
{
    const struct table_source *s = t->source;
    int classes = !s->targets && !s->unlabelled;
    int64_t class = classes && label ? labels_class(&t->labels, label) : -1;
    if (row >= t->rows || (classes && label && class < 0))
        return seen_changed(s->path, e);
    struct piece *p = t->piece[in_validation(t, row)];
    unsigned char *features = piece_row(&p[0], e);
    if (!features)
        return -1;
    if (s->unlabelled)
        return features_store(t, features, e);
    unsigned char *target = piece_row(&p[1], e);
    if (!target)
        return -1;
    if (classes)
        value_store(target, t->target_type, (double)class);
    for (uint32_t i = 0; i < s->targets; i++, target += sizeof(float))
        value_store(target, H5TYPE_F32, t->values[s->features + i]);
    return features_store(t, features, e);
}

/* The data set of features (0) or targets (1) of the training or validation part. */
static int set_begin(struct table *t, int validation, int targets, struct err *e)
{
    char name[32];
    const struct table_source *s = t->source;
    enum h5type type = targets ? t->target_type : t->feature_type;
    uint64_t dims[2] = {validation ? t->validation_rows : t->rows - t->validation_rows,
                        targets ? s->targets : s->features};
    int rank = dims[1] ? 2 : 1;
    uint64_t row_bytes = (dims[1] ? dims[1] : 1) * h5type_bytes(type);
    uint64_t chunk_rows =
        piece_chunk_rows(row_bytes, targets ? TARGET_CHUNK_ROWS : FEATURE_CHUNK_ROWS);
    snprintf(name, sizeof name, "%s/%s", validation ? "validation" : "train",
             targets ? "targets" : "features");
    return piece_begin(&t->piece[validation][targets], t->writer, name, type, rank, dims,
                       chunk_rows, e);
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

/* Nothing reads the names back: a table too wide to list them goes without. */
static int names_write(struct table *t, const char *attribute, const char *names, struct err *e)
{
    return names && strlen(names) <= ATTRIBUTE_BYTES_MAX
               ? h5writer_text(t->writer, "", attribute, names, e)
               : 0;
}

static int attributes_write(struct table *t, const char *stamp, struct err *e)
{
    const struct table_source *s = t->source;
    uint64_t dims[1] = {s->features};
    if (own_attributes(t->writer, &t->digest, s->path, stamp, "dense", e) < 0 ||
        names_write(t, "columns", s->columns, e) < 0 ||
        names_write(t, "target_columns", s->target_columns, e) < 0)
        return -1;
    if (!s->targets && !s->unlabelled &&
        h5writer_u64(t->writer, "", "class_count", t->labels.classes, e) < 0)
        return -1;
    if (t->labels.mapped && classes_write(t, e) < 0)
        return -1;
    return t->mean && (h5writer_array(t->writer, "normalise/mean", H5TYPE_F64, 1, dims, t->mean,
                                      e) < 0 ||
                       h5writer_array(t->writer, "normalise/standard_deviation", H5TYPE_F64, 1,
                                      dims, t->deviation, e) < 0)
               ? -1
               : 0;
}

/* Sets 0 and 1 are the training rows' features and targets, 2 and 3 those of the others. */
static int set_is_there(const struct table *t, int set)
{
    return !(set < 2 && t->source->like.path) && !(set % 2 && t->source->unlabelled);
}

/* The smallest that holds the classes' numbers and, where some are missing, -1. */
static enum h5type target_type(const struct table *t)
{
    uint32_t classes = t->labels.classes;
    if (t->source->targets)
        return H5TYPE_F32;
    if (!t->missing)
        return classes <= 256 ? H5TYPE_U8 : H5TYPE_U16;
    return classes <= 128 ? H5TYPE_I8 : classes <= 32768 ? H5TYPE_I16 : H5TYPE_I32;
}

static int file_write(struct table *t, const char *out, const char *stamp, struct err *e)
{
    t->feature_type = feature_type(t);
    t->target_type = target_type(t);
    if (place_begin(&t->writer, out, e) < 0)
        return -1;
    for (int i = 0; i < 4; i++)
        if (set_is_there(t, i) && set_begin(t, i / 2, i % 2, e) < 0)
            return -1;
    if (pass(t, "writing", NULL, row_write, e) < 0)
        return -1;
    for (int i = 0; i < 4; i++)
        if (set_is_there(t, i) && piece_flush(&t->piece[i / 2][i % 2], e) < 0)
            return -1;
    return attributes_write(t, stamp, e) < 0 ? -1 : place_commit(&t->writer, out, e);
}

/* ---- together ------------------------------------------------------------------------------- */

static uint64_t targets_of_rows(const struct table *t)
{
    return t->rows * (t->source->targets ? t->source->targets : 1);
}

static int split_choose(struct table *t, struct err *e)
{
    if (t->source->like.path) {
        t->validation_rows = t->rows;
        return t->rows ? 0
                       : err_set(e, EXIT_CODE_PERMANENT, "%s has no row; at least one is needed",
                                 t->source->path);
    }
    if (t->rows < 2)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has %" PRIu64 " usable rows; at least 2 are needed, one to train with "
                       "and one to evaluate",
                       t->source->path, t->rows);
    if (t->missing == targets_of_rows(t))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the targets of all %" PRIu64
                       " usable rows of %s are missing; expected some",
                       t->rows, t->source->path);
    t->validation_rows = split_validation(t->options, t->rows);
    return 0;
}

static void classes_print(const struct table *t)
{
    if (!t->labels.mapped)
        return;
    fprintf(stderr, "prepare %s: classes", t->source->command);
    for (uint32_t i = 0; i < t->labels.count && i < 10; i++)
        fprintf(stderr, "%s %u = %s", i ? "," : "", i, t->labels.label[i].text);
    fputs(t->labels.count > 10 ? ", ... (attribute classes)\n" : "\n", stderr);
}

static void summary_print(const struct table *t, const char *out)
{
    const struct table_source *s = t->source;
    if (s->like.path)
        fprintf(stderr,
                "prepare %s: %" PRIu64 " rows of %u features (%s)%s like those of %s -> %s\n",
                s->command, t->rows, s->features, h5type_name(t->feature_type),
                s->unlabelled ? " without targets" : "", s->like.path, out);
    else
        fprintf(stderr,
                "prepare %s: %" PRIu64 " rows of %u features (%s), %" PRIu64
                " to train and %" PRIu64 " to evaluate, %u %s -> %s\n",
                s->command, t->rows, s->features, h5type_name(t->feature_type),
                t->rows - t->validation_rows, t->validation_rows,
                s->targets ? s->targets : t->labels.classes,
                s->targets ? "target values" : "classes", out);
    if (s->dropped)
        fprintf(stderr, "prepare %s: %" PRIu64 " rows with missing values were dropped\n",
                s->command, s->dropped);
    if (s->options->missing_targets ? !s->unlabelled : t->missing > 0)
        fprintf(stderr,
                "prepare %s: %" PRIu64 " of %" PRIu64 " targets are missing and kept so%s\n",
                s->command, t->missing, targets_of_rows(t),
                s->like.path ? "" : " (model.missing_targets)");
    classes_print(t);
}

/* The classes of the file that is followed come first: with them the same texts get the same
 * numbers. */
static int classes_begin(struct table *t, struct err *e)
{
    const struct like *like = &t->source->like;
    char text[LABEL_BYTES_MAX + 1];
    for (const char *at = like->class_names; at && *at;) {
        size_t length = strcspn(at, "\n");
        snprintf(text, sizeof text, "%.*s", (int)length, at);
        if (labels_add(&t->labels, text, e) < 0)
            return err_prefix(e, "%s (prepare.like)", like->path);
        at += length + (at[length] == '\n');
    }
    return 0;
}

/* Numbers of classes must mean there what they mean here. */
static int classes_follow(struct table *t, struct err *e)
{
    const struct table_source *s = t->source;
    if (s->unlabelled)
        return 0;
    if (s->targets != s->like.targets)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has %u target values a row, %s (prepare.like) has %u (0: classes)",
                       s->path, s->targets, s->like.path, s->like.targets);
    if (s->targets)
        return 0;
    if (t->labels.classes > s->like.classes || t->labels.mapped != !!s->like.class_names)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the classes of %s are not those of %s (prepare.like), which are %s0 to %u",
                       s->path, s->like.path, s->like.class_names ? "texts numbered " : "",
                       s->like.classes - 1);
    t->labels.classes = s->like.classes;
    return 0;
}

static int convert(struct table *t, const char *out, const char *stamp, struct err *e)
{
    const struct table_source *s = t->source;
    own_digest_options(t->digest, stamp);
    t->values = calloc(s->features + s->targets, sizeof *t->values);
    if (!t->values)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", s->path);
    t->whole = 1;
    t->low = INFINITY;
    t->high = -INFINITY;
    if (classes_begin(t, e) < 0 || pass(t, "reading", t->digest, row_scan, e) < 0 ||
        split_choose(t, e) < 0)
        return -1;
    if (!s->unlabelled && labels_number(&t->labels, e) < 0)
        return err_prefix(e, "%s", s->path);
    if (s->like.path ? classes_follow(t, e) < 0 || measure_like(t, e) < 0
                     : strcmp(t->options->prepare_normalise, "standard") == 0 && measure(t, e) < 0)
        return -1;
    return file_write(t, out, stamp, e);
}

int table_convert(struct table_source *s, const char *out, const char *stamp, struct err *e)
{
    char hex[65];
    struct table *t = calloc(1, sizeof *t);
    if (!t)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", s->path);
    t->source = s;
    t->options = s->options;
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
        piece_close(&t->piece[i / 2][i % 2]);
    free(t->values);
    free(t->mean);
    free(t->deviation);
    free(t);
    return result;
}
