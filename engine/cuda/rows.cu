/* rows.cu - operations on matrices, a number at a time: bias, dropout, rows that begin, the order
 * of steps. */
#include "engine/cuda/map.h"

struct biased {
    const float *bias;
    __device__ const float *row(uint64_t) const
    {
        return bias;
    }
    __device__ float operator()(const float *of, uint64_t c, float y) const
    {
        return y + of[c];
    }
};

void cuda_bias_add(struct matrix y, const float *bias)
{
    map(biased{bias}, y, y);
}

/* The mask's key may be the device's to read. */
struct dropped {
    struct dropout_mask mask;
    uint32_t threshold;
    float scale;
    __device__ uint64_t row(uint64_t r) const
    {
        return scalar_key(dropout_key(&mask), mask.row_first + r, 0);
    }
    __device__ float operator()(uint64_t row_key, uint64_t c, float x) const
    {
        return scalar_dropout(x, scalar_unit_bits(row_key, (uint32_t)c), threshold, scale);
    }
};

void cuda_dropout(struct matrix x, struct matrix y, const struct dropout_mask *mask)
{
    map(dropped{*mask, (uint32_t)(mask->p * 0x1p32), (float)(1.0 / (1.0 - mask->p))}, x, y);
}

struct begun {
    const float *begins;
    __device__ int row(uint64_t r) const
    {
        return begins[r] != 0;
    }
    __device__ float operator()(int begins_here, uint64_t, float x) const
    {
        return begins_here ? 0 : x;
    }
};

void cuda_begin_rows(const float *begins, struct matrix x, struct matrix y)
{
    map(begun{begins}, x, y);
}

/* A row of y is a step of a row: number t rows + r. */
__global__ void steps_move(const float *x, uint64_t stride, uint64_t rows, uint64_t steps,
                           uint64_t values, float *y)
{
    FOR_ROWS(p, rows * steps)
    {
        const float *from = x + p % rows * stride + p / rows * values;
        FOR_COLUMNS(c, values)
        y[p * values + c] = from[c];
    }
}

void cuda_steps_swap(const float *x, uint64_t stride, uint64_t rows, uint64_t steps,
                     uint64_t values, float *y)
{
    struct map_grid g = map_grid(rows * steps, values);
    if (steps && values)
        LAUNCH(steps_move, g.blocks, g.threads, x, stride, rows, steps, values, y);
}
