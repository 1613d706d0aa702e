/* lstm_float.cu - the steps of an LSTM's layer in float32: lstm_cell.h says how a block is laid
 * out. Of W_hh a lane keeps what it multiplies with, KEPT numbers of it in registers and the rest
 * in shared memory, four threads' numbers side by side no more than those of one.
 *
 * Forward a lane makes its gate's sum out of all of h, backward a warp the parts of its units'
 * gradients in that at h, a lane every 32nd: as lstm_half.cu, with one barrier a step.
 */
#include "engine/cuda/lstm_cell.h"

enum { KEPT = 64 };

/* Of a lane's 32 * pairs weights those in registers, and the fours in shared memory. */
template <int pairs> struct held {
    enum {
        ALL = 32 * pairs,
        REGISTERS = ALL < KEPT ? ALL : KEPT,
        FOURS = (ALL - REGISTERS) / FOUR,
    };
    float near[REGISTERS];
    float4 *far; /* [FOURS, threads], from this thread's on */
};

static __device__ __forceinline__ float weight(struct matrix w, uint64_t gate, uint64_t hidden,
                                               uint64_t unit, uint64_t column)
{
    return unit < hidden && column < hidden ? w.at[(gate * hidden + unit) * w.stride + column] : 0;
}

/* Weight `number` of the lane: forward column `number` of its gate, backward the gate's row
 * number % 32 of the warp at every 32nd column. */
template <int rows>
static __device__ __forceinline__ float weight_of(struct matrix w, uint64_t hidden,
                                                  const struct lane<rows> &l, int backward,
                                                  unsigned number)
{
    if (!backward)
        return weight(w, l.gate, hidden, l.unit, number);
    unsigned row = number % WARP, column = number / WARP * WARP + threadIdx.x % WARP;
    return weight(w, row / UNITS, hidden, l.warp * UNITS + row % UNITS, column);
}

template <int pairs, int rows>
static __device__ __forceinline__ void held_load(struct matrix w, uint64_t hidden,
                                                 const struct lane<rows> &l, int backward,
                                                 float4 *far, struct held<pairs> *h)
{
    UNROLL(64)
    for (int i = 0; i < held<pairs>::REGISTERS; i++)
        h->near[i] = weight_of(w, hidden, l, backward, i);
    h->far = far + threadIdx.x;
    for (int i = 0; i < held<pairs>::FOURS; i++) {
        unsigned from = held<pairs>::REGISTERS + FOUR * i;
        h->far[i * blockDim.x] = make_float4(weight_of(w, hidden, l, backward, from),
                                             weight_of(w, hidden, l, backward, from + 1),
                                             weight_of(w, hidden, l, backward, from + 2),
                                             weight_of(w, hidden, l, backward, from + 3));
    }
}

/* Weights 4 i .. of the lane. */
template <int pairs>
static __device__ __forceinline__ float4 held_four(const struct held<pairs> *h, int i)
{
    if (FOUR * i < held<pairs>::REGISTERS)
        return make_float4(h->near[FOUR * i], h->near[FOUR * i + 1], h->near[FOUR * i + 2],
                           h->near[FOUR * i + 3]);
    return h->far[(FOUR * i - held<pairs>::REGISTERS) / FOUR * blockDim.x];
}

static __device__ __forceinline__ float dot(float4 a, float4 b, float sum)
{
    return sum + a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}

/* Shared memory of a block of `threads`. */
template <int pairs, int rows> static uint64_t shared_bytes(unsigned threads, int backward)
{
    uint64_t far = held<pairs>::FOURS * sizeof(float4), warps = threads / WARP;
    uint64_t h = 2 * rows * 32 * pairs * sizeof(float);
    uint64_t parts = rows * (2 * 4 * pairs * (32 * pairs + UNITS) + warps * WARP) * sizeof(float);
    return threads * far + (backward ? parts : h);
}

template <int pairs, int rows>
__global__ void __launch_bounds__(THREADS_MAX, 1)
    float_forward(struct lstm_steps s, const float *bias_ih, const float *bias_hh, struct matrix w,
                  struct matrix h)
{
    enum { LENGTH = 32 * pairs };
    SHARED_DYNAMIC(float4, shared);
    float *all = (float *)(shared + held<pairs>::FOURS * blockDim.x); /* [2][rows][LENGTH] */
    struct held<pairs> held;
    struct lane<rows> l = lane_here<rows>(s);
    struct forward_cell<rows> f;
    for (unsigned i = threadIdx.x; i < 2 * rows * LENGTH; i += blockDim.x)
        all[i] = 0; /* units that are not there */
    held_load<pairs, rows>(w, s.hidden, l, 0, shared, &held);
    forward_begin<rows>(s, l, bias_ih, bias_hh, h, &f);
    float value = forward_h_before<rows>(s, l, &f);
    __syncthreads();
    for (unsigned k = 0; k < l.steps; k++) {
        float *now = all + k % 2 * rows * LENGTH, sums[rows] = {0};
        if (tells_h<rows>(l))
            now[l.gate * LENGTH + l.unit] = value;
        __syncthreads();
        UNROLL(32)
        for (int i = 0; i < LENGTH / FOUR; i++) {
            float4 four = held_four<pairs>(&held, i);
            UNROLL(rows)
            for (int r = 0; r < rows; r++)
                sums[r] = dot(four, *(const float4 *)(now + r * LENGTH + FOUR * i), sums[r]);
        }
        value = forward_step<rows, HALF_NONE>(l, k, sums, &f);
    }
    forward_end<rows>(s, l, &f);
}

