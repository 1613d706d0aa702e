/* receipt.h - what a stream delivered of an epoch, added up span by span.
 *
 * Pure. Each span of an epoch counts once, in whatever order they come: a consumer may begin in the
 * middle and go round to the spans before (trainerd's mega-batch after a restart). A receipt is
 * whole when all of them were delivered. What is there at the epoch's last span, or when the
 * consumer goes on to another epoch, is given out as a part; the whole may follow it.
 */
#ifndef LOADERD_RECEIPT_H
#define LOADERD_RECEIPT_H

#include "loaderd/reader.h"

/* Stretches of spans that have been delivered; a consumer that leaves more gaps has no whole one.
 */
enum { RECEIPT_STRETCHES_MAX = 64 };

struct receipt {
    struct receipt_stretch {
        uint64_t first, end;
    } stretch[RECEIPT_STRETCHES_MAX]; /* ascending, with gaps between them */
    uint32_t stretches;
    int untold; /* something was added since it was last given out */
    uint64_t digest;
    struct msg_loader_receipt sum;
};

/* Add a delivered span of a stream of `spans` spans an epoch; of a span without rows changes
 * nothing. Returns how many receipts are to be told: 0 to 2, in out[0], out[1] (stream, consumer
 * and split are the caller's to fill). */
int receipt_add(struct receipt *r, uint64_t spans, const struct reader_done *done,
                struct msg_loader_receipt out[2]);

#endif
