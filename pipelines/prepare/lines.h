/* lines.h - text files line by line, in bounded memory: plain or compressed with zstd.
 *
 * Compressed files are told by their first bytes. Lines end in LF or CR LF. Refused, with the line:
 * one over LINES_BYTES_MAX; a zstd frame that is damaged, ends too early, or needs more than 128
 * MiB to unpack (a window log above 27).
 */
#ifndef PIPELINES_PREPARE_LINES_H
#define PIPELINES_PREPARE_LINES_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include "pipelines/prepare/seen.h"
#include "proto/err.h"
#include "proto/h5file.h"

enum { LINES_BYTES_MAX = 64 << 10 };

struct lines {
    char path[PATH_MAX];
    int fd;
    void *zstd;            /* its state; NULL: a plain file */
    struct digest *digest; /* gets every unpacked byte; borrowed, NULL: nobody */
    unsigned char *packed; /* what was read of a compressed file */
    size_t packed_at, packed_held;
    char *text; /* unpacked bytes */
    size_t at, held;
    int frame_open; /* zstd: inside a frame */
    uint64_t line;  /* number of the line read last, from 1 */
    uint64_t bytes_read;
    struct seen seen; /* when it was opened */
};

/* 0 or -1; lines_close is due in both cases. */
int lines_open(struct lines *l, const char *path, struct digest *digest, struct err *e);
void lines_close(struct lines *l); /* harmless twice, and on a zeroed struct */

/* The next line without its end, NUL-terminated, borrowed until the next call. 1; 0: there is none,
 * and the file is what it was when it was opened; -1. */
int lines_next(struct lines *l, char **line, struct err *e);

#endif
