/* place.c - see place.h. */
#include "pipelines/prepare/place.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Network file systems give the exclusive lock to who may write only. */
static int place_open(const char *out)
{
    int fd = open(out, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    return fd >= 0 ? fd : open(out, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

static int has_name(int fd, const char *path)
{
    struct stat held, named;
    return fstat(fd, &held) == 0 && stat(path, &named) == 0 && held.st_dev == named.st_dev &&
           held.st_ino == named.st_ino;
}

/* 0: nobody uses the file that has the name, until *fd is closed if that is not -1; -1 and *e. */
static int place_lock(const char *out, int *fd, struct err *e)
{
    while ((*fd = place_open(out)) >= 0) {
        if (flock(*fd, LOCK_EX | LOCK_NB) == 0) {
            if (has_name(*fd, out))
                return 0;
        } else if (errno != EINTR) {
            break;
        }
        close(*fd); /* it was replaced meanwhile: another file has the name */
    }
    if (*fd < 0)
        return 0; /* there is none */
    int used = errno == EWOULDBLOCK;
    close(*fd);
    *fd = -1;
    return used ? err_set(e, EXIT_CODE_PERMANENT,
                          "%s is in use by a run or another program, so it is not made anew; "
                          "accepted are the source and the options it was made with, another "
                          "data.file, or to wait until that ends",
                          out)
                : 0;
}

/* Those that lead to the file. */
static int directories_make(const char *file, struct err *e)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s", file) >= (int)sizeof path)
        return err_set(e, EXIT_CODE_PERMANENT, "the path of --out has more than %d bytes",
                       PATH_MAX - 1);
    for (char *at = path + 1; (at = strchr(at, '/')); at++) {
        *at = 0;
        if (mkdir(path, 0777) != 0 && errno != EEXIST)
            return err_errno(e, EXIT_CODE_PERMANENT, "cannot make the directory %s", path);
        *at = '/';
    }
    return 0;
}

int place_ready(const char *out, struct err *e)
{
    int fd;
    if (directories_make(out, e) < 0)
        return -1;
    h5writer_sweep_dead(out);
    if (place_lock(out, &fd, e) < 0)
        return -1;
    if (fd >= 0)
        close(fd);
    return 0;
}

static char unfinished[PATH_MAX]; /* the file that is being written */

static void on_end(int number)
{
    unlink(unfinished);
    raise(number); /* which is as it was before, and waits until we return */
}

int place_begin(struct h5writer **w_p, const char *out, struct err *e)
{
    static const int ends[] = {SIGHUP, SIGINT, SIGTERM};
    struct sigaction before, action = {.sa_handler = on_end, .sa_flags = (int)SA_RESETHAND};
    if (h5writer_open(w_p, out, e) < 0)
        return -1;
    snprintf(unfinished, sizeof unfinished, "%s", h5writer_temporary(*w_p));
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (sigaction(ends[i], NULL, &before) == 0 && before.sa_handler == SIG_DFL)
            sigaction(ends[i], &action, NULL);
    return 0;
}

int place_commit(struct h5writer **w_p, const char *out, struct err *e)
{
    int fd = -1, result = place_lock(out, &fd, e);
    if (result == 0)
        result = h5writer_commit(w_p, e);
    h5writer_abandon(w_p);
    if (fd >= 0)
        close(fd);
    return result;
}
