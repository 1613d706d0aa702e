/* fisherfile.h - the Fisher information of a task on disk: fisher/<task>.h5, which plain h5py
 * reads.
 *
 *   blocks/<5 digits>      float32 [n], gzip with byte shuffle: the diagonal of n parameters in
 * file order attributes: first (index of its first parameter in the flat vector), tensors (names it
 * covers) attributes of the root: job, task, checkpoint (path), parameters_sha256 (theta*),
 * samples, estimator
 *     ("exact: mean over samples of the squared gradient"), labels, trace, parameters, blocks,
 * digest (over the blocks' values). The flat vector is the checkpoint's parameters, tensor after
 * tensor, row-major. While an estimate is under way each finished block is a durable file
 * fisher/<task>.part/<5 digits>.h5 of the same form, so that a restart goes on after the last
 * complete one; it has job and digest (over its block) at the root.
 */
#ifndef PROTO_FISHERFILE_H
#define PROTO_FISHERFILE_H

#include <stdint.h>

#include "proto/err.h"

struct fisherfile_meta {
    char job[129], task[64], checkpoint[4097], parameters_sha256[65], estimator[128], digest[65];
    char labels[16]; /* of the gradients: engine/labels.h */
    uint64_t samples, parameters, blocks, block_size;
    double trace;
};

struct fisherfile_block {
    uint64_t first, count; /* range of the flat vector */
    char tensors[1024];    /* names, separated by spaces */
};

/* Write one finished block of a job in progress. `values` holds block->count numbers. */
int fisherfile_write_part(const char *part_dir, uint64_t index, const char *job,
                          const struct fisherfile_block *block, const float *values, int level,
                          struct err *e);

/* 1 if part `index` of that job is there and whole, 0 if not (a part of another job, or a damaged
 * one, is removed). */
int fisherfile_has_part(const char *part_dir, uint64_t index, const char *job, struct err *e);

/* Remove the parts of whatever job, and their directory; harmless when there is none. */
void fisherfile_remove_parts(const char *part_dir);

/* Join the parts to `path`, one block in memory at a time; fills meta->trace and meta->digest;
 * removes the part directory after the commit. */
int fisherfile_join(const char *path, const char *part_dir, struct fisherfile_meta *meta, int level,
                    struct err *e);

/* Attributes only. -1 with e->code permanent when it is missing or not ours. */
int fisherfile_read_meta(const char *path, struct fisherfile_meta *meta, struct err *e);

/* All blocks in order into values[meta->parameters]; verifies the digest. */
int fisherfile_read(const char *path, const struct fisherfile_meta *meta, float *values,
                    struct err *e);

#endif
