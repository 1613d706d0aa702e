/* batchnorm.c - y = (x - mean) / sqrt(variance + 1e-5) weight + bias, a value of a row at a time,
 * mean and variance over all rows of the micro-batch and their steps, as torch.nn.BatchNorm1d.
 *
 *   training: running = (1 - momentum) running + momentum (mean; variance with n - 1)
 *   evaluation, Fisher information: running_mean and running_var instead; a sample's gradients are
 *   its own then, and the squares sums over its steps, as layer normalisation's
 *
 * The statistics cross slices: the stepper gathers each slice's part (statistics.c).
 */
#include <stdio.h>

#include "engine/layer.h"

extern const struct layer_type layer_batchnorm;

enum { KEY_MOMENTUM };
enum { WEIGHT, BIAS, TENSORS, RUNNING_MEAN = TENSORS, RUNNING_VAR };

static int batchnorm_infer(struct layer_instance *l, struct tensor_info *tensors, struct err *e)
{
    static const char *const names[] = {[WEIGHT] = "weight",
                                        [BIAS] = "bias",
                                        [RUNNING_MEAN] = "running_mean",
                                        [RUNNING_VAR] = "running_var"};
    layer_infer_same(l, tensors, e);
    l->tensor_count = TENSORS;
    l->buffer_count = RUNNING_VAR + 1 - TENSORS;
    for (int i = 0; i <= RUNNING_VAR; i++) {
        tensors[i] = (struct tensor_info){.rank = 1, .dims = {l->values}};
        snprintf(tensors[i].name, sizeof tensors[i].name, "%s", names[i]);
    }
    return 0;
}

static double batchnorm_momentum(const struct layer_instance *l)
{
    return l->keys[KEY_MOMENTUM];
}

static struct matrix rows_of(const struct layer_instance *l, const struct layer_pass *p,
                             const float *at)
{
    return matrix_of(at, p->rows * l->steps, l->values);
}

static void batchnorm_part_forward(const struct layer_instance *l, const struct layer_pass *p)
{
    op_batchnorm_moments(p->backend, rows_of(l, p, p->input), p->part->first, p->part->second);
}

static void batchnorm_forward(const struct layer_instance *l, const struct layer_pass *p)
{
    op_batchnorm_forward(p->backend, rows_of(l, p, p->input), p->statistics->mean,
                         p->statistics->scale, p->parameters, p->parameters + l->values,
                         rows_of(l, p, p->output));
}

/* dweight = sum of dy n, dbias = sum of dy: the slice's part is its gradient. */
static void batchnorm_part_backward(const struct layer_instance *l, const struct layer_pass *p)
{
    op_batchnorm_sums(p->backend, rows_of(l, p, p->input), p->statistics->mean,
                      p->statistics->scale, rows_of(l, p, p->d_output), p->part->first,
                      p->part->second);
    if (!p->gradient)
        return;
    op_narrow(p->backend, p->part->second, p->gradient, l->values);
    op_narrow(p->backend, p->part->first, p->gradient + l->values, l->values);
}

static void batchnorm_backward(const struct layer_instance *l, const struct layer_pass *p)
{
    if (p->d_input)
        op_batchnorm_backward(p->backend, rows_of(l, p, p->input), p->statistics->mean,
                              p->statistics->scale, p->parameters, p->statistics->d,
                              p->statistics->dn, rows_of(l, p, p->d_output),
                              rows_of(l, p, p->d_input));
}

static void batchnorm_squares_begin(const struct layer_instance *l, const struct layer_pass *p)
{
    op_batchnorm_forward(p->backend, rows_of(l, p, p->input), p->statistics->mean,
                         p->statistics->scale, NULL, NULL, rows_of(l, p, p->squares_input));
    op_multiply(p->backend, p->d_output, p->squares_input, p->rows * l->inputs);
}

const struct layer_type layer_batchnorm = {
    .name = "batchnorm",
    .purpose = "each value to mean 0 and variance 1 over the micro-batch's rows and steps, times "
               "weight, plus bias; evaluation uses running statistics",
    .keys = {{"momentum", .low = 0, .high = 1, .normal = 0.1}},
    .statistics = 1,
    .spends = 1,
    .eps = 1e-5,
    .infer = batchnorm_infer,
    .initialise = layer_initialise_scale,
    .momentum = batchnorm_momentum,
    .part_forward = batchnorm_part_forward,
    .forward = batchnorm_forward,
    .part_backward = batchnorm_part_backward,
    .backward = batchnorm_backward,
    .squares_begin = batchnorm_squares_begin,
    .tile_squares = layer_tile_squares_scale,
};
