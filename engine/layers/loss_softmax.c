/* loss_softmax.c - softmax cross-entropy: -log softmax(z)[target], mean over the batch's rows (the
 * divisor).
 *
 * A slice does not know the batch's size: it is given the divisor, so that the slices' gradients
 * add up to the gradient of the batch's mean. Divisor 1 gives each sample's own gradient, which the
 * Fisher information needs.
 */
#include "engine/layer.h"

extern const struct loss_type loss_softmax_cross_entropy;

static void softmax_slice(const struct backend *b, const float *outputs, const uint32_t *targets,
                          uint64_t rows, uint64_t width, double divisor, double *losses, float *d)
{
    op_softmax_cross_entropy(b, matrix_of(outputs, rows, width), targets, divisor, losses,
                             matrix_of(d, rows, width));
}

const struct loss_type loss_softmax_cross_entropy = {"softmax_cross_entropy", softmax_slice};
