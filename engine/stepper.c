/* stepper.c - sizes first, then memory, then nothing more: layout, plan, open and close.
 *
 * layout_make decides every size from the model and the configuration; stepper_plan prints it and
 * stepper_open maps it, one region a kind, so the plan cannot differ from what is allocated.
 */
#include "engine/stepper.h"

#include <stdlib.h>
#include <string.h>

#include "engine/optimizer.h"
#include "engine/ops.h"

static const char *const kind_names[KIND_COUNT] = {
    [KIND_PARAMETERS] = "parameters",
    [KIND_GRADIENT] = "gradient",
    [KIND_MOMENTS] = "moments of the optimizer",
    [KIND_SLICE_GRADIENTS] = "gradients of slices",
    [KIND_ACTIVATIONS] = "activations and their gradients",
    [KIND_BATCH] = "batch: inputs, targets, losses",
    [KIND_SUMS] = "partial sums",
    [KIND_SQUARES] = "a sample's tile, squares, squared input",
};

static uint64_t padded(uint64_t count, uint64_t unit)
{
    uint64_t sum = size_plus(count, unit - 1);
    return sum == UINT64_MAX ? sum : sum / unit * unit;
}

static uint64_t floats_padded(uint64_t floats)
{
    return padded(floats, MEMORY_ALIGNMENT_FLOATS);
}

static uint64_t bytes_padded(uint64_t bytes)
{
    return padded(bytes, MEMORY_ALIGNMENT);
}

static uint64_t floats_bytes(uint64_t floats)
{
    return size_times(floats, sizeof(float));
}

/* Most rows that a layer sees of a slice, or leaves: nodes where it is graphs. */
static uint64_t rows_most(const struct step_config *c, int graphs)
{
    return graphs ? c->slice_nodes_max : c->slice_rows;
}

/* Floats of the batch's input in a slice. */
static uint64_t input_floats(const struct model *m, const struct step_config *c)
{
    return floats_padded(size_times(rows_most(c, m->graphs), m->inputs));
}

/* Which buffer each layer reads and writes, and the floats of the buffers. A layer works in place
 * where it can, its input is a lane's buffer and the layer before does not need that for its
 * backward. */
static void layout_route(struct layout *y, const struct model *m, const struct step_config *c,
                         uint64_t *floats)
{
    int kept = 0; /* somebody's backward, or the end of a residual pair, reads the newest buffer */
    for (uint32_t i = 0; i < m->layer_count; i++) {
        const struct layer_instance *l = &m->layers[i];
        y->route[i].in = i ? y->route[i - 1].out : 0;
        int in_place = l->type->in_place && y->route[i].in > 0 && !kept;
        if (!l->type->same && !in_place)
            floats[++y->buffers] =
                floats_padded(size_times(rows_most(c, l->graphs_out), l->outputs));
        y->route[i].out = y->buffers;
        int needed = l->type->needs_output && (i >= y->first_trained || l->type->residual);
        kept = needed || (l->type->same && kept);
    }
}

/* The buffers before the one that the first trained layer reads are dead as soon as the next layer
 * has run, unless a residual pair begins there. */
static void layout_forward_buffers(struct layout *y, const struct model *m)
{
    uint32_t read = y->route[y->first_trained].in;
    y->forward_buffers = y->frozen && read ? read - 1 : 0;
    for (uint32_t i = 0; i < y->first_trained; i++)
        if (m->layers[i].type->residual)
            y->forward_buffers = 0;
}

/* A place for each depth of residual pairs, as large as the largest of them. */
static uint64_t layout_residuals(struct layout *y, const struct model *m,
                                 const struct step_config *c, uint64_t at)
{
    int found = 1;
    for (uint32_t depth = 0; found; depth++) {
        uint64_t most = 0;
        found = 0;
        for (uint32_t i = 0; i < m->layer_count; i++) {
            const struct layer_instance *l = &m->layers[i];
            if (!l->type->residual || l->depth != depth)
                continue;
            found = 1;
            y->skip_at[i] = at;
            uint64_t floats = size_times(rows_most(c, l->graphs), l->inputs);
            most = floats > most ? floats : most;
        }
        at = size_plus(at, floats_padded(most));
    }
    return at;
}

