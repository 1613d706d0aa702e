/* lstm.c - a long short-term memory over the steps of a row: several layers, one or two directions.
 *
 *   gates = x W_ih^T + b_ih + h W_hh^T + b_hh     rows of the weights in PyTorch's order i, f, g, o
 *   c = f c + i g, h = o tanh(c)                  c and h begin at 0, or carried (model_carry)
 *
 * As torch.nn.LSTM: names and layouts of the tensors, both biases, dropout on the outputs of all
 * layers but the last, the reverse direction's outputs behind the forward one's. Inside, steps come
 * before rows ([steps, rows, values]): the x of all steps is one product, and a step's rows lie
 * together. Steps are taken in blocks of about the root of their number. A slice keeps its x,
 * gates, c and h; backward turns the gates into the gradients at their sums in place, and all that
 * is left of a block is products. The squares take a sample's rows out of the same arrays. Under
 * KEEP_LITTLE only h and the c between two blocks are kept, and backward computes a block's rest
 * again.
 *
 * Carried, h and c begin as the same row of the batch before left them, unless the row says that it
 * begins: numbers, through which no gradient goes (truncated backpropagation through time). One
 * direction only: the other one begins at what is not there yet.
 */
#include "engine/layers/lstm.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/layers/lstm_memory.h"
#include "engine/squares.h"
#include "proto/err.h"

extern const struct layer_type layer_lstm;

static const char *const truth[] = {"false", "true", NULL};

struct lstm_shape lstm_shape_of(const struct layer_instance *l)
{
    return (struct lstm_shape){(uint64_t)l->keys[KEY_OUT], (uint64_t)l->keys[KEY_LAYERS],
                               1 + (uint64_t)l->keys[KEY_BIDIRECTIONAL], l->steps};
}

uint64_t lstm_in(const struct layer_instance *l, uint64_t layer)
{
    struct lstm_shape s = lstm_shape_of(l);
    return layer ? s.directions * s.hidden : l->values;
}

struct lstm_part lstm_part_of(const struct layer_instance *l, uint64_t layer, uint64_t direction)
{
    struct lstm_shape s = lstm_shape_of(l);
    struct lstm_part p = {0};
    uint64_t end = 0;
    for (uint64_t i = 0; i <= layer * s.directions + direction; i++) {
        p.in = lstm_in(l, i / s.directions);
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
    struct lstm_shape s = lstm_shape_of(l);
    (void)e;
    l->steps_out = l->steps;
    l->values_out = s.directions * s.hidden;
    for (uint64_t i = 0; i < s.layers * s.directions; i++)
        for (int t = 0; t < TENSORS; t++) {
            struct tensor_info *info = &tensors[l->tensor_count++];
            *info = (struct tensor_info){.rank = t < BIAS_IH ? 2 : 1, .dims = {4 * s.hidden}};
            info->dims[1] = t == WEIGHT_IH   ? lstm_in(l, i / s.directions)
                            : t == WEIGHT_HH ? s.hidden
                                             : 0;
            snprintf(info->name, sizeof info->name, "%s_l%u%s", names[t],
                     (unsigned)(i / s.directions), i % s.directions ? "_reverse" : "");
        }
    return 0;
}

/* Of each layer h and c after the last step. */
static int lstm_carry(struct layer_instance *l, struct tensor_info *tensors, struct err *e)
{
    struct lstm_shape s = lstm_shape_of(l);
    _Static_assert((int)LAYER_CARRIED_MAX >= 2 * (int)LSTM_LAYERS_MAX, "every layer's h and c");
    if (s.directions > 1)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "layer %u (lstm) has bidirectional=true and cannot carry its state from batch to "
            "batch (data.stateful): the reverse direction would begin in the batch that "
            "comes next; accepted: bidirectional=false",
            l->place);
    for (uint64_t i = 0; i < 2 * s.layers; i++) {
        struct tensor_info *info = &tensors[l->carried_count++];
        *info = (struct tensor_info){.rank = 1, .dims = {s.hidden}};
        snprintf(info->name, sizeof info->name, "%s_l%u", i % 2 ? "c" : "h", (unsigned)(i / 2));
    }
    return 0;
}

