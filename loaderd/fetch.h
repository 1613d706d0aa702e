/* fetch.h - the bytes of a span: stored chunks read here, decoded in the decoders' threads,
 * straight into the slot.
 *
 * A chunk whose items belong to two spans would be decoded for both. The last one of a span is kept
 * decoded, so that in file order each is decoded once.
 */
#ifndef LOADERD_FETCH_H
#define LOADERD_FETCH_H

#include "loaderd/decoders.h"
#include "loaderd/layout.h"

struct fetch_kept {
    unsigned char *at; /* NULL: never needed */
    uint64_t chunk;
    enum { FETCH_NOT_KEPT, FETCH_DECODING, FETCH_KEPT } state;
};

struct fetch {
    struct source *source;
    struct decoders *decoders;
    const struct layout *layout;
    const struct reader_described *described;
    const struct order *order;
    uint64_t bytes_decoded; /* these two: of the present span */
    double read_s;
    struct fetch_kept kept[SOURCE_FIELDS_MAX][SOURCE_PLANES_MAX];
};

/* Put span `span` of an epoch into `slot`, whole: fields, pointers, everything; adds the threads'
 * time to *decode_s. 0, or -1 and *e: permanent when the file is at fault. */
int fetch_span(struct fetch *f, uint64_t epoch, uint64_t span, char *slot, double *decode_s,
               struct err *e);

void fetch_close(struct fetch *f); /* frees what is kept */

#endif
