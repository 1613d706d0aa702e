/* seen.c - see seen.h. */
#include "pipelines/prepare/seen.h"

static int64_t nanoseconds(struct timespec t)
{
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

struct seen seen_of(const struct stat *st)
{
    return (struct seen){.bytes = st->st_size,
                         .modified_ns = nanoseconds(st->st_mtim),
                         .changed_ns = nanoseconds(st->st_ctim)};
}

int seen_check(const struct seen *s, const char *path, struct err *e)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return seen_changed(path, e);
    struct seen now = seen_of(&st);
    return now.bytes == s->bytes && now.modified_ns == s->modified_ns &&
                   now.changed_ns == s->changed_ns
               ? 0
               : seen_changed(path, e);
}

int seen_changed(const char *path, struct err *e)
{
    return err_set(e, EXIT_CODE_TEMPORARY,
                   "%s changed while it was read; start again when nothing writes to it", path);
}
