/* elements.cu - operations on arrays, a number at a time: activations, sums and products in place,
 * zeros and copies (kernels, so that a recorded sequence has nothing else in it). */
#include "engine/cuda/map.h"

/* The activations, from scalar.h. */
#define FUNCTIONS(KIND, NAME)                                                                      \
    struct NAME##_forward {                                                                        \
        __device__ float operator()(float x) const                                                 \
        {                                                                                          \
            return scalar_##NAME(x);                                                               \
        }                                                                                          \
    };                                                                                             \
    struct NAME##_backward {                                                                       \
        __device__ float operator()(float kept, float dy) const                                    \
        {                                                                                          \
            return scalar_##NAME##_backward(kept, dy);                                             \
        }                                                                                          \
    };
ACTIVATIONS(FUNCTIONS)

void cuda_activation_forward(enum activation kind, const float *x, float *y, uint64_t count)
{
    switch (kind) {
#define FORWARD(KIND, NAME)                                                                        \
    case ACTIVATION_##KIND:                                                                        \
        map(NAME##_forward(), x, y, count);                                                        \
        return;
        ACTIVATIONS(FORWARD)
    case ACTIVATION_COUNT:
        return;
    }
}

void cuda_activation_backward(enum activation kind, const float *kept, const float *dy, float *dx,
                              uint64_t count)
{
    switch (kind) {
#define BACKWARD(KIND, NAME)                                                                       \
    case ACTIVATION_##KIND:                                                                        \
        map(NAME##_backward(), kept, dy, dx, count);                                               \
        return;
        ACTIVATIONS(BACKWARD)
    case ACTIVATION_COUNT:
        return;
    }
}

struct same {
    __device__ float operator()(float x) const
    {
        return x;
    }
};

void cuda_copy(const float *x, float *y, uint64_t count)
{
    map(same(), x, y, count);
}

struct scaled {
    float factor;
    __device__ float operator()(float x) const
    {
        return x * factor;
    }
};

void cuda_scale(float factor, float *x, uint64_t count)
{
    map(scaled{factor}, x, x, count);
}

struct sum {
    __device__ float operator()(float y, float x) const
    {
        return y + x;
    }
};

void cuda_add(const float *x, float *y, uint64_t count)
{
    map(sum(), y, x, y, count);
}

struct sum_with_square {
    __device__ float operator()(float y, float x) const
    {
        return y + x * x;
    }
};

void cuda_add_square(const float *x, float *y, uint64_t count)
{
    map(sum_with_square(), y, x, y, count);
}

struct multiplied {
    __device__ float operator()(float y, float x) const
    {
        return y * x;
    }
};

void cuda_multiply(const float *x, float *y, uint64_t count)
{
    map(multiplied(), y, x, y, count);
}

__global__ void zero_fill(float *x, uint64_t fours, uint64_t count)
{
    FOR_ITEMS(i, fours)
    ((float4 *)x)[i] = make_float4(0, 0, 0, 0);
    FOR_ITEMS(i, count - fours * FOUR)
    x[fours * FOUR + i] = 0;
}

void cuda_zero(float *x, uint64_t count)
{
    uint64_t fours = map_fours(count, x, NULL, NULL);
    if (count)
        LAUNCH(zero_fill, cuda_blocks(fours ? fours : count, MAP_THREADS), MAP_THREADS, x, fours,
               count);
}

__global__ void narrow_all(const double *x, float *y, uint64_t count)
{
    FOR_ITEMS(i, count)
    y[i] = (float)x[i];
}

void cuda_narrow(const double *x, float *y, uint64_t count)
{
    if (count)
        LAUNCH(narrow_all, cuda_blocks(count, MAP_THREADS), MAP_THREADS, x, y, count);
}
