/* decoders.h - the reader's decoding threads: the main thread finds where chunks are stored, they
 * read and decode. What is stored as it goes into the slot is read straight there, a job by several
 * threads at once; of that the main thread reads too, what is too little for a thread, and where
 * threads are few while it would wait. Other threads may be there that do only that: they hold no
 * chunk.
 *
 * A fixed number of jobs goes round: decoders_take (waits for a free one), the main thread fills
 * it in, decoders_submit, a thread reads and decodes the chunk to its place, the job is free again.
 * Only a thread holds chunks, so memory is bounded by threads, not by spans. Each job belongs to a
 * batch, the jobs whose end is waited for together: while one batch is finished the next ones are
 * in work, so that no thread waits for another at a batch's end.
 */
#ifndef LOADERD_DECODERS_H
#define LOADERD_DECODERS_H

#include <stdint.h>

#include "loaderd/decode.h"

enum { DECODERS_WORKERS_MAX = 64, DECODERS_THREADS_MAX = 2 * DECODERS_WORKERS_MAX };

/* Some bytes of a decoded chunk, and where they go. */
struct decoders_part {
    uint64_t skip_bytes, take_bytes;
    void *out;
};

/* All zero: nothing was submitted. Guarded by the decoders; read it when it is done. */
struct decoders_batch {
    unsigned busy;           /* jobs submitted and not done */
    double decode_s, read_s; /* time of the threads */
    uint64_t sleeps;         /* of theirs while plain jobs were read: the page cache had it not */
    struct err failure;      /* the first; code 0: none */
};

struct decoders_job {
    struct decoders_batch *batch;
    /* What is stored: bytes [at, at + bytes) of fd, which `read` reads in any thread. 0, or -1 and
     * errno: 0 when the file ends before. */
    int (*read)(int fd, void *out, uint64_t bytes, uint64_t at);
    /* They are not wanted again, nor what lies between `low` and `high` around them. NULL: keep. */
    void (*drop)(int fd, uint64_t at, uint64_t bytes, uint64_t low, uint64_t high);
    int fd;
    uint64_t at, bytes;
    char *plain_out; /* they go there as they are, and that is all; NULL: they are decoded */
    uint64_t taken;  /* bytes that threads have taken; the rest waits */
    unsigned takers; /* threads that are at it */
    uint32_t mask;
    const struct decode_plan *plan;
    /* What they decode to, and which part of that goes where. */
    uint64_t chunk_bytes;
    struct decoders_part part[2];
    uint32_t part_count;
    void *whole;      /* the decoded chunk is wanted here besides; NULL: it is not */
    const char *name; /* of the data set, for error messages */
    uint64_t chunk;   /* the same; UINT64_MAX: it has none */
    struct decoders_job *next;
    int wanted;        /* its bytes have not been dropped yet */
    uint64_t drop_end; /* what lies behind it was read as far as there; 0: nothing */
};

struct decoders;

/* Start `workers` threads, and `readers` that only read; without workers decoders_submit decodes.
 * 0, or -1 and *e (temporary). */
int decoders_open(struct decoders **p_p, unsigned workers, unsigned readers, struct err *e);
void decoders_close(struct decoders **p_p); /* waits for the threads; harmless on NULL */

/* A free job, all zero. Where there is none, waits until some are, at most so long (INFINITY: as
 * long as it takes) or until a batch is done. NULL: there is none yet. */
struct decoders_job *decoders_take(struct decoders *p, double seconds);
void decoders_submit(struct decoders *p, struct decoders_job *job);

/* No more are submitted for a while: threads are woken for the plain ones that were, which is done
 * for some together. So it is by whatever waits here. */
void decoders_wake(struct decoders *p);

/* The same, of a plain one, here and now. */
void decoders_do(struct decoders *p, struct decoders_job *job);

/* Are all jobs of the batch done that were submitted so far? */
int decoders_is_done(struct decoders *p, const struct decoders_batch *batch);

/* Wait until they are. */
void decoders_wait(struct decoders *p, const struct decoders_batch *batch);

/* Wait until they are, or until another batch is, or so long. */
void decoders_pause(struct decoders *p, const struct decoders_batch *batch, double seconds);

double decoders_clock_s(void); /* monotonic */

#endif
