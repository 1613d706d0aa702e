/* copies.h - copies from the device's memory to shared memory that a thread does not wait for: 16
 * bytes each, in groups, of which it waits for the older ones. What a thread has copied it sees
 * when it has waited, and others behind the next barrier. */
#ifndef ENGINE_CUDA_COPIES_H
#define ENGINE_CUDA_COPIES_H

#include "engine/cuda/cuda.h"

static __device__ __forceinline__ void copy_begin(void *shared, const void *from)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(shared)),
                 "l"(from)
                 : "memory");
#else
    *(uint4 *)shared = *(const uint4 *)from;
#endif
}

/* What has begun since the last one is a group. */
static __device__ __forceinline__ void copy_group(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* For all groups but the last so many. */
template <int last> static __device__ __forceinline__ void copy_wait(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(last) : "memory");
#endif
}

#endif
