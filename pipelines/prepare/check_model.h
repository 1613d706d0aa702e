/* check_model.h - what `prepare check` knows of the model without the engine: from model.layers. */
#ifndef PIPELINES_PREPARE_CHECK_MODEL_H
#define PIPELINES_PREPARE_CHECK_MODEL_H

#include <stdint.h>

#include "proto/options.h"

/* Outputs of a row, of tokens those of each: of the last layer that has a width of its own. 0 where
 * that does not tell them. */
uint64_t check_model_outputs(const struct options *o);

/* Different tokens that the first layer takes, or 0 where it takes none. */
uint64_t check_model_tokens(const struct options *o);

#endif
