/* journal.c - a stage's list of facts. See journal.h for the form of a record.
 *
 * Records are appended by one process (it holds the stage's lock) and read by others at any time,
 * so a reader takes whatever is whole and stops at the first record that is not.
 */
#include "proto/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "proto/durable.h"
#include "proto/log.h"

enum {
    HEAD_BYTES = 8, /* u32 bytes, u32 CRC-32 */
    NAME_BYTES_MAX = 64,
    BODY_BYTES_MAX = 2 + NAME_BYTES_MAX + MSG_BYTES_MAX,
};

static void put_u32(unsigned char *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}

static uint32_t get_u32(const unsigned char *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint32_t checksum(const unsigned char *data, uint32_t bytes)
{
    return (uint32_t)crc32(0, data, bytes);
}

/* Read one record's body (at most BODY_BYTES_MAX) from `in`. Its bytes, or 0 at the end or a torn
 * record. */
static uint32_t record_read(FILE *in, unsigned char *body)
{
    unsigned char head[HEAD_BYTES];
    if (fread(head, 1, sizeof head, in) != sizeof head)
        return 0;
    uint32_t bytes = get_u32(head);
    if (bytes < 2 || bytes > BODY_BYTES_MAX || fread(body, 1, bytes, in) != bytes)
        return 0;
    uint32_t name_bytes = body[0] | (uint32_t)body[1] << 8;
    if (name_bytes > NAME_BYTES_MAX || 2 + name_bytes > bytes)
        return 0;
    return checksum(body, bytes) == get_u32(head + 4) ? bytes : 0;
}

/* Bytes of whole records at the beginning of the file. */
static int64_t whole_bytes(int fd, struct err *e, const char *path)
{
    unsigned char body[BODY_BYTES_MAX];
    int64_t whole = 0;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    FILE *in = copy < 0 ? NULL : fdopen(copy, "r");
    if (!in) {
        err_errno(e, EXIT_CODE_TEMPORARY, "cannot read the journal %s", path);
        if (copy >= 0)
            close(copy);
        return -1;
    }
    for (uint32_t bytes; (bytes = record_read(in, body)) > 0;)
        whole += HEAD_BYTES + bytes;
    if (ferror(in))
        whole = err_errno(e, EXIT_CODE_TEMPORARY, "cannot read the journal %s", path);
    fclose(in);
    return whole;
}

int journal_open(struct journal *j, const char *stage, struct err *e)
{
    struct stat st;
    ensure((size_t)snprintf(j->path, sizeof j->path, "journals/%s", stage) < sizeof j->path);
    j->fd = open(j->path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (j->fd < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot open the journal %s", j->path);
    int64_t whole = whole_bytes(j->fd, e, j->path);
    if (whole < 0)
        goto fail;
    if (fstat(j->fd, &st) == 0 && st.st_size > whole) {
        log_warn("path=%s bytes=%lld A torn record at the end of the journal is cut off.", j->path,
                 (long long)(st.st_size - whole));
        if (ftruncate(j->fd, whole) < 0) {
            err_errno(e, EXIT_CODE_TEMPORARY, "cannot cut the torn end of the journal %s", j->path);
            goto fail;
        }
    }
    return 0;
fail:
    journal_close(j);
    return -1;
}

void journal_close(struct journal *j)
{
    if (j->fd >= 0)
        close(j->fd);
    j->fd = -1;
}

int journal_append(struct journal *j, enum msg_type type, const void *m, struct err *e)
{
    unsigned char record[HEAD_BYTES + BODY_BYTES_MAX];
    unsigned char *body = record + HEAD_BYTES;
    const char *name = msg_name(type);
    size_t name_bytes = strlen(name);
    ensure(name_bytes <= NAME_BYTES_MAX);
    body[0] = (unsigned char)name_bytes;
    body[1] = 0;
    memcpy(body + 2, name, name_bytes);
    uint32_t bytes = (uint32_t)(2 + name_bytes);
    bytes += (uint32_t)msg_encode(type, m, body + bytes, MSG_BYTES_MAX);
    put_u32(record, bytes);
    put_u32(record + 4, checksum(body, bytes));

    off_t end = lseek(j->fd, 0, SEEK_END);
    if (end < 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot find the end of the journal %s", j->path);
    if (durable_pwrite_all(j->fd, record, HEAD_BYTES + bytes, (uint64_t)end, j->path, e) == 0)
        return 0;
    /* What was half written would hide every later record; if this fails too, the next open cuts
     * it. */
    if (ftruncate(j->fd, end) < 0)
        journal_close(j);
    return -1;
}

int journal_read(const char *path, int (*visit)(void *self, enum msg_type type, const union msg *m),
                 void *self, struct err *e)
{
    uint64_t at = 0;
    return journal_read_on(path, &at, visit, self, e);
}

int journal_read_on(const char *path, uint64_t *at,
                    int (*visit)(void *self, enum msg_type type, const union msg *m), void *self,
                    struct err *e)
{
    unsigned char body[BODY_BYTES_MAX];
    union msg m;
    int result = 0, stop = 0;
    FILE *in = fopen(path, "re");
    if (!in)
        return errno == ENOENT
                   ? 0
                   : err_errno(e, EXIT_CODE_PERMANENT, "cannot open the journal %s", path);
    if (*at && fseeko(in, (off_t)*at, SEEK_SET) < 0)
        stop = result = err_errno(e, EXIT_CODE_TEMPORARY, "cannot read the journal %s", path);
    for (uint32_t bytes; !stop && (bytes = record_read(in, body)) > 0;) {
        *at += HEAD_BYTES + bytes;
        uint32_t name_bytes = body[0] | (uint32_t)body[1] << 8;
        int type = msg_type_of((const char *)body + 2, name_bytes);
        struct err why = {0, "no message has that name"};
        /* Whole but not understood: another version wrote it. The facts around it still count. */
        if (type < 0 || msg_decode((enum msg_type)type, body + 2 + name_bytes,
                                   bytes - 2 - name_bytes, &m, &why) < 0)
            log_warn("path=%s record=%.*s A record is passed over: %s", path, (int)name_bytes,
                     (const char *)body + 2, why.text);
        else
            stop = visit(self, (enum msg_type)type, &m);
    }
    if (!result && ferror(in))
        result = err_errno(e, EXIT_CODE_TEMPORARY, "cannot read the journal %s", path);
    fclose(in);
    return result;
}
