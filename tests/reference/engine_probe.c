/* engine_probe.c - the engine by itself, for comparisons with PyTorch: raw files in, raw files out.
 *
 *   engine_probe init   DIR [key=value ...]   model.txt -> weights.f32
 *   engine_probe train  DIR [key=value ...]   weights.f32, features, targets [, fisher.f32,
 *                                             star.f32] -> trained.f32, gradient.f32, steps.f64
 *   engine_probe renew  DIR [key=value ...]   weights.f32, features, targets -> buffers.f32
 *   engine_probe fisher DIR [key=value ...]   weights.f32, features, targets [, buffers.f32]
 *                                             -> fisher_sums.f32, or with factored=1 factors.f32,
 *                                                and fisher_weight.f64, what the rows weigh
 *   engine_probe sweep  DIR [key=value ...]   as train; what the seconds tell is the part of a step
 *                                             behind backward: penalty, clip and update
 *   engine_probe beside DIR [key=value ...]   as fisher of one batch, `steps` times, and between
 * them as many forward and backward passes of training: the line has pass_cpu_seconds, too
 *
 *   engine_probe penalty DIR [key=value ...]  as train with fisher.f32 and star.f32; F is
 * compressed. Every second step goes without the penalty: CPU seconds of those are
 * pass_cpu_seconds. terms=n: so many tasks
 *
 *   engine_probe repeat DIR [key=value ...]   steps of one batch that is gathered once, or with
 * fisher=1 its squared gradients: `repeats` (5) times `steps` of them behind as many to warm up,
 * each between two waits for the device: the line's seconds_each
 *
 * carried=1: states go on from batch to batch, and begin at 0 with the rows, and where the byte of
 * a row in begins.u8 is not 0, if there is that file.
 *
 * device=NAME computes there (engine/device.h; cpu); a slice is then the batch unless slice=.
 *
 * model.txt is model_text's form; features holds rows of u8 (f32=1: of float32; tokens
 * are u8); clock.f64 has the CPU seconds of the process and the batch's nodes after each step;
 * targets are targets.u8, one class a row or step left, or where the loss takes values targets.f32.
 * Batches are taken one after the other, from the start again when the rows are used up. steps.f64
 * holds loss, penalty and norm of each step, gradient.f32 the last one's gradient; a model with
 * batchnorm writes buffers.f32, too. weights=n: target_weights.f32 has n numbers a row that say
 * what its targets weigh; signed=1: classes are of i8. Of a model of graphs, features are those of
 * the nodes, one graph after the other; node_ptr.u64 and edge_ptr.u64 cut nodes and edges, whose
 * ends are sources.u32 and ends.u32, their features edges.f32. One JSON line on standard output
 * tells the seconds and CPU seconds of the work, the bytes of the activations in the plan, and the
 * largest resident memory.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/device.h"
#include "engine/factors.h"
#include "engine/loss.h"
#include "engine/model.h"
#include "engine/step.h"

struct probe_graphs {
    uint64_t *node_ptr, *edge_ptr;
    char *sources, *targets, *edges;
    struct graph_row *rows; /* of a batch */
};

struct probe {
    const char *directory;
    struct probe_graphs graphs;
    struct model model;
    struct stepper *stepper;
    struct gather_config gather;
    struct optimizer_config optimizer;
    struct step_config step;
    uint64_t steps, data_rows, block, batch;
    double lambda;
    enum fisher_labels labels;
    int terms, factored, fisher, repeats;
    const struct device *device;
    uint64_t value_bytes, target_bytes; /* of a feature; of a row's targets */
    char *features, *targets, *weights, *begins;
    const void **feature_rows, **target_rows, **weight_rows, **begin_rows;
};

_Noreturn static void probe_fail(const char *what)
{
    fprintf(stderr, "engine_probe: %s\n", what);
    exit(1);
}

/* The file's bytes, NUL-terminated; NULL where there is no such file. */
static char *file_read(const struct probe *p, const char *name, size_t *bytes)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", p->directory, name);
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    *bytes = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*bytes + 1);
    if (!data || fread(data, 1, *bytes, f) != *bytes)
        probe_fail(path);
    data[*bytes] = '\0';
    fclose(f);
    return data;
}

static void file_write(const struct probe *p, const char *name, const void *data, size_t bytes)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", p->directory, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f) != 0)
        probe_fail(path);
}

