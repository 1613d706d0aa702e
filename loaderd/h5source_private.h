/* h5source_private.h - shared by h5source*.c only. */
#ifndef LOADERD_H5SOURCE_PRIVATE_H
#define LOADERD_H5SOURCE_PRIVATE_H

#include <hdf5.h>

#include "loaderd/h5source.h"

struct source_set {
    struct source_field field;
    hid_t dataset, memory_type;
    int contiguous_same; /* contiguous, and stored in the slot's type */
    int rank;
    hsize_t dims[H5FILE_RANK_MAX], chunk[H5FILE_RANK_MAX];
};

struct source {
    int fd;
    uint64_t file_bytes;
    hid_t file, group;
    char split[65];
    uint64_t rows, chunk_rows;
    uint32_t field_count;
    struct source_set set[SOURCE_FIELDS_MAX];
};

/* A file access list whose driver reads `fd`; the next H5Fopen with it succeeds, later ones do not.
 */
hid_t source_driver_open(int fd, uint64_t file_bytes);

/* Read all of `bytes` bytes at `offset` as the driver does, counted. 0 or -1. */
int source_driver_pread(int fd, void *buffer, uint64_t bytes, uint64_t offset);

/* Refuse reads that begin in this buffer and end beyond it, until the next call (NULL: none).
 * Returns how many bytes were read into the buffer before. */
uint64_t source_driver_guard(const void *buffer, uint64_t bytes);

/* Bytes that the driver has read so far. */
uint64_t source_driver_bytes(void);

/* The innermost reason on libhdf5's error stack, or "no reason given". Valid until the next call.
 */
const char *source_reason(void);

/* Describe data set `name` of the split's group into s->set[s->field_count++]. *found = 0 and
 * success if there is none. */
int source_set_open(struct source *s, const char *name, int *found, struct err *e);

#endif
