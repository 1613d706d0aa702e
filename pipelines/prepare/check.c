/* check.c - `prepare check` (finetune.sh --check-data): reads the whole data file once and prints
 * what it holds, so that a long run does not end at a row that nobody looked at.
 *
 * Per split: shapes and types, range of the values, NaN and infinite ones, constant features, rows
 * of each class; then how many training rows stand in the validation part as well, by a 64-bit hash
 * of a row. Memory is bounded: a validation part with more different rows than HASHES_MAX is
 * compared in part (hashes.h), and the line says so.
 */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/prepare/arguments.h"
#include "pipelines/prepare/hashes.h"
#include "pipelines/prepare/prepare.h"
#include "proto/err.h"
#include "proto/h5file.h"
#include "proto/options.h"
#include "proto/order.h"

enum {
    BLOCK_BYTES = 4 << 20,
    ROW_BYTES_MAX = 64 << 20,
    CLASSES_MAX = 65536,
    CLASSES_SHOWN = 20,
    COLUMNS_SHOWN = 8,
    HASHES_MAX = 8 << 20, /* 64 MiB of them */
};

struct split {
    const char *group;
    struct h5array features, targets;
    uint64_t row_values, row_bytes;
    double *low, *high;                /* [row_values], of the finite values */
    uint64_t nan, infinite, first_bad; /* first_bad: row */
    int64_t class_low, class_high;
    uint64_t *class_rows; /* [CLASSES_MAX] */
};

struct check {
    struct h5reader *reader;
    const struct options *options;
    struct split split[2]; /* train, validation */
    unsigned char *block, *block_targets;
    struct hashes hashes; /* of the validation rows */
    uint64_t equal, compared;
    char wrong[700]; /* the first thing that makes training impossible */
};

static void wrong_note(struct check *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void wrong_note(struct check *c, const char *format, ...)
{
    va_list args;
    if (c->wrong[0])
        return;
    va_start(args, format);
    vsnprintf(c->wrong, sizeof c->wrong, format, args);
    va_end(args);
}

/* ---- values --------------------------------------------------------------------------------- */

static double value_at(enum h5type type, const unsigned char *at)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
        _Float16 f16;
        float f32;
        double f64;
    } v;
    memcpy(&v, at, h5type_bytes(type));
    switch (type) {
    case H5TYPE_U8:
        return v.u8;
    case H5TYPE_I8:
        return v.i8;
    case H5TYPE_U16:
        return v.u16;
    case H5TYPE_I16:
        return v.i16;
    case H5TYPE_U32:
        return v.u32;
    case H5TYPE_I32:
        return v.i32;
    case H5TYPE_U64:
        return (double)v.u64;
    case H5TYPE_I64:
        return (double)v.i64;
    case H5TYPE_F16:
        return (double)v.f16;
    case H5TYPE_F32:
        return v.f32;
    case H5TYPE_F64:
        return (double)(float)v.f64; /* what training sees: a larger one is infinite */
    case H5TYPE_COUNT:
        break;
    }
    ensure(!"an element type");
}

static uint64_t row_hash(const unsigned char *row, uint64_t bytes)
{
    uint64_t hash = bytes, word;
    for (; bytes >= 8; row += 8, bytes -= 8) {
        memcpy(&word, row, 8);
        hash = order_key(hash, word);
    }
    word = 0;
    memcpy(&word, row, bytes);
    return order_key(hash, word);
}

static void row_look(struct split *s, uint64_t row, const unsigned char *at)
{
    uint32_t step = h5type_bytes(s->features.type);
    for (uint64_t i = 0; i < s->row_values; i++, at += step) {
        double v = value_at(s->features.type, at);
        if (!isfinite(v)) {
            if (s->nan + s->infinite == 0)
                s->first_bad = row;
            *(isnan(v) ? &s->nan : &s->infinite) += 1;
            continue;
        }
        if (v < s->low[i])
            s->low[i] = v;
        if (v > s->high[i])
            s->high[i] = v;
    }
}

static void class_look(struct check *c, struct split *s, uint64_t row, const unsigned char *at)
{
    double v = value_at(s->targets.type, at);
    int64_t class = v >= 9e18 ? INT64_MAX : (int64_t)v;
    s->class_low = class < s->class_low ? class : s->class_low;
    s->class_high = class > s->class_high ? class : s->class_high;
    if (class >= 0 && class < CLASSES_MAX)
        s->class_rows[class]++;
    else
        wrong_note(c,
                   "%s/targets has class %" PRId64 " in row %" PRIu64
                   "; classes are whole numbers from 0 to %d",
                   s->group, class, row, CLASSES_MAX - 1);
}

/* ---- a split -------------------------------------------------------------------------------- */

static int set_describe(struct check *c, struct split *s, const char *name, struct h5array *a,
                        struct err *e)
{
    char path[H5FILE_NAME_MAX + 1];
    snprintf(path, sizeof path, "%s%s%s", s->group, s->group[0] ? "/" : "", name);
    if (!h5reader_has(c->reader, path))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has no data set %s (data.train and data.validation name the groups)",
                       c->options->data_file, path);
    return h5reader_foreign(c->reader, path, a, e);
}