static float *vector_read(const struct probe *p, const char *name)
{
    size_t bytes = 0;
    float *data = (float *)file_read(p, name, &bytes);
    if (data && bytes != p->model.parameter_count * sizeof(float))
        probe_fail("a vector's length is not the model's");
    return data;
}

static const char *argument_text(int argc, char **argv, const char *key, const char *normal)
{
    for (int i = 3; i < argc; i++)
        if (strncmp(argv[i], key, strlen(key)) == 0 && argv[i][strlen(key)] == '=')
            return argv[i] + strlen(key) + 1;
    return normal;
}

static double argument(int argc, char **argv, const char *key, double normal)
{
    const char *text = argument_text(argc, argv, key, NULL);
    return text ? strtod(text, NULL) : normal;
}

static void device_choose(struct probe *p, int argc, char **argv)
{
    struct err e;
    if (device_open(&p->device, argument_text(argc, argv, "device", "cpu"), 0, &e) < 0)
        probe_fail(e.text);
}

static void settings_read(struct probe *p, int argc, char **argv)
{
    device_choose(p, argc, argv);
    p->batch = (uint64_t)argument(argc, argv, "batch", 128);
    p->steps = (uint64_t)argument(argc, argv, "steps", 10);
    p->block = (uint64_t)argument(argc, argv, "block", 1e6);
    p->lambda = argument(argc, argv, "lambda", 2000);
    p->factored = (int)argument(argc, argv, "factored", 0);
    p->labels = (enum fisher_labels)argument(argc, argv, "labels", FISHER_TRUE);
    p->terms = (int)argument(argc, argv, "terms", 1);
    p->fisher = (int)argument(argc, argv, "fisher", 0);
    p->repeats = (int)argument(argc, argv, "repeats", 5);
    double slice = p->device->apart ? (double)p->batch : 64;
    p->step = (struct step_config){
        .batch_rows_max = p->batch,
        .slice_rows = (uint64_t)argument(argc, argv, "slice", slice),
        .threads = (int)argument(argc, argv, "threads", p->device->apart ? 1 : 2),
        .seed = (uint64_t)argument(argc, argv, "seed", 1),
        .half = (enum half)argument(argc, argv, "half", 0),
        .scaler = {argument(argc, argv, "loss_scale", 65536), 2000},
        .checkpointing = argument(argc, argv, "checkpointing", 0) != 0,
        .segments_max = (uint64_t)argument(argc, argv, "segments", 0),
        .optimizer = (int)argument(argc, argv, "optimizer", 0),
        .backbone_layers = (uint32_t)argument(argc, argv, "backbone", 0),
        .freeze_backbone = (int)argument(argc, argv, "freeze", 0),
        .carried_rows = argument(argc, argv, "carried", 0) != 0 ? p->batch : 0,
        .device = p->device};
    p->optimizer =
        (struct optimizer_config){.learning_rate = argument(argc, argv, "lr", 1e-3),
                                  .weight_decay = argument(argc, argv, "wd", 1e-2),
                                  .beta1 = 0.9,
                                  .beta2 = 0.999,
                                  .eps = argument(argc, argv, "eps", 1e-8),
                                  .max_grad_norm = argument(argc, argv, "clip", 0),
                                  .backbone_rate = argument(argc, argv, "backbone_lr", 0),
                                  .momentum = argument(argc, argv, "momentum", 0),
                                  .nesterov = (int)argument(argc, argv, "nesterov", 0)};
    p->step.slice_parts = step_slice_parts(p->step.checkpointing, p->step.slice_rows);
    int wide = argument(argc, argv, "f32", 0) != 0 && !p->model.token_count; /* tokens: bytes */
    int values = loss_type_named(p->model.loss)->values;
    p->gather = (struct gather_config){
        .features = p->model.inputs,
        .targets = values ? p->model.outputs : p->model.target_steps,
        .scale = argument(argc, argv, "scale", wide || p->model.token_count ? 1 : 1.0 / 255)};
    p->step.weights = p->gather.weights = (uint64_t)argument(argc, argv, "weights", 0);
    strcpy(p->gather.weight_type, "f32");
    strcpy(p->gather.target_type, values ? "f32" : argument(argc, argv, "signed", 0) ? "i8" : "u8");
    p->target_bytes = values ? 4 * p->model.outputs : p->model.target_steps;
    strcpy(p->gather.feature_type, wide ? "f32" : "u8");
    p->value_bytes = wide ? 4 : 1;
}

