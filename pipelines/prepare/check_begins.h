/* check_begins.h - which rows of a dense split begin, for `prepare check`. */
#ifndef PIPELINES_PREPARE_CHECK_BEGINS_H
#define PIPELINES_PREPARE_CHECK_BEGINS_H

#include "proto/err.h"
#include "proto/h5file.h"
#include "proto/options.h"

/* Where data.stateful is set and the group has a data set `begins`: read it, print its shape and
 * how many of the split's `rows` rows begin. Refuses what loaderd would refuse. */
int check_begins(struct h5reader *r, const struct options *o, const char *group, uint64_t rows,
                 struct err *e);

#endif
