/* slice.c - one slice of the batch through the layers, forward and back; waves of slices over the
 * pool. */
#include <math.h>

#include "engine/stepper.h"

static uint64_t slice_lane(const struct stepper *s, uint64_t slice)
{
    return slice / s->layout.parts % s->layout.lanes;
}

static float *lane_base(const struct stepper *s, uint64_t slice)
{
    float *all = s->region[KIND_ACTIVATIONS].at;
    return all + slice_lane(s, slice) * s->layout.lane_activations;
}

float *lane_activation(const struct stepper *s, uint64_t slice, uint32_t layer, uint32_t buffer)
{
    const struct layout *y = &s->layout;
    uint64_t first = slice * s->config.slice_rows;
    if (buffer == 0)
        return s->at.inputs +
               (s->model->graphs ? s->host.graphs.node_ptr[first] : first) * s->model->inputs;
    return lane_base(s, slice) + (!y->half     ? y->activation_at[buffer]
                                  : buffer % 2 ? y->work_at
                                               : y->work_even_at[layer_segment(y, layer)]);
}

/* NULL: the buffer is not kept in 16 bits. */
static uint16_t *lane_half(const struct stepper *s, uint64_t slice, uint32_t buffer)
{
    const struct layout *y = &s->layout;
    if (!y->half || buffer <= y->forward_buffers || buffer == 0 || y->unread[buffer])
        return NULL;
    return (uint16_t *)(lane_base(s, slice) + s->layout.activation_at[buffer]);
}

float *lane_delta(const struct stepper *s, uint64_t slice, uint32_t buffer)
{
    return lane_base(s, slice) + s->layout.delta_at[buffer];
}

float *slice_gradient(const struct stepper *s, uint64_t number)
{
    float *all = s->region[KIND_SLICE_GRADIENTS].at;
    uint64_t lanes = s->layout.gradient_lanes, lane = number % lanes;
    if (number == 0 && s->batch.done == 0)
        return s->gradient;
    /* lanes 1.. come first: where a batch is one wave lane 0 has no buffer */
    return all + (lane ? lane - 1 : lanes - 1) * s->layout.trained;
}

/* Squares of the batch's input go elsewhere: it must stay as it is. */
static float *squares_input(const struct stepper *s, uint64_t slice, uint32_t buffer)
{
    return buffer ? lane_activation(s, slice, 0, buffer)
                  : s->input_squares + slice_lane(s, slice) * s->layout.lane_inputs;
}

static struct sparse slice_adjacency(const struct adjacency *a, uint64_t first, uint64_t nodes)
{
    return (struct sparse){a->begin + first, a->column, a->value, nodes, nodes};
}

/* Nodes that layers compute of rows first .. first + rows - 1 of the micro-batch. */
static uint64_t nodes_computed(const struct batch_work *b, uint64_t first, uint64_t rows)
{
    const uint64_t *nodes = b->s->host.graphs.node_ptr;
    uint64_t count = nodes[first + rows] - nodes[first];
    return b->work == SLICE_TRAIN ? graphs_nodes(b->s, count) : count;
}

/* The slice's rows as a layer sees them that is behind no pool yet: its nodes. */
static void pass_graphs(const struct batch_work *b, struct layer_pass *p)
{
    const struct stepper *s = b->s;
    const struct graph_batch *g = &s->at.graphs;
    uint64_t row = p->row_first - s->batch.done, first = s->host.graphs.node_ptr[row];
    uint64_t edge_values = s->model->edges_used ? s->model->edge_inputs : 0;
    p->samples.begin = g->node_ptr + row;
    p->rows = nodes_computed(b, row, p->rows);
    p->row_first = s->host.graphs.nodes_done + first;
    p->adjacency = slice_adjacency(&g->in, first, p->rows);
    p->transposed = slice_adjacency(&g->out, first, p->rows);
    p->edge_sums = matrix_of(g->edge_sums + first * edge_values, p->rows, edge_values);
}

/* Which of the layers with statistics it is. */
static uint32_t statistics_number(const struct stepper *s, uint32_t layer)
{
    uint32_t number = 0;
    while (s->layout.statistics_layer[number] != layer)
        number++;
    return number;
}