/* U(-1/sqrt(out), 1/sqrt(out)) for everything, as torch.nn.LSTM's reset_parameters. */
static void lstm_initialise(const struct layer_instance *l, uint64_t seed, float *parameters)
{
    struct lstm_shape s = lstm_shape_of(l);
    uint64_t counts[LAYER_TENSORS_MAX];
    for (uint64_t i = 0; i < s.layers * s.directions; i++) {
        struct lstm_part p = lstm_part_of(l, i / s.directions, i % s.directions);
        memcpy(counts + i * TENSORS, p.count, sizeof p.count);
    }
    layer_initialise_uniform(l, counts, 1.0 / sqrt((double)s.hidden), seed, parameters);
}

enum carried { CARRIED_H, CARRIED_C };

/* The slice's rows of what a layer carries, in `all`, one of the pass's two. */
static float *carried_of(const struct layer_instance *l, const struct layer_pass *p,
                         const float *all, uint64_t layer, enum carried which)
{
    uint64_t tensor = 2 * layer + (uint64_t)which;
    return (float *)all + (tensor * p->carried_rows + p->carried_row) * lstm_shape_of(l).hidden;
}

/* What the rows before left, but 0 where a row begins: to `at` [rows, hidden]. */
static void carried_begin(const struct layer_instance *l, const struct layer_pass *p,
                          uint64_t layer, enum carried which, float *at)
{
    uint64_t hidden = lstm_shape_of(l).hidden;
    op_begin_rows(p->backend, p->begins,
                  matrix_of(carried_of(l, p, p->carried, layer, which), p->rows, hidden),
                  matrix_of(at, p->rows, hidden));
}

/* c before the first step. */
static void c_begin(const struct layer_instance *l, const struct layer_pass *p, uint64_t layer)
{
    if (p->carried)
        carried_begin(l, p, layer, CARRIED_C, lstm_scratch_begin(l, p));
    else
        op_zero(p->backend, lstm_scratch_begin(l, p), p->rows * lstm_shape_of(l).hidden);
}

/* h before it, which has a place where it is carried. */
static void h_begin(const struct layer_instance *l, const struct layer_pass *p,
                    const struct lstm_place *at, uint64_t layer)
{
    uint64_t step = p->rows * lstm_shape_of(l).hidden;
    if (p->carried)
        carried_begin(l, p, layer, CARRIED_H, at->h - step);
    else if (l->carried_count)
        op_zero(p->backend, at->h - step, step);
}

/* The mask of a layer's input for one step of the row: a function of (seed, step of training,
 * layer, place, step of the row, row, unit). */
static void dropout_step(const struct layer_instance *l, const struct layer_pass *p, uint64_t layer,
                         uint64_t t, struct matrix in, struct matrix out)
{
    struct dropout_late late = {p->step_late, p->seed, l->place, layer, t, 1};
    struct dropout_mask mask = {dropout_key_late(&late, p->step), p->row_first,
                                l->keys[KEY_DROPOUT], late};
    if (p->training)
        op_dropout(p->backend, in, out, &mask);
    else if (in.at != out.at)
        op_copy(p->backend, in.at, out.at, in.rows * in.columns);
}

/* x of the block's steps: the row's values, or what is below after dropout. */
static void block_input(const struct layer_instance *l, const struct layer_pass *p,
                        const struct lstm_place *below, uint64_t layer, const struct lstm_block *b)
{
    uint64_t width = lstm_in(l, layer);
    if (layer == 0)
        op_steps_swap(p->backend, p->input + b->first * width, l->inputs, p->rows, b->steps, width,
                      b->x);
    for (uint64_t i = 0; layer && i < b->steps; i++)
        dropout_step(l, p, layer, b->first + i, lstm_step_of(p, below->h, width, b->first + i),
                     lstm_step_of(p, b->x, width, i));
    if (layer && p->half)
        op_round_half(p->backend, p->half, matrix_of(b->x, b->steps * p->rows, width));
}

