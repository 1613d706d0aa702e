/* npy.c - see npy.h. The header is the text of a Python dictionary; this parser knows what NumPy
 * writes there and nothing else:
 *
 *   {'descr': '<f4', 'fortran_order': False, 'shape': (150, 4), }
 */
#include "pipelines/prepare/npy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct cursor {
    const char *at, *end;
};

static void blanks_skip(struct cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n'))
        c->at++;
}

/* Take `word` if it stands next. */
static int word_take(struct cursor *c, const char *word)
{
    size_t length = strlen(word);
    blanks_skip(c);
    if ((size_t)(c->end - c->at) < length || memcmp(c->at, word, length) != 0)
        return 0;
    c->at += length;
    return 1;
}

/* A quoted text without escapes. */
static int text_take(struct cursor *c, char *text, size_t capacity)
{
    blanks_skip(c);
    if (c->at == c->end || (*c->at != '\'' && *c->at != '"'))
        return 0;
    char quote = *c->at++;
    size_t length = 0;
    while (c->at < c->end && *c->at != quote) {
        if (*c->at == '\\' || length + 1 >= capacity)
            return 0;
        text[length++] = *c->at++;
    }
    text[length] = 0;
    if (c->at == c->end)
        return 0;
    c->at++;
    return 1;
}

static int number_take(struct cursor *c, uint64_t *number)
{
    blanks_skip(c);
    if (c->at == c->end || *c->at < '0' || *c->at > '9')
        return 0;
    for (*number = 0; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++)
        if (__builtin_mul_overflow(*number, 10u, number) ||
            __builtin_add_overflow(*number, (uint64_t)(*c->at - '0'), number))
            return 0;
    return 1;
}

static int shape_take(struct npy *n, struct cursor *c)
{
    n->rank = 0;
    if (!word_take(c, "("))
        return 0;
    while (!word_take(c, ")")) {
        if (n->rank == NPY_RANK_MAX || !number_take(c, &n->dims[n->rank]))
            return 0;
        n->rank++;
        if (!word_take(c, ",")) /* (3) is no tuple, but (3, 4) ends so */
            return n->rank > 1 && word_take(c, ")");
    }
    return 1;
}

static int type_read(struct npy *n, const char *descr, struct err *e)
{
    static const char *const known[] = {"<f4", "<f8", "|b1", "|u1", "|i1", "<u2",
                                        "<i2", "<u4", "<i4", "<u8", "<i8"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(descr, known[i]) == 0) {
            n->kind = descr[1];
            n->size = (uint32_t)(descr[2] - '0');
            return 0;
        }
    return err_set(
        e, EXIT_CODE_PERMANENT,
        "%s has elements of type \"%.20s\"; accepted are little-endian f4, f8, b1, u1 to "
        "u8 and i1 to i8 (array.astype makes them)",
        n->path, descr);
}

int npy_header_parse(struct npy *n, const char *text, uint64_t bytes, struct err *e)
{
    struct cursor c = {text, text + bytes};
    char key[32], descr[64] = "";
    int seen_descr = 0, seen_order = 0, seen_shape = 0, fortran = 0, ok = word_take(&c, "{");
    while (ok && !word_take(&c, "}")) {
        ok = text_take(&c, key, sizeof key) && word_take(&c, ":");
        if (ok && strcmp(key, "descr") == 0)
            ok = !seen_descr++ && text_take(&c, descr, sizeof descr);
        else if (ok && strcmp(key, "fortran_order") == 0)
            ok = !seen_order++ && ((fortran = word_take(&c, "True")) || word_take(&c, "False"));
        else if (ok && strcmp(key, "shape") == 0)
            ok = !seen_shape++ && shape_take(n, &c);
        else
            ok = 0;
        if (ok && !word_take(&c, ",")) {
            ok = word_take(&c, "}");
            break;
        }
    }
    blanks_skip(&c);
    if (!ok || c.at != c.end || !seen_descr || !seen_order || !seen_shape)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has a header that is not NumPy's: expected {'descr': TEXT, "
                       "'fortran_order': False, 'shape': (N, ...), } (arrays of records are not "
                       "accepted)",
                       n->path);
    if (fortran && n->rank > 1)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s is in Fortran order; store numpy.ascontiguousarray(array)", n->path);
    return type_read(n, descr, e);
}

