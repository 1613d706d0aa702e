/* loss.c - losses and right answers, row by row.
 *
 * A row is as long as there are outputs, so the exponentials are few: they are taken in double,
 * which leaves the gradient p - 1 of a sure answer its small digits.
 */
#include "engine/cpu/cpu.h"

#include <math.h>

/* Largest value of a row; a NaN may be passed over here, and comes back through the sum. */
static float row_max(const float *z, uint64_t count)
{
    float max = z[0];
    for (uint64_t c = 1; c < count; c++)
        max = z[c] > max ? z[c] : max;
    return max;
}

static double row_loss(const float *z, uint64_t classes, uint32_t target, double divisor, float *dz)
{
    double max = row_max(z, classes), sum = 0;
    for (uint64_t c = 0; c < classes; c++)
        sum += exp((double)z[c] - max);
    double loss = log(sum) + max - (double)z[target];
    if (!dz)
        return loss;
    for (uint64_t c = 0; c < classes; c++)
        dz[c] = scalar_softmax_gradient(exp((double)z[c] - max) / sum, c == target, divisor);
    return loss;
}

/* What all losses do behind their rows. */
static void loss_finish(const double *losses, uint64_t rows, double *sum, struct matrix dz,
                        enum half half)
{
    if (sum)
        cpu_sum_add(losses, rows, sum);
    if (half && dz.at)
        cpu_round_half(half, dz);
}

void cpu_softmax_cross_entropy(struct matrix z, const uint32_t *targets, double divisor,
                               double *losses, double *sum, struct matrix dz, enum half half)
{
    for (uint64_t r = 0; r < z.rows; r++)
        losses[r] = row_loss(z.at + r * z.stride, z.columns, targets[r], divisor,
                             dz.at ? dz.at + r * dz.stride : NULL);
    loss_finish(losses, z.rows, sum, dz, half);
}

/* One row of a loss that is a mean over its elements. */
#define ELEMENT_ROW(NAME, FORMULA)                                                                 \
    CPU_CLONES static double row_##NAME(const float *z, const float *y, uint64_t count,            \
                                        double delta, double divisor, float *dz)                   \
    {                                                                                              \
        double sum = 0;                                                                            \
        (void)delta;                                                                               \
        for (uint64_t c = 0; c < count; c++) {                                                     \
            struct scalar_loss at = FORMULA;                                                       \
            sum += at.loss;                                                                        \
            if (dz)                                                                                \
                dz[c] = (float)(at.d / divisor);                                                   \
        }                                                                                          \
        return sum / (double)count;                                                                \
    }
ELEMENT_ROW(squared, scalar_squared_error((double)z[c], (double)y[c]))
ELEMENT_ROW(absolute, scalar_absolute_error((double)z[c], (double)y[c]))
ELEMENT_ROW(huber, scalar_huber((double)z[c], (double)y[c], delta))
ELEMENT_ROW(binary, scalar_binary_cross_entropy((double)z[c], (double)y[c]))

void cpu_element_loss(enum element_loss kind, double delta, struct matrix z, struct matrix y,
                      double divisor, double *losses, double *sum, struct matrix dz, enum half half)
{
    static double (*const rows[ELEMENT_LOSS_COUNT])(const float *, const float *, uint64_t, double,
                                                    double, float *) = {
        [ELEMENT_LOSS_SQUARED] = row_squared,
        [ELEMENT_LOSS_ABSOLUTE] = row_absolute,
        [ELEMENT_LOSS_HUBER] = row_huber,
        [ELEMENT_LOSS_BINARY_CROSS_ENTROPY] = row_binary,
    };
    divisor *= (double)z.columns;
    for (uint64_t r = 0; r < z.rows; r++)
        losses[r] = rows[kind](z.at + r * z.stride, y.at + r * y.stride, z.columns, delta, divisor,
                               dz.at ? dz.at + r * dz.stride : NULL);
    loss_finish(losses, z.rows, sum, dz, half);
}

static double row_cosine(const float *z, const float *y, uint64_t count, double divisor, float *dz)
{
    double zz = 0, yy = 0, zy = 0;
    for (uint64_t c = 0; c < count; c++) {
        zz += (double)z[c] * (double)z[c];
        yy += (double)y[c] * (double)y[c];
        zy += (double)z[c] * (double)y[c];
    }
    struct scalar_cosine s = scalar_cosine(zz, yy, zy);
    for (uint64_t c = 0; dz && c < count; c++)
        dz[c] = scalar_cosine_gradient(&s, (double)z[c], (double)y[c], divisor);
    return 1 - s.cosine;
}

void cpu_cosine_loss(struct matrix z, struct matrix y, double divisor, double *losses, double *sum,
                     struct matrix dz, enum half half)
{
    for (uint64_t r = 0; r < z.rows; r++)
        losses[r] = row_cosine(z.at + r * z.stride, y.at + r * y.stride, z.columns, divisor,
                               dz.at ? dz.at + r * dz.stride : NULL);
    loss_finish(losses, z.rows, sum, dz, half);
}

/* Place of the first largest value. */
static uint64_t row_class(const float *z, uint64_t count)
{
    uint64_t best = 0;
    for (uint64_t c = 1; c < count; c++)
        if (z[c] > z[best])
            best = c;
    return best;
}

void cpu_cosine_similarity(struct matrix z, struct matrix y, double *cosines)
{
    cpu_cosine_loss(z, y, 1, cosines, NULL, (struct matrix){0}, HALF_NONE);
    for (uint64_t r = 0; r < z.rows; r++)
        cosines[r] = 1 - cosines[r];
}

void cpu_correct_classes(struct matrix z, const uint32_t *targets, double *correct)
{
    for (uint64_t r = 0; r < z.rows; r++)
        correct[r] = row_class(z.at + r * z.stride, z.columns) == targets[r];
}

void cpu_predicted_classes(struct matrix z, double *classes)
{
    for (uint64_t r = 0; r < z.rows; r++)
        classes[r] = (double)row_class(z.at + r * z.stride, z.columns);
}

void cpu_correct_signs(struct matrix z, struct matrix y, double *correct)
{
    for (uint64_t r = 0; r < z.rows; r++) {
        uint64_t count = 0;
        for (uint64_t c = 0; c < z.columns; c++)
            count += (z.at[r * z.stride + c] > 0) == (y.at[r * y.stride + c] > 0.5f);
        correct[r] = (double)count / (double)z.columns;
    }
}

void cpu_column_moments(struct matrix y, double *sums, double *squares)
{
    for (uint64_t r = 0; r < y.rows; r++)
        for (uint64_t c = 0; c < y.columns; c++) {
            double value = (double)y.at[r * y.stride + c];
            sums[c] += value;
            squares[c] += value * value;
        }
}
