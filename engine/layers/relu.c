/* relu.c - y = max(x, 0); backward dx = dy where y > 0. In place: the sign of y tells what x was.
 */
#include "engine/layer.h"

extern const struct layer_type layer_relu;

static void relu_infer(struct layer_instance *l, struct tensor_info *tensors)
{
    (void)tensors;
    l->outputs = l->inputs;
}

static void relu_forward(const struct layer_instance *l, const struct layer_pass *p)
{
    op_relu_forward(p->backend, p->input, p->output, p->rows * l->outputs);
}

static void relu_backward(const struct layer_instance *l, const struct layer_pass *p)
{
    if (p->d_input)
        op_relu_backward(p->backend, p->output, p->d_output, p->d_input, p->rows * l->outputs);
}

const struct layer_type layer_relu = {
    .name = "relu",
    .purpose = "y = max(x, 0)",
    .in_place = 1,
    .needs_output = 1,
    .infer = relu_infer,
    .forward = relu_forward,
    .backward = relu_backward,
};
