/* receipt.c - see receipt.h. */
#include "loaderd/receipt.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void receipt_give(struct receipt *r, struct msg_loader_receipt *out)
{
    *out = r->sum;
    snprintf(out->digest, sizeof out->digest, "%016" PRIx64, r->digest);
    if (out->bytes_delivered)
        out->amplification = (double)out->bytes_decoded / (double)out->bytes_delivered;
    r->untold = 0;
}

static void stretch_remove(struct receipt *r, uint32_t at)
{
    r->stretches--;
    memmove(&r->stretch[at], &r->stretch[at + 1], (r->stretches - at) * sizeof *r->stretch);
}

static void stretch_insert(struct receipt *r, uint32_t at, uint64_t span)
{
    memmove(&r->stretch[at + 1], &r->stretch[at], (r->stretches - at) * sizeof *r->stretch);
    r->stretch[at] = (struct receipt_stretch){span, span + 1};
    r->stretches++;
}

/* 1: it is new; 0: it was there before, or there is no room to remember it. */
static int span_note(struct receipt *r, uint64_t span)
{
    struct receipt_stretch *s = r->stretch;
    uint32_t at = 0;
    while (at < r->stretches && s[at].end < span)
        at++;
    if (at == r->stretches || s[at].first > span + 1) {
        if (r->stretches == RECEIPT_STRETCHES_MAX)
            return 0;
        stretch_insert(r, at, span);
    } else if (span + 1 == s[at].first) {
        s[at].first = span;
    } else if (span == s[at].end) {
        s[at].end++;
        if (at + 1 < r->stretches && s[at + 1].first == s[at].end) {
            s[at].end = s[at + 1].end;
            stretch_remove(r, at + 1);
        }
    } else {
        return 0;
    }
    return 1;
}

static void span_sum(struct receipt *r, const struct reader_done *done)
{
    struct msg_loader_receipt *sum = &r->sum;
    if (span_note(r, done->span)) {
        r->digest += done->digest;
        sum->spans++;
        sum->rows += done->rows;
    }
    sum->bytes_read += done->bytes_read;
    sum->bytes_decoded += done->bytes_decoded;
    sum->bytes_delivered += done->bytes_delivered;
    sum->read_s += done->read_s;
    sum->decode_s += done->decode_s;
    sum->credit_s += done->credit_s;
    r->untold = 1;
}

int receipt_add(struct receipt *r, uint64_t spans, const struct reader_done *done,
                struct msg_loader_receipt out[2])
{
    int given = 0;
    if (!done->rows)
        return 0;
    if (r->untold && r->sum.epoch != done->epoch)
        receipt_give(r, &out[given++]);
    if (!r->stretches || r->sum.epoch != done->epoch)
        *r = (struct receipt){.sum = {.epoch = done->epoch, .first_span = done->span}};
    span_sum(r, done);
    r->sum.whole = r->sum.spans == spans;
    if (r->sum.whole || done->span == spans - 1)
        receipt_give(r, &out[given++]);
    if (r->sum.whole)
        *r = (struct receipt){0};
    return given;
}
