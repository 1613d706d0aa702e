/* softmax.h - the softmax cross-entropy of a row, and the sum over the rows of a loss: what kernels
 * of losses share (loss.cu, narrow.cu). */
#ifndef ENGINE_CUDA_SOFTMAX_H
#define ENGINE_CUDA_SOFTMAX_H

#include "engine/cuda/half.h"
#include "engine/cuda/team.h"

/* ---- the sum over the rows ---- */

/* The last block of a loss's launch takes it, where that are not too many for one. */
enum { SUM_ROWS_MAX = CUDA_BLOCKS_MAX / 2 };

static __device__ unsigned sum_ticket;

/* All threads call it behind their rows. */
static __device__ __forceinline__ void rows_sum(const double *losses, uint64_t rows, double *sum)
{
    __shared__ double part[WARP];
    double x = 0;
    if (!sum || !block_is_last(&sum_ticket, gridDim.x))
        return;
    for (uint64_t r = threadIdx.x; r < rows; r += blockDim.x)
        x += losses[r];
    x = block_sum(x, part);
    if (threadIdx.x == 0)
        *sum += x;
}

static inline double *sum_within(uint64_t rows, double *sum)
{
    CUDA_MAIN_LANE();
    return rows <= SUM_ROWS_MAX ? sum : NULL;
}

static inline void sum_behind(const double *losses, uint64_t rows, double *sum)
{
    if (sum && !sum_within(rows, sum))
        cuda_sum_add(losses, rows, sum);
}

/* ---- a row ---- */

/* What softmax_cross_entropy makes of the rows of z. */
struct softmax_work {
    const uint32_t *targets;
    struct weighting w;
    double divisor;
    double *losses, *sum;
    struct matrix dz;
    enum half half;
};

/* Of rows of many classes: not worth its instructions twice. */
static __device__ __noinline__ double power_apart(double x)
{
    return exp(x);
}

/* Of row r, whose numbers are `row`; dz may be there: a thread reads no number behind one that
 * another may have written. */
template <unsigned size>
static __device__ __forceinline__ void softmax_row(team<size> t, const struct softmax_work &s,
                                                   uint64_t r, const float *row, uint64_t columns,
                                                   double *part)
{
    uint64_t target = s.targets[r];
    double weight = weight_at(s.w, r, 0);
    float largest = -INFINITY;
    double all = 0, first = 0; /* the power of its first number a thread keeps */
    UNROLL(1)
    FOR_LANES(t, c, columns)
    largest = row[c] > largest ? row[c] : largest;
    double max = (double)t.max(largest, (float *)part);
    UNROLL(1)
    FOR_LANES(t, c, columns)
    {
        double power = exp((double)row[c] - max);
        first = c == t.lane() ? power : first;
        all += power;
    }
    all = t.sum(all, part);
    if (target % size == t.lane())
        s.losses[r] = scalar_weighted(weight, log(all) + max - (double)row[target]);
    UNROLL(1)
    for (uint64_t c = t.lane(); s.dz.at && c < columns; c += size) {
        double p = (c == t.lane() ? first : power_apart((double)row[c] - max)) / all;
        s.dz.at[r * s.dz.stride + c] =
            weight > 0
                ? half_rounded(s.half, scalar_softmax_gradient(p, c == target, s.divisor / weight))
                : 0;
    }
}

#endif
