/* half.h - numbers of 16 bits in kernels, one or four at a time. */
#ifndef ENGINE_CUDA_HALF_H
#define ENGINE_CUDA_HALF_H

#include "engine/cuda/cuda.h"

enum { FOUR = 4 }; /* numbers of one load */

/* The nearest number of the kind, as scalar.h has it, where there is one by its instruction. */
template <int kind> static __device__ __forceinline__ uint16_t half_bits(float x)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint16_t bits;
    if (kind == HALF_BF16)
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    else
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
#else
    return kind == HALF_BF16 ? scalar_to_brain(x) : scalar_to_half(x);
#endif
}

template <int kind> static __device__ __forceinline__ float half_value(uint16_t bits)
{
#ifdef __CUDA_ARCH__
    float x;
    if (kind == HALF_BF16)
        return __uint_as_float((uint32_t)bits << 16);
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
#else
    return kind == HALF_BF16 ? scalar_brain(bits) : scalar_half(bits);
#endif
}

/* The kinds as types. */
#define KINDS(NAME, WIDEN, NARROW)                                                                 \
    struct half_##NAME {                                                                           \
        static __device__ __forceinline__ float widen(uint16_t h)                                  \
        {                                                                                          \
            return half_value<HALF_##NAME>(h);                                                     \
        }                                                                                          \
        static __device__ __forceinline__ uint16_t narrow(float x)                                 \
        {                                                                                          \
            return half_bits<HALF_##NAME>(x);                                                      \
        }                                                                                          \
    };
HALVES(KINDS)

struct __align__(8) four_halves
{
    uint16_t at[FOUR];
};

template <typename half>
static __device__ __forceinline__ struct four_halves halves_narrow(float4 x)
{
    return {{half::narrow(x.x), half::narrow(x.y), half::narrow(x.z), half::narrow(x.w)}};
}

template <typename half>
static __device__ __forceinline__ float4 halves_widen(const struct four_halves &h)
{
    return make_float4(half::widen(h.at[0]), half::widen(h.at[1]), half::widen(h.at[2]),
                       half::widen(h.at[3]));
}

/* x rounded to the kind, which is the same for all threads; HALF_NONE: x. */
static __device__ __forceinline__ float half_rounded(enum half kind, float x)
{
    if (kind == HALF_F16)
        return half_F16::widen(half_F16::narrow(x));
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    if (kind == HALF_BF16) { /* in the upper half of two of them it is the float */
        uint32_t both;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(x), "f"(0.0f));
        return __uint_as_float(both);
    }
    return x;
#else
    return kind == HALF_BF16 ? half_BF16::widen(half_BF16::narrow(x)) : x;
#endif
}

static __device__ __forceinline__ float4 half_rounded(enum half kind, float4 x)
{
    return make_float4(half_rounded(kind, x.x), half_rounded(kind, x.y), half_rounded(kind, x.z),
                       half_rounded(kind, x.w));
}

#endif