static enum layer_chain chain_of(const struct batch_work *b, uint32_t layer)
{
    const struct stepper *s = b->s;
    const struct layer_instance *l = &s->model->layers[layer];
    int alone = b->work == SLICE_FISHER || (b->work == SLICE_EVALUATE && s->int8);
    if (!s->device->apart || !l->type->chains || s->layout.statistics_count || alone)
        return CHAIN_NONE;
    enum layer_chain chain = l->type->chains(l);
    return chain == CHAIN_HALVES && !s->weights_half ? CHAIN_ACTIVATION : chain;
}

/* Does the backward of the layer before do that of this activation? */
static int activation_joins(const struct batch_work *b, uint32_t layer)
{
    const struct stepper *s = b->s;
    const struct route *route = s->layout.route;
    return layer > s->layout.first_trained && s->model->layers[layer].type->activates &&
           route[layer].in == route[layer].out && chain_of(b, layer - 1) != CHAIN_NONE;
}

/* The layer whose backward is next, unless it is none that chains. */
static uint32_t chain_next(const struct batch_work *b, uint32_t layer)
{
    return layer - 1 - (uint32_t)activation_joins(b, layer - 1);
}

/* Is the gradient at the layer's input in 16 bits? Where it and whoever takes that chain so. */
static int gradient_is_half(const struct batch_work *b, uint32_t layer)
{
    const struct layout *y = &b->s->layout;
    if (layer <= y->first_trained || chain_of(b, layer) != CHAIN_HALVES)
        return 0;
    return chain_of(b, chain_next(b, layer)) == CHAIN_HALVES;
}

/* Behind it come no others of its chain, or something between: what a segment runs again. */
static int chain_ends(const struct batch_work *b, uint32_t layer)
{
    const struct layout *y = &b->s->layout;
    return !gradient_is_half(b, layer) ||
           layer_segment(y, layer) != layer_segment(y, chain_next(b, layer));
}

static struct convolution_turn turn_of(const struct batch_work *b, uint32_t layer)
{
    struct convolution_turn turn = {0, chain_ends(b, layer)};
    for (uint32_t i = b->s->model->layer_count; --i > layer;)
        if (chain_of(b, i) == CHAIN_HALVES)
            turn.number = chain_ends(b, i) ? 0 : turn.number + 1;
    return turn;
}

/* Does the layer behind an activation do its derivative, where it leaves the gradient in 16 bits?
 * There each number is read once, and by the layer before once for every edge. */
static int derivative_joins(const struct batch_work *b, uint64_t slice, uint32_t activation)
{
    const struct stepper *s = b->s;
    uint32_t behind = activation + 1;
    return behind < s->model->layer_count && s->model->layers[activation].type->needs_output &&
           lane_half(s, slice, s->layout.route[activation].out) && gradient_is_half(b, behind);
}

/* What the pass of a layer that chains has more than others. */
static void pass_chain(const struct batch_work *b, uint64_t slice, uint32_t layer,
                       struct layer_pass *p)
{
    const struct stepper *s = b->s;
    const struct layer_instance *l = &s->model->layers[layer];
    const struct route *route = &s->layout.route[layer];
    uint32_t behind = layer + 1;
    p->chained = b->work == SLICE_TRAIN;
    p->halves = chain_of(b, layer) == CHAIN_HALVES;
    p->weights_half = p->halves ? s->weights_half + l->first : NULL;
    p->input_half = p->halves ? lane_half(s, slice, route->in) : NULL;
    if (b->work != SLICE_TRAIN)
        return;
    if (behind < s->model->layer_count && activation_joins(b, behind)) {
        p->behind_kept = mixed_at(lane_half(s, slice, route->out), p->output, p->rows, l->outputs);
        if (!derivative_joins(b, slice, behind))
            p->behind = (enum activation)(l[1].type->activates - 1);
        behind++;
    }
    if (behind < s->model->layer_count && gradient_is_half(b, behind)) {
        p->d_output_half = (uint16_t *)p->d_output;
        p->behind_half = p->d_output_half + s->layout.delta_floats[route->out % 2];
    }
    if (gradient_is_half(b, layer))
        p->d_input_half = (uint16_t *)p->d_input;
    if (layer > 0 && activation_joins(b, layer - 1) && derivative_joins(b, slice, layer - 1))
        p->before = s->model->layers[layer - 1].type->activates;
    p->turn = turn_of(b, layer);
}

