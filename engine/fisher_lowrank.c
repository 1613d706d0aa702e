/* fisher_lowrank.c - the form lowrank: the root of F as a product of two thin matrices of binary16.
 *
 * Of each piece [rows, columns]: scale = the largest root; the roots / scale are about left
 * right^T, left [rows, rank] orthonormal and right [columns, rank], found by two sweeps of subspace
 * iteration from random numbers that are a function of their place. F = (scale * max(0, sum over k,
 * one after the other, of left right))^2, every product and sum rounded to float32, and no less
 * than 2^-126 where neither row nor column is all zero. What is zero in a row with others becomes
 * small, not zero.
 */
#include "engine/fisher_code_private.h"

#include <math.h>

#include "engine/ops.h"
#include "engine/scalar.h"

enum { NUMBERS = 3 /* of a piece in the part `shapes`: rows, columns, rank */, SWEEPS = 2 };

static uint64_t rank_of(const struct fisher_piece *p, double ratio)
{
    uint64_t least = p->rows < p->columns ? p->rows : p->columns;
    double rank =
        floor(2 * ratio * (double)p->rows * (double)p->columns / (double)(p->rows + p->columns));
    return rank < 1 ? 1 : rank > (double)least ? least : (uint64_t)rank;
}

/* One piece: a [rows][columns], left [rank][rows], right [rank][columns], in a scratch. */
struct thin {
    uint64_t rows, columns, rank;
    float *a, *left, *right;
    float scale;
};

static uint64_t thin_floats(const struct fisher_piece *p, uint64_t rank)
{
    return p->rows * p->columns + rank * (p->rows + p->columns);
}

static void roots_take(struct thin *t, const float *values)
{
    uint64_t count = t->rows * t->columns;
    float peak = 0;
    for (uint64_t i = 0; i < count; i++)
        peak = values[i] > peak ? values[i] : peak;
    t->scale = sqrtf(peak);
    for (uint64_t i = 0; i < count; i++)
        t->a[i] = t->scale > 0 ? sqrtf(values[i]) / t->scale : 0;
}

/* Make rank vectors of `length` numbers orthonormal, twice over for the rounding; what is left of
 * nothing is zero. */
static void orthonormalise(float *vectors, uint64_t rank, uint64_t length)
{
    for (uint64_t k = 0; k < rank; k++) {
        float *v = vectors + k * length;
        for (int again = 0; again < 2; again++)
            for (uint64_t i = 0; i < k; i++) {
                const float *u = vectors + i * length;
                double along = 0;
                for (uint64_t n = 0; n < length; n++)
                    along += (double)u[n] * (double)v[n];
                for (uint64_t n = 0; n < length; n++)
                    v[n] -= (float)along * u[n];
            }
        double square = 0;
        for (uint64_t n = 0; n < length; n++)
            square += (double)v[n] * (double)v[n];
        float factor = square > 1e-20 ? (float)(1 / sqrt(square)) : 0;
        for (uint64_t n = 0; n < length; n++)
            v[n] *= factor;
    }
}

static void thin_fit(struct thin *t)
{
    const struct backend *b = &backend_cpu;
    struct matrix a = matrix_of(t->a, t->rows, t->columns),
                  left = matrix_of(t->left, t->rank, t->rows);
    struct matrix right = matrix_of(t->right, t->rank, t->columns);
    for (uint64_t i = 0; i < t->rank * t->columns; i++)
        t->right[i] = scalar_normal_random(scalar_mix64(i));
    for (int sweep = 0; sweep <= SWEEPS; sweep++) {
        op_product(b, right, 0, a, 1, 0, left);
        orthonormalise(t->left, t->rank, t->rows);
        op_product(b, left, 0, a, 0, 0, right);
        if (sweep < SWEEPS)
            orthonormalise(t->right, t->rank, t->columns);
    }
}

/* Vectors [rank][length] as rows [length][rank] of binary16. Where `some` says that a row is not
 * all zero, it does not become so: its first number is then the least there is. */
static void factors_store(const float *vectors, uint64_t rank, uint64_t length, const uint8_t *some,
                          uint16_t *factors)
{
    for (uint64_t i = 0; i < length; i++) {
        uint32_t any = 0;
        for (uint64_t k = 0; k < rank; k++) {
            uint16_t half = some[i] ? scalar_to_half(vectors[k * length + i]) : 0;
            any |= half & 0x7fff;
            factors[i * rank + k] = half;
        }
        if (some[i] && !any)
            factors[i * rank] = 1;
    }
}

/* Rows and columns that are not all zero. */
static void some_find(const float *values, uint64_t rows, uint64_t columns, uint8_t *row,
                      uint8_t *column)
{
    memset(row, 0, rows);
    memset(column, 0, columns);
    for (uint64_t i = 0; i < rows; i++)
        for (uint64_t j = 0; j < columns; j++)
            if (fisher_is_some(values[i * columns + j]))
                row[i] = column[j] = 1;
}

