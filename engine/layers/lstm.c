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

#include "engine/memory.h"
#include "engine/squares.h"
#include "proto/err.h"

extern const struct layer_type layer_lstm;

enum { DEVICE_BLOCKS = 8 };

/* Rows of a part are brought together from so many vectors at a time, at least one step. */
enum { PART_VECTORS = 128 };

static const char *const truth[] = {"false", "true", NULL};

/* Where a slice's arrays of one layer are; of one direction: gates, c. Under KEEP_LITTLE there are
 * no gates, x is that of the layer below or none, and c is the one before each block but the first
 * [blocks - 1, rows, hidden]. Under KEEP_HALF gates and c are the ones in 16 bits. */
struct place {
    float *x;        /* [steps, rows, in] */
    float *h;        /* [steps, rows, directions hidden]; where it is carried, a step before them */
    float *gates[2]; /* [steps, rows, 4 hidden] */
    float *c[2];     /* [steps, rows, hidden] */
    uint16_t *gates_half[2], *c_half[2];
};

/* Steps that are worked on together: the k-th .. of those a direction takes. */
struct block {
    uint64_t number, k, steps;
    uint64_t first; /* the least of its steps, where the arrays begin */
    float *x, *gates, *c;
    const float *c_before;         /* c [rows, hidden] after the step before the k-th */
    float *c_after;                /* where that after the last one goes, if anywhere */
    uint16_t *gates_half, *c_half; /* under KEEP_HALF where it is kept */
};

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

/* Is x of a layer another array than h of the layer below it? */
static int x_is_own(const struct layer_instance *l, uint64_t layer)
{
    return layer == 0 || l->keys[KEY_DROPOUT] > 0;
}

/* About as many blocks as a block has steps: what is kept between them and what is computed again
 * inside them add up to the least. Whether it is kept or not, the arithmetic goes block by block,
 * so that both ways give the same bits. */
static uint64_t steps_root(const struct layer_instance *l)
{
    uint64_t k = 1;
    while (k * k < l->steps)
        k++;
    return k;
}

static uint64_t blocks_root(const struct layer_instance *l)
{
    return (l->steps + steps_root(l) - 1) / steps_root(l);
}

/* Steps of a block. A device apart reads the weights anew for each block: it has few, or one where
 * none needs a place in the scratch. */
static uint64_t block_steps(const struct layer_instance *l, enum layer_keep keep, int apart)
{
    if (!apart || keep == KEEP_LITTLE)
        return steps_root(l);
    return keep == KEEP_ALL ? l->steps : (l->steps + DEVICE_BLOCKS - 1) / DEVICE_BLOCKS;
}

static int is_apart(const struct layer_pass *p)
{
    return p->backend != &backend_cpu;
}

static uint64_t pass_block_steps(const struct layer_instance *l, const struct layer_pass *p)
{
    return block_steps(l, p->keep, is_apart(p));
}

static uint64_t pass_blocks(const struct layer_instance *l, const struct layer_pass *p)
{
    return (l->steps + pass_block_steps(l, p) - 1) / pass_block_steps(l, p);
}

static uint64_t lstm_saved(const struct layer_instance *l, uint64_t rows, enum layer_keep keep)
{
    struct lstm_shape s = lstm_shape_of(l);
    uint64_t floats = 0, out = s.directions * s.hidden; /* a row's */
    if (keep == KEEP_NARROW)
        return lstm_narrow_saved(l, rows);
    for (uint64_t i = 0; i < s.layers; i++) {
        uint64_t own = x_is_own(l, i) ? lstm_in(l, i) : 0;
        uint64_t inside = keep == KEEP_HALF ? 5 * out / 2 + 5 * out % 2 : 5 * out; /* gates, c */
        floats += keep == KEEP_LITTLE ? s.steps * out + (blocks_root(l) - 1) * out
                                      : s.steps * (own + out + inside); /* x, h */
        floats += l->carried_count ? out : 0;
    }
    return size_times(rows, floats);
}

/* Values of x and h of a step that are as many in any of the layers. */
static uint64_t widest(const struct layer_instance *l)
{
    struct lstm_shape s = lstm_shape_of(l);
    uint64_t out = s.directions * s.hidden;
    return out > l->values ? out : l->values;
}

