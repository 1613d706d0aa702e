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

/* A row that does not count. */
static double row_nothing(float *dz, uint64_t count)
{
    for (uint64_t c = 0; dz && c < count; c++)
        dz[c] = 0;
    return 0;
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

void cpu_softmax_cross_entropy(struct matrix z, const uint32_t *targets, struct weighting w,
                               double divisor, double *losses, double *sum, struct matrix dz,
                               enum half half)
{
    for (uint64_t r = 0; r < z.rows; r++) {
        float *d = dz.at ? dz.at + r * dz.stride : NULL;
        double weight = weight_at(w, r, 0);
        losses[r] = weight > 0 ? weight * row_loss(z.at + r * z.stride, z.columns, targets[r],
                                                   divisor / weight, d)
                               : row_nothing(d, z.columns);
    }
    loss_finish(losses, z.rows, sum, dz, half);
}

void cpu_linear_loss(struct matrix x, struct matrix w, const float *bias, enum half half,
                     uint16_t *kept, struct matrix z, const uint32_t *targets,
                     struct weighting weights, double divisor, double *losses, double *sum,
                     struct matrix dz)
{
    cpu_linear_forward(x, w, bias, ACTIVATION_COUNT, half, kept, z);
    cpu_softmax_cross_entropy(z, targets, weights, divisor, losses, sum, dz, half);
}

/* One row of a loss that is a mean over its elements, all alike or each with its weight. */
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
    }                                                                                              \
    static double weighted_##NAME(const float *z, const float *y, struct weighting w,              \
                                  uint64_t count, double delta, double divisor, float *dz)         \
    {                                                                                              \
        double sum = 0;                                                                            \
        (void)delta;                                                                               \
        for (uint64_t c = 0; c < count; c++) {                                                     \
            struct scalar_loss at = FORMULA;                                                       \
            double weight = weight_at(w, 0, c);                                                    \
            sum += scalar_weighted(weight, at.loss);                                               \
            if (dz)                                                                                \
                dz[c] = (float)(scalar_weighted(weight, at.d) / divisor);                          \
        }                                                                                          \
        return sum / (double)count;                                                                \
    }
ELEMENT_ROW(squared, scalar_squared_error((double)z[c], (double)y[c]))
ELEMENT_ROW(absolute, scalar_absolute_error((double)z[c], (double)y[c]))
ELEMENT_ROW(huber, scalar_huber((double)z[c], (double)y[c], delta))
ELEMENT_ROW(binary, scalar_binary_cross_entropy((double)z[c], (double)y[c]))

/* The weights of row r as those of a row 0. */
static struct weighting row_of(struct weighting w, uint64_t r)
{
    return (struct weighting){w.at + r * w.stride, w.stride, w.use};
}

void cpu_element_loss(enum element_loss kind, double delta, struct matrix z, struct matrix y,
                      struct weighting w, double divisor, double *losses, double *sum,
                      struct matrix dz, enum half half)
{
    static const struct {
        double (*alike)(const float *, const float *, uint64_t, double, double, float *);
        double (*weighted)(const float *, const float *, struct weighting, uint64_t, double, double,
                           float *);
    } rows[ELEMENT_LOSS_COUNT] = {
        [ELEMENT_LOSS_SQUARED] = {row_squared, weighted_squared},
        [ELEMENT_LOSS_ABSOLUTE] = {row_absolute, weighted_absolute},
        [ELEMENT_LOSS_HUBER] = {row_huber, weighted_huber},
        [ELEMENT_LOSS_BINARY_CROSS_ENTROPY] = {row_binary, weighted_binary},
    };
    divisor *= (double)z.columns;
    for (uint64_t r = 0; r < z.rows; r++) {
        const float *a = z.at + r * z.stride, *b = y.at + r * y.stride;
        float *d = dz.at ? dz.at + r * dz.stride : NULL;
        losses[r] = w.at ? rows[kind].weighted(a, b, row_of(w, r), z.columns, delta, divisor, d)
                         : rows[kind].alike(a, b, z.columns, delta, divisor, d);
    }
    loss_finish(losses, z.rows, sum, dz, half);
}

/* What an element counts in its row's cosine: of the largest weight there. */
static double cosine_share(struct weighting w, uint64_t c, float largest)
{
    return w.use == WEIGHT_COUNTED ? w.at[c] > 0 : (double)w.at[c] / (double)largest;
}