static uint64_t largest_part(const uint64_t *ptr, uint64_t rows)
{
    uint64_t most = 0;
    for (uint64_t i = 0; i < rows; i++)
        most = ptr[i + 1] - ptr[i] > most ? ptr[i + 1] - ptr[i] : most;
    return most;
}

/* Before the stepper is opened: it reserves for the largest graphs. */
static void graphs_read(struct probe *p)
{
    struct probe_graphs *g = &p->graphs;
    size_t bytes = 0, edge_bytes = 0;
    g->node_ptr = (uint64_t *)file_read(p, "node_ptr.u64", &bytes);
    g->edge_ptr = (uint64_t *)file_read(p, "edge_ptr.u64", &edge_bytes);
    if (!g->node_ptr || !g->edge_ptr || bytes != edge_bytes || bytes < 16)
        probe_fail("node_ptr.u64 and edge_ptr.u64 are missing or of different lengths");
    p->data_rows = bytes / sizeof(uint64_t) - 1;
    g->sources = file_read(p, "sources.u32", &bytes);
    g->targets = file_read(p, "ends.u32", &bytes);
    g->edges = file_read(p, "edges.f32", &bytes);
    g->rows = calloc(p->batch, sizeof *g->rows);
    if (!g->sources || !g->targets || (p->model.edge_inputs && !g->edges) || !g->rows)
        probe_fail("sources.u32, ends.u32 or edges.f32 is missing");
    strcpy(p->gather.end_type, "u32");
    strcpy(p->gather.edge_type, "f32");
    p->gather.edge_features = p->model.edge_inputs;
    uint64_t nodes = largest_part(g->node_ptr, p->data_rows);
    uint64_t slice = p->step.slice_rows < p->batch ? p->step.slice_rows : p->batch;
    p->step.batch_nodes_max = p->batch * nodes;
    p->step.batch_edges_max = p->batch * largest_part(g->edge_ptr, p->data_rows);
    p->step.slice_nodes_max = slice / p->step.slice_parts * nodes;
}

static struct graph_row graph_at(const struct probe *p, uint64_t row)
{
    const struct probe_graphs *g = &p->graphs;
    uint64_t node = g->node_ptr[row], edge = g->edge_ptr[row];
    return (struct graph_row){p->features + node * p->model.inputs * p->value_bytes,
                              g->sources + edge * sizeof(uint32_t),
                              g->targets + edge * sizeof(uint32_t),
                              g->edges + edge * p->model.edge_inputs * sizeof(float),
                              g->node_ptr[row + 1] - node,
                              g->edge_ptr[row + 1] - edge};
}

static void data_read(struct probe *p)
{
    size_t bytes = 0, row_bytes = p->model.inputs * p->value_bytes;
    p->features = file_read(p, "features", &bytes);
    if (!p->features || bytes == 0 || bytes % row_bytes != 0)
        probe_fail("features is missing or not whole rows");
    if (!p->model.graphs)
        p->data_rows = bytes / row_bytes;
    else if (bytes != p->graphs.node_ptr[p->data_rows] * row_bytes)
        probe_fail("features are of another number of nodes than node_ptr.u64");
    int values = loss_type_named(p->model.loss)->values;
    p->targets = file_read(p, values ? "targets.f32" : "targets.u8", &bytes);
    if (!p->targets || bytes != p->data_rows * p->target_bytes)
        probe_fail("the targets are missing or of another number of rows");
    p->feature_rows = calloc(p->batch, sizeof *p->feature_rows);
    p->target_rows = calloc(p->batch, sizeof *p->target_rows);
    p->weight_rows = calloc(p->batch, sizeof *p->weight_rows);
    p->begin_rows = calloc(p->batch, sizeof *p->begin_rows);
    if (!p->feature_rows || !p->target_rows || !p->weight_rows || !p->begin_rows)
        probe_fail("no memory");
    p->begins = file_read(p, "begins.u8", &bytes);
    if (p->begins && bytes != p->data_rows)
        probe_fail("begins.u8 is of another number of rows");
    p->gather.begin_rows = p->begins ? p->begin_rows : NULL;
    strcpy(p->gather.begin_type, "u8");
    p->gather.weight_rows = p->weight_rows;
    if (p->gather.weights)
        p->weights = file_read(p, "target_weights.f32", &bytes);
    if (p->gather.weights &&
        (!p->weights || bytes != p->data_rows * p->gather.weights * sizeof(float)))
        probe_fail("target_weights.f32 is missing or of another number of rows");
}