/* The block as the operations see it; begins: there is no step before it. */
static struct lstm_steps steps_of(const struct layer_instance *l, const struct layer_pass *p,
                                  const struct lstm_block *b, uint64_t direction, int begins)
{
    return (struct lstm_steps){.steps = b->steps,
                               .rows = p->rows,
                               .hidden = lstm_shape_of(l).hidden,
                               .reverse = direction > 0,
                               .begins = begins,
                               .c_before = b->c_before,
                               .gates = b->gates,
                               .c = b->c,
                               .gates_half = b->gates_half,
                               .c_half = b->c_half,
                               .c_after = b->c_after,
                               .sums = p->gradient && lstm_is_apart(p) ? lstm_scratch_sums(l, p)
                                                                       : NULL};
}

/* The block's rows of one direction in an array of both. */
static struct matrix block_of_direction(const struct layer_instance *l, const struct layer_pass *p,
                                        const float *at, uint64_t direction,
                                        const struct lstm_block *b)
{
    struct matrix steps = lstm_step_of_direction(l, p, at, direction, b->first);
    steps.rows = b->steps * p->rows;
    return steps;
}

/* Step by step: products with h are in 8 bits, too. */
static void steps_forward_quantised(const struct layer_instance *l, const struct layer_pass *p,
                                    const struct lstm_place *at, uint64_t direction,
                                    const struct lstm_block *b, const struct lstm_part *w)
{
    struct lstm_shape s = lstm_shape_of(l);
    const float *biases = p->parameters;
    struct matrix hh = matrix_of(p->weights + w->at[WEIGHT_HH], 4 * s.hidden, s.hidden);
    for (uint64_t k = b->k; k < b->k + b->steps; k++) {
        uint64_t t = lstm_step_number(s.steps, direction, k);
        struct matrix sums = lstm_step_of(p, b->gates, 4 * s.hidden, t - b->first);
        struct matrix h = lstm_step_of_direction(l, p, at->h, direction, t);
        if (k > 0 || l->carried_count) {
            struct matrix before = h; /* beside it, on the side that the direction comes from */
            uint64_t beside = p->rows * h.stride;
            before.at = direction ? h.at + beside : h.at - beside;
            layer_product(l, p, before, hh, 1, sums);
        }
        op_lstm_forward(p->backend, biases + w->at[BIAS_IH], biases + w->at[BIAS_HH],
                        lstm_c_before(l, p, b, direction, k), sums,
                        b->c + (t - b->first) * p->rows * s.hidden, h);
        if (p->half)
            op_round_half(p->backend, p->half, h);
    }
    if (b->c_after)
        op_copy(p->backend, lstm_c_before(l, p, b, direction, b->k + b->steps), b->c_after,
                p->rows * s.hidden);
    if (b->gates_half) {
        op_store_half(p->backend, p->half, b->gates, b->gates_half,
                      b->steps * p->rows * 4 * s.hidden);
        op_store_half(p->backend, p->half, b->c, b->c_half, b->steps * p->rows * s.hidden);
    }
}

