/* alike.h - are files that were prepared each by itself of the same columns and classes? One model
 * learns from those of all tasks, and is asked about new ones: input i and class k must mean the
 * same in each.
 */
#ifndef PIPELINES_PREPARE_ALIKE_H
#define PIPELINES_PREPARE_ALIKE_H

#include "proto/err.h"
#include "proto/options.h"

/* Compare the lists of names that prepare entered into the files of the tasks of `o`, so far as
 * they are there and prepare made them. -1 (permanent) and the first difference. */
int alike_check(const struct options *o, struct err *e);

/* Are the rows of a file such as those of `file`, which a model was trained on: columns, classes,
 * and what they were normalised by? -1 (permanent) and the first difference; 0 also of rows that
 * prepare did not make. */
int alike_rows_check(const char *rows, const char *file, struct err *e);

#endif
