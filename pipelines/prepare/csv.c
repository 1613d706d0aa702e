/* csv.c - see csv.h. */
#include "pipelines/prepare/csv.h"

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 256 << 10, END = -1, FAILED = -2 };

int csv_open(struct csv *c, const char *path, char delimiter, struct err *e)
{
    struct stat st;
    memset(c, 0, sizeof *c);
    c->fd = -1;
    c->delimiter = delimiter;
    for (const char *special = "\n\r\""; *special; special++)
        c->special[(unsigned char)*special] = 1;
    c->special[(unsigned char)delimiter] = c->special[0] = 1;
    if (snprintf(c->path, sizeof c->path, "%s", path) >= (int)sizeof c->path)
        return err_set(e, EXIT_CODE_PERMANENT, "the path of the CSV file has more than %d bytes",
                       PATH_MAX - 1);
    c->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (c->fd < 0 || fstat(c->fd, &st) != 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot open %s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, EXIT_CODE_PERMANENT, "%s is not a regular file", path);
    c->seen = seen_of(&st);
    c->buffer = malloc(BUFFER_BYTES);
    c->text = malloc(CSV_ROW_BYTES_MAX + 1);
    c->field = malloc(CSV_FIELDS_MAX * sizeof *c->field);
    if (!c->buffer || !c->text || !c->field)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", path);
    return csv_rewind(c, NULL, e);
}

void csv_close(struct csv *c)
{
    if (c->path[0] && c->fd >= 0) /* in a zeroed struct the 0 is nobody's descriptor */
        close(c->fd);
    free(c->buffer);
    free(c->text);
    free(c->field);
    memset(c, 0, sizeof *c);
    c->fd = -1;
}

static int buffer_fill(struct csv *c, struct err *e)
{
    ssize_t got;
    do
        got = read(c->fd, c->buffer, BUFFER_BYTES);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot read %s", c->path);
    c->at = 0;
    c->held = (size_t)got;
    c->bytes_read += (uint64_t)got;
    if (c->digest)
        digest_bytes(c->digest, c->buffer, c->held);
    return 0;
}

int csv_rewind(struct csv *c, struct digest *digest, struct err *e)
{
    if (lseek(c->fd, 0, SEEK_SET) < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot read %s", c->path);
    c->digest = digest;
    c->bytes_read = 0;
    c->line_next = 1;
    if (buffer_fill(c, e) < 0)
        return -1;
    if (c->held >= 3 && memcmp(c->buffer, "\xef\xbb\xbf", 3) == 0)
        c->at = 3;
    return 0;
}

/* The next byte without taking it, END or FAILED. */
static int byte_peek(struct csv *c, struct err *e)
{
    if (c->at == c->held) {
        if (c->held == 0)
            return END;
        if (buffer_fill(c, e) < 0)
            return FAILED;
        if (c->held == 0)
            return END;
    }
    return c->buffer[c->at];
}

/* The row under construction. */
struct building {
    size_t used; /* bytes of c->text */
    int quoted;  /* a field of it was */
};

static int text_add(struct csv *c, struct building *b, int byte, struct err *e)
{
    if (byte == 0 && b->used < CSV_ROW_BYTES_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: line %llu, column %u holds a zero byte; is it UTF-16? Text in UTF-8 is "
                       "accepted",
                       c->path, (unsigned long long)c->line_next, c->field_count);
    if (b->used >= CSV_ROW_BYTES_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: the row that begins in line %llu has more than %d bytes", c->path,
                       (unsigned long long)c->line, CSV_ROW_BYTES_MAX);
    c->text[b->used++] = (char)byte;
    return 0;
}

/* Take a line end of which `byte` is the first byte. */
static int line_end_take(struct csv *c, int byte, struct err *e)
{
    c->at++;
    c->line_next++;
    if (byte == '\r') {
        int next = byte_peek(c, e);
        if (next == FAILED)
            return -1;
        if (next == '\n')
            c->at++;
    }
    return 0;
}

/* Behind the opening quote: up to and with the closing one. */
static int quoted_read(struct csv *c, struct building *b, struct err *e)
{
    uint64_t begun = c->line_next;
    for (;;) {
        int byte = byte_peek(c, e);
        if (byte == FAILED)
            return -1;
        if (byte == END)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "%s: line %llu, column %u: a quoted field begins and does not end",
                           c->path, (unsigned long long)begun, c->field_count);
        c->at++;
        if (byte == '"') {
            int next = byte_peek(c, e);
            if (next == FAILED)
                return -1;
            if (next != '"')
                break;
            c->at++;
        }
        if (text_add(c, b, byte, e) < 0)
            return -1;
        c->line_next += byte == '\n';
    }
    int next = byte_peek(c, e);
    if (next == FAILED)
        return -1;
    if (next != END && next != c->delimiter && next != '\n' && next != '\r')
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: line %llu, column %u has text behind a closing quote", c->path,
                       (unsigned long long)c->line_next, c->field_count);
    return 0;
}