/* Of the gradients at the outputs and the inputs of a layer. Nobody asks for the one at the
 * model's input, which the first layer with parameters has. */
static uint64_t scratch_width(const struct layer_instance *l)
{
    return l->first ? widest(l) : lstm_shape_of(l).directions * lstm_shape_of(l).hidden;
}

/* A step of a block: gates, c, and x where it is not kept. */
static uint64_t block_width(const struct layer_instance *l, enum layer_keep keep)
{
    return 5 * lstm_shape_of(l).hidden + (keep == KEEP_LITTLE ? widest(l) : 0);
}

/* Gates, x and h of a vector. */
static uint64_t part_width(const struct layer_instance *l)
{
    struct lstm_shape s = lstm_shape_of(l);
    return 4 * s.hidden + widest(l) + s.directions * s.hidden;
}

/* Steps of a part of so many rows that are brought together at a time, of a block. */
static uint64_t part_steps(const struct layer_instance *l, uint64_t rows)
{
    uint64_t steps = PART_VECTORS / rows ? PART_VECTORS / rows : 1, most = steps_root(l);
    return steps < most ? steps : most;
}

/* Those gradients, [steps, rows, values] each, then the one at c, and c before the first step,
 * [rows, hidden] each; unless all is kept a block and the c before it; apart the sums over the
 * steps of the gradients of gates; else, where all is kept, a part's vectors. */
static uint64_t lstm_scratch(const struct layer_instance *l, uint64_t rows, enum layer_keep keep,
                             int apart)
{
    uint64_t floats = l->steps * 2 * scratch_width(l) + 2 * lstm_shape_of(l).hidden, part = 0;
    uint64_t vectors = rows > PART_VECTORS ? rows : PART_VECTORS; /* of any number of rows */
    if (keep == KEEP_NARROW)
        return lstm_narrow_scratch(l, rows);
    if (keep == KEEP_ALL && !apart && !l->carried_count && rows > 1)
        part = size_times(vectors < rows * steps_root(l) ? vectors : rows * steps_root(l),
                          part_width(l));
    if (keep != KEEP_ALL)
        floats += block_steps(l, keep, apart) * block_width(l, keep) + lstm_shape_of(l).hidden;
    if (apart)
        floats += 4 * lstm_shape_of(l).hidden;
    return size_plus(size_times(rows, floats), part);
}

static float *scratch_dc(const struct layer_instance *l, const struct layer_pass *p)
{
    return p->scratch + l->steps * p->rows * 2 * scratch_width(l);
}

/* c before the first step. */
static float *scratch_begin(const struct layer_instance *l, const struct layer_pass *p)
{
    return scratch_dc(l, p) + p->rows * lstm_shape_of(l).hidden;
}

/* c before a block, where it is not kept as float32. */
static float *scratch_before(const struct layer_instance *l, const struct layer_pass *p)
{
    return scratch_begin(l, p) +
           p->rows * (lstm_shape_of(l).hidden + pass_block_steps(l, p) * block_width(l, p->keep));
}

static float *scratch_sums(const struct layer_instance *l, const struct layer_pass *p)
{
    float *behind = p->keep == KEEP_ALL ? scratch_begin(l, p) : scratch_before(l, p);
    return behind + p->rows * lstm_shape_of(l).hidden;
}

/* Where a part's vectors are brought together. */
static float *scratch_part(const struct layer_instance *l, const struct layer_pass *p)
{
    return scratch_begin(l, p) + p->rows * lstm_shape_of(l).hidden;
}

