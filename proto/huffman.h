/* huffman.h - zlib streams of Huffman codes and runs only: what a matching compressor is too slow
 * for and finds little in.
 *
 * Codes of one byte that hardly repeat in sequences (those of the Fisher information's stored
 * forms) pack as well without looking for matches, at many times the speed. Any inflate reads the
 * result. Thread-safe: no state.
 */
#ifndef PROTO_HUFFMAN_H
#define PROTO_HUFFMAN_H

#include <stdint.h>

enum { HUFFMAN_BYTES_MAX = 65536 }; /* of one stream */

/* Room that huffman_pack needs for `bytes` bytes at the most. */
uint64_t huffman_bound(uint64_t bytes);

/* Pack data[bytes] to packed; returns how many bytes. */
uint64_t huffman_pack(const uint8_t *data, uint64_t bytes, uint8_t *packed);

#endif
