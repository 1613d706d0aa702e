/* msg_check.c - looks at the raw bytes of a message before msgpack-c may unpack them.
 *
 * msgpack-c allocates what a header claims (five bytes can ask for 137 GB) and knows nothing of our
 * limits. So each byte is walked here first, guided by the message's shape: a value of another kind
 * than declared ends the walk at once, so nesting is never deeper than the declaration, and nothing
 * is allocated. The order of keys is free; integers are accepted where a double is declared.
 */
#include "proto/msg_fields.h"

#include <inttypes.h>
#include <string.h>

enum token_kind {
    TOKEN_INVALID,
    TOKEN_NIL,
    TOKEN_BOOL,
    TOKEN_BINARY,
    TOKEN_EXTENSION,
    TOKEN_FLOAT,
    TOKEN_UNSIGNED,
    TOKEN_SIGNED, /* negative: a non-negative one is given out as TOKEN_UNSIGNED */
    TOKEN_STRING,
    TOKEN_ARRAY,
    TOKEN_MAP,
};

static const char *const token_names[] = {
    [TOKEN_INVALID] = "an invalid byte",
    [TOKEN_NIL] = "nil",
    [TOKEN_BOOL] = "a boolean",
    [TOKEN_BINARY] = "binary data",
    [TOKEN_EXTENSION] = "an extension",
    [TOKEN_FLOAT] = "a floating-point number",
    [TOKEN_UNSIGNED] = "a whole number",
    [TOKEN_SIGNED] = "a negative number",
    [TOKEN_STRING] = "a string",
    [TOKEN_ARRAY] = "a list",
    [TOKEN_MAP] = "a map",
};

/* First bytes 0xc0 to 0xdf: what follows, and how many bytes its value or length has. */
static const struct {
    uint8_t kind, bytes;
} token_formats[32] = {
    {TOKEN_NIL, 0},       {TOKEN_INVALID, 0},   {TOKEN_BOOL, 0},      {TOKEN_BOOL, 0},
    {TOKEN_BINARY, 1},    {TOKEN_BINARY, 2},    {TOKEN_BINARY, 4},    {TOKEN_EXTENSION, 1},
    {TOKEN_EXTENSION, 2}, {TOKEN_EXTENSION, 4}, {TOKEN_FLOAT, 4},     {TOKEN_FLOAT, 8},
    {TOKEN_UNSIGNED, 1},  {TOKEN_UNSIGNED, 2},  {TOKEN_UNSIGNED, 4},  {TOKEN_UNSIGNED, 8},
    {TOKEN_SIGNED, 1},    {TOKEN_SIGNED, 2},    {TOKEN_SIGNED, 4},    {TOKEN_SIGNED, 8},
    {TOKEN_EXTENSION, 0}, {TOKEN_EXTENSION, 0}, {TOKEN_EXTENSION, 0}, {TOKEN_EXTENSION, 0},
    {TOKEN_EXTENSION, 0}, {TOKEN_STRING, 1},    {TOKEN_STRING, 2},    {TOKEN_STRING, 4},
    {TOKEN_ARRAY, 2},     {TOKEN_ARRAY, 4},     {TOKEN_MAP, 2},       {TOKEN_MAP, 4},
};

struct token {
    enum token_kind kind;
    uint64_t number;  /* value of TOKEN_UNSIGNED; bytes of a string; elements of an array or map */
    const char *text; /* TOKEN_STRING: inside the message, all there */
};

struct walk {
    const unsigned char *at, *end;
    const char *message, *field; /* for sentences; field "" outside of any */
    struct err *e;
};

