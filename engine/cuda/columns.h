/* columns.h - sums down the columns of a matrix.
 *
 * A block has a few columns, as many as a warp has lanes, and walks down the rows several at a
 * time; each thread has several of its own on their way from memory, or a short matrix would wait
 * for one after the other. Where there are many rows they are cut into parts, whose sums go to
 * cuda_scratch; the last block of a few columns adds those of all. How they are cut, and so the
 * order of every sum, depends on the shape alone.
 */
#ifndef ENGINE_CUDA_COLUMNS_H
#define ENGINE_CUDA_COLUMNS_H

#include "engine/cuda/cuda.h"

enum { COLUMN_THREADS = 256, COLUMN_BLOCKS = CUDA_BLOCKS_MAX / 4, COLUMN_THREAD_ROWS = 16 };

/* How `rows` are cut for a launch: blocks.y parts of part_rows rows, the last one maybe fewer. */
struct column_grid {
    dim3 blocks, threads;
    uint64_t part_rows;
};

/* bytes: what one part leaves for one column. */
static inline struct column_grid column_grid(uint64_t rows, uint64_t columns, uint64_t bytes)
{
    struct column_grid g;
    unsigned width = 1;
    CUDA_MAIN_LANE();
    while (width < columns && width < WARP)
        width *= 2;
    g.threads = dim3(width, COLUMN_THREADS / width);
    g.blocks = dim3((unsigned)((columns + width - 1) / width), 1);
    uint64_t parts = rows / (g.threads.y * COLUMN_THREAD_ROWS);
    uint64_t wanted = COLUMN_BLOCKS / g.blocks.x;
    uint64_t room = CUDA_SCRATCH_FLOATS * sizeof *cuda_scratch / 2 / (columns * bytes);
    parts = parts < wanted ? parts : wanted;
    parts = parts < room ? parts : room;
    parts = parts ? parts : 1;
    g.part_rows = (rows + parts - 1) / parts;
    g.blocks.y = (unsigned)((rows + g.part_rows - 1) / g.part_rows);
    return g;
}

/* The sums of a block's threads, column by column, in the threads of its first row. All threads
 * call it. */
template <typename number, int SUMS>
static __device__ __forceinline__ void column_reduce(number (&sums)[SUMS],
                                                     number (&shared)[SUMS][COLUMN_THREADS])
{
    unsigned me = threadIdx.y * blockDim.x + threadIdx.x;
    for (int s = 0; s < SUMS; s++)
        shared[s][me] = sums[s];
    for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        for (int s = 0; threadIdx.y < half && s < SUMS; s++)
            shared[s][me] += shared[s][me + half * blockDim.x];
    }
    for (int s = 0; s < SUMS; s++)
        sums[s] = shared[s][me];
}

/* Takes in every rows_apart-th of the rows from r to end - 1. */
template <typename function>
static __device__ __forceinline__ void column_walk(const function &f, uint64_t r, uint64_t end,
                                                   unsigned rows_apart, uint64_t c,
                                                   typename function::number *sums)
{
    enum { AHEAD = COLUMN_THREAD_ROWS / function::SUMS };
    for (; r < end; r += AHEAD * rows_apart) {
        typename function::value in[AHEAD] = {};
        UNROLL(AHEAD)
        for (unsigned k = 0; k < AHEAD; k++)
            if (r + k * rows_apart < end)
                in[k] = f.load(r + k * rows_apart, c);
        UNROLL(AHEAD)
        for (unsigned k = 0; k < AHEAD; k++)
            if (r + k * rows_apart < end)
                f.add(in[k], r + k * rows_apart, c, sums);
    }
}

/* The sums of parts: the rows that are walked once more. */
template <typename function> struct column_parts {
    typedef typename function::number number;
    enum { SUMS = function::SUMS };
    struct value {
        number sums[SUMS];
    };
    number *parts;
    uint64_t columns;
    __device__ number *at(uint64_t part, int sum, uint64_t c) const
    {
        return parts + (part * SUMS + sum) * columns + c;
    }
    __device__ value load(uint64_t part, uint64_t c) const
    {
        value v;
        for (int s = 0; s < SUMS; s++)
            v.sums[s] = *at(part, s, c);
        return v;
    }
    __device__ void add(const value &v, uint64_t, uint64_t, number *sums) const
    {
        for (int s = 0; s < SUMS; s++)
            sums[s] += v.sums[s];
    }
};

static __device__ unsigned column_tickets[COLUMN_BLOCKS];

/* function: `number`, the type of its SUMS sums a column; load(r, c), a `value`: what of row r is
 * to be on its way early; add(value, r, c, sums) takes it in; put(c, sums) has the result. */
template <typename function>
__global__ void columns_sum(function f, uint64_t rows, uint64_t columns, uint64_t part_rows,
                            struct column_parts<function> all)
{
    typedef typename function::number number;
    __shared__ number shared[function::SUMS][COLUMN_THREADS];
    number sums[function::SUMS] = {}, parts_sums[function::SUMS] = {};
    uint64_t c = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    uint64_t first = blockIdx.y * part_rows, end = first + part_rows;
    end = end < rows ? end : rows;
    if (c < columns)
        column_walk(f, first + threadIdx.y, end, blockDim.y, c, sums);
    column_reduce(sums, shared);
    if (gridDim.y == 1) {
        if (threadIdx.y == 0 && c < columns)
            f.put(c, sums);
        return;
    }
    for (int s = 0; threadIdx.y == 0 && c < columns && s < function::SUMS; s++)
        *all.at(blockIdx.y, s, c) = sums[s];
    if (!block_is_last(&column_tickets[blockIdx.x], gridDim.y))
        return;
    if (c < columns)
        column_walk(all, threadIdx.y, gridDim.y, blockDim.y, c, parts_sums);
    column_reduce(parts_sums, shared);
    if (threadIdx.y == 0 && c < columns)
        f.put(c, parts_sums);
}

/* Calls put for every column. The parts lie in the second half of cuda_scratch. */
template <typename function>
static inline void columns_sum_all(function f, uint64_t rows, uint64_t columns)
{
    typedef typename function::number number;
    struct column_grid g = column_grid(rows, columns, function::SUMS * sizeof(number));
    struct column_parts<function> all = {
        (number *)(cuda_scratch + CUDA_SCRATCH_FLOATS / 2), columns
    };
    LAUNCH(columns_sum, g.blocks, g.threads, f, rows, columns, g.part_rows, all);
}

#endif
