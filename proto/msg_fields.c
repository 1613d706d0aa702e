/* msg_fields.c - the tables that messages.def becomes, and look-ups in them.
 *
 * messages.def is read once for each kind of table: forward declarations of the shapes (a list
 * names the shape of its records), the fields of each shape, the shapes, and the shapes by message
 * type.
 */
#include "proto/msg_fields.h"

#include <string.h>

#define RECORD(id, text)                  static const struct msg_shape shape_##id;
#define MESSAGE(id, wire, from, to, text) static const struct msg_shape shape_##id;
#include "proto/messages.def"

#define HEAD(field, kind, limit, text)                                                             \
    {#field, kind, offsetof(struct msg_head, field), limit, NULL, 0, text},
#define HEAD_FIELDS                                                                                \
    HEAD(incarnation, MSG_KIND_U64, UINT64_MAX, "number of the sender's process start")            \
    HEAD(seq, MSG_KIND_U64, UINT64_MAX, "counts the sender's messages of this name, from 1")       \
    HEAD(time_s, MSG_KIND_F64, 0, "Unix time at the sender, seconds")

#define AT(id, field)                     offsetof(struct msg_##id, field)
#define RECORD(id, text)                  static const struct msg_field fields_##id[] = {
#define MESSAGE(id, wire, from, to, text) static const struct msg_field fields_##id[] = {HEAD_FIELDS
#define U64(id, field, max, text)         {#field, MSG_KIND_U64, AT(id, field), max, NULL, 0, text},
#define F64(id, field, text)              {#field, MSG_KIND_F64, AT(id, field), 0, NULL, 0, text},
#define BOOL(id, field, text)             {#field, MSG_KIND_BOOL, AT(id, field), 0, NULL, 0, text},
#define STR(id, field, bytes_max, text)                                                            \
    {#field, MSG_KIND_STR, AT(id, field), bytes_max, NULL, 0, text},
#define LIST(id, field, record, count_max, text)                                                   \
    {#field, MSG_KIND_LIST, AT(id, field), count_max, &shape_##record, AT(id, field##_count), text},
#define END(id)                                                                                    \
    }                                                                                              \
    ;
#include "proto/messages.def"

#define FIELDS(id) fields_##id, sizeof fields_##id / sizeof fields_##id[0]
#define RECORD(id, text)                                                                           \
    static const struct msg_shape shape_##id = {#id,  NULL,       NULL,                            \
                                                text, FIELDS(id), sizeof(struct msg_##id)};
#define MESSAGE(id, wire, from, to, text)                                                          \
    static const struct msg_shape shape_##id = {wire, from,       to,                              \
                                                text, FIELDS(id), sizeof(struct msg_##id)};
#define END(id) _Static_assert(sizeof fields_##id / sizeof fields_##id[0] <= MSG_FIELDS_MAX, #id);
#include "proto/messages.def"

static const struct msg_shape *const shapes[MSG_COUNT] = {
#define MESSAGE(id, wire, from, to, text) &shape_##id,
#include "proto/messages.def"
};

const struct msg_shape *msg_shape_of(enum msg_type type)
{
    ensure((unsigned)type < MSG_COUNT);
    return shapes[type];
}

const char *msg_name(enum msg_type type)
{
    return msg_shape_of(type)->name;
}

int msg_type_of(const char *name, size_t length)
{
    for (int type = 0; type < MSG_COUNT; type++)
        if (strlen(shapes[type]->name) == length && memcmp(shapes[type]->name, name, length) == 0)
            return type;
    return -1;
}

int msg_field_find(const struct msg_shape *shape, const char *name, size_t bytes)
{
    for (unsigned i = 0; i < shape->field_count; i++)
        if (strlen(shape->fields[i].name) == bytes &&
            memcmp(shape->fields[i].name, name, bytes) == 0)
            return (int)i;
    return -1;
}
