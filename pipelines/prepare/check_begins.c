/* check_begins.c - see check_begins.h. */
#include "pipelines/prepare/check_begins.h"

#include <inttypes.h>
#include <stdio.h>

#include "pipelines/prepare/cuts.h"
#include "pipelines/prepare/look.h"
#include "proto/begins.h"

enum { BLOCK_ROWS = 1 << 18 };

static int begins_open(struct look *l, struct h5reader *r, const char *path, uint64_t rows,
                       struct err *e)
{
    if (look_open(l, r, path, e) < 0)
        return err_prefix(e, "expected in begins is " BEGINS_WANTED);
    if (l->array.rank != 1 || h5type_name(l->array.type)[0] != 'u')
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has type %s and %d dimensions; expected " BEGINS_WANTED, path,
                       h5type_name(l->array.type), l->array.rank);
    if (begins_count_check(path, l->array.dims[0], rows, e) < 0)
        return -1;
    return look_room(l, BLOCK_ROWS, e);
}

int check_begins(struct h5reader *r, const struct options *o, const char *group, uint64_t rows,
                 struct err *e)
{
    struct look l = {0};
    char path[H5FILE_NAME_MAX + 1];
    uint64_t begin = 0;
    if (!o->data_stateful || !h5reader_has(r, check_path(group, "begins", path)))
        return 0;
    int result = begins_open(&l, r, path, rows, e);
    for (uint64_t row = 0, count; result == 0 && row < rows; row += count) {
        count = rows - row < BLOCK_ROWS ? rows - row : BLOCK_ROWS;
        result = look_read(&l, r, row, count, e);
        for (uint64_t i = 0; result == 0 && i < count; i++)
            begin += look_value(l.array.type, l.block + i * l.row_bytes) > 0;
    }
    if (result == 0) {
        look_print_shape(&l);
        printf(", %" PRIu64 " rows begin\n", begin);
    }
    look_close(&l);
    return result;
}
