/* fisherfile_private.h - what the files proto/fisherfile*.c share: one block, written and read.
 * Nobody else includes it.
 */
#ifndef PROTO_FISHERFILE_PRIVATE_H
#define PROTO_FISHERFILE_PRIVATE_H

#include "proto/fisherfile.h"

enum { FISHERFILE_PATH_BYTES = 4200, FISHERFILE_BLOCK_BYTES = 32 };

const char *fisherfile_block_name(char name[FISHERFILE_BLOCK_BYTES], uint64_t index);

int fisherfile_block_write(struct h5writer *w, uint64_t index, struct fisherfile_block *block,
                           const struct h5packed *packed, struct err *e);

/* Read block `index` of the file `path` into *block, its digest verified and written to hex.
 * fisherfile_block_free is due either way. */
int fisherfile_block_read(struct h5reader *r, const char *path, uint64_t index,
                          struct fisherfile_block *block, char hex[65], struct err *e);

int fisherfile_meta_write(struct h5writer *w, const struct fisherfile_meta *m, struct err *e);
int fisherfile_meta_read(struct h5reader *r, struct fisherfile_meta *m, struct err *e);

/* What the blocks add up to, one after the other. */
struct fisherfile_sum {
    uint64_t next, bytes; /* parameters so far; bytes of their blocks */
    double trace, squares, differences, noises;
    struct digest *digest; /* over the blocks' */
};

/* Add block `index`, which must begin where the one before ended. */
int fisherfile_sum_add(struct fisherfile_sum *s, const char *path, uint64_t index,
                       uint64_t parameters, const struct fisherfile_block *block,
                       const char hex[65], struct err *e);

#endif
