/* span.h - what stands in a slot: how many items each field has, and where those of a row are.
 *
 * A field has one item a row, or is ragged: then another field of the span, its pointer, says which
 * items are a row's. A pointer has one number more than the span has rows, of 8 bytes, and begins
 * with 0. A pointer in a slot is another process's word: it decides which bytes are read, so none
 * is believed beyond the field's items_max.
 */
#ifndef PROTO_SPAN_H
#define PROTO_SPAN_H

#include <stdint.h>

#include "proto/err.h"
#include "proto/msg.h"

enum { SPAN_FIELDS_MAX = sizeof((struct msg_opened){0}.fields) / sizeof(struct msg_field_info) };

/* The field of that name, or NULL. */
const struct msg_field_info *span_field(const struct msg_field_info *fields, uint32_t count,
                                        const char *name);

/* Does field `index` cut another one? */
int span_is_pointer(const struct msg_field_info *fields, uint32_t count, uint32_t index);

/* Items of `field` in the slot that holds a span of `rows` rows; never more than its items_max. */
uint64_t span_items(const struct msg_field_info *fields, uint32_t count,
                    const struct msg_field_info *field, const void *slot, uint64_t rows);

/* Do the pointers of a span begin with 0, never fall, and end within what they cut? 0, or -1 and a
 * permanent *e. */
int span_check(const struct msg_field_info *fields, uint32_t count, const void *slot, uint64_t rows,
               struct err *e);

/* rowhash_sum of the rows of a span that span_check accepts. */
uint64_t span_digest(const struct msg_field_info *fields, uint32_t count, const void *slot,
                     uint64_t rows);

#endif
