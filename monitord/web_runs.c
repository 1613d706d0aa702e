/* web_runs.c - see web_runs.h. */
#include "monitord/web_runs.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/msg_fields.h"

static int root_open(struct web_runs *w, struct err *e)
{
    w->root = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return w->root < 0
               ? err_errno(e, EXIT_CODE_PERMANENT, "cannot open the directory %.500s", w->path)
               : 0;
}

int web_runs_open(struct web_runs *w, const char *root, const char *run, struct err *e)
{
    char *slash;
    memset(w, 0, sizeof *w);
    w->root = -1;
    if (!realpath(run ? run : root, w->path))
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot find the %s %s",
                         run ? "run" : "directory of runs", run ? run : root);
    if (run) {
        slash = strrchr(w->path, '/');
        snprintf(w->only, sizeof w->only, "%s", slash + 1);
        slash[slash == w->path] = '\0'; /* "/" stays */
    }
    if (root_open(w, e) < 0)
        return -1;
    if (run && web_run_enter(w, w->only) < 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s is no run of yours: a directory with a pipeline.yaml is accepted", run);
    web_run_leave(w);
    return 0;
}

void web_runs_close(struct web_runs *w)
{
    if (w->root >= 0)
        close(w->root);
    w->root = -1;
}

/* Where another directory stands in the root's place it is that one from now on. */
static void root_follow(struct web_runs *w)
{
    struct stat was, is;
    int old = w->root;
    struct err e;
    if (stat(w->path, &is) < 0 || fstat(old, &was) < 0 ||
        (is.st_ino == was.st_ino && is.st_dev == was.st_dev))
        return;
    if (root_open(w, &e) < 0)
        w->root = old;
    else
        close(old);
    web_run_leave(w);
}

static int name_is_text(const char *name)
{
    size_t bytes = strlen(name), at = 0, step = 1;
    for (; at < bytes && step; at += step)
        step = msg_utf8_bytes(name + at, bytes - at);
    return at == bytes && step;
}

int web_run_enter(const struct web_runs *w, const char *name)
{
    struct stat st;
    if (!name[0] || name[0] == '.' || strlen(name) > WEB_NAME_MAX || strchr(name, '/') ||
        !name_is_text(name) || (w->only[0] && strcmp(name, w->only) != 0))
        return -1;
    int fd = openat(w->root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int entered = fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == geteuid() &&
                  faccessat(fd, "pipeline.yaml", R_OK, 0) == 0 && fchdir(fd) == 0;
    if (fd >= 0)
        close(fd);
    return entered ? 0 : -1;
}

void web_run_leave(const struct web_runs *w)
{
    ensure(fchdir(w->root) == 0);
}

struct web_place web_place_here(void)
{
    struct stat st;
    if (stat(".", &st) < 0)
        return (struct web_place){0, 0};
    return (struct web_place){st.st_dev, st.st_ino};
}

/* As s6-svok asks: somebody listens on the control pipe of a stage's supervisor. */
static int stands_live(void)
{
    struct stat st;
    int fd = open("services/trainerd/supervise/control", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return 0;
    int live = fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);
    close(fd);
    return live;
}

static void run_look(struct web_run *r, const char *name)
{
    static const char *const dated[] = {"verdict", "supervisor", "pipeline.yaml"};
    struct stat st;
    snprintf(r->name, sizeof r->name, "%s", name);
    r->sentence[0] = '\0';
    r->live = stands_live();
    r->code = run_verdict(".", r->sentence, sizeof r->sentence);
    r->changed_s = 0;
    for (size_t i = 0; i < sizeof dated / sizeof *dated && r->changed_s == 0; i++)
        if (stat(dated[i], &st) == 0)
            r->changed_s = (double)st.st_mtime;
}

/* The live ones, then the newest. */
static int run_order(const void *a, const void *b)
{
    const struct web_run *x = a, *y = b;
    if (x->live != y->live)
        return y->live - x->live;
    if (x->changed_s != y->changed_s)
        return x->changed_s < y->changed_s ? 1 : -1;
    return strcmp(x->name, y->name);
}

/* Of more than there is room for the one that would come last is left out. */
static void run_add(struct web_runs *w, const char *name)
{
    static struct web_run new;
    run_look(&new, name);
    if (w->count < WEB_RUNS_MAX) {
        w->runs[w->count++] = new;
        return;
    }
    struct web_run *last = w->runs;
    for (int i = 1; i < WEB_RUNS_MAX; i++)
        if (run_order(&w->runs[i], last) > 0)
            last = &w->runs[i];
    w->left_out++;
    if (run_order(&new, last) < 0)
        *last = new;
}

void web_runs_look(struct web_runs *w)
{
    root_follow(w);
    int fd = openat(w->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    w->count = w->left_out = 0;
    for (struct dirent *d; directory && (d = readdir(directory));) {
        if (web_run_enter(w, d->d_name) < 0)
            continue;
        run_add(w, d->d_name);
        web_run_leave(w);
    }
    if (directory)
        closedir(directory);
    else if (fd >= 0)
        close(fd);
    qsort(w->runs, (size_t)w->count, sizeof w->runs[0], run_order);
}
