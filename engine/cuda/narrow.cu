/* narrow.cu - linear layers of few outputs on few rows: what a classifier ends with.
 *
 * Forward a block has a row and a warp of it an output. Backward a block has NARROW_COLUMNS of the
 * inputs, a lane one of them and a warp some of the rows: a lane makes dx of its rows and a share
 * of dw's column, which shared memory adds up in the order of the warps.
 */
#include "engine/cuda/dense.h"
#include "engine/cuda/early.h"
#include "engine/cuda/finish.h"

enum {
    WARPS = NARROW_OUTPUTS_MAX,
    NARROW_COLUMNS = WARP,
    NARROW_THREADS = WARPS * WARP,
    NARROW_AHEAD = 8
};

__global__ void narrow_rows(struct matrix x, struct matrix w, const float *bias,
                            enum activation kind, enum half half, uint16_t *kept, struct matrix y,
                            uint64_t fours)
{
    uint64_t row = blockIdx.x, column = threadIdx.x / WARP;
    const float *a = x.at + row * x.stride, *b = w.at + column * w.stride;
    unsigned lane = threadIdx.x % WARP;
    float sum = 0;
    launch_wait();
    UNROLL(8)
    for (uint64_t k = lane; k < fours; k += WARP) {
        float4 u = ((const float4 *)a)[k], v = ((const float4 *)b)[k];
        sum += u.x * v.x + u.y * v.y + (u.z * v.z + u.w * v.w);
    }
    for (uint64_t k = FOUR * fours + lane; k < x.columns; k += WARP)
        sum += a[k] * b[k];
    sum = warp_sum(sum);
    if (lane == 0)
        y.at[row * y.stride + column] =
            finished(kind, half, kept, row * y.columns + column, sum + bias[column]);
}

int narrow_forward(struct matrix x, struct matrix w, const float *bias, enum activation kind,
                   enum half half, uint16_t *kept, struct matrix y)
{
    int aligned = ((uintptr_t)x.at | (uintptr_t)w.at) % sizeof(float4) == 0 &&
                  (x.stride | w.stride) % FOUR == 0;
    if (x.rows > DENSE_ROWS_MAX || y.columns > NARROW_OUTPUTS_MAX)
        return 0;
    LAUNCH_EARLY(narrow_rows, (unsigned)x.rows, (unsigned)(y.columns * WARP), x, w, bias, kind,
                 half, kept, y, aligned ? x.columns / FOUR : 0);
    return 1;
}

/* The rows' x, float32 or 16 bits. */
struct narrow_input {
    const float *at;
    const uint16_t *half_at;
    uint64_t stride;
    enum half half;
    __device__ __forceinline__ float operator()(uint64_t row, uint64_t column) const
    {
        uint64_t i = row * stride + column;
        if (!half_at)
            return at[i];
        return half == HALF_F16 ? half_F16::widen(half_at[i]) : half_BF16::widen(half_at[i]);
    }
};

/* Sums over the rows of dy: a warp one of them. */
static __device__ __forceinline__ void narrow_bias(const float *d, struct matrix dy, int adds,
                                                   float *db)
{
    unsigned n = threadIdx.x / WARP;
    float sum = 0;
    for (unsigned r = threadIdx.x % WARP; r < dy.rows; r += WARP)
        sum += d[r * NARROW_OUTPUTS_MAX + n];
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0 && n < dy.columns)
        db[n] = (adds ? db[n] : 0) + sum;
}

/* d[rows, NARROW_OUTPUTS_MAX]: dy, 0 where it has no column. */
static __device__ __forceinline__ void narrow_take(struct matrix dy, float *d)
{
    for (unsigned i = threadIdx.x; i < dy.rows * NARROW_OUTPUTS_MAX; i += NARROW_THREADS) {
        unsigned r = i / NARROW_OUTPUTS_MAX, n = i % NARROW_OUTPUTS_MAX;
        d[i] = n < dy.columns ? dy.at[r * dy.stride + n] : 0;
    }
    __syncthreads();
}

