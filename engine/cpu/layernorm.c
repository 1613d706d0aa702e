/* layernorm.c - layer normalisation, a row at a time; means and variances in double. */
#include "engine/cpu/cpu.h"

#include <math.h>

/* Mean, and 1 / sqrt(variance + eps), of a row. */
struct row_moments {
    double mean, scale;
};

static struct row_moments moments_of(const float *x, uint64_t count, double eps)
{
    double sum = 0, squares = 0;
    for (uint64_t c = 0; c < count; c++)
        sum += (double)x[c];
    double mean = sum / (double)count;
    for (uint64_t c = 0; c < count; c++)
        squares += ((double)x[c] - mean) * ((double)x[c] - mean);
    return (struct row_moments){mean, 1 / sqrt(squares / (double)count + eps)};
}

void cpu_layernorm_forward(struct matrix x, const float *weight, const float *bias, double eps,
                           struct matrix y)
{
    for (uint64_t r = 0; r < x.rows; r++) {
        const float *in = x.at + r * x.stride;
        float *out = y.at + r * y.stride;
        struct row_moments m = moments_of(in, x.columns, eps);
        for (uint64_t c = 0; c < x.columns; c++) {
            float n = scalar_normalise(in[c], m.mean, m.scale);
            out[c] = weight ? n * weight[c] + bias[c] : n;
        }
    }
}

void cpu_layernorm_backward(struct matrix n, struct matrix x, const float *weight, double eps,
                            struct matrix dy, struct matrix dx)
{
    double count = (double)x.columns;
    for (uint64_t r = 0; r < x.rows; r++) {
        const float *row = n.at + r * n.stride, *d = dy.at + r * dy.stride;
        double scale = moments_of(x.at + r * x.stride, x.columns, eps).scale, g = 0, gn = 0;
        for (uint64_t c = 0; c < x.columns; c++) {
            g += (double)d[c] * (double)weight[c];
            gn += (double)d[c] * (double)weight[c] * (double)row[c];
        }
        for (uint64_t c = 0; c < x.columns; c++) {
            double each = (double)d[c] * (double)weight[c];
            dx.at[r * dx.stride + c] =
                (float)((each - g / count - (double)row[c] * (gn / count)) * scale);
        }
    }
}
