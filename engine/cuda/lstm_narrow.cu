/* lstm_narrow.cu - the steps of an LSTM's layer that keeps all of its numbers in 16 bits.
 *
 * A block has ROWS rows of the batch and all hidden units, 8 of them a warp, for all steps: rows do
 * not need one another, so that blocks never wait for each other. W_hh stays in the registers of
 * its warps as operands of the tensor cores (engine/cuda/mma.h), whose 8 columns are the block's
 * rows, as often as they fit. A lane has one cell: of unit lane / 4 of its warp one row, with all
 * four of the gates, which lie together in memory. With four rows every lane of a warp has another
 * cell, and a layer takes a quarter as many multiprocessors as there are rows: another layer, and
 * the products of both, have the rest.
 *
 * Forward a warp makes the sums of its own units out of h of all of them, which goes round by
 * shared memory: one barrier a step. Backward a warp multiplies its own units' gradients with
 * their weights for the h of all units, and the warps' parts are added up by shared memory: again
 * one barrier a step. What a step reads of memory is asked for before.
 */
#include <stdlib.h>

#include "engine/cuda/lstm_weights.h"

enum { UNITS = 8, QUADS = 4, WARPS_MAX = LSTM_NARROW_HIDDEN_MAX / UNITS, AHEAD = 3 };
enum { THREADS_MAX = WARPS_MAX * WARP };

/* What a thread computes once, where the compiler would do it anew each step. */
#ifdef __CUDA_ARCH__
#define KEEP(x) asm volatile("" : "+r"(x))
#else
#define KEEP(x) ((void)(x))
#endif

/* Four gates of 16 bits: i and f, g and o. */
struct __align__(8) packed_gates
{
    uint32_t low, high;
};

/* W_hh^T of the warp's units: tiles of 16 of h by two of 16 gates' rows, of which a lane's 8 are
 * the gates of units 2 q and 2 q + 1. */
template <int pairs, int kind>
static __device__ __forceinline__ void weights_backward(struct matrix w, uint64_t hidden,
                                                        unsigned warp, unsigned u, unsigned q,
                                                        uint32_t a[2 * pairs][2][4])
{
    UNROLL(8)
    for (int tile = 0; tile < 2 * pairs; tile++)
        UNROLL(2)
    for (int step = 0; step < 2; step++)
        UNROLL(4)
    for (int k = 0; k < 4; k++) {
        uint64_t column = 16 * tile + u + 8 * (k % 2);
        uint64_t unit = warp * UNITS + 2 * q + step;
        a[tile][step][k] = mma_pack<kind>(weight(w, 2 * (k / 2), hidden, unit, column),
                                          weight(w, 2 * (k / 2) + 1, hidden, unit, column));
    }
}

/* Registers of a lane, four at a time: those of a warp lie together, forward's and then, from
 * `numbers` numbers on, backward's. */
template <int pairs> struct packed_weights {
    enum { FOURS = 4 * pairs, NUMBERS = 4 * pairs * FOURS * WARP * 8 };
};

template <int pairs>
static __device__ __forceinline__ uint4 *packed_at(const uint16_t *packed, int backward,
                                                   unsigned warp, unsigned lane)
{
    typedef struct packed_weights<pairs> size;
    return (uint4 *)(packed + backward * size::NUMBERS) + warp * size::FOURS * WARP + lane;
}

/* A block is a warp: the one of that number in the steps' blocks. */
template <int pairs, int kind> __global__ void narrow_weights(struct matrix w, uint16_t *packed)
{
    uint32_t forward[2][2 * pairs][4], backward[2 * pairs][2][4];
    unsigned warp = blockIdx.x, lane = threadIdx.x, u = lane / QUADS, q = lane % QUADS;
    uint4 *to = packed_at<pairs>(packed, 0, warp, lane);
    weights_forward<pairs, kind>(w, w.columns, warp * UNITS + u, q, forward);
    weights_backward<pairs, kind>(w, w.columns, warp, u, q, backward);
    UNROLL(16)
    for (int i = 0; i < packed_weights<pairs>::FOURS; i++) {
        const uint32_t *f = forward[i / (2 * pairs)][i % (2 * pairs)], *b = backward[i / 2][i % 2];
        to[i * WARP] = {f[0], f[1], f[2], f[3]};
        to[i * WARP + packed_weights<pairs>::NUMBERS / 8] = {b[0], b[1], b[2], b[3]};
    }
}

/* Where a lane is. */
template <int rows> struct cell {
    unsigned warp, u, q;
    unsigned row, column; /* of the block, and which of the lane's two columns of a product it is */
    int tells;            /* no other lane has the cell, or this is the one that writes it */
    uint64_t unit, at, by; /* its number in [rows, hidden], and that of a step's cells */
    int mine;              /* there is such a cell */
};

