/* likelihood.cu - losses as likelihoods of the target: targets drawn from them, and the roots of
 * what is expected of squared gradients. A row to a team, in double, as on the CPU. */
#include "engine/cuda/map.h"
#include "engine/cuda/team.h"

/* exp(z - the largest) of the row, added up. */
template <unsigned size>
static __device__ __forceinline__ double row_weights(team<size> t, const float *z, uint64_t columns,
                                                     double *largest, double *part)
{
    double max = -(double)INFINITY, sum = 0;
    FOR_LANES(t, c, columns)
    max = (double)z[c] > max ? (double)z[c] : max;
    *largest = max = t.max(max, part);
    FOR_LANES(t, c, columns)
    sum += exp((double)z[c] - max);
    return t.sum(sum, part);
}

/* x and those of the lanes before it. */
static __device__ __forceinline__ double warp_running_sum(double x)
{
    for (unsigned lanes = 1; lanes < WARP; lanes *= 2) {
        double before = __shfl_up_sync(0xffffffffu, x, lanes);
        if (threadIdx.x % WARP >= lanes)
            x += before;
    }
    return x;
}

/* The class at which the probabilities so far exceed u; the last one where rounding leaves none. A
 * warp takes WARP classes at a time. */
__global__ void rows_draw(struct matrix z, uint64_t key, uint64_t first, uint32_t *classes)
{
    team<WARP> t;
    FOR_TEAM_ROWS(t, r, z.rows)
    {
        const float *row = z.at + r * z.stride;
        double largest, none[1], before = 0;
        double total = row_weights(t, row, z.columns, &largest, none);
        double wanted = scalar_unit_random(scalar_key(key, first + r, 0)) * total;
        uint64_t drawn = z.columns - 1;
        for (uint64_t c = 0; c < z.columns; c += WARP) {
            double weight = c + t.lane() < z.columns ? exp((double)row[c + t.lane()] - largest) : 0;
            double so_far = before + warp_running_sum(weight);
            unsigned beyond = __ballot_sync(0xffffffffu, so_far > wanted);
            if (beyond) {
                drawn = c + (unsigned)__ffs((int)beyond) - 1;
                break;
            }
            before = __shfl_sync(0xffffffffu, so_far, WARP - 1);
        }
        if (t.lane() == 0)
            classes[r] = (uint32_t)(drawn < z.columns ? drawn : z.columns - 1);
    }
}

void cuda_classes_draw(struct matrix z, uint64_t key, uint64_t first, uint32_t *classes)
{
    LAUNCH(rows_draw, cuda_blocks(z.rows, TEAM_WARPS), TEAM_THREADS, z, key, first, classes);
}

struct value_draw {
    enum element_loss kind;
    double deviation;
    uint64_t key, first;
    __device__ uint64_t row(uint64_t r) const
    {
        return first + r;
    }
    __device__ float operator()(uint64_t r, uint64_t c, float z) const
    {
        uint64_t bits = scalar_key(key, r, c);
        return kind == ELEMENT_LOSS_SQUARED ? scalar_normal_draw((double)z, deviation, bits)
                                            : scalar_event_draw((double)z, bits);
    }
};

void cuda_values_draw(enum element_loss kind, struct matrix z, uint64_t key, uint64_t first,
                      struct matrix y)
{
    map(value_draw{kind, sqrt((double)z.columns / 2), key, first}, z, y);
}

template <unsigned size>
__global__ void rows_root(team<size> t, struct matrix z, uint32_t which, struct weighting w,
                          struct matrix dz)
{
    __shared__ double part[TEAM_PART];
    FOR_TEAM_ROWS(t, r, z.rows)
    {
        const float *row = z.at + r * z.stride;
        double largest, sum = row_weights(t, row, z.columns, &largest, part);
        double root = sqrt(exp((double)row[which] - largest) / sum) * weight_at(w, r, 0);
        FOR_LANES(t, c, z.columns)
        dz.at[r * dz.stride + c] =
            scalar_class_root(exp((double)row[c] - largest) / sum, c == which, root);
    }
}

void cuda_class_root(struct matrix z, uint32_t which, struct weighting w, struct matrix dz)
{
    LAUNCH_TEAMS(rows_root, z.rows, z.columns, z, which, w, dz);
}

template <unsigned size>
__global__ void weights_expect(team<size> t, struct matrix z, const float *of_classes,
                               const float *given, float *w)
{
    __shared__ double part[TEAM_PART];
    FOR_TEAM_ROWS(t, r, z.rows)
    {
        const float *row = z.at + r * z.stride;
        double largest, sum = row_weights(t, row, z.columns, &largest, part), expected = 0;
        FOR_LANES(t, c, z.columns)
        expected += exp((double)row[c] - largest) * (double)of_classes[c];
        expected = t.sum(expected, part);
        if (t.lane() == 0)
            w[r] = (float)((double)given[r] * (expected / sum));
    }
}

void cuda_expect_weights(struct matrix z, const float *of_classes, const float *given, float *w)
{
    LAUNCH_TEAMS(weights_expect, z.rows, z.columns, z, of_classes, given, w);
}

struct value_root {
    enum element_loss kind;
    double count;
    uint32_t column;
    struct weighting w;
    __device__ uint64_t row(uint64_t r) const
    {
        return r;
    }
    __device__ float operator()(uint64_t r, uint64_t c, float z) const
    {
        if (c != column)
            return 0;
        return (float)(weight_at(w, r, c) * (kind == ELEMENT_LOSS_SQUARED
                                                 ? sqrt(2 / count)
                                                 : scalar_deviation((double)z) / count));
    }
};

void cuda_value_root(enum element_loss kind, struct matrix z, uint32_t column, struct weighting w,
                     struct matrix dz)
{
    map(value_root{kind, (double)z.columns, column, w}, z, dz);
}