/* What each layer keeps for itself, and one scratch for all. */
static uint64_t layout_layers(struct layout *y, const struct model *m, const struct step_config *c,
                              uint64_t at)
{
    uint64_t most = 0, most_saved = 0, first = at;
    for (uint32_t i = 0; i < m->layer_count; i++) {
        const struct layer_instance *l = &m->layers[i];
        uint64_t rows = rows_most(c, l->graphs);
        uint64_t saved = l->type->saved_floats ? floats_padded(l->type->saved_floats(l, rows)) : 0;
        int dead = y->frozen && i < y->first_trained; /* nobody asks for it: one place for all */
        most_saved = dead && saved > most_saved ? saved : most_saved;
        y->saved_at[i] = dead ? first : at;
        at = dead ? size_plus(first, most_saved) : size_plus(at, saved);
        if (l->type->scratch_floats) {
            uint64_t scratch = floats_padded(l->type->scratch_floats(l, rows));
            most = scratch > most ? scratch : most;
        }
    }
    y->scratch_at = at;
    return size_plus(at, most);
}

/* Places of the buffers in a lane. Those that only frozen layers read alternate between two places.
 * In training the gradient at an activation is dead as soon as the layer before has its own: two
 * places alternate. For the Fisher information all stay until the lanes are squared. */
static void layout_lane(struct layout *y, const struct model *m, const struct step_config *c,
                        const uint64_t *floats)
{
    uint64_t at = 0, widest = 0;
    for (uint32_t b = 1; b <= y->forward_buffers; b++)
        widest = floats[b] > widest ? floats[b] : widest;
    for (uint32_t b = 1; b <= y->forward_buffers; b++) {
        y->activation_at[b] = b % 2 ? 0 : widest;
        at = size_times(b > 1 ? 2 : 1, widest);
    }
    widest = 0;
    for (uint32_t b = y->forward_buffers + 1; b <= y->buffers; b++) {
        y->activation_at[b] = at;
        at = size_plus(at, floats[b]);
        widest = floats[b] > widest ? floats[b] : widest;
    }
    for (uint32_t b = 1; b <= y->buffers; b++) {
        if (c->with_optimizer) {
            y->delta_at[b] = size_plus(at, b % 2 ? 0 : widest);
        } else {
            y->delta_at[b] = at;
            at = size_plus(at, floats[b]);
        }
    }
    at = c->with_optimizer ? size_plus(at, size_times(2, widest)) : at;
    at = layout_residuals(y, m, c, at);
    y->lane_activations = layout_layers(y, m, c, at);
}

/* Where the parts of the batch's region start, in bytes; the last number is the region's size. */
enum batch_part {
    BATCH_INPUTS,
    BATCH_TARGETS,
    BATCH_LOSSES,
    BATCH_METRICS,
    BATCH_TARGET_SUMS,
    BATCH_GRAPHS, /* its parts, as enum graph_part has them */
    BATCH_END = BATCH_GRAPHS + GRAPH_PARTS
};

static void batch_places(const struct model *m, const struct step_config *c,
                         uint64_t places[BATCH_END + 1])
{
    const struct loss_type *loss = loss_type_named(m->loss);
    uint64_t row_targets = loss->values ? m->outputs : m->target_steps;
    uint64_t losses = size_times(c->batch_rows_max, m->target_steps);
    uint64_t input_rows = m->graphs ? c->batch_nodes_max : c->batch_rows_max;
    uint64_t bytes[BATCH_END] = {
        [BATCH_INPUTS] = floats_bytes(size_times(input_rows, m->inputs)),
        [BATCH_TARGETS] = floats_bytes(size_times(c->batch_rows_max, row_targets)), /* or classes */
        [BATCH_LOSSES] = size_times(losses, sizeof(double)),
        [BATCH_METRICS] = size_times(losses, sizeof(double)),
        [BATCH_TARGET_SUMS] = loss->values ? size_times(2 * sizeof(double), m->outputs) : 0,
    };
    if (m->graphs)
        graphs_bytes(m, c, bytes + BATCH_GRAPHS);
    places[0] = 0;
    for (int i = 0; i < BATCH_END; i++)
        places[i + 1] = size_plus(places[i], bytes_padded(bytes[i]));
}

