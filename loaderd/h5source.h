/* h5source.h - the HDF5 file as the reader sees it: a split of a dense data set, row by row.
 *
 * With h5source*.c the only code of loaderd that knows libhdf5. All calls from one thread. The file
 * is a descriptor, read with pread through a small driver; nothing here opens a file: external
 * storage, external links, virtual data sets and filter plugins are refused, and so is every size
 * that the file cannot back. libhdf5's own printing is off; its reasons end up in our sentences,
 * which name data sets but not the file (the parent puts its path in front).
 */
#ifndef LOADERD_H5SOURCE_H
#define LOADERD_H5SOURCE_H

#include <stdint.h>

#include "loaderd/decode.h"
#include "proto/h5file.h"

enum {
    SOURCE_FIELDS_MAX = 2,
    SOURCE_PATH_MAX = 160,
    SOURCE_VIRTUAL_CHUNK_BYTES =
        256 << 10, /* of rows: a contiguous data set is read as if in such chunks */
};

struct source_field {
    char name[65];              /* features, targets */
    char path[SOURCE_PATH_MAX]; /* train/features: for sentences */
    enum h5type type;           /* in the slot, little-endian */
    uint64_t values, row_bytes;
    uint64_t chunk_rows;  /* of a stored chunk; 0: not chunked */
    uint64_t chunk_bytes; /* of a stored chunk once decoded */
    int direct;           /* chunks are whole rows in the slot's type, filters known to decode.h */
    int edge_unfiltered;  /* a partial last chunk is stored without its filters */
    uint64_t plain_at;    /* the rows lie in the file one after the other from here, in the slot's
                             type;    UINT64_MAX: they do not */
    struct decode_plan plan; /* if direct */
};

struct source;

/* Once, before the sandbox closes: libhdf5 sets itself up, without its own printing, its plugins
 * and its work at exit. */
void source_library_open(void);

/* Open the file behind descriptor `fd` (borrowed) and describe group `split` ("": the root). 0, or
 * -1 and *e. Once a process: the driver hands the descriptor out a single time. */
int source_open(struct source **s_p, int fd, const char *split, struct err *e);
void source_close(struct source **s_p); /* harmless on NULL */

uint64_t source_rows(const struct source *s);
uint64_t source_chunk_rows(const struct source *s); /* what an order permutes: at least 1 */
uint32_t source_field_count(const struct source *s);
const struct source_field *source_field(const struct source *s, uint32_t field);

/* The file's fingerprint: what its attribute says, else a digest of size, time and headers. */
int source_fingerprint(struct source *s, char hex[65], struct err *e);

/* Stored bytes of a chunk of a direct field; 0: never written (read its rows: they hold the fill
 * value). */
int source_chunk_stored(struct source *s, uint32_t field, uint64_t chunk, uint64_t *bytes,
                        struct err *e);

/* Read those bytes as they are into `raw`; *mask has a bit set for every filter that was skipped.
 */
int source_chunk_read(struct source *s, uint32_t field, uint64_t chunk, uint64_t bytes, void *raw,
                      uint32_t *mask, struct err *e);

/* Read rows [row, row + rows) decoded and converted to the field's type by libhdf5; those of a
 * plain field straight from the file. */
int source_rows_read(struct source *s, uint32_t field, uint64_t row, uint64_t rows, void *out,
                     struct err *e);

/* From now on the pages of what was read (not of metadata) leave the page cache at once: for a file
 * so large that it would push out what others need. `shuffled`: the kernel is not to read ahead
 * either, since what it brings in was dropped before or is not wanted yet. */
void source_drop_behind(struct source *s, int shuffled);

/* Bytes read from the file so far, metadata included. */
uint64_t source_bytes_read(const struct source *s);

#endif
