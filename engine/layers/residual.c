/* residual.c - y = x + f(x): residual_begin marks x, residual_end adds it to what the layers
 * between them made of it.
 *
 * Two lines instead of one that counts layers ("from: 3"): lines in between can come and go, and
 * pairs nest. model.c finds the partners and checks that both shapes agree. The begin's output is
 * its input; the gradient that passes by the layers waits in d_skip.
 */
#include <string.h>

#include "engine/layer.h"

extern const struct layer_type layer_residual_begin, layer_residual_end;

static void begin_forward(const struct layer_instance *l, const struct layer_pass *p)
{
    (void)l, (void)p;
}

static void begin_backward(const struct layer_instance *l, const struct layer_pass *p)
{
    if (p->d_input)
        op_add(p->backend, p->d_skip, p->d_input, p->rows * l->inputs);
}

static void end_forward(const struct layer_instance *l, const struct layer_pass *p)
{
    if (p->input != p->output)
        op_copy(p->backend, p->input, p->output, p->rows * l->outputs);
    if (p->skip)
        op_add(p->backend, p->skip, p->output, p->rows * l->outputs);
    else
        op_add_half(p->backend, p->half, p->skip_half, p->output, p->rows * l->outputs);
}

static void end_backward(const struct layer_instance *l, const struct layer_pass *p)
{
    uint64_t values = p->rows * l->outputs;
    op_copy(p->backend, p->d_output, p->d_skip, values);
    if (p->d_input && p->d_input != p->d_output)
        op_copy(p->backend, p->d_output, p->d_input, values);
}

/* needs_output: residual_end reads it, so no layer may overwrite it. */
const struct layer_type layer_residual_begin = {
    .name = "residual_begin",
    .purpose = "mark x for the residual_end that belongs to it",
    .same = 1,
    .needs_output = 1,
    .residual = 1,
    .infer = layer_infer_same,
    .forward = begin_forward,
    .backward = begin_backward,
};

const struct layer_type layer_residual_end = {
    .name = "residual_end",
    .purpose = "add the x of residual_begin",
    .in_place = 1,
    .residual = -1,
    .infer = layer_infer_same,
    .forward = end_forward,
    .backward = end_backward,
};
