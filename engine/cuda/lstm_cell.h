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

#include "engine/cuda/mma.h"

enum {
    UNITS = 8,
    GATES = 4,
    HIDDEN_MAX = 128, /* whose weights fit a multiprocessor */
    WARPS_MAX = HIDDEN_MAX / UNITS,
    THREADS_MAX = WARPS_MAX * WARP,
    AHEAD_FORWARD = 3
};

/* x as h is stored. */
template <int kind> static __device__ __forceinline__ float half_round(float x)
{
    return kind == HALF_NONE ? x : half_value<kind>(half_bits<kind>(x));
}

/* Where a lane is. What it reads and writes of a step lies `by` times as many numbers a row from
 * that of the step before: pointers go on by addition. */
template <int rows> struct lane {
    uint64_t unit, row; /* the block's first row */
    unsigned u, gate, warp, steps;
    int inside;     /* there is such a unit, */
    int has[rows];  /* and such a row: of all rows, */
    int mine;       /* and of row gate % rows */
    int64_t by;     /* rows of the batch, less than 0 where steps go from the last to the first */
    uint64_t width; /* numbers of a row of gates */
};

template <int rows>
static __device__ __forceinline__ struct lane<rows> lane_here(struct lstm_steps s) {
    struct lane<rows> l;
    l.warp = threadIdx.x / WARP;
    l.u = threadIdx.x % WARP / GATES;
    l.gate = threadIdx.x % GATES;
    l.unit = l.warp * UNITS + l.u;
    l.row = (uint64_t)blockIdx.x * rows;
    l.inside = l.unit < s.hidden;
    UNROLL(rows)
    for (int r = 0; r < rows; r++)
        l.has[r] = l.inside && l.row + r < s.rows;
    l.mine = l.inside && l.row + l.gate % rows < s.rows;
    l.steps = (unsigned)s.steps;
    l.by = s.reverse ? -(int64_t)s.rows : (int64_t)s.rows;
    l.width = GATES * s.hidden;
    return l;
}

/* The lane's number in the k-th step taken of an array of `width` numbers a row, at row `row` of
 * the block. */
template <int rows, typename number>
static __device__ __forceinline__ number *step_place(struct lstm_steps s,
                                                     const struct lane<rows> &l, number *array,
                                                     uint64_t width, uint64_t k, unsigned row)
{
    return array + ((lstm_step(s, k) * s.rows + l.row + row) * width + l.unit);
}

/* Where a lane's numbers of an array lie, step after step: of float32, or of 16 bits. */
struct kept {
    char *at;
    int64_t by; /* bytes from a step to the next one */
    int half;
};

/* From the k-th step on, of an array of `width` numbers a row, of which only one is there: in 16
 * bits where half is not NULL. column: in the row, counted from the lane's unit. */
template <int rows>
static __device__ __forceinline__ struct kept
kept_at(struct lstm_steps s, const struct lane<rows> &l, float *whole, uint16_t *half,
        uint64_t width, uint64_t k, unsigned row, uint64_t column)
{
    struct kept p;
    p.half = half != NULL;
    p.at = half ? (char *)(step_place(s, l, half, width, k, row) + column)
                : (char *)(step_place(s, l, whole, width, k, row) + column);
    p.by = l.by * (int64_t)width * (half ? 2 : 4);
    return p;
}

/* Number `from` behind the place. */
template <int kind>
static __device__ __forceinline__ void kept_write(const struct kept *p, uint64_t from, float x)
{
    if (kind != HALF_NONE && p->half)
        ((uint16_t *)p->at)[from] = half_bits<kind>(x);
    else
        ((float *)p->at)[from] = x;
}

/* The bits of it, which kept_value takes when they are there. */
template <int kind>
static __device__ __forceinline__ uint32_t kept_read(const struct kept *p, uint64_t from)
{
    if (kind != HALF_NONE && p->half)
        return ((const uint16_t *)p->at)[from];
    return ((const uint32_t *)p->at)[from];
}

template <int kind>
static __device__ __forceinline__ float kept_value(const struct kept *p, uint32_t bits)
{
    return kind != HALF_NONE && p->half ? half_value<kind>((uint16_t)bits) : __uint_as_float(bits);
}