struct layer_pass slice_pass(const struct batch_work *b, uint64_t slice, uint32_t layer)
{
    const struct stepper *s = b->s;
    const struct layer_instance *l = &s->model->layers[layer];
    const struct route *route = &s->layout.route[layer];
    struct layer_pass p = {
        .backend = s->backend,
        .rows = slice_rows(s, b->rows, slice),
        .row_first = s->batch.done + slice * s->config.slice_rows,
        .samples = {.count = slice_rows(s, b->rows, slice), .steps = l->steps},
        .seed = s->config.seed,
        .step = b->work == SLICE_RENEW ? s->renew_step : s->batch.step,
        .step_late = s->device->apart ? s->at.step : NULL,
        .training = b->work == SLICE_TRAIN || b->work == SLICE_RENEW,
        .parameters = s->parameters + l->first,
        .weights = s->weights + l->first,
        .half = s->layout.half,
        .input = lane_activation(s, slice, layer, route->in),
        .output = lane_activation(s, slice, layer, route->out),
        .keep = layer_keep_of(l, &s->config),
        .saved = lane_base(s, slice) + s->layout.saved_at[layer],
        .scratch = lane_base(s, slice) + s->layout.scratch_at,
        .behind = ACTIVATION_COUNT,
    };
    if (l->type->rounds) {
        p.output_half = lane_half(s, slice, route->out);
        p.kept_half = lane_half(s, slice, l->type->needs_output ? route->out : route->in);
    }
    if (l->graphs)
        pass_graphs(b, &p);
    if (l->type->residual) {
        uint32_t skip = s->layout.route[l->partner].out;
        p.skip_half = lane_half(s, slice, skip);
        p.skip = p.skip_half ? NULL : lane_activation(s, slice, layer, skip);
        p.d_skip = lane_base(s, slice) + s->layout.skip_at[layer];
    }
    if (b->work == SLICE_EVALUATE && s->int8) {
        p.quantised = &s->quantised;
        p.lane = slice_lane(s, slice);
    }
    if (l->type->statistics) {
        p.statistics = &s->statistics[statistics_number(s, layer)];
        p.part = &s->parts[slice];
    }
    if (l->carried_count)
        carried_pass(b, slice, l, &p);
    if (b->work == SLICE_FISHER)
        p.squares_input = squares_input(s, slice, route->in);
    if (b->work == SLICE_TRAIN && l->first >= s->layout.frozen)
        p.gradient = slice_gradient(s, slice / s->layout.parts) + (l->first - s->layout.frozen);
    p.adds = slice % s->layout.parts > 0;
    p.part_rows = b->work == SLICE_TRAIN ? s->layout.part_rows : 0;
    if (b->work == SLICE_TRAIN || b->work == SLICE_FISHER) {
        p.d_output = lane_delta(s, slice, route->out);
        p.d_input = layer > s->layout.first_trained ? lane_delta(s, slice, route->in) : NULL;
    }
    if (chain_of(b, layer) != CHAIN_NONE)
        pass_chain(b, slice, layer, &p);
    return p;
}

/* Where the labels are the model's own, all of them: what the pass adds to what is expected. The
 * root of what its class weighs is a factor, as that of what the row was given is (WEIGHT_ROOT). */
static void slice_root(const struct batch_work *b, struct loss_slice *l, uint64_t row)
{
    const struct stepper *s = b->s;
    if (!s->at.class_given) {
        s->loss->root(l, (uint32_t)b->pass);
        return;
    }
    if (!b->pass) /* what is expected is the same in each */
        labels_weigh(s, l, row, b->fisher->labels);
    l->weights.at = s->at.class_given + row * s->model->target_steps;
    s->loss->root(l, (uint32_t)b->pass);
    op_scale(s->backend, (float)sqrt((double)s->host.of_targets[b->pass]), l->d.at,
             l->d.rows * l->d.columns);
}

