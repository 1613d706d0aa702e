/* sequences.h - rows of a file that go on from one another, cut into sequences of which a model
 * that carries a state can take many at a time.
 *
 * A block is rows that follow one another in the file. It is cut at the rows that begin; the
 * longest sequences come first, a stream each, so that those that have a k-th row are always the
 * first streams. The block's first row may go on from the last one of the block before, whose
 * stream has its state.
 */
#ifndef TRAINERD_SEQUENCES_H
#define TRAINERD_SEQUENCES_H

#include "proto/feed.h"

struct sequence {
    uint64_t first, rows; /* in the block */
};

struct sequences {
    uint64_t streams, rows_max; /* most sequences and rows of a block */
    struct feed_row *rows;      /* [rows_max], of the block: found by the caller */
    struct sequence *all;       /* [streams] */
    uint64_t count, block_rows; /* of the block */
    uint64_t from, to; /* streams of the last row of the block before, and of the first of this */
    uint64_t last;     /* stream of this block's last row */
};

/* -1: no memory; sequences_close is due all the same. */
int sequences_open(struct sequences *q, uint64_t streams, uint64_t rows_max, struct err *e);
void sequences_close(struct sequences *q);

/* A block of as many of the `count` rows found, at least one, as have no more sequences than
 * streams. begins: of the rows; its name is empty where none does. */
void sequences_cut(struct sequences *q, const struct msg_field_info *begins, uint64_t count);

/* Sequences that have a k-th row, from 0 on: the first ones. */
uint64_t sequences_with(const struct sequences *q, uint64_t k);

#endif
