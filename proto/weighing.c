/* weighing.c - see weighing.h. What is wrong with a single weight the engine says, which knows the
 * row. */
#include "proto/weighing.h"

#include <inttypes.h>
#include <string.h>

int weighing_name_check(const char *name, struct err *e)
{
    if (!strchr(name, '/'))
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "data.weights is \"%s\"; expected the name of a data set in the split's group, "
                   "without /",
                   name);
}

int weighing_count_check(const char *path, uint64_t count, uint64_t wanted, int of_tokens,
                         struct err *e)
{
    if (count == wanted)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s has %" PRIu64 " %s, where there are %" PRIu64 " to be weighed", path, count,
                   of_tokens ? "numbers" : "rows", wanted);
}

int weighing_width_check(uint64_t values, uint64_t targets, struct err *e)
{
    if (values <= 1 || values == targets)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "its weights are %" PRIu64 " values a row; accepted: one for the row, or one "
                   "for each of its %" PRIu64 " targets",
                   values, targets);
}

int weighing_absent(const char *name, struct err *e)
{
    return err_set(e, EXIT_CODE_PERMANENT,
                   "there is no data set `%s`, which data.weights names; it says what the targets "
                   "weigh",
                   name);
}

int weighing_nothing(uint64_t rows, struct err *e)
{
    return err_set(e, EXIT_CODE_PERMANENT,
                   "none of the %" PRIu64 " rows has a target that counts (model.missing_targets, "
                   "data.weights)",
                   rows);
}
