/* loss.c - softmax cross-entropy and the count of right answers, row by row.
 *
 * A row is as long as there are classes, so the exponentials are few: they are taken in double,
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
    for (uint64_t c = 0; c < classes; c++) {
        double p = exp((double)z[c] - max) / sum;
        dz[c] = (float)((c == target ? p - 1.0 : p) / divisor);
    }
    return loss;
}

void cpu_softmax_cross_entropy(struct matrix z, const uint32_t *targets, double divisor,
                               double *losses, struct matrix dz)
{
    for (uint64_t r = 0; r < z.rows; r++)
        losses[r] = row_loss(z.at + r * z.stride, z.columns, targets[r], divisor,
                             dz.at ? dz.at + r * dz.stride : NULL);
}

void cpu_correct_count(struct matrix z, const uint32_t *targets, uint64_t *correct)
{
    *correct = 0;
    for (uint64_t r = 0; r < z.rows; r++) {
        const float *row = z.at + r * z.stride;
        uint64_t best = 0;
        for (uint64_t c = 1; c < z.columns; c++)
            if (row[c] > row[best])
                best = c;
        *correct += best == targets[r];
    }
}
