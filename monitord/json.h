/* json.h - writes one JSON value to a stream, always valid.
 *
 * Usage: json_begin, then values: inside an object each has a key, inside a list key is NULL.
 * Containers are closed by json_end in the order they were opened; json_finish checks that all are.
 * Numbers that JSON does not have (NaN, infinities) become null; bytes that are no UTF-8 become
 * U+FFFD. Nothing here allocates.
 */
#ifndef MONITORD_JSON_H
#define MONITORD_JSON_H

#include <stdint.h>
#include <stdio.h>

enum { JSON_DEPTH_MAX = 16 };

struct json {
    FILE *out;
    int depth;
    struct json_level {
        char close; /* '}' or ']' */
        int count;  /* values written so far */
        int flat;   /* on one line */
    } level[JSON_DEPTH_MAX];
};

void json_begin(struct json *j, FILE *out);
void json_finish(struct json *j); /* ends with a newline */

void json_object(struct json *j, const char *key);
void json_list(struct json *j, const char *key);
void json_object_flat(struct json *j, const char *key); /* on one line, with all it contains */
void json_list_flat(struct json *j, const char *key);
void json_end(struct json *j);

void json_str(struct json *j, const char *key, const char *value); /* NULL: null */
void json_u64(struct json *j, const char *key, uint64_t value);
void json_f64(struct json *j, const char *key, double value); /* reads back to the same double */
void json_number(FILE *out, double value); /* a finite one as json_f64 writes it, and that alone */
void json_fixed(struct json *j, const char *key, double value, int decimals);
void json_bool(struct json *j, const char *key, int value);
/* Where the value is to be written that comes next: one of valid JSON, by somebody else. */
FILE *json_value(struct json *j, const char *key);
void json_null(struct json *j, const char *key);

#endif
