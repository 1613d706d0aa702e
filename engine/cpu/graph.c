/* graph.c - pools over the rows of a segment (the steps of a sequence, the nodes of a graph), and
 * products with a sparse matrix (the edges of graphs).
 *
 * A row is worked on in blocks of columns, so that a block's sums stay in registers; each column's
 * additions are in the order of the rows or of the sparse row's values, for every width of vectors.
 */
#include "engine/cpu/cpu.h"

#include <string.h>

#include "engine/cpu/prefetch.h"
#include "proto/err.h"

enum {
    BLOCK = 64,
    BLOCK_PRODUCT = 32,
    ROWS_AHEAD = 4 /* so many rows before a sparse product writes one, it is asked for */
};

/* Columns first .. first + count - 1, count up to BLOCK, of `rows` rows. */
CPU_CLONES static void block_sums(const float *x, uint64_t stride, uint64_t rows, uint64_t count,
                                  double *sums)
{
    for (uint64_t c = 0; c < count; c++)
        sums[c] = 0;
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < count; c++)
            sums[c] += (double)x[r * stride + c];
}

static void segment_sums(enum pooling kind, const float *x, uint64_t stride, uint64_t rows,
                         uint64_t columns, float *y)
{
    double sums[BLOCK], divisor = kind == POOL_SUM ? 1 : (double)rows;
    for (uint64_t first = 0; first < columns; first += BLOCK) {
        uint64_t count = columns - first < BLOCK ? columns - first : BLOCK;
        block_sums(x + first, stride, rows, count, sums);
        for (uint64_t c = 0; c < count; c++)
            y[first + c] = (float)(sums[c] / divisor);
        for (uint64_t c = 0; kind == POOL_MEAN_SUM && c < count; c++)
            y[columns + first + c] = (float)sums[c];
    }
}

CPU_CLONES static void row_larger(const float *x, float *y, uint64_t columns)
{
    for (uint64_t c = 0; c < columns; c++)
        y[c] = scalar_larger(x[c], y[c]) ? x[c] : y[c];
}

static void segment_largest(const float *x, uint64_t stride, uint64_t rows, uint64_t columns,
                            float *y)
{
    memcpy(y, x, columns * sizeof *y);
    for (uint64_t r = 1; r < rows; r++)
        row_larger(x + r * stride, y, columns);
}

void cpu_pool_forward(enum pooling kind, struct matrix x, struct segments s, struct matrix y)
{
    ensure(x.rows >= segment_first(s, s.count));
    for (uint64_t n = 0; n < s.count; n++) {
        uint64_t rows = segment_rows(s, n);
        const float *in = x.at + segment_first(s, n) * x.stride;
        float *out = y.at + n * y.stride;
        if (kind == POOL_LAST)
            memcpy(out, in + (rows - 1) * x.stride, x.columns * sizeof *out);
        else if (kind == POOL_MAX)
            segment_largest(in, x.stride, rows, x.columns, out);
        else
            segment_sums(kind, in, x.stride, rows, x.columns, out);
    }
}

/* Row of the first largest value of a column. */
static uint64_t column_largest(const float *x, uint64_t stride, uint64_t rows)
{
    uint64_t best = 0;
    for (uint64_t r = 1; r < rows; r++)
        if (scalar_larger(x[r * stride], x[best * stride]))
            best = r;
    return best;
}

/* The gradient that every row of a segment has. */
static void row_each(enum pooling kind, const float *dy, uint64_t columns, double rows, float *dx)
{
    for (uint64_t c = 0; c < columns; c++) {
        float mean = (float)((double)dy[c] / rows);
        dx[c] = kind == POOL_SUM ? dy[c] : kind == POOL_MEAN ? mean : mean + dy[columns + c];
    }
}

void cpu_pool_backward(enum pooling kind, struct matrix x, struct matrix dy, struct segments s,
                       struct matrix dx)
{
    uint64_t columns = x.columns;
    ensure(x.rows >= segment_first(s, s.count));
    for (uint64_t r = segment_first(s, s.count); r < x.rows; r++)
        memset(dx.at + r * dx.stride, 0, columns * sizeof *dx.at);
    for (uint64_t n = 0; n < s.count; n++) {
        uint64_t rows = segment_rows(s, n), first = segment_first(s, n);
        const float *in = x.at + first * x.stride, *d = dy.at + n * dy.stride;
        float *out = dx.at + first * dx.stride;
        int all = kind != POOL_LAST && kind != POOL_MAX;
        if (all)
            row_each(kind, d, columns, (double)rows, out);
        for (uint64_t r = all; r < rows; r++)
            if (all)
                memcpy(out + r * dx.stride, out, columns * sizeof *out);
            else
                memset(out + r * dx.stride, 0, columns * sizeof *out);
        for (uint64_t c = 0; !all && c < columns; c++) {
            uint64_t r = kind == POOL_MAX ? column_largest(in + c, x.stride, rows) : rows - 1;
            out[r * dx.stride + c] = d[c];
        }
    }
}

