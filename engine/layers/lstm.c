/* lstm.c - a long short-term memory over the steps of a row: several layers, one or two directions.
 *
 *   gates = x W_ih^T + b_ih + h W_hh^T + b_hh     rows of the weights in PyTorch's order i, f, g, o
 *   c = f c + i g, h = o tanh(c)                  c and h begin at 0
 *
 * As torch.nn.LSTM: names and layouts of the tensors, both biases, dropout on the outputs of all
 * layers but the last, the reverse direction's outputs behind the forward one's. Inside, steps come
 * before rows ([steps, rows, values]): the x of all steps is one product, and a step's rows lie
 * together. A slice keeps its x, gates, c and h; backward turns the gates into the gradients at
 * their sums in place, and all that is left of it is products over all steps. The squares take a
 * sample's rows out of the same arrays.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/layer.h"
#include "engine/memory.h"
#include "engine/squares.h"

extern const struct layer_type layer_lstm;

enum { KEY_OUT, KEY_LAYERS, KEY_BIDIRECTIONAL, KEY_DROPOUT };
enum { WEIGHT_IH, WEIGHT_HH, BIAS_IH, BIAS_HH, TENSORS };
enum { LAYERS_MAX = 8 };

static const char *const truth[] = {"false", "true", NULL};

/* Sizes of all layers. */
struct shape {
    uint64_t hidden, layers, directions, steps;
};

/* One direction of one layer: its tensors in the parameters or in a gradient. */
struct part {
    uint64_t in;          /* values of its x */
    uint64_t at[TENSORS]; /* offset in the layer's range */
    uint64_t count[TENSORS];
};

/* Where a slice's arrays of one layer are; of one direction: gates, c. */
struct place {
    float *x;        /* [steps, rows, in] */
    float *h;        /* [steps, rows, directions hidden] */
    float *gates[2]; /* [steps, rows, 4 hidden] */
    float *c[2];     /* [steps, rows, hidden] */
};

static struct shape shape_of(const struct layer_instance *l)
{
    return (struct shape){(uint64_t)l->keys[KEY_OUT], (uint64_t)l->keys[KEY_LAYERS],
                          1 + (uint64_t)l->keys[KEY_BIDIRECTIONAL], l->steps};
}

static uint64_t layer_in(const struct layer_instance *l, uint64_t layer)
{
    struct shape s = shape_of(l);
    return layer ? s.directions * s.hidden : l->values;
}

static struct part part_of(const struct layer_instance *l, uint64_t layer, uint64_t direction)
{
    struct shape s = shape_of(l);
    struct part p = {0};
    uint64_t end = 0;
    for (uint64_t i = 0; i <= layer * s.directions + direction; i++) {
        p.in = layer_in(l, i / s.directions);
        p.count[WEIGHT_IH] = 4 * s.hidden * p.in;
        p.count[WEIGHT_HH] = 4 * s.hidden * s.hidden;
        p.count[BIAS_IH] = p.count[BIAS_HH] = 4 * s.hidden;
        for (int t = 0; t < TENSORS; t++) {
            p.at[t] = end;
            end += p.count[t];
        }
    }
    return p;
}

static int lstm_infer(struct layer_instance *l, struct tensor_info *tensors, struct err *e)
{
    static const char *const names[] = {"weight_ih", "weight_hh", "bias_ih", "bias_hh"};
    struct shape s = shape_of(l);
    (void)e;
    l->steps_out = l->steps;
    l->values_out = s.directions * s.hidden;
    for (uint64_t i = 0; i < s.layers * s.directions; i++)
        for (int t = 0; t < TENSORS; t++) {
            struct tensor_info *info = &tensors[l->tensor_count++];
            *info = (struct tensor_info){.rank = t < BIAS_IH ? 2 : 1, .dims = {4 * s.hidden}};
            info->dims[1] = t == WEIGHT_IH   ? layer_in(l, i / s.directions)
                            : t == WEIGHT_HH ? s.hidden
                                             : 0;
            snprintf(info->name, sizeof info->name, "%s_l%u%s", names[t],
                     (unsigned)(i / s.directions), i % s.directions ? "_reverse" : "");
        }
    return 0;
}

/* U(-1/sqrt(out), 1/sqrt(out)) for everything, as torch.nn.LSTM's reset_parameters. */
static void lstm_initialise(const struct layer_instance *l, uint64_t seed, float *parameters)
{
    struct shape s = shape_of(l);
    uint64_t counts[LAYER_TENSORS_MAX];
    for (uint64_t i = 0; i < s.layers * s.directions; i++) {
        struct part p = part_of(l, i / s.directions, i % s.directions);
        memcpy(counts + i * TENSORS, p.count, sizeof p.count);
    }
    layer_initialise_uniform(l, counts, 1.0 / sqrt((double)s.hidden), seed, parameters);
}

