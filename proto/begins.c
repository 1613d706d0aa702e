/* begins.c - see begins.h. */
#include "proto/begins.h"

#include <inttypes.h>

int begins_count_check(const char *path, uint64_t count, uint64_t rows, struct err *e)
{
    if (count == rows)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s has %" PRIu64 " rows, where %" PRIu64 " rows begin or go on", path, count,
                   rows);
}
