/* check_tokens.c - see check_tokens.h. */
#include "pipelines/prepare/check_tokens.h"

#include <inttypes.h>
#include <stdio.h>

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

/* Rows of `window` tokens with the first of which a document begins, as loaderd marks them. */
static void begins_print(const struct cuts *documents, uint64_t tokens, uint64_t window)
{
    uint64_t all = (tokens - 1) / window, begin = 0;
    for (uint64_t i = 0; i < documents->rows; i++) {
        uint64_t at = documents->at[i], is_empty = at == documents->at[i + 1];
        begin += !is_empty && at % window == 0 && at / window < all;
    }
    printf("  %" PRIu64 " of %" PRIu64 " rows begin\n", begin, all);
}

int check_tokens(struct h5reader *r, const char *group, uint64_t window, int stateful,
                 struct err *e)
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
    if (result == 0 && stateful)
        begins_print(&documents, tokens.array.dims[0], window);
out:
    look_close(&tokens);
    cuts_close(&documents);
    return result;
}
