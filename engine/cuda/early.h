/* early.h - launches that need not wait to begin: on GPUs of compute capability 9.0; elsewhere they
 * are launches like others.
 *
 * A step of a small model is a chain of short kernels, each of which costs more to begin than to
 * work. A kernel that is launched early is on its multiprocessors when the one before it ends: it
 * calls launch_wait before it touches the device's memory, and no sooner is anything of it seen. A
 * lane's first kernel behind what it awaits of another lane is launched like others: recorded, it
 * depends on several, of which an early one would have to be told from the rest.
 */
#ifndef ENGINE_CUDA_EARLY_H
#define ENGINE_CUDA_EARLY_H

#include "engine/cuda/cuda.h"

/* What was asked for before this kernel is done behind it, and the next kernel may come. */
static __device__ __forceinline__ void launch_wait(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;\n\tgriddepcontrol.wait;" ::: "memory");
#endif
}

#ifdef CUDA_EMULATED
#define LAUNCH_EARLY        LAUNCH
#define LAUNCH_EARLY_SHARED LAUNCH_SHARED
#else
extern int cuda_joined[LANES]; /* it has awaited another, and launched no kernel since */

template <typename... wanted, typename... given>
static inline void cuda_launch_early(const char *name, dim3 blocks, dim3 threads, size_t bytes,
                                     void (*kernel)(wanted...), given... arguments)
{
    cudaLaunchAttribute early = {};
    cudaLaunchConfig_t config = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = blocks, config.blockDim = threads;
    config.dynamicSmemBytes = bytes, config.stream = cuda_stream;
    config.attrs = &early;
    config.numAttrs =
        CUDA_MOST_CAPABILITY >= 90 && cuda_capability >= 90 && !cuda_joined[cuda_lane];
    cudaLaunchKernelEx(&config, kernel, arguments...);
    cuda_launched(name);
}

#define LAUNCH_EARLY(kernel, blocks, threads, ...)                                                 \
    LAUNCH_EARLY_SHARED(kernel, blocks, threads, 0, __VA_ARGS__)
#define LAUNCH_EARLY_SHARED(kernel, blocks, threads, bytes, ...)                                   \
    cuda_launch_early(#kernel, (blocks), (threads), (bytes), (kernel), __VA_ARGS__)
#endif

#endif
