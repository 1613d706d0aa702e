/* daemon_base.c - see daemon_base.h. The plan has to know a process that does not run yet; its
 * libraries differ from machine to machine, so it is measured instead of written down. */
#include "proto/daemon_base.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/log.h"

/* The files of a directory and of those in it, one level down; then the directory. */
static void directory_remove(const char *path, int depth)
{
    DIR *listing = opendir(path);
    for (struct dirent *entry; listing && (entry = readdir(listing));) {
        char name[512];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (unlink(name) != 0 && depth > 0)
            directory_remove(name, depth - 1);
    }
    if (listing)
        closedir(listing);
    rmdir(path);
}

struct base {
    uint64_t idle, warm; /* before and after its libraries were used */
};

/* Both sockets of a stage start ZeroMQ's threads. */
static int base_measure(const struct daemon_spec *spec, void *self, struct base *base,
                        struct err *e)
{
    struct link ctl = {0}, pub = {0};
    int result = -1;
    if (mkdir("sockets", 0700) != 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot make a directory for sockets");
    if (link_open(&ctl, LINK_ROUTER, ".", "base.ctl", NULL, e) == 0 &&
        link_open(&pub, LINK_PUB, ".", "base.pub", NULL, e) == 0) {
        base->idle = highwater_bytes(getpid(), "VmRSS");
        result = spec->warm ? spec->warm(self, e) : 0;
        base->warm = highwater_bytes(getpid(), "VmRSS");
    }
    link_close(&ctl);
    link_close(&pub);
    link_shutdown();
    return result;
}

int base_print(const struct daemon_spec *spec, void *self)
{
    const char *parent = getenv("TMPDIR");
    char directory[256];
    struct err e = {0};
    struct base base = {0};
    int result = -1;
    snprintf(directory, sizeof directory, "%s/finetuned-base-XXXXXX",
             parent && parent[0] == '/' && strlen(parent) < 200 ? parent : "/tmp");
    if (!mkdtemp(directory) || chdir(directory) != 0)
        err_errno(&e, EXIT_CODE_TEMPORARY, "cannot make a temporary directory (%s)", directory);
    else
        result = base_measure(spec, self, &base, &e);
    if (chdir("/") == 0)
        directory_remove(directory, 1);
    if (result == 0 &&
        (printf("base.%s=%llu\nbase.%s_idle=%llu\n", spec->stage, (unsigned long long)base.warm,
                spec->stage, (unsigned long long)base.idle) < 0 ||
         fflush(stdout) != 0))
        result = err_errno(&e, EXIT_CODE_TEMPORARY, "cannot print the base");
    if (result == 0)
        return EXIT_CODE_DONE;
    log_error("code=%d cannot measure what %s takes before it has work: %s", e.code, spec->stage,
              e.text);
    return e.code;
}
