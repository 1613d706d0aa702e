/* graph.cu - pools over the rows of a segment, and products with a sparse matrix.
 *
 * A thread has one column of a segment or of a sparse row and takes its rows in their order, so
 * that a warp reads whole lines and nothing is added up by chance. Graphs are small: what several
 * rows read of x is in the cache.
 */
#include "engine/cuda/finish.h"

enum { THREADS = 256 };

static __device__ __forceinline__ double column_sum(const float *x, uint64_t stride, uint64_t rows)
{
    double sum = 0;
    UNROLL(8)
    for (uint64_t r = 0; r < rows; r++)
        sum += (double)x[r * stride];
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
}

void cuda_pool_forward(enum pooling kind, struct matrix x, struct segments s, struct matrix y)
{
    LAUNCH(pool_columns, cuda_blocks(s.count * x.columns, THREADS), THREADS, kind, x, s, y);
}

void cuda_pool_backward(enum pooling kind, struct matrix x, struct matrix dy, struct segments s,
                        struct matrix dx)
{
    LAUNCH(pool_columns_backward, cuda_blocks(s.count * x.columns, THREADS), THREADS, kind, x, dy,
           s, dx);
}

/* What is added to a row's sum, and what becomes of it. */
struct sparse_finish {
    const float *bias;
    float beta;
    const float *skip;
    enum activation kind;
    enum half half;
    uint16_t *kept;
};

/* What column c of row r begins with. */
static __device__ __forceinline__ float sparse_begin(const struct sparse_finish &f, uint64_t c,
                                                     float was)
{
    return (f.beta == 0 ? 0 : f.beta * was) + (f.bias ? f.bias[c] : 0);
}

/* Number i of y, which is dense where there is more to do than to add up. */
static __device__ __forceinline__ float sparse_end(const struct sparse_finish &f, uint64_t i,
                                                   float sum)
{
    return finished(f.kind, f.half, f.kept, i, f.skip ? sum + f.skip[i] : sum);
}

__global__ void sparse_rows(struct sparse a, struct matrix x, struct sparse_finish f,
                            struct matrix y)
{
    FOR_ITEMS(i, a.rows * y.columns)
    {
        uint64_t r = i / y.columns, c = i % y.columns;
        float *out = y.at + r * y.stride + c, sum = sparse_begin(f, c, f.beta == 0 ? 0 : *out);
        uint32_t end = a.begin[r + 1];
        UNROLL(4)
        for (uint32_t k = a.begin[r]; k < end; k++)
            sum += a.value[k] * x.at[a.column[k] * x.stride + c];
        *out = sparse_end(f, i, sum);
    }
}

/* The same, four columns a thread, which lie on whole 16 bytes everywhere. */
__global__ void sparse_rows_by_four(struct sparse a, struct matrix x, struct sparse_finish f,
                                    struct matrix y)
{
    uint64_t width = y.columns / 4;
    FOR_ITEMS(i, a.rows * width)
    {
        uint64_t r = i / width, c = i % width * 4;
        float4 *out = (float4 *)(y.at + r * y.stride + c);
        float4 was = f.beta == 0 ? make_float4(0, 0, 0, 0) : *out;
        float4 sum = make_float4(sparse_begin(f, c, was.x), sparse_begin(f, c + 1, was.y),
                                 sparse_begin(f, c + 2, was.z), sparse_begin(f, c + 3, was.w));
        uint32_t end = a.begin[r + 1];
        UNROLL(4)
        for (uint32_t k = a.begin[r]; k < end; k++) {
            float value = a.value[k];
            float4 in = *(const float4 *)(x.at + a.column[k] * x.stride + c);
            sum.x += value * in.x;
            sum.y += value * in.y;
            sum.z += value * in.z;
            sum.w += value * in.w;
        }
        *out = make_float4(sparse_end(f, 4 * i, sum.x), sparse_end(f, 4 * i + 1, sum.y),
                           sparse_end(f, 4 * i + 2, sum.z), sparse_end(f, 4 * i + 3, sum.w));
    }
}

static int by_four(struct matrix m)
{
    return (uintptr_t)m.at % 16 == 0 && m.stride % 4 == 0 && m.columns % 4 == 0;
}

void cuda_sparse_forward(struct sparse a, struct matrix x, const float *bias, float beta,
                         const float *skip, enum activation kind, enum half half, uint16_t *kept,
                         struct matrix y)
{
    struct sparse_finish f = {bias, beta, skip, kind, half, kept};
    if (by_four(x) && by_four(y))
        LAUNCH(sparse_rows_by_four, cuda_blocks(a.rows * (y.columns / 4), THREADS), THREADS, a, x,
               f, y);
    else
        LAUNCH(sparse_rows, cuda_blocks(a.rows * y.columns, THREADS), THREADS, a, x, f, y);
}

void cuda_sparse_product(struct sparse a, struct matrix x, const float *bias, float beta,
                         struct matrix y)
{
    cuda_sparse_forward(a, x, bias, beta, NULL, ACTIVATION_COUNT, HALF_NONE, NULL, y);
}
