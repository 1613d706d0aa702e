/* options_value.c - one option's text to its checked value, and back.
 *
 * The texts come from YAML scalars and from --set alike, so both accept the same. What is stricter
 * than strtod and strtoull is so on purpose: a leading zero, a hexadecimal number or "1_000" mean
 * different things to different YAML readers.
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "proto/options_parts.h"

enum { STORE_NO_MEMORY = -2, CHOICE_TEXT_MAX = 128 };

int origin_error(struct origin at, struct err *e, const char *format, ...)
{
    char sentence[sizeof((struct err *)0)->text];
    if (!e)
        return -1;
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    if (at.line > 0)
        err_set(e, EXIT_CODE_PERMANENT, "%.300s:%d: %s", at.source, at.line, sentence);
    else
        err_set(e, EXIT_CODE_PERMANENT, "%.300s: %s", at.source, sentence);
    for (char *c = e->text; *c; c++) /* a --set text may hold anything */
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    return -1;
}

const char *text_show(const char *text, char shown[SHOWN_BYTES])
{
    size_t i = 0;
    for (; text[i] && i < SHOWN_BYTES - 4; i++)
        shown[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
    strcpy(shown + i, text[i] ? "..." : "");
    return shown;
}

static void *field_of(const struct option_row *row, const void *base)
{
    return (char *)(uintptr_t)base + row->offset;
}

/* The words of "auto|cpu|cuda" as "auto, cpu or cuda". */
static void choices_text(const char *unit, char *text, size_t bytes)
{
    size_t used = 0;
    for (const char *c = unit; *c && used + 5 < bytes; c++) {
        if (*c != '|')
            text[used++] = *c;
        else
            used += (size_t)snprintf(text + used, bytes - used, "%s",
                                     strchr(c + 1, '|') ? ", " : " or ");
    }
    text[used] = '\0';
}

void value_accepted(const struct option_row *row, char *text, size_t bytes)
{
    switch (row->type) {
    case OPTION_TYPE_IS_BOOL:
        snprintf(text, bytes, "true or false");
        break;
    case OPTION_TYPE_IS_U64:
        snprintf(text, bytes, "a whole number from %.0f to %.0f%s%s", row->low, row->high,
                 row->word ? ", or " : "", row->word ? row->word : "");
        break;
    case OPTION_TYPE_IS_F64:
        snprintf(text, bytes, "a number from %.9g to %.9g%s%s", row->low, row->high,
                 row->word ? ", or " : "", row->word ? row->word : "");
        break;
    case OPTION_TYPE_IS_STR:
        snprintf(text, bytes, "text of %.0f to %.0f bytes", row->low, row->high);
        break;
    case OPTION_TYPE_IS_CHOICE:
        choices_text(row->unit, text, bytes);
        break;
    case OPTION_TYPE_IS_LIST:
        snprintf(text, bytes, "a list of %.0f to %.0f names", row->low, row->high);
        break;
    }
}

static uint64_t word_u64(const struct option_row *row)
{
    return row->word_value < 0 ? OPTION_NONE : (uint64_t)row->word_value;
}

static int u64_parse(const struct option_row *row, const char *text, uint64_t *value)
{
    if (row->word && strcmp(text, row->word) == 0) {
        *value = word_u64(row);
        return 0;
    }
    if (!isdigit((unsigned char)text[0]) || text[strspn(text, "0123456789")] != '\0' ||
        (text[0] == '0' && text[1] != '\0'))
        return -1;
    errno = 0;
    *value = strtoull(text, NULL, 10);
    return errno == 0 && (double)*value >= row->low && (double)*value <= row->high ? 0 : -1;
}

static int f64_parse(const struct option_row *row, const char *text, double *value)
{
    char *end;
    if (row->word && strcmp(text, row->word) == 0) {
        *value = row->word_value;
        return 0;
    }
    if (text[0] == '\0' || text[strspn(text, "0123456789+-.eE")] != '\0')
        return -1;
    *value = strtod(text, &end);
    return *end == '\0' && isfinite(*value) && *value >= row->low && *value <= row->high ? 0 : -1;
}

/* Bytes of the UTF-8 character at `text`, or 0 if it is none or a control character. */
static size_t character_bytes(const unsigned char *text)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (text[0] < 0x80)
        return text[0] >= 0x20 && text[0] != 0x7f;
    size_t bytes = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2;
    if (text[0] < 0xc2 || text[0] > 0xf4)
        return 0;
    uint32_t code = text[0] & (0xffu >> (bytes + 1));
    for (size_t i = 1; i < bytes; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (text[i] & 0x3f);
    }
    return code >= least[bytes] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) &&
                   code >= 0xa0 /* C1 controls */
               ? bytes
               : 0;
}

static int str_valid(const struct option_row *row, const char *text)
{
    size_t length = strlen(text);
    if ((double)length < row->low || (double)length > row->high || length > OPTION_TEXT_MAX)
        return 0;
    for (size_t i = 0, step; i < length; i += step)
        if ((step = character_bytes((const unsigned char *)text + i)) == 0)
            return 0;
    return 1;
}

