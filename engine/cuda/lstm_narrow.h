/* lstm_narrow.h - what the kernels share of an LSTM's layer that keeps all of its numbers in 16
 * bits.
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
 * way.
 */
#ifndef ENGINE_CUDA_LSTM_NARROW_H
#define ENGINE_CUDA_LSTM_NARROW_H

#include "engine/cuda/copies.h"
#include "engine/cuda/mma.h"

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

static __device__ __forceinline__ void four_take(const uint4 *from, uint32_t to[4])
{
    uint4 four = *from;
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}

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

static inline unsigned blocks_of(const struct lstm_narrow &s)
{
    return (unsigned)((s.rows + ROWS - 1) / ROWS);
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

#endif
