/* columns.cu - sums down the columns of matrices: gradients of biases and weights a column, moments
 * of targets. */
#include "engine/cuda/columns.h"

struct sum_of {
    typedef float number;
    enum { SUMS = 1 };
    struct matrix x;
    float *sums;
    __device__ void add(uint64_t r, uint64_t c, float *at) const
    {
        *at += x.at[r * x.stride + c];
    }
    __device__ void put(uint64_t c, const float *at) const
    {
        sums[c] = *at;
    }
};

void cuda_column_sums(struct matrix x, float *sums)
{
    columns_sum_all(sum_of{x, sums}, x.rows, x.columns);
}

struct dot_of {
    typedef float number;
    enum { SUMS = 1 };
    struct matrix a, b;
    float *sums;
    __device__ void add(uint64_t r, uint64_t c, float *at) const
    {
        *at += a.at[r * a.stride + c] * b.at[r * b.stride + c];
    }
    __device__ void put(uint64_t c, const float *at) const
    {
        sums[c] += *at;
    }
};

void cuda_column_dots(struct matrix a, struct matrix b, float *sums)
{
    columns_sum_all(dot_of{a, b, sums}, a.rows, a.columns);
}

struct moments_of {
    typedef double number;
    enum { SUMS = 2 };
    struct matrix y;
    double *sums, *squares;
    __device__ void add(uint64_t r, uint64_t c, double *at) const
    {
        double value = (double)y.at[r * y.stride + c];
        at[0] += value;
        at[1] += value * value;
    }
    __device__ void put(uint64_t c, const double *at) const
    {
        sums[c] += at[0];
        squares[c] += at[1];
    }
};

void cuda_column_moments(struct matrix y, double *sums, double *squares)
{
    columns_sum_all(moments_of{y, sums, squares}, y.rows, y.columns);
}
