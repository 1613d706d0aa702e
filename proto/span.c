/* span.c - see span.h. */
#include "proto/span.h"

#include <inttypes.h>
#include <string.h>

#include "proto/rowhash.h"

const struct msg_field_info *span_field(const struct msg_field_info *fields, uint32_t count,
                                        const char *name)
{
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(fields[i].name, name) == 0)
            return &fields[i];
    return NULL;
}

int span_is_pointer(const struct msg_field_info *fields, uint32_t count, uint32_t index)
{
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(fields[i].pointer, fields[index].name) == 0)
            return 1;
    return 0;
}

/* The numbers that cut `field`; NULL: it has an item a row. */
static const uint64_t *pointer_of(const struct msg_field_info *fields, uint32_t count,
                                  const struct msg_field_info *field, const void *slot)
{
    if (!field->pointer[0])
        return NULL;
    const struct msg_field_info *pointer = span_field(fields, count, field->pointer);
    ensure(pointer && pointer->row_bytes == sizeof(uint64_t));
    return (const uint64_t *)((const char *)slot + pointer->offset);
}

uint64_t span_items(const struct msg_field_info *fields, uint32_t count,
                    const struct msg_field_info *field, const void *slot, uint64_t rows)
{
    const uint64_t *pointer = pointer_of(fields, count, field, slot);
    uint64_t items = rows;
    if (pointer)
        items = pointer[rows];
    else if (span_is_pointer(fields, count, (uint32_t)(field - fields)))
        items = rows + 1;
    return items < field->items_max ? items : field->items_max;
}

int span_check(const struct msg_field_info *fields, uint32_t count, const void *slot, uint64_t rows,
               struct err *e)
{
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t *pointer = pointer_of(fields, count, &fields[i], slot);
        if (!pointer)
            continue;
        uint64_t at = 0, row = 0, next = pointer[0];
        if (next == 0)
            while (row < rows && (next = pointer[row + 1]) >= at && next <= fields[i].items_max) {
                at = next;
                row++;
            }
        if (next != at)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "%s of a span says that the items of row %" PRIu64 " end at %" PRIu64
                           ", which is not within %" PRIu64 " to %" PRIu64
                           ", the items of %s that are left",
                           fields[i].pointer, row, next, at, fields[i].items_max, fields[i].name);
    }
    return 0;
}

uint64_t span_digest(const struct msg_field_info *fields, uint32_t count, const void *slot,
                     uint64_t rows)
{
    struct rowhash_field hashed[SPAN_FIELDS_MAX];
    uint32_t used = 0;
    for (uint32_t i = 0; i < count; i++)
        if (!span_is_pointer(fields, count, i)) /* where rows begin is an affair of the span */
            hashed[used++] =
                (struct rowhash_field){(const char *)slot + fields[i].offset, fields[i].row_bytes,
                                       pointer_of(fields, count, &fields[i], slot)};
    return rowhash_sum(hashed, used, rows);
}