/* 8 numbers at any address of float32. Arrays of sums would live in memory: gcc does not see that
 * a block of them fits the registers. */
typedef float part __attribute__((vector_size(32), aligned(4), may_alias));
enum { PART = 8 };
_Static_assert(BLOCK_PRODUCT == 4 * PART, "block_product names its parts");

/* A block of one row of the product, which begins as `begin` is. */
static inline __attribute__((always_inline)) void
block_product(const uint32_t *column, const float *value, uint32_t entries, const float *x,
              uint64_t stride, const float *begin, float *y)
{
    const part *first = (const part *)begin;
    part *out = (part *)y, a = first[0], b = first[1], c = first[2], d = first[3];
    for (uint32_t k = 0; k < entries; k++) {
        const part *in = (const part *)(x + column[k] * stride);
        a += value[k] * in[0];
        b += value[k] * in[1];
        c += value[k] * in[2];
        d += value[k] * in[3];
    }
    out[0] = a, out[1] = b, out[2] = c, out[3] = d;
}

/* All whole blocks of a row; returns how many columns those are. */
CPU_CLONES static uint64_t blocks_product(const uint32_t *column, const float *value,
                                          uint32_t entries, struct matrix x, const float *begin,
                                          float *y)
{
    uint64_t c = 0;
    for (; c + BLOCK_PRODUCT <= x.columns; c += BLOCK_PRODUCT)
        block_product(column, value, entries, x.at + c, x.stride, begin + c, y + c);
    return c;
}

CPU_CLONES static void rest_product(const uint32_t *column, const float *value, uint32_t entries,
                                    const float *x, uint64_t stride, uint64_t count,
                                    float *restrict y)
{
    for (uint32_t k = 0; k < entries; k++) {
        const float *in = x + column[k] * stride;
        float v = value[k];
        for (uint64_t c = 0; c < count; c++)
            y[c] += v * in[c];
    }
}

/* What a row's sums begin with: the bias alone in place, anything else in y. */
static const float *row_begin(const float *bias, float beta, float *y, uint64_t columns)
{
    if (beta == 0 && bias)
        return bias;
    if (beta == 0) {
        memset(y, 0, columns * sizeof *y);
        return y;
    }
    for (uint64_t c = 0; c < columns; c++)
        y[c] = beta * y[c] + (bias ? bias[c] : 0);
    return y;
}

void cpu_sparse_product(struct sparse a, struct matrix x, const float *bias, float beta,
                        struct matrix y)
{
    for (uint64_t r = 0; r < a.rows; r++) {
        uint32_t first = a.begin[r], entries = a.begin[r + 1] - first;
        const uint32_t *column = a.column + first;
        const float *value = a.value + first;
        float *out = y.at + r * y.stride;
        if (r + ROWS_AHEAD < a.rows)
            prefetch_write(out + ROWS_AHEAD * y.stride, y.columns);
        const float *begin = row_begin(bias, beta, out, y.columns);
        uint64_t c = blocks_product(column, value, entries, x, begin, out);
        if (begin != out)
            memcpy(out + c, begin + c, (y.columns - c) * sizeof *out);
        if (c < y.columns)
            rest_product(column, value, entries, x.at + c, x.stride, y.columns - c, out + c);
    }
}

void cpu_sparse_forward(struct sparse a, struct mixed x, const float *bias, float beta,
                        const float *skip, enum activation kind, enum half half, uint16_t *kept,
                        struct matrix y)
{
    if (x.halves || !y.at) {
        cpu_mixed_forward(a, x, bias, beta, skip, kind, half, kept, y);
        return;
    }
    cpu_sparse_product(a, (struct matrix){x.at, x.rows, x.columns, x.stride}, bias, beta, y);
    if (skip)
        cpu_add(skip, y.at, y.rows * y.columns);
    cpu_finish(kind, half, kept, y);
}