static void batch_gather(struct probe *p, uint64_t first, uint64_t rows)
{
    struct err e;
    uint64_t bad;
    for (uint64_t i = 0; i < rows; i++) {
        uint64_t row = (first + i) % p->data_rows;
        if (p->model.graphs)
            p->graphs.rows[i] = graph_at(p, row);
        else
            p->feature_rows[i] = p->features + row * p->model.inputs * p->value_bytes;
        p->target_rows[i] = p->targets + row * p->target_bytes;
        if (p->begins)
            p->begin_rows[i] = p->begins + row;
        if (p->weights)
            p->weight_rows[i] = p->weights + row * p->gather.weights * sizeof(float);
    }
    int failed = p->model.graphs ? stepper_gather_graphs(p->stepper, &p->gather, 0, rows,
                                                         p->graphs.rows, p->target_rows, &bad, &e)
                                 : stepper_gather(p->stepper, &p->gather, 0, rows, p->feature_rows,
                                                  p->target_rows, &bad, &e);
    if (failed < 0)
        probe_fail(e.text);
}

static double clock_seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* VmHWM; rusage would tell that of the process that started this one, if larger. */
static unsigned long peak_rss_bytes(void)
{
    char line[256];
    unsigned long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f) && sscanf(line, "VmHWM: %lu", &kib) != 1)
        ;
    if (f)
        fclose(f);
    return kib * 1024;
}

static unsigned long activation_bytes(const struct probe *p)
{
    struct plan plan = {.count = 0};
    unsigned long bytes = 0;
    stepper_plan(&p->model, &p->step, "probe", &plan);
    for (int i = 0; i < plan.count; i++)
        if (strncmp(plan.rows[i].what, "activations", strlen("activations")) == 0)
            bytes += plan.rows[i].bytes;
    return bytes;
}

/* Of the batch that is gathered; 0 where rows are no graphs. */
static double batch_nodes(const struct probe *p)
{
    uint64_t nodes = 0;
    for (uint64_t i = 0; p->model.graphs && i < p->batch; i++)
        nodes += p->graphs.rows[i].node_count;
    return (double)nodes;
}

static void train_run(struct probe *p)
{
    struct err e;
    float *fisher = vector_read(p, "fisher.f32"), *star = vector_read(p, "star.f32");
    struct ewc_term term = {fisher, star, p->lambda};
    double *log = calloc(p->steps, 3 * sizeof *log);
    double *clock = calloc(p->steps, 2 * sizeof *clock);
    for (uint64_t k = 0; k < p->steps; k++) {
        struct step_result r;
        batch_gather(p, k * p->batch, p->batch);
        if (k * p->batch % p->data_rows == 0)
            stepper_carried_clear(p->stepper);
        if (stepper_train(p->stepper, p->batch, k, k + 1, &p->optimizer, &term, fisher && star, &r,
                          &e) < 0)
            probe_fail(e.text);
        memcpy(log + 3 * k, (double[]){r.loss, r.penalty, r.gradient_norm}, 3 * sizeof *log);
        clock[2 * k] = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
        clock[2 * k + 1] = batch_nodes(p);
    }
    file_write(p, "clock.f64", clock, p->steps * 2 * sizeof *clock);
    free(clock);
    file_write(p, "steps.f64", log, p->steps * 3 * sizeof *log);
    if (stepper_fetch(p->stepper, &e) < 0)
        probe_fail(e.text);
    file_write(p, "trained.f32", stepper_parameters(p->stepper),
               p->model.parameter_count * sizeof(float));
    file_write(p, "gradient.f32", stepper_gradient(p->stepper),
               (p->model.parameter_count - step_frozen(&p->model, &p->step)) * sizeof(float));
    if (p->model.buffer_values)
        file_write(p, "buffers.f32", stepper_module_buffers(p->stepper),
                   p->model.buffer_values * sizeof(float));
    free(log);
    free(fisher);
    free(star);
}

/* Steps, and between them as many forward and backward passes without what follows them: *wall and
 * *cpu become the difference. */
