/* check.c - `prepare check` (finetune.sh --check-data): reads the whole data file once and prints
 * what it holds, so that a long run does not end at a row that nobody looked at.
 *
 * Per split: shapes and types, range of the values, NaN and infinite ones, constant features, rows
 * of each class (check_print.c prints and judges them); then how many training rows stand in the
 * validation part as well, by a 64-bit hash of a row. Memory is bounded: a validation part with
 * more different rows than HASHES_MAX is compared in part (hashes.h), and the line says so.
 */
#include "pipelines/prepare/check.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/prepare/arguments.h"
#include "pipelines/prepare/prepare.h"
#include "proto/order.h"

enum { BLOCK_BYTES = 4 << 20, ROW_BYTES_MAX = 64 << 20, HASHES_MAX = 8 << 20 /* 64 MiB of them */ };

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

/* The values of one part of a row, the first of which is the row's value `first`. */
static void part_look(struct split *s, const struct h5array *part, uint64_t row, uint64_t first,
                      const unsigned char *at)
{
    uint32_t step = h5type_bytes(part->type);
    uint64_t end = first + part->bytes / part->dims[0] / step;
    for (uint64_t i = first; i < end; i++, at += step) {
        double v = value_at(part->type, at);
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
    if (class >= 0 && class < CHECK_CLASSES_MAX)
        s->class_rows[class]++;
    else
        check_wrong(c,
                    "%s has class %" PRId64 " in row %" PRIu64
                    "; classes are whole numbers from 0 to %d",
                    s->targets.name, class, row, CHECK_CLASSES_MAX - 1);
}

/* ---- a split -------------------------------------------------------------------------------- */

static int set_describe(struct check *c, const struct split *s, const char *name, struct h5array *a,
                        struct err *e)
{
    char path[H5FILE_NAME_MAX + 1];
    check_path(path, s->group, name);
    if (!h5reader_has(c->reader, path))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has no data set %s (data.train and data.validation name the groups, "
                       "data.features and data.targets the sets)",
                       c->options->data_file, path);
    return h5reader_foreign(c->reader, path, a, e);
}

/* One data set, or a group of timeframes. */
static int features_describe(struct check *c, struct split *s, struct err *e)
{
    const char *name = c->options->data_features;
    char path[H5FILE_NAME_MAX + 1], member[H5FILE_NAME_MAX + 1];
    struct h5names names;
    check_path(path, s->group, name);
    s->part_count = 1;
    if (!h5reader_is_group(c->reader, path))
        return set_describe(c, s, name, &s->part[0], e);
    if (h5reader_names(c->reader, path, "timeframes", &names, e) < 0)
        return -1;
    for (s->part_count = 0; s->part_count < names.count; s->part_count++) {
        snprintf(member, sizeof member, "%s/%.64s", name, names.name[s->part_count]);
        if (set_describe(c, s, member, &s->part[s->part_count], e) < 0)
            return -1;
    }
    return 0;
}

static int shapes_check(struct check *c, struct split *s, struct err *e)
{
    const struct h5array *y = &s->targets;
    if (y->type == H5TYPE_F16 || y->type == H5TYPE_F32 || y->type == H5TYPE_F64 || y->bytes == 0 ||
        y->bytes != y->dims[0] * h5type_bytes(y->type))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s in %s is not one whole number a row, the class (type %s, rank %d)",
                       y->name, c->options->data_file, h5type_name(y->type), y->rank);
    for (int i = 0; i < s->part_count; i++) {
        const struct h5array *x = &s->part[i];
        if (x->rank < 2 || x->bytes == 0)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "%s in %s is empty or has 1 dimension; expected [N, F] values", x->name,
                           c->options->data_file);
        if (x->dims[0] != y->dims[0])
            return err_set(e, EXIT_CODE_PERMANENT,
                           "%s in %s has %" PRIu64 " rows and %s %" PRIu64 "; expected as many",
                           x->name, c->options->data_file, x->dims[0], y->name, y->dims[0]);
        s->row_bytes += x->bytes / x->dims[0];
        s->row_values += x->bytes / x->dims[0] / h5type_bytes(x->type);
    }
    if (s->row_bytes > ROW_BYTES_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "a row of %s in %s has %" PRIu64 " bytes; at most %d are checked",
                       s->part[0].name, c->options->data_file, s->row_bytes, ROW_BYTES_MAX);
    return 0;
}

