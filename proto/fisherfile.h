/* fisherfile.h - the Fisher information of a task on disk: fisher/<task>.h5, which plain h5py
 * reads.
 *
 *   blocks/<5 digits>   a group: the diagonal of some parameters, as the arrays of a stored form
 *
 * What the arrays hold is engine/fisher_code.h's; here they are only names, types and bytes. The
 * attributes of the root and of a block are those of the structs below; docs/FISHER.md says what
 * they are.
 *
 * The flat vector is the checkpoint's parameters, tensor after tensor, row-major. While an estimate
 * is under way each finished block is a file fisher/<task>.part/<5 digits>.h5 of the same form, so
 * that a restart goes on after the last complete one; it has the attribute job at the root. Parts
 * outlive a kill; they are not forced to the disk, because their digests are verified before they
 * are believed, and what a power cut has spoiled is made again.
 */
#ifndef PROTO_FISHERFILE_H
#define PROTO_FISHERFILE_H

#include <stdint.h>

#include "proto/err.h"
#include "proto/h5file.h"

struct fisherfile_meta {
    char job[129], task[64], checkpoint[4097], parameters_sha256[65], estimator[128], labels[16],
        compression[16]; /* labels: engine/labels.h */
    char digest[65];
    uint64_t samples, parameters, blocks, block_size, bytes;
    double trace, error, noise;
};

enum { FISHERFILE_ARRAYS_MAX = 8, FISHERFILE_NAME_BYTES = 16 };

struct fisherfile_array {
    char name[FISHERFILE_NAME_BYTES];
    enum h5type type;
    uint64_t count;
    void *data;
};

struct fisherfile_block {
    uint64_t first, count; /* range of the flat vector */
    char tensors[1024];    /* names, separated by spaces */
    char form[FISHERFILE_NAME_BYTES];
    double sum, norm, error; /* of the values: their sum, the root of the sum of their squares,
                                fisher_code.h's error */
    double noise;            /* of the estimate, relative to norm as the error is; NaN: not known */
    uint64_t bytes;          /* that the arrays take in the file */
    int arrays;
    struct fisherfile_array array[FISHERFILE_ARRAYS_MAX];
};

/* Write one finished block of a job in progress; array i is packed[i], under the name
 * block->array[i].name. Fills block->bytes. */
int fisherfile_write_part(const char *part_dir, uint64_t index, const char *job,
                          struct fisherfile_block *block, const struct h5packed *packed,
                          struct err *e);

/* 1 if part `index` of that job is there and whole, 0 if not (a part of another job, or a damaged
 * one, is removed). */
int fisherfile_has_part(const char *part_dir, uint64_t index, const char *job, struct err *e);

/* Remove the parts of whatever job, and their directory; harmless when there is none. */
void fisherfile_remove_parts(const char *part_dir);

/* Join the parts to `path`, one block in memory at a time; fills trace, error, bytes and digest of
 * *meta; removes the part directory after the commit. */
int fisherfile_join(const char *path, const char *part_dir, struct fisherfile_meta *meta,
                    struct err *e);

/* The same a part at a time, for a process that has other turns to take: open, next while it is 0,
 * close, which is due after a failed open, too, and leaves nothing of a file that is not committed.
 * next: 1 when the file is committed. */
struct fisherfile_join;
int fisherfile_join_open(struct fisherfile_join **j_p, const char *path, struct err *e);
int fisherfile_join_next(struct fisherfile_join *j, const char *part_dir,
                         struct fisherfile_meta *meta, struct err *e);
void fisherfile_join_close(struct fisherfile_join **j_p); /* harmless twice */

/* Attributes only. -1 with e->code permanent when it is missing or not ours. */
int fisherfile_read_meta(const char *path, struct fisherfile_meta *meta, struct err *e);

/* Reading: the blocks in order. */
struct fisherfile;
int fisherfile_open(struct fisherfile **f_p, const char *path, struct fisherfile_meta *meta,
                    struct err *e);
void fisherfile_close(struct fisherfile **f_p);

/* The next block with its arrays, which are the caller's to release: 1. 0: there is none left, and
 * what was read is the whole. -1: damaged. Each block's digest is verified when it is read, the
 * file's after the last. */
int fisherfile_next(struct fisherfile *f, struct fisherfile_block *block, struct err *e);
void fisherfile_block_free(struct fisherfile_block *block); /* harmless twice */

#endif