static int split_describe(struct check *c, struct split *s, struct err *e)
{
    if (set_describe(c, s, "features", &s->features, e) < 0 ||
        set_describe(c, s, "targets", &s->targets, e) < 0)
        return -1;
    const struct h5array *x = &s->features, *y = &s->targets;
    if (x->rank < 2 || x->bytes == 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s in %s is empty or has 1 dimension; expected [N, F] values", x->name,
                       c->options->data_file);
    if (y->type == H5TYPE_F32 || y->type == H5TYPE_F64 || y->bytes == 0 ||
        y->bytes != y->dims[0] * h5type_bytes(y->type))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s in %s is not one whole number a row, the class (type %s, rank %d)",
                       y->name, c->options->data_file, h5type_name(y->type), y->rank);
    if (x->dims[0] != y->dims[0])
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s in %s has %" PRIu64 " rows and %s %" PRIu64 "; expected as many",
                       x->name, c->options->data_file, x->dims[0], y->name, y->dims[0]);
    s->row_bytes = x->bytes / x->dims[0];
    s->row_values = s->row_bytes / h5type_bytes(x->type);
    if (s->row_bytes > ROW_BYTES_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "a row of %s in %s has %" PRIu64 " bytes; at most %d are checked", x->name,
                       c->options->data_file, s->row_bytes, ROW_BYTES_MAX);
    s->low = malloc(s->row_values * sizeof *s->low);
    s->high = malloc(s->row_values * sizeof *s->high);
    s->class_rows = calloc(CLASSES_MAX, sizeof *s->class_rows);
    if (!s->low || !s->high || !s->class_rows)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot check %s", c->options->data_file);
    for (uint64_t i = 0; i < s->row_values; i++) {
        s->low[i] = INFINITY;
        s->high[i] = -INFINITY;
    }
    s->class_low = INT64_MAX;
    s->class_high = INT64_MIN;
    return 0;
}

static int split_read(struct check *c, struct split *s, int keep, struct err *e)
{
    uint64_t rows_max = BLOCK_BYTES / s->row_bytes, step = h5type_bytes(s->targets.type);
    if (rows_max < 1)
        rows_max = 1;
    c->block = malloc(rows_max * s->row_bytes);
    c->block_targets = malloc(rows_max * step);
    if (!c->block || !c->block_targets)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot check %s", c->options->data_file);
    for (uint64_t row = 0, rows; row < s->features.dims[0]; row += rows) {
        rows = s->features.dims[0] - row < rows_max ? s->features.dims[0] - row : rows_max;
        if (h5reader_rows(c->reader, &s->features, row, rows, c->block, e) < 0 ||
            h5reader_rows(c->reader, &s->targets, row, rows, c->block_targets, e) < 0)
            return -1;
        for (uint64_t i = 0; i < rows; i++) {
            const unsigned char *at = c->block + i * s->row_bytes;
            row_look(s, row + i, at);
            class_look(c, s, row + i, c->block_targets + i * step);
            uint64_t hash = row_hash(at, s->row_bytes);
            if (keep) {
                hashes_add(&c->hashes, hash);
            } else if (hashes_comparable(&c->hashes, hash)) {
                c->compared++;
                c->equal += (uint64_t)hashes_has(&c->hashes, hash);
            }
        }
    }
    free(c->block);
    free(c->block_targets);
    c->block = c->block_targets = NULL;
    return 0;
}

/* ---- what is printed ------------------------------------------------------------------------ */

static void shape_print(const struct h5array *a)
{
    printf("  %s: %s [", a->name, h5type_name(a->type));
    for (int i = 0; i < a->rank; i++)
        printf("%s%" PRIu64, i ? ", " : "", a->dims[i]);
    printf("]");
}

static void features_print(const struct split *s)
{
    double low = INFINITY, high = -INFINITY;
    uint64_t constant = 0;
    for (uint64_t i = 0; i < s->row_values; i++) {
        low = fmin(low, s->low[i]);
        high = fmax(high, s->high[i]);
        constant += s->low[i] == s->high[i];
    }
    shape_print(&s->features);
    if (low <= high)
        printf(", values %.6g to %.6g", low, high);
    printf(", NaN %" PRIu64 ", infinite %" PRIu64 "\n", s->nan, s->infinite);
    printf("    constant features: %" PRIu64, constant);
    for (uint64_t i = 0, shown = 0; i < s->row_values && shown < COLUMNS_SHOWN; i++)
        if (s->low[i] == s->high[i])
            printf("%s%" PRIu64, shown++ ? ", " : " (column ", i);
    printf("%s\n", constant == 0 ? "" : constant > COLUMNS_SHOWN ? ", ...)" : ")");
}

