/* lstm_narrow_back.cu - the steps of an LSTM's layer that keeps its numbers in 16 bits, backward:
 * lstm_narrow.h says how a block is laid out. Four warps, a team, tell each other their 32 units'
 * gradients and multiply them with their weights for a quarter of h each; the parts that come from
 * different teams are added up behind the block's barrier.
 */
#include "engine/cuda/lstm_narrow.h"

#include <limits.h>

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
        scalar_tanh(*c), before);
    b.dh = r->dh[l.row][l.u];
    *c = before;
    return b;
}

template <int pairs, int kind>
__global__ void __launch_bounds__(block_of<pairs>::THREADS, 1)
    narrow_steps_back(struct lstm_narrow s, const uint16_t *packed, struct lstm_cells dh,
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

template <int pairs, int kind>
static void backward(const struct lstm_narrow &s, const uint16_t *packed, struct lstm_cells dh,
                     float *dc, float *dr, float *sums)
{
    uint64_t bytes = sizeof(struct backward_shared<pairs>);
    ensure(SHARED_ALLOW((narrow_steps_back<pairs, kind>), bytes));
    LAUNCH_SHARED((narrow_steps_back<pairs, kind>), blocks_of(s), block_of<pairs>::THREADS, bytes,
                  s, packed, dh, dc, dr, sums);
}

void cuda_lstm_narrow_backward(struct lstm_narrow s, const uint16_t *packed, struct lstm_cells dh,
                               float *dc, float *dr, float *sums)
{
    WITH_KIND(backward, s.hidden, s.half, s, packed, dh, dc, dr, sums);
}
