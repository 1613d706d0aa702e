/* options_files.c - a pipeline file and those that it includes, as trees. */
#include <stdlib.h>
#include <string.h>

#include "proto/options_parts.h"

/* `name` beside the file at `path`, in new memory, or NULL. */
static char *path_beside(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    int directory = name[0] == '/' || !slash ? 0 : (int)(slash - path) + 1;
    char *joined;
    return asprintf(&joined, "%.*s%s", directory, path, name) < 0 ? NULL : joined;
}

int files_read(struct option_files *f, const char *path, struct err *e)
{
    char *next = strdup(path);
    for (;;) {
        struct node **tree = &f->trees[f->depth];
        const struct node *include = NULL;
        if (!next)
            return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read options");
        f->paths[f->depth] = next;
        if (node_read(next, tree, e) < 0)
            return f->depth ? err_prefix(e, "include of %.200s", f->paths[f->depth - 1]) : -1;
        for (const struct node *n = (*tree)->first; n && !include; n = n->next)
            if (strcmp(n->key, "include") == 0)
                include = n;
        f->depth++;
        if (!include)
            return 0;
        struct origin at = {next, include->line};
        if (include->kind != NODE_SCALAR || !include->text[0])
            return origin_error(at, e,
                                "include is no file name; accepted is one, relative to "
                                "this file");
        if (f->depth > INCLUDE_DEPTH_MAX)
            return origin_error(at, e,
                                "files include each other more than %d deep; does one include "
                                "itself?",
                                INCLUDE_DEPTH_MAX);
        next = path_beside(next, include->text);
    }
}

void files_free(struct option_files *f)
{
    for (int i = 0; i <= INCLUDE_DEPTH_MAX; i++) {
        node_free(f->trees[i]);
        free(f->paths[i]);
    }
    memset(f, 0, sizeof *f);
}
