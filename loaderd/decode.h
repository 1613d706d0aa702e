/* decode.h - from a stored chunk to its rows: HDF5's standard filters undone without libhdf5.
 *
 * Knows gzip (libdeflate), byte shuffle and fletcher32 in any order, gzip at most once. A chunk
 * with another filter goes through H5Dread instead (h5source.c). Pure functions of their arguments,
 * safe in any number of threads, each with a struct decoder of its own.
 */
#ifndef LOADERD_DECODE_H
#define LOADERD_DECODE_H

#include <stddef.h>
#include <stdint.h>

#include "proto/err.h"

enum { DECODE_STEPS_MAX = 8 };

enum decode_kind { DECODE_SHUFFLE, DECODE_GZIP, DECODE_FLETCHER32 };

struct decode_step {
    enum decode_kind kind;
    uint32_t element_bytes; /* of SHUFFLE */
};

/* The filters of a data set in the order in which they were applied when it was written. */
struct decode_plan {
    uint32_t count;
    struct decode_step step[DECODE_STEPS_MAX];
};

/* A thread's own state. Zeroed storage is closed. */
struct decoder {
    void *inflater;
    unsigned char *scratch[2];
    size_t capacity[2];
};

int decoder_open(struct decoder *d, struct err *e);
void decoder_close(struct decoder *d); /* harmless twice */

/* Decode a chunk of raw_bytes as stored into exactly out_bytes of `out`. Bit i of `mask` set:
 * filter i was skipped for this chunk. `raw` is not changed. 0, or -1 and *e (permanent) when the
 * bytes are damaged. */
int decode_chunk(struct decoder *d, const struct decode_plan *plan, uint32_t mask, const void *raw,
                 size_t raw_bytes, void *out, size_t out_bytes, struct err *e);

/* Undo the byte shuffle of elements of element_bytes; bytes beyond the last whole element are
 * copied. */
void decode_unshuffle(const unsigned char *in, unsigned char *out, size_t bytes,
                      uint32_t element_bytes);

/* HDF5's fletcher32 over `bytes` bytes. */
uint32_t decode_fletcher32(const unsigned char *data, size_t bytes);

/* CRC-32 (zlib's), continued from `crc` (0 to begin). */
uint32_t decode_crc32(uint32_t crc, const void *data, size_t bytes);

#endif
