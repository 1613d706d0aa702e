/* batchnorm.c - normalisation by statistics over many rows: rows are walked in their order, a
 * column to a lane of the vectors; means and sums in double.
 */
#include "engine/cpu/cpu.h"

#include <string.h>

CPU_CLONES static void row_add(const float *restrict x, double *restrict sums, uint64_t count)
{
    for (uint64_t c = 0; c < count; c++)
        sums[c] += (double)x[c];
}

CPU_CLONES static void row_squares(const float *restrict x, const double *restrict mean,
                                   double *restrict squares, uint64_t count)
{
    for (uint64_t c = 0; c < count; c++) {
        double off = (double)x[c] - mean[c];
        squares[c] += off * off;
    }
}

void cpu_batchnorm_moments(struct matrix x, double *mean, double *squares)
{
    memset(mean, 0, x.columns * sizeof *mean);
    memset(squares, 0, x.columns * sizeof *squares);
    for (uint64_t r = 0; r < x.rows; r++)
        row_add(x.at + r * x.stride, mean, x.columns);
    for (uint64_t c = 0; c < x.columns; c++)
        mean[c] /= (double)x.rows;
    for (uint64_t r = 0; r < x.rows; r++)
        row_squares(x.at + r * x.stride, mean, squares, x.columns);
}

CPU_CLONES static void row_forward(const float *x, const double *mean, const double *scale,
                                   const float *weight, const float *bias, float *y, uint64_t count)
{
    if (!weight) {
        for (uint64_t c = 0; c < count; c++)
            y[c] = scalar_normalise(x[c], mean[c], scale[c]);
        return;
    }
    for (uint64_t c = 0; c < count; c++)
        y[c] = scalar_normalise(x[c], mean[c], scale[c]) * weight[c] + bias[c];
}

void cpu_batchnorm_forward(struct matrix x, const double *mean, const double *scale,
                           const float *weight, const float *bias, struct matrix y)
{
    for (uint64_t r = 0; r < x.rows; r++)
        row_forward(x.at + r * x.stride, mean, scale, weight, bias, y.at + r * y.stride, x.columns);
}

CPU_CLONES static void row_sums(const float *restrict x, const double *restrict mean,
                                const double *restrict scale, const float *restrict dy,
                                double *restrict d, double *restrict dn, uint64_t count)
{
    for (uint64_t c = 0; c < count; c++) {
        d[c] += (double)dy[c];
        dn[c] += (double)dy[c] * (double)scalar_normalise(x[c], mean[c], scale[c]);
    }
}

void cpu_batchnorm_sums(struct matrix x, const double *mean, const double *scale, struct matrix dy,
                        double *d, double *dn)
{
    memset(d, 0, x.columns * sizeof *d);
    memset(dn, 0, x.columns * sizeof *dn);
    for (uint64_t r = 0; r < x.rows; r++)
        row_sums(x.at + r * x.stride, mean, scale, dy.at + r * dy.stride, d, dn, x.columns);
}

CPU_CLONES static void row_backward(const float *restrict x, const double *restrict mean,
                                    const double *restrict scale, const float *restrict weight,
                                    const double *restrict d, const double *restrict dn,
                                    const float *dy, float *dx, uint64_t count)
{
    for (uint64_t c = 0; c < count; c++) {
        double n = (double)scalar_normalise(x[c], mean[c], scale[c]);
        dx[c] = (float)((double)weight[c] * scale[c] * ((double)dy[c] - d[c] - n * dn[c]));
    }
}

void cpu_batchnorm_backward(struct matrix x, const double *mean, const double *scale,
                            const float *weight, const double *d, const double *dn,
                            struct matrix dy, struct matrix dx)
{
    for (uint64_t r = 0; r < x.rows; r++)
        row_backward(x.at + r * x.stride, mean, scale, weight, d, dn, dy.at + r * dy.stride,
                     dx.at + r * dx.stride, x.columns);
}
