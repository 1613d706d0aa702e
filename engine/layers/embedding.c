/* embedding.c - y = W[token]: a row of tokens becomes a sequence of their vectors, as
 * torch.nn.Embedding.
 *
 *   tokens [rows, steps], whole numbers 0 to count - 1, which the gather sees to, if need be by
 *     another token until the step is refused;
 *   W [count, out] ("weight"), y [rows, steps, out]
 *   backward: dW[token] = sum of dy over the steps that have it; tokens have no gradient
 *   squares: that sum over a sample's steps, squared (FORMULAS "Exact per-sample Fisher" 6)
 */
#include <math.h>
#include <string.h>

#include "engine/layer.h"

extern const struct layer_type layer_embedding;

enum { KEY_COUNT, KEY_OUT };

static int embedding_infer(struct layer_instance *l, struct tensor_info *tensors, struct err *e)
{
    (void)e;
    l->token_count = (uint64_t)l->keys[KEY_COUNT];
    l->steps_out = l->inputs;
    l->values_out = (uint64_t)l->keys[KEY_OUT];
    l->tensor_count = 1;
    tensors[0] =
        (struct tensor_info){.name = "weight", .rank = 2, .dims = {l->token_count, l->values_out}};
    return 0;
}

/* N(0, 1), as torch.nn.Embedding's reset_parameters. */
static void embedding_initialise(const struct layer_instance *l, uint64_t seed, float *parameters)
{
    for (uint64_t i = 0; i < l->count; i++)
        parameters[i] = scalar_normal_random(scalar_key(seed, l->tensor_first, i));
}

static struct matrix weight_of(const struct layer_instance *l, const float *parameters)
{
    return matrix_of(parameters, l->token_count, l->values_out);
}

static struct matrix steps_of(const struct layer_instance *l, const struct layer_pass *p,
                              const float *at)
{
    return matrix_of(at, p->rows * l->steps_out, l->values_out);
}

static void embedding_forward(const struct layer_instance *l, const struct layer_pass *p)
{
    op_embedding_forward(p->backend, p->input, weight_of(l, p->weights), steps_of(l, p, p->output));
}

static void embedding_backward(const struct layer_instance *l, const struct layer_pass *p)
{
    if (!p->gradient)
        return;
    if (!p->adds)
        op_zero(p->backend, p->gradient, l->count);
    op_embedding_add(p->backend, p->input, 0, steps_of(l, p, p->d_output),
                     weight_of(l, p->gradient));
}

static void embedding_tile_squares(const struct layer_instance *l, const struct layer_pass *p,
                                   const struct tile *t, const struct tile_work *w, float *sums)
{
    struct samples dy = {matrix_of(p->d_output, l->steps_out, l->values_out), p->rows, l->outputs,
                         NULL};
    op_zero(p->backend, w->squares, t->count);
    op_embedding_square_add(p->backend, p->input, dy, t->row_first, w->products,
                            matrix_of(w->squares, t->rows, t->columns));
    op_add(p->backend, w->squares, sums, t->count);
}

const struct layer_type layer_embedding = {
    .name = "embedding",
    .purpose = "the first layer, of tokens: y = W[token], a vector of a table for each step",
    .keys = {{"count", .whole = 1, .required = 1, .low = 1, .high = LAYER_WIDTH_MAX},
             {"out", .whole = 1, .required = 1, .low = 1, .high = LAYER_WIDTH_MAX}},
    .takes = ROWS_TOKENS,
    .adds = 1,
    .infer = embedding_infer,
    .initialise = embedding_initialise,
    .forward = embedding_forward,
    .backward = embedding_backward,
    .tile_squares = embedding_tile_squares,
};
