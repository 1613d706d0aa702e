/* squares.c - sums of squared products: what per-sample squared gradients cost (engine/squares.h).
 *
 * One sample after the other. A product of the matrix library would write a sample's gradient to
 * memory for another loop to read and square. Here a patch of it, PATCH_ROWS x PATCH_COLUMNS, is
 * summed in registers over the steps and squared there, so that a sample costs its product and no
 * more. The operands are packed, a block of steps and columns at a time, so that a patch reads them
 * one number after the other.
 *
 * An element of y is the sum over the steps in their order, whatever patch it is in: its bits do
 * not depend on how y is cut into tiles. With FMA where the machine has it, else in plain C, whose
 * bits are others.
 */
#include "engine/cpu/cpu.h"

#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

enum {
    PATCH_ROWS = 6, /* 12 sums of 8 numbers in the 16 registers of AVX2 */
    PATCH_COLUMNS = 16,
    STEPS = 256, /* of a block */
    COLUMNS = 128
};

_Static_assert(STEPS *(COLUMNS + PATCH_ROWS) <= SQUARES_PACKED, "room for a block");

/* Of one patch of y: a[steps, PATCH_ROWS] and b[steps, PATCH_COLUMNS], packed. `square`: the sums
 * are squared before they are added to y. */
typedef void patch_function(const float *a, const float *b, uint64_t steps, int square, float *y,
                            uint64_t stride);

static void patch_plain(const float *a, const float *b, uint64_t steps, int square, float *y,
                        uint64_t stride)
{
    float sums[PATCH_ROWS][PATCH_COLUMNS] = {{0}};
    for (uint64_t k = 0; k < steps; k++)
        for (int i = 0; i < PATCH_ROWS; i++)
            for (int j = 0; j < PATCH_COLUMNS; j++)
                sums[i][j] += a[k * PATCH_ROWS + (uint64_t)i] * b[k * PATCH_COLUMNS + (uint64_t)j];
    for (uint64_t i = 0; i < PATCH_ROWS; i++)
        for (uint64_t j = 0; j < PATCH_COLUMNS; j++)
            y[i * stride + j] += square ? sums[i][j] * sums[i][j] : sums[i][j];
}

