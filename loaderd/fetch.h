/* fetch.h - the bytes of a span: stored chunks found here, read and decoded in the decoders'
 * threads, straight into the slot. Several spans may be on their way; they end in the order they
 * began.
 *
 * A chunk whose items belong to two spans would be decoded for both. The last one of a span is kept
 * decoded, so that in file order each is decoded once.
 */
#ifndef LOADERD_FETCH_H
#define LOADERD_FETCH_H

#include "loaderd/decoders.h"
#include "loaderd/layout.h"

struct fetch_span { /* on its way into its slot */
    uint64_t epoch, span;
    uint64_t offset;             /* of the span in the slot it was given (layout.h) */
    char *at;                    /* where it stands: slot + offset */
    int begun;                   /* nothing is left to be submitted */
    struct decoders_batch batch; /* what the threads do for it */
    uint64_t bytes_read, bytes_decoded;
    double read_s;      /* of the thread that begins it */
    struct err failure; /* the same; code 0: none */
};

struct fetch_kept {
    unsigned char *at; /* NULL: never needed */
    uint64_t chunk;
    const struct fetch_span *decoding; /* it is whole when that span ends; NULL: it is */
    int valid;
};

struct fetch {
    struct source *source;
    struct decoders *decoders;
    const struct layout *layout;
    const struct reader_described *described;
    const struct order *order;
    /* Called while a span begins, before each read and each wait: for what came to its end
     * meanwhile. Seconds after which it wants to be called again if a wait lasts; INFINITY. */
    double (*between)(void *self);
    void *self;
    struct fetch_span *now; /* the one that begins */
    int reads_wait;         /* the span that ended last came as slowly as from a disk */
    int copies_wait;        /* or a read slept for it: disks serve several at a time faster */
    int in_threads;         /* what is only copied is, too, also while nothing waits for the disk */
    struct fetch_kept kept[SOURCE_FIELDS_MAX][SOURCE_PLANES_MAX];
};

/* Begin to put span `span` of an epoch into `slot`: what is stored is read and on its way to be
 * decoded. *s stays where it is until fetch_end, which tells of failures. */
void fetch_begin(struct fetch *f, struct fetch_span *s, uint64_t epoch, uint64_t span, char *slot);

int fetch_is_done(const struct fetch *f, const struct fetch_span *s); /* fetch_end will not wait */

/* The span is in its slot, whole: fields, pointers, everything. 0, or -1 and *e: permanent when the
 * file is at fault. */
int fetch_end(struct fetch *f, struct fetch_span *s, struct err *e);

void fetch_close(struct fetch *f); /* frees what is kept */

#endif
