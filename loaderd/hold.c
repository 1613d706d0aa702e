/* hold.c - see hold.h. */
#include "loaderd/hold.h"

#include <errno.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "loaderd/child.h"
#include "proto/log.h"

/* Whoever replaces a file, or writes in it by libhdf5, has the exclusive lock for as long as that
 * takes; longer than this we do not wait. */
enum { WAIT_MS = 2000, POLL_MS = 20 };

static int has_name(int fd, const char *path)
{
    struct stat held, named;
    return fstat(fd, &held) == 0 && stat(path, &named) == 0 && held.st_dev == named.st_dev &&
           held.st_ino == named.st_ino;
}

/* The descriptor whose lock was taken, or -1. */
static int file_lock(const char *path)
{
    struct err ignored;
    for (int waited_ms = 0;; waited_ms += POLL_MS) {
        int fd = child_file_open(path, &ignored);
        if (fd < 0)
            return -1;
        int failed = flock(fd, LOCK_SH | LOCK_NB) != 0 ? errno : 0;
        if (!failed && has_name(fd, path))
            return fd;
        close(fd);
        if (failed && failed != EWOULDBLOCK && failed != EINTR)
            return -1; /* there are no locks here */
        if (waited_ms >= WAIT_MS) {
            log_warn("part=hold another process has %s locked: it may change while it is read",
                     path);
            return -1;
        }
        nanosleep(&(struct timespec){0, POLL_MS * 1000000L}, NULL);
    }
}

void hold_file(struct holds *h, const char *path)
{
    for (int i = 0; i < h->count; i++)
        if (has_name(h->fd[i], path))
            return;
    if (h->count == HOLDS_MAX)
        return;
    int fd = file_lock(path);
    if (fd >= 0)
        h->fd[h->count++] = fd;
}

void hold_tasks(struct holds *h, const struct options *o)
{
    static struct options view; /* large */
    for (uint32_t i = 0; i < o->task_count; i++) {
        options_of_task(o, i, &view);
        hold_file(h, view.data_file);
    }
}

void holds_close(struct holds *h)
{
    while (h->count > 0)
        close(h->fd[--h->count]);
}
