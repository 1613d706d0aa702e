/* text_files.h - the files of a corpus: one file, or those below a directory, each a document.
 *
 * Sorted by name, directory by directory. Names that begin with a dot, symbolic links and what is
 * no file are passed over. What begins as gzip does is unpacked, whatever its name.
 */
#ifndef PIPELINES_PREPARE_TEXT_FILES_H
#define PIPELINES_PREPARE_TEXT_FILES_H

#include <stdint.h>

#include "pipelines/prepare/seen.h"
#include "proto/err.h"

enum { TEXT_FILES_MAX = 1 << 22 };

struct text_file {
    char *path;
    struct seen seen; /* when the list was made; its bytes are those on disk */
    uint64_t bytes;   /* unpacked; set by the first pass of who reads them */
};

struct text_files {
    struct text_file *file;
    uint64_t count, capacity, stored_bytes;
    char digest[65]; /* of names, sizes and times */
};

/* List them. 0 or -1; text_files_close is due in both cases. */
int text_files_open(struct text_files *f, const char *path, struct err *e);
void text_files_close(struct text_files *f); /* harmless twice, and on a zeroed struct */

/* Read one file from its beginning to its end, piece by piece. -1 and temporary if it is not what
 * it was when the list was made. */
int text_file_read(const struct text_file *f,
                   int (*take)(void *self, const void *data, uint64_t bytes, struct err *e),
                   void *self, struct err *e);

#endif