static void classes_print(const struct split *s)
{
    uint64_t present = 0;
    for (int i = 0; i < CLASSES_MAX; i++)
        present += s->class_rows[i] > 0;
    shape_print(&s->targets);
    printf(", values %" PRId64 " to %" PRId64 ", %" PRIu64 " classes\n    rows a class:",
           s->class_low, s->class_high, present);
    for (int i = 0, shown = 0; i < CLASSES_MAX && shown < CLASSES_SHOWN; i++)
        if (s->class_rows[i])
            printf("%s %d: %" PRIu64, shown++ ? "," : "", i, s->class_rows[i]);
    printf("%s\n", present > CLASSES_SHOWN ? ", ..." : "");
}

static void equal_print(const struct check *c)
{
    if (c->hashes.mask == 0)
        printf("equal rows: %" PRIu64 " of %" PRIu64 " training rows stand in %s as well\n",
               c->equal, c->compared, c->split[1].group);
    else
        printf("equal rows: %" PRIu64 " of %" PRIu64 " training rows compared (1 in %" PRIu64
               ") stand in %s as well\n",
               c->equal, c->compared, c->hashes.mask + 1, c->split[1].group);
}

/* ---- together ------------------------------------------------------------------------------- */

/* Outputs of the last layer that says them, or 0. */
static uint64_t model_outputs(const struct options *o)
{
    uint64_t outputs = 0;
    for (uint32_t i = 0; i < o->layer_count; i++) {
        const char *at = strstr(o->layers[i], " out=");
        if (at)
            outputs = strtoull(at + 5, NULL, 10);
    }
    return outputs;
}

static void splits_judge(struct check *c)
{
    uint64_t outputs = model_outputs(c->options);
    for (int i = 0; i < 2; i++) {
        const struct split *s = &c->split[i];
        if (s->nan + s->infinite)
            wrong_note(c,
                       "%s has values that are no finite float32, first in row %" PRIu64
                       "; training stops at such a row",
                       s->features.name, s->first_bad);
        if (outputs && s->class_high >= (int64_t)outputs)
            wrong_note(c,
                       "%s has classes up to %" PRId64 " and the model %" PRIu64
                       " outputs; its last layer needs out: %" PRId64,
                       s->targets.name, s->class_high, outputs, s->class_high + 1);
    }
    if (c->split[0].row_values != c->split[1].row_values)
        wrong_note(c, "%s has %" PRIu64 " values a row and %s %" PRIu64 "; expected as many",
                   c->split[0].features.name, c->split[0].row_values, c->split[1].features.name,
                   c->split[1].row_values);
}

static int check_run(struct check *c, struct err *e)
{
    if (hashes_open(&c->hashes, HASHES_MAX, e) < 0 ||
        h5reader_open(&c->reader, c->options->data_file, e) < 0 ||
        split_describe(c, &c->split[0], e) < 0 || split_describe(c, &c->split[1], e) < 0 ||
        split_read(c, &c->split[1], 1, e) < 0)
        return -1;
    hashes_seal(&c->hashes);
    if (split_read(c, &c->split[0], 0, e) < 0)
        return -1;
    printf("%s\n", c->options->data_file);
    for (int i = 0; i < 2; i++) {
        features_print(&c->split[i]);
        classes_print(&c->split[i]);
    }
    equal_print(c);
    fflush(stdout);
    splits_judge(c);
    return c->wrong[0] ? err_set(e, EXIT_CODE_PERMANENT, "%s", c->wrong) : 0;
}

static const char help[] =
    "usage: prepare check --config FILE [--set SECTION.KEY=VALUE]...\n\n"
    "Reads data.file once and prints per split: shapes, types, ranges, NaN and infinite values,\n"
    "constant features, rows of each class, and how many training rows are in the validation part\n"
    "too. Ends with 100 and a sentence if training is impossible.\n\n"
    "  --config FILE              pipeline file\n"
    "  --set SECTION.KEY=VALUE    change one option; repeatable, later ones win\n"
    "  --help                     this\n\n"
    "example: prepare check --config mine.yaml\n";

int prepare_check(int argc, char **argv)
{
    static struct options o;
    static struct check c;
    struct arguments a;
    struct err e = {0};
    int result = arguments_parse(&a, argc, argv, 0, &e);
    if (result == 0 && a.help) {
        fputs(help, stdout);
        return EXIT_CODE_DONE;
    }
    if (result == 0)
        result = options_read(&o, a.config, a.set, a.set_count, &e);
    if (result == 0) {
        memset(&c, 0, sizeof c);
        c.options = &o;
        c.split[0].group = o.data_train;
        c.split[1].group = o.data_validation;
        result = check_run(&c, &e);
        h5reader_close(&c.reader);
        for (int i = 0; i < 2; i++) {
            free(c.split[i].low);
            free(c.split[i].high);
            free(c.split[i].class_rows);
        }
        free(c.block);
        free(c.block_targets);
        hashes_close(&c.hashes);
        options_free(&o);
    }
    if (result == 0)
        return EXIT_CODE_DONE;
    fprintf(stderr, "prepare check: %s\n", e.text);
    return e.code;
}
