/* layernorm.cu - layer normalisation: a row to a team, means and variances in double. The gradients
 * of weight and bias are sums down the columns, over rows whose moments the first launch leaves in
 * cuda_scratch, PIECE rows at a time. */
#include "engine/cuda/columns.h"
#include "engine/cuda/team.h"

/* Mean, and 1 / sqrt(variance + eps), of a row. */
struct row_moments {
    double mean, scale;
};

enum { PIECE = CUDA_BLOCKS_MAX * 16 };
static_assert(PIECE * sizeof(struct row_moments) <= CUDA_SCRATCH_FLOATS / 2 * sizeof(float),
              "columns.h has the other half");

template <unsigned size>
static __device__ __forceinline__ struct row_moments
row_moments_of(team<size> t, const float *x, uint64_t columns, double eps, double *part)
{
    double sum = 0, squares = 0;
    FOR_LANES(t, c, columns)
    sum += (double)x[c];
    double mean = t.sum(sum, part) / (double)columns;
    FOR_LANES(t, c, columns)
    {
        double off = (double)x[c] - mean;
        squares += off * off;
    }
    return {mean, 1 / sqrt(t.sum(squares, part) / (double)columns + eps)};
}

template <unsigned size>
__global__ void rows_normalise(team<size> t, struct matrix x, const float *weight,
                               const float *bias, double eps, struct matrix y)
{
    __shared__ double part[TEAM_PART];
    FOR_TEAM_ROWS(t, r, x.rows)
    {
        const float *row = x.at + r * x.stride;
        struct row_moments m = row_moments_of(t, row, x.columns, eps, part);
        FOR_LANES(t, c, x.columns)
        {
            float n = scalar_normalise(row[c], m.mean, m.scale);
            y.at[r * y.stride + c] = weight ? n * weight[c] + bias[c] : n;
        }
    }
}

void cuda_layernorm_forward(struct matrix x, const float *weight, const float *bias, double eps,
                            struct matrix y)
{
    LAUNCH_TEAMS(rows_normalise, x.rows, x.columns, x, weight, bias, eps, y);
}

/* moments NULL: not wanted; dx.at NULL: not wanted. */
template <unsigned size>
__global__ void rows_gradient(team<size> t, struct matrix x, const float *weight, double eps,
                              struct matrix dy, struct matrix dx, struct row_moments *moments)
{
    __shared__ double part[TEAM_PART];
    FOR_TEAM_ROWS(t, r, x.rows)
    {
        const float *row = x.at + r * x.stride, *d = dy.at + r * dy.stride;
        struct row_moments m = row_moments_of(t, row, x.columns, eps, part);
        if (moments && t.lane() == 0)
            moments[r] = m;
        double g = 0, gn = 0;
        if (!dx.at)
            continue;
        FOR_LANES(t, c, x.columns)
        {
            double each = (double)d[c] * (double)weight[c];
            g += each;
            gn += each * (double)scalar_normalise(row[c], m.mean, m.scale);
        }
        g = t.sum(g, part) / (double)x.columns;
        gn = t.sum(gn, part) / (double)x.columns;
        FOR_LANES(t, c, x.columns)
        {
            double n = (double)scalar_normalise(row[c], m.mean, m.scale);
            dx.at[r * dx.stride + c] =
                scalar_normalise_backward(m.scale, (double)d[c] * (double)weight[c], n, g, gn);
        }
    }
}

struct weight_gradient {
    typedef float number;
    typedef float2 value; /* of dy, of x */
    enum { SUMS = 2 };
    struct matrix x, dy;
    const struct row_moments *moments;
    float *dweight, *dbias;
    int adds;
    __device__ float2 load(uint64_t r, uint64_t c) const
    {
        return {dy.at[r * dy.stride + c], x.at[r * x.stride + c]};
    }
    __device__ void add(float2 in, uint64_t r, uint64_t, float *sums) const
    {
        struct row_moments m = moments[r];
        sums[0] += in.x * scalar_normalise(in.y, m.mean, m.scale);
        sums[1] += in.x;
    }
    __device__ void put(uint64_t c, const float *sums) const
    {
        dweight[c] = (adds ? dweight[c] : 0) + sums[0];
        dbias[c] = (adds ? dbias[c] : 0) + sums[1];
    }
};

static struct matrix rows_of(struct matrix m, uint64_t first, uint64_t count)
{
    return {m.at ? m.at + first * m.stride : NULL, count, m.columns, m.stride};
}

/* dx may be dy, which the sums down the columns read: they come first, from moments that a launch
 * of their own leaves. */
void cuda_layernorm_backward(struct matrix x, const float *weight, double eps, struct matrix dy,
                             struct matrix dx, int adds, float *dweight, float *dbias)
{
    struct row_moments *moments = (struct row_moments *)cuda_scratch, *none = NULL;
    struct matrix unwanted = {NULL, 0, 0, 0};
    CUDA_MAIN_LANE();
    for (uint64_t first = 0; dweight && first < x.rows; first += PIECE) {
        uint64_t left = x.rows - first, piece = PIECE, count = left < piece ? left : piece;
        struct matrix in = rows_of(x, first, count), d = rows_of(dy, first, count);
        struct matrix out = dx.at == dy.at ? unwanted : rows_of(dx, first, count);
        LAUNCH_TEAMS(rows_gradient, count, x.columns, in, weight, eps, d, out, moments);
        columns_sum_all(weight_gradient{in, d, moments, dweight, dbias, adds || first > 0}, count,
                        x.columns);
    }
    if (dx.at && (!dweight || dx.at == dy.at))
        LAUNCH_TEAMS(rows_gradient, x.rows, x.columns, x, weight, eps, dy, dx, none);
}
