/* gcn.c - graph convolution (Kipf and Welling): each node takes the linear map of itself and of the
 * nodes with an edge to it.
 *
 *   y = A x W^T + b       as PyTorch Geometric's GCNConv: A[v, u] = 1 / sqrt(deg v deg u) for each
 *                         edge u -> v and for u = v (a stored self loop is that one), deg v = 1 +
 *                         edges that end in v
 *     + M U^T             edges=true: M[v] = sum over the edges u -> v of A[v, u] times the edge's
 *                         features, so that a message is W x_u + U e_uv ("edge_weight", U)
 *     + x                 residual=true: after the sum; an activation comes behind it, as a layer
 *
 *   x [nodes, in], y [nodes, out], W [out, in], b [out], U [out, edge features]; no activation
 *   backward: g = A^T dy; dW = g^T x, db = sum of dy, dU = dy^T M, dx = g W (+ dy)
 *   A layer that widens has (A x) W^T, dW = dy^T (A x), dx = A^T (dy W): A then goes over what is
 *   narrow. Where an operation does more at once (finishes, chained) it does not.
 *   squares: the nodes of a graph are its steps; dy_n^T (A x)_n is the same gradient as g_n^T x_n
 *            and leaves dy as b and U need it
 */
#include <math.h>
#include <inttypes.h>
#include <string.h>

#include "engine/layer.h"
#include "engine/memory.h"
#include "engine/squares.h"

extern const struct layer_type layer_gcn;

enum { KEY_OUT, KEY_RESIDUAL, KEY_EDGES };
enum { WEIGHT, BIAS, EDGE_WEIGHT };

static const char *const truth[] = {"false", "true", NULL};

static int gcn_infer(struct layer_instance *l, struct tensor_info *tensors, struct err *e)
{
    uint64_t out = (uint64_t)l->keys[KEY_OUT];
    if (l->keys[KEY_RESIDUAL] != 0 && out != l->values)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "layer %u (gcn): residual adds its input of %" PRIu64
                       " values a node to its output of %" PRIu64 "; both must be the same",
                       l->place, l->values, out);
    if (l->keys[KEY_EDGES] != 0 && !l->edge_values)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "layer %u (gcn): edges is true, and the edges of the data have no features "
                       "(edge_features)",
                       l->place);
    l->steps_out = l->steps;
    l->values_out = out;
    l->edges_used = l->keys[KEY_EDGES] != 0;
    l->tensor_count = l->edges_used ? 3 : 2;
    tensors[WEIGHT] = (struct tensor_info){.name = "weight", .rank = 2, .dims = {out, l->values}};
    tensors[BIAS] = (struct tensor_info){.name = "bias", .rank = 1, .dims = {out}};
    if (l->edges_used)
        tensors[EDGE_WEIGHT] =
            (struct tensor_info){.name = "edge_weight", .rank = 2, .dims = {out, l->edge_values}};
    return 0;
}

static struct matrix weight_of(const struct layer_instance *l, const float *parameters)
{
    return matrix_of(parameters, l->values_out, l->values);
}

static const float *bias_of(const struct layer_instance *l, const float *parameters)
{
    return parameters + l->values_out * l->values;
}

static struct matrix edge_weight_of(const struct layer_instance *l, const float *parameters)
{
    return matrix_of(bias_of(l, parameters) + l->values_out, l->values_out, l->edge_values);
}

/* glorot: U(-a, a), a = sqrt(6 / (in + out)); biases 0. */
static void glorot(const struct layer_instance *l, struct matrix w, uint32_t tensor, uint64_t seed)
{
    double bound = sqrt(6.0 / (double)(w.rows + w.columns));
    for (uint64_t i = 0; i < w.rows * w.columns; i++)
        w.at[i] = scalar_uniform(scalar_key(seed, l->tensor_first + tensor, i), bound);
}

static void gcn_initialise(const struct layer_instance *l, uint64_t seed, float *parameters)
{
    memset(parameters, 0, l->count * sizeof *parameters);
    glorot(l, weight_of(l, parameters), WEIGHT, seed);
    if (l->edges_used)
        glorot(l, edge_weight_of(l, parameters), EDGE_WEIGHT, seed);
}

/* x W^T and A^T dy are as wide as the output, A x as the input. */
static uint64_t gcn_scratch(const struct layer_instance *l, uint64_t rows, enum layer_keep keep,
                            int apart)
{
    (void)keep, (void)apart;
    return size_times(rows, l->values > l->values_out ? l->values : l->values_out);
}

/* Kernels read rows of a multiple of so many numbers in 16 bits, and have room for sums of so many
 * columns. */
enum { HALVES_UNIT = 8, CHAIN_WIDTH_MAX = 1 << 19 };