#ifdef __x86_64__
__attribute__((target("avx2,fma"))) static void
patch_fma(const float *a, const float *b, uint64_t steps, int square, float *y, uint64_t stride)
{
    __m256 s[PATCH_ROWS][2]; /* in registers: every loop over them is unrolled */
#pragma GCC unroll 6
    for (int i = 0; i < PATCH_ROWS; i++)
        s[i][0] = s[i][1] = _mm256_setzero_ps();
    for (uint64_t k = 0; k < steps; k++, a += PATCH_ROWS, b += PATCH_COLUMNS) {
        __m256 left = _mm256_loadu_ps(b), right = _mm256_loadu_ps(b + 8);
#pragma GCC unroll 6
        for (int i = 0; i < PATCH_ROWS; i++) {
            __m256 factor = _mm256_broadcast_ss(a + i);
            s[i][0] = _mm256_fmadd_ps(factor, left, s[i][0]);
            s[i][1] = _mm256_fmadd_ps(factor, right, s[i][1]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < PATCH_ROWS; i++, y += stride) {
        __m256 left = square ? _mm256_mul_ps(s[i][0], s[i][0]) : s[i][0];
        __m256 right = square ? _mm256_mul_ps(s[i][1], s[i][1]) : s[i][1];
        _mm256_storeu_ps(y, _mm256_add_ps(_mm256_loadu_ps(y), left));
        _mm256_storeu_ps(y + 8, _mm256_add_ps(_mm256_loadu_ps(y + 8), right));
    }
}
#endif

static int plain; /* asked for */

void cpu_squares_plain(int on)
{
    plain = on;
}

static patch_function *patch_choose(void)
{
#ifdef __x86_64__
    if (!plain && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return patch_fma;
#endif
    return patch_plain;
}

/* Columns first .. of x as a panel [rows of x, width]; columns that are not there are 0. Inlined
 * for each width, so that a whole row is a few moves. */
static inline __attribute__((always_inline)) void
panel_pack(struct matrix x, uint64_t first, uint64_t width, int square, float *restrict panel)
{
    const float *restrict row = x.at + first;
    uint64_t count = x.columns - first;
    if (count >= width) {
        for (uint64_t k = 0; k < x.rows; k++, row += x.stride, panel += width)
            for (uint64_t j = 0; j < width; j++)
                panel[j] = square ? row[j] * row[j] : row[j];
        return;
    }
    memset(panel, 0, x.rows * width * sizeof *panel);
    for (uint64_t k = 0; k < x.rows; k++, row += x.stride, panel += width)
        for (uint64_t j = 0; j < count; j++)
            panel[j] = square ? row[j] * row[j] : row[j];
}

/* A patch that reaches over the edge of y goes by way of one that does not. */
static void patch_at_edge(patch_function *patch, const float *a, const float *b, uint64_t steps,
                          int square, struct matrix y)
{
    float whole[PATCH_ROWS * PATCH_COLUMNS] = {0};
    for (uint64_t i = 0; i < y.rows; i++)
        memcpy(whole + i * PATCH_COLUMNS, y.at + i * y.stride, y.columns * sizeof *whole);
    patch(a, b, steps, square, whole, PATCH_COLUMNS);
    for (uint64_t i = 0; i < y.rows; i++)
        memcpy(y.at + i * y.stride, whole + i * PATCH_COLUMNS, y.columns * sizeof *whole);
}

CPU_CLONES static void row_add_square(const float *restrict x, float *restrict y, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        y[i] += x[i] * x[i];
}

enum squares_kind { OF_PRODUCTS, OF_FACTORS, OF_NOTHING };

/* y += d^T x over all of d's steps, at most STEPS, for at most COLUMNS columns. */
static void block_add(struct matrix d, struct matrix x, enum squares_kind kind, float *packed,
                      struct matrix y)
{
    patch_function *patch = patch_choose();
    float *a = packed + STEPS * COLUMNS;
    for (uint64_t j = 0; j < x.columns; j += PATCH_COLUMNS)
        panel_pack(x, j, PATCH_COLUMNS, kind == OF_FACTORS, packed + j * x.rows);
    for (uint64_t i = 0; i < y.rows; i += PATCH_ROWS) {
        uint64_t rows = y.rows - i < PATCH_ROWS ? y.rows - i : PATCH_ROWS;
        panel_pack(d, i, PATCH_ROWS, kind == OF_FACTORS, a);
        for (uint64_t j = 0; j < y.columns; j += PATCH_COLUMNS) {
            uint64_t columns = y.columns - j < PATCH_COLUMNS ? y.columns - j : PATCH_COLUMNS;
            struct matrix at = {y.at + i * y.stride + j, rows, columns, y.stride};
            const float *b = packed + j * x.rows;
            if (rows == PATCH_ROWS && columns == PATCH_COLUMNS)
                patch(a, b, x.rows, kind == OF_PRODUCTS, at.at, y.stride);
            else
                patch_at_edge(patch, a, b, x.rows, kind == OF_PRODUCTS, at);
        }
    }
}

static struct matrix block_of(struct matrix m, uint64_t row, uint64_t column, uint64_t columns)
{
    uint64_t rows = m.rows - row < STEPS ? m.rows - row : STEPS;
    columns = m.columns - column < columns ? m.columns - column : columns;
    return (struct matrix){m.at + row * m.stride + column, rows, columns, m.stride};
}

static void blocks_add(struct matrix d, struct matrix x, enum squares_kind kind, float *packed,
                       struct matrix y)
{
    for (uint64_t k = 0; k < d.rows; k += STEPS)
        for (uint64_t j = 0; j < x.columns; j += COLUMNS) {
            struct matrix b = block_of(x, k, j, COLUMNS);
            block_add(block_of(d, k, 0, d.columns), b, kind, packed,
                      matrix_columns(y, j, b.columns));
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
    if (d.rows <= STEPS) {
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
        cpu_column_sums(sample_at(d, n), work.tile);
        row_add_square(work.tile, y, d.first.columns);
    }
}
