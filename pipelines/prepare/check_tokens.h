/* check_tokens.h - what a data file of layout tokens holds, for `prepare check`. */
#ifndef PIPELINES_PREPARE_CHECK_TOKENS_H
#define PIPELINES_PREPARE_CHECK_TOKENS_H

#include <stdint.h>

#include "proto/err.h"
#include "proto/h5file.h"

/* 1 if `group` holds tokens. */
int check_tokens_has(struct h5reader *r, const char *group);

/* Read them once and print shape, range, documents, and if `stateful` how many rows begin. Refuses
 * tokens that are no unsigned integers, pointers that are not in order (cuts.h), and fewer tokens
 * than a row of `window` tokens and the next one takes. */
int check_tokens(struct h5reader *r, const char *group, uint64_t window, int stateful,
                 struct err *e);

#endif
