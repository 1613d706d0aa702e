/* safetensors_header.c - see safetensors.h: the JSON of the header, strictly.
 *
 * Only what the format has is a word here: objects whose values are objects, texts, whole numbers
 * and lists of those. The reader walks the text once with a cursor and never behind its end;
 * whatever does not fit is refused with its byte. Then the tensors are sorted by place (no hole, no
 * overlap) and by name (none twice).
 */
#include "proto/safetensors_private.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/msg_fields.h"

static const struct {
    const char *name;
    uint32_t bytes;
} types[SAFETENSORS_TYPE_COUNT] = {
    [SAFETENSORS_BOOL] = {"BOOL", 1},       [SAFETENSORS_U8] = {"U8", 1},
    [SAFETENSORS_I8] = {"I8", 1},           [SAFETENSORS_F8_E5M2] = {"F8_E5M2", 1},
    [SAFETENSORS_F8_E4M3] = {"F8_E4M3", 1}, [SAFETENSORS_I16] = {"I16", 2},
    [SAFETENSORS_U16] = {"U16", 2},         [SAFETENSORS_F16] = {"F16", 2},
    [SAFETENSORS_BF16] = {"BF16", 2},       [SAFETENSORS_I32] = {"I32", 4},
    [SAFETENSORS_U32] = {"U32", 4},         [SAFETENSORS_F32] = {"F32", 4},
    [SAFETENSORS_F64] = {"F64", 8},         [SAFETENSORS_I64] = {"I64", 8},
    [SAFETENSORS_U64] = {"U64", 8},
};

const char *safetensors_type_name(enum safetensors_type type)
{
    return types[type].name;
}

uint32_t safetensors_type_bytes(enum safetensors_type type)
{
    return types[type].bytes;
}

struct cursor {
    const char *begin, *at, *end;
    const char *path;
    struct err *e;
};

static int refuse(const struct cursor *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* -1, and a sentence that names the file and the byte of the header. */
static int refuse(const struct cursor *c, const char *format, ...)
{
    char what[512];
    va_list list;
    va_start(list, format);
    vsnprintf(what, sizeof what, format, list);
    va_end(list);
    return err_set(c->e, EXIT_CODE_PERMANENT, "the header of %s is not usable, byte %td: %s",
                   c->path, c->at - c->begin, what);
}

static void space_skip(struct cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
        c->at++;
}

/* 1 and past it if the next sign is `sign`. */
static int sign_take(struct cursor *c, char sign)
{
    space_skip(c);
    if (c->at == c->end || *c->at != sign)
        return 0;
    c->at++;
    return 1;
}

static int sign_need(struct cursor *c, char sign)
{
    return sign_take(c, sign) ? 0 : refuse(c, "'%c' is expected", sign);
}

/* After a value of a list or a map: 1: another one follows; 0: it was the last; -1. */
static int more(struct cursor *c, char close)
{
    if (sign_take(c, close))
        return 0;
    return sign_take(c, ',') ? 1 : refuse(c, "',' or '%c' is expected", close);
}

static int number_take(struct cursor *c, uint64_t *number)
{
    space_skip(c);
    const char *first = c->at;
    for (*number = 0; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++)
        if (__builtin_mul_overflow(*number, 10u, number) ||
            __builtin_add_overflow(*number, (uint64_t)(*c->at - '0'), number))
            return refuse(c, "the number is too large");
    int none = c->at == first || (*first == '0' && c->at - first > 1); /* 007 is no number */
    if (none || (c->at < c->end && strchr(".eE", *c->at)))
        return refuse(c, "a whole number from 0 is expected");
    return 0;
}

/* Four hexadecimal digits. */
static int unit_take(struct cursor *c, uint32_t *unit)
{
    *unit = 0;
    for (int i = 0; i < 4; i++, c->at++) {
        static const char digits[] = "0123456789abcdef";
        char lower = c->at < c->end ? (char)(*c->at | 0x20) : 0;
        const char *digit = lower ? strchr(digits, lower) : NULL;
        if (!digit || (*c->at < '0'))
            return refuse(c, "four hexadecimal digits are expected after \\u");
        *unit = *unit << 4 | (uint32_t)(digit - digits);
    }
    return 0;
}

/* The code point after "\u", of two units where the first is half of one. */
static int point_take(struct cursor *c, uint32_t *point)
{
    uint32_t low;
    if (unit_take(c, point) < 0)
        return -1;
    if (*point >= 0xd800 && *point < 0xdc00) {
        if (c->end - c->at < 2 || c->at[0] != '\\' || c->at[1] != 'u')
            return refuse(c, "half a character");
        c->at += 2;
        if (unit_take(c, &low) < 0)
            return -1;
        if (low < 0xdc00 || low > 0xdfff)
            return refuse(c, "half a character");
        *point = 0x10000 + ((*point - 0xd800) << 10) + (low - 0xdc00);
    } else if (*point == 0 || (*point >= 0xdc00 && *point < 0xe000)) {
        return refuse(c, "\\u%04x is no character", *point);
    }
    return 0;
}

static size_t point_write(uint32_t point, char to[4])
{
    if (point < 0x80) {
        to[0] = (char)point;
        return 1;
    }
    size_t bytes = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = bytes; --i > 0; point >>= 6)
        to[i] = (char)(0x80 | (point & 0x3f));
    to[0] = (char)(lead[bytes] | point);
    return bytes;
}

