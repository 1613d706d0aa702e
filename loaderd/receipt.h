/* receipt.h - what a stream delivered of an epoch, added up span by span.
 *
 * Pure. A receipt begins with the first span of an epoch that is delivered (not its first span
 * where a consumer resumed in the middle) and is complete when every span from there to the epoch's
 * end is; one whose consumer went on to another epoch before that is given out as it is.
 */
#ifndef LOADERD_RECEIPT_H
#define LOADERD_RECEIPT_H

#include "loaderd/reader.h"

struct receipt {
    uint64_t first_span;
    uint64_t digest;
    struct msg_loader_receipt sum; /* spans 0: nothing yet */
};

/* Add a delivered span of a stream of `spans` spans an epoch; of a span without rows changes
 * nothing. Returns how many receipts were finished by it: 0 to 2, in out[0], out[1] (stream,
 * consumer and split are the caller's to fill). */
int receipt_add(struct receipt *r, uint64_t spans, const struct reader_done *done,
                struct msg_loader_receipt out[2]);

#endif
