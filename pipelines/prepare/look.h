/* look.h - what the rows of one data set hold: ranges, NaN, constant columns. For `prepare check`.
 */
#ifndef PIPELINES_PREPARE_LOOK_H
#define PIPELINES_PREPARE_LOOK_H

#include <stdint.h>

#include "proto/err.h"
#include "proto/h5file.h"

enum { LOOK_ROW_BYTES_MAX = 64 << 20 };

struct look {
    struct h5array array;
    uint64_t row_values, row_bytes;
    double *low, *high;                /* [row_values], of the finite values */
    uint64_t nan, infinite, first_bad; /* first_bad: row */
    unsigned char *block;              /* rows of it, of the caller's number */
};

/* Describe data set `name`. Refuses an empty one and rows over LOOK_ROW_BYTES_MAX. On failure
 * too, look_close is due. */
int look_open(struct look *l, struct h5reader *r, const char *name, struct err *e);
void look_close(struct look *l); /* harmless twice, and on a zeroed struct */

/* Make room for blocks of `rows` rows; read rows [first, first + rows) into the block and look at
 * each of their values. */
int look_room(struct look *l, uint64_t rows, struct err *e);
int look_read(struct look *l, struct h5reader *r, uint64_t first, uint64_t rows, struct err *e);

/* Look at all rows, a few MiB at a time. */
int look_all(struct look *l, struct h5reader *r, struct err *e);

/* One value as training sees it. */
double look_value(enum h5type type, const unsigned char *at);

/* Mix a row of the block into a hash. */
uint64_t look_hash(const struct look *l, uint64_t row, uint64_t hash);

/* "  train/features: f32 [3, 4]" without a line's end; then ", values 1 to 5, NaN 0, infinite 0"
 * and its end; then a line of the columns that are constant. */
void look_print_shape(const struct look *l);
void look_print_range(const struct look *l);
void look_print_constant(const struct look *l);

#endif