/* Forward: what a lane keeps from step to step. */
template <int rows> struct forward_cell {
    float c_now[rows], bias,
        x[AHEAD_FORWARD][rows]; /* the gate's sums without h, of the steps next */
    const float *ahead;         /* where those of the step behind them are */
    struct kept gates, c;
    float *h_to;
    int64_t ahead_by, h_by;
};

/* Of step k, which is the one that f->ahead has come to. */
template <int rows>
static __device__ __forceinline__ void forward_load(const struct lane<rows> &l, unsigned k,
                                                    struct forward_cell<rows> *f, float x[rows])
{
    UNROLL(rows)
    for (int r = 0; r < rows; r++)
        x[r] = k < l.steps && l.has[r] ? f->ahead[r * l.width] : 0;
    f->ahead += f->ahead_by;
}

template <int rows>
static __device__ __forceinline__ void
forward_begin(struct lstm_steps s, const struct lane<rows> &l, const float *bias_ih,
              const float *bias_hh, struct matrix h, struct forward_cell<rows> *f)
{
    uint64_t at = l.gate * s.hidden + l.unit;
    unsigned own = l.gate % rows;
    f->bias = l.inside ? bias_ih[at] + bias_hh[at] : 0;
    UNROLL(rows)
    for (int r = 0; r < rows; r++)
        f->c_now[r] = l.has[r] ? s.c_before[(l.row + r) * s.hidden + l.unit] : 0;
    f->gates = kept_at(s, l, s.gates, s.gates_half, l.width, 0, 0, l.gate * s.hidden);
    f->c = kept_at(s, l, s.c, s.c_half, s.hidden, 0, own, 0);
    f->h_to = step_place(s, l, h.at, h.stride, 0, own);
    f->h_by = l.by * (int64_t)h.stride;
    f->ahead = step_place(s, l, s.gates, l.width, 0, 0) + l.gate * s.hidden;
    f->ahead_by = l.by * (int64_t)l.width;
    UNROLL(AHEAD_FORWARD)
    for (unsigned k = 0; k < AHEAD_FORWARD; k++)
        forward_load<rows>(l, k, f, f->x[k]);
}

/* Does this lane tell the others of h of row l.gate % rows? */
template <int rows> static __device__ __forceinline__ int tells_h(const struct lane<rows> &l)
{
    return l.gate < rows;
}

/* And memory of c of that row? */
template <int rows> static __device__ __forceinline__ int tells_c(const struct lane<rows> &l)
{
    return l.gate >= GATES - rows;
}

/* Step k: sums is the lane's gate of w_hh h, of all rows. Returns h of row l.gate % rows. */
template <int rows, int kind>
static __device__ __forceinline__ float forward_step(const struct lane<rows> &l, unsigned k,
                                                     const float sums[rows],
                                                     struct forward_cell<rows> *f)
{
    float mine[rows], o_mine = 0, c_mine = 0;
    UNROLL(rows)
    for (int r = 0; r < rows; r++)
        mine[r] = scalar_gate(f->x[0][r] + sums[r] + f->bias, l.gate == 2);
    UNROLL(AHEAD_FORWARD)
    for (int next = 0; next + 1 < AHEAD_FORWARD; next++) {
        UNROLL(rows)
        for (int r = 0; r < rows; r++)
            f->x[next][r] = f->x[next + 1][r];
    }
    forward_load<rows>(l, k + AHEAD_FORWARD, f, f->x[AHEAD_FORWARD - 1]);
    UNROLL(rows)
    for (int r = 0; r < rows; r++) {
        float gates[GATES];
        UNROLL(GATES)
        for (int g = 0; g < GATES; g++)
            gates[g] = __shfl_sync(0xffffffffu, mine[r], (int)(l.u * GATES) + g);
        f->c_now[r] = scalar_lstm_c(gates[0], gates[1], gates[2], f->c_now[r]);
        o_mine = l.gate % rows == (unsigned)r ? gates[3] : o_mine;
        c_mine = l.gate % rows == (unsigned)r ? f->c_now[r] : c_mine;
        if (l.has[r])
            kept_write<kind>(&f->gates, r * l.width, mine[r]);
    }
    float h = half_round<kind>(scalar_lstm_h(o_mine, c_mine));
    if (tells_h<rows>(l) && l.mine)
        *f->h_to = h;
    if (tells_c<rows>(l) && l.mine)
        kept_write<kind>(&f->c, 0, c_mine);
    f->gates.at += f->gates.by;
    f->c.at += f->c.by;
    f->h_to += f->h_by;
    return l.inside ? h : 0;
}

