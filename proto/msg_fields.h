/* msg_fields.h - messages.def as tables: what the codec, the check, the printer and the tests walk.
 *
 * A shape is a message or a record: its fields in the order of messages.def, the three head fields
 * first if it is a message. Only proto/msg*.c, what else must know UTF-8, and the tests of the
 * codec include this.
 */
#ifndef PROTO_MSG_FIELDS_H
#define PROTO_MSG_FIELDS_H

#include "proto/msg.h"

enum msg_kind { MSG_KIND_U64, MSG_KIND_F64, MSG_KIND_BOOL, MSG_KIND_STR, MSG_KIND_LIST };

enum { MSG_FIELDS_MAX = 64 }; /* of a shape: the fields seen are bits of a word */

struct msg_shape;

struct msg_field {
    const char *name;
    enum msg_kind kind;
    size_t offset;                  /* in its struct */
    uint64_t limit;                 /* U64: largest value; STR: most bytes; LIST: most elements */
    const struct msg_shape *record; /* LIST: shape of an element */
    size_t count_offset;            /* LIST: where its uint32_t count is */
    const char *meaning;
};

struct msg_shape {
    const char *name, *from, *to, *meaning; /* from, to: NULL for a record */
    const struct msg_field *fields;
    unsigned field_count;
    size_t bytes; /* of its struct */
};

const struct msg_shape *msg_shape_of(enum msg_type type);

/* Index of the field called `name` (`bytes` long), or -1. */
int msg_field_find(const struct msg_shape *shape, const char *name, size_t bytes);

/* Check the raw encoding of one message without allocating: 0, or -1 and *e (permanent). What
 * passes holds exactly the declared keys once each (those that earlier versions did not have may be
 * missing), with values inside their limits. */
int msg_check(enum msg_type type, const void *data, size_t bytes, struct err *e);

/* Bytes of the UTF-8 sequence that `text` begins with (1 to 4), or 0 if it begins with none. */
size_t msg_utf8_bytes(const char *text, size_t bytes);

#endif
