/* megabatch.h - the rows of one split as the step sees them: out of the arena, or out of a larger
 * chunk of the device's memory that is filled from it, the mega-batch.
 *
 *   ARENA    nothing is kept: a batch is gathered where the loader put the rows
 *   WINDOWS  a whole number of the epoch's windows; used up, it is filled with the next ones
 *   WHOLE    all spans of the split, each copied once in the order of the first epoch; then the
 *            stream is given back, and every later epoch is served from here
 *
 * Which row stands at which position does not depend on it (proto/order.h), so neither do the
 * weights. On the CPU backend the device's memory is the host's.
 */
#ifndef TRAINERD_MEGABATCH_H
#define TRAINERD_MEGABATCH_H

#include "engine/memory.h"
#include "proto/feed.h"

enum megabatch_kind { MEGABATCH_ARENA, MEGABATCH_WINDOWS, MEGABATCH_WHOLE };

struct megabatch_size {
    enum megabatch_kind kind;
    uint64_t spans, span_bytes; /* room for so many; a multiple of 64 each */
    uint64_t bytes;             /* of the region; 0 for ARENA */
};

struct megabatch {
    struct feed *feed; /* borrowed */
    struct megabatch_size size;
    struct region region;
    int begun;
    uint64_t epoch, first;      /* of the order: where filling began */
    uint64_t held;              /* spans from there on (WHOLE: round the epoch's end) */
    uint64_t spans, last_epoch; /* an epoch's; as sought last */
    uint32_t *chunk_place; /* WHOLE, shuffled: where in `epoch` each chunk of the file stands */
};

/* Samples that a chunk of chunk_bytes holds: at least a batch, at most all there are. */
uint64_t megabatch_samples(uint64_t chunk_bytes, uint64_t sample_bytes, uint64_t rows,
                           uint64_t batch_rows);

/* What a split of `spans` spans, each of span_bytes_max bytes, takes of `chunk_bytes`: WHOLE where
 * all of it fits, else WINDOWS of window_spans (ARENA if not even one fits). */
struct megabatch_size megabatch_size_make(uint64_t spans, uint64_t span_bytes_max,
                                          uint64_t window_spans, uint64_t chunk_bytes);

/* Needs feed_ready. Borrows the feed. 0, or -1 and *e (temporary) when memory is short. */
int megabatch_open(struct megabatch *m, struct feed *f, const struct megabatch_size *size,
                   struct err *e);
void megabatch_close(struct megabatch *m); /* harmless twice */

/* As feed_seek and feed_rows. Rows stay valid until the next seek. */
void megabatch_seek(struct megabatch *m, uint64_t epoch, uint64_t position, uint64_t last_epoch);
uint64_t megabatch_rows(struct megabatch *m, uint64_t epoch, uint64_t position, uint64_t count,
                        struct feed_row *rows);

/* Everything is here: the stream is not needed any more. */
int megabatch_complete(const struct megabatch *m);

#endif
