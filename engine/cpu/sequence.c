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

/* ---- a layer that keeps its numbers in 16 bits ---- */

static float widened(enum half kind, uint16_t h)
{
    return kind == HALF_BF16 ? scalar_brain(h) : scalar_half(h);
}

static uint16_t narrowed(enum half kind, float x)
{
    return kind == HALF_BF16 ? scalar_to_brain(x) : scalar_to_half(x);
}

void cpu_steps_narrow(enum half kind, const float *x, uint64_t stride, uint64_t rows,
                      uint64_t steps, uint64_t values, struct halves y)
{
    for (uint64_t p = 0; p < steps * rows; p++) {
        const float *from = x + p % rows * stride + p / rows * values;
        for (uint64_t c = 0; c < y.columns; c++)
            y.at[p * y.stride + c] = narrowed(kind, c < values ? from[c] : 0);
    }
}

void cpu_rows_regroup(struct matrix x, uint64_t groups, struct matrix y)
{
    uint64_t each = x.rows / groups;
    for (uint64_t r = 0; r < y.rows; r++)
        memcpy(y.at + r * y.stride, x.at + (r % each * groups + r / each) * x.stride,
               y.columns * sizeof *y.at);
}

void cpu_product_half(enum half kind, struct halves a, int a_t, struct halves b, int b_t,
                      float beta, struct matrix c)
{
    uint64_t inner = a_t ? a.rows : a.columns;
    for (uint64_t r = 0; r < c.rows; r++) {
        float *to = c.at + r * c.stride;
        for (uint64_t j = 0; j < c.columns; j++)
            to[j] = beta == 0 ? 0 : beta * to[j];
        for (uint64_t k = 0; k < inner; k++) {
            float x = widened(kind, a.at[a_t ? k * a.stride + r : r * a.stride + k]);
            for (uint64_t j = 0; j < c.columns; j++)
                to[j] += x * widened(kind, b.at[b_t ? j * b.stride + k : k * b.stride + j]);
        }
    }
}

/* In its own order. */
void cpu_lstm_narrow_weights(enum half kind, struct matrix w_hh, uint16_t *packed)
{
    for (uint64_t i = 0; i < w_hh.rows * w_hh.columns; i++)
        packed[i] = narrowed(kind, w_hh.at[i / w_hh.columns * w_hh.stride + i % w_hh.columns]);
}

/* (w_hh h)[gate], h of the step before. */
static float narrow_recurrent(struct lstm_narrow s, uint64_t step, uint64_t row,
                              const uint16_t *packed, uint64_t gate)
{
    const uint16_t *h =
        s.h + (int64_t)(step * s.rows + row) * (int64_t)s.hidden - (int64_t)(s.rows * s.hidden);
    float sum = 0;
    for (uint64_t j = 0; j < s.hidden && (step || !s.begins); j++)
        sum += widened(s.half, packed[gate * s.hidden + j]) * widened(s.half, h[j]);
    return sum;
}

void cpu_lstm_narrow_forward(struct lstm_narrow s, const float *sums, const float *bias_ih,
                             const float *bias_hh, const uint16_t *packed, float *c,
                             struct lstm_cells out)
{
    for (uint64_t k = 0; k < s.steps * s.rows * s.hidden; k++) {
        uint64_t u = k % s.hidden, row = k / s.hidden % s.rows, step = k / s.hidden / s.rows;
        float x[4], *state = c + row * s.hidden + u;
        for (uint64_t gate = 0; gate < 4; gate++)
            x[gate] = sums[4 * k + gate] +
                      narrow_recurrent(s, step, row, packed, gate * s.hidden + u) +
                      (bias_ih[gate * s.hidden + u] + bias_hh[gate * s.hidden + u]);
        struct scalar_lstm cell =
            scalar_lstm(x[0], x[1], x[2], x[3], step || !s.begins ? *state : 0);
        const float gates[4] = {cell.i, cell.f, cell.g, cell.o};
        for (int gate = 0; gate < 4; gate++)
            s.gates[4 * k + (uint64_t)gate] = narrowed(s.half, gates[gate]);
        *state = cell.c;
        s.c[k] = narrowed(s.half, cell.c);
        s.h[k] = narrowed(s.half, cell.h);
        if (out.at)
            out.at[step * out.step + row * out.row + u] = widened(s.half, s.h[k]);
    }
}

/* Gates of a step's cells become the gradients at their sums; dr is used up. */
static void narrow_step_backward(struct lstm_narrow s, uint64_t step, struct lstm_cells dh,
                                 float *dc, const float *dr, float *sums)
{
    for (uint64_t i = 0; i < s.rows * s.hidden; i++) {
        uint64_t u = i % s.hidden, row = i / s.hidden, k = step * s.rows * s.hidden + i;
        float g[4], before = 0;
        for (uint64_t gate = 0; gate < 4; gate++)
            g[gate] = widened(s.half, s.gates[4 * k + gate]);
        if (step || !s.begins)
            before = widened(s.half, *(s.c + k - s.rows * s.hidden));
        struct scalar_lstm_slopes slopes =
            scalar_lstm_slopes(g[0], g[1], g[2], g[3], widened(s.half, s.c[k]), before);
        struct scalar_lstm d =
            scalar_lstm_backward(&slopes, dh.at[step * dh.step + row * dh.row + u] + dr[i], dc[i]);
        const float gates[4] = {d.i, d.f, d.g, d.o};
        dc[i] = d.c;
        for (uint64_t gate = 0; gate < 4; gate++) {
            s.gates[4 * k + gate] = narrowed(s.half, gates[gate]);
            sums[row * 4 * s.hidden + gate * s.hidden + u] += gates[gate];
        }
    }
}

void cpu_lstm_narrow_backward(struct lstm_narrow s, const uint16_t *packed, struct lstm_cells dh,
                              float *dc, float *dr, float *sums)
{
    for (uint64_t step = s.steps; step-- > 0;) {
        narrow_step_backward(s, step, dh, dc, dr, sums);
        for (uint64_t i = 0; i < s.rows * s.hidden; i++) {
            const uint16_t *d = s.gates + 4 * (step * s.rows + i / s.hidden) * s.hidden;
            dr[i] = 0;
            for (uint64_t k = 0; k < 4 * s.hidden; k++)
                dr[i] +=
                    widened(s.half, d[k]) *
                    widened(s.half, packed[(k % 4 * s.hidden + k / 4) * s.hidden + i % s.hidden]);
        }
    }
}
