/* narrow.cu - linear layers of few outputs on few rows: what a classifier ends with.
 *
 * Forward a block has a row and a warp of it an output; where its loss is asked for with it the
 * first warp takes that of the row. Backward a block has NARROW_COLUMNS of the inputs, few, so that
 * there are many blocks, and a thread one of them and every NARROW_ROWS-th row: it makes dx of
 * them and a share of dw's column, which shared memory adds up.
 */
#include "engine/cuda/dense.h"
#include "engine/cuda/early.h"
#include "engine/cuda/finish.h"
#include "engine/cuda/softmax.h"

enum {
    WARPS = NARROW_OUTPUTS_MAX,
    NARROW_COLUMNS = 8,
    NARROW_THREADS = WARPS * WARP,
    NARROW_ROWS = NARROW_THREADS / NARROW_COLUMNS,
    NARROW_AHEAD = 8
};
static_assert(NARROW_ROWS * NARROW_AHEAD >= DENSE_ROWS_MAX,
              "all rows of a thread are on their way");

/* What a block does behind a row: its lanes 0 have an output each. */
struct nothing_behind {
    __device__ void operator()(uint64_t, uint64_t, float) const
    {
    }
};

struct softmax_behind {
    struct softmax_work s;
    uint64_t rows, columns;
    __device__ void operator()(uint64_t row, uint64_t column, float z) const
    {
        __shared__ float outputs[NARROW_OUTPUTS_MAX];
        if (threadIdx.x % WARP == 0)
            outputs[column] = z;
        __syncthreads();
        if (threadIdx.x < WARP)
            softmax_row(team<WARP>(), s, row, outputs, columns, NULL);
        rows_sum(s.losses, rows, s.sum);
    }
};

/* A lane has NARROW_AHEAD fours of x and w on their way at a time. */
template <typename behind>
__global__ void __launch_bounds__(NARROW_THREADS, 1)
    narrow_rows(struct matrix x, struct matrix w, const float *bias, enum activation kind,
                enum half half, uint16_t *kept, struct matrix y, unsigned fours, behind f)
{
    uint64_t row = blockIdx.x, column = threadIdx.x / WARP;
    const float *a = x.at + row * x.stride, *b = w.at + column * w.stride;
    unsigned lane = threadIdx.x % WARP;
    float sum = 0;
    launch_wait();
    UNROLL(1)
    for (unsigned k = lane; k < fours; k += NARROW_AHEAD * WARP) {
        float4 u[NARROW_AHEAD] = {}, v[NARROW_AHEAD] = {};
        UNROLL(NARROW_AHEAD)
        for (unsigned n = 0; n < NARROW_AHEAD; n++)
            if (k + n * WARP < fours) {
                u[n] = ((const float4 *)a)[k + n * WARP];
                v[n] = ((const float4 *)b)[k + n * WARP];
            }
        UNROLL(NARROW_AHEAD)
        for (unsigned n = 0; n < NARROW_AHEAD; n++)
            sum += u[n].x * v[n].x + u[n].y * v[n].y + (u[n].z * v[n].z + u[n].w * v[n].w);
    }
    UNROLL(1)
    for (uint64_t k = FOUR * fours + lane; k < x.columns; k += WARP)
        sum += a[k] * b[k];
    sum = warp_sum(sum);
    if (lane == 0) {
        sum = finished_apart(kind, half, kept, row * y.columns + column, sum + bias[column]);
        y.at[row * y.stride + column] = sum;
    }
    f(row, column, sum);
}

template <typename behind>
static int rows_run(struct matrix x, struct matrix w, const float *bias, enum activation kind,
                    enum half half, uint16_t *kept, struct matrix y, behind f)
{
    int aligned = ((uintptr_t)x.at | (uintptr_t)w.at) % sizeof(float4) == 0 &&
                  (x.stride | w.stride) % FOUR == 0;
    if (x.rows > DENSE_ROWS_MAX || y.columns > NARROW_OUTPUTS_MAX || x.columns >> 32)
        return 0;
    LAUNCH_EARLY(narrow_rows<behind>, (unsigned)x.rows, (unsigned)(y.columns * WARP), x, w, bias,
                 kind, half, kept, y, aligned ? (unsigned)(x.columns / FOUR) : 0, f);
    return 1;
}

