/* pool.c - the steps of a row become one: the last, their mean, sum or largest values. */
#include "engine/layer.h"

extern const struct layer_type layer_pool;

enum { KEY_KIND };

static const char *const kinds[] = {[POOL_LAST] = "last",
                                    [POOL_MEAN] = "mean",
                                    [POOL_SUM] = "sum",
                                    [POOL_MAX] = "max",
                                    [POOL_COUNT] = NULL};

static int pool_infer(struct layer_instance *l, struct tensor_info *tensors, struct err *e)
{
    (void)tensors, (void)e;
    l->steps_out = 1;
    l->values_out = l->values;
    return 0;
}

static struct matrix steps_of(const struct layer_instance *l, const struct layer_pass *p,
                              const float *at)
{
    return matrix_of(at, p->rows * l->steps, l->values);
}

static void pool_forward(const struct layer_instance *l, const struct layer_pass *p)
{
    op_pool_forward(p->backend, (enum pooling)l->keys[KEY_KIND], steps_of(l, p, p->input), l->steps,
                    matrix_of(p->output, p->rows, l->values));
}

static void pool_backward(const struct layer_instance *l, const struct layer_pass *p)
{
    if (p->d_input)
        op_pool_backward(p->backend, (enum pooling)l->keys[KEY_KIND], steps_of(l, p, p->input),
                         matrix_of(p->d_output, p->rows, l->values), l->steps,
                         steps_of(l, p, p->d_input));
}

const struct layer_type layer_pool = {
    .name = "pool",
    .purpose = "one step of all: the last, their mean, sum or largest values",
    .keys = {{"kind", .required = 1, .words = kinds}},
    .infer = pool_infer,
    .forward = pool_forward,
    .backward = pool_backward,
};
