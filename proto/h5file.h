/* h5file.h - the house's own HDF5 files: written once, whole, and read back.
 *
 * Checkpoints, Fisher blocks and prepared caches all go through here; with loaderd/h5source.c this
 * is the only code that includes hdf5.h. Object times are off, so equal content is an equal file.
 * Writers make path.tmp-<pid>, every byte by way of durable_pwrite_all, close it, open it again to
 * see that it reads, and durable_commit it; files are never opened read-write in place. All calls
 * of one process from one thread.
 */
#ifndef PROTO_H5FILE_H
#define PROTO_H5FILE_H

#include <stddef.h>
#include <stdint.h>

#include "proto/err.h"

enum { H5FILE_RANK_MAX = 4, H5FILE_NAME_MAX = 255, H5FILE_TEXT_MAX = 65536 };

/* Element types; on disk little-endian. */
enum h5type {
    H5TYPE_U8,
    H5TYPE_I8,
    H5TYPE_U16,
    H5TYPE_I16,
    H5TYPE_U32,
    H5TYPE_I32,
    H5TYPE_U64,
    H5TYPE_I64,
    H5TYPE_F16, /* IEEE 754 binary16 */
    H5TYPE_F32,
    H5TYPE_F64,
    H5TYPE_COUNT
};
const char *h5type_name(enum h5type type); /* "u8" .. "f64" */
int h5type_of(const char *name);           /* or -1 */
uint32_t h5type_bytes(enum h5type type);

struct h5writer;
struct h5reader;
/* Begin a file that will be `path`. 0 or -1. */
int h5writer_open(struct h5writer **w_p, const char *path, struct err *e);
/* The same for thousands of objects, which are then not aligned: no set of it can be mapped. */
int h5writer_open_many(struct h5writer **w_p, const char *path, struct err *e);

/* Attributes of the root group ("" object) or of an existing group or data set. Texts are of fixed
 * length, UTF-8, at most 65,000 bytes. */
int h5writer_text(struct h5writer *w, const char *object, const char *name, const char *text,
                  struct err *e);
int h5writer_u64(struct h5writer *w, const char *object, const char *name, uint64_t value,
                 struct err *e);
int h5writer_f64(struct h5writer *w, const char *object, const char *name, double value,
                 struct err *e);

/* One contiguous, unfiltered data set, its first byte aligned to 64 in the file (so that it can be
 * mapped). Intermediate groups of the name are made. */
int h5writer_array(struct h5writer *w, const char *name, enum h5type type, int rank,
                   const uint64_t *dims, const void *data, struct err *e);

/* One chunked data set with byte shuffle and gzip `level`, written at once. chunk: rank sizes. */
int h5writer_gzip(struct h5writer *w, const char *name, enum h5type type, int rank,
                  const uint64_t *dims, const uint64_t *chunk, int level, const void *data,
                  struct err *e);

/* A chunked, shuffled, gzipped data set whose rows come in pieces: dims[0] rows in all, chunk_rows
 * a chunk; append whole chunks in order (the last may be short). Chunks are compressed here with
 * libdeflate and stored with H5Dwrite_chunk as ordinary chunks of the standard filters. */
int h5writer_rows_begin(struct h5writer *w, const char *name, enum h5type type, int rank,
                        const uint64_t *dims, uint64_t chunk_rows, int level, struct err *e);
int h5writer_rows_append(struct h5writer *w, const char *name, const void *data, uint64_t rows,
                         struct err *e);

/* The same for a set whose size along dimension `axis` is known only at the end: dims[axis] is not
 * looked at. A piece has any number of rows along the axis up to chunk_rows, all others being whole
 * ([2, rows] for axis 1); only the last piece has fewer than chunk_rows. */
int h5writer_growing_begin(struct h5writer *w, const char *name, enum h5type type, int rank,
                           const uint64_t *dims, int axis, uint64_t chunk_rows, int level,
                           struct err *e);

/* How the chunks of a set are packed by the caller, in threads of its own. */
enum h5packing {
    H5PACK_NONE, /* one contiguous set, as h5writer_array */
    H5PACK_GZIP, /* byte shuffle and gzip */
    H5PACK_CODES /* bytes that are codes: huffman.h; chunks of at most HUFFMAN_BYTES_MAX */
};

/* A one-dimensional set of `count` elements at `data`, in chunks of `chunk` elements of which the
 * last may be short. */
struct h5packed {
    enum h5packing packing;
    enum h5type type;
    int level; /* of gzip, 1 to 9 */
    uint64_t count, chunk;
    const void *data;
    uint64_t chunks;
    struct h5packed_chunk {
        void *bytes; /* NULL until packed */
        uint64_t size;
    } * chunk_at;
};

/* Describe the set; `data` is borrowed, and so is nothing else: h5packed_free is due. */
int h5packed_open(struct h5packed *p, enum h5packing packing, enum h5type type, int level,
                  uint64_t count, uint64_t chunk, const void *data, struct err *e);
