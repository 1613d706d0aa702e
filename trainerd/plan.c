/* plan.c - how much memory a run takes, stage by stage and on the device, before any of it is
 * taken. The same table decides at trainerd's start and is printed by --plan (plan_command.c).
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/device.h"
#include "proto/limits.h"

enum {
    FISHER_SPAN_BYTES = 4 << 20, /* about what loaderd makes of a span where it may choose */
};

/* Bytes of the arena that a feed makes for a split. */
static int arena_bytes(const struct feed_config *c, const struct split_shape *s, uint64_t *bytes,
                       struct err *e)
{
    uint64_t slots, slot_bytes;
    if (feed_arena(c, s->spans, s->span_rows, s->span_bytes_max, &slots, &slot_bytes, e) < 0)
        return -1;
    *bytes = slots * slot_bytes;
    return 0;
}

static uint32_t ewc_terms_max(const struct options *o)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < o->task_count; i++)
        most = o->tasks[i].ewc.count > most ? o->tasks[i].ewc.count : most;
    return most && strcmp(o->ewc_mode, "online") == 0 ? 1 : most;
}

/* Most parameters of a block of the Fisher information. */
static uint64_t block_parameters(const struct options *o, const struct model *m)
{
    return o->fisher_block_size < m->parameter_count ? o->fisher_block_size : m->parameter_count;
}

static const char base_name[] = "program and libraries, measured";

static const char theta_stars[] = "theta* of them, pages of checkpoints";

static const char fisher_reader[] = "reader, Fisher";

static const struct {
    const char *arena, *reader;
} split_names[] = {{"arena, training", "reader, training"},
                   {"arena, validation", "reader, validation"}};

/* What the device holds beside the stepper's: its context, and the protected tasks. */
static void device_plan(struct plan *p, const struct model *m, const struct device *device,
                        uint64_t terms, int exact)
{
    struct device_facts f;
    uint64_t task = importance_bytes(m, exact) + sizeof(float) * m->parameter_count;
    if (!device || !device->apart)
        return;
    device->facts(&f);
    plan_add(p, PLAN_DEVICE, "context and libraries", f.context_bytes);
    if (terms)
        plan_add(p, PLAN_DEVICE, "protected tasks", terms * task);
}

static int trainerd_plan(struct plan *p, const struct options *o, const struct model *m,
                         const struct split_shape *train, const struct split_shape *validation,
                         const struct device *device, uint64_t micro_rows, struct err *e)
{
    struct step_config c;
    struct feed_config f = setup_feed_config(o, 0), v = setup_feed_config(o, 1);
    uint64_t terms = ewc_terms_max(o), bytes = 0, validation_bytes = 0;
    compute_feed_config(&f, o, device);
    compute_feed_config(&v, o, device);
    if (shapes_step_config(&c, o, device, train, validation, micro_rows, e) < 0 ||
        arena_bytes(&f, train, &bytes, e) < 0 ||
        arena_bytes(&v, validation, &validation_bytes, e) < 0)
        return -1;
    device_plan(p, m, device, terms, !o->fisher_use_compression);
    stepper_plan(m, &c, "trainerd", p);
    if (terms) {
        plan_add(p, "trainerd", "Fisher information of protected tasks",
                 terms * importance_bytes(m, !o->fisher_use_compression));
        plan_add(p, "trainerd", "a block of it and its stored form, on the way there",
                 2 * sizeof(float) * block_parameters(o, m));
        plan_add(p, "trainerd", theta_stars, terms * sizeof(float) * m->parameter_count);
    }
    plan_add(p, "trainerd", split_names[0].arena, bytes);
    plan_add(p, "trainerd", split_names[1].arena, validation_bytes);
    return 0;
}

/* Where rows are graphs, fisherd's own order decides which come together; its slices are taken to
 * be as large as the largest one of training. */
static void fisher_graphs(struct step_config *c, const struct options *o,
                          const struct split_shape *train)
{
    uint64_t slices = (c->batch_rows_max - 1) / o->slice_rows + 1;
    uint64_t batches = (c->batch_rows_max - 1) / o->batch_size + 1;
    c->slice_nodes_max = train->slice_nodes;
    c->batch_nodes_max = slices * c->slice_parts * train->slice_nodes;
    c->batch_edges_max = batches * train->batch_edges;
}

/* The device's rows from number `first` on are fisherd's, which gives all back after an estimate.
 */
