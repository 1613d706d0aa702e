/* csv.h - a CSV file row by row, in bounded memory: RFC 4180 with any one-byte delimiter.
 *
 * Fields may be quoted ("" is a quote inside) and then hold delimiters and line ends. Lines end in
 * LF, CR LF or CR; a byte order mark and empty lines are skipped. Refused, with the line: a quote
 * inside an unquoted field, text behind a closing quote, a quoted field that does not end, a zero
 * byte (UTF-16), rows over CSV_ROW_BYTES_MAX or CSV_FIELDS_MAX.
 */
#ifndef PIPELINES_PREPARE_CSV_H
#define PIPELINES_PREPARE_CSV_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include "pipelines/prepare/seen.h"
#include "proto/err.h"
#include "proto/h5file.h"

enum { CSV_ROW_BYTES_MAX = 4 << 20, CSV_FIELDS_MAX = 65536 };

struct csv {
    char path[PATH_MAX];
    char delimiter;
    int unquoted;               /* set it after csv_open: quotes are bytes like others */
    unsigned char special[256]; /* bytes that end or spoil an unquoted field */
    int fd;
    struct digest *digest; /* every byte read goes there; NULL: nowhere */
    unsigned char *buffer;
    size_t at, held;
    struct seen seen;    /* when it was opened */
    uint64_t bytes_read; /* of it, since the beginning */
    uint64_t line_next;
    /* the row read last */
    char *text; /* its fields, each with a NUL behind it */
    uint32_t field_count;
    uint32_t *field; /* where each begins in text */
    uint64_t line;   /* its first line, from 1 */
};

/* 0 or -1; csv_close is due in both cases. */
int csv_open(struct csv *c, const char *path, char delimiter, struct err *e);
void csv_close(struct csv *c); /* harmless twice, and on a zeroed struct */

/* Begin again at the first row; from now on bytes go to `digest`. */
int csv_rewind(struct csv *c, struct digest *digest, struct err *e);

/* The option prepare.delimiter, one character or "tab". */
int csv_delimiter(const char *option, char *delimiter, struct err *e);

/* "-1" is the last of `columns`, "0" the first; 1 if the text is such a number among them. */
int csv_column_number(const char *text, uint32_t columns, uint32_t *column);

/* Read the next row. 1; 0: there is none, and the file is what it was when it was opened; -1 and
 * *e. */
int csv_row(struct csv *c, struct err *e);

/* Of the file read so far, 0 to 1. */
static inline double csv_share(const struct csv *c)
{
    return c->seen.bytes ? (double)c->bytes_read / (double)c->seen.bytes : 0;
}

static inline const char *csv_field(const struct csv *c, uint32_t index)
{
    return c->text + c->field[index];
}

enum csv_number { CSV_NUMBER, CSV_MISSING, CSV_INFINITE, CSV_NO_NUMBER };

/* A field as a finite float32: blanks around it are allowed; hexadecimal is not. Missing: empty,
 * NA or nan in any case. Infinite: inf, and what a float32 cannot hold. */
enum csv_number csv_number(const char *text, double *value);

/* A field of the row read last, without the blanks around it, in place. */
char *csv_trimmed(struct csv *c, uint32_t column);

enum { CSV_SHOWN_BYTES = 40 };
/* `text` cut and made one printable line for a sentence. Returns `shown`. */
const char *csv_show(const char *text, char shown[CSV_SHOWN_BYTES]);

/* Put "FILE: line 3, column 2 (height): " before the sentence in *e, for a column of the row read
 * last; name: the column's, or NULL. Returns -1. */
int csv_place(const struct csv *c, uint32_t column, const char *name, struct err *e);

/* Refuse that column's field, which is no number for this reason. Returns -1. */
int csv_refuse(const struct csv *c, uint32_t column, const char *name, enum csv_number kind,
               struct err *e);

#endif
