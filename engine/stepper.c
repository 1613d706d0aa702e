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
    [KIND_WEIGHTS] = "weights rounded to 16 bits, for products",
    [KIND_GRADIENT] = "gradient",
    [KIND_MOMENTS] = "moments of the optimizer",
    [KIND_SLICE_GRADIENTS] = "gradients of slices",
    [KIND_ACTIVATIONS] = "activations and their gradients",
    [KIND_BATCH] = "batch: inputs, targets, losses",
    [KIND_STATISTICS] = "statistics over rows",
    [KIND_PARTS] = "parts of them, a slice each",
    [KIND_SUMS] = "partial sums",
    [KIND_SQUARES] = "tiles of squares, squared input",
    [KIND_CARRIED] = "states carried from batch to batch",
    [KIND_ARRIVAL] = "batch that has come beside what is computed",
    [KIND_STAGE] = "batch on its way to the device, page-locked",
    [KIND_MIRROR] = "copies of the device's vectors",
};

static uint64_t bytes_padded(uint64_t bytes)
{
    return size_padded(bytes, MEMORY_ALIGNMENT);
}

static uint64_t floats_bytes(uint64_t floats)
{
    return size_times(floats, sizeof(float));
}

/* Floats of the batch's input in a slice. */
static uint64_t input_floats(const struct model *m, const struct step_config *c)
{
    return floats_padded(size_times(rows_most(c, m->graphs), m->inputs));
}

/* Where the parts of the batch's region start, in bytes; the last number is the region's size. */
enum batch_part {
    BATCH_LOSSES,
    BATCH_METRICS,
    BATCH_TARGET_SUMS,
    BATCH_ROW_GIVEN, /* these three, and those of weights below: where targets weigh */
    BATCH_OF_TARGETS,
    BATCH_ROW_WEIGHTS,
    BATCH_STEP, /* these three: on a device apart only */
    BATCH_ROWS,
    BATCH_PERMUTATION,
    BATCH_INPUTS, /* up to BATCH_SENT: what batch_send sends */
    BATCH_TARGETS,
    BATCH_WEIGHTS,
    BATCH_CLASS_GIVEN,
    BATCH_BEGINS,
    BATCH_GRAPHS,                           /* its parts, as enum graph_part has them */
    BATCH_SENT = BATCH_GRAPHS + GRAPH_SENT, /* the rest: the host's alone */
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
        [BATCH_TARGET_SUMS] =
            size_times(loss->values ? 3 * sizeof(double) : sizeof(struct class_counts), m->outputs),
    };
    if (weighs(m, c)) {
        bytes[BATCH_WEIGHTS] = floats_bytes(size_times(c->batch_rows_max, row_targets));
        bytes[BATCH_ROW_GIVEN] = c->weights == 1 ? floats_bytes(c->batch_rows_max) : 0;
        if (!loss->values && m->target_weight_count && !c->with_optimizer)
            bytes[BATCH_CLASS_GIVEN] = bytes[BATCH_WEIGHTS];
        bytes[BATCH_OF_TARGETS] = floats_bytes(m->target_weight_count);
        bytes[BATCH_ROW_WEIGHTS] = bytes[BATCH_LOSSES];
    }
    if (carried_floats(m, c))
        bytes[BATCH_BEGINS] = floats_bytes(c->batch_rows_max);
    if (config_is_apart(c)) {
        bytes[BATCH_STEP] = STEPS_AHEAD * sizeof(uint64_t);
        bytes[BATCH_ROWS] =
            size_times(c->batch_rows_max, STEPS_AHEAD * ROW_PLACES * sizeof(void *));
        bytes[BATCH_PERMUTATION] = size_times(m->inputs, sizeof(uint32_t));
    }
    if (m->graphs)
        graphs_bytes(m, c, bytes + BATCH_GRAPHS);
    places[0] = 0;
    for (int i = 0; i < BATCH_END; i++)
        places[i + 1] = size_plus(places[i], bytes_padded(bytes[i]));
}

/* Where the parts of the region of statistics start, in bytes; the last number is its size. */
enum statistics_place {
    STATISTICS_NUMBERS,
    STATISTICS_BUFFERS,
    STATISTICS_BUFFERS_NEXT,
    STATISTICS_END
};