/* What the input and the gradient at the output go into elsewhere, too, is not chained. */
static enum layer_chain gcn_chains(const struct layer_instance *l)
{
    if (l->keys[KEY_RESIDUAL] != 0 || l->edges_used || l->values_out > CHAIN_WIDTH_MAX)
        return CHAIN_NONE;
    return l->values % HALVES_UNIT || l->values_out % HALVES_UNIT ? CHAIN_ACTIVATION : CHAIN_HALVES;
}

static struct mixed input_of(const struct layer_instance *l, const struct layer_pass *p)
{
    return mixed_at(p->input_half, p->input, p->rows, l->values);
}

/* In 16 bits. */
static struct mixed weight_half_of(const struct layer_instance *l, const struct layer_pass *p)
{
    return mixed_at(p->weights_half, NULL, l->values_out, l->values);
}

/* As wide as the output, in 16 bits. */
static struct mixed narrow_scratch(const struct layer_instance *l, const struct layer_pass *p)
{
    return mixed_at((uint16_t *)p->scratch, NULL, p->rows, l->values_out);
}

static int widens(const struct layer_instance *l)
{
    return l->values < l->values_out;
}

/* A x, in scratch. */
static struct matrix input_sums(const struct layer_instance *l, const struct layer_pass *p)
{
    struct matrix sums = matrix_of(p->scratch, p->rows, l->values);
    op_sparse_product(p->backend, p->adjacency, matrix_of(p->input, p->rows, l->values), NULL, 0,
                      sums);
    return sums;
}

static void widening_forward(const struct layer_instance *l, const struct layer_pass *p)
{
    struct matrix y = matrix_of(p->output, p->rows, l->values_out);
    if (l->edges_used)
        layer_product(l, p, p->edge_sums, edge_weight_of(l, p->weights), 0, y);
    layer_product(l, p, input_sums(l, p), weight_of(l, p->weights), (float)l->edges_used, y);
    op_bias_add(p->backend, y, bias_of(l, p->parameters));
}

/* Operands of products in 16 bits; it finishes. */
static void narrow_forward(const struct layer_instance *l, const struct layer_pass *p)
{
    struct matrix y = matrix_of(p->output_unread ? NULL : p->output, p->rows, l->values_out);
    op_convolution_forward(p->backend, p->adjacency, input_of(l, p), weight_half_of(l, p),
                           bias_of(l, p->parameters), p->then, p->half, p->kept,
                           narrow_scratch(l, p), y);
}

static void gcn_forward(const struct layer_instance *l, const struct layer_pass *p)
{
    if (p->halves) {
        narrow_forward(l, p);
        return;
    }
    if (widens(l) && !p->finishes) {
        widening_forward(l, p);
        return;
    }
    struct matrix x = matrix_of(p->input, p->rows, l->values);
    struct matrix y = matrix_of(p->output_unread ? NULL : p->output, p->rows, l->values_out);
    struct matrix h = matrix_of(p->scratch, p->rows, l->values_out);
    layer_product(l, p, x, weight_of(l, p->weights), 0, h);
    if (l->edges_used)
        layer_product(l, p, p->edge_sums, edge_weight_of(l, p->weights), 0, y);
    if (p->finishes) {
        op_sparse_forward(p->backend, p->adjacency, mixed_of(h), bias_of(l, p->parameters),
                          (float)l->edges_used, l->keys[KEY_RESIDUAL] != 0 ? p->input : NULL,
                          p->then, p->half, p->kept, y);
        return;
    }
    op_sparse_product(p->backend, p->adjacency, h, bias_of(l, p->parameters), (float)l->edges_used,
                      y);
    if (l->keys[KEY_RESIDUAL] != 0)
        op_add(p->backend, p->input, p->output, p->rows * l->values);
}

/* Where g goes. */
static struct mixed gradient_sums(const struct layer_instance *l, const struct layer_pass *p)
{
    if (p->d_output_half)
        return mixed_at(p->behind_half, NULL, p->rows, l->values_out);
    return p->halves ? narrow_scratch(l, p) : mixed_at(NULL, p->scratch, p->rows, l->values_out);
}

/* All of it at once, dy being what the activation behind makes of d_output. g may be rounded for
 * products, as the gates' gradients of an LSTM's layer are. */
