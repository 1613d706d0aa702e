/* split.c - see split.h. */
#include "pipelines/prepare/split.h"

#include <math.h>

#include "proto/order.h"

enum { SPLIT_KEY = 0x73706c69 /* "spli": the split's own stream of the seed */ };

uint64_t split_validation(const struct options *o, uint64_t rows)
{
    uint64_t validation = (uint64_t)llround((double)rows * o->prepare_validation_fraction);
    return validation < 1 ? 1 : validation > rows - 1 ? rows - 1 : validation;
}

int split_evaluates(const struct options *o, uint64_t rows, uint64_t validation, uint64_t row)
{
    if (o->prepare_split[0] == 'l') /* last */
        return row >= rows - validation;
    return order_permute(order_key(o->prepare_split_seed, SPLIT_KEY), rows, row) < validation;
}
