/* h5file_private.h - what the files proto/h5file*.c share: identifiers, types, and the one place
 * where an error of libhdf5 becomes one of ours. Nobody else includes it.
 */
#ifndef PROTO_H5FILE_PRIVATE_H
#define PROTO_H5FILE_PRIVATE_H

#include "proto/h5file.h"
#include "proto/h5file_type.h"

enum { H5FILE_PATH_MAX = 4096, H5FILE_ALIGNMENT = 64, H5FILE_ROWS_SETS_MAX = 18 };
enum { H5FILE_METADATA_BYTES = 128 << 10 }; /* of each file; libhdf5 would take 2 to 32 MiB */

struct h5chunks; /* a chunked set being written; h5file_chunks.c */

/* Where a writer's bytes go. failure.code 0: every write so far was good. */
struct h5sink {
    const char *path; /* borrowed */
    int fd;
    hid_t driver;
    uint64_t bytes;
    struct err failure;
};

struct h5writer {
    char path[H5FILE_PATH_MAX + 1], temporary[H5FILE_PATH_MAX + 1];
    struct h5sink sink;
    hid_t file;
    struct h5chunks *rows[H5FILE_ROWS_SETS_MAX];
    int row_sets;
};

struct h5reader {
    char path[H5FILE_PATH_MAX + 1];
    hid_t file;
    hid_t links; /* access properties: external links are not followed */
    uint64_t file_bytes;
};

/* Silence libhdf5's own printing. Called by whatever opens a file. */
void h5_quiet(void);

/* Fill *e with the formatted attempt and the innermost reason on libhdf5's error stack, and clear
 * the stack. A system error found there decides the code as err_errno does, lack of memory is
 * temporary, anything else has `code`. Returns -1. */
int h5_fail(struct err *e, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

int h5_type_find(hid_t type); /* the enum h5type that it equals, or -1 */

/* Close an identifier of any kind if it is one (>= 0), and mark it closed. Leaves the error stack
 * alone. */
void h5_close(hid_t *id);

/* Bytes of an array of these dimensions, or -1 when they do not fit 63 bits. */
int h5_bytes(enum h5type type, int rank, const uint64_t *dims, uint64_t *bytes);

/* Make the groups above `name` that are not there yet. */
int h5_groups_make(struct h5writer *w, const char *name, struct err *e);

/* Byte k of every element, for each k in turn. */
void h5_shuffle(uint8_t *to, const uint8_t *from, uint64_t bytes, uint32_t element_bytes);

/* Create `path` (borrowed) for writing. On failure too, h5_sink_close is due. */
int h5_sink_open(struct h5sink *s, const char *path, struct err *e);
/* Make a file that is created with these access properties write to the sink. */
int h5_sink_use(struct h5sink *s, hid_t access);
void h5_sink_close(struct h5sink *s);

/* `result` of an operation on the writer, or -1 and *e when a write below libhdf5 has failed. */
int h5_wrote(struct h5writer *w, int result, struct err *e);

/* -1 if a set begun by h5writer_rows_begin lacks rows. */
int h5_rows_complete(const struct h5writer *w, struct err *e);
void h5_rows_free(struct h5writer *w);

#endif