/* Is x of a layer another array than h of the layer below it? */
static int x_is_own(const struct layer_instance *l, uint64_t layer)
{
    return layer == 0 || l->keys[KEY_DROPOUT] > 0;
}

/* Values of one row and step that a layer keeps. */
static uint64_t layer_values(const struct layer_instance *l, uint64_t layer)
{
    struct shape s = shape_of(l);
    uint64_t own = x_is_own(l, layer) ? layer_in(l, layer) : 0;
    return own + s.directions * s.hidden * (1 + 4 + 1); /* h, gates, c */
}

static uint64_t lstm_saved(const struct layer_instance *l, uint64_t rows)
{
    uint64_t values = 0;
    for (uint64_t i = 0; i < shape_of(l).layers; i++)
        values += layer_values(l, i);
    return size_times(size_times(rows, l->steps), values);
}

/* Gradients at the outputs and the inputs of a layer, [steps, rows, values] each, then the one at
 * c, and zeroes, [rows, hidden] each. */
static uint64_t scratch_width(const struct layer_instance *l)
{
    struct shape s = shape_of(l);
    uint64_t out = s.directions * s.hidden;
    return out > l->values ? out : l->values;
}

static uint64_t lstm_scratch(const struct layer_instance *l, uint64_t rows)
{
    uint64_t steps = size_times(size_times(rows, l->steps), 2 * scratch_width(l));
    return size_plus(steps, size_times(rows, 2 * shape_of(l).hidden));
}

static struct place place_of(const struct layer_instance *l, const struct layer_pass *p,
                             uint64_t layer)
{
    struct shape s = shape_of(l);
    uint64_t cells = s.steps * p->rows;
    struct place at = {0};
    float *next = p->saved, *below = NULL;
    for (uint64_t i = 0; i <= layer; i++) {
        at.x = x_is_own(l, i) ? next : below;
        next += x_is_own(l, i) ? cells * layer_in(l, i) : 0;
        at.h = below = next;
        next += cells * s.directions * s.hidden;
        for (uint64_t d = 0; d < s.directions; d++) {
            at.gates[d] = next;
            at.c[d] = next + cells * 4 * s.hidden;
            next += cells * 5 * s.hidden;
        }
    }
    return at;
}

/* The rows of step t in a [steps, rows, width] array. */
static struct matrix step_of(const struct layer_pass *p, const float *at, uint64_t width,
                             uint64_t t)
{
    return matrix_of(at + t * p->rows * width, p->rows, width);
}

/* Those of one direction in an array of both. */
static struct matrix step_of_direction(const struct layer_instance *l, const struct layer_pass *p,
                                       const float *at, uint64_t direction, uint64_t t)
{
    struct shape s = shape_of(l);
    return matrix_columns(step_of(p, at, s.directions * s.hidden, t), direction * s.hidden,
                          s.hidden);
}

/* The k-th step that a direction takes. */
static uint64_t step_number(uint64_t steps, uint64_t direction, uint64_t k)
{
    return direction ? steps - 1 - k : k;
}

/* c [rows, hidden] after the step before the k-th. */
static const float *c_before(const struct layer_instance *l, const struct layer_pass *p,
                             const struct place *at, uint64_t direction, uint64_t k)
{
    struct shape s = shape_of(l);
    uint64_t width = p->rows * s.hidden;
    if (k == 0)
        return p->scratch + s.steps * p->rows * 2 * scratch_width(l) + width; /* zeroes */
    return at->c[direction] + step_number(s.steps, direction, k - 1) * width;
}

static void direction_forward(const struct layer_instance *l, const struct layer_pass *p,
                              const struct place *at, uint64_t layer, uint64_t direction)
{
    struct shape s = shape_of(l);
    struct part w = part_of(l, layer, direction);
    const float *weights = p->parameters;
    struct matrix hh = matrix_of(weights + w.at[WEIGHT_HH], 4 * s.hidden, s.hidden);
    float *gates = at->gates[direction], *c = at->c[direction];
    op_product(p->backend, matrix_of(at->x, s.steps * p->rows, w.in), 0,
               matrix_of(weights + w.at[WEIGHT_IH], 4 * s.hidden, w.in), 1, 0,
               matrix_of(gates, s.steps * p->rows, 4 * s.hidden));
    for (uint64_t k = 0; k < s.steps; k++) {
        uint64_t t = step_number(s.steps, direction, k);
        struct matrix sums = step_of(p, gates, 4 * s.hidden, t);
        if (k > 0)
            op_product(
                p->backend,
                step_of_direction(l, p, at->h, direction, step_number(s.steps, direction, k - 1)),
                0, hh, 1, 1, sums);
        op_lstm_forward(p->backend, weights + w.at[BIAS_IH], weights + w.at[BIAS_HH],
                        c_before(l, p, at, direction, k), sums, c + t * p->rows * s.hidden,
                        step_of_direction(l, p, at->h, direction, t));
    }
}

