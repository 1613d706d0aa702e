/* check_tokens.h - what a data file of layout tokens holds, for `prepare check`. */
#ifndef PIPELINES_PREPARE_CHECK_TOKENS_H
#define PIPELINES_PREPARE_CHECK_TOKENS_H

#include <stdint.h>

#include "proto/err.h"
#include "proto/h5file.h"

/* 1 if `group` holds tokens. */
int check_tokens_has(struct h5reader *r, const char *group);

struct tokens_wanted {
    uint64_t window; /* a row is so many tokens, and the next one */
    int stateful;
    /* different ones that the model takes, and that it predicts; 0: not known */
    uint64_t tokens, outputs;
};

/* Read them once and print shape, range, documents, and if `stateful` how many rows begin. Refuses
 * tokens that are no unsigned integers, pointers that are not in order (cuts.h), and fewer tokens
 * than a row; the first one that the model does not take or predict goes to *wrong, unless it says
 * something already. */
int check_tokens(struct h5reader *r, const char *group, const struct tokens_wanted *wanted,
                 struct err *wrong, struct err *e);

#endif