static void chain_backward(const struct layer_instance *l, const struct layer_pass *p)
{
    struct convolution_back b = {
        .a = p->transposed,
        .half = p->half,
        .behind = p->behind,
        .kept = p->behind_kept,
        .d = mixed_at(p->d_output_half, p->d_output, p->rows, l->values_out),
        .g = gradient_sums(l, p),
        .x = input_of(l, p),
        .w = p->halves ? weight_half_of(l, p) : mixed_of(weight_of(l, p->weights)),
        .turn = p->turn,
        .adds = p->adds,
        .before = p->before ? (enum activation)(p->before - 1) : ACTIVATION_COUNT,
        .dx = mixed_at(p->d_input_half, p->d_input, p->rows, l->values),
    };
    if (p->gradient) {
        b.dw = weight_of(l, p->gradient);
        b.db = p->gradient + l->values_out * l->values;
    }
    op_convolution_backward(p->backend, b);
}

/* db and dU, which both forms have. */
static void sums_backward(const struct layer_instance *l, const struct layer_pass *p,
                          struct matrix dy)
{
    op_column_sums(p->backend, dy, p->adds, p->gradient + l->values_out * l->values);
    if (l->edges_used)
        op_product(p->backend, dy, 1, p->edge_sums, 0, (float)p->adds,
                   edge_weight_of(l, p->gradient));
}

static void widening_backward(const struct layer_instance *l, const struct layer_pass *p,
                              struct matrix dy)
{
    struct matrix h = matrix_of(p->scratch, p->rows, l->values);
    if (p->gradient) {
        op_product(p->backend, dy, 1, input_sums(l, p), 0, (float)p->adds,
                   weight_of(l, p->gradient));
        sums_backward(l, p, dy);
    }
    if (!p->d_input)
        return;
    op_product(p->backend, dy, 0, weight_of(l, p->weights), 0, 0, h);
    op_sparse_product(p->backend, p->transposed, h, NULL, 0,
                      matrix_of(p->d_input, p->rows, l->values));
}

static void gcn_backward(const struct layer_instance *l, const struct layer_pass *p)
{
    struct matrix x = matrix_of(p->input, p->rows, l->values);
    struct matrix dy = matrix_of(p->d_output, p->rows, l->values_out);
    struct matrix g = matrix_of(p->scratch, p->rows, l->values_out);
    if (p->chained) {
        chain_backward(l, p);
        return;
    }
    if (widens(l)) {
        widening_backward(l, p, dy);
        return;
    }
    op_sparse_product(p->backend, p->transposed, dy, NULL, 0, g);
    if (p->gradient) {
        op_product(p->backend, g, 1, x, 0, (float)p->adds, weight_of(l, p->gradient));
        sums_backward(l, p, dy);
    }
    if (!p->d_input)
        return;
    op_product(p->backend, g, 0, weight_of(l, p->weights), 0, 0,
               matrix_of(p->d_input, x.rows, x.columns));
    if (l->keys[KEY_RESIDUAL] != 0)
        op_add(p->backend, p->d_output, p->d_input, p->rows * l->values);
}

/* A x takes the input's place. */
static void gcn_squares_begin(const struct layer_instance *l, const struct layer_pass *p)
{
    op_copy(p->backend, input_sums(l, p).at, p->squares_input, p->rows * l->values);
}

static void gcn_operands(const struct layer_instance *l, const struct layer_pass *p,
                         uint32_t tensor, struct samples *d, struct samples *x)
{
    *d = samples_of(p->d_output, p->samples, l->values_out);
    *x = tensor == EDGE_WEIGHT ? samples_of(p->edge_sums.at, p->samples, l->edge_values)
                               : samples_of(p->squares_input, p->samples, l->values);
}

static void gcn_tile_squares(const struct layer_instance *l, const struct layer_pass *p,
                             const struct tile *t, const struct tile_work *w, float *sums)
{
    struct samples d, x;
    gcn_operands(l, p, t->tensor, &d, &x);
    if (t->tensor == BIAS)
        squares_of_sums(p->backend, d, w, sums);
    else
        squares_of_products(p->backend, samples_columns(d, t->row_first, t->rows), x, w, sums);
}

const struct layer_type layer_gcn = {
    .name = "gcn",
    .purpose = "graphs: y = A x W^T + b, A the edges and self loops over sqrt(deg deg); residual: "
               "+ x; edges: + M U^T, M = A's sums of the edges' features",
    .finishes = 1,
    .quantises = 1,
    .chains = gcn_chains,
    .adds = 1,
    .keys = {{"out", .whole = 1, .required = 1, .low = 1, .high = LAYER_WIDTH_MAX},
             {"residual", .words = truth},
             {"edges", .words = truth}},
    .takes = ROWS_GRAPHS,
    .spends = 1,
    .infer = gcn_infer,
    .initialise = gcn_initialise,
    .scratch_floats = gcn_scratch,
    .forward = gcn_forward,
    .backward = gcn_backward,
    .squares_begin = gcn_squares_begin,
    .operands = gcn_operands,
    .tile_squares = gcn_tile_squares,
};
