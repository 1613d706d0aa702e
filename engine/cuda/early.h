/* early.h - launches that need not wait to begin, and blocks in clusters: on GPUs of compute
 * capability 9.0; elsewhere they are launches like others.
 *
 * A step of a small model is a chain of short kernels, each of which costs more to begin than to
 * work. A kernel that is launched early is on its multiprocessors when the one before it ends: it
 * calls launch_wait before it touches the device's memory, and no sooner is anything of it seen.
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
#define LAUNCH_EARLY LAUNCH
/* Neighbouring blocks, so many, as a cluster: there are none here. */
#define LAUNCH_CLUSTERS(kernel, blocks, threads, bytes, cluster, ...)                              \
    LAUNCH_SHARED(kernel, (cluster) ? dim3(blocks) : dim3(0), threads, bytes, __VA_ARGS__)
#define CUDA_CLUSTERS                                     0
#define CLUSTERS_AT_ONCE(kernel, threads, bytes, cluster) 0
#else
#define CUDA_CLUSTERS (CUDA_MOST_CAPABILITY >= 90 && cuda_capability >= 90)
int cuda_early(void);

template <typename... wanted, typename... given>
static inline void cuda_launch_early(const char *name, dim3 blocks, dim3 threads, size_t bytes,
                                     unsigned cluster, void (*kernel)(wanted...),
                                     given... arguments)
{
    cudaLaunchAttribute attributes[2] = {};
    cudaLaunchConfig_t config = {};
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = cuda_early();
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim = {cluster, 1, 1};
    config.gridDim = blocks, config.blockDim = threads;
    config.dynamicSmemBytes = bytes, config.stream = cuda_stream;
    config.attrs = attributes, config.numAttrs = !CUDA_CLUSTERS ? 0 : cluster > 1 ? 2 : 1;
    cudaLaunchKernelEx(&config, kernel, arguments...);
    cuda_launched(name);
}

/* How many such clusters the device has at a time. */
template <typename... wanted>
static inline int cuda_clusters(void (*kernel)(wanted...), unsigned threads, size_t bytes,
                                unsigned cluster)
{
    cudaLaunchAttribute attribute = {};
    cudaLaunchConfig_t config = {};
    int count = 0;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {cluster, 1, 1};
    config.gridDim = cluster, config.blockDim = threads, config.dynamicSmemBytes = bytes;
    config.attrs = &attribute, config.numAttrs = 1;
    if (!CUDA_CLUSTERS || cudaOccupancyMaxActiveClusters(&count, kernel, &config) != cudaSuccess)
        cudaGetLastError(), count = 0;
    return count;
}
#define CLUSTERS_AT_ONCE(kernel, threads, bytes, cluster)                                          \
    cuda_clusters(kernel, threads, bytes, cluster)

#define LAUNCH_EARLY(kernel, blocks, threads, ...)                                                 \
    LAUNCH_CLUSTERS(kernel, blocks, threads, 0, 1, __VA_ARGS__)
/* The same with neighbouring blocks, so many, as a cluster: 1 unless CUDA_CLUSTERS. */
#define LAUNCH_CLUSTERS(kernel, blocks, threads, bytes, cluster, ...)                              \
    cuda_launch_early(#kernel, (blocks), (threads), (bytes), (cluster), (kernel), __VA_ARGS__)
#endif

#endif
