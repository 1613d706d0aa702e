/* lstm_narrow.cu - the steps of an LSTM's layer that keeps all of its numbers in 16 bits.
 *
 * A block has ROWS rows of the batch and all hidden units, 8 of them a warp, for all steps: rows do
 * not need one another, so that blocks never wait for each other. W_hh stays in the registers of
 * its warps as operands of the tensor cores (engine/cuda/mma.h), whose 8 columns are the block's
 * rows twice. A lane has one cell: of unit lane / 4 of its warp one row, with all four of the
 * gates, which lie together in memory. A layer takes a quarter as many multiprocessors as there are
 * rows: another layer, and the products of both, have the rest.
 *
 * A step is a chain of a few hundred cycles, and the steps are one behind the other: what does not
 * belong to the chain goes where the chain waits. Numbers that a step reads are copied to shared
 * memory some steps before, those that it leaves are written while the next one's product is on its
 * way. Forward a warp makes the sums of its own units out of h of all of them, which goes round by
 * shared memory: one barrier a step. Backward four warps tell each other their 32 units' gradients
 * and multiply them with their weights for a quarter of h each; the parts that come from different
 * units are added up behind the block's barrier.
 */
#include <limits.h>

#include "engine/cuda/copies.h"
#include "engine/cuda/lstm_weights.h"

enum { UNITS = 8, QUADS = 4, ROWS = 4, TEAM = 4, AHEAD = 4 };

/* What a thread computes once, where the compiler would do it anew each step. */
#ifdef __CUDA_ARCH__
#define KEEP(x) asm volatile("" : "+r"(x))
#else
#define KEEP(x) ((void)(x))
#endif

/* Four numbers of 16 bits; of gates i and f, g and o. */
struct __align__(8) packed
{
    uint32_t low, high;
};

/* Warps and threads of a block, whose units are 32 pairs. */
template <int pairs> struct block_of {
    enum { WARPS = 4 * pairs, THREADS = WARPS * WARP, HIDDEN = 32 * pairs };
};

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

/* Registers of a lane, four at a time: those of a warp lie together, forward's and then backward's.
 */
template <int pairs> struct packed_weights {
    enum { FOURS = 4 * pairs, ALL = block_of<pairs>::WARPS * FOURS * WARP };
};