template <int rows>
static __device__ __forceinline__ struct cell<rows> cell_here(const struct lstm_narrow &s) {
    struct cell<rows> l;
    l.warp = threadIdx.x / WARP;
    l.u = threadIdx.x % WARP / QUADS;
    l.q = threadIdx.x % QUADS;
    /* of the product's columns 2 q and 2 q + 1 each is row column % rows */
    l.column = rows == 4 ? l.q / 2 : rows == 2 ? l.q % 2 : 0;
    l.row = (2 * l.q + l.column) % rows;
    l.tells = l.q < rows;
    l.unit = l.warp * UNITS + l.u;
    uint64_t row = (uint64_t)blockIdx.x * rows + l.row;
    l.at = row * s.hidden + l.unit;
    l.by = s.rows * s.hidden;
    l.mine = l.unit < s.hidden && row < s.rows;
    return l;
}

template <int kind>
static __device__ __forceinline__ struct packed_gates gates_pack(float i, float f, float g, float o)
{
    return {mma_pack<kind>(i, f), mma_pack<kind>(g, o)};
}

/* The gates' functions. Those of bfloat16, which has 8 bits, are by the instruction for tanh, whose
 * relative error is 2^-11 at most. */
template <int fast> static __device__ __forceinline__ float gate_tanh(float x)
{
#ifdef __CUDA_ARCH__
    if (fast) {
        float y;
        asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
        return y;
    }
#endif
    return scalar_tanh(x);
}

template <int fast> static __device__ __forceinline__ float gate_sigmoid(float x)
{
#ifdef __CUDA_ARCH__
    if (fast)
        return fmaf(0.5f, gate_tanh<fast>(0.5f * x), 0.5f);
#endif
    return scalar_sigmoid(x);
}

/* scalar_lstm by these. */
template <int fast>
static __device__ __forceinline__ struct scalar_lstm cell_forward(float i, float f, float g,
                                                                  float o, float c_before)
{
    struct scalar_lstm s;
    s.i = gate_sigmoid<fast>(i);
    s.f = gate_sigmoid<fast>(f);
    s.g = gate_tanh<fast>(g);
    s.o = gate_sigmoid<fast>(o);
    s.c = scalar_lstm_c(s.i, s.f, s.g, c_before);
    s.h = s.o * gate_tanh<fast>(s.c);
    return s;
}

/* Column l.column of a product's 8, of the 16 rows of which a lane has two. */
template <int rows>
static __device__ __forceinline__ float column_of(const struct cell<rows> &l, const float two[2])
{
    return rows == 1 ? two[0] : l.column ? two[1] : two[0];
}

/* The four sums of w_hh h of the lane's cell; row: what the lane reads of h. */
template <int pairs, int rows, int kind>
static __device__ __forceinline__ float4 product_forward(const uint32_t a[2][2 * pairs][4],
                                                         const uint16_t *row,
                                                         const struct cell<rows> &l)
{
    float c[2][4] = {{0}};
    UNROLL(4)
    for (int pair = 0; pair < pairs; pair++) {
        uint4 four = *(const uint4 *)(row + 32 * pair);
        uint32_t b[2][2] = {{four.x, four.y}, {four.z, four.w}};
        UNROLL(2)
        for (int step = 0; step < 2; step++) {
            mma<kind>(c[0], a[0][2 * pair + step], b[step]);
            mma<kind>(c[1], a[1][2 * pair + step], b[step]);
        }
    }
    return make_float4(column_of<rows>(l, c[0]), column_of<rows>(l, c[0] + 2),
                       column_of<rows>(l, c[1]), column_of<rows>(l, c[1] + 2));
}

