/* lstm_narrow.cu - the steps of an LSTM's layer that keeps its numbers in 16 bits, forward, and its
 * weights: lstm_narrow.h says how a block is laid out. A warp makes the sums of its own units out
 * of h of all of them, which goes round by shared memory: one barrier a step.
 */
#include "engine/cuda/lstm_narrow.h"

#include "engine/cuda/lstm_weights.h"

/* ---- weights ---- */

/* W_hh^T: of the h of the warp's quarter, tiles of 16, by 8 tiles of 16 gates' rows, those of the
 * units of its four warps. A lane's 8 of two of them are the gates of units 2 q and 2 q + 1. */
template <int pairs, int kind>
static __device__ __forceinline__ void weights_backward(struct matrix w, uint64_t hidden,
                                                        unsigned warp, unsigned u, unsigned q,
                                                        uint32_t a[pairs / 2][8][4])
{
    UNROLL(2)
    for (int tile = 0; tile < pairs / 2; tile++)
        UNROLL(8)
    for (int k = 0; k < 8; k++)
        UNROLL(4)
    for (int r = 0; r < 4; r++) {
        uint64_t column = warp % TEAM * (8 * pairs) + 16 * tile + u + 8 * (r % 2);
        uint64_t unit = warp / TEAM * (TEAM * UNITS) + UNITS * (k / 2) + 2 * q + k % 2;
        a[tile][k][r] = mma_pack<kind>(weight(w, r / 2 * 2, hidden, unit, column),
                                       weight(w, r / 2 * 2 + 1, hidden, unit, column));
    }
}

/* A block is a warp: the one of that number in the steps' blocks. */
template <int pairs, int kind> __global__ void narrow_weights(struct matrix w, uint16_t *packed)
{
    uint32_t forward[2][2 * pairs][4], backward[pairs / 2][8][4];
    unsigned warp = blockIdx.x, lane = threadIdx.x, u = lane / QUADS, q = lane % QUADS;
    uint4 *f_to = packed_at<pairs>(packed, 0, warp, lane);
    uint4 *b_to = packed_at<pairs>(packed, 1, warp, lane);
    weights_forward<pairs, kind>(w, w.columns, warp * UNITS + u, q, forward);
    weights_backward<pairs, kind>(w, w.columns, warp, u, q, backward);
    UNROLL(16)
    for (int i = 0; i < packed_weights<pairs>::FOURS; i++) {
        const uint32_t *f = forward[i / (2 * pairs)][i % (2 * pairs)], *b = backward[i / 8][i % 8];
        f_to[i * WARP] = {f[0], f[1], f[2], f[3]};
        b_to[i * WARP] = {b[0], b[1], b[2], b[3]};
    }
}

/* ---- forward ---- */

template <int pairs> struct forward_shared {
    float4 sums[AHEAD][block_of<pairs>::THREADS]; /* of the cells' gates, of the steps next */
    uint16_t h_and_c[2][2][ROWS * h_rows<pairs>::STRIDE]; /* after the step before; h and then c */
};

/* The four sums of w_hh h of the lane's cell. */
template <int pairs, int kind>
static __device__ __forceinline__ float4 product_forward(const uint32_t a[2][2 * pairs][4],
                                                         const struct operand<pairs> &h,
                                                         const struct cell &l)
{
    float c[2][4] = {{0}};
    UNROLL(8)
    for (int k = 0; k < 2 * pairs; k++) {
        mma<kind>(c[0], a[0][k], h.at[k / 2] + k % 2 * 2);
        mma<kind>(c[1], a[1][k], h.at[k / 2] + k % 2 * 2);
    }
    return make_float4(column_of(l, c[0]), column_of(l, c[0] + 2), column_of(l, c[1]),
                       column_of(l, c[1] + 2));
}

/* What a thread writes to memory of a step's h or c, which the block has together: 16 bytes, or h
 * as float32. */