static int parts_open(struct fisher_code *c, const struct fisher_piece *pieces, uint64_t count,
                      double ratio, uint64_t *floats, struct err *e)
{
    uint64_t factors = 0;
    *floats = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t rank = rank_of(&pieces[i], ratio), room = thin_floats(&pieces[i], rank);
        uint64_t marks = (pieces[i].rows + pieces[i].columns) / sizeof(float) + 1;
        factors += rank * (pieces[i].rows + pieces[i].columns);
        *floats = room + marks > *floats ? room + marks : *floats;
    }
    return fisher_part_add(c, "shapes", "u32", NUMBERS * count, e) &&
                   fisher_part_add(c, "factors", "f16", factors, e) &&
                   fisher_part_add(c, "scales", "f32", count, e)
               ? 0
               : -1;
}

static int lowrank_encode(struct fisher_code *c, const struct fisher_coding *coding,
                          const struct fisher_piece *pieces, uint64_t piece_count,
                          const float *values, struct pool *pool, struct err *e)
{
    uint64_t floats;
    const float *from = values;
    if (parts_open(c, pieces, piece_count, coding->ratio, &floats, e) < 0)
        return -1;
    float *scratch = fisher_scratch(c, floats * sizeof *scratch, e);
    uint32_t *shape = c->part[0].data;
    uint16_t *factors = c->part[1].data;
    float *scales = c->part[2].data;
    if (!scratch)
        return -1;
    for (uint64_t i = 0; i < piece_count; i++) {
        struct thin t = {pieces[i].rows, pieces[i].columns, rank_of(&pieces[i], coding->ratio),
                         scratch};
        t.left = t.a + t.rows * t.columns;
        t.right = t.left + t.rank * t.rows;
        uint8_t *some = (uint8_t *)(t.right + t.rank * t.columns);
        roots_take(&t, from);
        thin_fit(&t);
        some_find(from, t.rows, t.columns, some, some + t.rows);
        factors_store(t.left, t.rank, t.rows, some, factors);
        factors_store(t.right, t.rank, t.columns, some + t.rows, factors + t.rank * t.rows);
        factors += t.rank * (t.rows + t.columns);
        *shape++ = (uint32_t)t.rows, *shape++ = (uint32_t)t.columns, *shape++ = (uint32_t)t.rank;
        *scales++ = t.scale;
        from += t.rows * t.columns;
    }
    return fisher_measure(c, values, pool, e);
}

static int row_some(const uint16_t *factors, uint64_t rank)
{
    uint32_t any = 0;
    for (uint64_t k = 0; k < rank; k++)
        any |= factors[k] & 0x7fff;
    return any != 0;
}

static void piece_decode(uint64_t rows, uint64_t columns, uint64_t rank, float scale,
                         const uint16_t *factors, float *values)
{
    const uint16_t *right = factors + rank * rows;
    for (uint64_t i = 0; i < rows; i++) {
        const uint16_t *l = factors + i * rank;
        int some = row_some(l, rank);
        for (uint64_t j = 0; j < columns; j++) {
            const uint16_t *r = right + j * rank;
            float sum = 0;
            for (uint64_t k = 0; k < rank; k++)
                sum += scalar_half(l[k]) * scalar_half(r[k]);
            float root = (sum > 0 ? sum : 0) * scale, value = root * root;
            value = value > 0x1p-126f ? value : 0x1p-126f;
            values[i * columns + j] = some && row_some(r, rank) ? value : 0;
        }
    }
}

static int lowrank_decode(const struct fisher_code *c, float *values, struct err *e)
{
    struct fisher_part shapes = {0}, factors = {0}, scales = {0};
    if (fisher_part_find(c, "shapes", "u32", &shapes, e) < 0 ||
        fisher_part_find(c, "factors", "f16", &factors, e) < 0 ||
        fisher_part_find(c, "scales", "f32", &scales, e) < 0)
        return -1;
    const uint32_t *shape = shapes.data;
    const uint16_t *factor = factors.data;
    uint64_t left = c->count, factors_left = factors.count;
    if (shapes.count != NUMBERS * scales.count)
        return err_set(e, EXIT_CODE_PERMANENT, "a block has %llu numbers of shapes and %llu scales",
                       (unsigned long long)shapes.count, (unsigned long long)scales.count);
    for (uint64_t i = 0; i < scales.count; i++, shape += NUMBERS) {
        uint64_t rows = shape[0], columns = shape[1], rank = shape[2];
        if (!rows || !columns || !rank || rows > left / columns ||
            rank > factors_left / (rows + columns))
            return err_set(e, EXIT_CODE_PERMANENT,
                           "a piece of %u x %u values of rank %u does not fit its block", shape[0],
                           shape[1], shape[2]);
        piece_decode(rows, columns, rank, ((const float *)scales.data)[i], factor, values);
        factor += rank * (rows + columns);
        factors_left -= rank * (rows + columns);
        values += rows * columns;
        left -= rows * columns;
    }
    return left || factors_left
               ? err_set(e, EXIT_CODE_PERMANENT, "the pieces of a block lack %llu of its values",
                         (unsigned long long)left)
               : 0;
}

const struct fisher_form_type fisher_form_lowrank = {"lowrank", 0, lowrank_encode, lowrank_decode};
