/* squares.h - per-sample squared gradients where a sample has several steps: each sample's gradient
 * is formed, squared and added (FORMULAS "Exact per-sample Fisher" 2 and 6).
 */
#ifndef ENGINE_SQUARES_H
#define ENGINE_SQUARES_H

#include "engine/ops.h"

/* The steps of `count` samples as a matrix each: sample n begins at first.at + n * distance. */
struct samples {
    struct matrix first;
    uint64_t count, distance;
};

/* Of an array [rows, steps, values]: a sample a row. */
static inline struct samples samples_of(const float *at, uint64_t rows, uint64_t steps,
                                        uint64_t values)
{
    return (struct samples){matrix_of(at, steps, values), rows, steps * values};
}

static inline struct samples samples_columns(struct samples s, uint64_t first, uint64_t count)
{
    s.first = matrix_columns(s.first, first, count);
    return s;
}

/* squares[D, X] = sum over the samples of (d_n^T x_n)^2, d_n [steps, D], x_n [steps, X];
 * sample[D, X] is scratch. */
void squares_of_products(const struct backend *b, struct samples d, struct samples x, float *sample,
                         float *squares);

/* squares[D] = sum over the samples of (sum over the steps of d_n)^2; sample[D] is scratch. */
void squares_of_sums(const struct backend *b, struct samples d, float *sample, float *squares);

#endif