/* The mask of a layer's input, step by step: a function of (seed, step of training, layer, place,
 * step of the row, row, unit). */
static void dropout_apply(const struct layer_instance *l, const struct layer_pass *p,
                          uint64_t layer, const float *in, float *out)
{
    struct shape s = shape_of(l);
    uint64_t width = s.directions * s.hidden;
    if (!p->training) {
        if (in != out)
            memcpy(out, in, s.steps * p->rows * width * sizeof *out);
        return;
    }
    for (uint64_t t = 0; t < s.steps; t++) {
        struct dropout_mask mask = {scalar_key(scalar_key(p->seed, p->step, l->place), layer, t),
                                    p->row_first, l->keys[KEY_DROPOUT]};
        op_dropout(p->backend, step_of(p, in, width, t), step_of(p, out, width, t), &mask);
    }
}

static void lstm_forward(const struct layer_instance *l, const struct layer_pass *p)
{
    struct shape s = shape_of(l);
    struct place at = place_of(l, p, 0), below;
    uint64_t width = p->rows * s.hidden;
    memset(p->scratch + s.steps * p->rows * 2 * scratch_width(l) + width, 0,
           width * sizeof *p->scratch);
    op_steps_swap(p->backend, p->input, p->rows, s.steps, l->values, at.x);
    for (uint64_t layer = 0; layer < s.layers; layer++) {
        below = at;
        at = place_of(l, p, layer);
        if (layer && x_is_own(l, layer))
            dropout_apply(l, p, layer, below.h, at.x);
        for (uint64_t d = 0; d < s.directions; d++)
            direction_forward(l, p, &at, layer, d);
    }
    op_steps_swap(p->backend, at.h, s.steps, p->rows, l->values_out, p->output);
}

/* From dh, the gradient at h, which gathers that of later steps: gates become the gradients at
 * their sums. */
static void direction_backward(const struct layer_instance *l, const struct layer_pass *p,
                               const struct place *at, uint64_t layer, uint64_t direction,
                               const float *dh)
{
    struct shape s = shape_of(l);
    struct part w = part_of(l, layer, direction);
    struct matrix hh = matrix_of(p->parameters + w.at[WEIGHT_HH], 4 * s.hidden, s.hidden);
    float *dc = p->scratch + s.steps * p->rows * 2 * scratch_width(l);
    memset(dc, 0, p->rows * s.hidden * sizeof *dc);
    for (uint64_t k = s.steps; k-- > 0;) {
        uint64_t t = step_number(s.steps, direction, k);
        struct matrix sums = step_of(p, at->gates[direction], 4 * s.hidden, t);
        op_lstm_backward(p->backend, c_before(l, p, at, direction, k),
                         at->c[direction] + t * p->rows * s.hidden,
                         step_of_direction(l, p, dh, direction, t), dc, sums);
        if (k > 0)
            op_product(
                p->backend, sums, 0, hh, 0, 1,
                step_of_direction(l, p, dh, direction, step_number(s.steps, direction, k - 1)));
    }
}

/* d and h of the steps but the first that the direction takes, and of those before them. */
static void recurrence_of(const struct layer_instance *l, const struct layer_pass *p,
                          const struct place *at, uint64_t direction, struct matrix *d,
                          struct matrix *h)
{
    struct shape s = shape_of(l);
    uint64_t rows = (s.steps - 1) * p->rows, width = s.directions * s.hidden;
    *d = matrix_of(at->gates[direction] + (direction ? 0 : p->rows * 4 * s.hidden), rows,
                   4 * s.hidden);
    *h = matrix_columns(matrix_of(at->h + (direction ? p->rows * width : 0), rows, width),
                        direction * s.hidden, s.hidden);
}

