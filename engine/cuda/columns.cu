/* columns.cu - sums down the columns of matrices: gradients of biases and weights a column, moments
 * of targets. */
#include "engine/cuda/columns.h"

struct sum_of {
    typedef float number, value;
    enum { SUMS = 1 };
    struct matrix x;
    int adds;
    float *sums;
    __device__ float load(uint64_t r, uint64_t c) const
    {
        return x.at[r * x.stride + c];
    }
    __device__ void add(float in, uint64_t, uint64_t, float *at) const
    {
        *at += in;
    }
    __device__ void put(uint64_t c, const float *at) const
    {
        sums[c] = (adds ? sums[c] : 0) + *at;
    }
};

void cuda_column_sums(struct matrix x, int adds, float *sums)
{
    columns_sum_all(sum_of{x, adds, sums}, x.rows, x.columns);
}

struct dot_of {
    typedef float number;
    typedef float2 value;
    enum { SUMS = 1 };
    struct matrix a, b;
    float *sums;
    __device__ float2 load(uint64_t r, uint64_t c) const
    {
        return {a.at[r * a.stride + c], b.at[r * b.stride + c]};
    }
    __device__ void add(float2 in, uint64_t, uint64_t, float *at) const
    {
        *at += in.x * in.y;
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
    typedef float value;
    enum { SUMS = 3 };
    struct matrix y;
    struct weighting w;
    double *sums, *squares, *counts;
    __device__ float load(uint64_t r, uint64_t c) const
    {
        return y.at[r * y.stride + c];
    }
    __device__ void add(float in, uint64_t r, uint64_t c, double *at) const
    {
        double weight = weight_at(w, r, c);
        at[0] += weight * (double)in;
        at[1] += weight * ((double)in * (double)in);
        at[2] += weight;
    }
    __device__ void put(uint64_t c, const double *at) const
    {
        sums[c] += at[0];
        squares[c] += at[1];
        counts[c] += at[2];
    }
};

void cuda_column_moments(struct matrix y, struct weighting w, double *sums, double *squares,
                         double *counts)
{
    columns_sum_all(moments_of{y, w, sums, squares, counts}, y.rows, y.columns);
}
