/* lines.c - see lines.h. The only file that knows zstd. */
#include "pipelines/prepare/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

enum { TEXT_BYTES = 4 * LINES_BYTES_MAX, WINDOW_LOG_MAX = 27 };

static int bytes_take(struct lines *l, void *to, size_t bytes, size_t *got, struct err *e)
{
    ssize_t n;
    do
        n = read(l->fd, to, bytes);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot read %s", l->path);
    *got = (size_t)n;
    l->bytes_read += *got;
    return 0;
}

static int zstd_begin(struct lines *l, struct err *e)
{
    l->zstd = ZSTD_createDCtx();
    l->packed = malloc(TEXT_BYTES);
    if (!l->zstd || !l->packed)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", l->path);
    ZSTD_DCtx_setParameter(l->zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
    memcpy(l->packed, l->text, l->held);
    l->packed_held = l->held;
    l->held = 0;
    return 0;
}

int lines_open(struct lines *l, const char *path, struct digest *digest, struct err *e)
{
    static const unsigned char magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
    struct stat st;
    memset(l, 0, sizeof *l);
    l->fd = -1;
    l->digest = digest;
    if (snprintf(l->path, sizeof l->path, "%s", path) >= (int)sizeof l->path)
        return err_set(e, EXIT_CODE_PERMANENT, "the path of a source has more than %d bytes",
                       PATH_MAX - 1);
    l->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (l->fd < 0 || fstat(l->fd, &st) != 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot open %s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, EXIT_CODE_PERMANENT, "%s is not a regular file", path);
    l->seen = seen_of(&st);
    l->text = malloc(TEXT_BYTES + 1);
    if (!l->text)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", path);
    if (bytes_take(l, l->text, TEXT_BYTES, &l->held, e) < 0)
        return -1;
    if (l->held >= sizeof magic && memcmp(l->text, magic, sizeof magic) == 0)
        return zstd_begin(l, e);
    if (l->digest)
        digest_bytes(l->digest, l->text, l->held);
    return 0;
}

void lines_close(struct lines *l)
{
    if (l->path[0] && l->fd >= 0) /* in a zeroed struct the 0 is nobody's descriptor */
        close(l->fd);
    ZSTD_freeDCtx(l->zstd);
    free(l->packed);
    free(l->text);
    memset(l, 0, sizeof *l);
    l->fd = -1;
}

/* Unpack into to[0 .. bytes): at least one byte, or none at the end of the file. */
static int unpack(struct lines *l, char *to, size_t bytes, size_t *got, struct err *e)
{
    ZSTD_outBuffer out = {to, bytes, 0};
    while (out.pos == 0) {
        if (l->packed_at == l->packed_held) {
            l->packed_at = 0;
            if (bytes_take(l, l->packed, TEXT_BYTES, &l->packed_held, e) < 0)
                return -1;
        }
        ZSTD_inBuffer in = {l->packed, l->packed_held, l->packed_at};
        if (in.size == 0 && !l->frame_open)
            break;
        size_t left = ZSTD_decompressStream(l->zstd, &out, &in);
        if (ZSTD_isError(left))
            return err_set(e, EXIT_CODE_PERMANENT, "%s cannot be unpacked: zstd says %s", l->path,
                           ZSTD_getErrorName(left));
        l->packed_at = in.pos;
        l->frame_open = left > 0;
        if (in.size == 0 && l->frame_open && out.pos == 0)
            return err_set(e, EXIT_CODE_PERMANENT, "%s is too short: its zstd frame does not end",
                           l->path);
    }
    *got = out.pos;
    return 0;
}

static int line_refuse(const struct lines *l, struct err *e)
{
    return err_set(e, EXIT_CODE_PERMANENT, "%s: line %llu has more than %d bytes", l->path,
                   (unsigned long long)l->line + 1, LINES_BYTES_MAX);
}

/* Put more bytes behind those that are there. 1; 0: there are none; -1. */
static int text_fill(struct lines *l, struct err *e)
{
    size_t got = 0, rest = l->held - l->at;
    if (rest > LINES_BYTES_MAX)
        return line_refuse(l, e);
    memmove(l->text, l->text + l->at, rest);
    l->at = 0;
    l->held = rest;
    char *to = l->text + rest;
    int result = l->zstd ? unpack(l, to, TEXT_BYTES - rest, &got, e)
                         : bytes_take(l, to, TEXT_BYTES - rest, &got, e);
    if (result < 0)
        return -1;
    if (l->digest)
        digest_bytes(l->digest, to, got);
    l->held += got;
    return got > 0;
}

int lines_next(struct lines *l, char **line, struct err *e)
{
    size_t looked = 0;
    char *end;
    while (!(end = memchr(l->text + l->at + looked, '\n', l->held - l->at - looked))) {
        looked = l->held - l->at;
        int more = text_fill(l, e);
        if (more < 0)
            return -1;
        if (more == 0) {
            if (looked == 0)
                return seen_check(&l->seen, l->path, e);
            end = l->text + l->held; /* a last line without its end; there is room for the NUL */
            break;
        }
    }
    *line = l->text + l->at;
    if (end - *line > LINES_BYTES_MAX)
        return line_refuse(l, e);
    l->at = (size_t)(end - l->text) + (end < l->text + l->held);
    if (end > *line && end[-1] == '\r')
        end--;
    *end = 0;
    l->line++;
    return 1;
}