static struct place place_of(const struct layer_instance *l, const struct layer_pass *p,
                             uint64_t layer)
{
    struct lstm_shape s = lstm_shape_of(l);
    uint64_t cells = s.steps * p->rows, borders = (blocks_root(l) - 1) * p->rows * s.hidden;
    uint64_t inside = cells * 5 * s.hidden; /* gates, c */
    int little = p->keep == KEEP_LITTLE;
    struct place at = {0};
    float *next = p->saved, *below = NULL;
    for (uint64_t i = 0; i <= layer; i++) {
        int own = x_is_own(l, i);
        at.x = !own ? below : little ? NULL : next;
        next += own && !little ? cells * lstm_in(l, i) : 0;
        next += l->carried_count ? p->rows * s.hidden : 0;
        at.h = below = next;
        next += cells * s.directions * s.hidden;
        for (uint64_t d = 0; d < s.directions; d++) {
            at.gates[d] = next;
            at.c[d] = next + (little ? 0 : cells * 4 * s.hidden);
            at.gates_half[d] = (uint16_t *)next;
            at.c_half[d] = at.gates_half[d] + cells * 4 * s.hidden;
            next += little ? borders : p->keep == KEEP_HALF ? inside / 2 + inside % 2 : inside;
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
    struct lstm_shape s = lstm_shape_of(l);
    return matrix_columns(step_of(p, at, s.directions * s.hidden, t), direction * s.hidden,
                          s.hidden);
}

/* The k-th step that a direction takes. */
static uint64_t step_number(uint64_t steps, uint64_t direction, uint64_t k)
{
    return direction ? steps - 1 - k : k;
}

/* Block `number` of a direction, which is kept or has its place in the scratch. */
static struct block block_of(const struct layer_instance *l, const struct layer_pass *p,
                             const struct place *at, uint64_t layer, uint64_t direction,
                             uint64_t number)
{
    struct lstm_shape s = lstm_shape_of(l);
    uint64_t most = pass_block_steps(l, p), step = p->rows * s.hidden, k = number * most;
    struct block b = {.number = number, .k = k, .steps = s.steps - k < most ? s.steps - k : most};
    float *block = scratch_begin(l, p) + step, *c = at->c[direction];
    b.first = direction ? s.steps - k - b.steps : k;
    b.x = at->x ? at->x + b.first * p->rows * lstm_in(l, layer) : block + 5 * most * step;
    if (p->keep != KEEP_ALL) {
        b.gates = block;
        b.c = block + 4 * most * step;
        b.c_before =
            p->keep == KEEP_HALF ? scratch_before(l, p) : c + (number - (number > 0)) * step;
    } else {
        b.gates = at->gates[direction] + b.first * 4 * step;
        b.c = c + b.first * step;
        b.c_before = c + step_number(s.steps, direction, k - (k > 0)) * step;
    }
    if (number == 0)
        b.c_before = scratch_begin(l, p);
    if (p->keep == KEEP_HALF) {
        b.gates_half = at->gates_half[direction] + b.first * 4 * step;
        b.c_half = at->c_half[direction] + b.first * step;
    }
    return b;
}

/* c after the step before the k-th, a step of the block. */
static const float *c_before(const struct layer_instance *l, const struct layer_pass *p,
                             const struct block *b, uint64_t direction, uint64_t k)
{
    if (k == b->k)
        return b->c_before;
    return b->c +
           (step_number(l->steps, direction, k - 1) - b->first) * p->rows * lstm_shape_of(l).hidden;
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
        carried_begin(l, p, layer, CARRIED_C, scratch_begin(l, p));
    else
        op_zero(p->backend, scratch_begin(l, p), p->rows * lstm_shape_of(l).hidden);
}

/* h before it, which has a place where it is carried. */
static void h_begin(const struct layer_instance *l, const struct layer_pass *p,
                    const struct place *at, uint64_t layer)
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
                        const struct place *below, uint64_t layer, const struct block *b)
{
    uint64_t width = lstm_in(l, layer);
    if (layer == 0)
        op_steps_swap(p->backend, p->input + b->first * width, l->inputs, p->rows, b->steps, width,
                      b->x);
    for (uint64_t i = 0; layer && i < b->steps; i++)
        dropout_step(l, p, layer, b->first + i, step_of(p, below->h, width, b->first + i),
                     step_of(p, b->x, width, i));
    if (layer && p->half)
        op_round_half(p->backend, p->half, matrix_of(b->x, b->steps * p->rows, width));
}

/* The block as the operations see it; begins: there is no step before it. */
static struct lstm_steps steps_of(const struct layer_instance *l, const struct layer_pass *p,
                                  const struct block *b, uint64_t direction, int begins)
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
                               .sums = p->gradient && is_apart(p) ? scratch_sums(l, p) : NULL};
}