template <int pairs, int rows, int kind, int fast>
__global__ void __launch_bounds__(THREADS_MAX, 1)
    narrow_forward(struct lstm_narrow s, const float *sums, const float *bias_ih,
                   const float *bias_hh, const uint16_t *packed, float *c_state,
                   struct lstm_cells out)
{
    __shared__ __align__(16) uint16_t all[2][rows * h_rows<pairs>::STRIDE];
    uint32_t a[2][2 * pairs][4];
    struct cell<rows> l = cell_here<rows>(s);
    float bias[4], c = 0;
    float4 x[AHEAD];
    const float4 *ahead = (const float4 *)sums + l.at;
    uint16_t h = 0, *h_to = s.h + l.at, *c_to = s.c + l.at;
    struct packed_gates *gates_to = (struct packed_gates *)s.gates + l.at;
    unsigned tells_at = l.row * h_rows<pairs>::STRIDE + l.unit;
    unsigned reads_at = l.u % rows * h_rows<pairs>::STRIDE + 8 * l.q;
    int mine = l.mine, tells = l.mine && l.tells;
    float *out_to = out.at + ((uint64_t)blockIdx.x * rows + l.row) * out.row + l.unit;
    for (unsigned i = threadIdx.x; i < rows * h_rows<pairs>::STRIDE; i += blockDim.x)
        all[0][i] = all[1][i] = 0; /* units and rows that are not there */
    const uint4 *weights = packed_at<pairs>(packed, 0, l.warp, threadIdx.x % WARP);
    UNROLL(16)
    for (int i = 0; i < packed_weights<pairs>::FOURS; i++) {
        uint4 four = weights[i * WARP];
        uint32_t *to = a[i / (2 * pairs)][i % (2 * pairs)];
        to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
    }
    UNROLL(4)
    for (int gate = 0; gate < 4; gate++)
        bias[gate] =
            l.mine ? bias_ih[gate * s.hidden + l.unit] + bias_hh[gate * s.hidden + l.unit] : 0;
    UNROLL(AHEAD)
    for (unsigned k = 0; k < AHEAD; k++, ahead += l.by)
        x[k] = l.mine && k < s.steps ? *ahead : make_float4(0, 0, 0, 0);
    if (l.mine && !s.begins) {
        c = c_state[l.at];
        h = *(h_to - l.by);
    }
    KEEP(tells_at);
    KEEP(reads_at);
    KEEP(mine);
    KEEP(tells);
    __syncthreads();
    for (unsigned k = 0; k < (unsigned)s.steps; k++) {
        uint16_t *now = all[k % 2];
        if (tells)
            now[tells_at] = h;
        __syncthreads();
        float4 r = product_forward<pairs, rows, kind>(a, now + reads_at, l);
        struct scalar_lstm made =
            cell_forward<fast>(x[0].x + r.x + bias[0], x[0].y + r.y + bias[1],
                               x[0].z + r.z + bias[2], x[0].w + r.w + bias[3], c);
        UNROLL(AHEAD)
        for (int next = 0; next + 1 < AHEAD; next++)
            x[next] = x[next + 1];
        if (mine && k + AHEAD < (unsigned)s.steps)
            x[AHEAD - 1] = *ahead;
        ahead += l.by;
        c = made.c;
        h = half_bits<kind>(made.h);
        if (tells) {
            *gates_to = gates_pack<kind>(made.i, made.f, made.g, made.o);
            *c_to = half_bits<kind>(c);
            *h_to = h;
            if (out.at)
                *out_to = half_value<kind>(h);
        }
        gates_to += l.by, c_to += l.by, h_to += l.by, out_to += out.step;
    }
    if (tells)
        c_state[l.at] = c;
}

/* The warp's part [hidden][rows] of the gradient at h, of which the lane writes every 8th row from
 * `to` on, from its units' gradients, of which it reads `d` on. */
template <int pairs, int rows, int kind>
static __device__ __forceinline__ void product_backward(const uint32_t a[2 * pairs][2][4],
                                                        const struct packed_gates *d,
                                                        const struct cell<rows> &l, float *to)
{
    uint4 four = *(const uint4 *)d;
    uint32_t b[2][2] = {{four.x, four.y}, {four.z, four.w}};
    UNROLL(8)
    for (int tile = 0; tile < 2 * pairs; tile++) {
        float c[4] = {0};
        mma<kind>(c, a[tile][0], b[0]);
        mma<kind>(c, a[tile][1], b[1]);
        if (l.tells) {
            to[16 * tile * rows] = column_of<rows>(l, c);
            to[(16 * tile + 8) * rows] = column_of<rows>(l, c + 2);
        }
    }
}

/* The sum of all warps' parts, each from the number of the lane's cell on. */
template <int pairs, int rows>
static __device__ __forceinline__ float parts_sum(const float *parts, const struct cell<rows> &l)
{
    enum { PART = 32 * pairs * rows, SHARES = QUADS / rows };
    enum { TOGETHER = 4 / SHARES };
    float sums[TOGETHER] = {0};
    const float *at = parts + l.q / rows * PART;
    UNROLL(16)
    for (int w = 0; w < 4 * pairs; w += SHARES)
        sums[w / SHARES % TOGETHER] += at[w * PART];
    UNROLL(2)
    for (int k = TOGETHER / 2; k > 0; k /= 2)
        for (int i = 0; i < k; i++)
            sums[i] += sums[i + k];
    UNROLL(2)
    for (int lanes = rows; lanes < QUADS; lanes *= 2)
        sums[0] += __shfl_xor_sync(0xffffffffu, sums[0], lanes);
    return sums[0];
}

