/* test_receipt.c - what a stream delivered of an epoch, added up. */
#include "loaderd/receipt.h"

#include <string.h>

#include "proto/order.h"
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
        CHECK_EQ(out[0].first_span, 0);
        CHECK(out[0].whole);
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
    CHECK_EQ(out[0].first_span, 3);
    CHECK(!out[0].whole);
}

/* As a mega-batch reads after a restart: a part at the epoch's last span, then the whole. */
TEST(an_epoch_that_goes_round_becomes_whole)
{
    static const uint64_t spans[SPANS] = {3, 4, 0, 1, 2};
    struct receipt r = {0};
    struct msg_loader_receipt out[2];
    for (int i = 0; i < SPANS; i++)
        CHECK_EQ(add(&r, 7, spans[i], out), i == 1 || i == SPANS - 1);
    CHECK(out[0].whole);
    CHECK_EQ(out[0].epoch, 7);
    CHECK_EQ(out[0].first_span, 3);
    CHECK_EQ(out[0].spans, SPANS);
    CHECK_EQ(out[0].rows, 50);
    CHECK_STR(out[0].digest, "400000000000000a");
    CHECK_EQ(add(&r, 8, 0, out), 0); /* and nothing of it is told again */
}

/* A span that comes again is no other row; what it cost counts. */
TEST(a_span_delivered_again_counts_once)
{
    static const uint64_t spans[] = {0, 2, 0, 2, 1, 1, 4, 4, 4};
    struct receipt r = {0};
    struct msg_loader_receipt out[2];
    for (size_t i = 0; i < sizeof spans / sizeof *spans; i++)
        CHECK_EQ(add(&r, 0, spans[i], out), i >= 6);
    CHECK(!out[0].whole);
    CHECK_EQ(out[0].spans, 4);
    CHECK_EQ(out[0].rows, 40);
    CHECK_EQ(add(&r, 0, 3, out), 1);
    CHECK(out[0].whole);
    CHECK_STR(out[0].digest, "400000000000000a");
    CHECK_EQ(out[0].bytes_delivered, 1000);
}

TEST(spans_in_any_order_make_a_whole)
{
    enum { MANY = RECEIPT_STRETCHES_MAX };
    for (int round = 0; round < 20; round++) {
        uint64_t key = test_random(), wholes = 0;
        struct receipt r = {0};
        struct msg_loader_receipt out[2];
        for (uint64_t i = 0; i < MANY; i++) {
            struct reader_done done = span_done(0, order_permute(key, MANY, i));
            int given = receipt_add(&r, MANY, &done, out);
            wholes += given && out[0].whole;
        }
        CHECK_EQ(wholes, 1);
        CHECK_EQ(out[0].rows, 10 * MANY);
    }
}

/* Every second span leaves one gap more than is remembered: that span is not believed. */
TEST(more_gaps_than_are_remembered_make_no_whole)
{
    enum { MANY = 2 * RECEIPT_STRETCHES_MAX + 1 };
    struct receipt r = {0};
    struct msg_loader_receipt out[2];
    for (uint64_t i = 0; i < MANY; i++) {
        struct reader_done done = span_done(0, i * 2 % MANY);
        CHECK_EQ(receipt_add(&r, MANY, &done, out), i * 2 == MANY - 1);
    }
    CHECK_EQ(r.sum.spans, MANY - 1);
    struct reader_done done = span_done(0, MANY - 1);
    CHECK_EQ(receipt_add(&r, MANY, &done, out), 1);
    CHECK(out[0].whole);
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