struct forward_duty {
    unsigned from; /* in h_and_c of a step */
    uintptr_t to;  /* where that of the step next goes; 0: there is none */
    uint64_t by;   /* bytes from a step to the next one */
    int widens;
};

/* Warps 0 and 1 have h, 2 and 3 c, 4 to 7 h for `out`. */
template <int pairs>
static __device__ __forceinline__ struct forward_duty forward_duty(const struct lstm_narrow &s,
                                                                   const struct lstm_cells &out)
{
    enum { STRIDE = h_rows<pairs>::STRIDE, HALF = 2 * WARP };
    unsigned widens = threadIdx.x >= 2 * HALF, is_c = threadIdx.x / HALF == 1;
    unsigned part = threadIdx.x % (widens ? 2 * HALF : HALF), each = widens ? 4 : 8;
    unsigned row = part * ROWS / (widens ? 2 * HALF : HALF),
             unit = part % (widens ? 32 : 16) * each;
    uint64_t batch_row = (uint64_t)blockIdx.x * ROWS + row;
    struct forward_duty d = {row * STRIDE + unit + is_c * ROWS * STRIDE, 0, 0, (int)widens};
    if (threadIdx.x >= 4 * HALF || batch_row >= s.rows || unit >= s.hidden || (widens && !out.at))
        return d;
    d.by = widens ? out.step * sizeof(float) : s.rows * s.hidden * sizeof(uint16_t);
    d.to = widens ? (uintptr_t)(out.at + batch_row * out.row + unit)
                  : (uintptr_t)((is_c ? s.c : s.h) + batch_row * s.hidden + unit);
    return d;
}

template <int kind>
static __device__ __forceinline__ void duty_do(struct forward_duty *d, const uint16_t *h_and_c)
{
    if (d->to && d->widens) {
        struct packed h = *(const struct packed *)(h_and_c + d->from);
        uint4 wide = {__float_as_uint(half_value<kind>((uint16_t)h.low)),
                      __float_as_uint(half_value<kind>((uint16_t)(h.low >> 16))),
                      __float_as_uint(half_value<kind>((uint16_t)h.high)),
                      __float_as_uint(half_value<kind>((uint16_t)(h.high >> 16)))};
        *(uint4 *)d->to = wide;
    } else if (d->to) {
        *(uint4 *)d->to = *(const uint4 *)(h_and_c + d->from);
    }
    d->to += d->by;
}