/* One of the words; of one with a colon, "cuda:GPU", what is behind that may be any text. */
static int choice_valid(const struct option_row *row, const char *text)
{
    static const struct option_row any = {.low = 1, .high = CHOICE_TEXT_MAX};
    size_t length = strlen(text);
    for (const char *word = row->unit; word; word = strchr(word, '|')) {
        word += *word == '|';
        size_t bytes = strcspn(word, "|"), prefix = strcspn(word, ":|") + 1;
        if (length == bytes && strncmp(word, text, length) == 0)
            return 1;
        if (prefix <= bytes && strncmp(word, text, prefix) == 0 && str_valid(&any, text + prefix))
            return 1;
    }
    return 0;
}

/* "A,B" into names. 0, or -1 for an empty, overlong or repeated name or a wrong number of them. */
static int list_parse(const struct option_row *row, const char *text, struct option_list *list)
{
    memset(list, 0, sizeof *list);
    while (*text) {
        size_t length = strcspn(text, ",");
        if (length == 0 || length >= sizeof list->name[0] || list->count == OPTION_NAMES_MAX)
            return -1;
        char *name = list->name[list->count];
        memcpy(name, text, length);
        if (!task_name_valid(name))
            return -1;
        for (uint32_t i = 0; i < list->count; i++)
            if (strcmp(list->name[i], name) == 0)
                return -1;
        list->count++;
        text += length;
        if (*text == ',' && *++text == '\0')
            return -1;
    }
    return list->count >= row->low && list->count <= row->high ? 0 : -1;
}

static int text_replace(char **field, const char *text)
{
    char *copy = strdup(text);
    if (!copy)
        return STORE_NO_MEMORY;
    free(*field);
    *field = copy;
    return 0;
}

/* 0 and the value stored; -1 (not accepted) or STORE_NO_MEMORY and nothing changed. */
static int value_store(const struct option_row *row, void *base, const char *text)
{
    void *field = field_of(row, base);
    union {
        uint64_t u64;
        double f64;
        struct option_list list;
    } v;
    switch (row->type) {
    case OPTION_TYPE_IS_BOOL:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
            return -1;
        *(int *)field = text[0] == 't';
        return 0;
    case OPTION_TYPE_IS_U64:
        return u64_parse(row, text, &v.u64) == 0 ? (*(uint64_t *)field = v.u64, 0) : -1;
    case OPTION_TYPE_IS_F64:
        return f64_parse(row, text, &v.f64) == 0 ? (*(double *)field = v.f64, 0) : -1;
    case OPTION_TYPE_IS_STR:
        return str_valid(row, text) ? text_replace(field, text) : -1;
    case OPTION_TYPE_IS_CHOICE:
        return choice_valid(row, text) ? text_replace(field, text) : -1;
    case OPTION_TYPE_IS_LIST:
        return list_parse(row, text, &v.list) == 0 ? (*(struct option_list *)field = v.list, 0)
                                                   : -1;
    }
    return -1;
}

int value_set(const struct option_row *row, void *base, const char *text, const char *name,
              struct origin at, struct err *e)
{
    int result = value_store(row, base, text);
    if (result == 0)
        return 0;
    if (result == STORE_NO_MEMORY)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read option %s", name);
    char shown[SHOWN_BYTES], accepted[256];
    value_accepted(row, accepted, sizeof accepted);
    return origin_error(
        at, e, "%s is \"%s\"; accepted is %s%s", name, text_show(text, shown), accepted,
        row->type == OPTION_TYPE_IS_LIST  ? " of letters, digits, - and _, none twice"
        : row->type == OPTION_TYPE_IS_STR ? " without control characters, in UTF-8"
                                          : "");
}

/* The shortest text of at least 15 digits (2000, not 2e+03) that strtod reads back to the same
 * bits. */
static void f64_text(double value, char *text, size_t bytes)
{
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, bytes, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            return;
    }
}

void value_text(const struct option_row *row, const void *base, char *text, size_t bytes)
{
    const void *field = field_of(row, base);
    const struct option_list *list = field;
    uint64_t u64 = row->type == OPTION_TYPE_IS_U64 ? *(const uint64_t *)field : 0;
    size_t used = 0;
    text[0] = '\0';
    switch (row->type) {
    case OPTION_TYPE_IS_BOOL:
        snprintf(text, bytes, "%s", *(const int *)field ? "true" : "false");
        break;
    case OPTION_TYPE_IS_U64:
        if (row->word && u64 == word_u64(row))
            snprintf(text, bytes, "%s", row->word);
        else
            snprintf(text, bytes, "%llu", (unsigned long long)u64);
        break;
    case OPTION_TYPE_IS_F64:
        if (row->word && *(const double *)field == row->word_value)
            snprintf(text, bytes, "%s", row->word);
        else
            f64_text(*(const double *)field, text, bytes);
        break;
    case OPTION_TYPE_IS_STR:
    case OPTION_TYPE_IS_CHOICE:
        snprintf(text, bytes, "%s", *(char *const *)field);
        break;
    case OPTION_TYPE_IS_LIST:
        for (uint32_t i = 0; i < list->count && used < bytes; i++)
            used +=
                (size_t)snprintf(text + used, bytes - used, "%s%s", i ? "," : "", list->name[i]);
        break;
    }
}

int value_equal(const struct option_row *row, const void *a, const void *b)
{
    char text_a[OPTION_TEXT_MAX + 1], text_b[OPTION_TEXT_MAX + 1];
    value_text(row, a, text_a, sizeof text_a);
    value_text(row, b, text_b, sizeof text_b);
    return strcmp(text_a, text_b) == 0;
}
