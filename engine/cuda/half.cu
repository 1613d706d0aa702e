/* half.cu - numbers of 16 bits: storing, loading, rounding; four a thread where the addresses allow
 * it. */
#include "engine/cuda/early.h"
#include "engine/cuda/map.h"

static uint64_t halves_fours(uint64_t count, const float *x, const uint16_t *h)
{
    return (uintptr_t)h % sizeof(struct four_halves) == 0 ? map_fours(count, x, NULL, NULL) : 0;
}

template <typename half>
__global__ void halves_store(half, float *x, uint16_t *h, uint64_t fours, uint64_t count)
{
    launch_wait();
    FOR_ITEMS(i, fours)
    {
        float4 v = ((float4 *)x)[i];
        struct four_halves n = halves_narrow<half>(v);
        ((struct four_halves *)h)[i] = n;
        ((float4 *)x)[i] = halves_widen<half>(n);
    }
    FOR_ITEMS(k, count - fours * FOUR)
    {
        uint64_t i = fours * FOUR + k;
        h[i] = half::narrow(x[i]);
        x[i] = half::widen(h[i]);
    }
}

/* y = what h holds, or that is added to it. */
template <typename half>
__global__ void halves_load(half, const uint16_t *h, float *y, int adds, uint64_t fours,
                            uint64_t count)
{
    launch_wait();
    FOR_ITEMS(i, fours)
    {
        struct four_halves n = ((const struct four_halves *)h)[i];
        float4 v = adds ? ((float4 *)y)[i] : make_float4(0, 0, 0, 0);
        float4 w = halves_widen<half>(n);
        if (adds)
            w = make_float4(v.x + w.x, v.y + w.y, v.z + w.z, v.w + w.w);
        ((float4 *)y)[i] = w;
    }
    FOR_ITEMS(k, count - fours * FOUR)
    {
        uint64_t i = fours * FOUR + k;
        float w = half::widen(h[i]);
        y[i] = adds ? y[i] + w : w;
    }
}

template <typename half> static void store(half kind, float *x, uint16_t *h, uint64_t count)
{
    uint64_t fours = halves_fours(count, x, h);
    if (count)
        LAUNCH_EARLY(halves_store<half>, cuda_blocks(fours ? fours : count, MAP_THREADS),
                     MAP_THREADS, kind, x, h, fours, count);
}

template <typename half>
static void load(half kind, const uint16_t *h, float *y, int adds, uint64_t count)
{
    uint64_t fours = halves_fours(count, y, h);
    if (count)
        LAUNCH_EARLY(halves_load<half>, cuda_blocks(fours ? fours : count, MAP_THREADS),
                     MAP_THREADS, kind, h, y, adds, fours, count);
}

void cuda_store_half(enum half kind, float *x, uint16_t *h, uint64_t count)
{
    if (kind == HALF_F16)
        store(half_F16(), x, h, count);
    else
        store(half_BF16(), x, h, count);
}

void cuda_load_half(enum half kind, const uint16_t *h, float *x, uint64_t count)
{
    if (kind == HALF_F16)
        load(half_F16(), h, x, 0, count);
    else
        load(half_BF16(), h, x, 0, count);
}

void cuda_add_half(enum half kind, const uint16_t *h, float *y, uint64_t count)
{
    if (kind == HALF_F16)
        load(half_F16(), h, y, 1, count);
    else
        load(half_BF16(), h, y, 1, count);
}

template <typename half> struct rounded {
    __device__ int row(uint64_t) const
    {
        return 0;
    }
    __device__ float operator()(float x) const
    {
        return half::widen(half::narrow(x));
    }
    __device__ float operator()(int, uint64_t, float x) const
    {
        return half::widen(half::narrow(x));
    }
};

template <typename half> static void round_all(rounded<half> f, struct matrix x)
{
    if (x.stride == x.columns)
        map(f, x.at, x.at, x.rows * x.columns);
    else
        map(f, x, x);
}

void cuda_round_half(enum half kind, struct matrix x)
{
    if (kind == HALF_F16)
        round_all(rounded<half_F16>(), x);
    else
        round_all(rounded<half_BF16>(), x);
}
