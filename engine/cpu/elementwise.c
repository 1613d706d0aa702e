/* elementwise.c - operations that visit every element once: bias, dropout, squares, sums.
 *
 * The loops are plain C over scalar.h, compiled for several vector widths (CPU_CLONES). In-place
 * calls pass the same pointer twice, so those loops have no restrict; gcc then checks for overlap
 * once before the loop.
 */
#include "engine/cpu/cpu.h"

#include <math.h>
#include <string.h>

CPU_CLONES static void row_add(const float *restrict x, float *restrict y, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        y[i] += x[i];
}

void cpu_add(const float *x, float *y, uint64_t count)
{
    row_add(x, y, count);
}

void cpu_bias_add(struct matrix y, const float *bias)
{
    for (uint64_t r = 0; r < y.rows; r++)
        row_add(bias, y.at + r * y.stride, y.columns);
}

void cpu_column_sums(struct matrix x, int adds, float *sums)
{
    if (!adds)
        memcpy(sums, x.at, x.columns * sizeof *sums);
    for (uint64_t r = !adds; r < x.rows; r++)
        row_add(x.at + r * x.stride, sums, x.columns);
}

CPU_CLONES static void row_multiply_add(const float *restrict a, const float *restrict b,
                                        float *restrict y, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        y[i] += a[i] * b[i];
}

void cpu_column_dots(struct matrix a, struct matrix b, float *sums)
{
    for (uint64_t r = 0; r < a.rows; r++)
        row_multiply_add(a.at + r * a.stride, b.at + r * b.stride, sums, a.columns);
}

void cpu_zero(float *x, uint64_t count)
{
    if (count) /* else x may be NULL */
        memset(x, 0, count * sizeof *x);
}

void cpu_copy(const float *x, float *y, uint64_t count)
{
    memcpy(y, x, count * sizeof *x);
}

void cpu_narrow(const double *x, float *y, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        y[i] = (float)x[i];
}

void cpu_sum_add(const double *x, uint64_t count, double *sum)
{
    for (uint64_t i = 0; i < count; i++)
        *sum += x[i];
}

CPU_CLONES void cpu_scale(float factor, float *x, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        x[i] *= factor;
}

CPU_CLONES void cpu_multiply(const float *restrict x, float *restrict y, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        y[i] *= x[i];
}

CPU_CLONES static void row_dropout(const float *x, float *y, uint32_t count, uint64_t row_key,
                                   uint32_t threshold, float scale)
{
    for (uint32_t i = 0; i < count; i++)
        y[i] = scalar_dropout(x[i], scalar_unit_bits(row_key, i), threshold, scale);
}

void cpu_dropout(struct matrix x, struct matrix y, const struct dropout_mask *mask)
{
    uint32_t threshold = (uint32_t)(mask->p * 0x1p32); /* p < 1: fits */
    float scale = (float)(1.0 / (1.0 - mask->p));
    uint64_t key = dropout_key(mask);
    for (uint64_t r = 0; r < x.rows; r++)
        row_dropout(x.at + r * x.stride, y.at + r * y.stride, (uint32_t)x.columns,
                    scalar_key(key, mask->row_first + r, 0), threshold, scale);
}

CPU_CLONES void cpu_sum_squares(const float *x, uint64_t count, double *sum)
{
    double parts[PARTS] = {0};
    uint64_t i = 0;
    for (; i + PARTS <= count; i += PARTS)
        for (int k = 0; k < PARTS; k++)
            parts[k] += (double)x[i + k] * (double)x[i + k];
    for (int k = 0; i < count; i++, k++)
        parts[k] += (double)x[i] * (double)x[i];
    *sum = parts_sum(parts);
}

CPU_CLONES void cpu_ewc_add(const float *restrict theta, const float *restrict theta_star,
                            const float *restrict fisher, double damping, double lambda,
                            float *restrict g, uint64_t count, double *restrict penalty)
{
    double parts[PARTS] = {0};
    float strength = (float)lambda, floor = (float)damping;
    uint64_t i = 0;
    for (; i + PARTS <= count; i += PARTS)
        for (int k = 0; k < PARTS; k++) {
            float pull = scalar_ewc_gradient(theta[i + k], theta_star[i + k], fisher[i + k] + floor,
                                             strength);
            parts[k] += (double)(pull * (theta[i + k] - theta_star[i + k]));
            g[i + k] += pull;
        }
    for (int k = 0; i < count; i++, k++) {
        float pull = scalar_ewc_gradient(theta[i], theta_star[i], fisher[i] + floor, strength);
        parts[k] += (double)(pull * (theta[i] - theta_star[i]));
        g[i] += pull;
    }
    *penalty += 0.5 * parts_sum(parts);
}

static void weights_round(enum half half, const float *p, float *weights, uint64_t count)
{
    if (!half)
        return;
    memcpy(weights, p, count * sizeof *p);
    cpu_round_half(half, matrix_of(weights, 1, count));
}

void cpu_step_verdict(const float *g, uint64_t count, double *sums,
                      const uint64_t (*bad)[STEP_BADS], const struct step_limits *limits,
                      struct step_verdict *verdict, struct step_told *told)
{
    cpu_sum_squares(g, count, &sums[0]);
    verdict->refused |= (uint32_t)step_refuses(sums, bad, limits);
    verdict->clip = (float)scalar_clip(sqrt(sums[0]), limits->max_grad_norm);
    *told = (struct step_told){{sums[0], sums[1], sums[2], sums[3]}, *verdict};
    memset(sums, 0, sizeof told->sums);
}

void cpu_commit(const struct step_verdict *verdict, const float *x, float *y, uint64_t count)
{
    if (!verdict->refused)
        cpu_copy(x, y, count);
}

CPU_CLONES void cpu_adamw(float *restrict p, float *restrict m, float *restrict v,
                          const float *restrict g, uint64_t count, const struct adamw_scalars *a,
                          enum half half, float *weights)
{
    struct adamw_scalars given = *a;
    if (a->late && a->late->refused)
        return;
    given.clip = a->late ? a->late->clip : a->clip;
    const struct adamw_scalars once = given; /* a copy that no store can change */
    for (uint64_t i = 0; i < count; i++) {
        struct adamw_element out = scalar_adamw(p[i], m[i], v[i], g[i], &once);
        p[i] = out.p;
        m[i] = out.m;
        v[i] = out.v;
    }
    weights_round(half, p, weights, count);
}

CPU_CLONES void cpu_sgd_momentum(float *restrict p, float *restrict m, const float *restrict g,
                                 uint64_t count, const struct sgd_scalars *a, enum half half,
                                 float *weights)
{
    struct sgd_scalars given = *a;
    if (a->late && a->late->refused)
        return;
    given.clip = a->late ? a->late->clip : a->clip;
    const struct sgd_scalars once = given;
    for (uint64_t i = 0; i < count; i++) {
        struct sgd_element out = scalar_sgd_momentum(p[i], m[i], g[i], &once);
        p[i] = out.p;
        m[i] = out.m;
    }
    weights_round(half, p, weights, count);
}

CPU_CLONES void cpu_sgd(float *restrict p, const float *restrict g, uint64_t count,
                        const struct sgd_scalars *a, enum half half, float *weights)
{
    struct sgd_scalars given = *a;
    if (a->late && a->late->refused)
        return;
    given.clip = a->late ? a->late->clip : a->clip;
    const struct sgd_scalars once = given;
    for (uint64_t i = 0; i < count; i++)
        p[i] = scalar_sgd(p[i], g[i], &once);
    weights_round(half, p, weights, count);
}