/* The block's rows of one direction in an array of both. */
static struct matrix block_of_direction(const struct layer_instance *l, const struct layer_pass *p,
                                        const float *at, uint64_t direction, const struct block *b)
{
    struct matrix steps = step_of_direction(l, p, at, direction, b->first);
    steps.rows = b->steps * p->rows;
    return steps;
}

/* Step by step: products with h are in 8 bits, too. */
static void steps_forward_quantised(const struct layer_instance *l, const struct layer_pass *p,
                                    const struct place *at, uint64_t direction,
                                    const struct block *b, const struct lstm_part *w)
{
    struct lstm_shape s = lstm_shape_of(l);
    const float *biases = p->parameters;
    struct matrix hh = matrix_of(p->weights + w->at[WEIGHT_HH], 4 * s.hidden, s.hidden);
    for (uint64_t k = b->k; k < b->k + b->steps; k++) {
        uint64_t t = step_number(s.steps, direction, k);
        struct matrix sums = step_of(p, b->gates, 4 * s.hidden, t - b->first);
        struct matrix h = step_of_direction(l, p, at->h, direction, t);
        if (k > 0 || l->carried_count) {
            struct matrix before = h; /* beside it, on the side that the direction comes from */
            uint64_t beside = p->rows * h.stride;
            before.at = direction ? h.at + beside : h.at - beside;
            layer_product(l, p, before, hh, 1, sums);
        }
        op_lstm_forward(p->backend, biases + w->at[BIAS_IH], biases + w->at[BIAS_HH],
                        c_before(l, p, b, direction, k), sums,
                        b->c + (t - b->first) * p->rows * s.hidden, h);
        if (p->half)
            op_round_half(p->backend, p->half, h);
    }
    if (b->c_after)
        op_copy(p->backend, c_before(l, p, b, direction, b->k + b->steps), b->c_after,
                p->rows * s.hidden);
    if (b->gates_half) {
        op_store_half(p->backend, p->half, b->gates, b->gates_half,
                      b->steps * p->rows * 4 * s.hidden);
        op_store_half(p->backend, p->half, b->c, b->c_half, b->steps * p->rows * s.hidden);
    }
}