/* What stands for one character at the cursor, up to 4 bytes of UTF-8 into `to`; 0: refused. */
static size_t character_take(struct cursor *c, char to[4])
{
    static const char signs[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    uint32_t point;
    if (*c->at != '\\') {
        size_t bytes = msg_utf8_bytes(c->at, (size_t)(c->end - c->at));
        if (bytes == 0 || (unsigned char)*c->at < 0x20) {
            refuse(c, "a text of UTF-8 without control characters is expected");
            return 0;
        }
        memcpy(to, c->at, bytes);
        c->at += bytes;
        return bytes;
    }
    if (++c->at == c->end) {
        refuse(c, "the text has no end");
        return 0;
    }
    char sign = *c->at++;
    const char *place = sign ? strchr(signs, sign) : NULL;
    if (place) {
        to[0] = meant[place - signs];
        return 1;
    }
    if (sign != 'u') {
        refuse(c, "'\\' is followed by what JSON does not have there");
        return 0;
    }
    return point_take(c, &point) < 0 ? 0 : point_write(point, to);
}

/* A JSON string into `text`, at most `most` bytes and a NUL. */
static int text_take(struct cursor *c, char *text, size_t most)
{
    size_t used = 0, bytes;
    char character[4];
    if (sign_need(c, '"') < 0)
        return -1;
    while (c->at < c->end && *c->at != '"') {
        if ((bytes = character_take(c, character)) == 0)
            return -1;
        if (used + bytes > most)
            return refuse(c, "the text is longer than %zu bytes", most);
        memcpy(text + used, character, bytes);
        used += bytes;
    }
    text[used] = 0;
    return sign_need(c, '"');
}

/* ---- the maps ----------------------------------------------------------------------------------
 */

static int type_take(struct cursor *c, struct safetensor *t)
{
    char word[16];
    if (text_take(c, word, sizeof word - 1) < 0)
        return -1;
    for (int i = 0; i < SAFETENSORS_TYPE_COUNT; i++)
        if (strcmp(word, types[i].name) == 0) {
            t->type = (enum safetensors_type)i;
            return 0;
        }
    return refuse(c,
                  "tensor %s is of type %s; known are BOOL, U8, I8, F8_E5M2, F8_E4M3, I16, U16, "
                  "F16, BF16, I32, U32, F32, F64, I64, U64",
                  t->name, word);
}

static int shape_take(struct cursor *c, struct safetensor *t)
{
    int go_on = 1;
    if (sign_need(c, '[') < 0)
        return -1;
    if (sign_take(c, ']'))
        return 0;
    while (go_on) {
        if (t->rank == SAFETENSORS_RANK_MAX)
            return refuse(c, "tensor %s has more than %d dimensions", t->name,
                          SAFETENSORS_RANK_MAX);
        if (number_take(c, &t->dims[t->rank++]) < 0 || (go_on = more(c, ']')) < 0)
            return -1;
    }
    return 0;
}

static int offsets_take(struct cursor *c, struct safetensor *t)
{
    return sign_need(c, '[') < 0 || number_take(c, &t->first) < 0 || sign_need(c, ',') < 0 ||
                   number_take(c, &t->end) < 0 || sign_need(c, ']') < 0
               ? -1
               : 0;
}

/* Shape times type is what lies between the offsets, and that lies in the file. */
static int tensor_check(const struct cursor *c, const struct safetensors *s,
                        const struct safetensor *t)
{
    uint64_t bytes = types[t->type].bytes;
    for (int i = 0; i < t->rank; i++)
        if (__builtin_mul_overflow(bytes, t->dims[i], &bytes))
            return refuse(c, "tensor %s has more than 2^64 bytes", t->name);
    if (t->end > s->data_bytes || t->first > t->end)
        return refuse(c,
                      "tensor %s is said to be bytes %" PRIu64 " to %" PRIu64
                      " of the data, which are %" PRIu64 " bytes",
                      t->name, t->first, t->end, s->data_bytes);
    if (bytes != t->end - t->first)
        return refuse(c,
                      "tensor %s takes %" PRIu64
                      " bytes by its shape and type, its offsets are %" PRIu64 " apart",
                      t->name, bytes, t->end - t->first);
    return 0;
}

static int tensor_take(struct cursor *c, const struct safetensors *s, struct safetensor *t)
{
    static const struct {
        const char *key;
        int (*take)(struct cursor *c, struct safetensor *t);
    } members[] = {{"dtype", type_take}, {"shape", shape_take}, {"data_offsets", offsets_take}};
    enum { MEMBERS = sizeof members / sizeof members[0] };
    char key[16];
    int seen = 0, go_on = 1;
    if (sign_need(c, '{') < 0)
        return -1;
    while (go_on) {
        int i = 0;
        if (text_take(c, key, sizeof key - 1) < 0 || sign_need(c, ':') < 0)
            return -1;
        while (i < MEMBERS && strcmp(key, members[i].key) != 0)
            i++;
        if (i == MEMBERS || seen & 1 << i)
            return refuse(c, "%s of tensor %s is %s; a tensor has dtype, shape and data_offsets",
                          key, t->name, i == MEMBERS ? "unknown" : "there twice");
        seen |= 1 << i;
        if (members[i].take(c, t) < 0 || (go_on = more(c, '}')) < 0)
            return -1;
    }
    if (seen != (1 << MEMBERS) - 1)
        return refuse(c, "tensor %s lacks one of dtype, shape and data_offsets", t->name);
    return tensor_check(c, s, t);
}

/* At least the bytes of the text at the cursor. */
static size_t text_bytes_max(struct cursor *c)
{
    const char *at = c->at;
    for (int quotes = 0; at < c->end && (quotes += *at == '"') < 2; at++)
        if (*at == '\\' && c->end - at > 1)
            at++;
    return (size_t)(at - c->at);
}

/* One entry of __metadata__. Its text can be as long as the header. */
static int metadata_entry_take(struct cursor *c, struct safetensors *s)
{
    if (s->metadata_count == SAFETENSORS_METADATA_MAX)
        return refuse(c, "__metadata__ has more than %d entries", SAFETENSORS_METADATA_MAX);
    struct safetensors_text *entry = &s->metadata[s->metadata_count++];
    entry->key = malloc(SAFETENSORS_NAME_MAX + 1);
    entry->value = NULL;
    if (!entry->key)
        return err_set(c->e, EXIT_CODE_TEMPORARY, "no memory for the header of %s", c->path);
    if (text_take(c, entry->key, SAFETENSORS_NAME_MAX) < 0 || sign_need(c, ':') < 0)
        return -1;
    size_t most = text_bytes_max(c);
    entry->value = malloc(most + 1);
    if (!entry->value)
        return err_set(c->e, EXIT_CODE_TEMPORARY, "no memory for the header of %s", c->path);
    for (uint32_t i = 0; i + 1 < s->metadata_count; i++)
        if (strcmp(s->metadata[i].key, entry->key) == 0)
            return refuse(c, "__metadata__ has %s twice", entry->key);
    return text_take(c, entry->value, most);
}

static int metadata_take(struct cursor *c, struct safetensors *s)
{
    int go_on = 1;
    if (sign_need(c, '{') < 0)
        return -1;
    if (sign_take(c, '}'))
        return 0;
    while (go_on)
        if (metadata_entry_take(c, s) < 0 || (go_on = more(c, '}')) < 0)
            return -1;
    return 0;
}

/* A place for one more tensor, zeroed; NULL: refused. */
static struct safetensor *tensor_add(struct cursor *c, struct safetensors *s)
{
    if (s->count == SAFETENSORS_TENSORS_MAX) {
        refuse(c, "there are more than %d tensors", SAFETENSORS_TENSORS_MAX);
        return NULL;
    }
    if (s->count == s->room) {
        uint32_t room = s->room ? 2 * s->room : 64;
        struct safetensor *list = reallocarray(s->tensors, room, sizeof *list);
        if (!list) {
            err_set(c->e, EXIT_CODE_TEMPORARY, "no memory for the header of %s", c->path);
            return NULL;
        }
        s->tensors = list;
        s->room = room;
    }
    struct safetensor *t = &s->tensors[s->count++];
    memset(t, 0, sizeof *t);
    return t;
}

static int entry_take(struct cursor *c, struct safetensors *s, int *metadata_seen)
{
    char name[SAFETENSORS_NAME_MAX + 1];
    if (text_take(c, name, SAFETENSORS_NAME_MAX) < 0 || sign_need(c, ':') < 0)
        return -1;
    if (strcmp(name, "__metadata__") == 0)
        return (*metadata_seen)++ ? refuse(c, "__metadata__ is there twice") : metadata_take(c, s);
    struct safetensor *t = tensor_add(c, s);
    if (!t)
        return -1;
    strcpy(t->name, name);
    return tensor_take(c, s, t);
}

/* ---- all of them together ----------------------------------------------------------------------
 */

static int by_place(const void *a, const void *b)
{
    const struct safetensor *x = a, *y = b;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct safetensor *)a)->name, ((const struct safetensor *)b)->name);
}

