/* msg.c - the one codec: structs of messages.def to and from MessagePack maps, by msgpack-c.
 *
 * Encoding walks the fields of the message's shape and writes into the caller's buffer; nothing is
 * allocated. Decoding has msg_check.c walk the raw bytes first and lets msgpack-c unpack only what
 * passed; the fields are then copied out of its objects, which are freed before returning.
 */
#include "proto/msg.h"

#include <string.h>

#include <msgpack.h>

#include "proto/msg_fields.h"

struct sink {
    char *data;
    size_t bytes, capacity;
};

static int sink_write(void *context, const char *data, size_t bytes)
{
    struct sink *sink = context;
    ensure(bytes <= sink->capacity - sink->bytes);
    memcpy(sink->data + sink->bytes, data, bytes);
    sink->bytes += bytes;
    return 0;
}

/* Copies `bytes` bytes, those that are not UTF-8 as '?'. */
static void text_copy(char *out, const char *text, size_t bytes)
{
    for (size_t at = 0, step; at < bytes; at += step) {
        step = msg_utf8_bytes(text + at, bytes - at);
        if (step)
            memcpy(out + at, text + at, step);
        else
            out[at] = '?', step = 1;
    }
}

void msg_str(char *field, size_t field_bytes, const char *text)
{
    size_t bytes = strnlen(text, field_bytes);
    if (bytes == field_bytes) { /* does not fit: give up the sequence that the limit cuts */
        bytes--;
        while (bytes > 0 && ((unsigned char)text[bytes] & 0xc0) == 0x80)
            bytes--;
    }
    text_copy(field, text, bytes);
    field[bytes] = '\0';
}

static void string_encode(msgpack_packer *packer, const char *text, uint64_t bytes_max)
{
    struct sink *sink = packer->data;
    size_t bytes = strnlen(text, bytes_max + 1);
    ensure(bytes <= bytes_max);
    msgpack_pack_str(packer, bytes);
    ensure(bytes <= sink->capacity - sink->bytes);
    text_copy(sink->data + sink->bytes, text, bytes);
    sink->bytes += bytes;
}

static void map_encode(msgpack_packer *packer, const struct msg_shape *shape, const char *m);

static void field_encode(msgpack_packer *packer, const struct msg_field *field, const char *m)
{
    const void *at = m + field->offset;
    switch (field->kind) {
    case MSG_KIND_U64:
        ensure(*(const uint64_t *)at <= field->limit);
        msgpack_pack_uint64(packer, *(const uint64_t *)at);
        break;
    case MSG_KIND_F64:
        msgpack_pack_double(packer, *(const double *)at);
        break;
    case MSG_KIND_BOOL:
        *(const int *)at ? msgpack_pack_true(packer) : msgpack_pack_false(packer);
        break;
    case MSG_KIND_STR:
        string_encode(packer, at, field->limit);
        break;
    case MSG_KIND_LIST: {
        uint32_t count = *(const uint32_t *)(m + field->count_offset);
        ensure(count <= field->limit);
        msgpack_pack_array(packer, count);
        for (uint32_t i = 0; i < count; i++)
            map_encode(packer, field->record, (const char *)at + i * field->record->bytes);
        break;
    }
    }
}

static void map_encode(msgpack_packer *packer, const struct msg_shape *shape, const char *m)
{
    msgpack_pack_map(packer, shape->field_count);
    for (unsigned i = 0; i < shape->field_count; i++) {
        string_encode(packer, shape->fields[i].name, strlen(shape->fields[i].name));
        field_encode(packer, &shape->fields[i], m);
    }
}

size_t msg_encode(enum msg_type type, const void *m, void *buffer, size_t capacity)
{
    struct sink sink = {buffer, 0, capacity};
    msgpack_packer packer;
    msgpack_packer_init(&packer, &sink, sink_write);
    map_encode(&packer, msg_shape_of(type), m);
    ensure(sink.bytes <= MSG_BYTES_MAX);
    return sink.bytes;
}

static double number_decode(const msgpack_object *object)
{
    if (object->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
        return (double)object->via.u64;
    if (object->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        return (double)object->via.i64;
    return object->via.f64;
}

/* What msg_check.c let pass fits: types, lengths and counts are not looked at again here. */
static void map_decode(const msgpack_object *map, const struct msg_shape *shape, char *m);

static void field_decode(const msgpack_object *object, const struct msg_field *field, char *m)
{
    void *at = m + field->offset;
    switch (field->kind) {
    case MSG_KIND_U64:
        *(uint64_t *)at = object->via.u64;
        break;
    case MSG_KIND_F64:
        *(double *)at = number_decode(object);
        break;
    case MSG_KIND_BOOL:
        *(int *)at = object->via.boolean;
        break;
    case MSG_KIND_STR:
        memcpy(at, object->via.str.ptr, object->via.str.size); /* *out was zeroed */
        break;
    case MSG_KIND_LIST:
        *(uint32_t *)(m + field->count_offset) = object->via.array.size;
        for (uint32_t i = 0; i < object->via.array.size; i++)
            map_decode(&object->via.array.ptr[i], field->record,
                       (char *)at + i * field->record->bytes);
        break;
    }
}

static void map_decode(const msgpack_object *map, const struct msg_shape *shape, char *m)
{
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object_kv *pair = &map->via.map.ptr[i];
        int found = msg_field_find(shape, pair->key.via.str.ptr, pair->key.via.str.size);
        ensure(found >= 0);
        field_decode(&pair->val, &shape->fields[found], m);
    }
}

int msg_decode(enum msg_type type, const void *data, size_t bytes, union msg *out, struct err *e)
{
    const struct msg_shape *shape = msg_shape_of(type);
    if (msg_check(type, data, bytes, e) < 0)
        return -1;
    msgpack_unpacked unpacked;
    msgpack_unpacked_init(&unpacked);
    size_t offset = 0;
    msgpack_unpack_return result = msgpack_unpack_next(&unpacked, data, bytes, &offset);
    ensure(result == MSGPACK_UNPACK_SUCCESS || result == MSGPACK_UNPACK_NOMEM_ERROR);
    if (result == MSGPACK_UNPACK_SUCCESS) {
        memset(out, 0, shape->bytes);
        map_decode(&unpacked.data, shape, (char *)out);
    }
    msgpack_unpacked_destroy(&unpacked);
    if (result != MSGPACK_UNPACK_SUCCESS)
        return err_set(e, EXIT_CODE_TEMPORARY, "cannot decode message %s of %zu bytes: no memory",
                       shape->name, bytes);
    return 0;
}
