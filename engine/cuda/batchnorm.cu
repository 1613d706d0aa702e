/* batchnorm.cu - normalisation by statistics over many rows: moments and sums down the columns in
 * double, then a number at a time; what is kept a channel, a channel a thread. */
#include "engine/cuda/columns.h"
#include "engine/cuda/map.h"

/* ---- moments ---- */

/* Of the rows of a part: the mean first, then the squares about it, for which the rows are read
 * again while they are near. means, squares: a part's behind the one before. */
__global__ void parts_moments(struct matrix x, uint64_t part_rows, double *means, double *squares)
{
    __shared__ double shared[1][COLUMN_THREADS];
    uint64_t c = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    uint64_t first = blockIdx.y * part_rows, end = first + part_rows;
    end = end < x.rows ? end : x.rows;
    double sum[1] = {0}, square[1] = {0};
    for (uint64_t r = first + threadIdx.y; c < x.columns && r < end; r += blockDim.y)
        *sum += (double)x.at[r * x.stride + c];
    column_reduce(sum, shared);
    __syncthreads();
    double mean = shared[0][threadIdx.x] / (double)(end - first);
    __syncthreads();
    for (uint64_t r = first + threadIdx.y; c < x.columns && r < end; r += blockDim.y) {
        double off = (double)x.at[r * x.stride + c] - mean;
        *square += off * off;
    }
    column_reduce(square, shared);
    if (threadIdx.y > 0 || c >= x.columns)
        return;
    means[blockIdx.y * x.columns + c] = mean;
    squares[blockIdx.y * x.columns + c] = *square;
}

__global__ void parts_merge(const double *means, const double *all_squares, uint64_t rows,
                            uint64_t part_rows, uint64_t columns, double *mean, double *squares)
{
    FOR_ITEMS(c, columns)
    {
        struct scalar_moments all = {means[c], all_squares[c]};
        for (uint64_t part = 1, before = part_rows; before < rows; part++, before += part_rows) {
            uint64_t count = rows - before < part_rows ? rows - before : part_rows;
            struct scalar_moments more = {means[part * columns + c],
                                          all_squares[part * columns + c]};
            all = scalar_moments_merge(all, (double)before, more, (double)count);
        }
        mean[c] = all.mean;
        squares[c] = all.squares;
    }
}

void cuda_batchnorm_moments(struct matrix x, double *mean, double *squares)
{
    struct column_grid g = column_grid(x.rows, x.columns, 2 * sizeof *mean);
    double *means = (double *)(cuda_scratch + CUDA_SCRATCH_FLOATS / 2);
    double *all_squares = means + g.blocks.y * x.columns;
    if (g.blocks.y == 1) {
        LAUNCH(parts_moments, g.blocks, g.threads, x, g.part_rows, mean, squares);
        return;
    }
    LAUNCH(parts_moments, g.blocks, g.threads, x, g.part_rows, means, all_squares);
    LAUNCH(parts_merge, cuda_blocks(x.columns, MAP_THREADS), MAP_THREADS, means, all_squares,
           x.rows, g.part_rows, x.columns, mean, squares);
}

/* ---- rows ---- */

struct normalised {
    const double *mean, *scale;
    const float *weight, *bias;
    __device__ int row(uint64_t) const
    {
        return 0;
    }
    __device__ float operator()(int, uint64_t c, float x) const
    {
        float n = scalar_normalise(x, mean[c], scale[c]);
        return weight ? n * weight[c] + bias[c] : n;
    }
};

void cuda_batchnorm_forward(struct matrix x, const double *mean, const double *scale,
                            const float *weight, const float *bias, struct matrix y)
{
    map(normalised{mean, scale, weight, bias}, x, y);
}

struct gradient_sums {
    typedef double number;
    typedef float2 value; /* of dy, of x */
    enum { SUMS = 2 };
    struct matrix x, dy;
    const double *mean, *scale;
    double *d, *dn;
    __device__ float2 load(uint64_t r, uint64_t c) const
    {
        return {dy.at[r * dy.stride + c], x.at[r * x.stride + c]};
    }
    __device__ void add(float2 in, uint64_t, uint64_t c, double *sums) const
    {
        double g = (double)in.x;
        sums[0] += g;
        sums[1] += g * (double)scalar_normalise(in.y, mean[c], scale[c]);
    }
    __device__ void put(uint64_t c, const double *sums) const
    {
        d[c] = sums[0];
        dn[c] = sums[1];
    }
};