static int tensors_check(const struct cursor *c, struct safetensors *s)
{
    uint64_t end = 0;
    if (s->count)
        qsort(s->tensors, s->count, sizeof *s->tensors, by_place);
    for (uint32_t i = 0; i < s->count; i++) {
        const struct safetensor *t = &s->tensors[i];
        if (t->first != end)
            return refuse(c, "tensor %s begins at byte %" PRIu64 " of the data, the %s at %" PRIu64,
                          t->name, t->first, i ? "one before it ends" : "data begin", end);
        end = t->end;
    }
    if (end != s->data_bytes)
        return refuse(c, "the tensors are %" PRIu64 " bytes, the file has %" PRIu64 " behind it",
                      end, s->data_bytes);
    if (s->count)
        qsort(s->tensors, s->count, sizeof *s->tensors, by_name);
    for (uint32_t i = 1; i < s->count; i++)
        if (by_name(&s->tensors[i - 1], &s->tensors[i]) == 0)
            return refuse(c, "tensor %s is there twice", s->tensors[i].name);
    return 0;
}

int safetensors_header_parse(struct safetensors *s, const char *text, uint64_t bytes, struct err *e)
{
    struct cursor c = {text, text, text + bytes, s->path, e};
    int metadata_seen = 0, go_on = 1;
    if (*c.at != '{') /* the format: no space before it */
        return refuse(&c, "'{' is expected");
    c.at++;
    if (sign_take(&c, '}'))
        go_on = 0;
    while (go_on)
        if (entry_take(&c, s, &metadata_seen) < 0 || (go_on = more(&c, '}')) < 0)
            return -1;
    space_skip(&c);
    if (c.at != c.end)
        return refuse(&c, "the header goes on after its end");
    return tensors_check(&c, s);
}