/* h before the first step, of row l.gate % rows. */
template <int rows>
static __device__ __forceinline__ float forward_h_before(struct lstm_steps s,
                                                         const struct lane<rows> &l,
                                                         const struct forward_cell<rows> *f)
{
    return s.begins || !l.mine ? 0 : *(f->h_to - f->h_by);
}

/* Behind the last step. */
template <int rows>
static __device__ __forceinline__ void forward_end(struct lstm_steps s, const struct lane<rows> &l,
                                                   const struct forward_cell<rows> *f)
{
    UNROLL(rows)
    for (int r = 0; r < rows; r++)
        if (s.c_after && l.gate == (unsigned)r && l.has[r])
            s.c_after[(l.row + r) * s.hidden + l.unit] = f->c_now[r];
}

/* Backward a lane has row l.gate % rows, and reads and writes `rows` of its gates: number i is gate
 * l.gate / rows + i * GATES / rows. */
template <int rows>
static __device__ __forceinline__ unsigned own_gate(const struct lane<rows> &l, int i)
{
    return l.gate / rows + i * (GATES / rows);
}

/* That of four. */
template <int rows>
static __device__ __forceinline__ float own_of(const struct lane<rows> &l, int i,
                                               const float gates[GATES])
{
    if (rows == 2)
        return l.gate / 2 ? gates[2 * i + 1] : gates[2 * i];
    float low = l.gate % 2 ? gates[1] : gates[0], high = l.gate % 2 ? gates[3] : gates[2];
    return l.gate / 2 ? high : low;
}

/* All four of the row, from the lanes that have them; every lane of the warp calls it. */
template <int rows>
static __device__ __forceinline__ void own_tell(const struct lane<rows> &l, const float own[rows],
                                                float gates[GATES])
{
    UNROLL(GATES)
    for (int g = 0; g < GATES; g++)
        gates[g] = __shfl_sync(0xffffffffu, own[g / (GATES / rows)],
                               (int)(l.u * GATES + l.gate % rows + rows * (g % (GATES / rows))));
}

/* What a step reads; gates and c as kept_read. */
template <int rows> struct backward_values {
    uint32_t gates[rows], c;
    float dh;
};

/* What a lane keeps from step to step: of the step now what does not wait for the steps behind, and
 * what the step before it reads, which is on its way. */
template <int rows> struct backward_cell {
    struct scalar_lstm_slopes now;
    float dh_now;
    struct backward_values<rows> next;
    struct kept gates, c; /* where those of the step before that are */
    const float *dh;
    float *gates_to;
    int64_t gates_by, dh_by;
    float c_before, dc; /* c before the first step; the gradient at c */
    float sums[rows];   /* of the gradients of the lane's gates */
};

/* Step `left` - 1 of those taken, where the pointers have come to, unless left is 0. */
template <int rows, int kind>
static __device__ __forceinline__ void backward_load(const struct lane<rows> &l, uint64_t hidden,
                                                     unsigned left, struct backward_cell<rows> *b)
{
    int there = left && l.mine;
    UNROLL(rows)
    for (int i = 0; i < rows; i++)
        b->next.gates[i] = there ? kept_read<kind>(&b->gates, i * (GATES / rows) * hidden) : 0;
    b->next.c = there ? kept_read<kind>(&b->c, 0) : 0;
    b->next.dh = there ? *b->dh : 0;
    b->gates.at -= b->gates.by;
    b->c.at -= b->c.by;
    b->dh -= b->dh_by;
}

/* Step `left` - 1, which has been loaded, becomes the one now, and the one before it is asked for.
 */
template <int rows, int kind>
static __device__ __forceinline__ void backward_ready(const struct lane<rows> &l, uint64_t hidden,
                                                      unsigned left, struct backward_cell<rows> *b)
{
    struct backward_values<rows> v = b->next;
    float own[rows], gates[GATES];
    UNROLL(rows)
    for (int i = 0; i < rows; i++)
        own[i] = kept_value<kind>(&b->gates, v.gates[i]);
    own_tell<rows>(l, own, gates);
    backward_load<rows, kind>(l, hidden, left ? left - 1 : 0, b);
    b->dh_now = v.dh;
    b->now =
        scalar_lstm_slopes(gates[0], gates[1], gates[2], gates[3], kept_value<kind>(&b->c, v.c), 0);
}

