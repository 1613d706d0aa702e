/* durable.c - see durable.h. The one place that writes, syncs and renames durable state.
 */
#include "proto/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the test hook ------------------------------------------------------------------------------
 */

static struct {
    char call[8];        /* "": nothing fails */
    unsigned long first; /* the first call that fails, from 1 */
    unsigned long last;  /* the last one */
    int number;          /* its errno */
    atomic_ulong count;
    unsigned long leak_bytes; /* 0: nothing leaks */
} hook;

static int errno_of(const char *name)
{
    for (int number = 1; number < 134; number++) {
        const char *known = strerrorname_np(number);
        if (known && strcmp(known, name) == 0)
            return number;
    }
    return 0;
}

int durable_fail_after(const char *text, struct err *e)
{
    char call[8], name[16];
    unsigned long first, bytes;
    int used = 0;
    hook.call[0] = '\0';
    hook.leak_bytes = 0;
    atomic_store(&hook.count, 0);
    if (!text || !text[0])
        return 0;
    if (sscanf(text, "leak:%lu%n", &bytes, &used) == 1 && !text[used]) {
        hook.leak_bytes = bytes;
        return 0;
    }
    if (sscanf(text, "%7[a-z]:%lu:%15[A-Z0-9]%n", call, &first, name, &used) != 3 ||
        (text[used] && strcmp(text + used, ":once")) || first == 0 || errno_of(name) == 0 ||
        (strcmp(call, "write") && strcmp(call, "fsync") && strcmp(call, "rename") &&
         strcmp(call, "memory")))
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "FINETUNED_FAIL is \"%.60s\"; accepted is call:n:errno-name with call write, "
            "fsync, rename or memory, for example write:3:ENOSPC, or write:3:ENOSPC:once; or "
            "leak:n",
            text);
    hook.first = first;
    hook.last = text[used] ? first : ULONG_MAX;
    hook.number = errno_of(name);
    strcpy(hook.call, call);
    return 0;
}

int durable_may(const char *call)
{
    if (strcmp(hook.call, call) != 0)
        return 0;
    unsigned long number = atomic_fetch_add(&hook.count, 1) + 1;
    if (number < hook.first || number > hook.last)
        return 0;
    errno = hook.number;
    return -1;
}

void durable_leak(void)
{
    static void *volatile lost __attribute__((unused)); /* no compiler leaves the call out */
    if (hook.leak_bytes)
        lost = malloc(hook.leak_bytes);
}

/* ---- writing ------------------------------------------------------------------------------------
 */

int durable_pwrite_all(int fd, const void *data, size_t bytes, uint64_t offset, const char *path,
                       struct err *e)
{
    const char *at = data;
    while (bytes > 0) {
        ssize_t n = durable_may("write") < 0 ? -1 : pwrite(fd, at, bytes, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = EIO; /* a regular file never takes nothing */
        if (n <= 0)
            return err_errno(e, EXIT_CODE_TEMPORARY, "cannot write %zu bytes to %s", bytes, path);
        at += n;
        offset += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

int durable_sync(int fd, const char *path, struct err *e)
{
    if (durable_may("fsync") < 0 || fsync(fd) < 0) {
        err_errno(e, EXIT_CODE_TEMPORARY, "cannot fsync %s", path);
        if (e)
            e->code = EXIT_CODE_TEMPORARY;
        return -1;
    }
    return 0;
}

/* Open `path` and fsync it; a directory is synced the same way. */
static int path_sync(const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot open %s to fsync it", path);
    int result = durable_sync(fd, path, e);
    close(fd);
    return result;
}

int durable_entry_sync(const char *path, struct err *e)
{
    char directory[PATH_MAX];
    const char *slash = strrchr(path, '/');
    int length = !slash ? 0 : slash == path ? 1 : (int)(slash - path);
    if ((size_t)length >= sizeof directory)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot fsync the directory of %.200s: its name is "
                       "too long",
                       path);
    snprintf(directory, sizeof directory, "%.*s", length ? length : 1, length ? path : ".");
    return path_sync(directory, e);
}

int durable_place(const char *temporary, const char *path, struct err *e)
{
    if (durable_may("rename") == 0 && rename(temporary, path) == 0)
        return 0;
    err_errno(e, EXIT_CODE_TEMPORARY, "cannot rename %s to %s", temporary, path);
    unlink(temporary);
    return -1;
}

int durable_commit(const char *temporary, const char *path, struct err *e)
{
    if (path_sync(temporary, e) == 0)
        return durable_place(temporary, path, e) < 0 ? -1 : durable_entry_sync(path, e);
    unlink(temporary);
    return -1;
}

int durable_write(const char *path, const void *data, size_t bytes, struct err *e)
{
    char temporary[PATH_MAX];
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.tmp", path) >= sizeof temporary)
        return err_set(e, EXIT_CODE_PERMANENT, "cannot write %.200s: the name is too long", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot make %s", temporary);
    int result = durable_pwrite_all(fd, data, bytes, 0, temporary, e);
    if (close(fd) < 0 && result == 0)
        result = err_errno(e, EXIT_CODE_TEMPORARY, "cannot close %s", temporary);
    if (result < 0) {
        unlink(temporary);
        return -1;
    }
    return durable_commit(temporary, path, e);
}

/* ---- reading ------------------------------------------------------------------------------------
 */

/* Read to the end, growing by doubling; one byte more than bytes_max tells an oversized file. */
static int stream_read(int fd, const char *path, size_t bytes_max, char **data, size_t *bytes,
                       struct err *e)
{
    size_t room = bytes_max < 65536 ? bytes_max : 65536, used = 0;
    char *buffer = malloc(room + 2);
    while (buffer) {
        ssize_t n = read(fd, buffer + used, room + 1 - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            free(buffer);
            return err_errno(e, EXIT_CODE_PERMANENT, "cannot read %s", path);
        }
        used += (size_t)n;
        if (n == 0 || used > bytes_max)
            break;
        if (used <= room)
            continue;
        room = room > bytes_max / 2 ? bytes_max : 2 * room;
        char *larger = realloc(buffer, room + 2);
        if (!larger)
            free(buffer);
        buffer = larger;
    }
    if (!buffer)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", path);
    if (used > bytes_max) {
        free(buffer);
        return err_set(e, EXIT_CODE_PERMANENT, "%s is larger than %zu bytes, the most accepted",
                       path, bytes_max);
    }
    buffer[used] = '\0';
    *data = buffer;
    *bytes = used;
    return 0;
}

int durable_read(const char *path, size_t bytes_max, char **data, size_t *bytes, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot open %s", path);
    int result = stream_read(fd, path, bytes_max, data, bytes, e);
    close(fd);
    return result;
}
