/* h5source_private.h - shared by h5source*.c only. */
#ifndef LOADERD_H5SOURCE_PRIVATE_H
#define LOADERD_H5SOURCE_PRIVATE_H

#include <hdf5.h>

#include "loaderd/h5source.h"

/* What a data set may look like. */
struct source_kind {
    int rank_low, rank_high;
    int axis;   /* dimension of the items: 0, or 1 after one of 2 planes */
    int ragged; /* a row has any number of the items, or shares some with its neighbours */
    int may_be_empty;
    enum { SOURCE_NUMBERS, SOURCE_WHOLE, SOURCE_UNSIGNED } numbers;
    const char *wanted; /* "1 or 2 dimensions, rows first": for sentences */
};

struct source_set {
    struct source_field field;
    const struct source_kind *kind;
    char link[SOURCE_PATH_MAX]; /* below the split's group */
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
    enum source_layout layout;
    uint64_t rows, window;
    uint64_t chunk_rows;    /* of the order: a layout's own choice, then what was set */
    uint64_t bytes_decoded; /* see source_bytes_decoded */
    struct source_pointer nodes, edges, documents;
    uint32_t field_count;
    struct source_set set[SOURCE_FIELDS_MAX];
};

/* Where chunks lie libhdf5 reads from the file as it is wanted, and keeps: SOURCE_INDEX_BYTES as
 * stored, of which each record takes INDEX_BYTES_A_CHUNK in memory, since it has room for a place
 * in 33 dimensions (280 bytes; measured, with what goes with it). Up to some 50,000 chunks are held
 * whole; of 1.28 million, a row each, in random order, loaderd and its reader took
 *
 *     MiB             1      2      4      8     32   (libhdf5's own)
 *     memory, MB     16     24     42     75    278
 *     CPU, s       17.4   16.7   16.4   14.4   12.6   an epoch
 */
#define SOURCE_INDEX_BYTES (2ull << 20)
enum { INDEX_BYTES_A_CHUNK = 330 };

/* A file access list whose driver reads `fd`; the next H5Fopen with it succeeds, later ones do not.
 */
hid_t source_driver_open(int fd, uint64_t file_bytes);

/* Read all of `bytes` bytes at `offset` as the driver does, in any thread. 0, or -1 and errno: 0
 * when the file ends before. */
int source_driver_pread(int fd, void *buffer, uint64_t bytes, uint64_t offset);

/* The same, counted; in the thread of libhdf5. */
int source_driver_read(int fd, void *buffer, uint64_t bytes, uint64_t offset);

/* A buffer for libhdf5 to read into, of which the driver notes instead where in the file the bytes
 * lie. After libhdf5's call: how many it wanted there, from *at on; 0: none. */
void *source_driver_seek(void);
uint64_t source_driver_sought(uint64_t *at);

/* Bytes that it has read so far. */
uint64_t source_driver_bytes(void);

/* Of them libhdf5's reads of items rather than metadata: it reads a filtered chunk by one. */
struct source_raw {
    uint64_t count, bytes;
};
struct source_raw source_driver_raw(void);

/* Rows that the order of a dense layout should permute together: source_chunk_rows. */
uint64_t source_dense_chunk_rows(const struct source *s, uint64_t rows_limit);

/* Does the cache hold the data set's chunks all together, so that each is decoded once in whatever
 * order they are wanted? */
int source_set_is_cached(const struct source_set *t);

/* Stored chunks that the data set has room for; 0: it is not chunked, or empty. */
uint64_t source_set_chunks(const struct source_set *t);

/* The innermost reason on libhdf5's error stack, or "no reason given". Valid until the next call.
 */
const char *source_reason(void);

/* "images, labels": what stands in a group, for sentences. Valid until the next call. */
const char *source_names_in(hid_t group);

/* Is there something of that name in the split's group? */
int source_has(const struct source *s, const char *name);

/* Describe the data set that stands at `link` of the split's group, as `name`; the next of
 * s->set. *found = 0 and success if there is none. */
int source_set_open(struct source *s, const char *link, const char *name,
                    const struct source_kind *kind, int *found, struct err *e);

/* As that, but into *t, which the caller closes (H5Dclose where dataset >= 0). */
int source_set_describe(struct source *s, struct source_set *t, const char *link, const char *name,
                        const struct source_kind *kind, int *found, struct err *e);

/* As source_items_read. */
int source_set_read(struct source *s, const struct source_set *t, uint32_t plane, uint64_t item,
                    uint64_t items, void *out, struct err *e);

/* The data sets of each layout. */
int source_dense_open(struct source *s, const struct source_wish *wish, struct err *e);
int source_graph_open(struct source *s, const struct source_wish *wish, struct err *e);
int source_tokens_open(struct source *s, const struct source_wish *wish, struct err *e);
/* Of any: what wish->weights names, if it is there: of each of the source's rows, which are known,
 * or of each token. */
int source_weights_open(struct source *s, const struct source_wish *wish, struct err *e);

#endif
