/* lstm_cell.h - what the kernels over a sequence's steps share: a block has ROWS rows of the batch
 * and all hidden units, UNITS of them a warp, for all steps.
 *
 * The rows of a batch do not need one another, so that blocks never wait for each other. A lane of
 * a warp has one of its units and one gate of it: u = lane / 4, gate = lane % 4 (i, f, g, o).
 * Forward it works out its gate for all of the rows, the four lanes of a unit tell each other, and
 * each has c of all rows; of h, and of the whole cell backward, a lane has row gate % ROWS alone.
 * What a step reads of memory is asked for several steps before.
 */
#ifndef ENGINE_CUDA_LSTM_CELL_H
#define ENGINE_CUDA_LSTM_CELL_H

#include "engine/cuda/cuda.h"

enum {
    UNITS = 8,
    GATES = 4,
    HIDDEN_MAX = 128, /* whose weights fit a multiprocessor */
    WARPS_MAX = HIDDEN_MAX / UNITS,
    THREADS_MAX = WARPS_MAX * WARP,
    AHEAD_FORWARD = 3,
    AHEAD_BACKWARD = 2
};

/* Where a lane is. */
struct lane {
    uint64_t unit, row; /* the block's first row */
    unsigned u, gate, warp;
    int inside; /* there is such a unit */
};

template <int rows> static __device__ __forceinline__ struct lane lane_here(struct lstm_steps s)
{
    struct lane l;
    l.warp = threadIdx.x / WARP;
    l.u = threadIdx.x % WARP / GATES;
    l.gate = threadIdx.x % GATES;
    l.unit = l.warp * UNITS + l.u;
    l.row = (uint64_t)blockIdx.x * rows;
    l.inside = l.unit < s.hidden;
    return l;
}

/* x as h is stored. */
template <int kind> static __device__ __forceinline__ float half_round(float x)
{
    if (kind == HALF_BF16)
        return scalar_brain(scalar_to_brain(x));
    if (kind == HALF_F16)
        return scalar_half(scalar_to_half(x));
    return x;
}

/* Of a row of the k-th step. */
static __device__ __forceinline__ uint64_t cell_row(struct lstm_steps s, uint64_t k, uint64_t row)
{
    return lstm_step(s, k) * s.rows + row;
}

/* Forward: what a lane keeps from step to step. */
template <int rows> struct forward_cell {
    float c[rows], bias, x[AHEAD_FORWARD][rows]; /* the gate's sums without h, of the steps next */
};

template <int rows>
static __device__ __forceinline__ void forward_load(struct lstm_steps s, struct lane l, uint64_t k,
                                                    float x[rows])
{
    UNROLL(rows)
    for (int r = 0; r < rows; r++)
        x[r] = k < s.steps && l.inside && l.row + r < s.rows
                   ? s.gates[(cell_row(s, k, l.row + r) * GATES + l.gate) * s.hidden + l.unit]
                   : 0;
}

template <int rows>
static __device__ __forceinline__ void forward_begin(struct lstm_steps s, struct lane l,
                                                     const float *bias_ih, const float *bias_hh,
                                                     struct forward_cell<rows> *f)
{
    uint64_t at = l.gate * s.hidden + l.unit;
    f->bias = l.inside ? bias_ih[at] + bias_hh[at] : 0;
    UNROLL(rows)
    for (int r = 0; r < rows; r++)
        f->c[r] = l.inside && l.row + r < s.rows ? s.c_before[(l.row + r) * s.hidden + l.unit] : 0;
    UNROLL(AHEAD_FORWARD)
    for (int k = 0; k < AHEAD_FORWARD; k++)
        forward_load<rows>(s, l, k, f->x[k]);
}

/* Does this lane tell the others of h of row l.gate % rows? */
template <int rows> static __device__ __forceinline__ int tells_h(struct lane l)
{
    return l.gate < rows;
}

