/* pool.cu - pools over the rows of a segment. A thread has one column of a segment and takes its
 * rows in their order, so that a warp reads whole lines and nothing is added up by chance. */
#include "engine/cuda/early.h"

enum { THREADS = 256 };

/* Rows are on their way BATCH at a time, the last one again where there are fewer. */
static __device__ __forceinline__ double column_sum(const float *x, uint64_t stride, uint64_t rows)
{
    enum { BATCH = 12 };
    double sum = 0;
    for (uint64_t first = 0; first < rows; first += BATCH) {
        float in[BATCH];
        UNROLL(12)
        for (uint64_t i = 0; i < BATCH; i++)
            in[i] = x[(first + i < rows ? first + i : rows - 1) * stride];
        UNROLL(12)
        for (uint64_t i = 0; i < BATCH; i++)
            if (first + i < rows)
                sum += (double)in[i];
    }
    return sum;
}

/* Row of the first largest value of a column. */
static __device__ __forceinline__ uint64_t column_largest(const float *x, uint64_t stride,
                                                          uint64_t rows)
{
    uint64_t best = 0;
    float most = x[0];
    UNROLL(8)
    for (uint64_t r = 1; r < rows; r++) {
        float value = x[r * stride];
        if (scalar_larger(value, most)) {
            best = r;
            most = value;
        }
    }
    return best;
}

__global__ void pool_columns(enum pooling kind, struct matrix x, struct segments s, struct matrix y)
{
    launch_wait();
    FOR_ITEMS(i, s.count * x.columns)
    {
        uint64_t n = i / x.columns, c = i % x.columns, rows = segment_rows(s, n);
        const float *in = x.at + segment_first(s, n) * x.stride + c;
        float *out = y.at + n * y.stride + c;
        if (kind == POOL_LAST || kind == POOL_MAX) {
            uint64_t r = kind == POOL_LAST ? rows - 1 : column_largest(in, x.stride, rows);
            *out = in[r * x.stride];
        } else {
            double sum = column_sum(in, x.stride, rows);
            *out = (float)(kind == POOL_SUM ? sum : sum / (double)rows);
            if (kind == POOL_MEAN_SUM)
                out[x.columns] = (float)sum;
        }
    }
}

__global__ void pool_columns_backward(enum pooling kind, struct matrix x, struct matrix dy,
                                      struct segments s, struct matrix dx)
{
    launch_wait();
    FOR_ITEMS(i, s.count * x.columns)
    {
        uint64_t n = i / x.columns, c = i % x.columns, rows = segment_rows(s, n);
        uint64_t first = segment_first(s, n), one = rows - 1;
        const float *d = dy.at + n * dy.stride + c;
        float mean = (float)((double)*d / (double)rows), each = kind == POOL_SUM ? *d : mean;
        int all = kind != POOL_LAST && kind != POOL_MAX;
        if (kind == POOL_MEAN_SUM)
            each = mean + d[x.columns];
        if (kind == POOL_MAX)
            one = column_largest(x.at + first * x.stride + c, x.stride, rows);
        for (uint64_t r = 0; r < rows; r++)
            dx.at[(first + r) * dx.stride + c] = all ? each : r == one ? *d : 0;
    }
    uint64_t end = segment_first(s, s.count);
    FOR_ITEMS(i, (dx.rows - end) * dx.columns)
    dx.at[(end + i / dx.columns) * dx.stride + i % dx.columns] = 0;
}

void cuda_pool_forward(enum pooling kind, struct matrix x, struct segments s, struct matrix y)
{
    LAUNCH_EARLY(pool_columns, cuda_blocks(s.count * x.columns, THREADS), THREADS, kind, x, s, y);
}

void cuda_pool_backward(enum pooling kind, struct matrix x, struct matrix dy, struct segments s,
                        struct matrix dx)
{
    LAUNCH_EARLY(pool_columns_backward, cuda_blocks(s.count * x.columns, THREADS), THREADS, kind, x,
                 dy, s, dx);
}