static void block_forward(const struct layer_instance *l, const struct layer_pass *p,
                          const struct lstm_place *at, uint64_t layer, uint64_t direction,
                          const struct lstm_block *b)
{
    struct lstm_shape s = lstm_shape_of(l);
    struct lstm_part w = lstm_part_of(l, layer, direction);
    const float *weights = p->weights, *biases = p->parameters;
    layer_product(l, p, matrix_of(b->x, b->steps * p->rows, w.in),
                  matrix_of(weights + w.at[WEIGHT_IH], 4 * s.hidden, w.in), 0,
                  matrix_of(b->gates, b->steps * p->rows, 4 * s.hidden));
    if (p->quantised)
        steps_forward_quantised(l, p, at, direction, b, &w);
    else
        op_lstm_steps_forward(p->backend,
                              steps_of(l, p, b, direction, b->k == 0 && !l->carried_count),
                              biases + w.at[BIAS_IH], biases + w.at[BIAS_HH],
                              matrix_of(weights + w.at[WEIGHT_HH], 4 * s.hidden, s.hidden), p->half,
                              block_of_direction(l, p, at->h, direction, b));
}

/* What is not kept is there again; under KEEP_HALF c before the block. */
static void block_again(const struct layer_instance *l, const struct layer_pass *p,
                        const struct lstm_place *at, uint64_t layer, uint64_t direction,
                        struct lstm_block *b)
{
    uint64_t hidden = lstm_shape_of(l).hidden, step = p->rows * hidden, values = b->steps * step;
    if (p->keep == KEEP_HALF) {
        if (b->number)
            op_load_half(p->backend, p->half,
                         at->c_half[direction] +
                             lstm_step_number(l->steps, direction, b->k - 1) * step,
                         lstm_scratch_before(l, p), step);
        else
            op_round_half(p->backend, p->half, matrix_of(b->c_before, 1, step));
        return;
    }
    block_forward(l, p, at, layer, direction, b);
    if (!p->half)
        return;
    op_round_half(p->backend, p->half, matrix_of(b->gates, 1, 4 * values));
    op_round_half(p->backend, p->half, matrix_of(b->c, 1, values));
    op_round_half(p->backend, p->half,
                  matrix_of(b->c_before, 1, step)); /* read for the last time */
}

/* x that is kept is there after the first direction. */
static int input_is_due(const struct layer_instance *l, const struct layer_pass *p, uint64_t layer,
                        uint64_t direction)
{
    return lstm_x_is_own(l, layer) && (p->keep == KEEP_LITTLE || direction == 0);
}

/* Where c after a block goes besides: to the block behind it where it is not kept, after the last
 * one to the next batch. NULL: nowhere. */
static float *c_after(const struct layer_instance *l, const struct layer_pass *p,
                      const struct lstm_place *at, uint64_t layer, uint64_t direction,
                      uint64_t number)
{
    if (number + 1 == lstm_blocks(l, p))
        return p->carried_next ? carried_of(l, p, p->carried_next, layer, CARRIED_C) : NULL;
    if (p->keep == KEEP_ALL)
        return NULL;
    return p->keep == KEEP_HALF ? lstm_scratch_before(l, p)
                                : at->c[direction] + number * p->rows * lstm_shape_of(l).hidden;
}

static void direction_forward(const struct layer_instance *l, const struct layer_pass *p,
                              const struct lstm_place *below, const struct lstm_place *at,
                              uint64_t layer, uint64_t direction)
{
    c_begin(l, p, layer);
    h_begin(l, p, at, layer);
    for (uint64_t number = 0; number < lstm_blocks(l, p); number++) {
        struct lstm_block b = lstm_block_of(l, p, at, layer, direction, number);
        b.c_after = c_after(l, p, at, layer, direction, number);
        if (input_is_due(l, p, layer, direction))
            block_input(l, p, below, layer, &b);
        block_forward(l, p, at, layer, direction, &b);
    }
    if (p->carried_next)
        op_copy(p->backend, lstm_step_of(p, at->h, lstm_shape_of(l).hidden, l->steps - 1).at,
                carried_of(l, p, p->carried_next, layer, CARRIED_H),
                p->rows * lstm_shape_of(l).hidden);
}

