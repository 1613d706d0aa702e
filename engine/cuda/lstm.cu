/* lstm.cu - the steps of an LSTM's layer: in one launch where its weights fit a multiprocessor
 * (lstm_cell.h), else a product and a launch of cells a step.
 */
#include "engine/cuda/lstm_cell.h"

static __device__ __forceinline__ float bias_of(const float *ih, const float *hh, uint64_t gate)
{
    return ih[gate] + hh[gate];
}

__global__ void cells_forward(const float *ih, const float *hh, const float *c_before,
                              struct matrix gates, float *c, struct matrix h, enum half half)
{
    uint64_t n = h.columns;
    FOR_ITEMS(k, h.rows * n)
    {
        uint64_t r = k / n, j = k % n;
        float *row = gates.at + r * gates.stride + j;
        struct scalar_lstm s =
            scalar_lstm(row[0] + bias_of(ih, hh, j), row[n] + bias_of(ih, hh, n + j),
                        row[2 * n] + bias_of(ih, hh, 2 * n + j),
                        row[3 * n] + bias_of(ih, hh, 3 * n + j), c_before[k]);
        row[0] = s.i, row[n] = s.f, row[2 * n] = s.g, row[3 * n] = s.o;
        c[k] = s.c;
        h.at[r * h.stride + j] = half_rounded(half, s.h);
    }
}

__global__ void cells_backward(const float *c_before, const float *c, struct matrix dh, float *dc,
                               struct matrix gates)
{
    uint64_t n = dh.columns;
    FOR_ITEMS(k, dh.rows * n)
    {
        uint64_t r = k / n, j = k % n;
        float *row = gates.at + r * gates.stride + j;
        struct scalar_lstm_slopes s =
            scalar_lstm_slopes(row[0], row[n], row[2 * n], row[3 * n], c[k], c_before[k]);
        struct scalar_lstm d = scalar_lstm_backward(&s, dh.at[r * dh.stride + j], dc[k]);
        row[0] = d.i, row[n] = d.f, row[2 * n] = d.g, row[3 * n] = d.o;
        dc[k] = d.c;
    }
}

enum { THREADS = 256 };

void cuda_lstm_forward(const float *bias_ih, const float *bias_hh, const float *c_before,
                       struct matrix gates, float *c, struct matrix h)
{
    LAUNCH(cells_forward, cuda_blocks(h.rows * h.columns, THREADS), THREADS, bias_ih, bias_hh,
           c_before, gates, c, h, HALF_NONE);
}

/* Of the k-th step: its place in memory, gates and c, and of `h` the rows, and those of the step
 * before. */
struct step {
    struct matrix gates, h, h_before;
    float *c;
    const float *c_before;
};

static struct step step_at(struct lstm_steps s, struct matrix h, uint64_t k)
{
    uint64_t t = lstm_step(s, k), cells = s.rows * s.hidden;
    struct step at = {matrix_of(s.gates + t * 4 * cells, s.rows, 4 * s.hidden), h, h,
                      s.c + t * cells, s.c_before};
    at.h.rows = at.h_before.rows = s.rows;
    at.h.at += t * s.rows * h.stride;
    at.h_before.at = s.reverse ? at.h.at + s.rows * h.stride : at.h.at - s.rows * h.stride;
    if (k)
        at.c_before = s.c + lstm_step(s, k - 1) * cells;
    return at;
}

void cuda_lstm_steps_forward(struct lstm_steps s, const float *bias_ih, const float *bias_hh,
                             struct matrix w_hh, enum half half, struct matrix h)
{
    int done = half == HALF_NONE ? lstm_forward_float(s, bias_ih, bias_hh, w_hh, h)
                                 : lstm_forward_half(s, bias_ih, bias_hh, w_hh, half, h);
    for (uint64_t k = 0; done < 0 && k < s.steps; k++) {
        struct step at = step_at(s, h, k);
        if (k > 0 || !s.begins)
            cuda_product(at.h_before, 0, w_hh, 1, 1, at.gates);
        LAUNCH(cells_forward, cuda_blocks(s.rows * s.hidden, THREADS), THREADS, bias_ih, bias_hh,
               at.c_before, at.gates, at.c, at.h, half);
    }
    if (done < 0 && s.c_after)
        cuda_copy(step_at(s, h, s.steps - 1).c, s.c_after, s.rows * s.hidden);
    if (done < 0 && s.gates_half) {
        cuda_store_half(half, s.gates, s.gates_half, s.steps * s.rows * 4 * s.hidden);
        cuda_store_half(half, s.c, s.c_half, s.steps * s.rows * s.hidden);
    }
}

void cuda_lstm_steps_backward(struct lstm_steps s, struct matrix w_hh, enum half half,
                              struct matrix dh, float *dc)
{
    int done = half == HALF_NONE ? lstm_backward_float(s, w_hh, dh, dc)
                                 : lstm_backward_half(s, w_hh, half, dh, dc);
    if (done < 0 && s.gates_half) {
        cuda_load_half(half, s.gates_half, s.gates, s.steps * s.rows * 4 * s.hidden);
        cuda_load_half(half, s.c_half, s.c, s.steps * s.rows * s.hidden);
    }
    for (uint64_t k = s.steps; done < 0 && k-- > 0;) {
        struct step at = step_at(s, dh, k);
        LAUNCH(cells_backward, cuda_blocks(s.rows * s.hidden, THREADS), THREADS, at.c_before, at.c,
               at.h, dc, at.gates);
        if (k > 0 || !s.begins)
            cuda_product(at.gates, 0, w_hh, 0, 1, at.h_before);
    }
}