static void sweep_run(struct probe *p, double *wall, double *cpu)
{
    struct err e;
    float *fisher = vector_read(p, "fisher.f32"), *star = vector_read(p, "star.f32");
    struct ewc_term term = {fisher, star, p->lambda};
    *wall = *cpu = 0;
    for (uint64_t k = 0; k < 2 * p->steps; k++) {
        struct step_result r;
        int whole = k % 2 != 0, sign = whole ? 1 : -1;
        batch_gather(p, k, p->batch);
        double began = clock_seconds(CLOCK_MONOTONIC),
               used = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
        stepper_batch(p->stepper, whole ? p->batch : 2 * p->batch, k, &term, fisher && star);
        stepper_accumulate(p->stepper, p->batch);
        if (whole && stepper_update(p->stepper, k / 2 + 1, &p->optimizer, &r, &e) < 0)
            probe_fail(e.text);
        *wall += sign * (clock_seconds(CLOCK_MONOTONIC) - began);
        *cpu += sign * (clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - used);
    }
    free(fisher);
    free(star);
}

static void renew_run(struct probe *p)
{
    struct err e;
    stepper_renew_begin(p->stepper);
    for (uint64_t row = 0; row < p->data_rows; row += p->batch) {
        uint64_t rows = p->data_rows - row < p->batch ? p->data_rows - row : p->batch;
        batch_gather(p, row, rows);
        if (stepper_renew(p->stepper, rows, 0, &e) < 0)
            probe_fail(e.text);
    }
    if (stepper_fetch(p->stepper, &e) < 0)
        probe_fail(e.text);
    file_write(p, "buffers.f32", stepper_module_buffers(p->stepper),
               p->model.buffer_values * sizeof(float));
}

/* With buffers.f32, if it is there, as running statistics. */
static void fisher_run(struct probe *p)
{
    struct err e;
    size_t bytes = 0;
    char *buffers = file_read(p, "buffers.f32", &bytes);
    if (buffers && bytes == p->model.buffer_values * sizeof(float))
        memcpy(stepper_module_buffers(p->stepper), buffers, bytes);
    stepper_send(p->stepper);
    free(buffers);
    uint64_t total = p->model.parameter_count;
    uint64_t numbers = p->factored ? factors_count(&p->model) : total;
    float *sums = calloc(numbers, sizeof *sums);
    double weight = 0;
    for (uint64_t first = 0; first < total; first += p->block)
        for (uint64_t row = 0; row < p->data_rows; row += p->batch) {
            uint64_t rows = p->data_rows - row < p->batch ? p->data_rows - row : p->batch;
            uint64_t count = total - first < p->block ? total - first : p->block;
            batch_gather(p, row, rows);
            struct fisher_sums to = {.first = first,
                                     .count = count,
                                     .at = sums + first,
                                     .weight = first ? NULL : &weight,
                                     .factored = p->factored,
                                     .labels = p->labels,
                                     .key = p->step.seed,
                                     .position = row};
            if (stepper_fisher(p->stepper, rows, &to, &e) < 0)
                probe_fail(e.text);
        }
    file_write(p, p->factored ? "factors.f32" : "fisher_sums.f32", sums, numbers * sizeof *sums);
    weight /= (double)p->model.target_steps;
    file_write(p, "fisher_weight.f64", &weight, sizeof weight);
    free(sums);
}

/* Passes of training and of the Fisher information over the same batch, one after the other:
 * seconds of the latter, CPU seconds of both. p->stepper is the one for training. */
static void beside_run(struct probe *p, double *wall, double *cpu, double *pass_cpu)
{
    struct err e;
    struct step_config c = p->step;
    struct stepper *steppers[2] = {p->stepper};
    float *sums = calloc(p->model.parameter_count, sizeof *sums);
    struct fisher_sums to = {.count = p->model.parameter_count, .at = sums};
    c.with_optimizer = 0;
    if (stepper_open(&steppers[1], &p->model, &c, &e) < 0 || !sums)
        probe_fail("no memory");
    memcpy(stepper_parameters(steppers[1]), stepper_parameters(p->stepper),
           p->model.parameter_count * sizeof *sums);
    stepper_send(steppers[1]);
    for (int i = 1; i >= 0; i--) {
        p->stepper = steppers[i];
        batch_gather(p, 0, p->batch);
    }
    *wall = *cpu = *pass_cpu = 0;
    for (uint64_t k = 0; k <= p->steps; k++) { /* the first one warms up */
        double used = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
        stepper_batch(steppers[0], p->batch, k, NULL, 0);
        stepper_accumulate(steppers[0], p->batch);
        double between = clock_seconds(CLOCK_PROCESS_CPUTIME_ID),
               began = clock_seconds(CLOCK_MONOTONIC);
        if (stepper_fisher(steppers[1], p->batch, &to, &e) < 0)
            probe_fail(e.text);
        *pass_cpu += k ? between - used : 0;
        *cpu += k ? clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - between : 0;
        *wall += k ? clock_seconds(CLOCK_MONOTONIC) - began : 0;
    }
    stepper_close(&steppers[1]);
    free(sums);
}

