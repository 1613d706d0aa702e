/* rowhash.h - the order-independent digest of rows: one 64-bit hash a row, summed modulo 2^64.
 *
 * Two deliveries of the same rows have the same digest whatever their order; a row that is lost,
 * doubled, changed, or given another row's targets shows. Not cryptographic. A row's hash: begin
 * with h = 0; take its fields one after the other. Of a ragged field first the number n of the
 * row's items: h becomes order_key(h, n). Then the bytes, cut into blocks of 4096, and a block into
 * little-endian 64-bit words w_j (the last one padded with zeros); with t_j = w_j ^ k_j and
 * k_j = order_key(ROWHASH_KEY, j), the block gives b = sum of w_j + (t_j mod 2^32)(t_j / 2^32), and
 * h becomes order_key(h, b).
 */
#ifndef PROTO_ROWHASH_H
#define PROTO_ROWHASH_H

#include <stdint.h>

#define ROWHASH_KEY 0x726f7768617368ull

struct rowhash_field {
    const void *at;     /* the first item */
    uint64_t row_bytes; /* of an item */
    const uint64_t
        *pointer; /* row i has the items pointer[i] .. pointer[i + 1] - 1; NULL: item i */
};

/* Sum of the hashes of `rows` rows, each the fields' rows together. */
uint64_t rowhash_sum(const struct rowhash_field *fields, uint32_t field_count, uint64_t rows);

/* The same without wide vectors, for tests. */
uint64_t rowhash_sum_plain(const struct rowhash_field *fields, uint32_t field_count, uint64_t rows);

#endif
