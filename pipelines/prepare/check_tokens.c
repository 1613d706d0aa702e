/* check_tokens.c - see check_tokens.h. */
#include "pipelines/prepare/check_tokens.h"

#include <inttypes.h>

#include "pipelines/prepare/cuts.h"
#include "pipelines/prepare/look.h"

int check_tokens_has(struct h5reader *r, const char *group)
{
    char path[H5FILE_NAME_MAX + 1];
    return h5reader_has(r, check_path(group, "tokens", path));
}

static int tokens_look(struct look *l, struct h5reader *r, const char *name, struct err *e)
{
    if (look_open(l, r, name, e) < 0)
        return -1;
    if (l->array.rank != 1 || h5type_name(l->array.type)[0] != 'u')
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has type %s and %d dimensions; expected unsigned integers in one", name,
                       h5type_name(l->array.type), l->array.rank);
    return look_all(l, r, e);
}

int check_tokens(struct h5reader *r, const char *group, uint64_t window, struct err *e)
{
    char path[H5FILE_NAME_MAX + 1];
    struct look tokens = {0};
    struct cuts documents = {0};
    int result = -1;
    if (tokens_look(&tokens, r, check_path(group, "tokens", path), e) < 0 ||
        cuts_open(&documents, r, check_path(group, "doc_ptr", path), tokens.array.dims[0],
                  tokens.array.name, e) < 0)
        goto out;
    look_print_shape(&tokens);
    look_print_range(&tokens);
    cuts_print(&documents, "documents", "tokens");
    if (tokens.array.dims[0] > window)
        result = 0;
    else
        err_set(e, EXIT_CODE_PERMANENT,
                "%s has %" PRIu64 " tokens; a row is data.window tokens, here %" PRIu64
                ", and the next one",
                tokens.array.name, tokens.array.dims[0], window);
out:
    look_close(&tokens);
    cuts_close(&documents);
    return result;
}
