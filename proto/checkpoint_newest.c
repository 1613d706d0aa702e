/* checkpoint_newest.c - see checkpoint.h: which of a directory's files a run goes on from.
 *
 * The names step-<step>-<task>.h5 say the order. Only where none of them is good the names that
 * keep a file for good are looked at, whose order the files themselves say: each is the state at
 * the end of an epoch.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/checkpoint_private.h"
#include "proto/log.h"

enum { FILES_MAX = 65536 };

struct found {
    uint64_t step, task;
    char name[80];
};

struct search {
    const char *dir;
    struct found *list;
    size_t count, room;
    size_t damaged;   /* files that were passed over so far */
    char newest[512]; /* why the first of them was */
    struct checkpoint_meta *meta;
};

/* "step-<digits>-<digits>.h5" and nothing else. */
static int step_parse(const char *name, struct found *f)
{
    int used = 0;
    return strncmp(name, "step-", 5) == 0 && name[5] >= '0' && name[5] <= '9' &&
           sscanf(name, "step-%" SCNu64 "-%" SCNu64 ".h5%n", &f->step, &f->task, &used) == 2 &&
           used != 0 && name[used] == 0;
}

static int name_keeps(const char *name)
{
    size_t length = strlen(name);
    return strcmp(name, "restore.h5") == 0 ||
           ((strncmp(name, "task-", 5) == 0 || strncmp(name, "best-", 5) == 0) && length > 3 &&
            strcmp(name + length - 3, ".h5") == 0);
}

/* Of two names of one state that a task's end has, else the one that was gone back to. */
static int newest_first(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    if (x->step != y->step)
        return x->step < y->step ? 1 : -1;
    if (x->task != y->task)
        return x->task < y->task ? 1 : -1;
    return strcmp(y->name, x->name);
}

static int found_add(struct search *s, const struct found *f, struct err *e)
{
    if (s->count == s->room) {
        size_t room = s->room ? 2 * s->room : 16;
        struct found *more = room > FILES_MAX ? NULL : reallocarray(s->list, room, sizeof *more);
        if (!more)
            return err_set(e, EXIT_CODE_TEMPORARY, "cannot list %s: more than %zu checkpoints",
                           s->dir, s->count);
        s->list = more;
        s->room = room;
    }
    s->list[s->count++] = *f;
    return 0;
}

static int path_make(const struct search *s, const char *name, char *path, size_t path_bytes,
                     struct err *e)
{
    int used = snprintf(path, path_bytes, "%s/%s", s->dir, name);
    if (used >= 0 && (size_t)used < path_bytes)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "the path of a checkpoint in %s has %d bytes, at most %zu fit", s->dir, used,
                   path_bytes - 1);
}

/* The names that keep a file, or the others, newest first. A file that does not say where it stands
 * comes last: what it is will be seen. */
static int files_list(struct search *s, int keeping, struct err *e)
{
    int result = 0;
    char path[4096];
    struct err why;
    s->count = 0;
    DIR *d = opendir(s->dir);
    if (!d)
        return errno == ENOENT ? 0 : err_errno(e, EXIT_CODE_PERMANENT, "cannot list %s", s->dir);
    for (struct dirent *entry; result == 0 && (entry = readdir(d));) {
        struct found f = {0};
        if (strlen(entry->d_name) >= sizeof f.name ||
            !(keeping ? name_keeps(entry->d_name) : step_parse(entry->d_name, &f)))
            continue;
        strcpy(f.name, entry->d_name);
        if (keeping && path_make(s, f.name, path, sizeof path, &why) == 0 &&
            checkpoint_read_meta(path, s->meta, NULL, 0, &why) == 0) {
            f.step = s->meta->step;
            f.task = s->meta->task;
        }
        result = found_add(s, &f, e);
    }
    closedir(d);
    if (s->count > 1)
        qsort(s->list, s->count, sizeof *s->list, newest_first);
    return result;
}

/* As checkpoint_newest of what is listed; 0: none of it is a state. */
static int list_verify(struct search *s, char *path, size_t path_bytes, struct err *e)
{
    int result = 0;
    for (size_t i = 0; result == 0 && i < s->count; i++) {
        if (path_make(s, s->list[i].name, path, path_bytes, e) < 0)
            return -1;
        result = checkpoint_verify(path, s->meta, e);
        if (result)
            break;
        log_warn("checkpoint=%s \"passed over: %s\"", path, e->text);
        if (!s->damaged++)
            snprintf(s->newest, sizeof s->newest, "%.500s", e->text);
    }
    return result;
}

int checkpoint_newest(const char *dir, char *path, size_t path_bytes, struct err *e)
{
    struct search s = {.dir = dir, .meta = malloc(sizeof *s.meta)};
    int result = 0;
    if (!s.meta)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot look for checkpoints in %s", dir);
    for (int keeping = 0; result == 0 && keeping < 2; keeping++) {
        result = files_list(&s, keeping, e);
        if (result == 0)
            result = list_verify(&s, path, path_bytes, e);
    }
    if (result == 0 && s.damaged)
        result = err_set(e, EXIT_CODE_PERMANENT,
                         "none of the %zu checkpoints in %s can be read (%s); bring one of them "
                         "back, or begin anew in another --run",
                         s.damaged, dir, s.newest);
    free(s.list);
    free(s.meta);
    return result;
}