int narrow_forward(struct matrix x, struct matrix w, const float *bias, enum activation kind,
                   enum half half, uint16_t *kept, struct matrix y)
{
    return rows_run(x, w, bias, kind, half, kept, y, nothing_behind());
}

void cuda_linear_loss(struct matrix x, struct matrix w, const float *bias, enum half half,
                      uint16_t *kept, struct matrix z, const uint32_t *targets,
                      struct weighting weights, double divisor, double *losses, double *sum,
                      struct matrix dz)
{
    struct softmax_behind f = {
        {targets, weights, divisor, losses, sum_within(z.rows, sum), dz, half}, z.rows, z.columns};
    if (rows_run(x, w, bias, ACTIVATION_COUNT, half, kept, z, f)) {
        sum_behind(losses, z.rows, sum);
        return;
    }
    cuda_linear_forward(x, w, bias, ACTIVATION_COUNT, half, kept, z);
    cuda_softmax_cross_entropy(z, targets, weights, divisor, losses, sum, dz, half);
}

/* The rows' x, float32 or in 16 bits; a number's place takes 32 bits. */
template <int half, typename number> struct narrow_input {
    const number *at;
    unsigned stride;
    static __device__ __forceinline__ float value(float x)
    {
        return x;
    }
    static __device__ __forceinline__ float value(uint16_t x)
    {
        return half_value<half>(x);
    }
    __device__ __forceinline__ float operator()(unsigned row, unsigned column) const
    {
        return value(at[row * stride + column]);
    }
};

/* Sums over the rows of dy: a warp one of them. */
static __device__ __forceinline__ void narrow_bias(const float *d, struct matrix dy, int adds,
                                                   float *db)
{
    unsigned n = threadIdx.x / WARP;
    float sum = 0;
    UNROLL(4)
    for (unsigned r = threadIdx.x % WARP; r < dy.rows; r += WARP)
        sum += d[r * NARROW_OUTPUTS_MAX + n];
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0 && n < dy.columns)
        db[n] = (adds ? db[n] : 0) + sum;
}

/* d[rows, NARROW_OUTPUTS_MAX]: dy, 0 where it has no column; four numbers of a thread on their way
 * at a time. */
static __device__ __forceinline__ void narrow_take(struct matrix dy, float *d)
{
    unsigned n = threadIdx.x % NARROW_OUTPUTS_MAX, rows = (unsigned)dy.rows;
    UNROLL(1)
    for (unsigned r = threadIdx.x / NARROW_OUTPUTS_MAX; r < rows; r += FOUR * WARP) {
        float in[FOUR];
        UNROLL(4)
        for (unsigned k = 0; k < FOUR; k++)
            in[k] = n < dy.columns && r + k * WARP < rows
                        ? dy.at[(r + k * WARP) * (unsigned)dy.stride + n]
                        : 0;
        UNROLL(4)
        for (unsigned k = 0; k < FOUR; k++)
            if (r + k * WARP < rows)
                d[(r + k * WARP) * NARROW_OUTPUTS_MAX + n] = in[k];
    }
    __syncthreads();
}

/* A thread's rows of x. */
template <typename input>
static __device__ __forceinline__ void narrow_read(const input &x, unsigned rows, unsigned column,
                                                   float in[NARROW_AHEAD])
{
    unsigned first = threadIdx.x / NARROW_COLUMNS;
    UNROLL(8)
    for (unsigned k = 0; k < NARROW_AHEAD; k++)
        in[k] = first + k * NARROW_ROWS < rows ? x(first + k * NARROW_ROWS, column) : 0;
}