/* The warp's part [hidden][rows] of the gradient at h, of d [rows][32] of its units. */
template <int pairs, int rows>
static __device__ __forceinline__ void product_backward(const struct held<pairs> *held,
                                                        const float *d, float *part)
{
    UNROLL(4)
    for (int pair = 0; pair < pairs; pair++) {
        float sums[rows] = {0};
        UNROLL(8)
        for (int i = 0; i < WARP / FOUR; i++) {
            float4 four = held_four<pairs>(held, pair * (WARP / FOUR) + i);
            UNROLL(rows)
            for (int r = 0; r < rows; r++)
                sums[r] = dot(four, *(const float4 *)(d + r * WARP + FOUR * i), sums[r]);
        }
        UNROLL(rows)
        for (int r = 0; r < rows; r++)
            part[(WARP * pair + threadIdx.x % WARP) * rows + r] = sums[r];
    }
}

template <int pairs, int rows>
__global__ void __launch_bounds__(THREADS_MAX, 1)
    float_backward(struct lstm_steps s, struct matrix w, struct matrix dh, float *dc)
{
    enum { PART = (32 * pairs + UNITS) * rows, PARTS = 4 * pairs * PART };
    SHARED_DYNAMIC(float4, shared);
    unsigned warps = blockDim.x / WARP;
    float *gradients = (float *)(shared + held<pairs>::FOURS * blockDim.x); /* [warps][rows][32] */
    float *parts = gradients + warps * rows * WARP;                         /* [2][PARTS] */
    struct held<pairs> held;
    struct lane<rows> l = lane_here<rows>(s);
    struct backward_cell<rows> b;
    float recurrent = 0;
    gradients += l.warp * rows * WARP;
    for (unsigned i = threadIdx.x; i < 2 * PARTS; i += blockDim.x)
        parts[i] = 0; /* of warps that are not there */
    held_load<pairs, rows>(w, s.hidden, l, 1, shared, &held);
    backward_begin<rows, HALF_NONE>(s, l, dh, dc, &b);
    __syncthreads(); /* the last steps are read, before their gates become gradients */
    for (unsigned k = l.steps; k-- > 0;) {
        float own[rows], *now = parts + k % 2 * PARTS;
        backward_step<rows, HALF_NONE>(l, s.hidden, k, recurrent, &b, own);
        UNROLL(rows)
        for (int i = 0; i < rows; i++)
            gradients[l.gate % rows * WARP + own_gate<rows>(l, i) * UNITS + l.u] = own[i];
        __syncwarp();
        product_backward<pairs, rows>(&held, gradients, now + l.warp * PART);
        backward_ready<rows, HALF_NONE>(l, s.hidden, k, &b);
        __syncthreads();
        recurrent = parts_sum<rows, 4 * pairs, PART>(now, l);
    }
    backward_end<rows>(s, l, dh, recurrent, dc, &b);
}

/* One launch, where a block of it has room. */
template <int pairs, int rows>
static int forward_launch(struct lstm_steps s, const float *bias_ih, const float *bias_hh,
                          struct matrix w, struct matrix h)
{
    unsigned threads = (unsigned)((s.hidden + UNITS - 1) / UNITS) * WARP;
    uint64_t bytes = shared_bytes<pairs, rows>(threads, 0);
    if (!SHARED_ALLOW((float_forward<pairs, rows>), bytes))
        return -1;
    LAUNCH_SHARED((float_forward<pairs, rows>), (unsigned)((s.rows + rows - 1) / rows), threads,
                  bytes, s, bias_ih, bias_hh, w, h);
    return 0;
}

template <int pairs, int rows>
static int backward_launch(struct lstm_steps s, struct matrix w, struct matrix dh, float *dc)
{
    unsigned threads = (unsigned)((s.hidden + UNITS - 1) / UNITS) * WARP;
    uint64_t bytes = shared_bytes<pairs, rows>(threads, 1);
    if (!SHARED_ALLOW((float_backward<pairs, rows>), bytes))
        return -1;
    LAUNCH_SHARED((float_backward<pairs, rows>), (unsigned)((s.rows + rows - 1) / rows), threads,
                  bytes, s, w, dh, dc);
    return 0;
}

int lstm_forward_float(struct lstm_steps s, const float *bias_ih, const float *bias_hh,
                       struct matrix w, struct matrix h)
{
    int one = rows_of_block(s) == 1;
    if (s.hidden <= 64)
        return one ? forward_launch<2, 1>(s, bias_ih, bias_hh, w, h)
                   : forward_launch<2, 2>(s, bias_ih, bias_hh, w, h);
    if (s.hidden <= HIDDEN_MAX)
        return one ? forward_launch<4, 1>(s, bias_ih, bias_hh, w, h)
                   : forward_launch<4, 2>(s, bias_ih, bias_hh, w, h);
    return -1;
}

int lstm_backward_float(struct lstm_steps s, struct matrix w, struct matrix dh, float *dc)
{
    int one = rows_of_block(s) == 1;
    if (s.hidden <= 64)
        return one ? backward_launch<2, 1>(s, w, dh, dc) : backward_launch<2, 2>(s, w, dh, dc);
    if (s.hidden <= HIDDEN_MAX)
        return one ? backward_launch<4, 1>(s, w, dh, dc) : backward_launch<4, 2>(s, w, dh, dc);
    return -1;
}
