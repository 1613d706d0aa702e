/* team.h - a row of a matrix to a team of threads that have sums over it in common: a warp, or for
 * long rows, and for few of them, a block. Kernels have the team as their first argument, and its
 * `part` in shared memory (TEAM_PART numbers). */
#ifndef ENGINE_CUDA_TEAM_H
#define ENGINE_CUDA_TEAM_H

#include "engine/cuda/cuda.h"

enum { TEAM_THREADS = 256, TEAM_WARPS = 8, TEAM_PART = 32 };
/* A warp has rows of so many columns, and of more where there are enough rows to keep a device
 * busy. */
enum { TEAM_SHORT_COLUMNS = 128, TEAM_LONG_COLUMNS = 1024, TEAM_MANY_ROWS = CUDA_BLOCKS_MAX / 2 };
static_assert(TEAM_THREADS == 32 * TEAM_WARPS, "whole warps");

template <unsigned size> struct team {
    /* The first row of this thread's team, and how far it is to its next one. */
    __device__ uint64_t row() const
    {
        return (uint64_t)blockIdx.x * (TEAM_THREADS / size) + threadIdx.x / size;
    }
    __device__ uint64_t rows() const
    {
        return (uint64_t)gridDim.x * (TEAM_THREADS / size);
    }
    __device__ unsigned lane() const
    {
        return threadIdx.x % size;
    }

    /* Of all threads of the team, in each of them; all call it. */
    template <typename number> __device__ number sum(number x, number *part) const
    {
        return size == WARP ? warp_sum(x) : block_sum(x, part);
    }
    /* The same of several at once, which wait for one another once. */
    template <typename number, int count>
    __device__ void sums(number (&x)[count], number *part) const
    {
        static_assert(count * (int)size <= TEAM_PART * WARP, "there is room");
        for (int i = 0; i < count; i++)
            x[i] = warp_sum(x[i]);
        for (int i = 0; size > WARP && i < count; i++) {
            if (threadIdx.x % WARP == 0)
                part[i * (size / WARP) + threadIdx.x / WARP] = x[i];
            x[i] = 0;
        }
        if (size > WARP)
            __syncthreads();
        for (unsigned warp = 0; size > WARP && warp < size / WARP; warp++)
            for (int i = 0; i < count; i++)
                x[i] += part[i * (size / WARP) + warp];
        if (size > WARP)
            __syncthreads();
    }
    template <typename number> __device__ number max(number x, number *part) const
    {
        x = warp_largest(x);
        if (size == WARP)
            return x;
        if (threadIdx.x % WARP == 0)
            part[threadIdx.x / WARP] = x;
        __syncthreads();
        for (unsigned i = 0; i < size / WARP; i++)
            x = part[i] > x ? part[i] : x;
        __syncthreads();
        return x;
    }

  private:
    template <typename number> static __device__ number warp_largest(number x)
    {
        for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
            number other = __shfl_xor_sync(0xffffffffu, x, lanes);
            x = other > x ? other : x;
        }
        return x;
    }
};

#define FOR_TEAM_ROWS(team, r, count)                                                              \
    for (uint64_t r = (team).row(); r < (count); r += (team).rows())
#define FOR_LANES(team, c, columns)                                                                \
    for (uint64_t c = (team).lane(); c < (columns); c += sizeof_team(team))

template <unsigned size> static __device__ __forceinline__ unsigned sizeof_team(struct team<size>)
{
    return size;
}

static inline int team_is_warp(uint64_t rows, uint64_t columns)
{
    return columns <= TEAM_SHORT_COLUMNS ||
           (columns <= TEAM_LONG_COLUMNS && rows >= TEAM_MANY_ROWS);
}

#define LAUNCH_TEAMS(kernel, rows, columns, ...)                                                   \
    do {                                                                                           \
        if (team_is_warp((rows), (columns)))                                                       \
            LAUNCH(kernel, cuda_blocks((rows), TEAM_WARPS), TEAM_THREADS, team<WARP>(),            \
                   __VA_ARGS__);                                                                   \
        else                                                                                       \
            LAUNCH(kernel, cuda_blocks((rows), 1), TEAM_THREADS, team<TEAM_THREADS>(),             \
                   __VA_ARGS__);                                                                   \
    } while (0)

#endif
