/* schedule.h - what comes when: steps, epoch keys and evaluations of the whole run, as pure
 * functions.
 *
 * A comparison task must differ from its original by the missing penalty and by nothing else. So it
 * takes the original's keys: the same orders of the rows and the same dropout. Everything else
 * counts on: its steps come after those of the tasks before it.
 */
#ifndef TRAINERD_SCHEDULE_H
#define TRAINERD_SCHEDULE_H

#include <stdint.h>

#include "engine/lr_schedule.h"
#include "proto/epochs.h"
#include "proto/err.h"
#include "proto/options.h"

struct schedule {
    uint32_t task_count;
    /* of each task: rows of an epoch that are trained on; of one optimizer step; steps of an epoch,
     * whose last one may be of fewer rows */
    uint64_t rows[OPTION_TASKS_MAX], batch_rows[OPTION_TASKS_MAX], epoch_steps[OPTION_TASKS_MAX];
    uint64_t
        first_step[OPTION_TASKS_MAX + 1]; /* steps before each task; the last: of the whole run */
    uint32_t key_task[OPTION_TASKS_MAX];  /* the original of a comparison, else the task itself */
    uint64_t epochs[OPTION_TASKS_MAX];
    uint64_t averaged_from[OPTION_TASKS_MAX]; /* epochs before those averaged; all: none is */
};

/* What can be checked before the data are known: a comparison repeats its original
 * (options_comparison_differs) without EWC, every task has epochs to average, and the results of
 * all tasks fit a checkpoint. */
int schedule_check(const struct options *o, struct err *e);

/* 1 and a sentence where weight averaging was asked for and `task` has fewer than two epochs to
 * average, else 0. */
int schedule_averages_few(const struct options *o, uint32_t task, char *text, size_t bytes);

/* Needs options that schedule_check accepts, and rows[task_count], each > 0: those of an epoch of
 * the task's order. -1 (permanent) when data.drop_last leaves none. */
int schedule_open(struct schedule *s, const struct options *o, const uint64_t *rows, struct err *e);

uint64_t schedule_steps(const struct schedule *s); /* of the whole run */

/* Steps of the run before an epoch of a task. */
uint64_t schedule_epoch_begin(const struct schedule *s, uint64_t task, uint64_t epoch);

/* Rows of the batch that begins at `position` of an epoch of a task. */
uint64_t schedule_batch_rows(const struct schedule *s, uint32_t task, uint64_t position);

/* Number of the order's epoch for an epoch of a task: one a run, so that no two tasks share an
 * order. */
uint64_t schedule_epoch_key(const struct schedule *s, uint32_t task, uint64_t epoch);

/* Key of dropout for a task's step: the original's place in the run. */
uint64_t schedule_dropout_key(const struct schedule *s, uint32_t task, uint64_t task_step);

struct schedule_rates {
    double rate, backbone_rate;
    double beta1; /* SGD: the momentum */
};

/* Of options_of_task. In an epoch of a task, at its place `step` (0 .. the task's steps - 1) in the
 * schedule, by the options training.scheduler_type and following. One writer at a time: the
 * schedule, then weight averaging; `scale` multiplies what is in force. */
struct schedule_rates schedule_rates(const struct options *o, const struct schedule *s,
                                     uint32_t task, uint64_t epoch, uint64_t step, double scale);

/* The tasks whose data are evaluated when `task` ends: all that are no comparison, up to its
 * original, and with continual_learning.forward_transfer the next one. Returns how many were
 * written. */
uint32_t schedule_evaluations(const struct options *o, uint32_t task,
                              uint32_t list[OPTION_TASKS_MAX]);

/* The same before the first task's first step: with continual_learning.forward_transfer all that
 * are no comparison, else none. */
uint32_t schedule_first_evaluations(const struct options *o, uint32_t list[OPTION_TASKS_MAX]);

#endif
