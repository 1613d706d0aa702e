/* receipt.c - see receipt.h. */
#include "loaderd/receipt.h"

#include <inttypes.h>
#include <stdio.h>

static void receipt_give(struct receipt *r, struct msg_loader_receipt *out)
{
    *out = r->sum;
    snprintf(out->digest, sizeof out->digest, "%016" PRIx64, r->digest);
    if (out->bytes_delivered)
        out->amplification = (double)out->bytes_decoded / (double)out->bytes_delivered;
    *r = (struct receipt){0};
}

int receipt_add(struct receipt *r, uint64_t spans, const struct reader_done *done,
                struct msg_loader_receipt out[2])
{
    int given = 0;
    if (!done->rows)
        return 0;
    if (r->sum.spans && r->sum.epoch != done->epoch)
        receipt_give(r, &out[given++]);
    struct msg_loader_receipt *sum = &r->sum;
    if (!sum->spans || done->span < r->first_span)
        r->first_span = done->span;
    r->digest += done->digest;
    sum->epoch = done->epoch;
    sum->spans++;
    sum->rows += done->rows;
    sum->bytes_read += done->bytes_read;
    sum->bytes_decoded += done->bytes_decoded;
    sum->bytes_delivered += done->bytes_delivered;
    sum->read_s += done->read_s;
    sum->decode_s += done->decode_s;
    sum->credit_s += done->credit_s;
    if (sum->spans >= spans - r->first_span)
        receipt_give(r, &out[given++]);
    return given;
}