static void estimating_set(struct plan *p, int first)
{
    char what[sizeof p->rows[0].what];
    for (int i = first; i < p->count; i++) {
        struct plan_row *row = &p->rows[i];
        if (strcmp(row->stage, PLAN_DEVICE) != 0)
            continue;
        snprintf(what, sizeof what, "fisherd: %.50s", row->what);
        memcpy(row->what, what, sizeof what);
        row->phases = PLAN_ESTIMATING;
    }
}

/* As fisherd/work.c has it: a batch of stepper_fisher_rows; any order, windows of one span. Its
 * spans are those of training, but where that has streams, whose spans are smaller. */
static int fisherd_plan(struct plan *p, const struct options *o, const struct model *m,
                        const struct device *device, const struct split_shape *train, struct err *e)
{
    struct step_config c = setup_step_config(o);
    struct feed_config f = feed_config_of(o);
    struct split_shape samples = *train;
    uint64_t block = block_parameters(o, m);
    uint64_t bytes = 0;
    f.shuffle = 1;
    f.window_spans = 1;
    if (!ewc_terms_max(o))
        return 0;
    if (o->data_stateful && samples.span_bytes_max < FISHER_SPAN_BYTES)
        samples.span_bytes_max = FISHER_SPAN_BYTES;
    if (arena_bytes(&f, &samples, &bytes, e) < 0)
        return -1;
    c.with_optimizer = c.freeze_backbone = 0;
    c.carried_rows = 0;
    c.weights = train->weights;
    c.batch_rows_max =
        stepper_fisher_rows(&c, o->fisher_samples < train->rows ? o->fisher_samples : train->rows);
    fisher_graphs(&c, o, train);
    if (strcmp(o->fisher_estimator, "factored") == 0)
        device = NULL; /* fisherd/work.c: the CPU's */
    device_step_config(device, &c);
    int first = p->count;
    device_plan(p, m, device, 0, 0);
    stepper_plan(m, &c, "fisherd", p);
    estimating_set(p, first);
    plan_add(p, "fisherd", "a block of the Fisher information, and its stored form", 3 * 4 * block);
    plan_add(p, "fisherd", "arena", bytes);
    return 0;
}

/* A reader, a process of its own with its private memory: each decoding thread (the only one where
 * there are no others) has a stored chunk, the same inflated, and one of which parts are wanted;
 * one more is kept. */
static void reader_plan(struct plan *p, const struct options *o, const struct plan_bases *b,
                        const struct split_shape *s, const char *what)
{
    uint64_t workers = limits_decoders("", o->loader_num_workers);
    uint64_t chunk_bytes =
        s->span_rows ? s->chunk_rows * (s->span_bytes_max / s->span_rows + 1) : 0;
    uint64_t chunks = 3 * (workers ? workers : 1) + 1;
    plan_add(p, "loaderd", what, b->reader + chunks * chunk_bytes);
}

static void loaderd_plan(struct plan *p, const struct options *o, const struct plan_bases *b,
                         const struct split_shape *train, const struct split_shape *validation)
{
    plan_add(p, "loaderd", base_name, b->loaderd);
    reader_plan(p, o, b, train, split_names[0].reader);
    reader_plan(p, o, b, validation, split_names[1].reader);
    if (ewc_terms_max(o))
        reader_plan(p, o, b, train, fisher_reader);
}

/* Memory of the device; 0: it has none of its own. */
static uint64_t device_bytes(const struct options *o, const struct device *d)
{
    return d && d->apart ? device_bytes_of(d, o->device_limit_mb) : 0;
}

/* Of the memory that rows are kept in. */
static uint64_t memory_bytes(const struct options *o, const struct device *d)
{
    char source[64];
    return d ? device_bytes(o, d) : limits_host("", o->host_limit_mb, source, sizeof source);
}

uint64_t plan_chunk_bytes(const struct options *o, const struct device *d)
{
    if (o->loader_chunk_size_gb > 0)
        return (uint64_t)(o->loader_chunk_size_gb * (1 << 30));
    return memory_bytes(o, d) / 4 * 3;
}

/* The device that rows are copied to. Graphs are gathered by the host, which needs to know where
 * each ends. */
static const struct device *rows_device(const struct device *d, const struct split_shape *train)
{
    return d && d->apart && !shape_is_graph(train) ? d : NULL;
}

static int window_error(const struct options *o, uint64_t window, uint64_t bytes, struct err *e)
{
    return err_set(e, EXIT_CODE_PERMANENT,
                   "loader.chunk_size_gb is %g, a window of %" PRIu64 " spans needs %.3f; raise "
                   "it, or lower order.window_spans or order.span_rows",
                   o->loader_chunk_size_gb, window, (double)(window * bytes) / (1 << 30));
}