/* Where a loop finds them, each thread its own. */
static __device__ __forceinline__ void narrow_keep(const float in[NARROW_AHEAD], float *own)
{
    UNROLL(8)
    for (unsigned k = 0; k < NARROW_AHEAD; k++)
        own[k * NARROW_THREADS] = in[k];
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

template <int half, typename number>
__global__ void __launch_bounds__(NARROW_THREADS, 1)
    narrow_back(struct matrix dy, struct narrow_input<half, number> x, struct matrix w, int adds,
                struct matrix dw, float *db, enum activation kind, int rounds, struct matrix dx)
{
    __shared__ __align__(16) float shared[DENSE_ROWS_MAX * NARROW_OUTPUTS_MAX];
    __shared__ float inputs[NARROW_AHEAD * NARROW_THREADS];
    static_assert(NARROW_OUTPUTS_MAX * NARROW_THREADS <= DENSE_ROWS_MAX * NARROW_OUTPUTS_MAX,
                  "the sums lie where dy was");
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    unsigned column = blockIdx.x * NARROW_COLUMNS + threadIdx.x % NARROW_COLUMNS;
    unsigned rows = column < w.columns ? (unsigned)dy.rows : 0;
    float of[NARROW_OUTPUTS_MAX], sums[NARROW_OUTPUTS_MAX] = {0}, in[NARROW_AHEAD];
    float *own = inputs + threadIdx.x;
    launch_wait();
    UNROLL(NARROW_OUTPUTS_MAX)
    for (unsigned n = 0; n < NARROW_OUTPUTS_MAX; n++)
        of[n] = n < w.rows && rows ? w.at[n * (unsigned)w.stride + column] : 0;
    narrow_read(x, rows, column, in);
    narrow_take(dy, shared);
    narrow_keep(in, own);
    UNROLL(1)
    for (unsigned r = threadIdx.x / NARROW_COLUMNS; r < rows; r += NARROW_ROWS) {
        float at = *own;
        float d = narrow_number(shared + r * NARROW_OUTPUTS_MAX, at, of, sums);
        if (dx.at)
            dx.at[r * (unsigned)dx.stride + column] = sloped_rounded<half>(kind, rounds, at, d);
        own += NARROW_THREADS;
    }
    if (!dw.at)
        return;
    if (blockIdx.x == 0)
        narrow_bias(shared, dy, adds, db);
    __syncthreads();
    UNROLL(NARROW_OUTPUTS_MAX)
    for (unsigned n = 0; n < NARROW_OUTPUTS_MAX; n++)
        shared[n * NARROW_THREADS + threadIdx.x] = sums[n];
    __syncthreads();
    float sum = 0;
    UNROLL(WARPS)
    for (unsigned k = 0; k < WARPS; k++)
        sum += shared[warp * NARROW_THREADS + k * WARP + lane];
    for (int lanes = NARROW_COLUMNS; lanes < WARP; lanes *= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    if (lane >= NARROW_COLUMNS || warp >= dw.rows || column >= dw.columns)
        return;
    float *to = dw.at + warp * dw.stride + column;
    *to = adds ? *to + sum : sum;
}

static int near(struct matrix m)
{
    return (!m.at || m.stride < UINT32_MAX / DENSE_ROWS_MAX) && m.columns <= UINT32_MAX;
}

int narrow_backward(struct matrix dy, struct matrix x, const uint16_t *x_half, struct matrix w,
                    int adds, struct matrix dw, float *db, enum activation kind, enum half half,
                    int rounds, struct matrix dx)
{
    if (x.rows > DENSE_ROWS_MAX || dy.columns > NARROW_OUTPUTS_MAX || !near(dy) || !near(x) ||
        !near(w) || !near(dx))
        return 0;
    unsigned blocks = (unsigned)((x.columns + NARROW_COLUMNS - 1) / NARROW_COLUMNS);
#define RUN(half, number, from)                                                                    \
    do {                                                                                           \
        struct narrow_input<half, number> in = {                                                   \
            from, (unsigned)x.stride                                                               \
        };                                                                                         \
        LAUNCH_EARLY((narrow_back<half, number>), blocks, NARROW_THREADS, dy, in, w, adds, dw, db, \
                     kind, rounds, dx);                                                            \
    } while (0)
    if (x_half && half == HALF_F16)
        RUN(HALF_F16, uint16_t, x_half);
    else if (x_half)
        RUN(HALF_BF16, uint16_t, x_half);
    else if (half == HALF_F16)
        RUN(HALF_F16, float, x.at);
    else if (half == HALF_BF16)
        RUN(HALF_BF16, float, x.at);
    else
        RUN(HALF_NONE, float, x.at);
#undef RUN
    return 1;
}
