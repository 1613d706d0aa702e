/* optimizer.h - the update sweep: from the batch's gradient to new weights. Inside of the stepper.
 *
 *   AdamW: p *= 1 - lr wd; m, v; p -= lr/(1-b1^t) m / (sqrt(v)/sqrt(1-b2^t) + eps)
 *   SGD:   d = g + wd p; m = momentum m + d; p -= lr m, with nesterov p -= lr (d + momentum m);
 *          torch.optim.SGD with dampening 0
 *
 * with g the clipped gradient. Each of the two parameter groups, backbone and rest, has its rate;
 * they are ranges of the flat vector.
 */
#ifndef ENGINE_OPTIMIZER_H
#define ENGINE_OPTIMIZER_H

#include "engine/stepper.h"

/* Constants of one step for each group, in double until the end. */
struct optimizer_scalars {
    struct adamw_scalars adamw[2]; /* of the backbone, of the rest */
    struct sgd_scalars sgd[2];
};

/* `norm` is the gradient's, `t` counts steps from 1. late: NULL, or where the device has what
 * follows from the norm. */
struct optimizer_scalars optimizer_scalars_make(const struct optimizer_config *c, uint64_t t,
                                                double norm, const struct step_verdict *late);

/* Parameters first .. first + count - 1 of the flat vector, all of them trained. On a device apart
 * the weights for products become those, rounded, in the same sweep. */
void optimizer_update(const struct stepper *s, const struct optimizer_scalars *o, uint64_t first,
                      uint64_t count);

/* Vectors as long as the trained parameters that the optimizer keeps: 0 to 2. */
int optimizer_moments(enum optimizer_kind kind);

#endif