/* What a step reads. */
struct narrow_values {
    struct packed_gates gates;
    uint16_t c;
    float dh;
};

template <int kind, int fast>
static __device__ __forceinline__ struct scalar_lstm_slopes slopes_of(const struct narrow_values &v)
{
    return scalar_lstm_slopes_with(
        half_value<kind>((uint16_t)v.gates.low), half_value<kind>((uint16_t)(v.gates.low >> 16)),
        half_value<kind>((uint16_t)v.gates.high), half_value<kind>((uint16_t)(v.gates.high >> 16)),
        gate_tanh<fast>(half_value<kind>(v.c)), 0);
}

/* Shared memory of the backward kernel: the parts of two steps, and the warps' gradients. */
template <int pairs, int rows> struct backward_shared {
    float parts[2][4 * pairs * 32 * pairs * rows];
    struct packed_gates gradients[4 * pairs][rows * UNITS];
};

template <int pairs, int rows, int kind, int fast>
__global__ void __launch_bounds__(THREADS_MAX, 1)
    narrow_backward(struct lstm_narrow s, const uint16_t *packed, struct lstm_cells dh,
                    float *dc_state, float *dr_state, float *sums)
{
    enum { PART = 32 * pairs * rows };
    SHARED_DYNAMIC(float4, dynamic);
    struct backward_shared<pairs, rows> *shared = (struct backward_shared<pairs, rows> *)dynamic;
    uint32_t a[2 * pairs][2][4];
    struct cell<rows> l = cell_here<rows>(s);
    struct packed_gates *gradients = shared->gradients[l.warp];
    int mine = l.mine, tells = l.mine && l.tells;
    unsigned tells_at = l.row * UNITS + l.u, reads_at = l.u % rows * UNITS + 2 * l.q;
    unsigned part_at = l.warp * PART + l.u * rows + l.row, sum_at = l.unit * rows + l.row;
    struct packed_gates *gates = (struct packed_gates *)s.gates + l.at + (s.steps - 1) * l.by;
    const uint16_t *c = s.c + l.at + (s.steps - 1) * l.by;
    const float *dh_from =
        dh.at + (s.steps - 1) * dh.step + ((uint64_t)blockIdx.x * rows + l.row) * dh.row + l.unit;
    struct narrow_values next = {{0, 0}, 0, 0};
    float dc = 0, recurrent = 0, total[4] = {0};
    for (unsigned i = threadIdx.x; i < 4 * pairs * PART; i += blockDim.x)
        shared->parts[0][i] = shared->parts[1][i] = 0; /* of warps that are not there */
    const uint4 *weights = packed_at<pairs>(packed, 1, l.warp, threadIdx.x % WARP);
    UNROLL(16)
    for (int i = 0; i < packed_weights<pairs>::FOURS; i++) {
        uint4 four = weights[i * WARP];
        uint32_t *to = a[i / 2][i % 2];
        to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
    }
    if (mine) {
        next = {*gates, *c, *dh_from};
        dc = dc_state[l.at];
        recurrent = dr_state[l.at];
    }
    struct scalar_lstm_slopes now = slopes_of<kind, fast>(next);
    float dh_now = next.dh;
    KEEP(mine);
    KEEP(tells);
    KEEP(tells_at);
    KEEP(reads_at);
    KEEP(part_at);
    KEEP(sum_at);
    __syncthreads();
    for (unsigned k = (unsigned)s.steps; k-- > 0;) {
        struct packed_gates *to = gates;
        gates -= l.by, c -= l.by, dh_from -= dh.step;
        next.c = 0;
        if (mine && k)
            next = {*gates, *c, *dh_from};
        else if (mine && !s.begins)
            next.c = *c;
        now.c_before = half_value<kind>(next.c);
        struct scalar_lstm d = scalar_lstm_backward(&now, dh_now + recurrent, dc);
        struct packed_gates own = gates_pack<kind>(d.i, d.f, d.g, d.o);
        dc = d.c;
        total[0] += d.i, total[1] += d.f, total[2] += d.g, total[3] += d.o;
        if (l.tells)
            gradients[tells_at] = own;
        __syncwarp();
        float *parts = shared->parts[k % 2];
        product_backward<pairs, rows, kind>(a, gradients + reads_at, l, parts + part_at);
        if (tells)
            *to = own;
        now = slopes_of<kind, fast>(next);
        dh_now = next.dh;
        __syncthreads();
        recurrent = parts_sum<pairs, rows>(parts + sum_at, l);
    }
    if (!tells)
        return;
    dc_state[l.at] = dc;
    dr_state[l.at] = recurrent;
    UNROLL(4)
    for (int gate = 0; gate < 4; gate++)
        sums[4 * (l.at - l.unit) + gate * s.hidden + l.unit] += total[gate];
}