void cuda_batchnorm_sums(struct matrix x, const double *mean, const double *scale, struct matrix dy,
                         double *d, double *dn)
{
    columns_sum_all(gradient_sums{x, dy, mean, scale, d, dn}, x.rows, x.columns);
}

/* Of dy, the matrix that is mapped. */
struct gradient {
    struct matrix x;
    const double *mean, *scale;
    const float *weight;
    const double *d, *dn;
    __device__ const float *row(uint64_t r) const
    {
        return x.at + r * x.stride;
    }
    __device__ float operator()(const float *of, uint64_t c, float dy) const
    {
        double n = (double)scalar_normalise(of[c], mean[c], scale[c]);
        return scalar_normalise_backward((double)weight[c] * scale[c], (double)dy, n, d[c], dn[c]);
    }
};

void cuda_batchnorm_backward(struct matrix x, const double *mean, const double *scale,
                             const float *weight, const double *d, const double *dn,
                             struct matrix dy, struct matrix dx)
{
    map(gradient{x, mean, scale, weight, d, dn}, dy, dx);
}

/* ---- channels ---- */

__global__ void channels_merge(const double *first, const double *second, double before,
                               double count, double *mean, double *variance, uint64_t channels)
{
    FOR_ITEMS(c, channels)
    {
        struct scalar_moments old = {0, 0}, more = {first[c], second[c]};
        if (before > 0)
            old = {mean[c], variance[c]};
        old = scalar_moments_merge(old, before, more, count);
        mean[c] = old.mean;
        variance[c] = old.squares;
    }
}

__global__ void channels_finish(double *variance, double count, double eps, double *scale,
                                uint64_t channels)
{
    FOR_ITEMS(c, channels)
    {
        scale[c] = 1 / sqrt(variance[c] / count + eps);
        variance[c] /= count > 1 ? count - 1 : 1;
    }
}

__global__ void channels_means_add(const double *first, const double *second, double divisor,
                                   int begins, double *d, double *dn, uint64_t channels)
{
    FOR_ITEMS(c, channels)
    {
        d[c] = ((begins ? 0 : d[c]) + first[c]) / divisor;
        dn[c] = ((begins ? 0 : dn[c]) + second[c]) / divisor;
    }
}

__global__ void channels_running(const double *mean, const double *variance, double momentum,
                                 float *running_mean, float *running_variance, uint64_t channels)
{
    FOR_ITEMS(c, channels)
    {
        running_mean[c] = scalar_running(running_mean[c], mean[c], momentum);
        running_variance[c] = scalar_running(running_variance[c], variance[c], momentum);
    }
}

__global__ void channels_use(const float *running_mean, const float *running_variance, double eps,
                             double *mean, double *scale, double *d, double *dn, uint64_t channels)
{
    FOR_ITEMS(c, channels)
    {
        mean[c] = (double)running_mean[c];
        scale[c] = 1 / sqrt((double)running_variance[c] + eps);
        d[c] = dn[c] = 0;
    }
}

#define LAUNCH_CHANNELS(kernel, channels, ...)                                                     \
    LAUNCH(kernel, cuda_blocks(channels, MAP_THREADS), MAP_THREADS, __VA_ARGS__, channels)

void cuda_batchnorm_merge(const double *first, const double *second, double before, double count,
                          double *mean, double *variance, uint64_t channels)
{
    LAUNCH_CHANNELS(channels_merge, channels, first, second, before, count, mean, variance);
}

void cuda_batchnorm_finish(double *variance, double count, double eps, double *scale,
                           uint64_t channels)
{
    LAUNCH_CHANNELS(channels_finish, channels, variance, count, eps, scale);
}

void cuda_batchnorm_means_add(const double *first, const double *second, double divisor, int begins,
                              double *d, double *dn, uint64_t channels)
{
    LAUNCH_CHANNELS(channels_means_add, channels, first, second, divisor, begins, d, dn);
}

void cuda_batchnorm_running(const double *mean, const double *variance, double momentum,
                            float *running_mean, float *running_variance, uint64_t channels)
{
    LAUNCH_CHANNELS(channels_running, channels, mean, variance, momentum, running_mean,
                    running_variance);
}

void cuda_batchnorm_use(const float *running_mean, const float *running_variance, double eps,
                        double *mean, double *scale, double *d, double *dn, uint64_t channels)
{
    LAUNCH_CHANNELS(channels_use, channels, running_mean, running_variance, eps, mean, scale, d,
                    dn);
}
