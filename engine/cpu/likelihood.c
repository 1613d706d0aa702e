/* likelihood.c - losses as likelihoods of the target: targets drawn from them, and the roots of
 * what is expected of squared gradients. Row by row and in double, as loss.c. */
#include "engine/cpu/cpu.h"

#include <math.h>

/* exp(z - the largest) of the row, added up. */
static double row_weights(const float *z, uint64_t count, double *largest)
{
    double sum = 0;
    *largest = (double)z[0];
    for (uint64_t c = 1; c < count; c++)
        *largest = (double)z[c] > *largest ? (double)z[c] : *largest;
    for (uint64_t c = 0; c < count; c++)
        sum += exp((double)z[c] - *largest);
    return sum;
}

/* The class at which the probabilities so far exceed u; the last one where rounding leaves none. */
static uint32_t row_draw(const float *z, uint64_t count, double u)
{
    double largest, left = u * row_weights(z, count, &largest);
    uint32_t class = 0;
    for (left -= exp((double)z[0] - largest); left >= 0 && class + 1 < count; class ++)
        left -= exp((double)z[class + 1] - largest);
    return class;
}

void cpu_classes_draw(struct matrix z, uint64_t key, uint64_t first, uint32_t *classes)
{
    for (uint64_t r = 0; r < z.rows; r++)
        classes[r] = row_draw(z.at + r * z.stride, z.columns,
                              scalar_unit_random(scalar_key(key, first + r, 0)));
}

void cpu_values_draw(enum element_loss kind, struct matrix z, uint64_t key, uint64_t first,
                     struct matrix y)
{
    double deviation = sqrt((double)z.columns / 2);
    for (uint64_t r = 0; r < z.rows; r++)
        for (uint64_t c = 0; c < z.columns; c++) {
            uint64_t bits = scalar_key(key, first + r, c);
            double at = (double)z.at[r * z.stride + c];
            y.at[r * y.stride + c] = kind == ELEMENT_LOSS_SQUARED
                                         ? scalar_normal_draw(at, deviation, bits)
                                         : scalar_event_draw(at, bits);
        }
}

void cpu_class_root(struct matrix z, uint32_t class, struct weighting w, struct matrix dz)
{
    for (uint64_t r = 0; r < z.rows; r++) {
        const float *row = z.at + r * z.stride;
        double largest, sum = row_weights(row, z.columns, &largest);
        double root = sqrt(exp((double)row[class] - largest) / sum) * weight_at(w, r, 0);
        for (uint64_t c = 0; c < z.columns; c++) {
            double p = exp((double)row[c] - largest) / sum;
            dz.at[r * dz.stride + c] = scalar_class_root(p, c == class, root);
        }
    }
}

void cpu_value_root(enum element_loss kind, struct matrix z, uint32_t column, struct weighting w,
                    struct matrix dz)
{
    double count = (double)z.columns;
    for (uint64_t r = 0; r < z.rows; r++) {
        double at = (double)z.at[r * z.stride + column];
        for (uint64_t c = 0; c < z.columns; c++)
            dz.at[r * dz.stride + c] = 0;
        dz.at[r * dz.stride + column] =
            (float)(weight_at(w, r, column) * (kind == ELEMENT_LOSS_SQUARED
                                                   ? sqrt(2 / count)
                                                   : scalar_deviation(at) / count));
    }
}

void cpu_expect_weights(struct matrix z, const float *of_classes, const float *given, float *w)
{
    for (uint64_t r = 0; r < z.rows; r++) {
        const float *row = z.at + r * z.stride;
        double largest, expected = 0, sum = row_weights(row, z.columns, &largest);
        for (uint64_t c = 0; c < z.columns; c++)
            expected += exp((double)row[c] - largest) * (double)of_classes[c];
        w[r] = (float)((double)given[r] * (expected / sum));
    }
}
