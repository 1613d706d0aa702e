/* int8.cu - rows in 8 bits, and products of them: engine/quantised.h has the formula. Sums are
 * whole numbers and exact, so that their order does not matter.
 *
 * A product takes INT8_ROWS rows of x at a time into the caller's scratch, in 8 bits, and then a
 * warp has INT8_OUTPUTS numbers of one row of y, its lanes dividing the columns.
 */
#include <math.h>

#include "engine/cuda/cuda.h"

enum { THREADS = 256, WARPS = THREADS / WARP, WORD = 4 };
enum { EXACT = 1 << 17 }; /* columns whose sum 31 bits hold in any case */

/* Of a row, over a block, in every thread; part: WARP numbers of shared memory. */
static __device__ float row_largest(const float *x, uint64_t count, unsigned *part)
{
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    unsigned most = 0; /* bits of a magnitude: in the order of the numbers, NaN above all */
    for (uint64_t k = threadIdx.x; k < count; k += blockDim.x) {
        unsigned bits = __float_as_uint(x[k]) & 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    for (int round = 0; round < 2; round++) {
        for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
            unsigned other = __shfl_xor_sync(0xffffffffu, most, lanes);
            most = other > most ? other : most;
        }
        if (round)
            break;
        if (lane == 0)
            part[warp] = most;
        __syncthreads();
        most = lane < blockDim.x / WARP ? part[lane] : 0;
    }
    __syncthreads();
    return most < 0x7f800000u ? __uint_as_float(most) : NAN;
}

/* A row a block; what pads q behind the columns becomes 0. */
__global__ void rows_quantise(struct matrix x, int8_t *q, uint64_t stride, float *scales)
{
    __shared__ unsigned part[WARP];
    for (uint64_t r = blockIdx.x; r < x.rows; r += gridDim.x) {
        const float *row = x.at + r * x.stride;
        float largest = row_largest(row, x.columns, part);
        float inverse = scalar_quantise_inverse(largest);
        if (threadIdx.x == 0)
            scales[r] = scalar_quantise_scale(largest);
        for (uint64_t k = threadIdx.x; k < stride; k += blockDim.x)
            q[r * stride + k] = k < x.columns ? (int8_t)scalar_quantise(row[k], inverse) : 0;
    }
}

void cuda_quantise(struct matrix w, struct int8_matrix q)
{
    LAUNCH(rows_quantise, cuda_blocks(w.rows, 1), THREADS, w, q.at, q.stride, q.scales);
}

/* sum += a b, four numbers of 8 bits each. */
static __device__ __forceinline__ int words_multiply(unsigned a, unsigned b, int sum)
{
#ifdef CUDA_EMULATED
    for (int k = 0; k < WORD; k++)
        sum += (int8_t)(a >> 8 * k) * (int8_t)(b >> 8 * k);
    return sum;
#else
    return __dp4a((int)a, (int)b, sum);
#endif
}

/* Columns 0 .. stride - 1 of one row of both, divided among the lanes; the sum in every lane. */
static __device__ long long row_product(const int8_t *a, const int8_t *b, uint64_t stride)
{
    long long all = 0;
    for (uint64_t first = 0; first < stride; first += EXACT) {
        uint64_t end = stride - first < EXACT ? stride : first + EXACT;
        int sum = 0;
        for (uint64_t k = first + WORD * (threadIdx.x % WARP); k < end; k += WORD * WARP)
            sum = words_multiply(*(const unsigned *)(a + k), *(const unsigned *)(b + k), sum);
        all += sum;
    }
    return warp_sum(all);
}

__global__ void rows_multiply(const int8_t *q, const float *scales, struct int8_matrix w,
                              float beta, struct matrix y)
{
    uint64_t groups = (w.rows + INT8_OUTPUTS - 1) / INT8_OUTPUTS;
    uint64_t warp = (uint64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    for (; warp < groups * y.rows; warp += (uint64_t)gridDim.x * WARPS) {
        uint64_t r = warp / groups, first = warp % groups * INT8_OUTPUTS;
        for (uint64_t o = first; o < first + INT8_OUTPUTS && o < w.rows; o++) {
            long long sum = row_product(q + r * w.stride, w.at + o * w.stride, w.stride);
            float *at = y.at + r * y.stride + o;
            float value = (float)((double)sum * ((double)scales[r] * (double)w.scales[o]));
            if (threadIdx.x % WARP == 0)
                *at = beta != 0 ? beta * *at + value : value;
        }
    }
}

void cuda_product_int8(struct matrix x, struct int8_matrix w, struct int8_work work, float beta,
                       struct matrix y)
{
    int8_t *q = (int8_t *)work.rows;
    uint64_t outputs = (w.rows + INT8_OUTPUTS - 1) / INT8_OUTPUTS;
    for (uint64_t first = 0; first < x.rows; first += INT8_ROWS) {
        uint64_t rows = x.rows - first < INT8_ROWS ? x.rows - first : (uint64_t)INT8_ROWS;
        struct matrix in = {x.at + first * x.stride, rows, x.columns, x.stride};
        struct matrix out = {y.at + first * y.stride, rows, y.columns, y.stride};
        LAUNCH(rows_quantise, cuda_blocks(rows, 1), THREADS, in, q, w.stride, work.scales);
        LAUNCH(rows_multiply, cuda_blocks(rows * outputs, WARPS), THREADS, q, work.scales, w, beta,
               out);
    }
}
