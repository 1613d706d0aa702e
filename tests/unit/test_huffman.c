/* test_huffman.c - streams of Huffman codes only, read back by zlib: every size of data and every
 * shape of counts. */
#include "proto/huffman.h"

#include <zlib.h>

#include "tests/test.h"

enum { BYTES = HUFFMAN_BYTES_MAX };

static uint8_t data[BYTES], packed[2 * BYTES], back[BYTES + 1];

/* Packs data[bytes], checks that zlib reads it back and that nothing was written behind the bound.
 */
static uint64_t round_trip(uint64_t bytes)
{
    uint64_t bound = huffman_bound(bytes);
    uLongf got = bytes + 1;
    CHECK(bound < sizeof packed - 8);
    memset(packed, 0xa5, sizeof packed);
    uint64_t size = huffman_pack(data, bytes, packed);
    CHECK(size <= bound);
    for (uint64_t i = bound; i < bound + 8; i++)
        CHECK(packed[i] == 0xa5);
    CHECK_EQ(uncompress(back, &got, packed, size), Z_OK);
    CHECK_EQ(got, bytes);
    CHECK(memcmp(data, back, bytes) == 0);
    return size;
}

TEST(huffman_every_small_size)
{
    for (uint64_t bytes = 0; bytes < 600; bytes++) {
        for (uint64_t i = 0; i < bytes; i++)
            data[i] = (uint8_t)(test_random() % 7);
        round_trip(bytes);
    }
}

TEST(huffman_one_value_two_values_all_values)
{
    memset(data, 77, BYTES);
    CHECK(round_trip(BYTES) < 400); /* runs */
    for (uint64_t i = 0; i < BYTES; i++)
        data[i] = (uint8_t)(test_random() % 2 ? 255 : 0);
    round_trip(BYTES);
    for (uint64_t i = 0; i < BYTES; i++)
        data[i] = (uint8_t)test_random();
    CHECK(round_trip(BYTES) < BYTES + 100); /* stored */
    round_trip(BYTES - 1);
}

TEST(huffman_runs_of_every_length)
{
    uint64_t at = 0;
    for (uint64_t length = 1; at + length + 3 < BYTES; length++) {
        memset(data + at, (int)(length % 3), length % 700);
        at += length % 700;
        data[at++] = (uint8_t)test_random();
    }
    round_trip(at);
    for (uint64_t i = 0; i < at; i++) /* chance decides where a run ends, mostly one value */
        data[i] = (uint8_t)(test_random() % 50 ? 9 : test_random() % 4);
    uint64_t size = round_trip(at);
    CHECK(size < at / 8); /* less than a bit a byte */
}

TEST(huffman_counts_that_want_longer_codes_than_there_are)
{
    uint64_t at = 0, count[2] = {1, 1};
    for (uint8_t value = 0; at + count[0] < BYTES;
         value++) { /* Fibonacci's: one bit more for each value */
        memset(data + at, value, count[0]);
        at += count[0];
        uint64_t next = count[0] + count[1];
        count[0] = count[1];
        count[1] = next;
    }
    for (uint64_t i = at - 1; i > 0; i--) {
        uint64_t k = test_random() % (i + 1);
        uint8_t held = data[i];
        data[i] = data[k];
        data[k] = held;
    }
    round_trip(at);
}

TEST(huffman_a_table_for_each_part_that_differs)
{
    for (uint64_t i = 0; i < BYTES; i++)
        data[i] = (uint8_t)((i / 8192 % 2 ? 100 : 0) + test_random() % 4);
    /* 2, 2, 2 and 3 bits, the end of the block having the other 3; one table takes more than 3 */
    CHECK(round_trip(BYTES) < BYTES * 9 / 32 + 700);
}

/* What codes of the Fisher information look like: no larger than zlib's level 6, which looks for
 * matches in vain. */
TEST(huffman_no_larger_than_gzip_on_codes)
{
    for (uint64_t i = 0; i < BYTES; i++) {
        int sum = 20;
        for (int k = 0; k < 6; k++)
            sum += (int)(test_random() % 4);
        data[i] = (uint8_t)sum;
    }
    uLongf size = compressBound(BYTES);
    uint8_t *gzip = malloc(size);
    CHECK(gzip && compress2(gzip, &size, data, BYTES, 6) == Z_OK);
    CHECK(round_trip(BYTES) < size);
    free(gzip);
}