/* Arrays of struct statistics and of struct statistics_part. */
enum { STATISTICS_ARRAYS = 5, PART_ARRAYS = 2 };

static void statistics_places(const struct layout *y, const struct model *m,
                              uint64_t places[STATISTICS_END + 1])
{
    uint64_t count = y->statistics_count;
    uint64_t array = size_times(y->channels_max, sizeof(double));
    const uint64_t bytes[STATISTICS_END] = {
        [STATISTICS_NUMBERS] = size_times(count * STATISTICS_ARRAYS, array),
        [STATISTICS_BUFFERS] = floats_bytes(m->buffer_values),
        [STATISTICS_BUFFERS_NEXT] = floats_bytes(m->buffer_values),
    };
    places[0] = 0;
    for (int i = 0; i < STATISTICS_END; i++)
        places[i + 1] = size_plus(places[i], bytes_padded(bytes[i]));
}

/* The slices' parts: a list, and their numbers behind it. */
static uint64_t parts_list_bytes(const struct layout *y)
{
    return bytes_padded(size_times(y->slices_max, sizeof(struct statistics_part)));
}

static uint64_t parts_bytes(const struct layout *y)
{
    uint64_t array = size_times(y->channels_max, sizeof(double));
    return size_plus(parts_list_bytes(y),
                     size_times(size_times(y->slices_max, PART_ARRAYS), array));
}

/* What a device apart needs in the host's memory; without optimizer a tile of squares for moments.
 */
static uint64_t mirror_floats(const struct layout *y, const struct model *m,
                              const struct step_config *c)
{
    uint64_t moments = c->with_optimizer ? (uint64_t)optimizer_moments(c->optimizer) : 0;
    uint64_t floats = size_plus(y->parameters, size_times(moments, y->trained));
    floats = size_plus(floats, floats_padded(m->buffer_values));
    floats = size_plus(floats, c->with_optimizer ? carried_floats(m, c) : 0);
    return size_plus(floats, c->with_optimizer ? 0 : y->tile);
}

/* Has a device apart the weights in 16 bits, too, for layers that chain so? */
static int weights_narrowed(const struct layout *y, const struct model *m,
                            const struct step_config *c)
{
    uint32_t i = 0;
    while (i < m->layer_count &&
           (!m->layers[i].type->chains || m->layers[i].type->chains(&m->layers[i]) != CHAIN_HALVES))
        i++;
    return y->half && config_is_apart(c) && !y->statistics_count && i < m->layer_count;
}