/* Step k: sums is the lane's gate of w_hh h, of all rows. Returns h of row l.gate % rows. */
template <int rows, int kind>
static __device__ __forceinline__ float forward_step(struct lstm_steps s, struct lane l, uint64_t k,
                                                     const float sums[rows], struct matrix h,
                                                     struct forward_cell<rows> *f)
{
    float mine[rows], o_mine = 0, c_mine = 0;
    UNROLL(rows)
    for (int r = 0; r < rows; r++)
        mine[r] = scalar_gate(f->x[0][r] + sums[r] + f->bias, l.gate == 2);
    UNROLL(AHEAD_FORWARD)
    for (int next = 0; next + 1 < AHEAD_FORWARD; next++)
        UNROLL(rows)
    for (int r = 0; r < rows; r++)
        f->x[next][r] = f->x[next + 1][r];
    forward_load<rows>(s, l, k + AHEAD_FORWARD, f->x[AHEAD_FORWARD - 1]);
    UNROLL(rows)
    for (int r = 0; r < rows; r++) {
        float gates[GATES];
        UNROLL(GATES)
        for (int g = 0; g < GATES; g++)
            gates[g] = __shfl_sync(0xffffffffu, mine[r], (int)(l.u * GATES) + g);
        f->c[r] = scalar_lstm_c(gates[0], gates[1], gates[2], f->c[r]);
        if (l.gate % rows == (unsigned)r) {
            o_mine = gates[3];
            c_mine = f->c[r];
        }
        if (l.inside && l.row + r < s.rows)
            s.gates[(cell_row(s, k, l.row + r) * GATES + l.gate) * s.hidden + l.unit] = mine[r];
    }
    float value = half_round<kind>(scalar_lstm_h(o_mine, c_mine));
    uint64_t row = l.row + l.gate % rows;
    if (l.inside && row < s.rows) {
        if (tells_h<rows>(l))
            h.at[cell_row(s, k, row) * h.stride + l.unit] = value;
        if (l.gate >= GATES - rows)
            s.c[cell_row(s, k, row) * s.hidden + l.unit] = c_mine;
    }
    return l.inside ? value : 0;
}

/* h before the first step, of row l.gate % rows. */
template <int rows>
static __device__ __forceinline__ float forward_h_before(struct lstm_steps s, struct lane l,
                                                         struct matrix h)
{
    uint64_t row = l.row + l.gate % rows;
    if (s.begins || !l.inside || row >= s.rows)
        return 0;
    const float *first = h.at + (cell_row(s, 0, row) * h.stride + l.unit);
    return s.reverse ? first[s.rows * h.stride] : *(first - s.rows * h.stride);
}

/* Backward, of row l.gate % rows: what a step reads. */
struct backward_values {
    float gates[GATES], c, dh;
};

struct backward_cell {
    struct backward_values next[AHEAD_BACKWARD];
    float c_before, dc; /* c before the first step; the gradient at c */
};

/* Step `left` - 1 of those taken, unless left is 0. */
template <int rows>
static __device__ __forceinline__ void backward_load(struct lstm_steps s, struct lane l,
                                                     uint64_t left, struct matrix dh,
                                                     struct backward_values *v)
{
    uint64_t row = l.row + l.gate % rows;
    int there = left && l.inside && row < s.rows;
    uint64_t at = there ? cell_row(s, left - 1, row) : 0;
    UNROLL(GATES)
    for (int g = 0; g < GATES; g++)
        v->gates[g] = there ? s.gates[(at * GATES + g) * s.hidden + l.unit] : 0;
    v->c = there ? s.c[at * s.hidden + l.unit] : 0;
    v->dh = there ? dh.at[at * dh.stride + l.unit] : 0;
}

template <int rows>
static __device__ __forceinline__ void backward_begin(struct lstm_steps s, struct lane l,
                                                      struct matrix dh, const float *dc,
                                                      struct backward_cell *b)
{
    uint64_t row = l.row + l.gate % rows;
    int there = l.inside && row < s.rows;
    b->c_before = there ? s.c_before[row * s.hidden + l.unit] : 0;
    b->dc = there ? dc[row * s.hidden + l.unit] : 0;
    for (uint64_t k = 0; k < AHEAD_BACKWARD; k++)
        backward_load<rows>(s, l, s.steps > k ? s.steps - k : 0, dh, &b->next[k]);
}

