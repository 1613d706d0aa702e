/* layout.h - what a slot of a stream holds: its fields, where they lie, and how many rows a span
 * has; pure arithmetic on what the source says.
 *
 * A slot holds the fields one after the other, each with its items contiguous, at offsets that are
 * multiples of 64 and the same for every span of the stream, the shorter last one included. Ragged
 * fields have room for the most items that any span of any epoch can have.
 *
 * The fields as a whole begin up to LAYOUT_OFFSET_MAX bytes into the slot: where the span's first
 * item that is copied as it is stored has the address modulo 64 that it has in the file (but for
 * the last 3 bits: numbers stand where their type may). The kernel's copies between places that do
 * not agree take half as long again (rep movsb on AMD's Zen 4, to memory that the caches do not
 * hold: 6 to 7 GB/s instead of 10), and libhdf5 puts chunks at any multiple of 8.
 */
#ifndef LOADERD_LAYOUT_H
#define LOADERD_LAYOUT_H

#include "loaderd/h5source.h"
#include "loaderd/reader.h"
#include "proto/order.h"
#include "proto/span.h"

enum layout_from {
    LAYOUT_ITEMS,   /* items of a data set: one a row, or those that `cut` gives the row */
    LAYOUT_POINTER, /* where each row's items begin in the span: made from `cut` */
    LAYOUT_WINDOWS, /* tokens, or their weights: `window` of them and the next one a row */
    LAYOUT_STARTS,  /* a bit for each token of a row: does a document begin with it? */
    LAYOUT_BEGINS,  /* of tokens: does one begin with the row's first? */
};

struct layout_field {
    enum layout_from from;
    uint32_t set, plane;              /* of ITEMS and WINDOWS: of the source */
    const struct source_pointer *cut; /* NULL: none; of STARTS and BEGINS the documents */
};

enum { LAYOUT_CUTS_MAX = 2 }; /* pointers of a layout that cut a row's items */

enum { LAYOUT_OFFSET_STEP = 8, LAYOUT_OFFSET_MAX = 64 - LAYOUT_OFFSET_STEP };

struct layout {
    struct layout_field field[SPAN_FIELDS_MAX]; /* beside struct reader_described's fields */
    int copied; /* the field whose place in the file decides where spans begin; -1: none, all at 0
                 */
    uint64_t window;
};

/* Spans, and the rows that are permuted together, are chosen for an arena of this size, the default
 * of arena.limit_mb, whatever that is: they are the order, which memory has no part in. */
#define LAYOUT_ARENA_BYTES (256ull << 20)

/* What a span may take of it, for windows of so many spans: reader_open.span_bytes_chosen. */
uint64_t layout_span_bytes_chosen(uint64_t window_spans);

/* Fill *l and *d (all but the fingerprint) for `source` opened as `open` asks, and tell the source
 * how many rows the order permutes together. Refuses, with figures, a span or a chunk larger than
 * open->span_bytes_limit, which changes nothing else. */
int layout_make(const struct reader_open *open, struct source *source, struct layout *l,
                struct reader_described *d, struct err *e);

/* Items of field `i` that rows [row, row + rows) of the file have, from *first on. */
uint64_t layout_items(const struct layout *l, uint32_t i, uint64_t row, uint64_t rows,
                      uint64_t *first);

/* Most items that a pointer gives to a span of an order in which shuffle is off. */
uint64_t layout_items_max(const struct source_pointer *cut, const struct order *o);

/* Most items of any chunks together, for each number of them: sorted once, asked often. */
struct layout_largest {
    const struct source_pointer *cut; /* NULL: not made yet */
    uint64_t chunks, *sum;            /* sum[n - 1]: items of the n largest chunks */
};

/* Of chunks of `chunk_rows` rows. 0, or -1 when memory is short. */
int layout_largest_make(struct layout_largest *l, const struct source_pointer *cut,
                        uint64_t chunk_rows, struct err *e);
uint64_t layout_largest_items(const struct layout_largest *l, uint64_t count); /* count >= 1 */
void layout_largest_free(struct layout_largest *l);                            /* harmless twice */

/* d->fields[..].batch_items_max and slice_items_max for the batches that open->epochs names, by
 * walking them all, and sample_items_max, by walking some orders of that kind; where they are so
 * many that this takes too long, the most that any batch of so many rows can have. Nothing to do
 * for layouts without pointers. */
int layout_batches(const struct reader_open *open, const struct layout *l,
                   struct reader_described *d, struct err *e);

#endif
