/* msg.h - messages as structs, and the one codec.
 *
 * The structs come from messages.def: `struct msg_grant { struct msg_head head; uint64_t stream;
 * ... }`, strings as char arrays of bytes_max + 1, lists as an array and `<field>_count`. The codec
 * refuses before it unpacks: total length, nesting, types, number of keys, unknown, repeated and
 * missing keys, ranges and string lengths are checked on the raw bytes, since msgpack-c allocates
 * what a header claims. proto/msg.c is the only file that includes msgpack.h.
 */
#ifndef PROTO_MSG_H
#define PROTO_MSG_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "proto/err.h"

enum { MSG_BYTES_MAX = 65536 }; /* of one encoded map; larger ones are refused unread */

struct msg_head {
    uint64_t incarnation;
    uint64_t seq;
    double time_s;
};

/* struct msg_<record> and struct msg_<message> */
/* clang-format off */
#define RECORD(id, meaning)                    struct msg_##id {
#define MESSAGE(id, name, from, to, meaning)   struct msg_##id { struct msg_head head;
#define U64(id, field, max, meaning)           uint64_t field;
#define F64(id, field, meaning)                double field;
#define BOOL(id, field, meaning)               int field;
#define STR(id, field, bytes_max, meaning)     char field[(bytes_max) + 1];
#define LIST(id, field, record, count_max, meaning) \
    struct msg_##record field[count_max]; uint32_t field##_count;
#define END(id)                                };
#include "proto/messages.def"
/* clang-format on */

/* MSG_<id>: one constant a message, in the order of messages.def; MSG_COUNT of them. */
enum msg_type {
#define MESSAGE(id, name, from, to, meaning) MSG_##id,
#include "proto/messages.def"
    MSG_COUNT
};

/* Room for any message: `union msg m; ... m.grant.stream`; m.head is the head of whichever it is.
 */
union msg {
    struct msg_head head;
#define MESSAGE(id, name, from, to, meaning) struct msg_##id id;
#include "proto/messages.def"
};

/* Wire name of a message ("trainer.step"), borrowed for ever. */
const char *msg_name(enum msg_type type);

/* Type of a wire name of `length` bytes (no NUL needed), or -1. */
int msg_type_of(const char *name, size_t length);

/* Copy `text` into a message's string field, cut at a UTF-8 boundary if it does not fit; bytes that
 * are not UTF-8 become '?'. */
void msg_str(char *field, size_t field_bytes, const char *text);
#define MSG_STR(field, text) msg_str((field), sizeof(field), (text))

/* Encode *m (the struct of `type`) as one MessagePack map. Returns the bytes written; a message
 * that breaks its own limits or does not fit `capacity` is a bug (ensure). capacity MSG_BYTES_MAX
 * fits all. Bytes of a string that are not UTF-8 go out as '?'. */
size_t msg_encode(enum msg_type type, const void *m, void *buffer, size_t capacity);

/* Decode one map of exactly `bytes` bytes into *out. 0, or -1 and *e naming message, field and
 * reason; *out is then undefined. Never reads outside the buffer and never allocates more than
 * MSG_BYTES_MAX. */
int msg_decode(enum msg_type type, const void *data, size_t bytes, union msg *out, struct err *e);

/* Print *m as one JSON object {"topic": name, head fields, fields} and a newline. Non-finite
 * doubles are printed as null. */
void msg_print_json(FILE *out, enum msg_type type, const union msg *m);

/* Write the reference page of all messages (docs/MESSAGES.md), made from messages.def. */
void msg_print_docs(FILE *out);

#endif