static void lstm_forward(const struct layer_instance *l, const struct layer_pass *p)
{
    struct lstm_shape s = lstm_shape_of(l);
    if (p->keep == KEEP_NARROW) {
        lstm_narrow_forward(l, p);
        return;
    }
    struct lstm_place at = lstm_place_of(l, p, 0), below = at;
    for (uint64_t layer = 0; layer < s.layers; layer++) {
        below = at;
        at = lstm_place_of(l, p, layer);
        for (uint64_t d = 0; d < s.directions; d++)
            direction_forward(l, p, &below, &at, layer, d);
    }
    op_steps_swap(p->backend, at.h, p->rows * l->values_out, s.steps, p->rows, l->values_out,
                  p->output);
}

/* From dh, the gradient at h, which gathers that of later steps: gates become the gradients at
 * their sums; dc goes on to the block before. */
static void block_backward(const struct layer_instance *l, const struct layer_pass *p,
                           uint64_t layer, uint64_t direction, const struct lstm_block *b,
                           const float *dh)
{
    struct lstm_shape s = lstm_shape_of(l);
    struct lstm_part w = lstm_part_of(l, layer, direction);
    op_lstm_steps_backward(p->backend, steps_of(l, p, b, direction, b->k == 0),
                           matrix_of(p->weights + w.at[WEIGHT_HH], 4 * s.hidden, s.hidden), p->half,
                           block_of_direction(l, p, dh, direction, b), lstm_scratch_dc(l, p));
}

/* dx [steps, rows, in] NULL: nobody needs it; the second direction adds to it. */
static void direction_backward(const struct layer_instance *l, const struct layer_pass *p,
                               const struct lstm_place *below, const struct lstm_place *at,
                               uint64_t layer, uint64_t direction, const float *dh, float *dx)
{
    struct lstm_shape s = lstm_shape_of(l);
    struct lstm_part w = lstm_part_of(l, layer, direction);
    op_zero(p->backend, lstm_scratch_dc(l, p), p->rows * s.hidden);
    c_begin(l, p, layer);
    if (p->gradient && lstm_is_apart(p))
        op_zero(p->backend, lstm_scratch_sums(l, p), p->rows * 4 * s.hidden);
    for (uint64_t number = lstm_blocks(l, p); number-- > 0;) {
        struct lstm_block b = lstm_block_of(l, p, at, layer, direction, number);
        if (p->keep == KEEP_LITTLE && lstm_x_is_own(l, layer))
            block_input(l, p, below, layer, &b);
        if (p->keep != KEEP_ALL)
            block_again(l, p, at, layer, direction, &b);
        block_backward(l, p, layer, direction, &b, dh);
        if (p->gradient && !lstm_is_parted(p))
            lstm_gradient_add(l, p, at, layer, direction, &b);
        if (dx)
            op_product(p->backend, matrix_of(b.gates, b.steps * p->rows, 4 * s.hidden), 0,
                       matrix_of(p->weights + w.at[WEIGHT_IH], 4 * s.hidden, w.in), 0,
                       (float)(direction > 0),
                       matrix_of(dx + b.first * p->rows * w.in, b.steps * p->rows, w.in));
    }
    if (p->gradient && lstm_is_parted(p))
        lstm_parts_gradient(l, p, at, layer, direction);
}

