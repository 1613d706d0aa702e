/* plan_bases.c - see plan_bases.h. */
#include "trainerd/plan_bases.h"

#include <stdlib.h>
#include <string.h>

#include "proto/durable.h"

enum { FILE_BYTES_MAX = 4096 };

struct base {
    const char *key;
    uint64_t *bytes;
};

enum { BASES = 6 };

static void bases_list(struct plan_bases *b, struct base list[BASES])
{
    const struct base all[BASES] = {
        {"trainerd", &b->trainerd}, {"fisherd", &b->fisherd}, {"fisherd_idle", &b->fisherd_idle},
        {"loaderd", &b->loaderd},   {"reader", &b->reader},   {"monitord", &b->monitord}};
    memcpy(list, all, sizeof all);
}

void plan_bases_set(struct plan_bases *b, const char *key, const char *value)
{
    struct base list[BASES];
    bases_list(b, list);
    for (int i = 0; i < BASES; i++)
        if (strcmp(key, list[i].key) == 0)
            *list[i].bytes = strtoull(value, NULL, 10);
}

int plan_bases_check(const struct plan_bases *b, const char *where, struct err *e)
{
    struct plan_bases copy = *b;
    struct base list[BASES];
    bases_list(&copy, list);
    for (int i = 0; i < BASES; i++)
        if (!*list[i].bytes)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "cannot plan: %s does not say what %s takes before it has work "
                           "(base.%s=BYTES); `prepare bases` measures it, `prepare run` writes it",
                           where, list[i].key, list[i].key);
    return 0;
}

int plan_bases_read(struct plan_bases *b, const char *path, struct err *e)
{
    char *text = NULL, *rest = NULL;
    size_t bytes;
    *b = (struct plan_bases){0};
    if (durable_read(path, FILE_BYTES_MAX, &text, &bytes, e) < 0)
        return -1;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *value = strchr(line, '=');
        if (value && strncmp(line, "base.", 5) == 0) {
            *value++ = 0;
            plan_bases_set(b, line + 5, value);
        }
    }
    free(text);
    return plan_bases_check(b, path, e);
}