static int split_describe(struct check *c, struct split *s, struct err *e)
{
    if (features_describe(c, s, e) < 0 ||
        set_describe(c, s, c->options->data_targets, &s->targets, e) < 0 ||
        shapes_check(c, s, e) < 0)
        return -1;
    s->low = malloc(s->row_values * sizeof *s->low);
    s->high = malloc(s->row_values * sizeof *s->high);
    s->class_rows = calloc(CHECK_CLASSES_MAX, sizeof *s->class_rows);
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

/* Row i of the block, which holds `rows` rows of each part one after the other, and begins with row
 * `row` of the file. Returns the row's hash. */
static uint64_t row_look(const struct check *c, struct split *s, uint64_t row, uint64_t i,
                         uint64_t rows)
{
    const unsigned char *block = c->block;
    uint64_t first = 0, hash = 0;
    for (int p = 0; p < s->part_count; p++) {
        const struct h5array *part = &s->part[p];
        uint64_t bytes = part->bytes / part->dims[0];
        uint64_t own = row_hash(block + i * bytes, bytes);
        part_look(s, part, row + i, first, block + i * bytes);
        hash = p ? order_key(hash, own) : own;
        first += bytes / h5type_bytes(part->type);
        block += rows * bytes;
    }
    return hash;
}

static int block_read(struct check *c, const struct split *s, uint64_t row, uint64_t rows,
                      struct err *e)
{
    unsigned char *block = c->block;
    for (int p = 0; p < s->part_count; p++) {
        if (h5reader_rows(c->reader, &s->part[p], row, rows, block, e) < 0)
            return -1;
        block += rows * (s->part[p].bytes / s->part[p].dims[0]);
    }
    return h5reader_rows(c->reader, &s->targets, row, rows, c->block_targets, e);
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
    for (uint64_t row = 0, rows; row < s->targets.dims[0]; row += rows) {
        rows = s->targets.dims[0] - row < rows_max ? s->targets.dims[0] - row : rows_max;
        if (block_read(c, s, row, rows, e) < 0)
            return -1;
        for (uint64_t i = 0; i < rows; i++) {
            class_look(c, s, row + i, c->block_targets + i * step);
            uint64_t hash = row_look(c, s, row, i, rows);
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

/* ---- together ------------------------------------------------------------------------------- */

static int dense_run(struct check *c, struct err *e)
{
    if (split_describe(c, &c->split[0], e) < 0 || split_describe(c, &c->split[1], e) < 0 ||
        split_read(c, &c->split[1], 1, e) < 0)
        return -1;
    hashes_seal(&c->hashes);
    if (split_read(c, &c->split[0], 0, e) < 0)
        return -1;
    check_print(c);
    check_judge(c);
    return c->wrong[0] ? err_set(e, EXIT_CODE_PERMANENT, "%s", c->wrong) : 0;
}

static int check_run(struct check *c, struct err *e)
{
    if (hashes_open(&c->hashes, HASHES_MAX, e) < 0 ||
        h5reader_open(&c->reader, c->options->data_file, e) < 0)
        return -1;
    int other = check_other_layout(c, e);
    return other ? (other < 0 ? -1 : 0) : dense_run(c, e);
}

static const char help[] =
    "usage: prepare check --config FILE [--set SECTION.KEY=VALUE]...\n\n"
    "Reads data.file once and prints per split: shapes, types, ranges, NaN and infinite values,\n"
    "constant features, rows of each class, and how many training rows are in the validation part\n"
    "too; of graphs and tokens shapes and types. Ends with 100 and a sentence if training is\n"
    "impossible.\n\n"
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
