/* activation.c - relu, gelu, silu, tanh, sigmoid: y = f(x), element by element.
 *
 * relu, tanh and sigmoid tell their derivative from y, so they may work in place; gelu and silu
 * need x. With half what they keep and leave is rounded on the way.
 */
#include "engine/layer.h"

extern const struct layer_type layer_relu, layer_gelu, layer_silu, layer_tanh, layer_sigmoid;

static void run_forward(const struct layer_instance *l, const struct layer_pass *p,
                        enum activation kind)
{
    uint64_t count = p->rows * l->outputs;
    if (p->half)
        op_activation_forward_half(p->backend, kind, p->half, p->input, p->output, p->output_half,
                                   count);
    else
        op_activation_forward(p->backend, kind, p->input, p->output, count);
}

static void run_backward(const struct layer_instance *l, const struct layer_pass *p,
                         enum activation kind)
{
    const float *kept = l->type->needs_output ? p->output : p->input;
    uint64_t count = p->rows * l->outputs;
    if (!p->d_input)
        return;
    if (p->half)
        op_activation_backward_half(p->backend, kind, p->half, p->kept_half, p->d_output,
                                    p->d_input, count);
    else
        op_activation_backward(p->backend, kind, kept, p->d_output, p->d_input, count);
}

#define ACTIVATION(NAME, KIND, FROM_OUTPUT, PURPOSE)                                               \
    static void NAME##_forward(const struct layer_instance *l, const struct layer_pass *p)         \
    {                                                                                              \
        run_forward(l, p, KIND);                                                                   \
    }                                                                                              \
    static void NAME##_backward(const struct layer_instance *l, const struct layer_pass *p)        \
    {                                                                                              \
        run_backward(l, p, KIND);                                                                  \
    }                                                                                              \
    const struct layer_type layer_##NAME = {                                                       \
        .name = #NAME,                                                                             \
        .purpose = PURPOSE,                                                                        \
        .in_place = FROM_OUTPUT,                                                                   \
        .needs_output = FROM_OUTPUT,                                                               \
        .activates = 1 + KIND,                                                                     \
        .rounds = 1,                                                                               \
        .infer = layer_infer_same,                                                                 \
        .forward = NAME##_forward,                                                                 \
        .backward = NAME##_backward,                                                               \
    }

ACTIVATION(relu, ACTIVATION_RELU, 1, "y = max(x, 0)");
ACTIVATION(gelu, ACTIVATION_GELU, 0, "y = x Phi(x), Phi the normal distribution function");
ACTIVATION(silu, ACTIVATION_SILU, 0, "y = x / (1 + exp(-x))");
ACTIVATION(tanh, ACTIVATION_TANH, 1, "y = tanh(x)");
ACTIVATION(sigmoid, ACTIVATION_SIGMOID, 1, "y = 1 / (1 + exp(-x))");
