/* line.h - products with a vector: a patch of one row would wait for its own sums most of the time.
 */
#ifndef ENGINE_CPU_LINE_H
#define ENGINE_CPU_LINE_H

#include "engine/cpu/patch.h"

/* y[j] = the sum over the steps of a[k] b[j, k], y's numbers lying y_next apart: a's first row, b
 * in place, the bits those of patches. `use`, PATCH_ADD or PATCH_GO_ON, is of what y holds of the
 * blocks of steps before, and, where `add`, before all of them. 0: nothing is done, for these
 * patches or where neither b.next nor b.step is 1. */
int line_run(const struct patches *p, struct factor a, struct factor b, uint64_t steps, int add,
             enum patch_use use, float *y, uint64_t y_next);

#endif