static void gradient_write(const struct layer_instance *l, const struct layer_pass *p,
                           const struct place *at, uint64_t layer, uint64_t direction)
{
    struct shape s = shape_of(l);
    struct part w = part_of(l, layer, direction);
    struct matrix sums = matrix_of(at->gates[direction], s.steps * p->rows, 4 * s.hidden), d, h;
    float *g = p->gradient;
    op_product(p->backend, sums, 1, matrix_of(at->x, s.steps * p->rows, w.in), 0, 0,
               matrix_of(g + w.at[WEIGHT_IH], 4 * s.hidden, w.in));
    recurrence_of(l, p, at, direction, &d, &h);
    if (s.steps > 1)
        op_product(p->backend, d, 1, h, 0, 0,
                   matrix_of(g + w.at[WEIGHT_HH], 4 * s.hidden, s.hidden));
    else
        memset(g + w.at[WEIGHT_HH], 0, w.count[WEIGHT_HH] * sizeof *g);
    op_column_sums(p->backend, sums, g + w.at[BIAS_IH]);
    memcpy(g + w.at[BIAS_HH], g + w.at[BIAS_IH], w.count[BIAS_HH] * sizeof *g);
}

static void lstm_backward(const struct layer_instance *l, const struct layer_pass *p)
{
    struct shape s = shape_of(l);
    uint64_t cells = s.steps * p->rows;
    float *dh = p->scratch, *dx = p->scratch + cells * scratch_width(l);
    op_steps_swap(p->backend, p->d_output, p->rows, s.steps, l->values_out, dh);
    for (uint64_t layer = s.layers; layer-- > 0;) {
        struct place at = place_of(l, p, layer);
        uint64_t in = layer_in(l, layer);
        for (uint64_t d = 0; d < s.directions; d++) {
            struct part w = part_of(l, layer, d);
            direction_backward(l, p, &at, layer, d, dh);
            if (p->gradient)
                gradient_write(l, p, &at, layer, d);
            if (layer || p->d_input)
                op_product(p->backend, matrix_of(at.gates[d], cells, 4 * s.hidden), 0,
                           matrix_of(p->parameters + w.at[WEIGHT_IH], 4 * s.hidden, in), 0, d > 0,
                           matrix_of(dx, cells, in));
        }
        if (layer && x_is_own(l, layer))
            dropout_apply(l, p, layer, dx, dx);
        float *other = dh;
        dh = dx;
        dx = other;
    }
    if (p->d_input)
        op_steps_swap(p->backend, dh, s.steps, p->rows, l->values, p->d_input);
}

/* A sample's rows of a matrix whose rows are steps of `rows` rows each. */
static struct samples samples_by_step(const struct layer_pass *p, struct matrix all)
{
    struct samples s = {all, p->rows, all.stride, NULL};
    s.first.rows = all.rows / p->rows;
    s.first.stride = all.stride * p->rows;
    return s;
}

static void lstm_tile_squares(const struct layer_instance *l, const struct layer_pass *p,
                              const struct tile *t, float *sample, float *squares)
{
    struct shape s = shape_of(l);
    uint64_t number = t->tensor / TENSORS, direction = number % s.directions;
    struct place at = place_of(l, p, number / s.directions);
    uint64_t in = layer_in(l, number / s.directions), cells = s.steps * p->rows;
    struct matrix d = matrix_of(at.gates[direction], cells, 4 * s.hidden);
    struct matrix x = matrix_of(at.x, cells, in);
    if (t->tensor % TENSORS >= BIAS_IH) {
        squares_of_sums(p->backend, samples_by_step(p, d), sample, squares);
        return;
    }
    if (t->tensor % TENSORS == WEIGHT_HH)
        recurrence_of(l, p, &at, direction, &d, &x);
    if (!d.rows) { /* one step: no recurrence */
        memset(squares, 0, t->count * sizeof *squares);
        return;
    }
    squares_of_products(p->backend, samples_columns(samples_by_step(p, d), t->row_first, t->rows),
                        samples_by_step(p, x), sample, squares);
}

const struct layer_type layer_lstm = {
    .name = "lstm",
    .purpose = "long short-term memory over the steps; leaves an output a step",
    .keys = {{"out", .whole = 1, .required = 1, .low = 1, .high = 1 << 16},
             {"layers", .whole = 1, .low = 1, .high = LAYERS_MAX, .normal = 1},
             {"bidirectional", .words = truth},
             {"dropout", .below_high = 1, .low = 0, .high = 1}},
    .takes = ROWS_NO_GRAPHS,
    .infer = lstm_infer,
    .initialise = lstm_initialise,
    .saved_floats = lstm_saved,
    .scratch_floats = lstm_scratch,
    .forward = lstm_forward,
    .backward = lstm_backward,
    .tile_squares = lstm_tile_squares,
};
