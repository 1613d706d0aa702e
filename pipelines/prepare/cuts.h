/* cuts.h - pointers that cut the items of a data set into rows: documents of tokens, nodes and
 * edges of graphs. For `prepare check`; held whole, as loaderd holds them.
 */
#ifndef PIPELINES_PREPARE_CUTS_H
#define PIPELINES_PREPARE_CUTS_H

#include <stdint.h>

#include "proto/err.h"
#include "proto/h5file.h"

struct cuts {
    struct h5array array;
    uint64_t *at; /* [rows + 1] */
    uint64_t rows, empty, shortest, longest;
};

/* Read data set `name`, which cuts the `items` items of `of`. Refuses what is no list of whole
 * numbers, and pointers that do not begin with 0, fall, or end elsewhere. On failure too,
 * cuts_close is due. */
int cuts_open(struct cuts *c, struct h5reader *r, const char *name, uint64_t items, const char *of,
              struct err *e);
void cuts_close(struct cuts *c); /* harmless twice, and on a zeroed struct */

/* "  train/doc_ptr: u64 [49], documents of 1 to 70 tokens, 3 without any" and the line's end. */
void cuts_print(const struct cuts *c, const char *rows, const char *items);

/* "group/name", or "name" for the root (an empty group). */
const char *check_path(const char *group, const char *name, char path[H5FILE_NAME_MAX + 1]);

#endif
