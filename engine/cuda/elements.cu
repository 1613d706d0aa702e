/* elements.cu - operations on arrays, a number at a time: activations, sums and products in place,
 * zeros and copies (kernels, so that a recorded sequence has nothing else in it); and what the host
 * delivers. */
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

/* ---- rounded to 16 bits, and kept in them ---- */

/* h NULL: not wanted. x may be y, whose numbers a thread reads before it writes them. */
template <typename function, typename half>
__global__ void map_halves_out(function f, half, const float *x, float *y, uint16_t *h,
                               uint64_t fours, uint64_t count)
{
    FOR_ITEMS(i, fours)
    {
        float4 v = ((const float4 *)x)[i];
        struct four_halves n = halves_narrow<half>(four_of(f, v));
        if (h)
            ((struct four_halves *)h)[i] = n;
        ((float4 *)y)[i] = halves_widen<half>(n);
    }
    FOR_ITEMS(k, count - fours * FOUR)
    {
        uint64_t i = fours * FOUR + k;
        uint16_t n = half::narrow(f(x[i]));
        if (h)
            h[i] = n;
        y[i] = half::widen(n);
    }
}

/* dx may be dy. */
template <typename function, typename half>
__global__ void map_halves_in(function f, half, const uint16_t *kept, const float *dy, float *dx,
                              uint64_t fours, uint64_t count)
{
    FOR_ITEMS(i, fours)
    {
        float4 d = halves_widen<half>(halves_narrow<half>(((const float4 *)dy)[i]));
        float4 k = halves_widen<half>(((const struct four_halves *)kept)[i]);
        ((float4 *)dx)[i] = halves_widen<half>(halves_narrow<half>(four_of(f, k, d)));
    }
    FOR_ITEMS(k, count - fours * FOUR)
    {
        uint64_t i = fours * FOUR + k;
        float d = half::widen(half::narrow(dy[i]));
        dx[i] = half::widen(half::narrow(f(half::widen(kept[i]), d)));
    }
}

template <typename function, typename half>
static void map_out(function f, half kind, const float *x, float *y, uint16_t *h, uint64_t count)
{
    uint64_t fours = (uintptr_t)h % sizeof(struct four_halves) ? 0 : map_fours(count, x, y, NULL);
    if (count)
        LAUNCH(map_halves_out, cuda_blocks(fours ? fours : count, MAP_THREADS), MAP_THREADS, f,
               kind, x, y, h, fours, count);
}

template <typename function, typename half>
static void map_in(function f, half kind, const uint16_t *kept, const float *dy, float *dx,
                   uint64_t count)
{
    uint64_t fours =
        (uintptr_t)kept % sizeof(struct four_halves) ? 0 : map_fours(count, dy, dx, NULL);
    if (count)
        LAUNCH(map_halves_in, cuda_blocks(fours ? fours : count, MAP_THREADS), MAP_THREADS, f, kind,
               kept, dy, dx, fours, count);
}

void cuda_activation_forward_half(enum activation kind, enum half half, const float *x, float *y,
                                  uint16_t *h, uint64_t count)
{
    switch (kind) {
#define FORWARD_HALF(KIND, NAME)                                                                   \
    case ACTIVATION_##KIND:                                                                        \
        if (half == HALF_F16)                                                                      \
            map_out(NAME##_forward(), half_F16(), x, y, h, count);                                 \
        else                                                                                       \
            map_out(NAME##_forward(), half_BF16(), x, y, h, count);                                \
        return;
        ACTIVATIONS(FORWARD_HALF)
    case ACTIVATION_COUNT:
        return;
    }
}

void cuda_activation_backward_half(enum activation kind, enum half half, const uint16_t *kept,
                                   const float *dy, float *dx, uint64_t count)
{
    switch (kind) {
#define BACKWARD_HALF(KIND, NAME)                                                                  \
    case ACTIVATION_##KIND:                                                                        \
        if (half == HALF_F16)                                                                      \
            map_in(NAME##_backward(), half_F16(), kept, dy, dx, count);                            \
        else                                                                                       \
            map_in(NAME##_backward(), half_BF16(), kept, dy, dx, count);                           \
        return;
        ACTIVATIONS(BACKWARD_HALF)
    case ACTIVATION_COUNT:
        return;
    }
}

/* ---- sums, products, copies ---- */

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

/* ---- what has come from the host ---- */

/* In units of 16 bytes; a parcel a row of the grid. */
struct parcels {
    uint4 *to[DEVICE_PARCELS_MAX];
    const uint4 *by[DEVICE_PARCELS_MAX];
    uint64_t units[DEVICE_PARCELS_MAX];
};

__global__ void parcels_copy(struct parcels p)
{
    unsigned row = blockIdx.y;
    FOR_ITEMS(i, p.units[row])
    p.to[row][i] = p.by[row][i];
}

void cuda_parcels_copy(const struct device_parcel *parcels, int count)
{
    struct parcels p = {};
    uint64_t most = 0;
    for (int i = 0; i < count; i++) {
        uint64_t units = (parcels[i].bytes + sizeof(uint4) - 1) / sizeof(uint4);
        p.to[i] = (uint4 *)parcels[i].to;
        p.by[i] = (const uint4 *)parcels[i].by;
        p.units[i] = units;
        most = units > most ? units : most;
    }
    if (count)
        LAUNCH(parcels_copy, dim3(cuda_blocks(most, MAP_THREADS), (unsigned)count), MAP_THREADS, p);
}