static void layout_bytes(struct layout *y, const struct model *m, const struct step_config *c)
{
    uint64_t places[BATCH_END + 1];
    batch_places(m, c, places);
    y->bytes[KIND_PARAMETERS] = floats_bytes(y->parameters);
    y->bytes[KIND_ACTIVATIONS] = floats_bytes(size_times(y->lanes, y->lane_activations));
    y->bytes[KIND_BATCH] = places[BATCH_END];
    if (c->with_optimizer) {
        uint64_t moments = (uint64_t)optimizer_moments(c->optimizer);
        y->bytes[KIND_GRADIENT] = floats_bytes(y->trained);
        y->bytes[KIND_MOMENTS] = floats_bytes(size_times(moments, y->trained));
        y->bytes[KIND_SLICE_GRADIENTS] = floats_bytes(size_times(y->slice_gradients, y->trained));
        y->bytes[KIND_SUMS] = size_times(2 * sizeof(double), y->blocks);
    } else {
        y->bytes[KIND_SQUARES] = floats_bytes(size_plus(
            size_times(2 * (uint64_t)c->threads, y->tile), size_times(y->lanes, y->lane_inputs)));
    }
    for (int k = 0; k < KIND_COUNT; k++)
        y->bytes[k] = region_bytes(y->bytes[k]);
}

/* Of the first `layers` layers. */
static uint64_t parameters_before(const struct model *m, uint32_t layers)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < layers && i < m->layer_count; i++)
        count += m->layers[i].count;
    return count;
}

uint64_t step_frozen(const struct model *m, const struct step_config *c)
{
    return c->freeze_backbone ? parameters_before(m, c->backbone_layers) : 0;
}

static void layout_make(struct layout *y, const struct model *m, const struct step_config *c)
{
    uint64_t floats[MODEL_LAYERS_MAX + 1] = {0};
    *y = (struct layout){0};
    ensure(c->batch_rows_max > 0 && c->slice_rows > 0 && m->parameter_count > 0);
    ensure(c->threads >= 1 && c->threads <= POOL_THREADS_MAX);
    ensure(!m->graphs || (c->slice_nodes_max > 0 && c->batch_nodes_max >= c->slice_nodes_max));
    y->slices_max = (c->batch_rows_max - 1) / c->slice_rows + 1;
    y->lanes = y->slices_max < (uint64_t)c->threads ? y->slices_max : (uint64_t)c->threads;
    y->parameters = floats_padded(m->parameter_count);
    y->frozen = step_frozen(m, c);
    y->backbone = parameters_before(m, c->backbone_layers);
    ensure(y->frozen < m->parameter_count);
    y->trained = floats_padded(m->parameter_count - y->frozen);
    while (!m->layers[y->first_trained].count || m->layers[y->first_trained].first < y->frozen)
        y->first_trained++;
    y->blocks = (m->parameter_count - y->frozen + SWEEP_BLOCK - 1) / SWEEP_BLOCK;
    /* a batch's first slice writes into its gradient; lane 0 has its own buffer only for later
     * waves */
    int one_wave = y->slices_max == y->lanes && !c->accumulates;
    y->slice_gradients = one_wave ? y->lanes - 1 : y->lanes;
    y->lane_inputs = input_floats(m, c);
    layout_route(y, m, c, floats);
    layout_forward_buffers(y, m);
    layout_lane(y, m, c, floats);
    for (uint32_t i = 0; i < m->layer_count; i++) {
        uint64_t tile = floats_padded(layer_tile_floats_max(m, &m->layers[i]));
        y->tile = tile > y->tile ? tile : y->tile;
    }
    layout_bytes(y, m, c);
}

