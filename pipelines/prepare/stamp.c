/* stamp.c - see stamp.h. */
#include "pipelines/prepare/stamp.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int stamp_file(const char *path, char *stamp, size_t bytes, struct err *e)
{
    struct stat st;
    const char *slash = strrchr(path, '/');
    if (stat(path, &st) != 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot look at %s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, EXIT_CODE_PERMANENT, "%s is not a regular file", path);
    snprintf(stamp, bytes, "%.300s %lld %lld.%09ld", slash ? slash + 1 : path,
             (long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    return 0;
}
