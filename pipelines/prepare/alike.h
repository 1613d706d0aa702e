/* alike.h - are the tasks' files, each prepared by itself, of the same columns and classes? One
 * model learns from all of them: input i and class k must mean the same in each.
 */
#ifndef PIPELINES_PREPARE_ALIKE_H
#define PIPELINES_PREPARE_ALIKE_H

#include "proto/err.h"
#include "proto/options.h"

/* Compare the lists of names that prepare entered into the files of the tasks of `o`, so far as
 * they are there and prepare made them. -1 (permanent) and the first difference. */
int alike_check(const struct options *o, struct err *e);

#endif
