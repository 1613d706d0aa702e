/* kept.h - RUN/prepared/: what a run keeps of its data files so that new rows can be prepared as
 * theirs were (prepare.like), whatever becomes of the files.
 *
 *   RUN/prepared/<task>.h5   the file that this task, and those after it, read, without a row: the
 *                            data sets of its group validation with no rows, normalise/, and the
 *                            attributes that say what was prepared, among them fingerprint
 *
 * A file that changes before the run has a checkpoint is kept as it is then; from the first one on
 * the run goes on with no other, and what is kept stays.
 */
#ifndef PIPELINES_PREPARE_KEPT_H
#define PIPELINES_PREPARE_KEPT_H

#include <limits.h>
#include <stdint.h>

#include "proto/err.h"
#include "proto/options.h"

/* Can new rows follow files that prepare made in this way (data.prepare)? */
int kept_follows(const char *prepare);

/* Keep what there is of the data files of `o`, whose names are absolute. */
int kept_write(const char *run, const struct options *o, struct err *e);

/* The file that new rows of task number `task` of the run follow: what was kept, or of a run that
 * keeps nothing its data file. -1 (permanent) where neither is what the run was trained on. */
int kept_find(const char *run, const struct options *o, uint32_t task, char path[PATH_MAX],
              struct err *e);

/* Is it sure that the data files are others than the run was trained on? Of files that prepare did
 * not make it is not. */
int kept_data_changed(const char *run, const struct options *o);

#endif
