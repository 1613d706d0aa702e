/* idx_file.h - one idx file, plain or gzipped, read from its beginning to its end and checked. */
#ifndef PIPELINES_PREPARE_IDX_FILE_H
#define PIPELINES_PREPARE_IDX_FILE_H

#include <limits.h>
#include <stdint.h>

#include "pipelines/prepare/seen.h"
#include "proto/h5file.h"

enum { IDX_PIXELS_MAX = 1 << 22 };

enum idx_kind { IDX_IMAGES, IDX_LABELS };

struct idx_file {
    char path[PATH_MAX];
    struct seen seen;              /* when it was found */
    void *gz;                      /* zlib's; NULL: closed */
    struct digest *digest;         /* gets every byte that is read; borrowed */
    uint64_t count, rows, columns; /* labels: rows and columns are 1 */
    uint64_t bytes, bytes_read;    /* as its header announces; so far */
};

/* Open f->path and read its header: magic number, count, size of an image. 0, or -1 and *e. */
int idx_file_open(struct idx_file *f, enum idx_kind kind, struct err *e);
void idx_file_close(struct idx_file *f); /* harmless twice */

/* Read exactly `bytes` (at most INT_MAX) more. A file that ends before is refused. */
int idx_file_read(struct idx_file *f, void *data, uint64_t bytes, struct err *e);

/* Everything was read: nothing may follow, and the file must be what it was when it was found. */
int idx_file_end(struct idx_file *f, struct err *e);

#endif