/* The slice's outputs and targets, and where their losses go. */
static struct loss_slice slice_loss_make(const struct batch_work *b, uint64_t slice)
{
    const struct stepper *s = b->s;
    uint64_t row = slice * s->config.slice_rows, rows = slice_rows(s, b->rows, slice);
    uint64_t outputs = s->model->outputs, steps = s->model->target_steps;
    uint32_t buffer = s->layout.route[s->model->layer_count - 1].out;
    struct loss_slice l = {
        .backend = s->backend,
        .outputs = matrix_of(lane_activation(s, slice, s->model->layer_count - 1, buffer),
                             rows * steps, outputs / steps),
        .classes = s->at.classes ? s->at.classes + row * steps : NULL,
        .values = matrix_of(s->at.values ? s->at.values + row * outputs : NULL, rows, outputs),
        .weights =
            targets_weights(s, &s->at, row, b->work == SLICE_FISHER ? WEIGHT_ROOT : WEIGHT_ITSELF),
        .delta = s->model->loss_delta,
        .divisor =
            (double)steps * (b->work == SLICE_TRAIN ? (double)s->batch.rows / s->batch.scale : 1.0),
        .result = s->at.losses + row * steps,
        .sum = s->device->apart && b->work == SLICE_TRAIN ? s->loss_sum : NULL,
        .half = s->layout.half,
    };
    if (b->work != SLICE_EVALUATE)
        l.d = matrix_of(lane_delta(s, slice, buffer), rows * steps, outputs / steps);
    return l;
}

void slice_loss(const struct batch_work *b, uint64_t slice)
{
    const struct stepper *s = b->s;
    uint64_t row = slice * s->config.slice_rows, rows = slice_rows(s, b->rows, slice);
    uint64_t outputs = s->model->outputs, steps = s->model->target_steps;
    struct loss_slice l = slice_loss_make(b, slice);
    int sampled = b->work == SLICE_FISHER && b->fisher->labels == FISHER_SAMPLED;
    if (sampled)
        s->loss->draw(&l, b->fisher->key, (b->fisher->position + row) * steps);
    if (sampled && s->at.class_given)
        labels_weigh(s, &l, row, FISHER_SAMPLED);
    if (b->outputs)
        s->device->download(b->outputs + row * outputs, l.outputs.at,
                            rows * outputs * sizeof *b->outputs);
    s->loss->slice(&l);
    if (b->work == SLICE_FISHER && b->fisher->labels > FISHER_SAMPLED)
        slice_root(b, &l, row);
    l.result = s->at.metrics + row * steps;
    l.weights.use = WEIGHT_COUNTED;
    if (b->work == SLICE_EVALUATE && s->metric->slice)
        s->metric->slice(&l);
}

/* Rows of the slice as a layer sees or leaves them: nodes where they are of graphs. */
static uint64_t seen_rows(const struct batch_work *b, uint64_t slice, int graphs)
{
    uint64_t rows = slice_rows(b->s, b->rows, slice);
    return graphs ? nodes_computed(b, slice * b->s->config.slice_rows, rows) : rows;
}

/* A layer's output is rounded to 16 bits, and kept where somebody else but the next layer reads it.
 */
static void output_round(const struct batch_work *b, uint64_t slice, uint32_t layer)
{
    const struct stepper *s = b->s;
    const struct layer_instance *l = &s->model->layers[layer];
    uint32_t buffer = s->layout.route[layer].out;
    uint64_t rows = seen_rows(b, slice, l->graphs_out);
    uint16_t *kept = lane_half(s, slice, buffer);
    float *at = lane_activation(s, slice, layer, buffer);
    if (kept)
        op_store_half(s->backend, s->layout.half, at, kept, rows * l->outputs);
    else if (layer_keep_of(l, &s->config) != KEEP_NARROW) /* its numbers are those */
        op_round_half(s->backend, s->layout.half, matrix_of(at, rows, l->outputs));
}

/* What is kept of a buffer, as float32 at `to`; returns where that is. */
static float *buffer_load(const struct batch_work *b, uint64_t slice, uint32_t layer,
                          uint32_t buffer, uint64_t values, float *to)
{
    const struct stepper *s = b->s;
    const uint16_t *kept = lane_half(s, slice, buffer);
    if (!kept)
        return lane_activation(s, slice, layer, buffer);
    op_load_half(s->backend, s->layout.half, kept, to, values);
    return to;
}

