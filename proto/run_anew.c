/* run_anew.c - see run_anew.h.
 */
#include "proto/run_anew.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/lineage.h"

static int path_make(char path[PATH_MAX], const char *directory, const char *name)
{
    int used = snprintf(path, PATH_MAX, "%s/%s", directory, name);
    return used < PATH_MAX ? 0 : -1;
}

/* Call see(path, e) for each entry of RUN/below until it returns other than 0, which is returned. A
 * directory that is not there has none; -1 where it cannot be listed. run_make saw that names of
 * directories fit. */
static int entries_each(const char *run, const char *below,
                        int (*see)(const char *path, struct err *e), struct err *e)
{
    char directory[PATH_MAX], path[PATH_MAX];
    int result = 0;
    ensure(path_make(directory, run, below) == 0);
    DIR *d = opendir(directory);
    if (!d)
        return errno == ENOENT ? 0 : err_errno(e, EXIT_CODE_PERMANENT, "cannot list %s", directory);
    for (struct dirent *entry; result == 0 && (entry = readdir(d));)
        if (entry->d_name[0] != '.' && path_make(path, directory, entry->d_name) == 0)
            result = see(path, e);
    closedir(d);
    return result;
}

static int is_checkpoint(const char *path, struct err *e)
{
    (void)e;
    size_t length = strlen(path);
    return strcmp(path + length - 3, ".h5") == 0;
}

static int is_held(const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot open %s", path);
    int held = flock(fd, LOCK_SH | LOCK_NB) < 0;
    close(fd);
    return held;
}

/* A lineage whose last record is not whole does not say where it stood. */
static int lineage_allows(const char *run)
{
    char path[PATH_MAX];
    struct lineage_record last;
    struct err ignored;
    struct stat st;
    ensure(path_make(path, run, "lineage") == 0);
    if (stat(path, &st) < 0)
        return errno == ENOENT;
    return st.st_size == 0 ||
           (lineage_last(path, &last, &ignored) == 1 && lineage_is_beginning(&last));
}

int run_is_untrained(const char *run)
{
    struct err ignored;
    return lineage_allows(run) && entries_each(run, "checkpoints", is_checkpoint, &ignored) == 0 &&
           entries_each(run, "locks", is_held, &ignored) == 0;
}

static int file_remove(const char *path, struct err *e)
{
    return unlink(path) == 0 || errno == ENOENT
               ? 0
               : err_errno(e, EXIT_CODE_PERMANENT, "cannot remove %s", path);
}

int run_forget(const char *run, struct err *e)
{
    static const char *const files[] = {"changed", "lineage"};
    static const char *const below[] = {"journals", "highwater", "prepared"};
    char path[PATH_MAX];
    int result = 0;
    for (size_t i = 0; result == 0 && i < sizeof files / sizeof files[0]; i++) {
        ensure(path_make(path, run, files[i]) == 0);
        result = file_remove(path, e);
    }
    for (size_t i = 0; result == 0 && i < sizeof below / sizeof below[0]; i++)
        result = entries_each(run, below[i], file_remove, e);
    return result;
}
