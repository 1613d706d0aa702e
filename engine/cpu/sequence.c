/* sequence.c - rows of several steps: their order in memory, where they begin, the cell of an LSTM.
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

void cpu_begin_rows(const float *begins, struct matrix x, struct matrix y)
{
    for (uint64_t r = 0; r < y.rows; r++)
        if (begins[r] != 0)
            memset(y.at + r * y.stride, 0, y.columns * sizeof *y.at);
        else
            memcpy(y.at + r * y.stride, x.at + r * x.stride, y.columns * sizeof *y.at);
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
        struct scalar_lstm_slopes s = scalar_lstm_slopes(i[j], f[j], g[j], o[j], c[j], c_before[j]);
        struct scalar_lstm d = scalar_lstm_backward(&s, dh[j], dc[j]);
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

static void step_backward(const float *c_before, const float *c, struct matrix dh, float *dc,
                          struct matrix gates)
{
    for (uint64_t r = 0; r < dh.rows; r++)
        row_backward(c_before + r * dh.columns, c + r * dh.columns, dh.at + r * dh.stride,
                     dc + r * dh.columns, gates.at + r * gates.stride, dh.columns);
}

/* Step k of those taken: gates, h; and of the step before it, which may lie outside, h. */
static struct matrix step_gates(struct lstm_steps s, uint64_t k)
{
    return matrix_of(s.gates + lstm_step(s, k) * s.rows * 4 * s.hidden, s.rows, 4 * s.hidden);
}

static struct matrix step_h(struct lstm_steps s, struct matrix h, uint64_t k)
{
    h.at += lstm_step(s, k) * s.rows * h.stride;
    h.rows = s.rows;
    return h;
}

static struct matrix step_h_before(struct lstm_steps s, struct matrix h, uint64_t k)
{
    struct matrix before = step_h(s, h, k);
    if (s.reverse)
        before.at += s.rows * h.stride;
    else
        before.at -= s.rows * h.stride;
    return before;
}

static const float *step_c_before(struct lstm_steps s, uint64_t k)
{
    return k ? s.c + lstm_step(s, k - 1) * s.rows * s.hidden : s.c_before;
}

void cpu_lstm_steps_forward(struct lstm_steps s, const float *bias_ih, const float *bias_hh,
                            struct matrix w_hh, enum half half, struct matrix h)
{
    for (uint64_t k = 0; k < s.steps; k++) {
        struct matrix sums = step_gates(s, k), to = step_h(s, h, k);
        if (k > 0 || !s.begins)
            cpu_product(step_h_before(s, h, k), 0, w_hh, 1, 1, sums);
        cpu_lstm_forward(bias_ih, bias_hh, step_c_before(s, k), sums,
                         s.c + lstm_step(s, k) * s.rows * s.hidden, to);
        if (half != HALF_NONE)
            cpu_round_half(half, to);
    }
    if (s.c_after)
        cpu_copy(step_c_before(s, s.steps), s.c_after, s.rows * s.hidden);
    if (s.gates_half) {
        cpu_store_half(half, s.gates, s.gates_half, s.steps * s.rows * 4 * s.hidden);
        cpu_store_half(half, s.c, s.c_half, s.steps * s.rows * s.hidden);
    }
}

void cpu_lstm_steps_backward(struct lstm_steps s, struct matrix w_hh, enum half half,
                             struct matrix dh, float *dc)
{
    if (s.gates_half) { /* products are of float32 numbers */
        cpu_load_half(half, s.gates_half, s.gates, s.steps * s.rows * 4 * s.hidden);
        cpu_load_half(half, s.c_half, s.c, s.steps * s.rows * s.hidden);
    }
    for (uint64_t k = s.steps; k-- > 0;) {
        struct matrix sums = step_gates(s, k);
        step_backward(step_c_before(s, k), s.c + lstm_step(s, k) * s.rows * s.hidden,
                      step_h(s, dh, k), dc, sums);
        if (s.sums)
            cpu_add(sums.at, s.sums, s.rows * 4 * s.hidden);
        if (k > 0 || !s.begins)
            cpu_product(sums, 0, w_hh, 0, 1, step_h_before(s, dh, k));
    }
}
