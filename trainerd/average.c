/* average.c - see average.h. A block at a time: the old average is read, the new one written, and
 * both digested on the way, in 256 KiB of memory.
 */
#include "trainerd/average.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/durable.h"
#include "proto/h5file.h"

enum { BLOCK_FLOATS = 65536 };

struct average_file { /* being read */
    const char *path;
    int fd;
    struct digest *digest;
};

static int file_open(struct average_file *f, const char *path, struct err *e)
{
    *f = (struct average_file){.path = path, .fd = open(path, O_RDONLY | O_CLOEXEC)};
    if (f->fd < 0)
        return err_errno(e, EXIT_CODE_PERMANENT,
                         "cannot open the average of the weights %s, which the checkpoint goes on "
                         "from; bring it back or use another --run",
                         path);
    return digest_open(&f->digest, e);
}

/* The `count` numbers at number `first`. */
static int file_read(struct average_file *f, float *to, uint64_t first, uint64_t count,
                     struct err *e)
{
    char *at = (char *)to;
    uint64_t bytes = count * sizeof *to, done = 0;
    while (done < bytes) {
        ssize_t n = pread(f->fd, at + done, bytes - done, (off_t)(first * sizeof *to + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", f->path);
        if (n == 0)
            break;
        done += (uint64_t)n;
    }
    digest_bytes(f->digest, to, done); /* a file that is too short differs by its digest */
    return 0;
}

static int file_check(struct average_file *f, const char *sha256, struct err *e)
{
    char found[65];
    digest_close(&f->digest, found);
    if (strcmp(found, sha256) == 0)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "the average of the weights %s is damaged: its digest is %.12s, the checkpoint "
                   "says %.12s; bring the file back or use another --run",
                   f->path, found, sha256);
}

static void file_close(struct average_file *f)
{
    char ignored[65];
    digest_close(&f->digest, ignored);
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

/* torch's avg + (p - avg) / (n + 1), in float32. */
static void block_average(float *average, const float *p, uint64_t count, uint64_t n)
{
    float divisor = (float)(n + 1);
    for (uint64_t i = 0; i < count; i++)
        average[i] += (p[i] - average[i]) / divisor;
}

/* All blocks from `old` (NULL: there is none) and the parameters to `fd`. */
static int blocks_write(struct average_file *old, uint64_t n, int fd, const char *path,
                        const float *parameters, uint64_t count, struct digest *d, struct err *e)
{
    static float block[BLOCK_FLOATS];
    for (uint64_t first = 0; first < count; first += BLOCK_FLOATS) {
        uint64_t left = count - first, part = left < BLOCK_FLOATS ? left : BLOCK_FLOATS;
        if (old && file_read(old, block, first, part, e) < 0)
            return -1;
        if (old)
            block_average(block, parameters + first, part, n);
        else
            memcpy(block, parameters + first, part * sizeof *block);
        digest_bytes(d, block, part * sizeof *block);
        if (durable_pwrite_all(fd, block, part * sizeof *block, first * sizeof *block, path, e) < 0)
            return -1;
    }
    return 0;
}

static int average_write(struct average_file *old, const struct average *now, struct average *next,
                         const char *path, const float *parameters, uint64_t count, struct err *e)
{
    char temporary[CHECKPOINT_PATH_BYTES + 8];
    struct digest *d = NULL;
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), result = -1;
    if (fd < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot make %s", temporary);
    if (digest_open(&d, e) == 0 &&
        blocks_write(old, now->count, fd, temporary, parameters, count, d, e) == 0 &&
        (!old || file_check(old, now->sha256, e) == 0))
        result = 0;
    digest_close(&d, next->sha256);
    if (close(fd) < 0 && result == 0)
        result = err_errno(e, EXIT_CODE_TEMPORARY, "cannot close %s", temporary);
    if (result == 0)
        return durable_commit(temporary, path, e);
    unlink(temporary);
    return -1;
}

int average_add(const struct average *now, struct average *next, const float *parameters,
                uint64_t count, struct err *e)
{
    char path[CHECKPOINT_PATH_BYTES], old_path[CHECKPOINT_PATH_BYTES];
    struct average_file old = {.fd = -1};
    int result = -1;
    retention_average_path(path, next->step, next->task);
    retention_average_path(old_path, now->step, now->task);
    if (now->count && file_open(&old, old_path, e) < 0)
        goto out;
    result = average_write(now->count ? &old : NULL, now, next, path, parameters, count, e);
    next->count = now->count + 1;
out:
    file_close(&old);
    return result;
}

int average_read(const struct average *a, float *parameters, uint64_t count, struct err *e)
{
    char path[CHECKPOINT_PATH_BYTES];
    struct average_file f;
    int result = -1;
    retention_average_path(path, a->step, a->task);
    if (file_open(&f, path, e) == 0 && file_read(&f, parameters, 0, count, e) == 0)
        result = file_check(&f, a->sha256, e);
    file_close(&f);
    return result;
}
