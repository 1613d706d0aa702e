/* check_tokens.c - see check_tokens.h. */
#include "pipelines/prepare/check_tokens.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "pipelines/prepare/look.h"

enum { BLOCK_BYTES = 4 << 20 };

struct documents {
    uint64_t count, empty, shortest, longest;
    uint64_t last; /* pointer read last */
};

const char *check_path(const char *group, const char *name, char path[H5FILE_NAME_MAX + 1])
{
    snprintf(path, H5FILE_NAME_MAX + 1, "%s%s%s", group, group[0] ? "/" : "", name);
    return path;
}

int check_tokens_has(struct h5reader *r, const char *group)
{
    char path[H5FILE_NAME_MAX + 1];
    return h5reader_has(r, check_path(group, "tokens", path));
}

/* Read all of one data set; visit its values as whole numbers, if asked to. */
static int set_read(struct h5reader *r, struct look *l, const char *group, const char *name,
                    int (*visit)(struct documents *d, const struct look *l, uint64_t index,
                                 uint64_t value, struct err *e),
                    struct documents *d, struct err *e)
{
    char path[H5FILE_NAME_MAX + 1];
    if (look_open(l, r, check_path(group, name, path), e) < 0)
        return -1;
    const struct h5array *a = &l->array;
    if (a->rank != 1 || (a->type != H5TYPE_U8 && a->type != H5TYPE_U16 && a->type != H5TYPE_U32 &&
                         a->type != H5TYPE_U64))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has type %s and %d dimensions; expected unsigned integers in one", path,
                       h5type_name(a->type), a->rank);
    uint64_t step = l->row_bytes, block = BLOCK_BYTES / step;
    if (look_room(l, block, e) < 0)
        return -1;
    for (uint64_t row = 0, rows; row < a->dims[0]; row += rows) {
        rows = a->dims[0] - row < block ? a->dims[0] - row : block;
        if (look_read(l, r, row, rows, e) < 0)
            return -1;
        for (uint64_t i = 0; visit && i < rows; i++) {
            uint64_t value = 0;
            memcpy(&value, l->block + i * step, step);
            if (visit(d, l, row + i, value, e) < 0)
                return -1;
        }
    }
    return 0;
}

static int pointer_visit(struct documents *d, const struct look *l, uint64_t index, uint64_t value,
                         struct err *e)
{
    if (index == 0 ? value != 0 : value < d->last)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s is %" PRIu64 " in row %" PRIu64 "; pointers begin with 0 and never fall",
                       l->array.name, value, index);
    if (index > 0) {
        uint64_t tokens = value - d->last;
        d->shortest = d->count == 0 || tokens < d->shortest ? tokens : d->shortest;
        d->longest = tokens > d->longest ? tokens : d->longest;
        d->empty += tokens == 0;
        d->count++;
    }
    d->last = value;
    return 0;
}

int check_tokens(struct h5reader *r, const char *group, struct err *e)
{
    struct look tokens = {0}, pointers = {0};
    struct documents d = {0};
    int result = -1;
    if (set_read(r, &tokens, group, "tokens", NULL, NULL, e) < 0 ||
        set_read(r, &pointers, group, "doc_ptr", pointer_visit, &d, e) < 0)
        goto out;
    if (d.last != tokens.array.dims[0] || d.count == 0) {
        err_set(e, EXIT_CODE_PERMANENT,
                "%s ends with %" PRIu64 " and %s has %" PRIu64 " rows; expected as many",
                pointers.array.name, d.last, tokens.array.name, tokens.array.dims[0]);
        goto out;
    }
    look_print_shape(&tokens);
    look_print_range(&tokens);
    look_print_shape(&pointers);
    printf(", documents of %" PRIu64 " to %" PRIu64 " tokens, %" PRIu64 " of them empty\n",
           d.shortest, d.longest, d.empty);
    result = 0;
out:
    look_close(&tokens);
    look_close(&pointers);
    return result;
}
