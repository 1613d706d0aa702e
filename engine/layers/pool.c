/* pool.c - the steps of a row, or the nodes of a graph, become one: the last step, their mean, sum
 * or largest values; mean_sum leaves the means and behind them the sums. */
#include "engine/layer.h"

extern const struct layer_type layer_pool;

enum { KEY_KIND };

static const char *const kinds[] = {
    [POOL_LAST] = "last", [POOL_MEAN] = "mean",         [POOL_SUM] = "sum",
    [POOL_MAX] = "max",   [POOL_MEAN_SUM] = "mean_sum", [POOL_COUNT] = NULL};

static enum pooling kind_of(const struct layer_instance *l)
{
    return (enum pooling)l->keys[KEY_KIND];
}

static int pool_infer(struct layer_instance *l, struct tensor_info *tensors, struct err *e)
{
    (void)tensors;
    if (l->graphs && kind_of(l) == POOL_LAST)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "layer %u (pool): a graph has no last node; accepted for key 'kind' here: "
                       "mean, sum, max, mean_sum",
                       l->place);
    l->graphs_out = 0;
    l->steps_out = 1;
    l->values_out = l->values * (kind_of(l) == POOL_MEAN_SUM ? 2 : 1);
    return 0;
}

/* Only the places of largest values are looked for again. */
static int pool_forgets_input(const struct layer_instance *l)
{
    return kind_of(l) != POOL_MAX;
}

static struct matrix steps_of(const struct layer_instance *l, const struct layer_pass *p,
                              const float *at)
{
    return matrix_of(at, p->rows * l->steps, l->values);
}

static struct matrix pooled_of(const struct layer_instance *l, const struct layer_pass *p,
                               const float *at)
{
    return matrix_of(at, p->samples.count, l->values_out);
}

static void pool_forward(const struct layer_instance *l, const struct layer_pass *p)
{
    op_pool_forward(p->backend, kind_of(l), steps_of(l, p, p->input), p->samples,
                    pooled_of(l, p, p->output));
}

static void pool_backward(const struct layer_instance *l, const struct layer_pass *p)
{
    if (p->d_input)
        op_pool_backward(p->backend, kind_of(l), steps_of(l, p, p->input),
                         pooled_of(l, p, p->d_output), p->samples, steps_of(l, p, p->d_input));
}

static int pool_copies(const struct layer_instance *l)
{
    return kind_of(l) == POOL_LAST || kind_of(l) == POOL_SUM;
}

const struct layer_type layer_pool = {
    .name = "pool",
    .purpose = "one vector of a row's steps or a graph's nodes: the last, their mean, sum, largest "
               "values, or mean and sum",
    .keys = {{"kind", .required = 1, .words = kinds}},
    .copies = pool_copies,
    .forgets_input = pool_forgets_input,
    .infer = pool_infer,
    .forward = pool_forward,
    .backward = pool_backward,
};