/* fisher.f32 compressed. */
static struct importance importance_read(const struct probe *p)
{
    struct importance f;
    struct err e;
    uint64_t count = p->model.parameter_count;
    float *fisher = vector_read(p, "fisher.f32");
    if (!fisher || importance_open(&f, &p->model, 0, &e) < 0)
        probe_fail("fisher.f32 is missing, or there is no memory");
    while (importance_next(&f))
        if (importance_take(&f, fisher, count, &e) < 0)
            probe_fail(e.text);
    free(fisher);
    return f;
}

static void penalty_run(struct probe *p, double *wall, double *cpu, double *pass_cpu)
{
    enum { TERMS_MAX = 16 };
    struct err e;
    struct importance f = importance_read(p);
    struct ewc_term terms[TERMS_MAX];
    float *star = vector_read(p, "star.f32");
    if (!star || p->terms < 1 || p->terms > TERMS_MAX)
        probe_fail("star.f32 is missing, or terms is not 1 to 16");
    for (int i = 0; i < p->terms; i++)
        terms[i] =
            (struct ewc_term){.importance = &f, .theta_star = star, .lambda = p->lambda / p->terms};
    *wall = *cpu = *pass_cpu = 0;
    for (uint64_t k = 0; k < 2 * p->steps + 2; k++) { /* the first two warm up */
        struct step_result r;
        int with = (k + k / 2) % 2 != 0; /* which goes first takes turns, too */
        batch_gather(p, k / 2 * p->batch, p->batch);
        double began = clock_seconds(CLOCK_MONOTONIC),
               used = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
        if (stepper_train(p->stepper, p->batch, k, k + 1, &p->optimizer, terms, with ? p->terms : 0,
                          &r, &e) < 0)
            probe_fail(e.text);
        used = clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - used;
        *wall += k > 1 && with ? clock_seconds(CLOCK_MONOTONIC) - began : 0;
        *(with ? cpu : pass_cpu) += k > 1 ? used : 0;
    }
    importance_close(&f);
    free(star);
}

/* A step, as trainerd makes it: where it can be asked for, and the one before is taken then. */
static int step_repeat(struct probe *p, uint64_t k, struct err *e)
{
    struct step_result r;
    stepper_batch(p->stepper, p->batch, k, NULL, 0);
    stepper_accumulate(p->stepper, p->batch);
    if (!stepper_asks(p->stepper))
        return stepper_update(p->stepper, k + 1, &p->optimizer, &r, e);
    int before = stepper_asked(p->stepper);
    stepper_update_ask(p->stepper, k + 1, &p->optimizer);
    if (before && stepper_update_take(p->stepper, &r, e) <= 0)
        probe_fail("a step was refused");
    return 0;
}

static void repeat_once(struct probe *p, uint64_t k, struct fisher_sums *to)
{
    struct err e;
    if ((p->fisher ? stepper_fisher(p->stepper, p->batch, to, &e) : step_repeat(p, k, &e)) < 0)
        probe_fail(e.text);
}

static void repeat_run(struct probe *p)
{
    uint64_t k = 0;
    float *sums = calloc(p->model.parameter_count, sizeof *sums);
    struct fisher_sums to = {.count = p->model.parameter_count, .at = sums};
    if (!sums)
        probe_fail("no memory");
    batch_gather(p, 0, p->batch);
    printf("{\"seconds_each\": [");
    for (int round = 0; round <= p->repeats; round++) { /* the first one warms up */
        double began = clock_seconds(CLOCK_MONOTONIC);
        for (uint64_t i = 0; i < p->steps; i++)
            repeat_once(p, k++, &to);
        p->device->wait();
        if (round)
            printf("%s%.9f", round > 1 ? ", " : "",
                   (clock_seconds(CLOCK_MONOTONIC) - began) / (double)p->steps);
    }
    printf("], ");
    free(sums);
}