#define REFUSE(w, format, ...)                                                                     \
    err_set((w)->e, EXIT_CODE_PERMANENT, "message %s refused: %s%s" format, (w)->message,          \
            *(w)->field ? "field " : "it", (w)->field, ##__VA_ARGS__)

size_t msg_utf8_bytes(const char *text, size_t bytes)
{
    const unsigned char *s = (const unsigned char *)text;
    if (bytes == 0 || (s[0] >= 0x80 && s[0] < 0xc2) || s[0] > 0xf4)
        return 0; /* continuation bytes, overlong forms of ASCII, beyond U+10FFFF */
    size_t need = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (need > bytes)
        return 0;
    for (size_t i = 1; i < need; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    int overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    int surrogate = s[0] == 0xed && s[1] >= 0xa0;
    int beyond = s[0] == 0xf4 && s[1] >= 0x90;
    return overlong || surrogate || beyond ? 0 : need;
}

static int string_take(struct walk *w, struct token *t)
{
    if (t->number > (uint64_t)(w->end - w->at))
        return REFUSE(w, " claims a string of %" PRIu64 " bytes, of which %zu are there", t->number,
                      (size_t)(w->end - w->at));
    t->text = (const char *)w->at;
    w->at += t->number;
    return 0;
}

/* Reads one token: a whole scalar or string, or the header of an array or map. */
static int token_take(struct walk *w, struct token *t)
{
    if (w->at == w->end)
        return REFUSE(w, " is cut off at the end of the message");
    unsigned first = *w->at++, bytes = 0;
    *t = (struct token){.kind = TOKEN_UNSIGNED, .number = first};
    if (first >= 0xe0) {
        t->kind = TOKEN_SIGNED;
    } else if (first >= 0xc0) {
        t->kind = token_formats[first - 0xc0].kind;
        bytes = token_formats[first - 0xc0].bytes;
    } else if (first >= 0x80) {
        t->kind = first < 0x90 ? TOKEN_MAP : first < 0xa0 ? TOKEN_ARRAY : TOKEN_STRING;
        t->number = first & (first < 0xa0 ? 0x0f : 0x1f);
    }
    if (bytes > (size_t)(w->end - w->at))
        return REFUSE(w, " is cut off at the end of the message");
    if (bytes)
        t->number = 0;
    for (unsigned i = 0; i < bytes; i++)
        t->number = t->number << 8 | *w->at++;
    if (t->kind == TOKEN_SIGNED && bytes && !(t->number >> (8 * bytes - 1)))
        t->kind = TOKEN_UNSIGNED;
    return t->kind == TOKEN_STRING ? string_take(w, t) : 0;
}

static int kind_refuse(struct walk *w, const struct token *t, const char *wanted)
{
    return REFUSE(w, " is %s; %s is accepted", token_names[t->kind], wanted);
}

static int string_check(struct walk *w, const struct token *t, uint64_t bytes_max)
{
    if (t->kind != TOKEN_STRING)
        return kind_refuse(w, t, "a string");
    if (t->number > bytes_max)
        return REFUSE(w, " has %" PRIu64 " bytes; at most %" PRIu64 " are accepted", t->number,
                      bytes_max);
    for (size_t at = 0, step; at < t->number; at += step) {
        step = msg_utf8_bytes(t->text + at, t->number - at);
        if (step == 0 || t->text[at] == '\0')
            return REFUSE(w, " has a byte 0x%02x at %zu; UTF-8 without zero bytes is accepted",
                          (unsigned char)t->text[at], at);
    }
    return 0;
}

static int map_check(struct walk *w, const struct msg_shape *shape);

static int list_check(struct walk *w, const struct token *t, const struct msg_field *field)
{
    if (t->kind != TOKEN_ARRAY)
        return kind_refuse(w, t, "a list");
    if (t->number > field->limit)
        return REFUSE(w, " has %" PRIu64 " elements; at most %" PRIu64 " are accepted", t->number,
                      field->limit);
    for (uint64_t i = 0; i < t->number; i++)
        if (map_check(w, field->record) < 0)
            return -1;
    return 0;
}

static int value_check(struct walk *w, const struct msg_field *field)
{
    struct token t;
    w->field = field->name;
    if (token_take(w, &t) < 0)
        return -1;
    switch (field->kind) {
    case MSG_KIND_U64:
        if (t.kind != TOKEN_UNSIGNED)
            return kind_refuse(w, &t, "a whole number from 0 on");
        if (t.number > field->limit)
            return REFUSE(w, " is %" PRIu64 "; at most %" PRIu64 " is accepted", t.number,
                          field->limit);
        return 0;
    case MSG_KIND_F64:
        if (t.kind != TOKEN_FLOAT && t.kind != TOKEN_UNSIGNED && t.kind != TOKEN_SIGNED)
            return kind_refuse(w, &t, "a number");
        return 0;
    case MSG_KIND_BOOL:
        return t.kind == TOKEN_BOOL ? 0 : kind_refuse(w, &t, "a boolean");
    case MSG_KIND_STR:
        return string_check(w, &t, field->limit);
    case MSG_KIND_LIST:
        return list_check(w, &t, field);
    }
    ensure(!"a kind of field without a check");
    return -1;
}

/* Reads one key, finds its field and marks it in *seen. Returns the field's index, or -1. */
static int key_check(struct walk *w, const struct msg_shape *shape, uint64_t *seen)
{
    struct token key;
    w->field = "";
    if (token_take(w, &key) < 0)
        return -1;
    if (key.kind != TOKEN_STRING)
        return REFUSE(w, " has a key that is %s; names of fields are accepted",
                      token_names[key.kind]);
    int found = msg_field_find(shape, key.text, key.number);
    if (found < 0)
        return REFUSE(w, " has an unknown key of %" PRIu64 " bytes in %s", key.number, shape->name);
    w->field = shape->fields[found].name;
    if (*seen >> found & 1)
        return REFUSE(w, " is there twice");
    *seen |= 1ull << found;
    return found;
}

/* Fields that journals of earlier versions lack; they are 0 or empty then. */
static int is_of_later(const char *message, const char *field)
{
    static const char *const later[][2] = {{"event.device", "bus"}, {"memory.advice", "stage"}};
    int is = 0;
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        is |= strcmp(later[i][0], message) == 0 && strcmp(later[i][1], field) == 0;
    return is;
}

static int map_check(struct walk *w, const struct msg_shape *shape)
{
    struct token t;
    uint64_t seen = 0;
    if (token_take(w, &t) < 0)
        return -1;
    if (t.kind != TOKEN_MAP)
        return kind_refuse(w, &t, "a map");
    if (t.number > shape->field_count)
        return REFUSE(w, " is a map of %" PRIu64 " keys; %s has %u", t.number, shape->name,
                      shape->field_count);
    for (uint64_t i = 0; i < t.number; i++) {
        int found = key_check(w, shape, &seen);
        if (found < 0 || value_check(w, &shape->fields[found]) < 0)
            return -1;
    }
    for (unsigned i = 0; i < shape->field_count; i++) {
        w->field = shape->fields[i].name;
        if (!(seen >> i & 1) && !is_of_later(shape->name, w->field))
            return REFUSE(w, " is missing");
    }
    return 0;
}

int msg_check(enum msg_type type, const void *data, size_t bytes, struct err *e)
{
    struct walk w = {data, (const unsigned char *)data + bytes, msg_name(type), "", e};
    if (bytes > MSG_BYTES_MAX)
        return REFUSE(&w, " has %zu bytes; at most %d are accepted", bytes, MSG_BYTES_MAX);
    if (map_check(&w, msg_shape_of(type)) < 0)
        return -1;
    w.field = "";
    if (w.at != w.end)
        return REFUSE(&w, " has %zu bytes behind its map; none is accepted",
                      (size_t)(w.end - w.at));
    return 0;
}
