/* plateau.h - lowering the rate when a number stops getting better: the state machine of
 * torch.optim.lr_scheduler.ReduceLROnPlateau, as FORMULAS "Training semantics" 2 has it.
 *
 * What torch keeps as a rate is a factor here: whatever the schedule gives is multiplied by
 * `scale`.
 */
#ifndef ENGINE_PLATEAU_H
#define ENGINE_PLATEAU_H

#include <stdint.h>

struct plateau_config {
    int larger_is_better;
    int absolute;     /* the threshold is added to the best, else a share of it */
    double threshold; /* what counts as better */
    double factor;    /* of a reduction */
    double scale_min; /* scale is never less */
    double step_min;  /* a reduction by no more than this is not made (torch's eps) */
    uint64_t patience, cooldown;
};

struct plateau {
    double best;       /* plus or minus infinity: none yet */
    double scale;      /* 1 at first */
    uint64_t bad;      /* epochs without a better number */
    uint64_t cooldown; /* epochs left of it */
};

struct plateau plateau_begin(int larger_is_better);

/* The number of one more epoch; NaN is none that is better. 1 if the scale became less. */
int plateau_step(struct plateau *p, const struct plateau_config *c, double value);

#endif