/* What the device's memory had at most, in the line's end, and what the device took for itself. */
static void line_print(const struct probe *p, double wall, double cpu, double pass_cpu, int begun)
{
    struct device_memory memory = {0};
    struct device_facts facts = {0};
    if (p->device->memory)
        p->device->memory(&memory);
    p->device->facts(&facts);
    printf("%s\"seconds\": %.6f, \"cpu_seconds\": %.6f, \"pass_cpu_seconds\": %.6f, "
           "\"activation_bytes\": %lu, \"peak_rss_bytes\": %lu, \"device_bytes\": %" PRIu64
           ", \"device_context_bytes\": %" PRIu64 "}\n",
           begun ? "" : "{", wall, cpu, pass_cpu, activation_bytes(p), peak_rss_bytes(),
           memory.high_bytes, facts.context_bytes);
}

static void init_run(struct probe *p)
{
    float *parameters = calloc(p->model.parameter_count, sizeof *parameters);
    model_initialise(&p->model, p->step.seed, parameters);
    file_write(p, "weights.f32", parameters, p->model.parameter_count * sizeof *parameters);
    free(parameters);
}

static void work_run(struct probe *p, const char *mode)
{
    struct err e;
    int sweep = strcmp(mode, "sweep") == 0, beside = strcmp(mode, "beside") == 0;
    int repeat = strcmp(mode, "repeat") == 0;
    double pass_cpu = 0;
    p->step.with_optimizer = strcmp(mode, "fisher") != 0 && !p->fisher;
    p->step.accumulates = sweep;
    if (p->model.graphs)
        graphs_read(p);
    if (stepper_open(&p->stepper, &p->model, &p->step, &e) < 0)
        probe_fail(e.text);
    data_read(p);
    float *weights = vector_read(p, "weights.f32");
    if (!weights)
        probe_fail("weights.f32 is missing");
    memcpy(stepper_parameters(p->stepper), weights, p->model.parameter_count * sizeof *weights);
    stepper_send(p->stepper);
    double wall = clock_seconds(CLOCK_MONOTONIC), cpu = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
    if (strcmp(mode, "train") == 0)
        train_run(p);
    else if (strcmp(mode, "renew") == 0)
        renew_run(p);
    else if (strcmp(mode, "fisher") == 0)
        fisher_run(p);
    else if (repeat)
        repeat_run(p);
    wall = clock_seconds(CLOCK_MONOTONIC) - wall;
    cpu = clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    if (sweep)
        sweep_run(p, &wall, &cpu);
    if (beside)
        beside_run(p, &wall, &cpu, &pass_cpu);
    if (strcmp(mode, "penalty") == 0)
        penalty_run(p, &wall, &cpu, &pass_cpu);
    line_print(p, wall, cpu, pass_cpu, repeat);
    stepper_close(&p->stepper);
    free(weights);
    free(p->features);
    free(p->targets);
    free(p->feature_rows);
    free(p->target_rows);
    free(p->graphs.node_ptr);
    free(p->graphs.edge_ptr);
    free(p->graphs.sources);
    free(p->graphs.targets);
    free(p->graphs.edges);
    free(p->graphs.rows);
}

int main(int argc, char **argv)
{
    struct probe p = {0};
    struct err e;
    size_t bytes = 0;
    if (argc < 3)
        probe_fail("usage: engine_probe init|train|renew|fisher|sweep|beside|penalty|repeat DIR "
                   "[key=value ...]");
    p.directory = argv[2];
    char *text = file_read(&p, "model.txt", &bytes);
    if (!text || model_from_text(&p.model, text, &e) < 0)
        probe_fail(text ? e.text : "model.txt is missing");
    settings_read(&p, argc, argv);
    if (p.step.carried_rows && model_carry(&p.model, &e) < 0)
        probe_fail(e.text);
    if (strcmp(argv[1], "init") == 0)
        init_run(&p);
    else if (strcmp(argv[1], "train") == 0 || strcmp(argv[1], "fisher") == 0 ||
             strcmp(argv[1], "renew") == 0 || strcmp(argv[1], "sweep") == 0 ||
             strcmp(argv[1], "beside") == 0 || strcmp(argv[1], "penalty") == 0 ||
             strcmp(argv[1], "repeat") == 0)
        work_run(&p, argv[1]);
    else
        probe_fail(
            "the first argument is init, train, renew, fisher, sweep, beside, penalty or repeat");
    p.device->close();
    model_close(&p.model);
    free(text);
    return 0;
}