/* A warp's next rows of x, NARROW_AHEAD of them from `first` on. */
static __device__ __forceinline__ void narrow_read(const struct narrow_input &x, uint64_t rows,
                                                   uint64_t first, uint64_t column,
                                                   float in[NARROW_AHEAD])
{
    UNROLL(NARROW_AHEAD)
    for (unsigned k = 0; k < NARROW_AHEAD; k++)
        in[k] = first + k * WARPS < rows ? x(first + k * WARPS, column) : 0;
}

/* dx of one row and column, and what the row adds to dw's column. */
static __device__ __forceinline__ float narrow_number(const float *d, float in,
                                                      const float w[NARROW_OUTPUTS_MAX],
                                                      float sums[NARROW_OUTPUTS_MAX])
{
    float sum = 0;
    UNROLL(NARROW_OUTPUTS_MAX)
    for (unsigned n = 0; n < NARROW_OUTPUTS_MAX; n++) {
        sums[n] += d[n] * in;
        sum += d[n] * w[n];
    }
    return sum;
}

__global__ void __launch_bounds__(NARROW_THREADS, 1)
    narrow_back(struct matrix dy, struct narrow_input x, struct matrix w, int adds,
                struct matrix dw, float *db, enum activation kind, int rounds, struct matrix dx)
{
    __shared__ __align__(16) float shared[DENSE_ROWS_MAX * NARROW_OUTPUTS_MAX];
    static_assert(WARPS * NARROW_OUTPUTS_MAX * WARP <= DENSE_ROWS_MAX * NARROW_OUTPUTS_MAX,
                  "the sums lie where dy was");
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    uint64_t column = blockIdx.x * NARROW_COLUMNS + lane, rows = column < w.columns ? dy.rows : 0;
    float of[NARROW_OUTPUTS_MAX], sums[NARROW_OUTPUTS_MAX] = {0}, in[NARROW_AHEAD];
    launch_wait();
    narrow_read(x, rows, warp, column, in);
    UNROLL(NARROW_OUTPUTS_MAX)
    for (unsigned n = 0; n < NARROW_OUTPUTS_MAX; n++)
        of[n] = n < w.rows && rows ? w.at[n * w.stride + column] : 0;
    narrow_take(dy, shared);
    for (uint64_t first = warp; first < rows; first += NARROW_AHEAD * WARPS) {
        UNROLL(NARROW_AHEAD)
        for (unsigned k = 0; k < NARROW_AHEAD && first + k * WARPS < rows; k++) {
            uint64_t r = first + k * WARPS;
            float d = sloped(kind, in[k],
                             narrow_number(shared + r * NARROW_OUTPUTS_MAX, in[k], of, sums));
            if (dx.at)
                dx.at[r * dx.stride + column] = rounds ? half_rounded(x.half, d) : d;
        }
        narrow_read(x, rows, first + NARROW_AHEAD * WARPS, column, in);
    }
    if (!dw.at)
        return;
    if (blockIdx.x == 0)
        narrow_bias(shared, dy, adds, db);
    __syncthreads();
    UNROLL(NARROW_OUTPUTS_MAX)
    for (unsigned n = 0; n < NARROW_OUTPUTS_MAX; n++)
        shared[(warp * NARROW_OUTPUTS_MAX + n) * WARP + lane] = sums[n];
    __syncthreads();
    if (warp >= dw.rows || column >= dw.columns)
        return;
    float *to = dw.at + warp * dw.stride + column, sum = adds ? *to : 0;
    UNROLL(WARPS)
    for (unsigned k = 0; k < WARPS; k++)
        sum += shared[(k * NARROW_OUTPUTS_MAX + warp) * WARP + lane];
    *to = sum;
}

int narrow_backward(struct matrix dy, struct matrix x, const uint16_t *x_half, struct matrix w,
                    int adds, struct matrix dw, float *db, enum activation kind, enum half half,
                    int rounds, struct matrix dx)
{
    struct narrow_input in = {x.at, x_half, x.stride, half};
    if (x.rows > DENSE_ROWS_MAX || dy.columns > NARROW_OUTPUTS_MAX)
        return 0;
    LAUNCH_EARLY(narrow_back, (unsigned)((x.columns + NARROW_COLUMNS - 1) / NARROW_COLUMNS),
                 NARROW_THREADS, dy, in, w, adds, dw, db, kind, rounds, dx);
    return 1;
}