/* A segment's first layer finds its input where the segment works. */
static void input_load(const struct batch_work *b, uint64_t slice, uint32_t layer)
{
    const struct layer_instance *l = &b->s->model->layers[layer];
    uint32_t in = b->s->layout.route[layer].in;
    buffer_load(b, slice, layer, in, seen_rows(b, slice, l->graphs) * l->inputs,
                lane_activation(b->s, slice, layer, in));
}

/* On a device apart, where each operation costs a launch, a layer that can finishes its output by
 * itself, and with it the next layer where that is an activation in the same place. Returns how
 * many layers that are. */
static uint32_t layers_join(const struct batch_work *b, uint64_t slice, uint32_t layer,
                            uint32_t end, struct layer_pass *p)
{
    const struct stepper *s = b->s;
    const struct layer_instance *l = &s->model->layers[layer];
    const struct route *route = s->layout.route;
    if (!s->device->apart || !l->type->finishes || p->quantised)
        return 1;
    p->finishes = 1;
    p->then = ACTIVATION_COUNT;
    p->kept = lane_half(s, slice, route[layer].out);
    if (layer + 1 == end || !l[1].type->activates || route[layer + 1].out != route[layer].out)
        return 1;
    p->then = (enum activation)(l[1].type->activates - 1);
    return 2;
}

/* loss: of the last layer's outputs, with which it is made; NULL: it is not. */
static void layers_forward(const struct batch_work *b, uint64_t slice, uint32_t first, uint32_t end,
                           const struct loss_slice *loss)
{
    const struct layer_instance *layers = b->s->model->layers;
    const struct layout *y = &b->s->layout;
    for (uint32_t i = first, joined; i < end; i += joined) {
        struct layer_pass p = slice_pass(b, slice, i);
        joined = layers_join(b, slice, i, end, &p);
        if (p.half && i > 0 && y->segment_first[layer_segment(y, i)] == i && !p.input_half)
            input_load(b, slice, i);
        p.output_unread = p.kept && i + joined < end && chain_of(b, i + joined) == CHAIN_HALVES;
        if (loss && i + 1 == b->s->model->layer_count)
            p.loss = loss, p.loss_linear = b->s->loss->linear;
        layers[i].type->forward(&layers[i], &p);
        if (p.half && !layers[i].type->same && !layers[i].type->rounds && !p.finishes)
            output_round(b, slice, i);
    }
}

void slice_forward(const struct batch_work *b, uint64_t slice, uint32_t first, uint32_t end)
{
    layers_forward(b, slice, first, end, NULL);
}

/* Of input and output backward reads one. */
struct layer_pass slice_pass_backward(const struct batch_work *b, uint64_t slice, uint32_t layer)
{
    const struct stepper *s = b->s;
    const struct layer_instance *l = &s->model->layers[layer];
    const struct route *route = &s->layout.route[layer];
    struct layer_pass p = slice_pass(b, slice, layer);
    float *to = lane_base(s, slice) + s->layout.work_at;
    if (!p.half || l->type->residual || l->type->rounds || layer_copies(l) || p.input_half)
        return p;
    if (l->type->forgets_input && l->type->forgets_input(l)) {
        p.input = to; /* not where a gradient is */
        return p;
    }
    if (l->type->needs_output)
        p.output = buffer_load(b, slice, layer, route->out,
                               seen_rows(b, slice, l->graphs_out) * l->outputs, to);
    else if (s->device->apart && l->type->finishes_back && lane_half(s, slice, route->in))
        p.input = to, p.input_half = lane_half(s, slice, route->in);
    else
        p.input = buffer_load(b, slice, layer, route->in, p.rows * l->inputs, to);
    return p;
}

void slice_again(const struct batch_work *b, uint64_t slice, uint32_t layer)
{
    const struct layout *y = &b->s->layout;
    uint32_t k = layer_segment(y, layer);
    if (k + 1 < y->segments && layer + 1 == y->segment_first[k + 1])
        slice_forward(b, slice, y->segment_first[k], y->again_end[k]);
}

/* Is a layer's d_input still to be rounded? Not where an activation reads it next, which does that
 * first. */
static int d_input_rounds(const struct stepper *s, uint32_t layer)
{
    const struct layer_instance *l = &s->model->layers[layer];
    if (l->type->rounds || layer_copies(l) || (layer > 0 && l[-1].type->rounds))
        return 0;
    return !l->type->same || l->type->residual;
}

