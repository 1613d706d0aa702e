/* order.h - which row stands at which position of an epoch: a pure function, no table, no state.
 *
 * An order is (seed, shuffle, rows, chunk_rows, span_rows R, window_spans W). In epoch e the full
 * chunks of the file are permuted by a keyed permutation (a Feistel network over the next even
 * power of two with cycle walking); a last partial chunk stays last. The permuted chunks are laid
 * end to end and cut into spans of R rows (R is a whole number of chunks; only the last span is
 * shorter): that is what the loader delivers, rows inside it in stored order. W consecutive spans
 * are a window; the consumer reads the rows of a window in an order permuted by a second key. With
 * shuffle off both are the identity.
 *
 * With `streams` S (shuffle off, W = S) the rows are cut into S equal contiguous parts of L rows
 * instead, and the positions go round them: position t S + b is row t of part b, so that row b of
 * every batch of S rows goes on where the batch before ended. Span k S + b holds the rows k R and
 * following of part b; window k is the S spans of that k. Where S does not divide the rows, the
 * first of the parts have a row more, which are the last positions; they may be a window of fewer
 * spans.
 *
 * Every function is O(1) and any position can be asked at random.
 */
#ifndef PROTO_ORDER_H
#define PROTO_ORDER_H

#include <stdint.h>

struct order {
    uint64_t seed;
    int shuffle;
    uint64_t rows, chunk_rows, span_rows, window_spans;
    uint64_t streams; /* 0: none */
};

/* A keyed permutation of 0 .. n-1: returns the image of i. Same for every machine and compiler. */
uint64_t order_permute(uint64_t key, uint64_t n, uint64_t i);

/* A 64-bit mix of two words, the house's one hash for keys (a bijection in b for fixed a). */
uint64_t order_key(uint64_t a, uint64_t b);

/* FNV-1a of some bytes: to key or to name something, not against anybody. */
uint64_t order_hash(const void *data, uint64_t bytes);

uint64_t order_spans(const struct order *o);                        /* spans an epoch */
uint64_t order_windows(const struct order *o);                      /* windows an epoch */
uint64_t order_span_rows(const struct order *o, uint64_t span);     /* rows of that span */
uint64_t order_window_rows(const struct order *o, uint64_t window); /* rows of that window */

/* The window that holds `position`, the positions before it, and its spans (the first is window *
 * window_spans). */
uint64_t order_window_of(const struct order *o, uint64_t position);
uint64_t order_window_first(const struct order *o, uint64_t window);
uint64_t order_window_spans(const struct order *o, uint64_t window);

/* Row of the file that a span begins with. Only where shuffle is off. */
uint64_t order_span_first(const struct order *o, uint64_t span);

/* The chunk of the file that stands at `place` (0 .. chunks-1) of epoch `epoch`: what the loader
 * reads. Span s holds the places s * R / chunk_rows and following. */
uint64_t order_chunk_at(const struct order *o, uint64_t epoch, uint64_t place);

/* Rows [first, first + rows) of the file, which stand at rows `at` and following of a span. */
struct order_run {
    uint64_t first, rows, at;
};

/* The next run of the span, chunks that follow one another in the file taken together; begin with
 * {0}. 1, or 0 after the last. */
int order_run_next(const struct order *o, uint64_t epoch, uint64_t span, struct order_run *run);

/* Key of the permutation of a window's rows: order_permute(key, order_window_rows(window), i) is
 * the place in the window of its i-th row in reading order (shuffle on). For readers of whole
 * windows. */
uint64_t order_window_key(const struct order *o, uint64_t epoch, uint64_t window);

struct order_row {
    uint64_t span; /* span of the epoch that holds the row */
    uint64_t row;  /* row inside that span */
};

/* Where the place-th row of a window lies, places 0 .. order_window_rows - 1 counted before the
 * window's own permutation; span counts from the window's first. */
struct order_row order_window_place(const struct order *o, uint64_t place);

/* Where the row at position p (0 .. rows-1) of epoch e lies: what the consumer gathers. */
struct order_row order_row_at(const struct order *o, uint64_t epoch, uint64_t position);

/* The row of the file at that position (order_row_at and order_chunk_at composed). */
uint64_t order_file_row(const struct order *o, uint64_t epoch, uint64_t position);

/* Permutation of features for `permute_features: seed`: out[j] = source index of feature j. */
void order_features(uint64_t seed, uint32_t features, uint32_t *out);

#endif
