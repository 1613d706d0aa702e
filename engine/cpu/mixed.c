/* mixed.c - operations whose matrices may lie in 16 bits, as devices apart hand them from layer to
 * layer. The CPU's own layers work on float32, so these are here to be compared with: plain loops.
 */
#include "engine/cpu/cpu.h"

#include <string.h>

enum { PIECE = 256 };

static uint64_t piece_of(uint64_t left)
{
    return left < PIECE ? left : PIECE;
}

/* `count` numbers from number `at` on. */
static void mixed_load(enum half half, struct mixed m, uint64_t at, uint64_t count, float *to)
{
    if (m.halves)
        cpu_load_half(half, m.halves + at, to, count);
    else
        memcpy(to, m.at + at, count * sizeof *to);
}

/* May round what is at `from`. */
static void mixed_store(enum half half, float *from, struct mixed m, uint64_t at, uint64_t count)
{
    if (m.halves)
        cpu_store_half(half, from, m.halves + at, count);
    else
        memcpy(m.at + at, from, count * sizeof *from);
}

static float factor_at(enum half half, struct mixed m, int turned, uint64_t row, uint64_t column)
{
    float x;
    mixed_load(half, m, turned ? column * m.stride + row : row * m.stride + column, 1, &x);
    cpu_round_half(half, matrix_of(&x, 1, 1));
    return x;
}

void cpu_product_mixed(enum half half, struct mixed a, int a_t, struct mixed b, int b_t, float beta,
                       struct mixed c)
{
    uint64_t inner = a_t ? a.rows : a.columns;
    for (uint64_t i = 0; i < c.rows * c.columns; i++) {
        uint64_t row = i / c.columns, column = i % c.columns, place = row * c.stride + column;
        float sum = 0;
        for (uint64_t k = 0; k < inner; k++)
            sum += factor_at(half, a, a_t, row, k) * factor_at(half, b, b_t, k, column);
        if (beta != 0)
            sum += beta * c.at[place];
        mixed_store(half, &sum, c, place, 1);
    }
}

/* e takes d's place: it is rounded where that is in 16 bits. */
static void derivative_take(enum activation kind, enum half half, struct mixed kept, struct mixed d)
{
    float e[PIECE], y[PIECE];
    for (uint64_t at = 0, piece, all = d.rows * d.columns; at < all; at += piece) {
        piece = piece_of(all - at);
        mixed_load(half, d, at, piece, e);
        if (half)
            cpu_round_half(half, matrix_of(e, 1, piece));
        if (kind != ACTIVATION_COUNT) {
            mixed_load(half, kept, at, piece, y);
            cpu_activation_backward(kind, y, e, e, piece);
        }
        if (half)
            cpu_round_half(half, matrix_of(e, 1, piece));
        mixed_store(half, e, d, at, piece);
    }
}

/* += x of `count` columns from number `at` on, times the value. */
static void row_add(enum half half, float value, struct mixed x, uint64_t at, uint64_t count,
                    float *sums)
{
    float in[PIECE];
    mixed_load(half, x, at, count, in);
    for (uint64_t c = 0; c < count; c++)
        sums[c] += value * in[c];
}

/* What `count` numbers of y, from column `first` on, begin with. */
static void row_begin(const float *bias, float beta, const float *y, uint64_t first, uint64_t count,
                      float *row)
{
    for (uint64_t c = 0; c < count; c++)
        row[c] = (beta == 0 ? 0 : beta * y[c]) + (bias ? bias[first + c] : 0);
}

void cpu_mixed_forward(struct sparse a, struct mixed x, const float *bias, float beta,
                       const float *skip, enum activation kind, enum half half, uint16_t *kept,
                       struct matrix y)
{
    for (uint64_t first = 0, count; first < y.columns; first += count) {
        count = piece_of(y.columns - first);
        for (uint64_t r = 0; r < a.rows; r++) {
            uint64_t place = r * y.columns + first;
            float row[PIECE], *out = y.at ? y.at + place : row;
            row_begin(bias, beta, out, first, count, row);
            for (uint32_t k = a.begin[r]; k < a.begin[r + 1]; k++)
                row_add(half, a.value[k], x, a.column[k] * x.stride + first, count, row);
            if (skip)
                cpu_add(skip + place, row, count);
            cpu_finish(kind, half, kept ? kept + place : NULL, matrix_of(row, 1, count));
            memmove(out, row, count * sizeof *out);
        }
    }
}

void cpu_convolution_forward(struct sparse a, struct mixed x, struct mixed w, const float *bias,
                             enum activation kind, enum half half, uint16_t *kept,
                             struct mixed sums, struct matrix y)
{
    cpu_product_mixed(half, x, 0, w, 1, 0, sums);
    cpu_mixed_forward(a, sums, bias, 0, NULL, kind, half, kept, y);
}

/* g = a d, sums those of d's columns. */
static void sparse_backward(struct sparse a, enum half half, struct mixed d, int adds, float *sums,
                            struct mixed g)
{
    for (uint64_t first = 0, count; first < d.columns; first += count) {
        float row[PIECE];
        count = piece_of(d.columns - first);
        if (sums && !adds)
            memset(sums + first, 0, count * sizeof *sums);
        for (uint64_t r = 0; sums && r < d.rows; r++)
            row_add(half, 1, d, r * d.columns + first, count, sums + first);
        for (uint64_t r = 0; r < g.rows; r++) {
            memset(row, 0, sizeof row);
            for (uint32_t k = a.begin[r]; k < a.begin[r + 1]; k++)
                row_add(half, a.value[k], d, a.column[k] * d.columns + first, count, row);
            mixed_store(half, row, g, r * g.columns + first, count);
        }
    }
}

static struct matrix wide_of(struct mixed m)
{
    return (struct matrix){m.at, m.rows, m.columns, m.stride};
}

void cpu_convolution_backward(struct convolution_back b)
{
    int has_dx = b.dx.at || b.dx.halves, adds = b.adds;
    derivative_take(b.behind, b.half, b.kept, b.d);
    sparse_backward(b.a, b.half, b.d, adds, b.db, b.g);
    if (b.g.halves && b.dw.at)
        cpu_product_mixed(b.half, b.g, 1, b.x, 0, (float)adds, mixed_of(b.dw));
    if (b.g.halves && has_dx)
        cpu_product_mixed(b.half, b.g, 0, b.w, 0, 0, b.dx);
    if (!b.g.halves && b.dw.at)
        cpu_product(wide_of(b.g), 1, wide_of(b.x), 0, (float)adds, b.dw);
    if (!b.g.halves && has_dx)
        cpu_product(wide_of(b.g), 0, wide_of(b.w), 0, 0, wide_of(b.dx));
    if (has_dx && b.before != ACTIVATION_COUNT)
        derivative_take(b.before, b.half, b.x, b.dx);
}
