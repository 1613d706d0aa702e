/* check_weights.h - what the targets of a split weigh, for `prepare check`. */
#ifndef PIPELINES_PREPARE_CHECK_WEIGHTS_H
#define PIPELINES_PREPARE_CHECK_WEIGHTS_H

#include "proto/err.h"
#include "proto/h5file.h"
#include "proto/options.h"

/* Where data.weights or model.missing_targets is set: read data set `targets` of the group (tokens,
 * of which `window` are a row; else 0) and its weights, print shape and range of these, and count
 * the targets that are there and weigh anything. Refuses weights that are not there or not of the
 * targets' shape; what else stands in the way of training goes to *wrong, unless it says something
 * already: a weight that is no finite number from 0 on, no target that counts. */
int check_weights(struct h5reader *r, const struct options *o, const char *group,
                  const char *targets, uint64_t window, struct err *wrong, struct err *e);

#endif
