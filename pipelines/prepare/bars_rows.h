/* bars_rows.h - which rows a file of bars gives, and which of them train and evaluate.
 *
 * A row is decided at the end of a bar of the file. It shows the last bars of each timeframe that
 * are complete then, and has the next prepare.horizon bars of the file as targets. It is possible
 * when there are as many bars as its windows take, and bar, targets and the window of the shortest
 * timeframe (prepare.gap_windows: none: every window) lie in one stretch. Every prepare.stride-th
 * possible row is taken.
 *
 * A row goes on from the one before it where both lie in one stretch and no bar is left out between
 * that one's last bar and the first bar of this one's shortest timeframe. Where windows overlap
 * (prepare.stride) that is so, too.
 *
 * The last rows evaluate. Those before train unless their targets overlap with evaluated ones, that
 * is, end behind the first evaluated row's decision (prepare.purge: targets, as a split is commonly
 * purged: what is evaluated was not seen; prices that an evaluated row shows may have been, as they
 * are known when it is decided). prepare.purge: windows wants them to end before the first price
 * that an evaluated row was made of, which costs as many rows as the longest window is long.
 */
#ifndef PIPELINES_PREPARE_BARS_ROWS_H
#define PIPELINES_PREPARE_BARS_ROWS_H

#include "pipelines/prepare/bars_data.h"

struct bars_rows {
    const struct bars_data *data;
    uint32_t horizon;      /* 0: there are no targets */
    uint32_t shortest;     /* index of the series */
    uint64_t stride, lead; /* possible rows that are thought before the first: the last is taken */
    int all_cut;           /* no window goes on over a cut */
    int purge_windows;
    uint64_t rows, train_rows, validation_rows; /* the first; the last of them */
    /* the present row, its number from 0 */
    uint64_t row;
    uint32_t bar;                  /* of the file, at whose end it is decided */
    int begins;                    /* it is the first, or does not go on from the one before it */
    uint32_t last, last_stretch;   /* bar and stretch of that one */
    uint32_t done[TIMEFRAMES_MAX]; /* bars of each series that are complete then */
    uint32_t next, stretch;        /* where to look on */
    uint64_t possible;
};

/* Count the rows and divide them. Refuses data that give fewer than 2 rows, or none to train. With
 * prepare.like all evaluate, one is enough, it needs no bars behind it, and the last possible one
 * is taken. */
int bars_rows_open(struct bars_rows *r, const struct bars_data *d, const struct options *o,
                   struct err *e);

/* Go before the first row; to the next one: 1, or 0 when there is none. */
void bars_rows_begin(struct bars_rows *r);
int bars_rows_next(struct bars_rows *r);

#endif
