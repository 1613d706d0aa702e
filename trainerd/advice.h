/* advice.h - what would make a run fit that does not: options of a run that is refused for its
 * memory, tried on its real plan in a fixed order (docs/MEMORY.md). */
#ifndef TRAINERD_ADVICE_H
#define TRAINERD_ADVICE_H

#include "trainerd/trainer.h"

struct advice_run { /* as for plan_make; all is borrowed */
    const struct options *o;
    const struct model *m;
    const struct plan_bases *bases;
    const struct split_shape *train, *validation, *const *of_tasks;
    int goes_on; /* it is resumed: options that options_conflict refuses then are no help */
};

/* plan_check of *p, that run's plan; where it is refused the sentence ends with the first options
 * of the order that fit, with what they take and whether they change the result; or with the
 * least that there is. */
int advice_check(const struct advice_run *r, const struct plan *p, struct err *e);

#endif
