/* layernorm.c - layer normalisation, a row at a time; means and variances in double, in partial
 * sums. */
#include "engine/cpu/cpu.h"

#include <math.h>
#include <string.h>

/* Mean, and 1 / sqrt(variance + eps), of a row. */
struct row_moments {
    double mean, scale;
};

CPU_CLONES static double row_sum(const float *x, uint64_t count)
{
    double parts[PARTS] = {0};
    uint64_t c = 0;
    for (; c + PARTS <= count; c += PARTS)
        for (int k = 0; k < PARTS; k++)
            parts[k] += (double)x[c + k];
    for (int k = 0; c < count; c++, k++)
        parts[k] += (double)x[c];
    return parts_sum(parts);
}

CPU_CLONES static double row_squares(const float *x, double mean, uint64_t count)
{
    double parts[PARTS] = {0};
    uint64_t c = 0;
    for (; c + PARTS <= count; c += PARTS)
        for (int k = 0; k < PARTS; k++) {
            double off = (double)x[c + k] - mean;
            parts[k] += off * off;
        }
    for (int k = 0; c < count; c++, k++) {
        double off = (double)x[c] - mean;
        parts[k] += off * off;
    }
    return parts_sum(parts);
}

static struct row_moments moments_of(const float *x, uint64_t count, double eps)
{
    double mean = row_sum(x, count) / (double)count;
    return (struct row_moments){mean, 1 / sqrt(row_squares(x, mean, count) / (double)count + eps)};
}

CPU_CLONES static void row_forward(const float *x, const struct row_moments *m, const float *weight,
                                   const float *bias, float *y, uint64_t count)
{
    const double mean = m->mean, scale = m->scale;
    if (!weight) {
        for (uint64_t c = 0; c < count; c++)
            y[c] = scalar_normalise(x[c], mean, scale);
        return;
    }
    for (uint64_t c = 0; c < count; c++)
        y[c] = scalar_normalise(x[c], mean, scale) * weight[c] + bias[c];
}

void cpu_layernorm_forward(struct matrix x, const float *weight, const float *bias, double eps,
                           struct matrix y)
{
    for (uint64_t r = 0; r < x.rows; r++) {
        const float *in = x.at + r * x.stride;
        struct row_moments m = moments_of(in, x.columns, eps);
        row_forward(in, &m, weight, bias, y.at + r * y.stride, x.columns);
    }
}

CPU_CLONES static void row_gradient(const float *restrict x, const struct row_moments *m,
                                    const float *restrict dy, float *restrict dweight,
                                    float *restrict dbias, uint64_t count)
{
    const double mean = m->mean, scale = m->scale;
    for (uint64_t c = 0; c < count; c++) {
        dweight[c] += dy[c] * scalar_normalise(x[c], mean, scale);
        dbias[c] += dy[c];
    }
}

/* Sums of g and g n, g = dy weight. */
CPU_CLONES static void row_sums(const float *restrict x, const struct row_moments *m,
                                const float *restrict weight, const float *restrict dy,
                                uint64_t count, double sums[2])
{
    double g[PARTS] = {0}, gn[PARTS] = {0};
    const double mean = m->mean, scale = m->scale;
    uint64_t c = 0;
    for (; c + PARTS <= count; c += PARTS)
        for (int k = 0; k < PARTS; k++) {
            double each = (double)dy[c + k] * (double)weight[c + k];
            g[k] += each;
            gn[k] += each * (double)scalar_normalise(x[c + k], mean, scale);
        }
    for (int k = 0; c < count; c++, k++) {
        double each = (double)dy[c] * (double)weight[c];
        g[k] += each;
        gn[k] += each * (double)scalar_normalise(x[c], mean, scale);
    }
    sums[0] = parts_sum(g);
    sums[1] = parts_sum(gn);
}

CPU_CLONES static void row_backward(const float *restrict x, const struct row_moments *m,
                                    const float *restrict weight, const double means[2],
                                    const float *dy, float *dx, uint64_t count)
{
    const double mean = m->mean, scale = m->scale, g = means[0], gn = means[1];
    for (uint64_t c = 0; c < count; c++) {
        double n = (double)scalar_normalise(x[c], mean, scale);
        dx[c] = scalar_normalise_backward(scale, (double)dy[c] * (double)weight[c], n, g, gn);
    }
}

void cpu_layernorm_backward(struct matrix x, const float *weight, double eps, struct matrix dy,
                            struct matrix dx, int adds, float *dweight, float *dbias)
{
    if (dweight && !adds) {
        memset(dweight, 0, x.columns * sizeof *dweight);
        memset(dbias, 0, x.columns * sizeof *dbias);
    }
    for (uint64_t r = 0; r < x.rows; r++) {
        const float *in = x.at + r * x.stride, *d = dy.at + r * dy.stride;
        struct row_moments m = moments_of(in, x.columns, eps);
        double sums[2];
        if (dweight)
            row_gradient(in, &m, d, dweight, dbias, x.columns);
        if (!dx.at)
            continue;
        row_sums(in, &m, weight, d, x.columns, sums);
        sums[0] /= (double)x.columns;
        sums[1] /= (double)x.columns;
        row_backward(in, &m, weight, sums, d, dx.at + r * dx.stride, x.columns);
    }
}