static int plain_read(struct csv *c, struct building *b, struct err *e)
{
    for (;;) {
        while (c->at < c->held && !c->special[c->buffer[c->at]] && b->used < CSV_ROW_BYTES_MAX)
            c->text[b->used++] = (char)c->buffer[c->at++];
        int byte = byte_peek(c, e);
        if (byte == FAILED)
            return -1;
        if (byte == END || byte == c->delimiter || byte == '\n' || byte == '\r')
            return 0;
        if (byte == '"' && !c->unquoted)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "%s: line %llu, column %u has a quote inside an unquoted field; quote "
                           "the whole field and double the quotes in it",
                           c->path, (unsigned long long)c->line_next, c->field_count);
        if (text_add(c, b, byte, e) < 0)
            return -1;
        c->at++;
    }
}

/* 1: a delimiter follows; 0: the row is over; -1. */
static int field_read(struct csv *c, struct building *b, struct err *e)
{
    if (c->field_count == CSV_FIELDS_MAX)
        return err_set(e, EXIT_CODE_PERMANENT, "%s: line %llu has more than %d columns", c->path,
                       (unsigned long long)c->line, CSV_FIELDS_MAX);
    c->field[c->field_count++] = (uint32_t)b->used;
    int byte = byte_peek(c, e);
    if (byte == FAILED)
        return -1;
    if (byte == '"' && !c->unquoted) {
        c->at++;
        b->quoted = 1;
        if (quoted_read(c, b, e) < 0)
            return -1;
    } else if (plain_read(c, b, e) < 0) {
        return -1;
    }
    if (b->used >= CSV_ROW_BYTES_MAX)
        return text_add(c, b, ' ', e); /* which says so */
    c->text[b->used++] = 0;
    byte = byte_peek(c, e);
    if (byte == FAILED)
        return -1;
    if (byte == END)
        return 0;
    if (byte != c->delimiter)
        return line_end_take(c, byte, e);
    c->at++;
    return 1;
}

int csv_row(struct csv *c, struct err *e)
{
    for (;;) {
        struct building b = {0};
        int more = byte_peek(c, e);
        if (more == END)
            return seen_check(&c->seen, c->path, e);
        if (more == FAILED)
            return -1;
        c->line = c->line_next;
        c->field_count = 0;
        do
            more = field_read(c, &b, e);
        while (more > 0);
        if (more < 0)
            return -1;
        if (c->field_count > 1 || b.quoted || c->text[0])
            return 1;
    }
}

/* Digits with at most one point among them, as most numbers are written. Up to 2^53 and with at
 * most 22 decimals both parts of the quotient are exact, so that its one rounding gives what strtod
 * gives (Clinger 1990). 0: leave it to strtod. */
