/* factors.c - see factors.h. One step: the sums are products of squares with the other side's
 * norms.
 */
#include "engine/factors.h"

#include <math.h>

enum { NORMS = 64 }; /* samples that are taken at once */

static uint64_t tensor_factors(const struct tensor_info *t)
{
    return t->rank == 2 ? t->dims[0] + t->dims[1] : t->count;
}

uint64_t factors_first(const struct model *m, uint32_t tensor)
{
    uint64_t first = 0;
    for (uint32_t i = 0; i < tensor; i++)
        first += tensor_factors(&m->tensors[i]);
    return first;
}

uint64_t factors_count(const struct model *m)
{
    return factors_first(m, m->tensor_count);
}

/* A sum of squares that was formed as sums of products: what rounding has left below zero is
 * nothing. */
static double square_sum(float sum)
{
    return sum > 0 ? (double)sum : 0;
}

/* From number `from` of the tensor on. */
static void matrix_expand(const struct tensor_info *t, const float *rows, double factor,
                          uint64_t from, uint64_t count, float *values)
{
    const float *columns = rows + t->dims[0];
    double sum = 0;
    for (uint64_t i = 0; i < t->dims[0]; i++)
        sum += square_sum(rows[i]);
    for (uint64_t i = 0; i < count; i++) {
        double product = square_sum(rows[(from + i) / t->dims[1]]) *
                         square_sum(columns[(from + i) % t->dims[1]]);
        values[i] = sum > 0 ? (float)(factor * product / sum) : 0;
    }
}

void factors_expand(const struct model *m, const float *factors, double factor, uint64_t first,
                    uint64_t count, float *values)
{
    for (uint32_t k = 0; k < m->tensor_count; k++) {
        const struct tensor_info *t = &m->tensors[k];
        uint64_t from = t->first > first ? t->first : first;
        uint64_t to = t->first + t->count < first + count ? t->first + t->count : first + count;
        if (from < to && t->rank == 2)
            matrix_expand(t, factors, factor, from - t->first, to - from, values + (from - first));
        for (uint64_t i = from; i < to && t->rank != 2; i++)
            values[i - first] = (float)(factor * (double)factors[i - t->first]);
        factors += tensor_factors(t);
    }
}

/* Samples first .. of one step each, at most NORMS, as a matrix; its rows' norms. */
static struct matrix rows_of(const struct backend *b, struct samples s, uint64_t first,
                             float norms[NORMS])
{
    uint64_t count = s.count - first < NORMS ? s.count - first : NORMS;
    struct matrix m = {s.first.at + first * s.distance, count, s.first.columns, s.distance};
    for (uint64_t r = 0; r < count; r++) {
        double sum;
        op_sum_squares(b, m.at + r * m.stride, m.columns, &sum);
        norms[r] = (float)sqrt(sum);
    }
    return m;
}

static void one_step(const struct backend *b, struct samples d, struct samples x,
                     struct squares_work work, float *rows, float *columns)
{
    for (uint64_t n = 0; n < d.count; n += NORMS) {
        float d_norms[NORMS], x_norms[NORMS];
        struct matrix dm = rows_of(b, d, n, d_norms), xm = rows_of(b, x, n, x_norms);
        op_squares_product_add(b, dm, matrix_of(x_norms, xm.rows, 1), work,
                               matrix_of(rows, dm.columns, 1));
        op_squares_product_add(b, xm, matrix_of(d_norms, dm.rows, 1), work,
                               matrix_of(columns, xm.columns, 1));
    }
}

/* sums[A] += sum over the steps of a (o o^T a): a [T, A], o [T, O], o o^T [T, T] in a tile of w,
 * and as many columns of what it makes of a as the other tile takes. */
static void half_add(const struct backend *b, struct matrix a, struct matrix o,
                     const struct tile_work *w, uint64_t tile, float *sums)
{
    struct matrix gram = matrix_of(w->squares, a.rows, a.rows);
    uint64_t most = tile / a.rows;
    op_product(b, o, 0, o, 1, 0, gram);
    for (uint64_t first = 0; first < a.columns; first += most) {
        uint64_t count = a.columns - first < most ? a.columns - first : most;
        struct matrix of = matrix_columns(a, first, count);
        struct matrix made = matrix_of(w->products.tile, a.rows, count);
        op_product(b, gram, 0, of, 0, 0, made);
        op_column_dots(b, of, made, sums + first);
    }
}

/* The steps of the longest sample. */
static uint64_t steps_most(struct samples s)
{
    uint64_t most = 0;
    for (uint64_t n = 0; n < s.count; n++) {
        uint64_t rows = sample_at(s, n).rows;
        most = rows > most ? rows : most;
    }
    return most;
}

int factors_fit(struct samples d, uint64_t tile)
{
    uint64_t steps = steps_most(d);
    return steps <= 1 || steps <= tile / steps;
}

void factors_of_products(const struct backend *b, struct samples d, struct samples x,
                         const struct tile_work *w, uint64_t tile, float *rows, float *columns)
{
    if (!d.first.rows && !d.begin)
        return;
    if (!d.begin && d.first.rows == 1) {
        one_step(b, d, x, w->products, rows, columns);
        return;
    }
    for (uint64_t n = 0; n < d.count; n++) {
        struct matrix dn = sample_at(d, n), xn = sample_at(x, n);
        half_add(b, dn, xn, w, tile, rows);
        half_add(b, xn, dn, w, tile, columns);
    }
}

void factors_of_squares(struct matrix squares, float *rows, float *columns)
{
    for (uint64_t i = 0; i < squares.rows; i++) {
        const float *row = squares.at + i * squares.stride;
        double sum = 0;
        for (uint64_t j = 0; j < squares.columns; j++) {
            sum += (double)row[j];
            columns[j] += row[j];
        }
        rows[i] += (float)sum;
    }
}
