/* dropout.c - while training, zero each value with probability p and scale the others by 1 / (1 -
 * p).
 *
 * The mask is a function of (seed, step, layer, row of the batch, unit): backward computes it again
 * instead of keeping it, and it is the same for every number of threads and slices.
 */
#include <string.h>

#include "engine/layer.h"

extern const struct layer_type layer_dropout;

enum { KEY_P };

static void dropout_apply(const struct layer_instance *l, const struct layer_pass *p,
                          const float *in, float *out)
{
    struct dropout_late late = {.step = p->step_late, .seed = p->seed, .place = l->place};
    struct dropout_mask mask = {dropout_key_late(&late, p->step), p->row_first, l->keys[KEY_P],
                                late};
    if (p->training && mask.p > 0)
        op_dropout(p->backend, matrix_of(in, p->rows, l->inputs),
                   matrix_of(out, p->rows, l->inputs), &mask);
    else if (in != out)
        op_copy(p->backend, in, out, p->rows * l->inputs);
}

static void dropout_forward(const struct layer_instance *l, const struct layer_pass *p)
{
    dropout_apply(l, p, p->input, p->output);
}

static void dropout_backward(const struct layer_instance *l, const struct layer_pass *p)
{
    if (p->d_input)
        dropout_apply(l, p, p->d_output, p->d_input);
}

const struct layer_type layer_dropout = {
    .name = "dropout",
    .purpose = "training: zero with probability p, scale the rest by 1 / (1 - p)",
    .keys = {{"p", .required = 1, .below_high = 1, .low = 0, .high = 1}},
    .in_place = 1,
    .draws = 1,
    .infer = layer_infer_same,
    .forward = dropout_forward,
    .backward = dropout_backward,
};