struct narrow_launch {
    unsigned blocks, threads;
};

template <int rows> static struct narrow_launch launch_of(const struct lstm_narrow &s)
{
    return {(unsigned)((s.rows + rows - 1) / rows),
            (unsigned)((s.hidden + UNITS - 1) / UNITS) * WARP};
}

template <int pairs, int rows, int kind, int fast>
static void forward(const struct lstm_narrow &s, const float *sums, const float *bias_ih,
                    const float *bias_hh, const uint16_t *packed, float *c, struct lstm_cells out)
{
    struct narrow_launch n = launch_of<rows>(s);
    LAUNCH((narrow_forward<pairs, rows, kind, fast>), n.blocks, n.threads, s, sums, bias_ih,
           bias_hh, packed, c, out);
}

template <int pairs, int rows, int kind, int fast>
static void backward(const struct lstm_narrow &s, const uint16_t *packed, struct lstm_cells dh,
                     float *dc, float *dr, float *sums)
{
    struct narrow_launch n = launch_of<rows>(s);
    uint64_t bytes = sizeof(struct backward_shared<pairs, rows>);
    ensure(SHARED_ALLOW((narrow_backward<pairs, rows, kind, fast>), bytes));
    LAUNCH_SHARED((narrow_backward<pairs, rows, kind, fast>), n.blocks, n.threads, bytes, s, packed,
                  dh, dc, dr, sums);
}

/* The one of `run` that has room for the hidden units. */
#define WITH_PAIRS(run, s, rows, kind, ...)                                                        \
    do {                                                                                           \
        if ((s).hidden <= 64)                                                                      \
            run<2, rows, kind, kind == HALF_BF16>(s, __VA_ARGS__);                                 \
        else if (rows == 4 && is_exact())                                                          \
            run<4, rows, kind, 0>(s, __VA_ARGS__);                                                 \
        else                                                                                       \
            run<4, rows, kind, kind == HALF_BF16>(s, __VA_ARGS__);                                 \
    } while (0)
#define WITH_KIND(run, s, rows, ...)                                                               \
    do {                                                                                           \
        if ((s).half == HALF_BF16)                                                                 \
            WITH_PAIRS(run, s, rows, HALF_BF16, __VA_ARGS__);                                      \
        else                                                                                       \
            WITH_PAIRS(run, s, rows, HALF_F16, __VA_ARGS__);                                       \
    } while (0)
#define WITH_ROWS(run, s, ...)                                                                     \
    do {                                                                                           \
        if (rows_of_block() == 4)                                                                  \
            WITH_KIND(run, s, 4, __VA_ARGS__);                                                     \
        else if (rows_of_block() == 2)                                                             \
            WITH_KIND(run, s, 2, __VA_ARGS__);                                                     \
        else                                                                                       \
            WITH_KIND(run, s, 1, __VA_ARGS__);                                                     \
    } while (0)

static int is_exact(void)
{
    return getenv("LSTM_EXACT") != NULL;
}

static int rows_of_block(void)
{
    const char *given = getenv("LSTM_ROWS");
    return given ? atoi(given) : 4;
}

template <int kind> static void weights_pack(struct matrix w, uint16_t *packed)
{
    if (w.columns <= LSTM_NARROW_HIDDEN_MAX / 2)
        LAUNCH((narrow_weights<2, kind>), 8, WARP, w, packed);
    else
        LAUNCH((narrow_weights<4, kind>), 16, WARP, w, packed);
}

void cuda_lstm_narrow_weights(enum half kind, struct matrix w_hh, uint16_t *packed)
{
    if (kind == HALF_BF16)
        weights_pack<HALF_BF16>(w_hh, packed);
    else
        weights_pack<HALF_F16>(w_hh, packed);
}

void cuda_lstm_narrow_forward(struct lstm_narrow s, const float *sums, const float *bias_ih,
                              const float *bias_hh, const uint16_t *packed, float *c,
                              struct lstm_cells out)
{
    WITH_ROWS(forward, s, sums, bias_ih, bias_hh, packed, c, out);
}

void cuda_lstm_narrow_backward(struct lstm_narrow s, const uint16_t *packed, struct lstm_cells dh,
                               float *dc, float *dr, float *sums)
{
    WITH_ROWS(backward, s, packed, dh, dc, dr, sums);
}
