/* epochs.h - in which orders a run reads its training rows: pure functions of its options.
 *
 * Every epoch of every task has a number of its own, so that no two share an order; a comparison
 * task takes its original's. Known before the run begins: the largest batch of ragged data is that
 * of all these epochs.
 */
#ifndef PROTO_EPOCHS_H
#define PROTO_EPOCHS_H

#include "proto/msg.h"
#include "proto/options.h"

/* Seed of the order of the run's rows. */
uint64_t epochs_seed(const struct options *o);

/* The original of a comparison task, else the task itself. */
uint32_t epochs_key_task(const struct options *o, uint32_t task);

/* Number of the order's epoch for an epoch of a task (epochs_key_task). */
uint64_t epochs_key(uint32_t key_task, uint64_t epoch);

/* The task to which an epoch of the order belongs, and *epoch, which of its epochs it is (from 0).
 */
uint32_t epochs_key_split(uint64_t key, uint64_t *epoch);

/* All epochs of the run; returns how many ranges were written. */
uint32_t epochs_of_run(const struct options *o, struct msg_epoch_range ranges[OPTION_TASKS_MAX]);

#endif
