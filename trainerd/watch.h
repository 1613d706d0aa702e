/* watch.h - what the end of an epoch decides from the validation loss or metric: a lower rate
 * (plateau), and whether the task ends early. Pure: the state is in the checkpoint's meta.
 */
#ifndef TRAINERD_WATCH_H
#define TRAINERD_WATCH_H

#include "proto/checkpoint.h"
#include "proto/options.h"

/* The state at a task's beginning. */
void watch_begin(struct checkpoint_meta *m, const struct options *o);

/* Of the two numbers of an evaluation the one that training.watch names. */
double watch_value(const struct options *o, double metric, double loss);

/* One more epoch with that value. 1 if the rate became less. An epoch without a plateau in the
 * options forgets the one before: switched on again it begins anew. */
int watch_epoch(struct checkpoint_meta *m, const struct options *o, double value);

/* What the plateau makes of the rate: 1 where the options have none, and never so little that the
 * rate is less than plateau_min_lr. */
double watch_scale(const struct checkpoint_meta *m, const struct options *o);

/* Would the task end with an epoch of that value? Asked before watch_epoch. */
int watch_stops(const struct checkpoint_meta *m, const struct options *o, double value);

#endif