/* Rows, and the whole array against the bytes that are there. */
static int sizes_check(struct npy *n, uint64_t file_bytes, struct err *e)
{
    uint64_t bytes;
    if (n->rank == 0)
        return err_set(e, EXIT_CODE_PERMANENT, "%s holds a single value; an array is needed",
                       n->path);
    n->row_values = 1;
    int fits = 1;
    for (int i = 1; i < n->rank; i++)
        fits = fits && !__builtin_mul_overflow(n->row_values, n->dims[i], &n->row_values);
    fits = fits && !__builtin_mul_overflow(n->row_values, (uint64_t)n->size, &n->row_bytes) &&
           !__builtin_mul_overflow(n->row_bytes, n->dims[0], &bytes);
    if (!fits || bytes != file_bytes - n->offset)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s holds %llu bytes behind its header, which announces %s%llu", n->path,
                       (unsigned long long)(file_bytes - n->offset), fits ? "" : "more than ",
                       fits ? (unsigned long long)bytes : ~0ull);
    return 0;
}

static int bytes_read(const struct npy *n, uint64_t offset, void *data, uint64_t bytes,
                      struct err *e)
{
    unsigned char *to = data;
    while (bytes > 0) {
        ssize_t got = pread(n->fd, to, bytes, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(e, EXIT_CODE_PERMANENT, "cannot read %s", n->path);
        if (got == 0)
            return err_set(e, EXIT_CODE_PERMANENT, "%s is too short: it ends after %llu bytes",
                           n->path, (unsigned long long)offset);
        to += got;
        offset += (uint64_t)got;
        bytes -= (uint64_t)got;
    }
    return 0;
}

static int header_read(struct npy *n, uint64_t file_bytes, struct err *e)
{
    unsigned char start[12] = {0};
    if (bytes_read(n, 0, start, 10, e) < 0)
        return -1;
    if (memcmp(start, "\x93NUMPY", 6) != 0 || (start[6] != 1 && start[6] != 2) || start[7] != 0)
        return err_set(e, EXIT_CODE_PERMANENT, "%s is no .npy file of version 1.0 or 2.0", n->path);
    uint64_t length = start[8] | (uint64_t)start[9] << 8;
    n->offset = 10;
    if (start[6] == 2) {
        if (bytes_read(n, 10, start + 10, 2, e) < 0)
            return -1;
        length |= (uint64_t)start[10] << 16 | (uint64_t)start[11] << 24;
        n->offset = 12;
    }
    if (length > NPY_HEADER_BYTES_MAX || length > file_bytes - n->offset)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s announces a header of %llu bytes; at most %d, and no more than the file "
                       "has, are accepted",
                       n->path, (unsigned long long)length, NPY_HEADER_BYTES_MAX);
    char *text = malloc(length + 1);
    if (!text)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", n->path);
    int result = bytes_read(n, n->offset, text, length, e);
    if (result == 0)
        result = npy_header_parse(n, text, length, e);
    free(text);
    n->offset += length;
    return result < 0 ? -1 : sizes_check(n, file_bytes, e);
}

int npy_open(struct npy *n, const char *path, struct err *e)
{
    struct stat st;
    memset(n, 0, sizeof *n);
    n->fd = -1;
    if (snprintf(n->path, sizeof n->path, "%s", path) >= (int)sizeof n->path)
        return err_set(e, EXIT_CODE_PERMANENT, "the path of a .npy file has more than %d bytes",
                       PATH_MAX - 1);
    n->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (n->fd < 0 || fstat(n->fd, &st) != 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot open %s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, EXIT_CODE_PERMANENT, "%s is not a regular file", path);
    n->seen = seen_of(&st);
    return header_read(n, (uint64_t)st.st_size, e);
}

void npy_close(struct npy *n)
{
    if (n->path[0] && n->fd >= 0) /* in a zeroed struct the 0 is nobody's descriptor */
        close(n->fd);
    memset(n, 0, sizeof *n);
    n->fd = -1;
}

int npy_read(const struct npy *n, uint64_t row, uint64_t rows, void *data, struct err *e)
{
    return bytes_read(n, n->offset + row * n->row_bytes, data, rows * n->row_bytes, e);
}

double npy_value(const struct npy *n, const unsigned char *at)
{
    union {
        float f4;
        double f8;
        int8_t i1;
        int16_t i2;
        int32_t i4;
        int64_t i8;
        uint64_t u;
    } v = {.u = 0};
    memcpy(&v, at, n->size); /* little-endian, as this machine */
    if (n->kind == 'f')
        return n->size == 4 ? (double)v.f4 : v.f8;
    if (n->kind != 'i')
        return (double)v.u;
    return n->size == 1 ? v.i1 : n->size == 2 ? v.i2 : n->size == 4 ? v.i4 : (double)v.i8;
}
