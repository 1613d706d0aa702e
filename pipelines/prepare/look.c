/* look.c - see look.h. */
#include "pipelines/prepare/look.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/order.h"

enum { COLUMNS_SHOWN = 8, BLOCK_BYTES = 4 << 20 };

double look_value(enum h5type type, const unsigned char *at)
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

int look_open(struct look *l, struct h5reader *r, const char *name, struct err *e)
{
    memset(l, 0, sizeof *l);
    if (h5reader_foreign(r, name, &l->array, e) < 0)
        return -1;
    if (l->array.bytes == 0)
        return err_set(e, EXIT_CODE_PERMANENT, "%s is empty", name);
    l->row_bytes = l->array.bytes / l->array.dims[0];
    l->row_values = l->row_bytes / h5type_bytes(l->array.type);
    if (l->row_bytes > LOOK_ROW_BYTES_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "a row of %s has %" PRIu64 " bytes; at most %d are checked", name,
                       l->row_bytes, LOOK_ROW_BYTES_MAX);
    l->low = malloc(l->row_values * sizeof *l->low);
    l->high = malloc(l->row_values * sizeof *l->high);
    if (!l->low || !l->high)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot check %s", name);
    for (uint64_t i = 0; i < l->row_values; i++) {
        l->low[i] = INFINITY;
        l->high[i] = -INFINITY;
    }
    return 0;
}

void look_close(struct look *l)
{
    free(l->low);
    free(l->high);
    free(l->block);
    memset(l, 0, sizeof *l);
}

int look_room(struct look *l, uint64_t rows, struct err *e)
{
    l->block = malloc(rows * l->row_bytes);
    return l->block ? 0 : err_errno(e, EXIT_CODE_TEMPORARY, "cannot check %s", l->array.name);
}

static void row_look(struct look *l, uint64_t row, const unsigned char *at)
{
    uint32_t step = h5type_bytes(l->array.type);
    for (uint64_t i = 0; i < l->row_values; i++, at += step) {
        double v = look_value(l->array.type, at);
        if (!isfinite(v)) {
            if (l->nan + l->infinite == 0)
                l->first_bad = row;
            *(isnan(v) ? &l->nan : &l->infinite) += 1;
            continue;
        }
        if (v < l->low[i])
            l->low[i] = v;
        if (v > l->high[i])
            l->high[i] = v;
    }
}

int look_read(struct look *l, struct h5reader *r, uint64_t first, uint64_t rows, struct err *e)
{
    if (h5reader_rows(r, &l->array, first, rows, l->block, e) < 0)
        return -1;
    for (uint64_t i = 0; i < rows; i++)
        row_look(l, first + i, l->block + i * l->row_bytes);
    return 0;
}

int look_all(struct look *l, struct h5reader *r, struct err *e)
{
    uint64_t all = l->array.dims[0],
             most = l->row_bytes < BLOCK_BYTES ? BLOCK_BYTES / l->row_bytes : 1;
    if (look_room(l, most, e) < 0)
        return -1;
    for (uint64_t row = 0, rows; row < all; row += rows) {
        rows = all - row < most ? all - row : most;
        if (look_read(l, r, row, rows, e) < 0)
            return -1;
    }
    return 0;
}

uint64_t look_hash(const struct look *l, uint64_t index, uint64_t hash)
{
    const unsigned char *row = l->block + index * l->row_bytes;
    uint64_t bytes = l->row_bytes, word;
    hash ^= bytes;
    for (; bytes >= 8; row += 8, bytes -= 8) {
        memcpy(&word, row, 8);
        hash = order_key(hash, word);
    }
    word = 0;
    memcpy(&word, row, bytes);
    return order_key(hash, word);
}

void look_print_shape(const struct look *l)
{
    const struct h5array *a = &l->array;
    printf("  %s: %s [", a->name, h5type_name(a->type));
    for (int i = 0; i < a->rank; i++)
        printf("%s%" PRIu64, i ? ", " : "", a->dims[i]);
    printf("]");
}

void look_print_range(const struct look *l)
{
    double low = INFINITY, high = -INFINITY;
    for (uint64_t i = 0; i < l->row_values; i++) {
        low = fmin(low, l->low[i]);
        high = fmax(high, l->high[i]);
    }
    if (low <= high)
        printf(", values %.6g to %.6g", low, high);
    printf(", NaN %" PRIu64 ", infinite %" PRIu64 "\n", l->nan, l->infinite);
}

void look_print_constant(const struct look *l)
{
    uint64_t constant = 0;
    for (uint64_t i = 0; i < l->row_values; i++)
        constant += l->low[i] == l->high[i];
    printf("    constant features: %" PRIu64, constant);
    for (uint64_t i = 0, shown = 0; i < l->row_values && shown < COLUMNS_SHOWN; i++)
        if (l->low[i] == l->high[i])
            printf("%s%" PRIu64, shown++ ? ", " : " (column ", i);
    printf("%s\n", constant == 0 ? "" : constant > COLUMNS_SHOWN ? ", ...)" : ")");
}
