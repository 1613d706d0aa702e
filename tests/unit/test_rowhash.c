/* test_rowhash.c - the digest of rows: wide and plain code agree, and what should show does. */
#include "proto/rowhash.h"

#include <stdlib.h>
#include <string.h>

#include "proto/order.h"
#include "tests/test.h"

enum { ROWS = 37 };

static unsigned char *bytes_random(size_t bytes)
{
    unsigned char *at = malloc(bytes);
    for (size_t i = 0; i < bytes; i++)
        at[i] = (unsigned char)test_random();
    return at;
}

TEST(wide_and_plain_code_give_the_same_digest)
{
    for (int round = 0; round < 60; round++) {
        uint64_t wide = 1 + test_random() % 9000, narrow = 1 + test_random() % 9;
        unsigned char *x = bytes_random(ROWS * wide), *y = bytes_random(ROWS * narrow);
        struct rowhash_field fields[2] = {{x, wide, NULL}, {y, narrow, NULL}};
        CHECK_EQ(rowhash_sum(fields, 2, ROWS), rowhash_sum_plain(fields, 2, ROWS));
        free(x);
        free(y);
    }
}

TEST(one_word_gives_what_the_header_says)
{
    uint64_t w = 0x0123456789abcdefull, t = w ^ order_key(ROWHASH_KEY, 0);
    struct rowhash_field field = {&w, 8};
    CHECK_EQ(rowhash_sum(&field, 1, 1), order_key(0, w + (t & 0xffffffff) * (t >> 32)));
}

TEST(order_is_free_and_changes_show)
{
    enum { WIDE = 200, NARROW = 4 };
    unsigned char *x = bytes_random(ROWS * WIDE), *y = bytes_random(ROWS * NARROW);
    unsigned char *x2 = malloc(ROWS * WIDE), *y2 = malloc(ROWS * NARROW);
    struct rowhash_field fields[2] = {{x, WIDE}, {y, NARROW}},
                         other[2] = {{x2, WIDE}, {y2, NARROW}};
    for (int i = 0; i < ROWS; i++) {
        memcpy(x2 + (i * 5 % ROWS) * WIDE, x + i * WIDE, WIDE);
        memcpy(y2 + (i * 5 % ROWS) * NARROW, y + i * NARROW, NARROW);
    }
    uint64_t digest = rowhash_sum(fields, 2, ROWS);
    CHECK_EQ(rowhash_sum(other, 2, ROWS), digest);
    CHECK_EQ(
        rowhash_sum(fields, 2, 10) +
            rowhash_sum((struct rowhash_field[]){{x + 10 * WIDE, WIDE}, {y + 10 * NARROW, NARROW}},
                        2, ROWS - 10),
        digest);
    x2[test_random() % (ROWS * WIDE)] ^= 4;
    CHECK(rowhash_sum(other, 2, ROWS) != digest);
    memcpy(x2, x, ROWS * WIDE); /* rows in order again, the targets not */
    CHECK(rowhash_sum(other, 2, ROWS) != digest);
    free(x);
    free(y);
    free(x2);
    free(y2);
}

TEST(ragged_rows_hash_their_own_items)
{
    unsigned char bytes[300];
    const uint64_t two[] = {0, 7, 20}, turned[] = {0, 13, 20}, first[] = {0, 7},
                   other[] = {0, 8, 20};
    unsigned char swapped[300];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)test_random();
    struct rowhash_field field = {bytes, 15, two}, moved = {swapped, 15, turned};
    memcpy(swapped, bytes + 7 * 15, 13 * 15); /* the second row before the first */
    memcpy(swapped + 13 * 15, bytes, 7 * 15);
    uint64_t digest = rowhash_sum(&field, 1, 2);
    CHECK_EQ(rowhash_sum(&moved, 1, 2), digest);
    CHECK_EQ(rowhash_sum_plain(&moved, 1, 2), digest);
    /* one row: its number of items, then its bytes */
    uint64_t plain = rowhash_sum(&(struct rowhash_field){bytes, 7 * 15, NULL}, 1, 1);
    CHECK(rowhash_sum(&(struct rowhash_field){bytes, 15, first}, 1, 1) != plain);
    field.pointer = other; /* the same bytes, and an item given to another row */
    CHECK(rowhash_sum(&field, 1, 2) != digest);
}

/* Nodes that become edges of the same bytes show. */
TEST(items_belong_to_their_field)
{
    const unsigned char bytes[4] = {1, 2, 3, 4};
    const uint64_t one[] = {0, 1}, three[] = {0, 3}, two[] = {0, 2};
    struct rowhash_field a[] = {{bytes, 1, one}, {bytes + 1, 1, three}};
    struct rowhash_field b[] = {{bytes, 1, two}, {bytes + 2, 1, two}};
    CHECK(rowhash_sum(a, 2, 1) != rowhash_sum(b, 2, 1));
}
