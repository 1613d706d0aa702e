/* huffman_code.h - prefix codes for symbols of given counts, as deflate wants them (RFC 1951).
 *
 * Thread-safe: no state.
 */
#ifndef PROTO_HUFFMAN_CODE_H
#define PROTO_HUFFMAN_CODE_H

#include <stdint.h>

enum { HUFFMAN_SYMBOLS_MAX = 286, HUFFMAN_LENGTH_MAX = 15 };

/* The bits that each of `count` <= HUFFMAN_SYMBOLS_MAX symbols takes, at most `limit` <=
 * HUFFMAN_LENGTH_MAX, into length[count]; 0: it does not occur. At least one must, the sum of
 * frequencies must fit 32 bits, and 2^limit must not be below `count`. */
void huffman_lengths(const uint32_t *frequency, uint32_t count, uint32_t limit, uint8_t *length);

/* The canonical codes of those lengths, first bit lowest, into code[count]. */
void huffman_codes(const uint8_t *length, uint32_t count, uint16_t *code);

#endif
