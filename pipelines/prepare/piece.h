/* piece.h - a data set of a prepared file, written chunk by chunk as its rows come. */
#ifndef PIPELINES_PREPARE_PIECE_H
#define PIPELINES_PREPARE_PIECE_H

#include <stdint.h>

#include "proto/err.h"
#include "proto/h5file.h"

struct piece {
    struct h5writer *writer; /* borrowed */
    char name[64];
    uint64_t row_bytes, chunk_rows, held;
    unsigned char *data; /* one chunk; the first `held` rows of it are there */
};

/* Rows of a chunk as wanted, or fewer of large ones (4 MiB a chunk), at least 1. */
uint64_t piece_chunk_rows(uint64_t row_bytes, uint64_t wanted);

/* Begin the data set `name`: dims[0] rows, all greater than 0; fewer rows than chunk_rows are one
 * chunk. On failure too, piece_close is due. */
int piece_begin(struct piece *p, struct h5writer *w, const char *name, enum h5type type, int rank,
                const uint64_t *dims, uint64_t chunk_rows, struct err *e);
/* The same where the number of rows is known only at the end: they grow along dimension `axis` (see
 * h5writer_growing_begin), whose entry of dims is not looked at. */
int piece_begin_growing(struct piece *p, struct h5writer *w, const char *name, enum h5type type,
                        int rank, const uint64_t *dims, int axis, uint64_t chunk_rows,
                        struct err *e);
void piece_close(struct piece *p); /* harmless twice, and on a zeroed struct */

/* The place of the next row, to be filled before the next call; NULL and *e. */
unsigned char *piece_row(struct piece *p, struct err *e);

/* Add a copy of that many rows. */
int piece_add(struct piece *p, const void *rows, uint64_t count, struct err *e);

/* Write what is held: after the last row. */
int piece_flush(struct piece *p, struct err *e);

#endif
