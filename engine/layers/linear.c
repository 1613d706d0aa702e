/* linear.c - y = x W^T + b.
 *
 *   x [rows, in], y [rows, out], W [out, in] ("weight"), b [out] ("bias")
 *   backward: dW = dy^T x, db = sum over rows of dy, dx = dy W
 *   squares: a sample's gradient of W is the outer product dy x^T, so the sum over samples of its
 * square is (dy^2)^T (x^2): FORMULAS "Exact per-sample Fisher" 1 (BackPACK, SumGradSquared of
 * Linear)
 */
#include <math.h>

#include "engine/layer.h"

extern const struct layer_type layer_linear;

enum { KEY_OUT };

/* Values of a tile of squares: 256 KiB stay in a core's second-level cache between product and sum.
 */
enum { TILE_FLOATS = 65536 };

static void linear_infer(struct layer_instance *l, struct tensor_info *tensors)
{
    l->outputs = (uint64_t)l->values[KEY_OUT];
    l->tensor_count = 2;
    tensors[0] = (struct tensor_info){.name = "weight", .rank = 2, .dims = {l->outputs, l->inputs}};
    tensors[1] = (struct tensor_info){.name = "bias", .rank = 1, .dims = {l->outputs}};
}

static struct matrix linear_weight(const struct layer_instance *l, const float *parameters)
{
    return matrix_of(parameters, l->outputs, l->inputs);
}

/* U(-1/sqrt(in), 1/sqrt(in)) for both tensors, as torch.nn.Linear's reset_parameters. */
static void linear_initialise(const struct layer_instance *l, uint64_t seed, float *parameters)
{
    double bound = 1.0 / sqrt((double)l->inputs);
    uint64_t weights = l->outputs * l->inputs;
    for (uint64_t i = 0; i < l->count; i++) {
        uint32_t tensor = l->tensor_first + (i >= weights);
        uint64_t index = i >= weights ? i - weights : i;
        parameters[i] = scalar_uniform(scalar_key(seed, tensor, index), bound);
    }
}

static void linear_forward(const struct layer_instance *l, const struct layer_pass *p)
{
    struct matrix x = matrix_of(p->input, p->rows, l->inputs);
    struct matrix y = matrix_of(p->output, p->rows, l->outputs);
    op_product(p->backend, x, 0, linear_weight(l, p->parameters), 1, 0, y);
    op_bias_add(p->backend, y, p->parameters + l->outputs * l->inputs);
}

static void linear_backward(const struct layer_instance *l, const struct layer_pass *p)
{
    struct matrix x = matrix_of(p->input, p->rows, l->inputs);
    struct matrix dy = matrix_of(p->d_output, p->rows, l->outputs);
    if (p->gradient) {
        op_product(p->backend, dy, 1, x, 0, 0, linear_weight(l, p->gradient));
        op_column_sums(p->backend, dy, p->gradient + l->outputs * l->inputs);
    }
    if (p->d_input)
        op_product(p->backend, dy, 0, linear_weight(l, p->parameters), 0, 0,
                   matrix_of(p->d_input, p->rows, l->inputs));
}

/* Rows of W in a tile: even shares, whole rows, at least one. */
static uint64_t tile_rows(const struct layer_instance *l)
{
    uint64_t rows = TILE_FLOATS / l->inputs;
    rows = rows ? rows : 1;
    uint64_t tiles = (l->outputs + rows - 1) / rows;
    return (l->outputs + tiles - 1) / tiles;
}

/* The bias is the tile behind the weight's. */
static void linear_tile_range(const struct layer_instance *l, uint64_t tile, uint64_t *first,
                              uint64_t *count)
{
    uint64_t rows = tile_rows(l), tiles = (l->outputs + rows - 1) / rows;
    uint64_t row = tile * rows;
    *first = tile < tiles ? row * l->inputs : l->outputs * l->inputs;
    if (tile < tiles)
        *count = (l->outputs - row < rows ? l->outputs - row : rows) * l->inputs;
    else
        *count = tile == tiles ? l->outputs : 0;
}

static void linear_tile_squares(const struct layer_instance *l, const struct backend *b,
                                uint64_t tile, struct matrix x2, struct matrix d2, float *squares)
{
    uint64_t first, count;
    linear_tile_range(l, tile, &first, &count);
    if (first == l->outputs * l->inputs)
        op_column_sums(b, d2, squares);
    else
        op_product(b, matrix_columns(d2, first / l->inputs, count / l->inputs), 1, x2, 0, 0,
                   matrix_of(squares, count / l->inputs, l->inputs));
}

const struct layer_type layer_linear = {
    .name = "linear",
    .purpose = "y = x W^T + b",
    .keys = {{"out", .whole = 1, .required = 1, .low = 1, .high = LAYER_WIDTH_MAX}},
    .infer = linear_infer,
    .initialise = linear_initialise,
    .forward = linear_forward,
    .backward = linear_backward,
    .tile_range = linear_tile_range,
    .tile_squares = linear_tile_squares,
};