static void layout_bytes(struct layout *y, const struct model *m, const struct step_config *c)
{
    uint64_t places[BATCH_END + 1], statistics[STATISTICS_END + 1];
    batch_places(m, c, places);
    statistics_places(y, m, statistics);
    y->bytes[KIND_STATISTICS] = statistics[STATISTICS_END];
    y->bytes[KIND_PARTS] = y->statistics_count ? parts_bytes(y) : 0;
    y->bytes[KIND_PARAMETERS] = floats_bytes(y->parameters);
    y->bytes[KIND_WEIGHTS] = y->half ? floats_bytes(y->parameters) : 0;
    if (weights_narrowed(y, m, c))
        y->bytes[KIND_WEIGHTS] += size_times(y->parameters, sizeof(uint16_t));
    y->bytes[KIND_ACTIVATIONS] = floats_bytes(size_times(y->lanes, y->lane_activations));
    y->bytes[KIND_BATCH] = places[config_is_apart(c) ? BATCH_SENT : BATCH_END];
    y->bytes[KIND_CARRIED] = carried_bytes(m, c);
    if (c->with_optimizer) {
        uint64_t moments = (uint64_t)optimizer_moments(c->optimizer);
        y->bytes[KIND_GRADIENT] = floats_bytes(y->trained);
        y->bytes[KIND_MOMENTS] = floats_bytes(size_times(moments, y->trained));
        y->bytes[KIND_SLICE_GRADIENTS] = floats_bytes(size_times(y->slice_gradients, y->trained));
        y->bytes[KIND_SUMS] = size_times(2 * sizeof(double), y->blocks) + 2 * sizeof(double);
    } else {
        y->bytes[KIND_SQUARES] = floats_bytes(
            size_plus(size_times(config_is_apart(c) ? 1 : (uint64_t)c->threads, y->squares),
                      size_times(y->lanes, y->lane_inputs)));
    }
    if (config_is_apart(c)) {
        y->bytes[KIND_STAGE] = places[BATCH_END];
        y->bytes[KIND_ARRIVAL] = m->graphs ? places[BATCH_SENT] - places[BATCH_INPUTS] : 0;
        y->bytes[KIND_MIRROR] = floats_bytes(mirror_floats(y, m, c));
        y->bytes[KIND_SUMS] = sizeof(struct batch_results);
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

static void layout_make(struct layout *y, const struct model *m, const struct step_config *given)
{
    struct step_config on = config_on(m, given), *c = &on;
    *y = (struct layout){0};
    ensure(c->batch_rows_max > 0 && c->slice_rows > 0 && m->parameter_count > 0);
    ensure(c->threads >= 1 && c->threads <= POOL_THREADS_MAX);
    ensure(!m->graphs || (c->slice_nodes_max > 0 && c->batch_nodes_max >= c->slice_nodes_max));
    y->half = layout_half(c);
    y->slices_max = (c->batch_rows_max - 1) / c->slice_rows + 1;
    y->parts = c->slice_parts;
    y->part_rows = part_rows_of(m, given);
    uint64_t sums = (y->slices_max - 1) / y->parts + 1; /* of slices with all their parts */
    for (uint32_t i = 0; i < m->layer_count; i++)
        if (m->layers[i].type->statistics) {
            uint64_t channels = m->layers[i].values;
            y->channels_max = channels > y->channels_max ? channels : y->channels_max;
            y->statistics_layer[y->statistics_count++] = i;
        }
    y->gradient_lanes = sums < (uint64_t)c->threads ? sums : (uint64_t)c->threads;
    ensure(!config_is_apart(c) || y->gradient_lanes == 1);
    y->lanes = y->statistics_count && c->with_optimizer ? y->slices_max : y->gradient_lanes;
    y->parameters = floats_padded(m->parameter_count);
    y->frozen = step_frozen(m, c);
    y->backbone = parameters_before(m, c->backbone_layers);
    ensure(y->frozen < m->parameter_count);
    y->trained = floats_padded(m->parameter_count - y->frozen);
    while (!m->layers[y->first_trained].count || m->layers[y->first_trained].first < y->frozen)
        y->first_trained++;
    uint64_t block = config_is_apart(c) ? m->parameter_count : SWEEP_BLOCK;
    y->blocks = (m->parameter_count - y->frozen + block - 1) / block;
    /* a batch's first slice writes into its gradient; lane 0 has its own buffer only for later
     * waves */
    int one_wave = sums == y->gradient_lanes && !c->accumulates;
    y->slice_gradients = one_wave ? y->gradient_lanes - 1 : y->gradient_lanes;
    y->lane_inputs = input_floats(m, c);
    segments_choose(y, m, c);
    for (uint32_t i = 0; i < m->layer_count; i++) {
        uint64_t tile = floats_padded(layer_tile_floats_max(m, &m->layers[i]));
        y->tile = tile > y->tile ? tile : y->tile;
    }
    y->squares = size_plus(size_times(3, y->tile), SQUARES_PACKED);
    layout_bytes(y, m, c);
}

void stepper_plan(const struct model *m, const struct step_config *c, const char *stage,
                  struct plan *p)
{
    struct layout y;
    layout_make(&y, m, c);
    for (int k = 0; k < KIND_COUNT; k++)
        if (y.bytes[k] > 0)
            plan_add(p, config_is_apart(c) && k < KIND_STAGE ? PLAN_DEVICE : stage, kind_names[k],
                     y.bytes[k]);
}

uint64_t stepper_stacks_bytes(const struct model *m, const struct step_config *c)
{
    struct layout y;
    layout_make(&y, m, c);
    if (config_is_apart(c))
        return 0;
    uint64_t factors = floats_bytes(size_plus(y.lane_activations, y.lane_inputs)); /* of a lane */
    uint64_t each = factors < POOL_STACK_PACKED ? factors : POOL_STACK_PACKED;
    return (uint64_t)c->threads * (POOL_STACK_USED - POOL_STACK_PACKED + each);
}

static void statistics_place(struct stepper *s)
{
    const struct layout *y = &s->layout;
    char *at = s->region[KIND_STATISTICS].at;
    uint64_t places[STATISTICS_END + 1], channels = y->channels_max;
    if (!y->statistics_count)
        return;
    statistics_places(y, s->model, places);
    s->module_buffers = (float *)(at + places[STATISTICS_BUFFERS]);
    s->module_buffers_next = (float *)(at + places[STATISTICS_BUFFERS_NEXT]);
    double *next = (double *)(at + places[STATISTICS_NUMBERS]);
    for (uint32_t i = 0; i < y->statistics_count; i++, next += STATISTICS_ARRAYS * channels)
        s->statistics[i] = (struct statistics){next, next + channels, next + 2 * channels,
                                               next + 3 * channels, next + 4 * channels};
    model_initialise_buffers(s->model, stepper_module_buffers(s));
}

static void parts_place(struct stepper *s)
{
    const struct layout *y = &s->layout;
    char *at = s->region[KIND_PARTS].at;
    s->parts = s->device->apart ? &s->part_alone : (struct statistics_part *)at;
    double *next = (double *)(at + (at ? parts_list_bytes(y) : 0));
    for (uint64_t i = 0; at && i < y->slices_max; i++, next += PART_ARRAYS * y->channels_max)
        s->parts[i] = (struct statistics_part){next, next + y->channels_max};
}

static struct batch_arrays batch_place(const struct stepper *s, enum kind kind)
{
    char *batch = s->region[kind].at;
    uint64_t places[BATCH_END + 1];
    struct batch_arrays b = {0};
    batch_places(s->model, &s->config, places);
    b.inputs = (float *)(batch + places[BATCH_INPUTS]);
    b.classes = s->loss->values ? NULL : (uint32_t *)(batch + places[BATCH_TARGETS]);
    b.values = s->loss->values ? (float *)(batch + places[BATCH_TARGETS]) : NULL;
    b.losses = (double *)(batch + places[BATCH_LOSSES]);
    b.metrics = (double *)(batch + places[BATCH_METRICS]);
    b.target_sums = (double *)(batch + places[BATCH_TARGET_SUMS]);
    b.counts = (struct class_counts *)b.target_sums;
    b.target_squares = b.target_sums + s->model->outputs;
    b.target_counts = b.target_squares + s->model->outputs;
    b.weights = (float *)(batch + places[BATCH_WEIGHTS]);
    b.row_given = (float *)(batch + places[BATCH_ROW_GIVEN]);
    if (places[BATCH_CLASS_GIVEN + 1] > places[BATCH_CLASS_GIVEN])
        b.class_given = (float *)(batch + places[BATCH_CLASS_GIVEN]);
    b.of_targets = (float *)(batch + places[BATCH_OF_TARGETS]);
    b.row_weights = (double *)(batch + places[BATCH_ROW_WEIGHTS]);
    b.begins =
        carried_floats(s->model, &s->config) ? (float *)(batch + places[BATCH_BEGINS]) : NULL;
    b.step = (uint64_t *)(batch + places[BATCH_STEP]);
    b.rows = (const void **)(batch + places[BATCH_ROWS]);
    b.permutation = (uint32_t *)(batch + places[BATCH_PERMUTATION]);
    if (s->model->graphs)
        graphs_place(&b.graphs, batch, places + BATCH_GRAPHS);
    return b;
}

static void mirror_place(struct stepper *s)
{
    float *at = s->region[KIND_MIRROR].at;
    int moments = s->config.with_optimizer ? optimizer_moments(s->config.optimizer) : 0;
    if (!at)
        return;
    s->mirror.parameters = at;
    at += s->layout.parameters;
    s->mirror.moments = moments ? at : NULL;
    at += (uint64_t)moments * s->layout.trained;
    s->mirror.module_buffers = s->model->buffer_values ? at : NULL;
    at += floats_padded(s->model->buffer_values);
    s->mirror.carried = s->carried.set[CARRIED_NOW] ? at : NULL;
    s->mirror.tile = at;
}

/* Pointers into the regions. */
static void stepper_place(struct stepper *s)
{
    const struct layout *y = &s->layout;
    s->at = batch_place(s, KIND_BATCH);
    s->host = batch_place(s, s->device->apart ? KIND_STAGE : KIND_BATCH);
    if (s->model->graphs)
        graph_coefficients_fill(s);
    ahead_place(s);
    for (uint64_t i = 0; i < s->model->target_weight_count; i++)
        s->host.of_targets[i] = (float)s->model->target_weights[i];
    if (s->device->apart && s->model->target_weight_count)
        s->device->upload(s->at.of_targets, s->host.of_targets,
                          s->model->target_weight_count * sizeof *s->at.of_targets);
    if (s->at.begins) { /* where rows are graphs, nobody says that they begin */
        s->device->clear(s->at.begins, s->config.batch_rows_max * sizeof *s->at.begins);
        memset(s->host.begins, 0, s->config.batch_rows_max * sizeof *s->host.begins);
    }
    carried_place(s);
    mirror_place(s);
    s->results = s->device->apart ? s->region[KIND_SUMS].at : NULL;
    s->parameters = s->region[KIND_PARAMETERS].at;
    s->weights = y->half ? s->region[KIND_WEIGHTS].at : s->parameters;
    if (s->config.with_optimizer) {
        s->gradient = s->region[KIND_GRADIENT].at;
        int moments = optimizer_moments(s->config.optimizer);
        s->moment_m = s->region[KIND_MOMENTS].at; /* NULL where there are none */
        s->moment_v = moments > 1 ? s->moment_m + y->trained : NULL;
        s->block_norm2 = s->region[KIND_SUMS].at;
        s->block_penalty = s->block_norm2 + y->blocks;
        s->loss_sum = s->block_penalty + y->blocks;
        s->weight_sum = s->loss_sum + 1;
        _Static_assert(offsetof(struct batch_results, loss) == 2 * sizeof(double) &&
                           offsetof(struct batch_results, weight) == 3 * sizeof(double),
                       "sums of one block");
    } else {
        s->tiles = s->region[KIND_SQUARES].at;
        uint64_t threads = s->device->apart ? 1 : (uint64_t)s->config.threads;
        s->input_squares = s->tiles + threads * y->squares;
    }
}

/* A device copies into page-locked memory without a detour. Of more than this so much would be
 * taken from the rest of the machine, and training waits for the copies seldom. */
enum { MIRROR_LOCKED_MAX = 64 << 20 };

static int mirror_open(struct stepper *s, uint64_t bytes, struct err *e)
{
    struct region *r = &s->region[KIND_MIRROR];
    struct err why; /* it is not needed */
    if (region_open(r, bytes, kind_names[KIND_MIRROR], e) < 0)
        return -1;
    s->mirror_locked = s->device->apart && r->at && bytes <= MIRROR_LOCKED_MAX &&
                       s->device->host_lock(r->at, bytes, &why) == 0;
    return 0;
}

/* Where a kind lives: with the device, or the host, there page-locked if copies come from it. */
static int kind_open(struct stepper *s, enum kind kind, uint64_t bytes, struct err *e)
{
    struct region *r = &s->region[kind];
    if (kind == KIND_MIRROR)
        return mirror_open(s, bytes, e);
    if (!s->device->apart)
        return region_open(r, bytes, kind_names[kind], e);
    *r = (struct region){NULL, bytes};
    if (!bytes)
        return 0;
    if (kind == KIND_STAGE)
        return s->device->allocate_host(bytes, kind_names[kind], &r->at, e);
    return device_reserve(s->device, bytes, kind_names[kind], &r->at, e);
}

static void kind_close(struct stepper *s, enum kind kind)
{
    struct region *r = &s->region[kind];
    if (kind == KIND_MIRROR && s->mirror_locked)
        s->device->host_unlock(r->at);
    if (!s->device->apart || kind == KIND_MIRROR)
        region_close(r);
    else if (kind == KIND_STAGE)
        s->device->release_host(r->at);
    else
        s->device->release(r->at);
    *r = (struct region){0};
}

int stepper_open(struct stepper **s_p, const struct model *m, const struct step_config *c,
                 struct err *e)
{
    struct stepper *s = *s_p = calloc(1, sizeof *s);
    if (!s)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot allocate the stepper");
    s->model = m;
    s->device = c->device ? c->device : &device_cpu;
    s->backend = s->device->backend;
    s->loss = loss_type_named(m->loss);
    s->metric = loss_metric_named(s->loss, c->metric ? c->metric : "auto");
    s->given = *c;
    s->config = config_on(m, c);
    s->weighted = weighs(m, c);
    ensure(s->loss && s->metric);
    layout_make(&s->layout, m, c);
    for (int k = 0; k < KIND_COUNT; k++)
        if (kind_open(s, (enum kind)k, s->layout.bytes[k], e) < 0)
            goto fail;
    stepper_place(s);
    statistics_place(s);
    parts_place(s);
    if (s->layout.half == HALF_F16)
        grad_scaler_begin(&s->scaler, &c->scaler);
    if (pool_open(&s->pool, c->threads, e) < 0)
        goto fail;
    void *results = NULL;
    uint64_t told_bytes = STEPS_AHEAD * sizeof *s->told;
    if (s->device->apart &&
        s->device->allocate_host(sizeof *s->results_host + told_bytes, "results", &results, e) < 0)
        goto fail;
    s->results_host = results;
    s->told = results ? (struct step_told *)(s->results_host + 1) : NULL;
    if (s->device->apart) {
        struct device_facts facts;
        s->device->facts(&facts);
        if (facts.halves && weights_narrowed(&s->layout, s->model, &s->config))
            s->weights_half = (uint16_t *)(s->weights + s->layout.parameters);
        s->device->products_rounded(s->layout.half != HALF_NONE);
    }
    stepper_send(s);
    return 0;
fail:
    stepper_close(s_p);
    return -1;
}

/* What depends on the size of micro-batches. */
static const enum kind resident[] = {KIND_SLICE_GRADIENTS, KIND_ACTIVATIONS, KIND_BATCH, KIND_PARTS,
                                     KIND_SQUARES,         KIND_ARRIVAL,     KIND_STAGE};

static void resident_close(struct stepper *s)
{
    for (size_t i = 0; i < sizeof resident / sizeof *resident; i++)
        kind_close(s, resident[i]);
}

/* Maps it for `c`; on failure none of it. */
static int resident_open(struct stepper *s, const struct step_config *c, struct err *e)
{
    struct layout y;
    layout_make(&y, s->model, c);
    for (size_t i = 0; i < sizeof resident / sizeof *resident; i++)
        if (kind_open(s, resident[i], y.bytes[resident[i]], e) < 0) {
            resident_close(s);
            return -1;
        }
    s->given = *c;
    s->config = config_on(s->model, c);
    s->layout = y;
    stepper_place(s);
    parts_place(s);
    return 0;
}

int stepper_resize(struct stepper *s, uint64_t batch_rows_max, uint64_t slice_rows, int accumulates,
                   struct err *e)
{
    struct step_config old = s->given, new = old;
    struct err other;
    recordings_close(s); /* of other places */
    new.batch_rows_max = batch_rows_max;
    new.slice_rows = slice_rows;
    new.accumulates = accumulates;
    resident_close(s);
    if (resident_open(s, &new, e) == 0)
        return 0;
    return resident_open(s, &old, &other) == 0 ? -1 : -2;
}

struct pool *stepper_pool(struct stepper *s)
{
    return s->pool;
}

void stepper_close(struct stepper **s_p)
{
    struct stepper *s = *s_p;
    if (!s)
        return;
    if (s->device->apart)
        s->device->wait(); /* a step that was asked for writes into the host's memory */
    pool_close(&s->pool);
    quantised_close(&s->quantised);
    recordings_close(s);
    terms_close(s);
    if (s->results_host)
        s->device->release_host(s->results_host);
    free(s->mirror.gradient);
    for (int k = 0; k < KIND_COUNT; k++)
        kind_close(s, (enum kind)k);
    free(s);
    *s_p = NULL;
}

struct grad_scaler *stepper_scaler(struct stepper *s)
{
    return s->layout.half == HALF_F16 ? &s->scaler : NULL;
}
