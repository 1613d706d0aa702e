/* penalty.h - the EWC terms of a block of parameters, inside of the gradient sweep.
 *
 *   g += sum over terms of lambda (F + damping) (theta - theta*)
 *
 * A block is walked tensor by tensor, in pieces that stay in the first-level cache: F, which is
 * kept compressed, is expanded there, once a step.
 */
#ifndef ENGINE_PENALTY_H
#define ENGINE_PENALTY_H

#include "engine/stepper.h"

/* Add the gradient of the batch's terms at parameters first .. first + count - 1 of the flat vector
 * to g[count], and the penalty there to *penalty: sum over terms of lambda/2 sum (F + damping)
 * (theta - theta*)^2, in a fixed order. */
void penalty_add(const struct stepper *s, uint64_t first, uint64_t count, float *g,
                 double *penalty);

#endif
