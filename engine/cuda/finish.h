/* finish.h - what becomes of a layer's number in the launch that makes it: see linear_forward. */
#ifndef ENGINE_CUDA_FINISH_H
#define ENGINE_CUDA_FINISH_H

#include "engine/cuda/half.h"

static __device__ __forceinline__ float activated(enum activation kind, float x)
{
    switch (kind) {
#define ACTIVATED(NAME, name)                                                                      \
    case ACTIVATION_##NAME:                                                                        \
        return scalar_##name(x);
        ACTIVATIONS(ACTIVATED)
#undef ACTIVATED
    case ACTIVATION_COUNT:
        break;
    }
    return x;
}

/* x rounded to half, the kind's function of it unless that is ACTIVATION_COUNT, rounded again, and
 * left in 16 bits at kept[at], unless that is NULL. */
static __device__ __forceinline__ float finished(enum activation kind, enum half half,
                                                 uint16_t *kept, uint64_t at, float x)
{
    x = half_rounded(half, x);
    if (kind != ACTIVATION_COUNT)
        x = half_rounded(half, activated(kind, x));
    if (kept)
        kept[at] = half == HALF_F16 ? half_F16::narrow(x) : half_BF16::narrow(x);
    return x;
}

#endif
