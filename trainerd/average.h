/* average.h - the mean of the weights at the ends of a task's last epochs (stochastic weight
 * averaging, torch.optim.swa_utils.AveragedModel): a file that is written once an epoch, so that no
 * second model is in memory.
 *
 * checkpoints/average-<step>-<task>.f32 holds all parameters as float32, in the order of the flat
 * vector, at the end of the epoch at that step. A new file is durable before the checkpoint that
 * names its digest, and older ones stay as long as a checkpoint that is kept needs them: whichever
 * checkpoint a run goes on from, its average is there.
 */
#ifndef TRAINERD_AVERAGE_H
#define TRAINERD_AVERAGE_H

#include <stdint.h>

#include "proto/err.h"
#include "trainerd/retention.h"

/* An average of `count` vectors (0: none yet) at the end of the epoch at `step` of task `task`. */
struct average {
    uint64_t step, task, count;
    char sha256[65];
};

/* `next`, whose step and task are set, is the average of `now` and one more vector; its count and
 * digest are filled. -1: the old one is not there (permanent), or the new one cannot be written. */
int average_add(const struct average *now, struct average *next, const float *parameters,
                uint64_t count, struct err *e);

/* Into parameters[count]. -1 (permanent) when it is not there or not what the digest says. */
int average_read(const struct average *a, float *parameters, uint64_t count, struct err *e);

#endif