CPU_CLONES static void cosine_gradients(struct scalar_cosine s, const float *z, const float *y,
                                        uint64_t count, double divisor, float *dz)
{
    for (uint64_t c = 0; c < count; c++)
        dz[c] = scalar_cosine_gradient(&s, (double)z[c], (double)y[c], divisor);
}

/* weighted_cosine where all elements count alike, to the same bits. */
static double row_cosine(const float *z, const float *y, uint64_t count, double divisor, float *dz)
{
    double zz = 0, yy = 0, zy = 0;
    for (uint64_t c = 0; c < count; c++) {
        zz += (double)z[c] * (double)z[c];
        yy += (double)y[c] * (double)y[c];
        zy += (double)z[c] * (double)y[c];
    }
    struct scalar_cosine s = scalar_cosine(zz, yy, zy);
    if (dz)
        cosine_gradients(s, z, y, count, divisor, dz);
    return s.cosine;
}

/* The cosine of a row's z and y, and into dz what it and the divisor make of 1 - cosine. */
static double weighted_cosine(const float *z, const float *y, struct weighting w, float largest,
                              uint64_t count, double divisor, float *dz)
{
    double zz = 0, yy = 0, zy = 0;
    for (uint64_t c = 0; c < count; c++) {
        double u = cosine_share(w, c, largest);
        zz += u * ((double)z[c] * (double)z[c]);
        yy += u * ((double)y[c] * (double)y[c]);
        zy += u * ((double)z[c] * (double)y[c]);
    }
    struct scalar_cosine s = scalar_cosine(zz, yy, zy);
    for (uint64_t c = 0; dz && c < count; c++) {
        double u = cosine_share(w, c, largest);
        dz[c] = (float)u * scalar_cosine_gradient(&s, (double)z[c], (double)y[c], divisor);
    }
    return s.cosine;
}

/* Into out the row's weight, less its cosine if `one_minus`, or that alone. */
static double cosine_or_loss(struct matrix z, struct matrix y, struct weighting w, uint64_t r,
                             double divisor, float *dz, int one_minus)
{
    float largest = w.at ? row_max(w.at + r * w.stride, z.columns) : 1;
    double weight = weight_used(largest, w.use);
    if (!(weight > 0))
        return row_nothing(dz, z.columns);
    const float *a = z.at + r * z.stride, *b = y.at + r * y.stride;
    double cosine =
        w.at ? weighted_cosine(a, b, row_of(w, r), largest, z.columns, divisor / weight, dz)
             : row_cosine(a, b, z.columns, divisor / weight, dz);
    return weight * (one_minus ? 1 - cosine : cosine);
}

void cpu_cosine_loss(struct matrix z, struct matrix y, struct weighting w, double divisor,
                     double *losses, double *sum, struct matrix dz, enum half half)
{
    for (uint64_t r = 0; r < z.rows; r++)
        losses[r] = cosine_or_loss(z, y, w, r, divisor, dz.at ? dz.at + r * dz.stride : NULL, 1);
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

void cpu_cosine_similarity(struct matrix z, struct matrix y, struct weighting w, double *cosines)
{
    for (uint64_t r = 0; r < z.rows; r++)
        cosines[r] = cosine_or_loss(z, y, w, r, 1, NULL, 0);
}

void cpu_correct_classes(struct matrix z, const uint32_t *targets, struct weighting w,
                         double *correct)
{
    for (uint64_t r = 0; r < z.rows; r++)
        correct[r] =
            row_class(z.at + r * z.stride, z.columns) == targets[r] ? weight_at(w, r, 0) : 0;
}

void cpu_predicted_classes(struct matrix z, double *classes)
{
    for (uint64_t r = 0; r < z.rows; r++)
        classes[r] = (double)row_class(z.at + r * z.stride, z.columns);
}

void cpu_correct_signs(struct matrix z, struct matrix y, struct weighting w, double *correct)
{
    for (uint64_t r = 0; r < z.rows; r++) {
        double sum = 0;
        for (uint64_t c = 0; c < z.columns; c++)
            if ((z.at[r * z.stride + c] > 0) == (y.at[r * y.stride + c] > 0.5f))
                sum += weight_at(w, r, c);
        correct[r] = sum / (double)z.columns;
    }
}

void cpu_column_moments(struct matrix y, struct weighting w, double *sums, double *squares,
                        double *counts)
{
    for (uint64_t r = 0; r < y.rows; r++)
        for (uint64_t c = 0; c < y.columns; c++) {
            double value = (double)y.at[r * y.stride + c], weight = weight_at(w, r, c);
            sums[c] += weight * value;
            squares[c] += weight * (value * value);
            counts[c] += weight;
        }
}
