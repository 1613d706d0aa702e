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

static int tokens_open(struct look *l, struct h5reader *r, const char *name, struct err *e)
{
    if (look_open(l, r, name, e) < 0)
        return -1;
    if (l->array.rank != 1 || h5type_name(l->array.type)[0] != 'u')
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has type %s and %d dimensions; expected unsigned integers in one", name,
                       h5type_name(l->array.type), l->array.rank);
    return 0;
}

enum { BLOCK_TOKENS = 1 << 20 };

/* The first token from `from` to before `to` that is not below `limit` (0: any is), of a block
 * whose first one is `first`; or UINT64_MAX. */
static uint64_t astray_find(const struct look *l, uint64_t first, uint64_t tokens, uint64_t from,
                            uint64_t to, uint64_t limit)
{
    uint32_t step = h5type_bytes(l->array.type);
    for (uint64_t i = 0; limit && i < tokens; i++)
        if (first + i >= from && first + i < to &&
            look_value(l->array.type, l->block + i * step) >= (double)limit)
            return first + i;
    return UINT64_MAX;
}

static void astray_note(const struct look *l, uint64_t first, uint64_t at, uint64_t limit,
                        const char *what, struct err *wrong)
{
    const unsigned char *token = l->block + (at - first) * h5type_bytes(l->array.type);
    if (at != UINT64_MAX && !wrong->code)
        err_set(wrong, EXIT_CODE_PERMANENT,
                "%s: token %" PRIu64 " is %.0f, and %s; accepted: 0 to %" PRIu64, l->array.name, at,
                look_value(l->array.type, token), what, limit - 1);
}

/* Look at all; those that go into the model and those that it predicts (what does not fill a row is
 * neither) are compared with what it has. */
static int tokens_read(struct look *l, struct h5reader *r, const struct tokens_wanted *wanted,
                       struct err *wrong, struct err *e)
{
    uint64_t all = l->array.dims[0], used = all ? (all - 1) / wanted->window * wanted->window : 0;
    if (look_room(l, BLOCK_TOKENS, e) < 0)
        return -1;
    for (uint64_t first = 0, tokens; first < all; first += tokens) {
        tokens = all - first < BLOCK_TOKENS ? all - first : BLOCK_TOKENS;
        if (look_read(l, r, first, tokens, e) < 0)
            return -1;
        astray_note(l, first, astray_find(l, first, tokens, 0, used, wanted->tokens),
                    wanted->tokens, "the model's first layer, the embedding, counts fewer", wrong);
        astray_note(l, first, astray_find(l, first, tokens, 1, used + 1, wanted->outputs),
                    wanted->outputs, "the model has fewer outputs to predict it", wrong);
    }
    return 0;
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

int check_tokens(struct h5reader *r, const char *group, const struct tokens_wanted *wanted,
                 struct err *wrong, struct err *e)
{
    uint64_t window = wanted->window;
    char path[H5FILE_NAME_MAX + 1];
    struct look tokens = {0};
    struct cuts documents = {0};
    int result = -1;
    if (tokens_open(&tokens, r, check_path(group, "tokens", path), e) < 0 ||
        tokens_read(&tokens, r, wanted, wrong, e) < 0 ||
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
    if (result == 0 && wanted->stateful)
        begins_print(&documents, tokens.array.dims[0], window);
out:
    look_close(&tokens);
    cuts_close(&documents);
    return result;
}