/* What is left of `room` goes to the validation rows. */
static void validation_size(struct megabatch_size sizes[2], const struct split_shape *validation,
                            uint64_t window, uint64_t room)
{
    room -= sizes[0].bytes < room ? sizes[0].bytes : room;
    sizes[1] = megabatch_size_make(validation->spans, validation->span_bytes_max, window, room);
    if (!sizes[0].device && sizes[1].kind != MEGABATCH_WHOLE)
        sizes[1] = (struct megabatch_size){.kind = MEGABATCH_ARENA};
    if (sizes[1].kind != MEGABATCH_ARENA)
        sizes[1].device = sizes[0].device;
    sizes[1].mark = MEGABATCH_MARKS;
}

/* How both splits are kept, beside what the plan holds already. On the CPU a chunk of `auto` size
 * that not all rows fit in would only be another copy of what the arena brings. */
static int megabatches_make(const struct plan *p, const struct options *o,
                            const struct device *device, const struct split_shape *train,
                            const struct split_shape *validation, struct megabatch_size sizes[2],
                            struct err *e)
{
    const struct device *d = rows_device(device, train);
    struct feed_config f = setup_feed_config(o, 0), v = setup_feed_config(o, 1);
    uint64_t window = f.shuffle ? f.window_spans : f.streams ? f.streams : 1;
    uint64_t limit = memory_bytes(o, d), planned = plan_total(p, d ? PLAN_DEVICE : NULL);
    uint64_t room = plan_chunk_bytes(o, d), left = planned < limit ? limit - planned : 0;
    int chosen = o->loader_chunk_size_gb > 0;
    sizes[0] = sizes[1] = (struct megabatch_size){.kind = MEGABATCH_ARENA};
    if (!o->loader_use_chunk_loader)
        return 0;
    if (!chosen && room > left)
        room = left;
    sizes[0] = megabatch_size_make(train->spans, train->span_bytes_max, window, room);
    if (chosen && sizes[0].kind == MEGABATCH_ARENA)
        return window_error(o, window, train->span_bytes_max, e);
    if (!d && !chosen && sizes[0].kind == MEGABATCH_WINDOWS)
        sizes[0] = (struct megabatch_size){.kind = MEGABATCH_ARENA};
    if (sizes[0].kind == MEGABATCH_ARENA || (!d && sizes[0].kind != MEGABATCH_WHOLE))
        return 0;
    sizes[0].device = d;
    validation_size(sizes, validation, v.streams ? v.streams : 1, room);
    return 0;
}

static void megabatch_plan(struct plan *p, int phases, const struct megabatch_size *size,
                           const char *split)
{
    char what[64];
    snprintf(what, sizeof what, "mega-batch, %s%s", split,
             size->kind == MEGABATCH_WHOLE ? ": all rows" : "");
    if (size->bytes)
        plan_add_in(p, size->device ? phases & ~PLAN_ESTIMATING : phases,
                    size->device ? PLAN_DEVICE : "trainerd", what, size->bytes);
}

static int data_sets(const struct options *o)
{
    int count = 0;
    for (uint32_t i = 0; i < o->task_count; i++)
        count += options_data_task(o, i) == i;
    return count;
}

/* Where all rows of a split are kept, its arena and its reader are given back when the last of them
 * has arrived: in the first epoch, and in the first evaluation after it. fisherd works later. Not
 * so where tasks have data of their own, which arrive again and again. */
static void splits_end(struct plan *p, const struct options *o,
                       const struct megabatch_size sizes[2])
{
    static const int until[] = {PLAN_TRAINING_ARRIVES,
                                PLAN_TRAINING_ARRIVES | PLAN_VALIDATION_ARRIVES};
    for (int i = 0; i < p->count; i++) {
        struct plan_row *row = &p->rows[i];
        for (int split = 0; split < 2 && data_sets(o) == 1; split++)
            if (sizes[split].kind == MEGABATCH_WHOLE &&
                (strcmp(row->what, split_names[split].arena) == 0 ||
                 strcmp(row->what, split_names[split].reader) == 0))
                row->phases = until[split];
        if (strcmp(row->what, fisher_reader) == 0)
            row->phases = PLAN_ALL_ARRIVED;
    }
}