/* ---- writing -----------------------------------------------------------------------------------
 */

static void text_write(FILE *out, const char *text)
{
    putc('"', out);
    for (const unsigned char *s = (const unsigned char *)text; *s; s++) {
        if (*s == '"' || *s == '\\')
            putc('\\', out);
        if (*s < 0x20)
            fprintf(out, "\\u%04x", *s);
        else
            putc(*s, out);
    }
    putc('"', out);
}

static void metadata_write(FILE *out, const struct safetensors_text *metadata, uint32_t count)
{
    fputs("\"__metadata__\":{", out);
    for (uint32_t i = 0; i < count; i++) {
        fputs(i ? "," : "", out);
        text_write(out, metadata[i].key);
        putc(':', out);
        text_write(out, metadata[i].value);
    }
    putc('}', out);
}

/* Returns where the tensor's bytes end. */
static uint64_t tensor_write(FILE *out, const struct safetensors_source *t, uint64_t first)
{
    uint64_t bytes = types[t->type].bytes;
    text_write(out, t->name);
    fprintf(out, ":{\"dtype\":\"%s\",\"shape\":[", types[t->type].name);
    for (int i = 0; i < t->rank; i++) {
        fprintf(out, "%s%" PRIu64, i ? "," : "", t->dims[i]);
        bytes *= t->dims[i];
    }
    fprintf(out, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", first, first + bytes);
    return first + bytes;
}

char *safetensors_header_make(const struct safetensors_source *sources, uint32_t count,
                              const struct safetensors_text *metadata, uint32_t metadata_count,
                              size_t *bytes)
{
    char *text = NULL;
    uint64_t end = 0;
    FILE *out = open_memstream(&text, bytes);
    if (!out)
        return NULL;
    putc('{', out);
    if (metadata_count)
        metadata_write(out, metadata, metadata_count);
    for (uint32_t i = 0; i < count; i++) {
        fputs(i || metadata_count ? "," : "", out);
        end = tensor_write(out, &sources[i], end);
    }
    putc('}', out);
    for (long at = ftell(out); at >= 0 && (8 + at) % 64 != 0; at++)
        putc(' ', out);
    int failed = ferror(out);
    if (fclose(out) == 0 && !failed)
        return text;
    free(text);
    return NULL;
}
