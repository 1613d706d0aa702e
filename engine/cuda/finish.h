/* finish.h - what becomes of a layer's number in the launch that makes it: see linear_forward,
 * linear_backward. */
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

/* Seldom there: not worth its instructions four times over. */
static __device__ __noinline__ float activated_apart(enum activation kind, float x)
{
    return activated(kind, x);
}

/* finished, of a number or two of each thread. */
static __device__ __forceinline__ float finished_apart(enum activation kind, enum half half,
                                                       uint16_t *kept, uint64_t at, float x)
{
    x = half_rounded(half, x);
    x = kind == ACTIVATION_RELU ? scalar_relu(x) : half_rounded(half, activated_apart(kind, x));
    return finished(ACTIVATION_COUNT, half, kept, at, x);
}

/* The same of four numbers. kept: where they go in 16 bits, or NULL. */
template <int half>
static __device__ __forceinline__ float4 four_finished(enum activation kind, uint16_t *kept,
                                                       float4 v)
{
    v = half_rounded((enum half)half, v);
    if (kind == ACTIVATION_RELU) /* of a rounded number it is one */
        v = make_float4(scalar_relu(v.x), scalar_relu(v.y), scalar_relu(v.z), scalar_relu(v.w));
    else if (kind != ACTIVATION_COUNT)
        v = half_rounded((enum half)half,
                         make_float4(activated_apart(kind, v.x), activated_apart(kind, v.y),
                                     activated_apart(kind, v.z), activated_apart(kind, v.w)));
    if (half && kept)
        *(struct four_halves *)kept =
            half == HALF_F16 ? halves_narrow<half_F16>(v) : halves_narrow<half_BF16>(v);
    return v;
}

/* d times the derivative of the kind, one of those that tell it by their output, which is y; d
 * where it is ACTIVATION_COUNT. */
static __device__ __forceinline__ float sloped(enum activation kind, float y, float d)
{
    if (kind == ACTIVATION_RELU)
        return scalar_relu_backward(y, d);
    if (kind == ACTIVATION_TANH)
        return scalar_tanh_backward(y, d);
    return kind == ACTIVATION_SIGMOID ? scalar_sigmoid_backward(y, d) : d;
}

/* The same of four numbers: the kind, which is the same for all threads, is looked at once. */
static __device__ __forceinline__ float4 sloped(enum activation kind, float4 y, float4 d)
{
    if (kind == ACTIVATION_RELU)
        return make_float4(scalar_relu_backward(y.x, d.x), scalar_relu_backward(y.y, d.y),
                           scalar_relu_backward(y.z, d.z), scalar_relu_backward(y.w, d.w));
    if (kind == ACTIVATION_COUNT)
        return d;
    return make_float4(sloped(kind, y.x, d.x), sloped(kind, y.y, d.y), sloped(kind, y.z, d.z),
                       sloped(kind, y.w, d.w));
}

/* One of these of d rounded to half, rounded again, if it rounds: a number too large for 16 bits is
 * infinite before the derivative makes it small. */
template <int half, typename numbers>
static __device__ __forceinline__ numbers sloped_rounded(enum activation kind, int rounds,
                                                         numbers y, numbers d)
{
    if (!rounds)
        return sloped(kind, y, d);
    d = half_rounded((enum half)half, d);
    return kind == ACTIVATION_COUNT ? d : half_rounded((enum half)half, sloped(kind, y, d));
}

#endif