/* On a device apart a layer that can does with its own backward that of the activation before it,
 * where that is in the same place and segment, and rounds what it leaves. Returns how many layers
 * that are. */
static uint32_t layers_join_back(const struct batch_work *b, uint32_t layer, uint32_t least,
                                 struct layer_pass *p)
{
    const struct stepper *s = b->s;
    const struct layer_instance *l = &s->model->layers[layer];
    const struct route *route = s->layout.route;
    if (!s->device->apart || !l->type->finishes_back)
        return 1;
    p->d_input_rounds = p->half && p->d_input && d_input_rounds(s, layer);
    if (!p->d_input || layer <= least || layer <= s->layout.first_trained + 1 ||
        (b->work == SLICE_TRAIN && activation_joins(b, layer - 1)))
        return 1;
    const struct layer_type *before = l[-1].type;
    if (!before->activates || !before->in_place || route[layer - 1].in != route[layer].in ||
        layer_segment(&s->layout, layer - 1) != layer_segment(&s->layout, layer))
        return 1;
    p->before = before->activates;
    p->d_input_rounds = p->half != HALF_NONE;
    return 2;
}

/* A layer with statistics has seen its segment again when its part was taken. */
void slice_backward(const struct batch_work *b, uint64_t slice, uint32_t first, uint32_t end)
{
    const struct layer_instance *layers = b->s->model->layers;
    uint32_t least = b->s->layout.first_trained > first ? b->s->layout.first_trained : first;
    for (uint32_t behind = end, joined; behind > least; behind -= joined) {
        uint32_t i = behind - 1;
        if (!layers[i].type->statistics || b->work == SLICE_FISHER)
            slice_again(b, slice, i);
        joined = 1;
        if (b->work == SLICE_TRAIN && activation_joins(b, i))
            continue;
        struct layer_pass p = slice_pass_backward(b, slice, i);
        joined = layers_join_back(b, i, least, &p);
        layers[i].type->backward(&layers[i], &p);
        int done = p.d_input_half || p.d_input_rounds;
        if (p.half && p.d_input && !done && d_input_rounds(b->s, i))
            op_round_half(p.backend, p.half, matrix_of(p.d_input, p.rows, layers[i].inputs));
    }
}

/* On a device apart the last layer can make the loss with its outputs, where each of its steps has
 * a target, and the gradient there does not take its input's place. */
static int loss_joins(const struct batch_work *b)
{
    const struct stepper *s = b->s;
    uint32_t last = s->model->layer_count - 1;
    const struct layer_instance *l = &s->model->layers[last];
    const struct route *route = &s->layout.route[last];
    return s->device->apart && b->work == SLICE_TRAIN && !b->backward_only && s->loss->linear &&
           l->type->takes_loss && l->steps == s->model->target_steps &&
           lane_activation(s, 0, last, route->in) != lane_delta(s, 0, route->out);
}

static void slice_run(void *argument, uint64_t lane, int thread)
{
    const struct batch_work *b = argument;
    uint64_t parts = b->s->layout.parts, slice = b->wave_first + lane * parts;
    uint64_t all = batch_slices(b->s, b->rows), end = all < slice + parts ? all : slice + parts;
    uint32_t count = b->s->model->layer_count;
    int joins = loss_joins(b);
    (void)thread;
    for (; slice < end; slice++) {
        struct loss_slice loss = slice_loss_make(b, slice);
        if (!b->backward_only)
            layers_forward(b, slice, 0, count, joins ? &loss : NULL);
        if (!joins)
            slice_loss(b, slice);
        if (b->work != SLICE_EVALUATE)
            slice_backward(b, slice, 0, count);
    }
}

void slice_run_alone(struct batch_work *b, uint64_t slice)
{
    b->wave_first = slice;
    slice_run(b, 0, 0);
}

uint64_t wave_run(struct batch_work *b)
{
    const struct layout *y = &b->s->layout;
    uint64_t left = batch_slices(b->s, b->rows) - b->wave_first, most = y->lanes * y->parts;
    uint64_t count = left < most ? left : most;
    stepper_run(b->s, slice_run, b, slice_sums(b->s, count));
    return count;
}

double rows_sum(double sum, const double *numbers, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        sum += numbers[i];
    return sum;
}
