/* check_tokens.h - what a data file of layout tokens holds, for `prepare check`. */
#ifndef PIPELINES_PREPARE_CHECK_TOKENS_H
#define PIPELINES_PREPARE_CHECK_TOKENS_H

#include "proto/err.h"
#include "proto/h5file.h"

/* 1 if `group` holds tokens. */
int check_tokens_has(struct h5reader *r, const char *group);

/* Read them once and print shape, range, documents. Refuses pointers that are not in order. */
int check_tokens(struct h5reader *r, const char *group, struct err *e);

/* "group/name", or "name" for the root (an empty group). */
const char *check_path(const char *group, const char *name, char path[H5FILE_NAME_MAX + 1]);

#endif
