/* checkpoint_private.h - what the files checkpoint*.c share; nobody else includes it. */
#ifndef PROTO_CHECKPOINT_PRIVATE_H
#define PROTO_CHECKPOINT_PRIVATE_H

#include <stddef.h>

#include "proto/checkpoint.h"

enum {
    CHECKPOINT_VERSION = 6,                                      /* is written */
    CHECKPOINT_VERSION_OLDEST = 4,                               /* is read */
    CHECKPOINT_RESULTS_BYTES_MAX = CHECKPOINT_RESULTS_MAX * 320, /* a line: names 226, numbers 50 */
};

enum checkpoint_field_kind { CHECKPOINT_FIELD_U64, CHECKPOINT_FIELD_F64, CHECKPOINT_FIELD_TEXT };

/* One attribute and its place in struct checkpoint_meta. */
struct checkpoint_field {
    const char *name;
    enum checkpoint_field_kind kind;
    size_t offset, bytes;
    uint64_t since; /* the first version that has it; 0: all have */
    int measured;   /* another one in another run of the same: not in the digest */
};

/* The next one, from number *i on, that files of that version have, NULL after the last; *i is
 * moved behind it. What a version does not have is 0 when it is read, and not in its digest. */
const struct checkpoint_field *checkpoint_field_next(size_t *i, uint64_t version);

/* The groups of arrays, in file order: what tensors of a kind have at `member` of struct
 * checkpoint_tensor. A file without such arrays has no such group. Some have a digest of their own,
 * 65 bytes at `digest` of struct checkpoint_meta (0: they have not), empty where they have no
 * arrays.
 *
 * The state's digest is, from version 6 on, over the arrays of the groups that have none of their
 * own and then over the attributes, among which are the others'; before it was over the attributes
 * and then over all arrays. */
enum {
    CHECKPOINT_PARAMETERS,
    CHECKPOINT_M,
    CHECKPOINT_V,
    CHECKPOINT_BUFFERS,
    CHECKPOINT_CARRY,
    CHECKPOINT_GROUPS
};
struct checkpoint_group {
    const char *name;
    size_t member;
    enum checkpoint_kind kind;
    size_t digest;
};
enum { CHECKPOINT_VERSION_APART = 6 }; /* the first one whose groups have digests apart */
const struct checkpoint_group *checkpoint_group_at(int i); /* NULL after the last */

/* What the digest covers besides the arrays. */
void checkpoint_digest_meta(struct digest *d, const struct checkpoint_meta *meta, const char *model,
                            const char *results);

/* 1: the file is a state; 0: it is damaged, and *e says how; -1: nothing can be said. */
int checkpoint_verify(const char *path, struct checkpoint_meta *meta, struct err *e);

/* Name of the data set of tensor `t` in `group`. */
const char *checkpoint_array_name(char name[H5FILE_NAME_MAX + 1], const char *group,
                                  const struct checkpoint_tensor *t);

#endif
