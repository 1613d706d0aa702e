/* split.h - which rows of a source train and which evaluate: a pure function of the options, the
 * number of rows and the row.
 */
#ifndef PIPELINES_PREPARE_SPLIT_H
#define PIPELINES_PREPARE_SPLIT_H

#include <stdint.h>

#include "proto/options.h"

/* prepare.validation_fraction of `rows` (at least 2), leaving at least one on either side. */
uint64_t split_validation(const struct options *o, uint64_t rows);

/* 1 if row `row` of `rows`, of which `validation` evaluate, is one of those (prepare.split). */
int split_evaluates(const struct options *o, uint64_t rows, uint64_t validation, uint64_t row);

#endif
