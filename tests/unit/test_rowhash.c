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
        struct rowhash_field fields[2] = {{x, wide}, {y, narrow}};
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
