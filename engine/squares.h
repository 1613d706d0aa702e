/* squares.h - per-sample squared gradients where a sample has several steps: each sample's gradient
 * is formed, squared and added (FORMULAS "Exact per-sample Fisher" 2 and 6).
 */
#ifndef ENGINE_SQUARES_H
#define ENGINE_SQUARES_H

#include "engine/layer.h"

/* Of the rows of an array [rows, values]: a sample a segment. */
static inline struct samples samples_of(const float *at, struct segments s, uint64_t values)
{
    return (struct samples){matrix_of(at, s.steps, values), s.count, s.steps * values, s.begin};
}

static inline struct samples samples_columns(struct samples s, uint64_t first, uint64_t count)
{
    s.first = matrix_columns(s.first, first, count);
    return s;
}

/* sums[D, X] += sum over the samples of (d_n^T x_n)^2, d_n [steps, D], x_n [steps, X]. */
void squares_of_products(const struct backend *b, struct samples d, struct samples x,
                         const struct tile_work *w, float *sums);

/* sums[D] += sum over the samples of (sum over the steps of d_n)^2. */
void squares_of_sums(const struct backend *b, struct samples d, const struct tile_work *w,
                     float *sums);

#endif