static void block_forward(const struct layer_instance *l, const struct layer_pass *p,
                          const struct place *at, uint64_t layer, uint64_t direction,
                          const struct block *b)
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
                        const struct place *at, uint64_t layer, uint64_t direction, struct block *b)
{
    uint64_t hidden = lstm_shape_of(l).hidden, step = p->rows * hidden, values = b->steps * step;
    if (p->keep == KEEP_HALF) {
        if (b->number)
            op_load_half(p->backend, p->half,
                         at->c_half[direction] + step_number(l->steps, direction, b->k - 1) * step,
                         scratch_before(l, p), step);
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
    return x_is_own(l, layer) && (p->keep == KEEP_LITTLE || direction == 0);
}

/* Where c after a block goes besides: to the block behind it where it is not kept, after the last
 * one to the next batch. NULL: nowhere. */
static float *c_after(const struct layer_instance *l, const struct layer_pass *p,
                      const struct place *at, uint64_t layer, uint64_t direction, uint64_t number)
{
    if (number + 1 == pass_blocks(l, p))
        return p->carried_next ? carried_of(l, p, p->carried_next, layer, CARRIED_C) : NULL;
    if (p->keep == KEEP_ALL)
        return NULL;
    return p->keep == KEEP_HALF ? scratch_before(l, p)
                                : at->c[direction] + number * p->rows * lstm_shape_of(l).hidden;
}

static void direction_forward(const struct layer_instance *l, const struct layer_pass *p,
                              const struct place *below, const struct place *at, uint64_t layer,
                              uint64_t direction)
{
    c_begin(l, p, layer);
    h_begin(l, p, at, layer);
    for (uint64_t number = 0; number < pass_blocks(l, p); number++) {
        struct block b = block_of(l, p, at, layer, direction, number);
        b.c_after = c_after(l, p, at, layer, direction, number);
        if (input_is_due(l, p, layer, direction))
            block_input(l, p, below, layer, &b);
        block_forward(l, p, at, layer, direction, &b);
    }
    if (p->carried_next)
        op_copy(p->backend, step_of(p, at->h, lstm_shape_of(l).hidden, l->steps - 1).at,
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
    struct place at = place_of(l, p, 0), below = at;
    for (uint64_t layer = 0; layer < s.layers; layer++) {
        below = at;
        at = place_of(l, p, layer);
        for (uint64_t d = 0; d < s.directions; d++)
            direction_forward(l, p, &below, &at, layer, d);
    }
    op_steps_swap(p->backend, at.h, p->rows * l->values_out, s.steps, p->rows, l->values_out,
                  p->output);
}

/* From dh, the gradient at h, which gathers that of later steps: gates become the gradients at
 * their sums; dc goes on to the block before. */
static void block_backward(const struct layer_instance *l, const struct layer_pass *p,
                           uint64_t layer, uint64_t direction, const struct block *b,
                           const float *dh)
{
    struct lstm_shape s = lstm_shape_of(l);
    struct lstm_part w = lstm_part_of(l, layer, direction);
    op_lstm_steps_backward(p->backend, steps_of(l, p, b, direction, b->k == 0),
                           matrix_of(p->weights + w.at[WEIGHT_HH], 4 * s.hidden, s.hidden), p->half,
                           block_of_direction(l, p, dh, direction, b), scratch_dc(l, p));
}

/* Of `steps` steps from `first` on those that have an h before them, *count of them from the
 * *skip-th on: all but the first that the direction takes, unless that has one, too. Returns the
 * step whose h is before the first of them. */
static uint64_t recurrent_steps(const struct layer_instance *l, uint64_t direction, uint64_t first,
                                uint64_t steps, uint64_t *skip, uint64_t *count)
{
    int begins = !l->carried_count && (direction ? first + steps == l->steps : first == 0);
    *skip = begins && !direction;
    *count = steps - (uint64_t)begins;
    return direction ? first + *skip + 1 : first + *skip - 1;
}

/* Of those d, whose array begins at gates, and h of the steps before them; no rows where there is
 * none. */
static void recurrence_of(const struct layer_instance *l, const struct layer_pass *p,
                          const float *gates, const float *h, uint64_t direction, uint64_t first,
                          uint64_t steps, struct matrix *d, struct matrix *before)
{
    struct lstm_shape s = lstm_shape_of(l);
    uint64_t width = s.directions * s.hidden, skip, left;
    uint64_t from = recurrent_steps(l, direction, first, steps, &skip, &left);
    const float *h_before = left ? h + from * p->rows * width : h;
    *d = matrix_of(gates + skip * p->rows * 4 * s.hidden, left * p->rows, 4 * s.hidden);
    *before =
        matrix_columns(matrix_of(h_before, left * p->rows, width), direction * s.hidden, s.hidden);
}

/* The gradient of both biases, of a block whose sum is at ih if it is the first one, else at hh; on
 * a device apart that of all blocks, when they are done. */
static void biases_add(const struct layer_instance *l, const struct layer_pass *p,
                       const struct lstm_part *w, const struct block *b, int later)
{
    float *ih = p->gradient + w->at[BIAS_IH], *hh = p->gradient + w->at[BIAS_HH];
    uint64_t hidden = lstm_shape_of(l).hidden;
    if (is_apart(p) && b->number == 0)
        op_column_sums(p->backend, matrix_of(scratch_sums(l, p), p->rows, 4 * hidden), 0, ih);
    if (!is_apart(p) && later)
        op_add(p->backend, hh, ih, w->count[BIAS_IH]);
    if (b->number == 0)
        op_copy(p->backend, ih, hh, w->count[BIAS_HH]);
}

/* Where a block's sum for both biases goes. */
static float *bias_sum(const struct layer_pass *p, const struct lstm_part *w, int later)
{
    return p->gradient + w->at[later ? BIAS_HH : BIAS_IH];
}

/* The block's part of the gradient of this direction of the layer; backward begins with the last
 * block, which writes what the others add to, but where there were rows before these. */
static void gradient_add(const struct layer_instance *l, const struct layer_pass *p,
                         const struct place *at, uint64_t layer, uint64_t direction,
                         const struct block *b)
{
    struct lstm_shape s = lstm_shape_of(l);
    struct lstm_part w = lstm_part_of(l, layer, direction);
    struct matrix sums = matrix_of(b->gates, b->steps * p->rows, 4 * s.hidden), d, h;
    float *g = p->gradient;
    int later = p->adds || b->number + 1 < pass_blocks(l, p);
    op_product(p->backend, sums, 1, matrix_of(b->x, b->steps * p->rows, w.in), 0, (float)later,
               matrix_of(g + w.at[WEIGHT_IH], 4 * s.hidden, w.in));
    recurrence_of(l, p, b->gates, at->h, direction, b->first, b->steps, &d, &h);
    if (d.rows)
        op_product(p->backend, d, 1, h, 0, (float)later,
                   matrix_of(g + w.at[WEIGHT_HH], 4 * s.hidden, s.hidden));
    else if (!later) /* one step in all */
        op_zero(p->backend, g + w.at[WEIGHT_HH], w.count[WEIGHT_HH]);
    if (!is_apart(p))
        op_column_sums(p->backend, sums, 0, bias_sum(p, &w, later));
    biases_add(l, p, &w, b, later);
}

/* Rows of a part in `steps` steps of an array [steps, p->rows, width], one behind the other. */
static struct matrix part_gather(const struct layer_pass *p, const struct layer_pass *part,
                                 const float *from, uint64_t width, uint64_t steps, float *to)
{
    uint64_t row = part->row_first - p->row_first;
    for (uint64_t t = 0; t < steps; t++)
        op_copy(p->backend, from + (t * p->rows + row) * width, to + t * part->rows * width,
                part->rows * width);
    return matrix_of(to, steps * part->rows, width);
}

/* gradient_add of some of the rows, to the bits that they have as a slice of their own: products
 * and sums go on where those of the steps before ended. */
static void part_gradient_add(const struct layer_instance *l, const struct layer_pass *p,
                              const struct layer_pass *part, const struct place *at, uint64_t layer,
                              uint64_t direction, const struct block *b)
{
    struct lstm_shape s = lstm_shape_of(l);
    struct lstm_part w = lstm_part_of(l, layer, direction);
    uint64_t most = part_steps(l, part->rows), width = s.directions * s.hidden, step, skip, left;
    float *gates = scratch_part(l, p), *x = gates + most * part->rows * 4 * s.hidden;
    float *h = x + most * part->rows * w.in, *g = p->gradient;
    int later = part->adds || b->number + 1 < pass_blocks(l, p), recurred = later;
    for (uint64_t t = 0; t < b->steps; t += most) {
        uint64_t n = b->steps - t < most ? b->steps - t : most;
        struct matrix sums =
            part_gather(p, part, b->gates + t * p->rows * 4 * s.hidden, 4 * s.hidden, n, gates);
        op_product(p->backend, sums, 1, part_gather(p, part, b->x + t * p->rows * w.in, w.in, n, x),
                   0, (float)(later || t > 0), matrix_of(g + w.at[WEIGHT_IH], 4 * s.hidden, w.in));
        op_column_sums(p->backend, sums, t > 0, bias_sum(p, &w, later));
        step = recurrent_steps(l, direction, b->first + t, n, &skip, &left);
        if (!left)
            continue;
        struct matrix before = part_gather(p, part, at->h + step * p->rows * width, width, left, h);
        sums.at += skip * part->rows * 4 * s.hidden;
        sums.rows = left * part->rows;
        op_product(p->backend, sums, 1, matrix_columns(before, direction * s.hidden, s.hidden), 0,
                   (float)recurred, matrix_of(g + w.at[WEIGHT_HH], 4 * s.hidden, s.hidden));
        recurred = 1;
    }
    if (!recurred) /* one step in all */
        op_zero(p->backend, g + w.at[WEIGHT_HH], w.count[WEIGHT_HH]);
    biases_add(l, p, &w, b, later);
}

/* Are the rows more than one part, whose gradients are added one after the other? */
static int is_parted(const struct layer_pass *p)
{
    return p->part_rows && p->rows > p->part_rows;
}

/* When all blocks have gone back, which leaves the gates. */
static void parts_gradient(const struct layer_instance *l, const struct layer_pass *p,
                           const struct place *at, uint64_t layer, uint64_t direction)
{
    struct layer_pass part = *p;
    ensure(p->keep == KEEP_ALL && !p->adds && !is_apart(p));
    for (uint64_t row = 0; row < p->rows; row += p->part_rows) {
        part.row_first = p->row_first + row;
        part.rows = p->rows - row < p->part_rows ? p->rows - row : p->part_rows;
        part.adds = row > 0;
        for (uint64_t number = pass_blocks(l, p); number-- > 0;) {
            struct block b = block_of(l, p, at, layer, direction, number);
            part_gradient_add(l, p, &part, at, layer, direction, &b);
        }
    }
}

/* dx [steps, rows, in] NULL: nobody needs it; the second direction adds to it. */
static void direction_backward(const struct layer_instance *l, const struct layer_pass *p,
                               const struct place *below, const struct place *at, uint64_t layer,
                               uint64_t direction, const float *dh, float *dx)
{
    struct lstm_shape s = lstm_shape_of(l);
    struct lstm_part w = lstm_part_of(l, layer, direction);
    op_zero(p->backend, scratch_dc(l, p), p->rows * s.hidden);
    c_begin(l, p, layer);
    if (p->gradient && is_apart(p))
        op_zero(p->backend, scratch_sums(l, p), p->rows * 4 * s.hidden);
    for (uint64_t number = pass_blocks(l, p); number-- > 0;) {
        struct block b = block_of(l, p, at, layer, direction, number);
        if (p->keep == KEEP_LITTLE && x_is_own(l, layer))
            block_input(l, p, below, layer, &b);
        if (p->keep != KEEP_ALL)
            block_again(l, p, at, layer, direction, &b);
        block_backward(l, p, layer, direction, &b, dh);
        if (p->gradient && !is_parted(p))
            gradient_add(l, p, at, layer, direction, &b);
        if (dx)
            op_product(p->backend, matrix_of(b.gates, b.steps * p->rows, 4 * s.hidden), 0,
                       matrix_of(p->weights + w.at[WEIGHT_IH], 4 * s.hidden, w.in), 0,
                       (float)(direction > 0),
                       matrix_of(dx + b.first * p->rows * w.in, b.steps * p->rows, w.in));
    }
    if (p->gradient && is_parted(p))
        parts_gradient(l, p, at, layer, direction);
}

static void lstm_backward(const struct layer_instance *l, const struct layer_pass *p)
{
    struct lstm_shape s = lstm_shape_of(l);
    if (p->keep == KEEP_NARROW) {
        lstm_narrow_backward(l, p);
        return;
    }
    uint64_t cells = s.steps * p->rows;
    float *dh = p->scratch, *dx = p->scratch + cells * scratch_width(l);
    ensure(l->first || !p->d_input); /* scratch_width relies on it */
    op_steps_swap(p->backend, p->d_output, l->outputs, p->rows, s.steps, l->values_out, dh);
    for (uint64_t layer = s.layers; layer-- > 0;) {
        struct place at = place_of(l, p, layer), below = place_of(l, p, layer - (layer > 0));
        uint64_t width = lstm_in(l, layer);
        for (uint64_t d = 0; d < s.directions; d++)
            direction_backward(l, p, &below, &at, layer, d, dh, layer || p->d_input ? dx : NULL);
        for (uint64_t t = 0; layer && x_is_own(l, layer) && t < s.steps; t++)
            dropout_step(l, p, layer, t, step_of(p, dx, width, t), step_of(p, dx, width, t));
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
    struct place at = place_of(l, p, number / s.directions);
    uint64_t in = lstm_in(l, number / s.directions), cells = s.steps * p->rows;
    struct matrix gates = matrix_of(at.gates[direction], cells, 4 * s.hidden);
    struct matrix of = matrix_of(at.x, cells, in);
    if (tensor % TENSORS == WEIGHT_HH)
        recurrence_of(l, p, at.gates[direction], at.h, direction, 0, s.steps, &gates, &of);
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
