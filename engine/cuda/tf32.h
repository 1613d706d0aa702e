/* tf32.h - a warp's product on the tensor cores of float32 numbers: c[16, 8] += a[16, 8] b[8, 8].
 *
 * The tensor cores take 10 bits of mantissa (TF32). A number is the sum of a rounded one and the
 * rounded rest, 21 bits, so three products of those give what float32 gives (the fourth is below
 * its last bit); numbers that came from 16 bits need one.
 *
 * Each lane holds, q being lane % 4 and g being lane / 4:
 *   a[0], a[1]  column q of rows g and g + 8; a[2], a[3]  column q + 4
 *   b[0], b[1]  column g of rows q and q + 4
 *   c[0], c[1]  row g, columns 2 q and 2 q + 1; c[2], c[3]  row g + 8
 * GPUs before compute capability 8.0 have no such instructions; what calls it is not launched
 * there.
 */
#ifndef ENGINE_CUDA_TF32_H
#define ENGINE_CUDA_TF32_H

#include "engine/cuda/cuda.h"

struct tf32_pair {
    uint32_t big, rest;
};

static __device__ __forceinline__ uint32_t tf32_round(float x)
{
#if defined(CUDA_EMULATED)
    return (__float_as_uint(x) + 0x1000u) & ~0x1fffu;
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
#else
    return __float_as_uint(x);
#endif
}

static __device__ __forceinline__ struct tf32_pair tf32_split(float x)
{
    struct tf32_pair p;
    p.big = tf32_round(x);
    float rest = x - __uint_as_float(p.big);
    /* of what is not finite nothing is left, so that it stays what it is */
    p.rest = fabsf(rest) <= 3e38f ? tf32_round(rest) : 0;
    return p;
}

#ifndef CUDA_EMULATED

static __device__ __forceinline__ void tf32_mma(float c[4], const uint32_t a[4],
                                                const uint32_t b[2])
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    __trap();
#endif
}

#else

static inline __attribute__((unused)) void tf32_mma(float c[4], const uint32_t a[4],
                                                    const uint32_t b[2])
{
    enum { WARPS_MAX = 32 };
    static float all_a[WARPS_MAX][WARP][4], all_b[WARPS_MAX][WARP][2];
    unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    for (int i = 0; i < 4; i++)
        all_a[warp][lane][i] = __uint_as_float(a[i]);
    for (int i = 0; i < 2; i++)
        all_b[warp][lane][i] = __uint_as_float(b[i]);
    __syncwarp();
    for (int i = 0; i < 4; i++) {
        unsigned row = lane / 4, column = lane % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 8; k++)
            c[i] += all_a[warp][row * 4 + k % 4][i / 2 + k / 4 * 2] *
                    all_b[warp][column * 4 + k % 4][k / 4];
    }
    __syncwarp();
}

#endif

#endif
