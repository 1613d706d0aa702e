/* layernorm.c - y = (x - mean) / sqrt(variance + 1e-5) weight + bias, each step of a row by itself,
 * as torch.nn.LayerNorm over the last dimension.
 *
 *   n = x normalised: dweight = sum over rows and steps of dy n, dbias = sum of dy
 *   squares: with dy n in the input's place, both are sums over a sample's steps
 */
#include "engine/layer.h"

extern const struct layer_type layer_layernorm;

enum { WEIGHT, BIAS };
static const double EPS = 1e-5;

static int layernorm_infer(struct layer_instance *l, struct tensor_info *tensors, struct err *e)
{
    layer_infer_same(l, tensors, e);
    l->tensor_count = 2;
    tensors[WEIGHT] = (struct tensor_info){.name = "weight", .rank = 1, .dims = {l->values}};
    tensors[BIAS] = (struct tensor_info){.name = "bias", .rank = 1, .dims = {l->values}};
    return 0;
}

static struct matrix rows_of(const struct layer_instance *l, const struct layer_pass *p,
                             const float *at)
{
    return matrix_of(at, p->rows * l->steps, l->values);
}

static void layernorm_forward(const struct layer_instance *l, const struct layer_pass *p)
{
    op_layernorm_forward(p->backend, rows_of(l, p, p->input), p->parameters,
                         p->parameters + l->values, EPS, rows_of(l, p, p->output));
}

static void layernorm_backward(const struct layer_instance *l, const struct layer_pass *p)
{
    float *gradient = p->gradient;
    struct matrix dx = p->d_input ? rows_of(l, p, p->d_input) : (struct matrix){0};
    if (p->d_input || gradient)
        op_layernorm_backward(p->backend, rows_of(l, p, p->input), p->parameters, EPS,
                              rows_of(l, p, p->d_output), dx, p->adds, gradient,
                              gradient ? gradient + l->values : NULL);
}

static void layernorm_squares_begin(const struct layer_instance *l, const struct layer_pass *p)
{
    op_layernorm_forward(p->backend, rows_of(l, p, p->input), NULL, NULL, EPS,
                         rows_of(l, p, p->squares_input));
    op_multiply(p->backend, p->d_output, p->squares_input, p->rows * l->inputs);
}

const struct layer_type layer_layernorm = {
    .name = "layernorm",
    .purpose = "each step of a row to mean 0 and variance 1, times weight, plus bias",
    .adds = 1,
    .spends = 1,
    .infer = layernorm_infer,
    .initialise = layer_initialise_scale,
    .forward = layernorm_forward,
    .backward = layernorm_backward,
    .squares_begin = layernorm_squares_begin,
    .tile_squares = layer_tile_squares_scale,
};