static int decimal_read(const char *text, size_t length, double *value)
{
    static const double power[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                   1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                   1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const char *at = text + (text[0] == '-'), *end = text + length;
    const char *point = NULL;
    uint64_t digits = 0;
    if (end - at > 19 || at == end || *at == '.')
        return 0;
    for (; at < end; at++) {
        if (*at >= '0' && *at <= '9')
            digits = digits * 10 + (uint64_t)(*at - '0');
        else if (*at == '.' && !point)
            point = at;
        else
            return 0;
    }
    if (digits > 1ull << 53)
        return 0;
    double quotient = (double)digits / power[point ? end - point - 1 : 0];
    *value = text[0] == '-' ? -quotient : quotient;
    return 1;
}

enum csv_number csv_number(const char *text, double *value)
{
    char *end;
    text += strspn(text, " \t");
    size_t length = strlen(text);
    while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t'))
        length--;
    if (decimal_read(text, length, value))
        return CSV_NUMBER;
    if (length == 0 || (length == 2 && strncasecmp(text, "na", 2) == 0) ||
        (length == 3 && strncasecmp(text, "nan", 3) == 0))
        return CSV_MISSING;
    const char *word = text + (text[0] == '-' || text[0] == '+');
    if (strncasecmp(word, "inf", 3) == 0) {
        strtod(text, &end);
        return end == text + length ? CSV_INFINITE : CSV_NO_NUMBER;
    }
    if (strspn(text, "0123456789+-.eE") < length)
        return CSV_NO_NUMBER;
    *value = strtod(text, &end);
    if (end != text + length)
        return CSV_NO_NUMBER;
    return fabs(*value) <= FLT_MAX ? CSV_NUMBER : CSV_INFINITE;
}

char *csv_trimmed(struct csv *c, uint32_t column)
{
    char *text = c->text + c->field[column];
    text += strspn(text, " \t");
    size_t length = strlen(text);
    while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t'))
        length--;
    text[length] = 0;
    return text;
}

const char *csv_show(const char *text, char shown[CSV_SHOWN_BYTES])
{
    snprintf(shown, CSV_SHOWN_BYTES, "%s", text);
    for (char *c = shown; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    return shown;
}

int csv_place(const struct csv *c, uint32_t column, const char *name, struct err *e)
{
    char shown[CSV_SHOWN_BYTES];
    csv_show(name ? name : "", shown);
    return err_prefix(e, "%s: line %llu, column %u%s%s%s", c->path, (unsigned long long)c->line,
                      column + 1, shown[0] ? " (" : "", shown, shown[0] ? ")" : "");
}

int csv_refuse(const struct csv *c, uint32_t column, const char *name, enum csv_number kind,
               struct err *e)
{
    static const char *const why[] = {
        [CSV_MISSING] = "no value; prepare.missing: drop leaves such rows out",
        [CSV_INFINITE] = "larger than a float32 holds; expected a finite number",
        [CSV_NO_NUMBER] = "no number; expected one like 12, -3.5 or 1e-4",
    };
    char shown[CSV_SHOWN_BYTES];
    err_set(e, EXIT_CODE_PERMANENT, "\"%s\" is %s", csv_show(csv_field(c, column), shown),
            why[kind]);
    return csv_place(c, column, name, e);
}

int csv_delimiter(const char *text, char *delimiter, struct err *e)
{
    *delimiter = strcmp(text, "tab") == 0 ? '\t' : text[0];
    if (*delimiter == '\t' ||
        (!text[1] && !strchr("\"\\.+-eE", text[0]) && !(text[0] >= '0' && text[0] <= '9')))
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "prepare.delimiter is \"%s\"; expected one character like , ; | or the word tab",
                   text);
}

int csv_column_number(const char *text, uint32_t columns, uint32_t *column)
{
    char *end;
    long long number = strtoll(text, &end, 10);
    if (end == text || *end)
        return 0;
    if (number < 0)
        number += columns;
    if (number < 0 || number >= columns)
        return 0;
    *column = (uint32_t)number;
    return 1;
}