template <int pairs, int kind>
__global__ void __launch_bounds__(block_of<pairs>::THREADS, 1)
    narrow_steps(struct lstm_narrow s, const float *sums, const float *bias_ih,
                 const float *bias_hh, const uint16_t *packed, float *c_state,
                 struct lstm_cells out)
{
    enum { H_NUMBERS = ROWS * h_rows<pairs>::STRIDE };
    SHARED_DYNAMIC(float4, dynamic);
    struct forward_shared<pairs> *shared = (struct forward_shared<pairs> *)dynamic;
    uint32_t a[2][2 * pairs][4];
    struct cell l = cell_here(s);
    struct forward_duty duty = forward_duty<pairs>(s, out);
    struct packed *gates_to = (struct packed *)s.gates + l.at;
    struct packed gates = {0, 0};
    const float4 *ahead = (const float4 *)sums + l.at;
    unsigned tells_at = l.row * h_rows<pairs>::STRIDE + l.unit, steps = (unsigned)s.steps;
    unsigned reads_at = l.u % ROWS * h_rows<pairs>::STRIDE + 8 * l.q;
    int mine = l.mine;
    float bias[4], c = 0;
    for (unsigned i = threadIdx.x; i < H_NUMBERS; i += blockDim.x)
        shared->h_and_c[0][0][i] = shared->h_and_c[1][0][i] = 0; /* cells that are not there */
    UNROLL(4)
    for (unsigned k = 0; k < AHEAD; k++)
        shared->sums[k][threadIdx.x] = make_float4(0, 0, 0, 0); /* as well */
    UNROLL(4)
    for (unsigned k = 0; k + 1 < AHEAD; k++, ahead += l.by) {
        if (mine && k < steps)
            copy_begin(&shared->sums[k][threadIdx.x], ahead);
        copy_group();
    }
    UNROLL(16)
    for (int i = 0; i < packed_weights<pairs>::FOURS; i++)
        four_take(packed_at<pairs>(packed, 0, l.warp, l.lane) + i * WARP,
                  a[i / (2 * pairs)][i % (2 * pairs)]);
    UNROLL(4)
    for (int gate = 0; gate < 4; gate++)
        bias[gate] =
            mine ? bias_ih[gate * s.hidden + l.unit] + bias_hh[gate * s.hidden + l.unit] : 0;
    __syncthreads();
    if (mine && !s.begins) {
        c = c_state[l.at];
        shared->h_and_c[0][0][tells_at] = *(s.h + l.at - l.by);
    }
    KEEP(tells_at);
    KEEP(reads_at);
    KEEP(steps);
    KEEP(mine);
    __syncthreads();
    for (unsigned k = 0; k < steps; k++) {
        copy_wait<AHEAD - 2>();
        struct operand<pairs> b = operand_read<pairs>(shared->h_and_c[k % 2][0] + reads_at, 64);
        float4 x = shared->sums[k % AHEAD][threadIdx.x];
        if (mine && k)
            gates_to[-(int64_t)l.by] = gates;
        if (k)
            duty_do<kind>(&duty, shared->h_and_c[k % 2][0]);
        if (mine && k + AHEAD - 1 < steps)
            copy_begin(&shared->sums[(k + AHEAD - 1) % AHEAD][threadIdx.x], ahead);
        copy_group();
        ahead += l.by;
        float4 r = product_forward<pairs, kind>(a, b, l);
        struct scalar_lstm made = scalar_lstm(x.x + r.x + bias[0], x.y + r.y + bias[1],
                                              x.z + r.z + bias[2], x.w + r.w + bias[3], c);
        c = made.c;
        if (mine) {
            shared->h_and_c[(k + 1) % 2][0][tells_at] = half_bits<kind>(made.h);
            shared->h_and_c[(k + 1) % 2][1][tells_at] = half_bits<kind>(c);
        }
        gates = gates_pack<kind>(made.i, made.f, made.g, made.o);
        gates_to += l.by;
        __syncthreads();
    }
    duty_do<kind>(&duty, shared->h_and_c[steps % 2][0]);
    if (!mine)
        return;
    gates_to[-(int64_t)l.by] = gates;
    c_state[l.at] = c;
}

/* ---- launches ---- */

template <int pairs, int kind>
static void forward(const struct lstm_narrow &s, const float *sums, const float *bias_ih,
                    const float *bias_hh, const uint16_t *packed, float *c, struct lstm_cells out)
{
    uint64_t bytes = sizeof(struct forward_shared<pairs>);
    ensure(SHARED_ALLOW((narrow_steps<pairs, kind>), bytes));
    LAUNCH_SHARED((narrow_steps<pairs, kind>), blocks_of(s), block_of<pairs>::THREADS, bytes, s,
                  sums, bias_ih, bias_hh, packed, c, out);
}

template <int pairs, int kind> static void weights(struct matrix w, uint16_t *packed)
{
    LAUNCH((narrow_weights<pairs, kind>), block_of<pairs>::WARPS, WARP, w, packed);
}

void cuda_lstm_narrow_weights(enum half kind, struct matrix w_hh, uint16_t *packed)
{
    WITH_KIND(weights, w_hh.columns, kind, w_hh, packed);
}

void cuda_lstm_narrow_forward(struct lstm_narrow s, const float *sums, const float *bias_ih,
                              const float *bias_hh, const uint16_t *packed, float *c,
                              struct lstm_cells out)
{
    WITH_KIND(forward, s.hidden, s.half, s, sums, bias_ih, bias_hh, packed, c, out);
}
