/* columns.h - sums down the columns of a matrix.
 *
 * A block has a few columns, as many as a warp has lanes, and walks down the rows several at a
 * time. Where there are many rows for few columns they are cut into parts, whose sums go to
 * cuda_scratch and are then summed in a second launch. How they are cut depends on the shape alone.
 */
#ifndef ENGINE_CUDA_COLUMNS_H
#define ENGINE_CUDA_COLUMNS_H

#include "engine/cuda/cuda.h"

enum { COLUMN_THREADS = 256, COLUMN_BLOCKS = CUDA_BLOCKS_MAX / 4, COLUMN_THREAD_ROWS = 32 };

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

/* function: `number`, the type of its SUMS sums a column; add(r, c, sums) takes in what is in row
 * r; put(c, sums) has the result. parts NULL: there is one. */
template <typename function>
__global__ void columns_sum(function f, uint64_t rows, uint64_t columns, uint64_t part_rows,
                            typename function::number *parts)
{
    __shared__ typename function::number shared[function::SUMS][COLUMN_THREADS];
    typename function::number sums[function::SUMS] = {};
    uint64_t c = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    uint64_t first = blockIdx.y * part_rows, end = first + part_rows;
    end = end < rows ? end : rows;
    if (c < columns)
        for (uint64_t r = first + threadIdx.y; r < end; r += blockDim.y)
            f.add(r, c, sums);
    column_reduce(sums, shared);
    if (threadIdx.y > 0 || c >= columns)
        return;
    if (!parts)
        f.put(c, sums);
    for (int s = 0; parts && s < function::SUMS; s++)
        parts[(blockIdx.y * function::SUMS + s) * columns + c] = sums[s];
}

/* The second launch: the parts are the rows. */
template <typename function> struct column_parts {
    typedef typename function::number number;
    enum { SUMS = function::SUMS };
    function f;
    const number *parts;
    uint64_t columns;
    __device__ void add(uint64_t r, uint64_t c, number *sums) const
    {
        for (int s = 0; s < SUMS; s++)
            sums[s] += parts[(r * SUMS + s) * columns + c];
    }
    __device__ void put(uint64_t c, const number *sums) const
    {
        f.put(c, sums);
    }
};

/* Calls put for every column. parts: the second half of cuda_scratch. */
template <typename function>
static inline void columns_sum_all(function f, uint64_t rows, uint64_t columns)
{
    typedef typename function::number number;
    struct column_grid g = column_grid(rows, columns, function::SUMS * sizeof(number));
    number *parts = (number *)(cuda_scratch + CUDA_SCRATCH_FLOATS / 2), *none = NULL;
    uint64_t count = g.blocks.y;
    LAUNCH(columns_sum, g.blocks, g.threads, f, rows, columns, g.part_rows,
           count > 1 ? parts : none);
    if (count == 1)
        return;
    struct column_parts<function> all = {
        f, parts, columns
    };
    LAUNCH(columns_sum, g.blocks.x, g.threads, all, count, columns, count, none);
}

#endif
