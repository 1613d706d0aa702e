/* opened.h - can an `opened` message be true? It comes from another process and sizes memory.
 *
 * Checked before anything is derived from it: the arithmetic of rows, chunks and spans, the limit
 * of a span, and that every data set lies inside it, whole and apart from the others.
 */
#ifndef PROTO_OPENED_H
#define PROTO_OPENED_H

#include <stdint.h>

#include "proto/err.h"
#include "proto/msg.h"

/* 0, or -1 and a permanent *e that names what cannot be. */
int opened_check(const struct msg_opened *o, uint64_t span_bytes_limit, struct err *e);

/* Does a later description say what the first one did? 0, or -1 and a permanent *e with the
 * difference. */
int opened_agrees(const struct msg_opened *first, const struct msg_opened *now, struct err *e);

/* The data set of that name, or NULL. */
const struct msg_field_info *opened_field(const struct msg_opened *o, const char *name);

/* Of a field of tokens, or of what they weigh, those that follow another one of the row: the same
 * items from the second of each row on, one value fewer. */
void opened_following(struct msg_field_info *field);

/* Bytes from a span's beginning to the end of its last data set. */
uint64_t opened_span_bytes(const struct msg_opened *o);

/* Can a span begin at that byte of its slot (msg_ready)? It ends within span_bytes_max, and numbers
 * of 8 bytes stand where they may. */
int opened_offset_possible(const struct msg_opened *o, uint64_t offset);

/* CRC-32 of a delivered span: the items of each data set, in the order of o->fields. */
uint64_t opened_checksum(const struct msg_opened *o, const void *slot, uint64_t rows);

#endif
