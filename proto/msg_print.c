/* msg_print.c - messages for people: JSON lines (tap) and the reference page docs/MESSAGES.md. */
#include "proto/msg_fields.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void string_print(FILE *out, const char *text)
{
    putc('"', out);
    for (const unsigned char *s = (const unsigned char *)text; *s; s++) {
        if (*s == '"' || *s == '\\')
            fprintf(out, "\\%c", *s);
        else if (*s == '\n')
            fputs("\\n", out);
        else if (*s < 0x20 || *s == 0x7f)
            fprintf(out, "\\u%04x", *s);
        else
            putc(*s, out);
    }
    putc('"', out);
}

/* The shortest of 15 to 17 digits that reads back as the same double. */
static void double_print(FILE *out, double value)
{
    char text[32];
    if (!isfinite(value)) {
        fputs("null", out);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    fputs(text, out);
}

static void fields_print(FILE *out, const struct msg_shape *shape, const char *m, int first);

static void value_print(FILE *out, const struct msg_field *field, const char *m)
{
    const void *at = m + field->offset;
    switch (field->kind) {
    case MSG_KIND_U64:
        fprintf(out, "%" PRIu64, *(const uint64_t *)at);
        break;
    case MSG_KIND_F64:
        double_print(out, *(const double *)at);
        break;
    case MSG_KIND_BOOL:
        fputs(*(const int *)at ? "true" : "false", out);
        break;
    case MSG_KIND_STR:
        string_print(out, at);
        break;
    case MSG_KIND_LIST: {
        uint32_t count = *(const uint32_t *)(m + field->count_offset);
        putc('[', out);
        for (uint32_t i = 0; i < count; i++) {
            fputs(i ? ", {" : "{", out);
            fields_print(out, field->record, (const char *)at + i * field->record->bytes, 1);
            putc('}', out);
        }
        putc(']', out);
        break;
    }
    }
}

static void fields_print(FILE *out, const struct msg_shape *shape, const char *m, int first)
{
    for (unsigned i = 0; i < shape->field_count; i++) {
        fprintf(out, "%s\"%s\": ", i == 0 && first ? "" : ", ", shape->fields[i].name);
        value_print(out, &shape->fields[i], m);
    }
}

void msg_print_json(FILE *out, enum msg_type type, const union msg *m)
{
    const struct msg_shape *shape = msg_shape_of(type);
    fprintf(out, "{\"topic\": \"%s\"", shape->name);
    fields_print(out, shape, (const char *)m, 0);
    fputs("}\n", out);
}

static void number_document(FILE *out, uint64_t limit)
{
    unsigned bit = 0;
    while (bit < 63 && 1ull << bit < limit)
        bit++;
    if (limit == UINT64_MAX)
        fputs("0 to 2^64 - 1", out);
    else if (limit > 65536 && limit == 1ull << bit)
        fprintf(out, "0 to 2^%u", bit);
    else
        fprintf(out, "0 to %" PRIu64, limit);
}

static void field_document(FILE *out, const struct msg_field *field)
{
    fprintf(out, "| `%s` | ", field->name);
    switch (field->kind) {
    case MSG_KIND_U64:
        fputs("whole number, ", out);
        number_document(out, field->limit);
        break;
    case MSG_KIND_F64:
        fputs("double", out);
        break;
    case MSG_KIND_BOOL:
        fputs("boolean", out);
        break;
    case MSG_KIND_STR:
        fprintf(out, "string, at most %" PRIu64 " bytes", field->limit);
        break;
    case MSG_KIND_LIST:
        fprintf(out, "list of at most %" PRIu64 " `%s`", field->limit, field->record->name);
        break;
    }
    fprintf(out, " | %s |\n", field->meaning);
}

static void table_document(FILE *out, const struct msg_field *fields, unsigned count)
{
    fputs("\n| field | type | meaning |\n|---|---|---|\n", out);
    for (unsigned i = 0; i < count; i++)
        field_document(out, &fields[i]);
}

/* Does a field before it have the same record, which is then described already? */
static int is_described(const struct msg_shape *shape, unsigned field)
{
    unsigned i = 0;
    while (shape->fields[i].record != shape->fields[field].record)
        i++;
    return i < field;
}

static void shape_document(FILE *out, const struct msg_shape *shape)
{
    const unsigned head = 3; /* described once for all at the top of the page */
    fprintf(out, "\n## `%s`\n\n%s to %s: %s.\n", shape->name, shape->from, shape->to,
            shape->meaning);
    if (shape->field_count > head)
        table_document(out, shape->fields + head, shape->field_count - head);
    for (unsigned i = head; i < shape->field_count; i++) {
        const struct msg_shape *record = shape->fields[i].record;
        if (!record || is_described(shape, i))
            continue;
        fprintf(out, "\nA `%s` is %s:\n", record->name, record->meaning);
        table_document(out, record->fields, record->field_count);
    }
}

void msg_print_docs(FILE *out)
{
    fputs(
        "# Messages\n\n"
        "Made from `proto/messages.def` by `make docs`; do not edit.\n\n"
        "A message is two ZeroMQ frames: its name, then one MessagePack map with exactly the "
        "fields\n"
        "below, in any order. Integers are accepted where a double is declared; strings are "
        "UTF-8.\n"
        "A map has at most 65,536 bytes. What breaks a limit is refused before it is unpacked.\n\n"
        "Every map also has the three head fields:\n",
        out);
    table_document(out, msg_shape_of(0)->fields, 3);
    for (int type = 0; type < MSG_COUNT; type++)
        shape_document(out, msg_shape_of((enum msg_type)type));
}