void stepper_plan(const struct model *m, const struct step_config *c, const char *stage,
                  struct plan *p)
{
    struct layout y;
    layout_make(&y, m, c);
    for (int k = 0; k < KIND_COUNT; k++)
        if (y.bytes[k] > 0)
            plan_add(p, stage, kind_names[k], y.bytes[k]);
}

/* Pointers into the regions. */
static void stepper_place(struct stepper *s)
{
    const struct layout *y = &s->layout;
    char *batch = s->region[KIND_BATCH].at;
    uint64_t places[BATCH_END + 1];
    batch_places(s->model, &s->config, places);
    s->inputs = (float *)(batch + places[BATCH_INPUTS]);
    s->classes = s->loss->values ? NULL : (uint32_t *)(batch + places[BATCH_TARGETS]);
    s->values = s->loss->values ? (float *)(batch + places[BATCH_TARGETS]) : NULL;
    s->losses = (double *)(batch + places[BATCH_LOSSES]);
    s->metrics = (double *)(batch + places[BATCH_METRICS]);
    s->target_sums = (double *)(batch + places[BATCH_TARGET_SUMS]);
    s->target_squares = s->target_sums + s->model->outputs;
    if (s->model->graphs)
        graphs_place(&s->graphs, batch, places + BATCH_GRAPHS);
    s->parameters = s->region[KIND_PARAMETERS].at;
    if (s->config.with_optimizer) {
        s->gradient = s->region[KIND_GRADIENT].at;
        int moments = optimizer_moments(s->config.optimizer);
        s->moment_m = s->region[KIND_MOMENTS].at; /* NULL where there are none */
        s->moment_v = moments > 1 ? s->moment_m + y->trained : NULL;
        s->block_norm2 = s->region[KIND_SUMS].at;
        s->block_penalty = s->block_norm2 + y->blocks;
    } else {
        s->tiles = s->region[KIND_SQUARES].at;
        s->input_squares = s->tiles + 2 * (uint64_t)s->config.threads * y->tile;
    }
}

int stepper_open(struct stepper **s_p, const struct model *m, const struct step_config *c,
                 struct err *e)
{
    struct stepper *s = *s_p = calloc(1, sizeof *s);
    if (!s)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot allocate the stepper");
    s->model = m;
    s->backend = &backend_cpu;
    s->loss = loss_type_named(m->loss);
    s->metric = loss_metric_named(s->loss, c->metric ? c->metric : "auto");
    s->config = *c;
    ensure(s->loss && s->metric);
    layout_make(&s->layout, m, c);
    for (int k = 0; k < KIND_COUNT; k++)
        if (region_open(&s->region[k], s->layout.bytes[k], kind_names[k], e) < 0)
            goto fail;
    stepper_place(s);
    if (pool_open(&s->pool, c->threads, e) < 0)
        goto fail;
    return 0;
fail:
    stepper_close(s_p);
    return -1;
}

void stepper_close(struct stepper **s_p)
{
    struct stepper *s = *s_p;
    if (!s)
        return;
    pool_close(&s->pool);
    for (int k = 0; k < KIND_COUNT; k++)
        region_close(&s->region[k]);
    free(s);
    *s_p = NULL;
}

float *stepper_parameters(struct stepper *s)
{
    return s->parameters;
}

float *stepper_moment_m(struct stepper *s)
{
    return s->moment_m;
}

float *stepper_moment_v(struct stepper *s)
{
    return s->moment_v;
}

void stepper_moments_clear(struct stepper *s)
{
    if (s->moment_m)
        memset(s->moment_m, 0, (size_t)s->region[KIND_MOMENTS].bytes);
}

float *stepper_gradient(struct stepper *s)
{
    return s->gradient;
}
