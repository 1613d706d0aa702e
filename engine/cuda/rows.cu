/* rows.cu - operations on matrices, a number at a time: bias, dropout, rows that begin, the order
 * of steps, and of rows. */
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

/* The same in 16 bits, and 0 behind the values; `each` numbers a thread, which are 16 bytes or one.
 */
template <int kind, int each>
__global__ void steps_move_narrow(const float *x, uint64_t stride, uint64_t rows, uint64_t steps,
                                  uint64_t values, struct halves y)
{
    FOR_ROWS(p, rows * steps)
    {
        const float *from = x + p % rows * stride + p / rows * values;
        FOR_COLUMNS(i, y.columns / each)
        {
            __align__(16) uint16_t narrow[each];
            UNROLL(8)
            for (int k = 0; k < each; k++)
                narrow[k] = i * each + k < values ? half_bits<kind>(from[i * each + k]) : 0;
            if (each == 8)
                *(uint4 *)(y.at + p * y.stride + i * each) = *(const uint4 *)narrow;
            else
                y.at[p * y.stride + i] = narrow[0];
        }
    }
}

template <int kind>
static void steps_narrow(const float *x, uint64_t stride, uint64_t rows, uint64_t steps,
                         uint64_t values, struct halves y)
{
    int eights = ((uintptr_t)y.at / 2 | y.stride | y.columns) % 8 == 0;
    struct map_grid g = map_grid(rows * steps, eights ? y.columns / 8 : y.columns);
    if (eights)
        LAUNCH((steps_move_narrow<kind, 8>), g.blocks, g.threads, x, stride, rows, steps, values,
               y);
    else
        LAUNCH((steps_move_narrow<kind, 1>), g.blocks, g.threads, x, stride, rows, steps, values,
               y);
}

void cuda_steps_narrow(enum half kind, const float *x, uint64_t stride, uint64_t rows,
                       uint64_t steps, uint64_t values, struct halves y)
{
    if (kind == HALF_BF16)
        steps_narrow<HALF_BF16>(x, stride, rows, steps, values, y);
    else
        steps_narrow<HALF_F16>(x, stride, rows, steps, values, y);
}

__global__ void rows_move(struct matrix x, uint64_t groups, struct matrix y)
{
    uint64_t each = x.rows / groups;
    FOR_ROWS(r, y.rows)
    {
        const float *from = x.at + (r % each * groups + r / each) * x.stride;
        FOR_COLUMNS(c, y.columns)
        y.at[r * y.stride + c] = from[c];
    }
}

void cuda_rows_regroup(struct matrix x, uint64_t groups, struct matrix y)
{
    struct map_grid g = map_grid(y.rows, y.columns);
    LAUNCH(rows_move, g.blocks, g.threads, x, groups, y);
}
