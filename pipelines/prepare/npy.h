/* npy.h - NumPy's .npy files, versions 1.0 and 2.0, little-endian, in C order.
 *
 * Nothing in the header is believed before it was compared with the size of the file.
 */
#ifndef PIPELINES_PREPARE_NPY_H
#define PIPELINES_PREPARE_NPY_H

#include <limits.h>
#include <stdint.h>

#include "pipelines/prepare/seen.h"
#include "proto/err.h"

enum { NPY_RANK_MAX = 8, NPY_HEADER_BYTES_MAX = 65536 };

struct npy {
    char path[PATH_MAX];
    int fd;
    struct seen seen; /* when it was opened */
    char kind;        /* f, i, u or b (one byte, 0 or 1) */
    uint32_t size;    /* bytes of an element */
    int rank;
    uint64_t dims[NPY_RANK_MAX];
    uint64_t row_values, row_bytes; /* of an element of the first dimension */
    uint64_t offset;                /* of the data in the file */
};

/* 0 or -1; npy_close is due in both cases. */
int npy_open(struct npy *n, const char *path, struct err *e);
void npy_close(struct npy *n); /* harmless twice, and on a zeroed struct */

/* Read rows [row, row + rows) as they are stored. */
int npy_read(const struct npy *n, uint64_t row, uint64_t rows, void *data, struct err *e);

/* The element at `at` as a number; integers of 64 bits are rounded as C rounds them. */
double npy_value(const struct npy *n, const unsigned char *at);

/* The header's text, `bytes` of it, into *n: descr, fortran_order and shape, each once. */
int npy_header_parse(struct npy *n, const char *text, uint64_t bytes, struct err *e);

#endif
