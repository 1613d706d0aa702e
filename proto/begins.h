/* begins.h - what can be wrong with `begins`, the data set of a dense split that says which rows do
 * not go on from the one before them (data.stateful), in the same words whoever finds it: loaderd,
 * or `prepare check` before it.
 */
#ifndef PROTO_BEGINS_H
#define PROTO_BEGINS_H

#include <stdint.h>

#include "proto/err.h"

#define BEGINS_WANTED "one unsigned number a row (NumPy: .astype(\"u1\"))"

/* Has data set `path` a number for each of the rows? 0, or -1 and a permanent *e. */
int begins_count_check(const char *path, uint64_t count, uint64_t rows, struct err *e);

#endif