/* With micro-batches of so many rows. */
static int plan_make_with(struct plan *p, const struct options *o, const struct model *m,
                          const struct plan_bases *bases, const struct split_shape *train,
                          const struct split_shape *validation, uint64_t micro_rows,
                          struct megabatch_size sizes[2], struct err *e)
{
    if (trainerd_plan(p, o, m, train, validation, bases->device, micro_rows, e) < 0 ||
        fisherd_plan(p, o, m, bases->device, train, e) < 0)
        return -1;
    loaderd_plan(p, o, bases, train, validation);
    plan_add(p, "monitord", base_name, bases->monitord);
    plan_add(p, "trainerd", base_name, bases->trainerd + bases->driver);
    plan_add(p, "fisherd", base_name,
             ewc_terms_max(o) ? bases->fisherd + bases->driver : bases->fisherd_idle);
    if (megabatches_make(p, o, bases->device, train, validation, sizes, e) < 0)
        return -1;
    splits_end(p, o, sizes);
    megabatch_plan(p, PLAN_ALWAYS, &sizes[0], "training");
    megabatch_plan(p, PLAN_VALIDATION_ARRIVES | PLAN_ALL_ARRIVED, &sizes[1], "validation");
    return 0;
}

uint64_t plan_micro_rows_half(const struct options *o, const struct model *m, uint64_t rows)
{
    uint64_t slices = (rows - 1) / o->slice_rows + 1;
    if (!o->dynamic_batch_size || m->buffer_count || slices < 2)
        return 0;
    return (slices + 1) / 2 * o->slice_rows;
}

static int plan_fits(const struct plan *p, const struct options *o, const struct device *d)
{
    char source[64];
    return plan_total(p, NULL) <= limits_host("", o->host_limit_mb, source, sizeof source) &&
           plan_total(p, PLAN_DEVICE) <= device_bytes(o, d);
}

int plan_make(struct plan *p, const struct options *o, const struct model *m,
              const struct plan_bases *bases, const struct split_shape *train,
              const struct split_shape *validation, uint64_t *micro_rows,
              struct megabatch_size sizes[2], struct err *e)
{
    for (uint64_t rows = o->batch_size; rows; rows = plan_micro_rows_half(o, m, rows)) {
        p->count = 0;
        *micro_rows = rows;
        if (plan_make_with(p, o, m, bases, train, validation, rows, sizes, e) < 0)
            return -1;
        if (plan_fits(p, o, bases->device))
            return 0;
    }
    *micro_rows = o->batch_size; /* smaller ones do not help: tell what was asked for */
    p->count = 0;
    return plan_make_with(p, o, m, bases, train, validation, *micro_rows, sizes, e);
}

/* Is it the engine's own, a region of engine/memory.h, in trainerd? */
static int is_region(const struct plan_row *row)
{
    static const char *const others[] = {base_name, theta_stars, split_names[0].arena,
                                         split_names[1].arena};
    int found = strcmp(row->stage, "trainerd") == 0;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        found &= strcmp(row->what, others[i]) != 0;
    return found;
}

uint64_t plan_regions_limit(const struct plan *p, const struct options *o)
{
    char source[64];
    uint64_t limit = limits_host("", o->host_limit_mb, source, sizeof source), taken = 0;
    for (int i = 0; i < p->count; i++)
        if (p->rows[i].phases == PLAN_ALWAYS && strcmp(p->rows[i].stage, PLAN_DEVICE) != 0 &&
            !is_region(&p->rows[i]))
            taken += p->rows[i].bytes;
    return taken < limit ? limit - taken : 0;
}

static int too_large(const char *memory, uint64_t total, const char *source, uint64_t limit,
                     const char *lower, const struct options *o, struct err *e)
{
    return err_set(e, EXIT_CODE_PERMANENT,
                   "the run needs %" PRIu64 " MiB of %s and %s is %" PRIu64
                   " MiB; lower %s, %sor make the model smaller (--plan shows what takes it)",
                   (total >> 20) + 1, memory, source, limit >> 20, lower,
                   o->use_gradient_checkpointing ? ""
                                                 : "set training.use_gradient_checkpointing, ");
}

int plan_check(const struct plan *p, const struct options *o, const struct device *d, struct err *e)
{
    char source[64];
    uint64_t limit = limits_host("", o->host_limit_mb, source, sizeof source);
    uint64_t total = plan_total(p, NULL), on_device = plan_total(p, PLAN_DEVICE);
    if (total > limit)
        return too_large("memory", total, source, limit,
                         "training.batch_size, training.threads or arena.limit_mb", o, e);
    if (on_device <= device_bytes(o, d))
        return 0;
    return too_large("device memory", on_device, "that of the GPU", device_bytes(o, d),
                     "training.batch_size or loader.chunk_size_gb", o, e);
}
