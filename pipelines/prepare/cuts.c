/* cuts.c - see cuts.h. */
#include "pipelines/prepare/cuts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_ROWS = 64 << 10, CUTS_MAX = 64 << 20 /* 512 MiB of them */ };

const char *check_path(const char *group, const char *name, char path[H5FILE_NAME_MAX + 1])
{
    snprintf(path, H5FILE_NAME_MAX + 1, "%s%s%s", group, group[0] ? "/" : "", name);
    return path;
}

static int describe(struct cuts *c, struct h5reader *r, const char *name, struct err *e)
{
    struct h5array *a = &c->array;
    if (h5reader_foreign(r, name, a, e) < 0)
        return -1;
    if (a->rank != 1 || a->dims[0] < 2 || h5type_name(a->type)[0] == 'f')
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has type %s, %d dimensions and %" PRIu64
                       " rows; expected a list of whole "
                       "numbers, the beginning of each row and the end of the last",
                       name, h5type_name(a->type), a->rank, a->rank ? a->dims[0] : 0);
    if (a->dims[0] > CUTS_MAX)
        return err_set(e, EXIT_CODE_PERMANENT, "%s has %" PRIu64 " rows; at most %d are checked",
                       name, a->dims[0], CUTS_MAX);
    c->at = malloc(a->dims[0] * sizeof *c->at);
    return c->at ? 0 : err_errno(e, EXIT_CODE_TEMPORARY, "cannot check %s", name);
}

/* All numbers as 8 bytes; a negative one is seen as one that is too large. */
static int numbers_read(struct cuts *c, struct h5reader *r, struct err *e)
{
    unsigned char block[BLOCK_ROWS * sizeof(uint64_t)];
    uint32_t step = h5type_bytes(c->array.type);
    uint64_t count = c->array.dims[0];
    for (uint64_t row = 0, rows; row < count; row += rows) {
        rows = count - row < BLOCK_ROWS ? count - row : BLOCK_ROWS;
        if (h5reader_rows(r, &c->array, row, rows, block, e) < 0)
            return -1;
        for (uint64_t i = 0; i < rows; i++) {
            c->at[row + i] = 0;
            memcpy(&c->at[row + i], block + i * step, step);
        }
    }
    return 0;
}

static int row_take(struct cuts *c, uint64_t row, struct err *e)
{
    if (row == 0 ? c->at[0] != 0 : c->at[row] < c->at[row - 1])
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s is %" PRIu64 " in row %" PRIu64 "; pointers begin with 0 and never fall",
                       c->array.name, c->at[row], row);
    if (row == 0)
        return 0;
    uint64_t items = c->at[row] - c->at[row - 1];
    c->shortest = c->rows == 0 || items < c->shortest ? items : c->shortest;
    c->longest = items > c->longest ? items : c->longest;
    c->empty += items == 0;
    c->rows++;
    return 0;
}

int cuts_open(struct cuts *c, struct h5reader *r, const char *name, uint64_t items, const char *of,
              struct err *e)
{
    memset(c, 0, sizeof *c);
    if (describe(c, r, name, e) < 0 || numbers_read(c, r, e) < 0)
        return -1;
    for (uint64_t row = 0; row < c->array.dims[0]; row++)
        if (row_take(c, row, e) < 0)
            return -1;
    if (c->at[c->rows] == items)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s ends with %" PRIu64 " and %s has %" PRIu64 " items; expected as many", name,
                   c->at[c->rows], of, items);
}

void cuts_close(struct cuts *c)
{
    free(c->at);
    memset(c, 0, sizeof *c);
}

void cuts_print(const struct cuts *c, const char *rows, const char *items)
{
    printf("  %s: %s [%" PRIu64 "], %s of %" PRIu64 " to %" PRIu64 " %s, %" PRIu64 " without any\n",
           c->array.name, h5type_name(c->array.type), c->array.dims[0], rows, c->shortest,
           c->longest, items, c->empty);
}