template <int rows, int kind>
static __device__ __forceinline__ void
backward_begin(struct lstm_steps s, const struct lane<rows> &l, struct matrix dh, const float *dc,
               struct backward_cell<rows> *b)
{
    unsigned own = l.gate % rows;
    uint64_t row = l.row + own;
    UNROLL(rows)
    for (int i = 0; i < rows; i++)
        b->sums[i] = 0;
    b->c_before = l.mine ? s.c_before[row * s.hidden + l.unit] : 0;
    b->dc = l.mine ? dc[row * s.hidden + l.unit] : 0;
    b->gates_to =
        step_place(s, l, s.gates, l.width, s.steps - 1, own) + own_gate<rows>(l, 0) * s.hidden;
    b->gates = kept_at(s, l, s.gates, s.gates_half, l.width, s.steps - 1, own,
                       own_gate<rows>(l, 0) * s.hidden);
    b->c = kept_at(s, l, s.c, s.c_half, s.hidden, s.steps - 1, own, 0);
    b->dh = step_place(s, l, dh.at, dh.stride, s.steps - 1, own);
    b->gates_by = l.by * (int64_t)l.width;

    b->dh_by = l.by * (int64_t)dh.stride;
    backward_load<rows, kind>(l, s.hidden, l.steps, b);
    backward_ready<rows, kind>(l, s.hidden, l.steps, b);
}

/* The step now, the k-th: the gradients at the sums of the lane's own gates, from that at h that
 * comes by the steps behind. c before it has come only by now. */
template <int rows, int kind>
static __device__ __forceinline__ void backward_step(const struct lane<rows> &l, uint64_t hidden,
                                                     unsigned k, float recurrent,
                                                     struct backward_cell<rows> *b, float own[rows])
{
    b->now.c_before = k ? kept_value<kind>(&b->c, b->next.c) : b->c_before;
    struct scalar_lstm cell = scalar_lstm_backward(&b->now, b->dh_now + recurrent, b->dc);
    b->dc = cell.c;
    const float gates[GATES] = {cell.i, cell.f, cell.g, cell.o};
    UNROLL(rows)
    for (int i = 0; i < rows; i++) {
        own[i] = own_of<rows>(l, i, gates);
        b->sums[i] += own[i];
        if (l.mine)
            b->gates_to[i * (GATES / rows) * hidden] = own[i];
    }
    b->gates_to -= b->gates_by;
}

/* The sum over `warps` warps of what each made of its units' gradients, [hidden][rows], `distance`
 * numbers apart: for this lane's unit and row l.gate % rows. */
template <int rows, int warps, int distance>
static __device__ __forceinline__ float parts_sum(const float *parts, const struct lane<rows> &l)
{
    float sum = 0;
    const float *at = parts + (l.unit * rows + l.gate % rows) + l.gate / rows * distance;
    UNROLL(8)
    for (int w = 0; w < warps; w += GATES / rows)
        sum += at[w * distance];
    UNROLL(2)
    for (int lanes = rows; lanes < GATES; lanes *= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    return sum;
}

/* Behind the first step: dc, the sums, and the gradient at h before it. */
template <int rows>
static __device__ __forceinline__ void backward_end(struct lstm_steps s, const struct lane<rows> &l,
                                                    struct matrix dh, float recurrent, float *dc,
                                                    const struct backward_cell<rows> *b)
{
    unsigned own = l.gate % rows;
    UNROLL(rows)
    for (int i = 0; i < rows; i++)
        if (s.sums && l.mine)
            s.sums[(l.row + own) * l.width + own_gate<rows>(l, i) * s.hidden + l.unit] +=
                b->sums[i];
    if (!tells_h<rows>(l) || !l.mine)
        return;
    dc[(l.row + own) * s.hidden + l.unit] = b->dc;
    if (!s.begins)
        *(step_place(s, l, dh.at, dh.stride, 0, own) - b->dh_by) += recurrent;
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
