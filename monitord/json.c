/* json.c - writes JSON; see json.h. Used for the report and the memory profile. */
#include "monitord/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "proto/err.h"

/* Bytes of the well-formed UTF-8 sequence at s (RFC 3629), or 0. The NUL at the end ends a sequence
 * too. */
static int utf8_length(const unsigned char *s)
{
    static const struct {
        unsigned char first_low, first_high, second_low, second_high;
        int bytes;
    } forms[] = {
        {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
        {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4},
        {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    if (*s < 0x80)
        return 1;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (*s < forms[i].first_low || *s > forms[i].first_high)
            continue;
        if (s[1] < forms[i].second_low || s[1] > forms[i].second_high)
            return 0;
        for (int k = 2; k < forms[i].bytes; k++)
            if ((s[k] & 0xc0) != 0x80)
                return 0;
        return forms[i].bytes;
    }
    return 0;
}

static void text_write(FILE *out, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    fputc('"', out);
    while (*s) {
        int bytes = utf8_length(s);
        if (bytes == 0) {
            fputs("\\ufffd", out);
            bytes = 1;
        } else if (*s == '"' || *s == '\\') {
            fprintf(out, "\\%c", *s);
        } else if (*s < 0x20 || *s == 0x7f) {
            fprintf(out, "\\u%04x", *s);
        } else {
            fwrite(s, 1, (size_t)bytes, out);
        }
        s += bytes;
    }
    fputc('"', out);
}

static void line_begin(struct json *j)
{
    fprintf(j->out, "\n%*s", 2 * j->depth, "");
}

/* Comma, new line and key before a value. */
static void value_begin(struct json *j, const char *key)
{
    if (j->depth == 0) {
        ensure(!key);
        return;
    }
    struct json_level *level = &j->level[j->depth - 1];
    ensure(!!key == (level->close == '}'));
    if (level->count++)
        fputs(level->flat ? ", " : ",", j->out);
    if (!level->flat)
        line_begin(j);
    if (key) {
        text_write(j->out, key);
        fputs(": ", j->out);
    }
}

static void container_begin(struct json *j, const char *key, char open, char close, int flat)
{
    value_begin(j, key);
    ensure(j->depth < JSON_DEPTH_MAX);
    fputc(open, j->out);
    flat |= j->depth && j->level[j->depth - 1].flat;
    j->level[j->depth++] = (struct json_level){.close = close, .flat = flat};
}

void json_begin(struct json *j, FILE *out)
{
    *j = (struct json){.out = out};
}

void json_finish(struct json *j)
{
    ensure(j->depth == 0);
    fputc('\n', j->out);
}

void json_object(struct json *j, const char *key)
{
    container_begin(j, key, '{', '}', 0);
}

void json_list(struct json *j, const char *key)
{
    container_begin(j, key, '[', ']', 0);
}

void json_object_flat(struct json *j, const char *key)
{
    container_begin(j, key, '{', '}', 1);
}

void json_list_flat(struct json *j, const char *key)
{
    container_begin(j, key, '[', ']', 1);
}

void json_end(struct json *j)
{
    ensure(j->depth > 0);
    struct json_level level = j->level[--j->depth];
    if (level.count && !level.flat)
        line_begin(j);
    fputc(level.close, j->out);
}

void json_str(struct json *j, const char *key, const char *value)
{
    if (!value) {
        json_null(j, key);
        return;
    }
    value_begin(j, key);
    text_write(j->out, value);
}

FILE *json_value(struct json *j, const char *key)
{
    value_begin(j, key);
    return j->out;
}

void json_u64(struct json *j, const char *key, uint64_t value)
{
    value_begin(j, key);
    fprintf(j->out, "%" PRIu64, value);
}

void json_number(FILE *out, double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.15g", value);
    if (strtod(text, NULL) != value)
        snprintf(text, sizeof text, "%.17g", value);
    fputs(text, out);
}

void json_f64(struct json *j, const char *key, double value)
{
    if (!isfinite(value)) {
        json_null(j, key);
        return;
    }
    value_begin(j, key);
    json_number(j->out, value);
}

void json_fixed(struct json *j, const char *key, double value, int decimals)
{
    if (!isfinite(value)) {
        json_null(j, key);
        return;
    }
    value_begin(j, key);
    fprintf(j->out, "%.*f", decimals, value);
}

void json_bool(struct json *j, const char *key, int value)
{
    value_begin(j, key);
    fputs(value ? "true" : "false", j->out);
}

void json_null(struct json *j, const char *key)
{
    value_begin(j, key);
    fputs("null", j->out);
}