static void lstm_backward(const struct layer_instance *l, const struct layer_pass *p)
{
    struct lstm_shape s = lstm_shape_of(l);
    if (p->keep == KEEP_NARROW) {
        lstm_narrow_backward(l, p);
        return;
    }
    uint64_t cells = s.steps * p->rows;
    float *dh = p->scratch, *dx = p->scratch + cells * lstm_scratch_width(l);
    ensure(l->first || !p->d_input); /* lstm_scratch_width relies on it */
    op_steps_swap(p->backend, p->d_output, l->outputs, p->rows, s.steps, l->values_out, dh);
    for (uint64_t layer = s.layers; layer-- > 0;) {
        struct lstm_place at = lstm_place_of(l, p, layer),
                          below = lstm_place_of(l, p, layer - (layer > 0));
        uint64_t width = lstm_in(l, layer);
        for (uint64_t d = 0; d < s.directions; d++)
            direction_backward(l, p, &below, &at, layer, d, dh, layer || p->d_input ? dx : NULL);
        for (uint64_t t = 0; layer && lstm_x_is_own(l, layer) && t < s.steps; t++)
            dropout_step(l, p, layer, t, lstm_step_of(p, dx, width, t),
                         lstm_step_of(p, dx, width, t));
        float *other = dh;
        dh = dx;
        dx = other;
    }
    if (p->d_input)
        op_steps_swap(p->backend, dh, p->rows * l->values, s.steps, p->rows, l->values, p->d_input);
}

/* A sample's rows of a matrix whose rows are steps of `rows` rows each. */
static struct samples samples_by_step(const struct layer_pass *p, struct matrix all)
{
    struct samples s = {all, p->rows, all.stride, NULL};
    s.first.rows = all.rows / p->rows;
    s.first.stride = all.stride * p->rows;
    return s;
}

/* Of a bias x is nothing. */
static void lstm_operands(const struct layer_instance *l, const struct layer_pass *p,
                          uint32_t tensor, struct samples *d, struct samples *x)
{
    struct lstm_shape s = lstm_shape_of(l);
    uint64_t number = tensor / TENSORS, direction = number % s.directions;
    struct lstm_place at = lstm_place_of(l, p, number / s.directions);
    uint64_t in = lstm_in(l, number / s.directions), cells = s.steps * p->rows;
    struct matrix gates = matrix_of(at.gates[direction], cells, 4 * s.hidden);
    struct matrix of = matrix_of(at.x, cells, in);
    if (tensor % TENSORS == WEIGHT_HH)
        lstm_recurrence_of(l, p, at.gates[direction], at.h, direction, 0, s.steps, &gates, &of);
    *d = samples_by_step(p, gates);
    *x = samples_by_step(p, of);
}

static void lstm_tile_squares(const struct layer_instance *l, const struct layer_pass *p,
                              const struct tile *t, const struct tile_work *w, float *sums)
{
    struct samples d, x;
    lstm_operands(l, p, t->tensor, &d, &x);
    if (t->tensor % TENSORS >= BIAS_IH)
        squares_of_sums(p->backend, d, w, sums);
    else if (d.first.rows) /* one step: no recurrence */
        squares_of_products(p->backend, samples_columns(d, t->row_first, t->rows), x, w, sums);
}

/* Each step reads those of its h. */
static uint64_t lstm_stepwise(const struct layer_instance *l)
{
    struct lstm_shape s = lstm_shape_of(l);
    return s.layers * s.directions * 4 * s.hidden * s.hidden;
}

const struct layer_type layer_lstm = {
    .name = "lstm",
    .purpose =
        "long short-term memory over the steps; leaves an output a step; with data.stateful a "
        "row begins where the one before it ended",
    .quantises = 1,
    .draws = 1,
    .keys = {{"out", .whole = 1, .required = 1, .low = 1, .high = 1 << 16},
             {"layers", .whole = 1, .low = 1, .high = LSTM_LAYERS_MAX, .normal = 1},
             {"bidirectional", .words = truth},
             {"dropout", .below_high = 1, .low = 0, .high = 1}},
    .takes = ROWS_NO_GRAPHS,
    .infer = lstm_infer,
    .carry = lstm_carry,
    .initialise = lstm_initialise,
    .recomputes = 1,
    .adds = 1,
    .stepwise = lstm_stepwise,
    .narrows = lstm_narrows,
    .spends = 1,
    .saved_floats = lstm_saved,
    .scratch_floats = lstm_scratch,
    .forward = lstm_forward,
    .backward = lstm_backward,
    .operands = lstm_operands,
    .tile_squares = lstm_tile_squares,
};
