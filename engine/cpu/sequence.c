/* sequence.c - rows of several steps: their order in memory, pools over them, the cell of an LSTM.
 */
#include "engine/cpu/cpu.h"

#include <string.h>

void cpu_steps_swap(const float *x, uint64_t stride, uint64_t rows, uint64_t steps, uint64_t values,
                    float *y)
{
    for (uint64_t t = 0; t < steps; t++)
        for (uint64_t r = 0; r < rows; r++)
            memcpy(y + (t * rows + r) * values, x + r * stride + t * values, values * sizeof *y);
}

static double column_sum(const float *x, uint64_t stride, uint64_t steps)
{
    double sum = 0;
    for (uint64_t t = 0; t < steps; t++)
        sum += (double)x[t * stride];
    return sum;
}

/* Step of the first largest value; a NaN is larger than every number. */
static uint64_t column_largest(const float *x, uint64_t stride, uint64_t steps)
{
    uint64_t best = 0;
    for (uint64_t t = 1; t < steps; t++) {
        float value = x[t * stride], most = x[best * stride];
        if (most == most && !(value <= most))
            best = t;
    }
    return best;
}

void cpu_pool_forward(enum pooling kind, struct matrix x, uint64_t steps, struct matrix y)
{
    for (uint64_t r = 0; r < y.rows; r++) {
        const float *in = x.at + r * steps * x.stride;
        float *out = y.at + r * y.stride;
        for (uint64_t c = 0; c < y.columns; c++) {
            if (kind == POOL_LAST)
                out[c] = in[(steps - 1) * x.stride + c];
            else if (kind == POOL_MAX)
                out[c] = in[column_largest(in + c, x.stride, steps) * x.stride + c];
            else
                out[c] = (float)(column_sum(in + c, x.stride, steps) /
                                 (kind == POOL_MEAN ? (double)steps : 1));
        }
    }
}

void cpu_pool_backward(enum pooling kind, struct matrix x, struct matrix dy, uint64_t steps,
                       struct matrix dx)
{
    for (uint64_t r = 0; r < dy.rows; r++)
        for (uint64_t c = 0; c < dy.columns; c++) {
            const float *in = x.at + r * steps * x.stride + c;
            float *out = dx.at + r * steps * dx.stride + c, d = dy.at[r * dy.stride + c];
            uint64_t only = kind == POOL_MAX ? column_largest(in, x.stride, steps) : steps - 1;
            int all = kind == POOL_MEAN || kind == POOL_SUM;
            float each = kind == POOL_MEAN ? (float)((double)d / (double)steps) : d;
            for (uint64_t t = 0; t < steps; t++)
                out[t * dx.stride] = all || t == only ? each : 0;
        }
}

/* One row of a step. The four gates lie one behind the other. */
CPU_CLONES static void row_forward(const float *restrict bias_ih, const float *restrict bias_hh,
                                   const float *restrict c_before, float *restrict gates,
                                   float *restrict c, float *restrict h, uint64_t count)
{
    float *restrict i = gates, *restrict f = gates + count, *restrict g = gates + 2 * count,
                    *restrict o = gates + 3 * count;
    for (uint64_t j = 0; j < count; j++) {
        struct scalar_lstm s = scalar_lstm(
            i[j] + (bias_ih[j] + bias_hh[j]), f[j] + (bias_ih[count + j] + bias_hh[count + j]),
            g[j] + (bias_ih[2 * count + j] + bias_hh[2 * count + j]),
            o[j] + (bias_ih[3 * count + j] + bias_hh[3 * count + j]), c_before[j]);
        i[j] = s.i, f[j] = s.f, g[j] = s.g, o[j] = s.o;
        c[j] = s.c;
        h[j] = s.h;
    }
}

CPU_CLONES static void row_backward(const float *restrict c_before, const float *restrict c,
                                    const float *restrict dh, float *restrict dc,
                                    float *restrict gates, uint64_t count)
{
    float *restrict i = gates, *restrict f = gates + count, *restrict g = gates + 2 * count,
                    *restrict o = gates + 3 * count;
    for (uint64_t j = 0; j < count; j++) {
        struct scalar_lstm s = {i[j], f[j], g[j], o[j], c[j], 0};
        struct scalar_lstm d = scalar_lstm_backward(&s, c_before[j], dh[j], dc[j]);
        i[j] = d.i, f[j] = d.f, g[j] = d.g, o[j] = d.o;
        dc[j] = d.c;
    }
}

void cpu_lstm_forward(const float *bias_ih, const float *bias_hh, const float *c_before,
                      struct matrix gates, float *c, struct matrix h)
{
    for (uint64_t r = 0; r < h.rows; r++)
        row_forward(bias_ih, bias_hh, c_before + r * h.columns, gates.at + r * gates.stride,
                    c + r * h.columns, h.at + r * h.stride, h.columns);
}

void cpu_lstm_backward(const float *c_before, const float *c, struct matrix dh, float *dc,
                       struct matrix gates)
{
    for (uint64_t r = 0; r < dh.rows; r++)
        row_backward(c_before + r * dh.columns, c + r * dh.columns, dh.at + r * dh.stride,
                     dc + r * dh.columns, gates.at + r * gates.stride, dh.columns);
}
