/* h5source.h - the HDF5 file as the reader sees it: the data sets of a split, item by item.
 *
 * With h5source*.c the only code of loaderd that knows libhdf5. All calls from one thread. The file
 * is a descriptor, read with pread through a small driver; nothing here opens a file: external
 * storage, external links, virtual data sets and filter plugins are refused, and so is every size
 * that the file cannot back. libhdf5's own printing is off; its reasons end up in our sentences,
 * which name data sets but not the file (the parent puts its path in front).
 *
 * What the group holds decides the layout. A row is what the order permutes: an item of each data
 * set (dense), a graph (as many items of each data set as its pointers say), a window of tokens.
 */
#ifndef LOADERD_H5SOURCE_H
#define LOADERD_H5SOURCE_H

#include <stdint.h>

#include "loaderd/decode.h"
#include "proto/h5file.h"

enum {
    SOURCE_FIELDS_MAX = 16,
    SOURCE_PLANES_MAX = 2,
    SOURCE_PATH_MAX = 208,
    SOURCE_VIRTUAL_CHUNK_BYTES =
        256 << 10, /* of rows: a contiguous data set is read as if in such chunks */
};

/* Of all pointers of a split together, which are kept: 32 million graphs, 64 million documents. */
#define SOURCE_POINTERS_BYTES_MAX (1ull << 29)

enum source_layout { SOURCE_DENSE, SOURCE_GRAPH, SOURCE_TOKENS };

struct source_wish {
    const char *split;              /* "": the root */
    const char *features, *targets; /* names of a dense layout's data sets */
    const char *weights;            /* of what targets weigh, or tokens; "": none */
    uint64_t window;                /* tokens of a row, less one */
    int begins;                     /* a dense layout's data set of that name, if it is there */
};

struct source_field { /* a data set: items, one after the other */
    char name[65];    /* what it is: features, features/M1, targets, weights, begins ... */
    char path[SOURCE_PATH_MAX]; /* train/features: for sentences */
    enum h5type type;           /* in the slot, little-endian */
    uint64_t items;
    uint64_t values, row_bytes; /* of an item */
    uint32_t planes;            /* 2: two arrays of items, one after the other (edge_index) */
    uint32_t chunk_planes;      /* of a stored chunk */
    uint64_t chunk_rows;        /* items of a stored chunk, in each of its planes; 0: not chunked */
    uint64_t chunk_bytes;       /* of a stored chunk once decoded */
    int direct;          /* chunks are whole items in the slot's type, filters known to decode.h */
    int edge_unfiltered; /* a partial last chunk is stored without its filters */
    uint64_t plain_at;   /* the items lie in the file one after the other from here, in the slot's
                            type; UINT64_MAX: they do not */
    struct decode_plan plan; /* if direct */
};

/* Do its bytes go into the slot as they are stored? */
static inline int source_field_is_copied(const struct source_field *f)
{
    return f->plain_at != UINT64_MAX || (f->direct && f->plan.count == 0);
}

/* Where the items of each row begin: count numbers from 0 on that never fall, the last of them the
 * number of items. at is NULL where the layout has no such pointer. */
struct source_pointer {
    uint64_t *at, count;
};

struct source;

/* Once, before the sandbox closes: libhdf5 sets itself up, without its own printing, its plugins
 * and its work at exit. */
void source_library_open(void);

/* Open the file behind descriptor `fd` (borrowed) and describe the split; its pointers are read and
 * checked. 0, or -1 and *e. Once a process: the driver hands the descriptor out a single time. */
int source_open(struct source **s_p, int fd, const struct source_wish *wish, struct err *e);
void source_close(struct source **s_p); /* harmless on NULL */

enum source_layout source_layout(const struct source *s);
uint64_t source_rows(const struct source *s);
const struct source_pointer *source_nodes(const struct source *s);     /* graph */
const struct source_pointer *source_edges(const struct source *s);     /* graph */
const struct source_pointer *source_documents(const struct source *s); /* tokens */

/* Rows that the order should permute together, at least 1. Of a dense layout a stored chunk of the
 * features, or, as far as rows_limit allows, so many that each chunk of the other data sets belongs
 * to one such group of rows (of the longest of them where their lengths have no small common
 * multiple); data sets that a cache holds whole do not count. Of a ragged layout so many that few
 * of the stored chunks read for them belong to other rows as well. */
uint64_t source_chunk_rows(const struct source *s, uint64_t rows_limit);

/* The order permutes `rows` rows together: data sets in longer chunks are read through a cache. */
int source_chunk_rows_set(struct source *s, uint64_t rows, struct err *e);

uint32_t source_field_count(const struct source *s);
const struct source_field *source_field(const struct source *s, uint32_t field);

/* Stored chunks of a data set, written or not; 0: it is not chunked, or empty. */
uint64_t source_chunks(const struct source *s, uint32_t field);

/* What is kept at most of where the chunks of all of them lie. */
uint64_t source_index_bytes(const struct source *s);

/* Is all of it read for the fingerprint? */
int source_field_is_digested(const struct source_field *f);

/* The file's fingerprint: what its attribute says, with begins and weights where they are delivered
 * a digest of that and of them; without one a digest of size, time and headers. */
int source_fingerprint(struct source *s, char hex[65], struct err *e);

/* Where in the file a direct field's chunk lies that holds items of `plane`: *bytes stored bytes
 * from *place on; *mask has a bit set for every filter that was skipped. *bytes 0: it was never
 * written (read its items: they hold the fill value). */
int source_chunk_find(struct source *s, uint32_t field, uint32_t plane, uint64_t chunk,
                      uint64_t *bytes, uint64_t *place, uint32_t *mask, struct err *e);

/* These bytes will be read soon: the disk may begin. Of bytes that are cached it costs as much as
 * reading them. */
void source_bytes_ahead(const struct source *s, uint64_t at, uint64_t bytes);

/* What reads bytes of *fd, the file, as they are; of use in any thread. */
typedef int source_bytes_read_at(int fd, void *out, uint64_t bytes, uint64_t at);
source_bytes_read_at *source_bytes_reader(const struct source *s, int *fd);

/* What gives back the pages of bytes that it has read, and of their neighbours in [low, high) as
 * far as the kernel keeps them together with these; in any thread. NULL: they stay
 * (source_drop_behind). */
enum { SOURCE_FOLIO_BYTES = 2 << 20 }; /* at most */
typedef void source_bytes_drop(int fd, uint64_t at, uint64_t bytes, uint64_t low, uint64_t high);
source_bytes_drop *source_bytes_dropper(const struct source *s);

/* Read items [item, item + items) of a plane decoded and converted to the field's type by libhdf5;
 * those of a plain field straight from the file. */
int source_items_read(struct source *s, uint32_t field, uint32_t plane, uint64_t item,
                      uint64_t items, void *out, struct err *e);

/* From now on the pages of what was read (not of metadata) leave the page cache at once: for a file
 * so large that it would push out what others need. `shuffled`: the kernel is not to read ahead
 * either, since what it brings in was dropped before or is not wanted yet. */
void source_drop_behind(struct source *s, int shuffled);

/* Bytes that source_items_read has decoded so far: whole chunks, each time that they are (libhdf5
 * has a cache of some); those read where nothing is decoded. */
uint64_t source_bytes_decoded(const struct source *s);

/* Bytes read from the file so far, metadata included, but by source_bytes_reader's function. */
uint64_t source_bytes_read(const struct source *s);

#endif
