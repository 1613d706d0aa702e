/* map.h - kernels that visit every number once: out = f(in), over arrays and over matrices.
 *
 * What is computed is a type with an operator(), whose formula is scalar.h's. Neighbouring threads
 * have neighbouring numbers, four each in one load where the addresses allow it, and of arrays that
 * are more than a device full of threads two of those on their way. Outputs may be inputs.
 */
#ifndef ENGINE_CUDA_MAP_H
#define ENGINE_CUDA_MAP_H

#include "engine/cuda/half.h"

enum { MAP_THREADS = 256 };

/* All of them begin where a float4 may: so many whole ones. */
static inline uint64_t map_fours(uint64_t count, const void *a, const void *b, const void *c)
{
    uintptr_t bits = (uintptr_t)a | (uintptr_t)b | (uintptr_t)c;
    return bits % sizeof(float4) == 0 ? count / FOUR : 0;
}

/* ---- arrays: out[i] = f(a[i]), out[i] = f(a[i], b[i]) ---- */

/* Blocks for so many groups of a thread, which takes two at a time. */
static inline unsigned map_blocks(uint64_t groups)
{
    unsigned blocks = cuda_blocks(groups, MAP_THREADS), full = CUDA_BLOCKS_MAX / 4;
    return blocks > full ? cuda_blocks((groups + 1) / 2, MAP_THREADS) : blocks;
}

/* For i, and where `second` for i + step too, of this thread's groups. */
#define FOR_PAIRS(i, step, second, count)                                                          \
    for (uint64_t step = (uint64_t)gridDim.x * blockDim.x,                                         \
                  i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x, second = i + step < count;  \
         i < (count); i += 2 * step, second = i + step < count)

template <typename function> static __device__ __forceinline__ float4 four_of(function &f, float4 x)
{
    return make_float4(f(x.x), f(x.y), f(x.z), f(x.w));
}

template <typename function>
static __device__ __forceinline__ float4 four_of(function &f, float4 x, float4 y)
{
    return make_float4(f(x.x, y.x), f(x.y, y.y), f(x.z, y.z), f(x.w, y.w));
}

template <typename function>
__global__ void map_one(function f, const float *a, float *out, uint64_t fours, uint64_t count)
{
    const float4 *a4 = (const float4 *)a;
    FOR_PAIRS(i, step, second, fours)
    {
        float4 x = a4[i], next = second ? a4[i + step] : make_float4(0, 0, 0, 0);
        ((float4 *)out)[i] = four_of(f, x);
        if (second)
            ((float4 *)out)[i + step] = four_of(f, next);
    }
    FOR_ITEMS(i, count - fours * FOUR)
    out[fours * FOUR + i] = f(a[fours * FOUR + i]);
}

template <typename function>
__global__ void map_two(function f, const float *a, const float *b, float *out, uint64_t fours,
                        uint64_t count)
{
    const float4 *a4 = (const float4 *)a, *b4 = (const float4 *)b, none = {};
    FOR_PAIRS(i, step, second, fours)
    {
        float4 x = a4[i], x_next = second ? a4[i + step] : none;
        float4 y = b4[i], y_next = second ? b4[i + step] : none;
        ((float4 *)out)[i] = four_of(f, x, y);
        if (second)
            ((float4 *)out)[i + step] = four_of(f, x_next, y_next);
    }
    FOR_ITEMS(i, count - fours * FOUR)
    out[fours * FOUR + i] = f(a[fours * FOUR + i], b[fours * FOUR + i]);
}

template <typename function>
static inline void map(function f, const float *a, float *out, uint64_t count)
{
    uint64_t fours = map_fours(count, a, out, NULL);
    if (count)
        LAUNCH(map_one, map_blocks(fours ? fours : count), MAP_THREADS, f, a, out, fours, count);
}

template <typename function>
static inline void map(function f, const float *a, const float *b, float *out, uint64_t count)
{
    uint64_t fours = map_fours(count, a, b, out);
    if (count)
        LAUNCH(map_two, map_blocks(fours ? fours : count), MAP_THREADS, f, a, b, out, fours, count);
}

/* ---- matrices ---- */

/* A grid over rows (y) and columns (x) of a matrix without a division in it: a block is as wide as
 * a row, at most a warp, and kernels take what is beyond the grid in strides. */
struct map_grid {
    dim3 blocks, threads;
};

static inline struct map_grid map_grid(uint64_t rows, uint64_t columns)
{
    struct map_grid g;
    unsigned width = 1, most;
    while (width < columns && width < WARP)
        width *= 2;
    g.threads = dim3(width, MAP_THREADS / width);
    g.blocks = dim3(1, cuda_blocks(rows, g.threads.y));
    most = CUDA_BLOCKS_MAX / g.blocks.y;
    unsigned wanted = cuda_blocks(columns, width);
    g.blocks.x = wanted < most ? wanted : most;
    return g;
}

#define FOR_ROWS(r, rows)                                                                          \
    for (uint64_t r = (uint64_t)blockIdx.y * blockDim.y + threadIdx.y; r < (rows);                 \
         r += (uint64_t)gridDim.y * blockDim.y)
#define FOR_COLUMNS(c, columns)                                                                    \
    for (uint64_t c = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; c < (columns);              \
         c += (uint64_t)gridDim.x * blockDim.x)

/* y[r, c] = f(f.row(r), c, x[r, c]): what all numbers of a row share is made once a thread. */
template <typename function>
__global__ void map_matrix(function f, struct matrix x, struct matrix y)
{
    FOR_ROWS(r, x.rows)
    {
        auto row = f.row(r);
        FOR_COLUMNS(c, x.columns)
        y.at[r * y.stride + c] = f(row, c, x.at[r * x.stride + c]);
    }
}

template <typename function>
__global__ void map_matrix_fours(function f, struct matrix x, struct matrix y)
{
    FOR_ROWS(r, x.rows)
    {
        auto row = f.row(r);
        FOR_COLUMNS(i, x.columns / FOUR)
        {
            float4 in = ((const float4 *)(x.at + r * x.stride))[i];
            uint64_t c = i * FOUR;
            ((float4 *)(y.at + r * y.stride))[i] = make_float4(
                f(row, c, in.x), f(row, c + 1, in.y), f(row, c + 2, in.z), f(row, c + 3, in.w));
        }
    }
}

template <typename function> static inline void map(function f, struct matrix x, struct matrix y)
{
    int fours =
        (x.stride | y.stride | x.columns) % FOUR == 0 && map_fours(x.columns, x.at, y.at, NULL) > 0;
    struct map_grid g = map_grid(x.rows, fours ? x.columns / FOUR : x.columns);
    if (fours)
        LAUNCH(map_matrix_fours, g.blocks, g.threads, f, x, y);
    else
        LAUNCH(map_matrix, g.blocks, g.threads, f, x, y);
}

#endif
