/* batchnorm.c - normalisation by statistics over many rows: rows are walked in their order, a
 * column to a lane of the vectors; means and sums in double.
 */
#include "engine/cpu/cpu.h"

#include <math.h>
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
        dx[c] =
            scalar_normalise_backward((double)weight[c] * scale[c], (double)dy[c], n, d[c], dn[c]);
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

void cpu_batchnorm_merge(const double *first, const double *second, double before, double count,
                         double *mean, double *variance, uint64_t channels)
{
    for (uint64_t c = 0; c < channels; c++) {
        struct scalar_moments old = {0, 0}, both;
        if (before > 0)
            old = (struct scalar_moments){mean[c], variance[c]};
        both =
            scalar_moments_merge(old, before, (struct scalar_moments){first[c], second[c]}, count);
        mean[c] = both.mean;
        variance[c] = both.squares;
    }
}

void cpu_batchnorm_finish(double *variance, double count, double eps, double *scale,
                          uint64_t channels)
{
    for (uint64_t c = 0; c < channels; c++) {
        scale[c] = 1 / sqrt(variance[c] / count + eps);
        variance[c] /= count > 1 ? count - 1 : 1;
    }
}

void cpu_batchnorm_means_add(const double *first, const double *second, double divisor, int begins,
                             double *d, double *dn, uint64_t channels)
{
    for (uint64_t c = 0; c < channels; c++) {
        d[c] = ((begins ? 0 : d[c]) + first[c]) / divisor;
        dn[c] = ((begins ? 0 : dn[c]) + second[c]) / divisor;
    }
}

void cpu_batchnorm_running(const double *mean, const double *variance, double momentum,
                           float *running_mean, float *running_variance, uint64_t channels)
{
    for (uint64_t c = 0; c < channels; c++) {
        running_mean[c] = scalar_running(running_mean[c], mean[c], momentum);
        running_variance[c] = scalar_running(running_variance[c], variance[c], momentum);
    }
}

void cpu_batchnorm_use(const float *running_mean, const float *running_variance, double eps,
                       double *mean, double *scale, double *d, double *dn, uint64_t channels)
{
    for (uint64_t c = 0; c < channels; c++) {
        mean[c] = (double)running_mean[c];
        scale[c] = 1 / sqrt((double)running_variance[c] + eps);
        d[c] = dn[c] = 0;
    }
}
