/* retention.h - which checkpoint files stay: their names, and what is removed when a newer one is
 * durable. */
#ifndef TRAINERD_RETENTION_H
#define TRAINERD_RETENTION_H

#include <stddef.h>
#include <stdint.h>

#include "proto/err.h"

enum { CHECKPOINT_PATH_BYTES = 160 };

/* checkpoints/step-<step>-<task>.h5, checkpoints/task-<name>.h5, checkpoints/best-<name>.h5 */
void retention_step_path(char path[CHECKPOINT_PATH_BYTES], uint64_t step, uint64_t task);
void retention_task_path(char path[CHECKPOINT_PATH_BYTES], const char *task);
void retention_best_path(char path[CHECKPOINT_PATH_BYTES], const char *task);
/* checkpoints/restore.h5: the newest end of an epoch, where a bad number goes back to */
void retention_restore_path(char path[CHECKPOINT_PATH_BYTES]);
/* checkpoints/average-<step>-<task>.f32 (trainerd/average.h) */
void retention_average_path(char path[CHECKPOINT_PATH_BYTES], uint64_t step, uint64_t task);

/* 1 and step, task when `name` is that of a step checkpoint. */
int retention_parse(const char *name, uint64_t *step, uint64_t *task);

/* Make `link_path` another name of the file `path`, durably, in place of what it named before. The
 * content is then kept for as long as either name is. */
int retention_link(const char *path, const char *link_path, struct err *e);

/* Remove all step checkpoints of `directory` but the newest `keep` up to (step, task), which is the
 * one just written; later ones were passed over as bad when the run resumed; averages that none of
 * those that stay can need; and what killed writers left half done. Other names (task ends, the
 * best) stay. Best effort: a file that cannot be removed is a warning. */
void retention_sweep(const char *directory, uint64_t keep, uint64_t step, uint64_t task);

#endif
