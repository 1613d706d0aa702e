/* linear.c - y = x W^T + b, for each step of a row.
 *
 *   x [rows steps, in], y [rows steps, out], W [out, in] ("weight"), b [out] ("bias")
 *   backward: dW = dy^T x, db = sum over rows and steps of dy, dx = dy W
 *   squares: with one step a sample's gradient of W is the outer product dy x^T, so the sum over
 *   samples of its square is (dy^2)^T (x^2): FORMULAS "Exact per-sample Fisher" 1 (BackPACK,
 *   SumGradSquared of Linear). With several, each sample's dy^T x is formed and squared.
 */
#include <math.h>

#include "engine/layer.h"
#include "engine/squares.h"

extern const struct layer_type layer_linear;

enum { KEY_OUT };
enum { WEIGHT, BIAS };

static int linear_infer(struct layer_instance *l, struct tensor_info *tensors, struct err *e)
{
    (void)e;
    l->steps_out = l->steps;
    l->values_out = (uint64_t)l->keys[KEY_OUT];
    l->tensor_count = 2;
    tensors[WEIGHT] =
        (struct tensor_info){.name = "weight", .rank = 2, .dims = {l->values_out, l->values}};
    tensors[BIAS] = (struct tensor_info){.name = "bias", .rank = 1, .dims = {l->values_out}};
    return 0;
}

static struct matrix weight_of(const struct layer_instance *l, const float *parameters)
{
    return matrix_of(parameters, l->values_out, l->values);
}

/* U(-1/sqrt(in), 1/sqrt(in)) for both tensors, as torch.nn.Linear's reset_parameters. */
static void linear_initialise(const struct layer_instance *l, uint64_t seed, float *parameters)
{
    const uint64_t counts[] = {l->values_out * l->values, l->values_out};
    layer_initialise_uniform(l, counts, 1.0 / sqrt((double)l->values), seed, parameters);
}

static void linear_forward(const struct layer_instance *l, const struct layer_pass *p)
{
    struct matrix x = matrix_of(p->input, p->rows * l->steps, l->values);
    struct matrix y = matrix_of(p->output, p->rows * l->steps, l->values_out);
    const float *bias = p->parameters + l->values_out * l->values;
    if (p->loss) {
        p->loss_linear(p->loss, x, weight_of(l, p->weights), bias, p->kept);
        return;
    }
    if (p->finishes) {
        op_linear_forward(p->backend, x, weight_of(l, p->weights), bias, p->then, p->half, p->kept,
                          y);
        return;
    }
    layer_product(l, p, x, weight_of(l, p->weights), 0, y);
    op_bias_add(p->backend, y, bias);
}

static void linear_backward(const struct layer_instance *l, const struct layer_pass *p)
{
    struct matrix x = matrix_of(p->input, p->rows * l->steps, l->values);
    struct matrix dy = matrix_of(p->d_output, p->rows * l->steps, l->values_out);
    struct matrix dw = {0}, dx = {0};
    float *db = p->gradient ? p->gradient + l->values_out * l->values : NULL;
    if (p->gradient)
        dw = weight_of(l, p->gradient);
    if (p->d_input)
        dx = matrix_of(p->d_input, x.rows, x.columns);
    op_linear_backward(p->backend, dy, x, p->input_half, weight_of(l, p->weights), p->adds, dw, db,
                       p->before ? (enum activation)(p->before - 1) : ACTIVATION_COUNT, p->half,
                       p->d_input_rounds, dx);
}

/* A sample's gradient is a sum over its steps, or over the nodes of its graph. */
static int has_steps(const struct layer_instance *l)
{
    return l->steps > 1 || l->graphs;
}

static void linear_operands(const struct layer_instance *l, const struct layer_pass *p,
                            uint32_t tensor, struct samples *d, struct samples *x)
{
    (void)tensor; /* the only one */
    *d = samples_of(p->d_output, p->samples, l->values_out);
    *x = samples_of(p->input, p->samples, l->values);
}

static void linear_tile_squares(const struct layer_instance *l, const struct layer_pass *p,
                                const struct tile *t, const struct tile_work *w, float *sums)
{
    struct samples d, x;
    linear_operands(l, p, t->tensor, &d, &x);
    if (t->tensor == BIAS)
        squares_of_sums(p->backend, d, w, sums);
    else if (has_steps(l))
        squares_of_products(p->backend, samples_columns(d, t->row_first, t->rows), x, w, sums);
    else
        op_squares_product_add(
            p->backend,
            matrix_columns(matrix_of(p->d_output, p->rows, l->values_out), t->row_first, t->rows),
            matrix_of(p->input, p->rows, l->values), w->products,
            matrix_of(sums, t->rows, t->columns));
}

const struct layer_type layer_linear = {
    .name = "linear",
    .purpose = "y = x W^T + b",
    .quantises = 1,
    .finishes = 1,
    .finishes_back = 1,
    .takes_loss = 1,
    .adds = 1,
    .keys = {{"out", .whole = 1, .required = 1, .low = 1, .high = LAYER_WIDTH_MAX}},
    .infer = linear_infer,
    .initialise = linear_initialise,
    .forward = linear_forward,
    .backward = linear_backward,
    .operands = linear_operands,
    .tile_squares = linear_tile_squares,
};
