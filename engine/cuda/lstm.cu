/* lstm.cu - the cell of an LSTM, one step of it: an element a thread. */
#include "engine/cuda/cuda.h"

static __device__ __forceinline__ float bias_of(const float *ih, const float *hh, uint64_t gate)
{
    return ih[gate] + hh[gate];
}

__global__ void cell_forward(const float *ih, const float *hh, const float *c_before,
                             struct matrix gates, float *c, struct matrix h)
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
        h.at[r * h.stride + j] = s.h;
    }
}

__global__ void cell_backward(const float *c_before, const float *c, struct matrix dh, float *dc,
                              struct matrix gates)
{
    uint64_t n = dh.columns;
    FOR_ITEMS(k, dh.rows * n)
    {
        uint64_t r = k / n, j = k % n;
        float *row = gates.at + r * gates.stride + j;
        struct scalar_lstm s = {row[0], row[n], row[2 * n], row[3 * n], c[k], 0};
        struct scalar_lstm d =
            scalar_lstm_backward(&s, c_before[k], dh.at[r * dh.stride + j], dc[k]);
        row[0] = d.i, row[n] = d.f, row[2 * n] = d.g, row[3 * n] = d.o;
        dc[k] = d.c;
    }
}

enum { THREADS = 256 };

void cuda_lstm_forward(const float *bias_ih, const float *bias_hh, const float *c_before,
                       struct matrix gates, float *c, struct matrix h)
{
    LAUNCH(cell_forward, cuda_blocks(h.rows * h.columns, THREADS), THREADS, bias_ih, bias_hh,
           c_before, gates, c, h);
}

void cuda_lstm_backward(const float *c_before, const float *c, struct matrix dh, float *dc,
                        struct matrix gates)
{
    LAUNCH(cell_backward, cuda_blocks(dh.rows * dh.columns, THREADS), THREADS, c_before, c, dh, dc,
           gates);
}
