/* squares.c - sums of squared products: what per-sample squared gradients cost (engine/squares.h).
 *
 * One sample after the other. A product would write a sample's gradient to memory for another loop
 * to read and square. Here a patch of it (engine/cpu/patch.h) is summed in registers over the steps
 * and squared there, so that a sample costs its product and no more. The operands are packed, so
 * many of their columns at a time as there is room for, so that a patch reads them one number after
 * the other.
 *
 * An element of y is the sum over the steps in their order, whatever patch it is in: its bits do
 * not depend on how y is cut into tiles.
 */
#include <string.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/patch.h"

_Static_assert(PATCH_STEPS *(PATCH_COLUMNS_MAX + PATCH_ROWS) <= SQUARES_PACKED, "room for a patch");

CPU_CLONES static void numbers_square(float *x, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        x[i] *= x[i];
}

CPU_CLONES static void row_add_square(const float *restrict x, float *restrict y, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        y[i] += x[i] * x[i];
}

static uint64_t padded(uint64_t count, uint64_t unit)
{
    return (count + unit - 1) / unit * unit;
}

enum squares_kind { OF_PRODUCTS, OF_FACTORS, OF_NOTHING };

/* y += d^T x over d's steps, at most PATCH_STEPS, a strip of d times all of x's panels after the
 * other. */
static void strips_add(struct matrix d, const float *panels, enum squares_kind kind, float *strips,
                       struct matrix y)
{
    const struct patches *p = patches_choose();
    enum patch_use use = kind == OF_PRODUCTS ? PATCH_ADD_SQUARE : PATCH_ADD;
    strips_pack(factor_of_columns(d), d.rows, strips);
    if (kind == OF_FACTORS)
        numbers_square(strips, d.rows * padded(y.rows, PATCH_ROWS));
    for (uint64_t i = 0; i < y.rows; i += PATCH_ROWS) {
        uint64_t rows = y.rows - i < PATCH_ROWS ? y.rows - i : PATCH_ROWS, j = 0;
        struct factor a = {strips + i * d.rows, rows, 1, PATCH_ROWS};
        float *at = y.at + i * y.stride;
        if (kind == OF_PRODUCTS && rows == PATCH_ROWS) {
            j = y.columns / p->columns * p->columns;
            p->squares(a.at, panels, d.rows, j, at, y.stride);
        }
        for (; j < y.columns; j += p->columns) {
            uint64_t columns = y.columns - j < p->columns ? y.columns - j : p->columns;
            struct panel b = {panels + j * d.rows, panel_columns(p, columns)};
            patch_run(p, a, b, d.rows, use, (struct matrix){at + j, rows, columns, y.stride});
        }
    }
}

/* The same from d and x as they lie in memory; columns of x for which there is room. As many of d's
 * are packed at a time as there then is. */
static void block_add(struct matrix d, struct matrix x, enum squares_kind kind, float *packed,
                      struct matrix y)
{
    const struct patches *p = patches_choose();
    uint64_t columns = padded(x.columns, p->columns);
    uint64_t most = (SQUARES_PACKED / d.rows - columns) / PATCH_ROWS * PATCH_ROWS;
    panels_pack(p, factor_of_columns(x), x.rows, packed);
    if (kind == OF_FACTORS)
        numbers_square(packed, x.rows * columns);
    for (uint64_t i = 0; i < d.columns; i += most) {
        uint64_t count = d.columns - i < most ? d.columns - i : most;
        strips_add(matrix_columns(d, i, count), packed, kind, packed + columns * d.rows,
                   (struct matrix){y.at + i * y.stride, count, y.columns, y.stride});
    }
}

static struct matrix block_of(struct matrix m, uint64_t row, uint64_t column, uint64_t columns)
{
    uint64_t rows = m.rows - row < PATCH_STEPS ? m.rows - row : PATCH_STEPS;
    columns = m.columns - column < columns ? m.columns - column : columns;
    return (struct matrix){m.at + row * m.stride + column, rows, columns, m.stride};
}

static void blocks_add(struct matrix d, struct matrix x, enum squares_kind kind, float *packed,
                       struct matrix y)
{
    for (uint64_t k = 0; k < d.rows; k += PATCH_STEPS) {
        struct matrix some = block_of(d, k, 0, d.columns);
        uint64_t room = SQUARES_PACKED / some.rows - PATCH_ROWS;
        uint64_t most = room / PATCH_COLUMNS_MAX * PATCH_COLUMNS_MAX;
        for (uint64_t j = 0; j < x.columns; j += most) {
            struct matrix b = block_of(x, k, j, most);
            block_add(some, b, kind, packed, matrix_columns(y, j, b.columns));
        }
    }
}

void cpu_squares_product_add(struct matrix d, struct matrix x, struct squares_work work,
                             struct matrix y)
{
    blocks_add(d, x, OF_FACTORS, work.packed, y);
}

/* Of one sample. More steps than a block has: their product must be whole before it is squared. */
static void product_square_add(struct matrix d, struct matrix x, struct squares_work work,
                               struct matrix y)
{
    if (d.rows <= PATCH_STEPS) {
        blocks_add(d, x, OF_PRODUCTS, work.packed, y);
        return;
    }
    memset(work.tile, 0, y.rows * y.columns * sizeof *work.tile);
    blocks_add(d, x, OF_NOTHING, work.packed, matrix_of(work.tile, y.rows, y.columns));
    for (uint64_t i = 0; i < y.rows; i++)
        row_add_square(work.tile + i * y.columns, y.at + i * y.stride, y.columns);
}

void cpu_products_square_add(struct samples d, struct samples x, struct squares_work work,
                             struct matrix y)
{
    for (uint64_t n = 0; n < d.count; n++)
        product_square_add(sample_at(d, n), sample_at(x, n), work, y);
}

void cpu_sums_square_add(struct samples d, struct squares_work work, float *y)
{
    for (uint64_t n = 0; n < d.count; n++) {
        cpu_column_sums(sample_at(d, n), 0, work.tile);
        row_add_square(work.tile, y, d.first.columns);
    }
}
