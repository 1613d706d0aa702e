/* cuda.h - what the files of the CUDA backend share: launches, the stream, errors, reductions.
 *
 * The same sources are compiled twice: by nvcc for GPUs, and by g++ with CUDA_EMULATED, where
 * blocks are loops and a block's threads are fibers (emulate.h), so that every kernel runs in the
 * ordinary tests and under the sanitizers. All launches go through LAUNCH. Kernels are
 * deterministic: no atomics on floating-point numbers, sums in an order that the launch's shape
 * fixes.
 */
#ifndef ENGINE_CUDA_CUDA_H
#define ENGINE_CUDA_CUDA_H

#include <stdint.h>

#ifdef CUDA_EMULATED
#include "engine/cuda/emulate.h"
#else
#include <cuda_runtime.h>
#endif

extern "C" {
#include "engine/device.h"

#include "proto/err.h"
}

/* cuda_NAME for every operation, declared from ops.def. */
extern "C" {
#define OP(name, args, names, what) void cuda_##name args;
#include "engine/ops.def"
#undef OP
}

#ifdef CUDA_EMULATED
/* kernel<<<blocks, threads>>>(arguments) on the computing stream. */
#define LAUNCH(kernel, blocks, threads, ...) LAUNCH_SHARED(kernel, blocks, threads, 0, __VA_ARGS__)
#define LAUNCH_SHARED(kernel, blocks, threads, bytes, ...)                                         \
    emulate_launch(#kernel, (blocks), (threads), (bytes),                                          \
                   emulate_bind([](auto... given) { kernel(given...); }, __VA_ARGS__))
#define SHARED_DYNAMIC(type, name)  type *name = (type *)emulate_shared()
#define SHARED_ALLOW(kernel, bytes) ((bytes) <= cuda_shared_bytes)
#else
extern cudaStream_t cuda_stream;
void cuda_launched(const char *kernel); /* takes the launch's error */
#define LAUNCH_SHARED(kernel, blocks, threads, bytes, ...)                                         \
    do {                                                                                           \
        kernel<<<(blocks), (threads), (bytes), cuda_stream>>>(__VA_ARGS__);                        \
        cuda_launched(#kernel);                                                                    \
    } while (0)
#define LAUNCH(kernel, blocks, threads, ...) LAUNCH_SHARED(kernel, blocks, threads, 0, __VA_ARGS__)
#define SHARED_DYNAMIC(type, name)           extern __shared__ __align__(16) type name[]
/* Before a launch with so much shared memory, which may be more than every kernel has: 0 where a
 * block cannot have it. */
#define SHARED_ALLOW(kernel, bytes)                                                                \
    ((bytes) <= cuda_shared_bytes &&                                                               \
     cudaFuncSetAttribute((kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes)) ==  \
         cudaSuccess)
#endif

/* The lane that is taken (engine/ops.h). What has scratch that all launches of an operation share
 * (cuda_partials, cuda_scratch, tickets) is asked of the main one alone. */
extern unsigned cuda_lane;
#define CUDA_MAIN_LANE() ensure(cuda_lane == LANE_MAIN)
/* The backend's, for an operation whose launches need not follow each other; marks are free again
 * where all lanes have been awaited. */
void cuda_lane_take(unsigned lane);
void cuda_lane_mark(unsigned mark);
void cuda_lane_await(unsigned mark);

/* device.deliver's way on the device, in one launch. */
void cuda_parcels_copy(const struct device_parcel *parcels, int count);

enum { WARP = 32, CUDA_SCRATCH_FLOATS = 3 << 20 };
#ifdef CUDA_EMULATED
enum { CUDA_BLOCKS_MAX = 64 }; /* small shapes go past one grid */
#else
enum { CUDA_BLOCKS_MAX = 4096 };
#endif

/* Of the open device: multiprocessors, compute capability (10 major + minor), shared memory that a
 * block can have. */
extern int cuda_processors, cuda_capability;
extern uint64_t cuda_shared_bytes;
extern int cuda_products_rounded; /* to TF32: device.products_rounded */

/* Device memory for what a launch leaves for the next one of the same operation: partial sums. Both
 * are allocated when the device is opened. */
extern double *cuda_partials; /* [CUDA_BLOCKS_MAX] */
extern float *cuda_scratch;   /* [CUDA_SCRATCH_FLOATS] */

/* Blocks of `threads` for `items`, at most CUDA_BLOCKS_MAX: kernels take the rest in strides (or
 * give no more than one item a thread, and say so). At least one. */
static inline unsigned cuda_blocks(uint64_t items, unsigned threads)
{
    uint64_t blocks = (items + threads - 1) / threads;
    uint64_t limit = CUDA_BLOCKS_MAX, most = blocks < limit ? blocks : limit;
    return (unsigned)(most ? most : 1);
}

/* for each item i of this thread, in strides over the grid (one dimension) */
#define FOR_ITEMS(i, count)                                                                        \
    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (count);                \
         i += (uint64_t)gridDim.x * blockDim.x)

/* The loop behind it, so many rounds at once. */
#ifdef CUDA_EMULATED
#define UNROLL(rounds)
#else
#define CUDA_PRAGMA(text) _Pragma(#text)
#define UNROLL(rounds)    CUDA_PRAGMA(unroll rounds)
#endif

/* Sum over the lanes of a warp, in every lane; in a fixed order. */
template <typename number> static __device__ __forceinline__ number warp_sum(number x)
{
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, lanes);
    return x;
}

/* Sum over a block of whole warps (at most 1,024 threads), in every thread. All threads call it.
 * part: WARP numbers of shared memory, free again behind the next barrier. */
template <typename number>
static __device__ __forceinline__ number block_sum(number x, number *part)
{
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    x = warp_sum(x);
    if (lane == 0)
        part[warp] = x;
    __syncthreads();
    x = lane < warps ? part[lane] : 0;
    x = warp_sum(x);
    __syncthreads();
    return x;
}

/* *ticket before one is added. What this thread knows of as written is seen behind it by those that
 * take a later one. */
static __device__ __forceinline__ unsigned ticket_take(unsigned *ticket)
{
#ifdef __CUDA_ARCH__
    unsigned before;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(__cvta_generic_to_global(ticket))
                 : "memory");
    return before;
#else
    return atomicAdd(ticket, 1u);
#endif
}

/* Is this the last of `blocks` blocks to come here? It may then read what they all wrote before.
 * All threads of each of them call it, once a launch. *ticket, which is theirs alone, is 0 between
 * launches. */
static __device__ __forceinline__ int block_is_last(unsigned *ticket, unsigned blocks)
{
    __shared__ int last;
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0) {
        last = ticket_take(ticket) == blocks - 1;
        if (last)
            *ticket = 0;
    }
    __syncthreads();
    return last;
}

#endif