template <int pairs>
static __device__ __forceinline__ uint4 *packed_at(const uint16_t *packed, int backward,
                                                   unsigned warp, unsigned lane)
{
    typedef struct packed_weights<pairs> size;
    return (uint4 *)packed + backward * size::ALL + warp * size::FOURS * WARP + lane;
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

static __device__ __forceinline__ void four_take(const uint4 *from, uint32_t to[4])
{
    uint4 four = *from;
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}

/* ---- cells ---- */

/* Where a lane is. */
struct cell {
    unsigned warp, lane, u, q;
    unsigned row, column; /* of the block, and which of the lane's two columns of a product it is */
    uint64_t unit, batch_row, at, by; /* at: its number in [rows, hidden]; by: those of a step */
    int mine;                         /* there is such a cell */
};

static __device__ __forceinline__ struct cell cell_here(const struct lstm_narrow &s)
{
    struct cell l;
    l.warp = threadIdx.x / WARP;
    l.lane = threadIdx.x % WARP;
    l.u = l.lane / QUADS;
    l.q = l.lane % QUADS;
    l.column = l.q / 2; /* of columns 2 q and 2 q + 1, each of which is row column % ROWS */
    l.row = (2 * l.q + l.column) % ROWS;
    l.unit = l.warp * UNITS + l.u;
    l.batch_row = (uint64_t)blockIdx.x * ROWS + l.row;
    l.at = l.batch_row * s.hidden + l.unit;
    l.by = s.rows * s.hidden;
    l.mine = l.unit < s.hidden && l.batch_row < s.rows;
    return l;
}

template <int kind>
static __device__ __forceinline__ struct packed gates_pack(float i, float f, float g, float o)
{
    return {mma_pack<kind>(i, f), mma_pack<kind>(g, o)};
}

/* The lane's column, of the two of a row that it has. */
static __device__ __forceinline__ float column_of(const struct cell &l, const float two[2])
{
    return l.column ? two[1] : two[0];
}

/* The gates' functions. Those of bfloat16, which rounds to 2^-9, are by the instruction for tanh,
 * whose relative error is 2^-11 at most. */
template <int kind> static __device__ __forceinline__ float gate_tanh(float x)
{
#ifdef __CUDA_ARCH__
    if (kind == HALF_BF16) {
        float y;
        asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
        return y;
    }
#endif
    return scalar_tanh(x);
}

template <int kind> static __device__ __forceinline__ float gate_sigmoid(float x)
{
#ifdef __CUDA_ARCH__
    if (kind == HALF_BF16)
        return fmaf(0.5f, gate_tanh<kind>(0.5f * x), 0.5f);
#endif
    return scalar_sigmoid(x);
}

/* scalar_lstm by these. */
template <int kind>
static __device__ __forceinline__ struct scalar_lstm cell_forward(float i, float f, float g,
                                                                  float o, float c_before)
{
    struct scalar_lstm s;
    s.i = gate_sigmoid<kind>(i);
    s.f = gate_sigmoid<kind>(f);
    s.g = gate_tanh<kind>(g);
    s.o = gate_sigmoid<kind>(o);
    s.c = scalar_lstm_c(s.i, s.f, s.g, c_before);
    s.h = s.o * gate_tanh<kind>(s.c);
    return s;
}

/* ---- forward ---- */

template <int pairs> struct forward_shared {
    float4 sums[AHEAD][block_of<pairs>::THREADS]; /* of the cells' gates, of the steps next */
    uint16_t h_and_c[2][2][ROWS * h_rows<pairs>::STRIDE]; /* after the step before; h and then c */
};

/* What a lane reads of the operand that all warps have in common, four numbers of 32 bits each. */
template <int fours> struct operand {
    uint32_t at[fours][4];
};

template <int fours>
static __device__ __forceinline__ struct operand<fours> operand_read(const void *from,
                                                                     unsigned bytes_apart) {
    struct operand<fours> b;
    UNROLL(4)
    for (int i = 0; i < fours; i++)
        four_take((const uint4 *)((const char *)from + i * bytes_apart), b.at[i]);
    return b;
}

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
    narrow_forward(struct lstm_narrow s, const float *sums, const float *bias_ih,
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
        struct scalar_lstm made = cell_forward<kind>(x.x + r.x + bias[0], x.y + r.y + bias[1],
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

/* ---- backward ---- */

/* What a step reads of a warp's cells, as it is copied: the gates, dh, and c of the step before. */
struct narrow_record {
    struct packed gates[ROWS][UNITS];
    float dh[ROWS][UNITS];
    uint16_t c_before[ROWS][UNITS];
    uint16_t unused[ROWS][UNITS];
};
static_assert(sizeof(struct narrow_record) == 16 * WARP, "16 bytes a lane");

template <int pairs> struct backward_shared {
    struct narrow_record ahead[AHEAD][block_of<pairs>::WARPS];
    float parts[2][pairs][block_of<pairs>::HIDDEN][ROWS];
    /* rows in different banks */
    struct packed gradients[ROWS][block_of<pairs>::HIDDEN + UNITS];
};

/* Where a lane's 16 bytes of a record come from: of step `least` and those behind it. */
struct record_source {
    uintptr_t at;
    int64_t by; /* bytes from a step to the next one */
    int least;
};

static __device__ __forceinline__ struct record_source
record_source(const struct lstm_narrow &s, const struct lstm_cells &dh, const struct cell &l)
{
    enum { GATES = 16, DH = 24, ALL = 28 }; /* lanes before the next part */
    unsigned row = l.lane < GATES ? l.lane / 4 : l.lane < DH ? l.lane % 8 / 2 : l.lane % 4;
    uint64_t batch_row = (uint64_t)blockIdx.x * ROWS + row, unit = l.warp * UNITS;
    uint64_t at = batch_row * s.hidden + unit, last = s.steps - 1;
    struct record_source from = {0, 0, INT_MAX};
    if (l.lane >= ALL || batch_row >= s.rows || unit >= s.hidden)
        return from;
    from.least = 0;
    if (l.lane < GATES) {
        from.by = (int64_t)(l.by * sizeof(struct packed));
        from.at = (uintptr_t)((const struct packed *)s.gates + at + l.lane % 4 * 2);
    } else if (l.lane < DH) {
        from.by = (int64_t)(dh.step * sizeof(float));
        from.at = (uintptr_t)(dh.at + batch_row * dh.row + unit + l.lane % 2 * 4);
    } else {
        from.by = (int64_t)(l.by * sizeof(uint16_t));
        from.at = (uintptr_t)(s.c + at) - (uintptr_t)from.by;
        from.least = s.begins; /* 0 is read then */
    }
    from.at += last * (uintptr_t)from.by;
    return from;
}

/* Of step k. */
static __device__ __forceinline__ void record_copy(struct narrow_record *to, int k,
                                                   const struct cell &l, struct record_source *from)
{
    if (k >= from->least)
        copy_begin((uint4 *)to + l.lane, (const void *)from->at);
    from->at -= (uintptr_t)from->by;
    copy_group();
}

/* The warp's parts of the gradient at h, of which the lane writes every 8th unit from `to` on. d:
 * the gradients of its four warps. */
template <int pairs, int kind>
static __device__ __forceinline__ void product_backward(const uint32_t a[pairs / 2][8][4],
                                                        const struct operand<TEAM> &d,
                                                        const struct cell &l, float *to)
{
    float c[pairs / 2][4] = {{0}};
    UNROLL(8)
    for (int k = 0; k < 2 * TEAM; k++)
        UNROLL(2)
    for (int tile = 0; tile < pairs / 2; tile++)
        mma<kind>(c[tile], a[tile][k], d.at[k / 2] + k % 2 * 2);
    UNROLL(2)
    for (int tile = 0; tile < pairs / 2; tile++) {
        to[16 * tile * ROWS] = column_of(l, c[tile]);
        to[(16 * tile + 8) * ROWS] = column_of(l, c[tile] + 2);
    }
}

/* Among the four warps of a team. */
static __device__ __forceinline__ void team_wait(const struct cell &l)
{
#ifdef __CUDA_ARCH__
    asm volatile("bar.sync %0, %1;" ::"r"(1 + l.warp / TEAM), "n"(TEAM * WARP) : "memory");
#else
    (void)l;
    __syncthreads();
#endif
}

/* What a step needs that waits for none behind it. */
struct backward_ready {
    struct scalar_lstm_slopes slopes;
    float dh;
};

/* begins: it is the first step, and no c is before it. *c: c of the step, and then that. */
template <int kind>
static __device__ __forceinline__ struct backward_ready
record_read(const struct narrow_record *r, const struct cell &l, int begins, float *c)
{
    struct packed g = r->gates[l.row][l.u];
    struct backward_ready b;
    float before = begins ? 0 : half_value<kind>(r->c_before[l.row][l.u]);
    b.slopes = scalar_lstm_slopes_with(
        half_value<kind>((uint16_t)g.low), half_value<kind>((uint16_t)(g.low >> 16)),
        half_value<kind>((uint16_t)g.high), half_value<kind>((uint16_t)(g.high >> 16)),
        gate_tanh<kind>(*c), before);
    b.dh = r->dh[l.row][l.u];
    *c = before;
    return b;
}

template <int pairs, int kind>
__global__ void __launch_bounds__(block_of<pairs>::THREADS, 1)
    narrow_backward(struct lstm_narrow s, const uint16_t *packed, struct lstm_cells dh,
                    float *dc_state, float *dr_state, float *sums)
{
    SHARED_DYNAMIC(float4, dynamic);
    struct backward_shared<pairs> *shared = (struct backward_shared<pairs> *)dynamic;
    uint32_t a[pairs / 2][8][4];
    struct cell l = cell_here(s);
    struct record_source from = record_source(s, dh, l);
    struct packed *to = (struct packed *)s.gates + l.at + (s.steps - 1) * l.by;
    struct packed *tells = &shared->gradients[l.row][l.unit];
    const struct packed *reads =
        &shared->gradients[l.u % ROWS][l.warp / TEAM * (TEAM * UNITS) + 2 * l.q];
    float *part = &shared->parts[0][l.warp / TEAM][l.warp % TEAM * (8 * pairs) + l.u][l.row];
    const float *whole = &shared->parts[0][0][l.unit][l.row];
    float c = 0, dc = 0, recurrent = 0, total[4] = {0};
    int mine = l.mine, steps = (int)s.steps, begins = s.begins;
    UNROLL(4)
    for (int k = 0; k < AHEAD; k++) /* cells that are not there */
        ((uint4 *)&shared->ahead[k][l.warp])[l.lane] = {0, 0, 0, 0};
    UNROLL(4)
    for (int k = 1; k <= AHEAD; k++)
        record_copy(&shared->ahead[(AHEAD - k) % AHEAD][l.warp], steps - k, l, &from);
    UNROLL(16)
    for (int i = 0; i < packed_weights<pairs>::FOURS; i++)
        four_take(packed_at<pairs>(packed, 1, l.warp, l.lane) + i * WARP, a[i / 8][i % 8]);
    if (mine) {
        c = half_value<kind>(*(s.c + l.at + (s.steps - 1) * l.by));
        dc = dc_state[l.at];
        recurrent = dr_state[l.at];
    }
    copy_wait<AHEAD - 1>();
    __syncthreads();
    struct backward_ready now =
        record_read<kind>(&shared->ahead[AHEAD - 1][l.warp], l, begins && steps == 1, &c);
    /* place: of the record of the step now, which is read; the next one's is below it */
    for (unsigned k = (unsigned)steps, place = AHEAD - 1; k-- > 0; place = (place - 1) % AHEAD) {
        unsigned buffer = k % 2 * (pairs * block_of<pairs>::HIDDEN * ROWS);
        struct scalar_lstm d = scalar_lstm_backward(&now.slopes, now.dh + recurrent, dc);
        struct packed own = gates_pack<kind>(d.i, d.f, d.g, d.o);
        *tells = own;
        dc = d.c;
        copy_wait<AHEAD - 2>();
        team_wait(l);
        struct operand<TEAM> b = operand_read<TEAM>(reads, UNITS * sizeof *reads);
        if (mine)
            *to = own;
        to -= l.by;
        record_copy(&shared->ahead[place][l.warp], (int)k - AHEAD, l, &from);
        total[0] += d.i, total[1] += d.f, total[2] += d.g, total[3] += d.o;
        now =
            record_read<kind>(&shared->ahead[(place - 1) % AHEAD][l.warp], l, begins && k == 1, &c);
        product_backward<pairs, kind>(a, b, l, part + buffer);
        __syncthreads();
        recurrent = 0;
        UNROLL(4)
        for (int w = 0; w < pairs; w++)
            recurrent += whole[buffer + w * (block_of<pairs>::HIDDEN * ROWS)];
    }
    if (!mine)
        return;
    dc_state[l.at] = dc;
    dr_state[l.at] = recurrent;
    UNROLL(4)
    for (int gate = 0; gate < 4; gate++)
        sums[4 * l.batch_row * s.hidden + gate * s.hidden + l.unit] += total[gate];
}

/* ---- launches ---- */

static unsigned blocks_of(const struct lstm_narrow &s)
{
    return (unsigned)((s.rows + ROWS - 1) / ROWS);
}

template <int pairs, int kind>
static void forward(const struct lstm_narrow &s, const float *sums, const float *bias_ih,
                    const float *bias_hh, const uint16_t *packed, float *c, struct lstm_cells out)
{
    uint64_t bytes = sizeof(struct forward_shared<pairs>);
    ensure(SHARED_ALLOW((narrow_forward<pairs, kind>), bytes));
    LAUNCH_SHARED((narrow_forward<pairs, kind>), blocks_of(s), block_of<pairs>::THREADS, bytes, s,
                  sums, bias_ih, bias_hh, packed, c, out);
}

template <int pairs, int kind>
static void backward(const struct lstm_narrow &s, const uint16_t *packed, struct lstm_cells dh,
                     float *dc, float *dr, float *sums)
{
    uint64_t bytes = sizeof(struct backward_shared<pairs>);
    ensure(SHARED_ALLOW((narrow_backward<pairs, kind>), bytes));
    LAUNCH_SHARED((narrow_backward<pairs, kind>), blocks_of(s), block_of<pairs>::THREADS, bytes, s,
                  packed, dh, dc, dr, sums);
}

template <int pairs, int kind> static void weights(struct matrix w, uint16_t *packed)
{
    LAUNCH((narrow_weights<pairs, kind>), block_of<pairs>::WARPS, WARP, w, packed);
}

/* The one of `run` that has room for the hidden units. */
#define WITH_PAIRS(run, hidden, kind, ...)                                                         \
    do {                                                                                           \
        if ((hidden) <= LSTM_NARROW_HIDDEN_MAX / 2)                                                \
            run<2, kind>(__VA_ARGS__);                                                             \
        else                                                                                       \
            run<4, kind>(__VA_ARGS__);                                                             \
    } while (0)
#define WITH_KIND(run, hidden, half, ...)                                                          \
    do {                                                                                           \
        if ((half) == HALF_BF16)                                                                   \
            WITH_PAIRS(run, hidden, HALF_BF16, __VA_ARGS__);                                       \
        else                                                                                       \
            WITH_PAIRS(run, hidden, HALF_F16, __VA_ARGS__);                                        \
    } while (0)

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

void cuda_lstm_narrow_backward(struct lstm_narrow s, const uint16_t *packed, struct lstm_cells dh,
                               float *dc, float *dr, float *sums)
{
    WITH_KIND(backward, s.hidden, s.half, s, packed, dh, dc, dr, sums);
}
