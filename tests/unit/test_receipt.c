/* test_receipt.c - what a stream delivered of an epoch, added up. */
#include "loaderd/receipt.h"

#include <string.h>

#include "tests/test.h"

enum { SPANS = 5 };

static struct reader_done span_done(uint64_t epoch, uint64_t span)
{
    return (struct reader_done){.epoch = epoch,
                                .span = span,
                                .rows = 10,
                                .digest = 1ull << 62 | span,
                                .bytes_read = 30,
                                .bytes_decoded = 150,
                                .bytes_delivered = 100,
                                .read_s = 0.5,
                                .decode_s = 2,
                                .credit_s = 0.25};
}

static int add(struct receipt *r, uint64_t epoch, uint64_t span, struct msg_loader_receipt out[2])
{
    struct reader_done done = span_done(epoch, span);
    return receipt_add(r, SPANS, &done, out);
}

TEST(a_whole_epoch_gives_one_receipt)
{
    struct receipt r = {0};
    struct msg_loader_receipt out[2];
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
        for (uint64_t span = 0; span + 1 < SPANS; span++)
            CHECK_EQ(add(&r, epoch, span, out), 0);
        CHECK_EQ(add(&r, epoch, SPANS - 1, out), 1);
        CHECK_EQ(out[0].epoch, epoch);
        CHECK_EQ(out[0].spans, SPANS);
        CHECK_EQ(out[0].rows, 50);
        CHECK_EQ(out[0].bytes_read, 150);
        CHECK_EQ(out[0].bytes_decoded, 750);
        CHECK_EQ(out[0].bytes_delivered, 500);
        CHECK(out[0].amplification == 1.5 && out[0].read_s == 2.5 && out[0].decode_s == 10 &&
              out[0].credit_s == 1.25);
        CHECK_STR(out[0].digest, "400000000000000a"); /* modulo 2^64 */
    }
}

TEST(a_resumed_epoch_ends_where_the_whole_one_does)
{
    struct receipt r = {0};
    struct msg_loader_receipt out[2];
    CHECK_EQ(add(&r, 4, 3, out), 0);
    CHECK_EQ(add(&r, 4, 4, out), 1);
    CHECK_EQ(out[0].spans, 2);
    CHECK_EQ(out[0].rows, 20);
}

TEST(an_epoch_that_was_left_is_given_out_by_the_next)
{
    struct receipt r = {0};
    struct msg_loader_receipt out[2];
    struct reader_done empty = span_done(1, 0);
    empty.rows = 0;
    CHECK_EQ(add(&r, 0, 0, out), 0);
    CHECK_EQ(receipt_add(&r, SPANS, &empty, out), 0);
    CHECK_EQ(add(&r, 1, 4, out), 2);
    CHECK_EQ(out[0].epoch, 0);
    CHECK_EQ(out[1].epoch, 1);
    CHECK_EQ(out[1].spans, 1);
}
