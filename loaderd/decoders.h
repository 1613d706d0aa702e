/* decoders.h - the reader's decoding threads: the main thread reads raw chunks, they decode. What
 * is stored as it goes into the slot they read themselves.
 *
 * A fixed number of jobs, each with a buffer for a raw chunk, goes round: decoders_take (waits for
 * a free one), the main thread fills it, decoders_submit, a thread decodes it to its place, it is
 * free again. So reading runs at most that many chunks ahead, and memory is bounded by chunks, not
 * by spans. Each job belongs to a batch, the jobs whose end is waited for together: while one batch
 * is finished the next ones are in work, so that no thread waits for another at a batch's end.
 */
#ifndef LOADERD_DECODERS_H
#define LOADERD_DECODERS_H

#include <stdint.h>

#include "loaderd/decode.h"

enum { DECODERS_WORKERS_MAX = 64 };

/* Some bytes of a decoded chunk, and where they go. */
struct decoders_part {
    uint64_t skip_bytes, take_bytes;
    void *out;
};

/* All zero: nothing was submitted. Guarded by the decoders; read it when it is done. */
struct decoders_batch {
    unsigned busy;           /* jobs submitted and not done */
    double decode_s, read_s; /* time of the threads */
    struct err failure;      /* the first; code 0: none */
};

struct decoders_job {
    struct decoders_batch *batch;
    /* Filled by the main thread: the stored bytes ... */
    unsigned char *raw;
    uint64_t raw_capacity, raw_bytes;
    uint32_t mask;
    const struct decode_plan *plan;
    /* ... what they decode to, and which part of that goes where. */
    uint64_t chunk_bytes;
    struct decoders_part part[2];
    uint32_t part_count;
    void *whole; /* the decoded chunk is wanted here besides; NULL: it is not */
    /* NULL; or there is nothing to decode: read_bytes bytes are read to read_out by this call,
     * which any thread may make: 0 or -1. */
    int (*read)(int fd, void *out, uint64_t bytes, uint64_t at);
    int fd;
    void *read_out;
    uint64_t read_at, read_bytes;
    const char *name; /* of the data set and chunk, for error messages */
    uint64_t chunk;
    struct decoders_job *next;
};

struct decoders;

/* Start `workers` threads; without any, decoders_submit decodes. 0, or -1 and *e (temporary). */
int decoders_open(struct decoders **p_p, unsigned workers, struct err *e);
void decoders_close(struct decoders **p_p); /* waits for the threads; harmless on NULL */

/* A free job with room for raw_bytes stored bytes; waits for one. NULL and *e when memory is short.
 */
struct decoders_job *decoders_take(struct decoders *p, uint64_t raw_bytes, struct err *e);
void decoders_submit(struct decoders *p, struct decoders_job *job);
void decoders_return(struct decoders *p, struct decoders_job *job); /* unused after all */

/* Are all jobs of the batch done that were submitted so far? */
int decoders_is_done(struct decoders *p, const struct decoders_batch *batch);

/* Wait until they are. */
void decoders_wait(struct decoders *p, const struct decoders_batch *batch);

/* Wait until they are, or until another job is done. */
void decoders_pause(struct decoders *p, const struct decoders_batch *batch);

double decoders_clock_s(void); /* monotonic */

#endif
