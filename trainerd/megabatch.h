/* megabatch.h - the rows of one split as the step sees them: out of the arena, or out of a larger
 * chunk of the device's memory that is filled from it, the mega-batch.
 *
 *   ARENA    nothing is kept: a batch is gathered where the loader put the rows
 *   WINDOWS  a whole number of the epoch's windows; what is used up makes room for the next ones
 *   WHOLE    all spans of the split, each copied once in the order of the first epoch; at its end
 *            the stream is given back, and every later epoch is served from here
 *
 * Which row stands at which position does not depend on it (proto/order.h), so neither do the
 * weights. On the CPU the device's memory is the host's. On a device apart spans are copied beside
 * the computing, several at a time: a slot is given back when its copy is done, and what computes
 * with rows waits for their copies on the device; the host waits for nothing, and goes on with
 * filling while the device computes (megabatch_go_on).
 */
#ifndef TRAINERD_MEGABATCH_H
#define TRAINERD_MEGABATCH_H

#include "engine/device.h"
#include "engine/memory.h"
#include "proto/feed.h"

enum megabatch_kind { MEGABATCH_ARENA, MEGABATCH_WINDOWS, MEGABATCH_WHOLE };

enum {
    MEGABATCH_MARKS = DEVICE_MARK_STEPPER / 2
}; /* copies under way at a time; two splits have some */

struct megabatch_size {
    enum megabatch_kind kind;
    uint64_t spans, span_bytes;  /* room for so many; a multiple of 64 each */
    uint64_t bytes;              /* of the region; 0 for ARENA */
    const struct device *device; /* whose memory it is, and that is apart; NULL: the host's */
    int mark;                    /* the first of its MEGABATCH_MARKS there */
};

struct megabatch {
    struct feed *feed; /* borrowed */
    struct megabatch_size size;
    struct region region; /* in the host's memory */
    void *at;             /* that, or the device's */
    int begun;
    uint64_t epoch, first;      /* of the order: where filling began */
    uint64_t held;              /* spans from there on (WHOLE: round the epoch's end) */
    uint64_t done;              /* of them; the rest are being copied */
    uint64_t copies, awaited;   /* begun since it was opened; those computing waits for */
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

/* As feed_seek and feed_rows, which give a window's rows when all of it is there. Rows stay valid
 * until the next seek. On a device they are its
 * addresses, for operations that are asked for before the next seek. */
void megabatch_seek(struct megabatch *m, uint64_t epoch, uint64_t position, uint64_t last_epoch);
uint64_t megabatch_rows(struct megabatch *m, uint64_t epoch, uint64_t position, uint64_t count,
                        struct feed_row *rows);

/* Goes on with filling a device apart, while it computes: what has come is copied, and slots whose
 * copies are done are given back. 0: there is nothing to go on with. A failure of the feed is told
 * by the next feed_pump. */
int megabatch_go_on(struct megabatch *m);

/* Everything is here: the stream is not needed any more. */
int megabatch_complete(const struct megabatch *m);

/* Goes on with filling where all rows are to be kept. 1: none is still to come. Where filling began
 * in the middle of an epoch (a restart, a release), those before come only after its end. */
int megabatch_is_filled(struct megabatch *m);

/* Gives the stream and its arena back if all spans are held, or anyway; the next seek brings them
 * again where some are missing. It waits for copies and takes milliseconds, so that it is left to
 * whoever knows when nothing waits. */
void megabatch_rest(struct megabatch *m, int anyway);

/* Copies are under way, which nothing tells the end of: look again soon. */
int megabatch_busy(const struct megabatch *m);

#endif
