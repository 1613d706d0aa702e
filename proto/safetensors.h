/* safetensors.h - files of named tensors, as other tools exchange weights: read and written.
 *
 * The file is 8 bytes (little-endian length of the header), the header (one JSON object: a map
 * {dtype, shape, data_offsets} a tensor, and a map of texts `__metadata__`), and the tensors'
 * little-endian bytes without a gap. Nothing of a header is believed before it agrees with the size
 * of the file: the length, every offset (no hole, no overlap, no byte too many), and shape times
 * type against the offsets. A name, or a key of a map, that stands there twice is refused.
 *
 * Source of the format: github.com/huggingface/safetensors, README "Format".
 */
#ifndef PROTO_SAFETENSORS_H
#define PROTO_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "proto/err.h"

enum {
    SAFETENSORS_NAME_MAX = 255,
    SAFETENSORS_RANK_MAX = 8,
    SAFETENSORS_TENSORS_MAX = 65536,
    SAFETENSORS_METADATA_MAX = 64,         /* entries */
    SAFETENSORS_HEADER_MAX = 100 * 1000000 /* bytes; the format's own limit */
};

enum safetensors_type {
    SAFETENSORS_BOOL,
    SAFETENSORS_U8,
    SAFETENSORS_I8,
    SAFETENSORS_F8_E5M2,
    SAFETENSORS_F8_E4M3,
    SAFETENSORS_I16,
    SAFETENSORS_U16,
    SAFETENSORS_F16,
    SAFETENSORS_BF16,
    SAFETENSORS_I32,
    SAFETENSORS_U32,
    SAFETENSORS_F32,
    SAFETENSORS_F64,
    SAFETENSORS_I64,
    SAFETENSORS_U64,
    SAFETENSORS_TYPE_COUNT
};
const char *safetensors_type_name(enum safetensors_type type); /* "BOOL" .. "U64" */
uint32_t safetensors_type_bytes(enum safetensors_type type);

struct safetensor {
    char name[SAFETENSORS_NAME_MAX + 1];
    enum safetensors_type type;
    int rank;
    uint64_t dims[SAFETENSORS_RANK_MAX];
    uint64_t first, end; /* bytes of the data part */
};

struct safetensors_text { /* an entry of __metadata__, owned by its file */
    char *key, *value;
};

struct safetensors {
    const char *path; /* borrowed */
    int fd;
    uint64_t data_at, data_bytes; /* where the data part begins in the file, and its size */
    uint32_t count, room;
    struct safetensor *tensors; /* sorted by name */
    uint32_t metadata_count;
    struct safetensors_text metadata[SAFETENSORS_METADATA_MAX];
};

/* Open a file and believe its header after checking it. 0, or -1 and *e (permanent: the sentence
 * says what is wrong and where). `path` must live as long as *s. */
int safetensors_open(struct safetensors *s, const char *path, struct err *e);
void safetensors_close(struct safetensors *s); /* harmless twice, and on zeroed storage */

/* NULL: there is none of that name, or key. */
const struct safetensor *safetensors_find(const struct safetensors *s, const char *name);
const char *safetensors_metadata(const struct safetensors *s, const char *key);

uint64_t safetensor_items(const struct safetensor *t); /* the product of its dims */

/* Bytes [first, first + bytes) of the tensor's data, as stored. The range is the caller's duty. */
int safetensors_read(const struct safetensors *s, const struct safetensor *t, uint64_t first,
                     uint64_t bytes, void *data, struct err *e);

struct safetensors_source { /* one tensor to be written; all borrowed */
    const char *name;
    enum safetensors_type type;
    int rank;
    uint64_t dims[SAFETENSORS_RANK_MAX];
    const void *data; /* contiguous, little-endian */
};

/* Write a file durably (proto/durable.h): tensors in the order given, each first byte a multiple of
 * its type's size, the data part a multiple of 64 into the file. Equal content is an equal file. */
int safetensors_write(const char *path, const struct safetensors_source *sources, uint32_t count,
                      const struct safetensors_text *metadata, uint32_t metadata_count,
                      struct err *e);

#endif