/* Is gate g of row l.gate % rows for this lane to write? */
template <int rows> static __device__ __forceinline__ int writes_gate(struct lane l, int g)
{
    return g % (GATES / rows) == (int)l.gate / rows;
}

/* Step k of those taken: d, the gradients at the gates' sums, from that at h that comes by the
 * steps behind. */
template <int rows>
static __device__ __forceinline__ void backward_step(struct lstm_steps s, struct lane l, uint64_t k,
                                                     struct matrix dh, float recurrent,
                                                     struct backward_cell *b, float d[GATES])
{
    struct backward_values v = b->next[0];
    UNROLL(AHEAD_BACKWARD)
    for (int next = 0; next + 1 < AHEAD_BACKWARD; next++)
        b->next[next] = b->next[next + 1];
    backward_load<rows>(s, l, k > AHEAD_BACKWARD - 1 ? k - (AHEAD_BACKWARD - 1) : 0, dh,
                        &b->next[AHEAD_BACKWARD - 1]);
    struct scalar_lstm cell = {v.gates[0], v.gates[1], v.gates[2], v.gates[3], v.c, 0};
    cell = scalar_lstm_backward(&cell, k ? b->next[0].c : b->c_before, v.dh + recurrent, b->dc);
    b->dc = cell.c;
    d[0] = cell.i, d[1] = cell.f, d[2] = cell.g, d[3] = cell.o;
    uint64_t row = l.row + l.gate % rows;
    UNROLL(GATES)
    for (int g = 0; g < GATES; g++)
        if (writes_gate<rows>(l, g) && l.inside && row < s.rows)
            s.gates[(cell_row(s, k, row) * GATES + g) * s.hidden + l.unit] = d[g];
}

/* The sum over the warps of what each made of its units' gradients, [warps][hidden][rows] whose
 * warps are `distance` numbers apart: for this lane's unit and row l.gate % rows. */
template <int rows>
static __device__ __forceinline__ float parts_sum(const float *parts, unsigned distance,
                                                  unsigned warps, struct lane l)
{
    float sum = 0;
    const float *at = parts + l.unit * rows + l.gate % rows;
    UNROLL(4)
    for (unsigned w = l.gate / rows; w < warps; w += GATES / rows)
        sum += at[w * distance];
    UNROLL(2)
    for (int lanes = rows; lanes < GATES; lanes *= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    return sum;
}

/* Behind the first step: dc, and the gradient at h before it. */
template <int rows>
static __device__ __forceinline__ void backward_end(struct lstm_steps s, struct lane l,
                                                    struct matrix dh, float recurrent, float *dc,
                                                    const struct backward_cell *b)
{
    uint64_t row = l.row + l.gate % rows;
    if (!tells_h<rows>(l) || !l.inside || row >= s.rows)
        return;
    dc[row * s.hidden + l.unit] = b->dc;
    float *first = dh.at + (cell_row(s, 0, row) * dh.stride + l.unit);
    if (!s.begins && s.reverse)
        first[s.rows * dh.stride] += recurrent;
    else if (!s.begins)
        *(first - s.rows * dh.stride) += recurrent;
}

/* Rows a block has so that all blocks work at once, 1 or 2; more blocks take turns. */
static inline int rows_of_block(struct lstm_steps s)
{
    return s.rows <= (uint64_t)cuda_processors ? 1 : 2;
}

/* The kernels with float32 weights; -1 where they do not fit. */
int lstm_forward_float(struct lstm_steps s, const float *bias_ih, const float *bias_hh,
                       struct matrix w_hh, struct matrix h);
int lstm_backward_float(struct lstm_steps s, struct matrix w_hh, struct matrix dh, float *dc);

/* Those with weights of 16 bits, on the tensor cores. */
int lstm_forward_half(struct lstm_steps s, const float *bias_ih, const float *bias_hh,
                      struct matrix w_hh, enum half half, struct matrix h);
int lstm_backward_half(struct lstm_steps s, struct matrix w_hh, enum half half, struct matrix dh,
                       float *dc);

#endif
