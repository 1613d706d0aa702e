/* sequence.c - a row of S V values is read as S steps of V values: [N, T, F] of the file as a time
 * series. steps=1 makes one vector of it again. Nothing moves.
 */
#include <inttypes.h>

#include "engine/layer.h"

extern const struct layer_type layer_sequence;

enum { KEY_STEPS };

static int sequence_infer(struct layer_instance *l, struct tensor_info *tensors, struct err *e)
{
    uint64_t steps = (uint64_t)l->keys[KEY_STEPS];
    (void)tensors;
    if (l->inputs % steps != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "layer %u (sequence): %" PRIu64 " values a row (%" PRIu64 " x %" PRIu64
                       ") are not %" PRIu64 " equal steps",
                       l->place, l->inputs, l->steps, l->values, steps);
    l->steps_out = steps;
    l->values_out = l->inputs / steps;
    return 0;
}

static void sequence_pass(const struct layer_instance *l, const struct layer_pass *p)
{
    (void)l, (void)p;
}

const struct layer_type layer_sequence = {
    .name = "sequence",
    .purpose = "read a row as steps of equal length",
    .keys = {{"steps", .whole = 1, .required = 1, .low = 1, .high = LAYER_WIDTH_MAX}},
    .same = 1,
    .takes = ROWS_NO_GRAPHS,
    .infer = sequence_infer,
    .forward = sequence_pass,
    .backward = sequence_pass,
};