/* Pack chunk `index`. Each once, in any order, from any thread; no libhdf5 in it. */
int h5packed_chunk(struct h5packed *p, uint64_t index, struct err *e);
uint64_t h5packed_bytes(const struct h5packed *p); /* what its chunks take */
void h5packed_free(struct h5packed *p);            /* harmless twice */

/* Write the set, all of whose chunks are packed, as ordinary chunks of the standard filters. */
int h5writer_packed(struct h5writer *w, const char *name, const struct h5packed *p, struct err *e);

/* Copy the group `name`, with all in it, from another file, its chunks as they are. */
int h5writer_copy(struct h5writer *w, const char *name, struct h5reader *from, struct err *e);

/* Close, check, commit. *w_p is NULL afterwards. On failure nothing is left behind and an older
 * file of that name stays. */
int h5writer_commit(struct h5writer **w_p, struct err *e);
/* Close and rename only: no reader has looked at it, and a power cut may spoil it (durable_place).
 */
int h5writer_place(struct h5writer **w_p, struct err *e);
void h5writer_abandon(struct h5writer **w_p); /* harmless on NULL */

/* Remove what writers of other, dead processes left in the directory of the file `path` (names
 * ending in .tmp-<pid>). Only for the process that holds the lock of the stage that owns the
 * directory. */
void h5writer_sweep(const char *path);
/* Remove what writers of the file `path` itself left in processes that are gone. For who has no
 * lock. */
void h5writer_sweep_dead(const char *path);

/* The name that the file has until it is committed; borrowed. */
const char *h5writer_temporary(const struct h5writer *w);

int h5reader_open(struct h5reader **r_p, const char *path, struct err *e);
void h5reader_close(struct h5reader **r_p);
/* Read attributes; missing or mistyped: -1. text: NUL-terminated into `capacity` bytes. */
int h5reader_text(struct h5reader *r, const char *object, const char *name, char *text,
                  size_t capacity, struct err *e);
/* The same of the root in new memory, the caller's to free; NULL: there is none, or no memory. */
char *h5reader_text_new(struct h5reader *r, const char *name);
int h5reader_u64(struct h5reader *r, const char *object, const char *name, uint64_t *value,
                 struct err *e);
int h5reader_f64(struct h5reader *r, const char *object, const char *name, double *value,
                 struct err *e);

/* 1 if there is a group or data set of that name, else 0. */
int h5reader_has(struct h5reader *r, const char *name);

/* 1 if `name` is a group, else 0. */
int h5reader_is_group(struct h5reader *r, const char *name);

enum { H5NAMES_MAX = 15, H5NAMES_BYTES = 1024 };

struct h5names {
    char text[H5NAMES_BYTES]; /* what `name` points into: do not move the struct */
    const char *name[H5NAMES_MAX];
    int count;
};

/* The names that an attribute of a group lists: a text "M1 M5" or an array of texts. -1: it does
 * not. */
int h5reader_names(struct h5reader *r, const char *group, const char *attribute,
                   struct h5names *names, struct err *e);

struct h5array {
    char name[H5FILE_NAME_MAX + 1];
    enum h5type type;
    int rank;
    uint64_t dims[H5FILE_RANK_MAX];
    uint64_t bytes;
    uint64_t file_offset; /* of the first byte if contiguous, else UINT64_MAX */
};
/* Describe data set `name`. Refuses types that are not ours and sizes that the file cannot back. */
int h5reader_array(struct h5reader *r, const char *name, struct h5array *array, struct err *e);
/* Read it whole into data (array->bytes). */
int h5reader_read(struct h5reader *r, const struct h5array *array, void *data, struct err *e);
/* Describe a data set that others wrote: any integers of 1 to 8 bytes and floats of 2, 4 or 8,
 * either byte order, any filters that libhdf5 has without plugins; `type` is what h5reader_rows
 * gives. Refuses virtual and external storage, other filters, and chunks over 256 MiB. */
int h5reader_foreign(struct h5reader *r, const char *name, struct h5array *array, struct err *e);
/* Read rows [first, first + rows) of its first dimension into data, as array->type. */
int h5reader_rows(struct h5reader *r, const struct h5array *array, uint64_t first, uint64_t rows,
                  void *data, struct err *e);
/* Read items [first, first + items) of its second dimension, of every row: data[dims[0]][items]...
 */
int h5reader_columns(struct h5reader *r, const struct h5array *array, uint64_t first,
                     uint64_t items, void *data, struct err *e);
/* Visit all data sets below group `group` in the order they were created. */
int h5reader_each(struct h5reader *r, const char *group,
                  int (*visit)(void *self, const struct h5array *array), void *self, struct err *e);

/* SHA-256, hexadecimal (64 characters + NUL), over any number of arrays: for each, name, type name,
 * rank, dims and little-endian bytes in order. libnettle. */
struct digest;
int digest_open(struct digest **d_p, struct err *e);
void digest_array(struct digest *d, const char *name, enum h5type type, int rank,
                  const uint64_t *dims, const void *data);
void digest_bytes(struct digest *d, const void *data, uint64_t bytes);
void digest_close(struct digest **d_p, char hex[65]);

#endif
