/* plan.c - how much memory a run takes, stage by stage and on the device, before any of it is
 * taken. The same table decides at trainerd's start and is printed by --plan (plan_command.c).
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/device.h"
#include "engine/factors.h"
#include "proto/limits.h"

enum {
    FISHER_SPAN_BYTES = 4 << 20,   /* about what loaderd makes of a span where it may choose */
    FISHER_PAGES_AROUND = 4 << 20, /* the kernel maps 2 MiB at either end of what is touched */
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

/* Terms that protect earlier tasks while that one is trained. */
static uint32_t ewc_terms(const struct options *o, uint32_t task)
{
    uint32_t count = o->tasks[task].ewc.count;
    return count && strcmp(o->ewc_mode, "online") == 0 ? 1 : count;
}

static uint32_t ewc_terms_max(const struct options *o)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < o->task_count; i++)
        most = ewc_terms(o, i) > most ? ewc_terms(o, i) : most;
    return most;
}

/* Does fisherd? */
static int takes_samples(const struct options *o)
{
    return ewc_terms_max(o) && strcmp(o->fisher_estimator, "adam") != 0;
}

/* Most parameters of a block of the Fisher information. */
static uint64_t block_parameters(const struct options *o, const struct model *m)
{
    return o->fisher_block_size < m->parameter_count ? o->fisher_block_size : m->parameter_count;
}

/* Bytes of a block as its file stores it, about: codes of log_rank1 and int8 are a byte a value,
 * those of int4 half of one; a sixteenth more goes with them. */
static uint64_t stored_bytes(const struct options *o, uint64_t values)
{
    static const struct {
        const char *form;
        double bytes; /* a value */
    } coded[] = {{"log_rank1", 1}, {"int8", 1}, {"int4", 0.5}};
    double bytes = sizeof(float);
    if (strcmp(o->fisher_compression, "lowrank") == 0)
        bytes *= o->fisher_compression_ratio;
    for (size_t i = 0; i < sizeof coded / sizeof *coded; i++)
        if (strcmp(o->fisher_compression, coded[i].form) == 0)
            bytes = coded[i].bytes;
    if (!o->fisher_use_compression || strcmp(o->fisher_compression, "gzip") == 0)
        return values * sizeof(float);
    return (uint64_t)((double)values * bytes) + values / 16;
}

static const char base_name[] = "program and libraries, measured";

/* monitord opens it where a GPU computes: about 2 MiB of program, and what it keeps of the GPU. An
 * estimate: what it takes is the driver's affair. */
static const char management_library[] = "the driver's management library, an estimate";
enum { MANAGEMENT_LIBRARY_BYTES = 8 << 20 };

static const char theta_stars[] = "theta* of them, pages of checkpoints";

static const char checkpoint_behind[] = "a checkpoint written behind training";

static const char stacks[] = "stacks of its threads, with factors of products";

static const char fisher_block[] = "a block of it and its stored form, on the way there";

static const char fisher_reader[] = "reader, Fisher";

static const struct {
    const char *arena, *reader, *rows;
} split_names[] = {{"arena, training", "reader, training", "mega-batch, training"},
                   {"arena, validation", "reader, validation", "mega-batch, validation"}};

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

/* What a run's stages are planned for; all is borrowed. */
struct planned {
    const struct options *o;
    const struct model *m;
    const struct plan_bases *bases;
    const struct split_shape *train, *validation; /* the most of all tasks */
    const struct split_shape *const *of_tasks;    /* training rows of each; NULL: all as *train */
    uint64_t micro_rows;
};

/* While a task is trained that reads *train and has so many terms. */
static int trainerd_plan(struct plan *p, const struct planned *r, const struct split_shape *train,
                         uint64_t terms, struct err *e)
{
    const struct options *o = r->o;
    const struct model *m = r->m;
    const struct device *device = r->bases->device;
    struct step_config c;
    struct feed_config f = setup_feed_config(o, 0), v = setup_feed_config(o, 1);
    uint64_t bytes = 0, validation_bytes = 0;
    compute_feed_config(&f, o, device);
    compute_feed_config(&v, o, device);
    if (shapes_step_config(&c, o, device, r->train, r->validation, r->micro_rows, e) < 0 ||
        arena_bytes(&f, train, &bytes, e) < 0 ||
        arena_bytes(&v, r->validation, &validation_bytes, e) < 0)
        return -1;
    device_plan(p, m, device, terms, !o->fisher_use_compression);
    stepper_plan(m, &c, "trainerd", p);
    plan_add(p, "trainerd", stacks, stepper_stacks_bytes(m, &c));
    if (device && device->apart)
        plan_add(p, "trainerd", checkpoint_behind, saving_bytes());
    if (terms) {
        plan_add(p, "trainerd", "Fisher information of protected tasks",
                 terms * importance_bytes(m, !o->fisher_use_compression));
        plan_add(p, "trainerd", fisher_block,
                 sizeof(float) * block_parameters(o, m) + stored_bytes(o, block_parameters(o, m)) +
                     importance_build_bytes(m));
        plan_add(p, "trainerd", theta_stars, terms * sizeof(float) * m->parameter_count);
    }
    plan_add(p, "trainerd", split_names[0].arena, bytes);
    plan_add(p, "trainerd", split_names[1].arena, validation_bytes);
    return 0;
}

/* Where rows are graphs, fisherd's own order decides which come together; its slices are taken to
 * be as large as the largest one of some orders of that kind. */
static void fisher_graphs(struct step_config *c, const struct options *o,
                          const struct split_shape *train)
{
    uint64_t slices = (c->batch_rows_max - 1) / o->slice_rows + 1;
    uint64_t batches = (c->batch_rows_max - 1) / o->batch_size + 1;
    c->slice_nodes_max = train->sample_nodes;
    c->batch_nodes_max = slices * c->slice_parts * train->sample_nodes;
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

/* What fisherd sums over samples with, which it gives back before it writes the first block. As
 * fisherd/work.c has it: a batch of stepper_fisher_rows; any order, windows of one span. Its spans
 * are those of training, but where that has streams, whose spans are smaller. */
static int samples_plan(struct plan *p, const struct options *o, const struct model *m,
                        const struct device *device, const struct split_shape *train, struct err *e)
{
    struct step_config c = setup_step_config(o);
    struct feed_config f = feed_config_of(o);
    struct split_shape samples = *train;
    uint64_t bytes = 0;
    f.shuffle = 1;
    f.window_spans = 1;
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
    plan_add(p, "fisherd", stacks, stepper_stacks_bytes(m, &c));
    plan_add(p, "fisherd", "arena", bytes);
    return 0;
}

/* Those of a block and of half of the samples; of factors, which are few, all of them. */
static uint64_t sums_bytes(const struct options *o, const struct model *m, uint64_t block)
{
    return strcmp(o->fisher_estimator, "factored") == 0 ? sizeof(float) * factors_count(m)
                                                        : 2 * sizeof(float) * block;
}

/* First samples are summed, unless the optimizer's moments are the estimate; then blocks are
 * written: the values of one, what encodes it and the packed form, in the place of its sums, and
 * the stored form of the one before. What that takes more is told. */
static int fisherd_plan(struct plan *p, const struct options *o, const struct model *m,
                        const struct device *device, const struct split_shape *train, struct err *e)
{
    uint64_t block = block_parameters(o, m);
    int more = block < m->parameter_count, adds = takes_samples(o);
    uint64_t writing = 3 * sizeof(float) * block + (more ? stored_bytes(o, block) : 0);
    uint64_t before = plan_total(p, "fisherd"), summing = 0;
    if (!ewc_terms_max(o))
        return 0;
    if (adds && samples_plan(p, o, m, device, train, e) < 0)
        return -1;
    if (adds)
        plan_add(p, "fisherd", "sums of squared gradients", sums_bytes(o, m, block));
    summing = plan_total(p, "fisherd") - before;
    if (writing > summing)
        plan_add(p, "fisherd",
                 adds ? "a block that is written, more than what is given back before"
                      : "a block that is written",
                 writing - summing);
    if (more && adds)
        plan_add(p, "fisherd", "pages of the sums' files around a block", FISHER_PAGES_AROUND);
    return 0;
}

/* A reader, a process of its own with its private memory: each decoding thread (the only one where
 * there are no others) has a stored chunk, the same inflated, and one of which parts are wanted. */
static void reader_plan(struct plan *p, const struct options *o, const struct plan_bases *b,
                        const struct split_shape *s, const char *what)
{
    uint64_t workers = limits_decoders("", o->loader_num_workers);
    uint64_t chunks = 3 * (workers ? workers : 1);
    plan_add(p, "loaderd", what, b->reader + chunks * s->chunk_bytes_max + s->kept_bytes);
}

static void loaderd_plan(struct plan *p, const struct options *o, const struct plan_bases *b,
                         const struct split_shape *train, const struct split_shape *validation)
{
    plan_add(p, "loaderd", base_name, b->loaderd);
    reader_plan(p, o, b, train, split_names[0].reader);
    reader_plan(p, o, b, validation, split_names[1].reader);
    if (takes_samples(o))
        reader_plan(p, o, b, train, fisher_reader);
}

/* Of the memory that rows are kept in. */
static uint64_t memory_bytes(const struct options *o, const struct device *d)
{
    char source[64];
    return d ? plan_device_limit(o, d) : limits_host("", o->host_limit_mb, source, sizeof source);
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
    if (!compute_keeps_rows(o, d))
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

static int data_sets(const struct options *o)
{
    int count = 0;
    for (uint32_t i = 0; i < o->task_count; i++)
        count += options_data_task(o, i) == i;
    return count;
}

static struct plan_row *row_find(struct plan *p, const char *what)
{
    for (int i = 0; i < p->count; i++)
        if (strcmp(p->rows[i].what, what) == 0)
            return &p->rows[i];
    return NULL;
}

static void phases_set(struct plan *p, const char *what, int phases)
{
    struct plan_row *row = row_find(p, what);
    if (row)
        row->phases = phases;
}

static void megabatch_plan(struct plan *p, int phases, const struct megabatch_size *size,
                           const char *split)
{
    char what[64];
    snprintf(what, sizeof what, "%s%s", split, size->kind == MEGABATCH_WHOLE ? ": all rows" : "");
    if (size->bytes)
        plan_add_in(p, size->device ? phases & ~PLAN_ESTIMATING : phases,
                    size->device ? PLAN_DEVICE : "trainerd", what, size->bytes);
}

/* Where all rows of a split are kept, its arena and its reader are given back when the last of them
 * has arrived: training rows in a task's first epoch, validation rows in the first evaluation that
 * wants them, before which that arena lies ready. fisherd works later, and so does what takes its
 * result in. With forward transfer a run begins with an evaluation, while training rows arrive. */
static void splits_end(struct plan *p, const struct options *o,
                       const struct megabatch_size sizes[2])
{
    int validation = PLAN_TRAINING_ARRIVES | PLAN_VALIDATION_ARRIVES;
    int training = o->forward_transfer ? validation : PLAN_TRAINING_ARRIVES;
    const int until[] = {training, validation};
    phases_set(p, fisher_reader, PLAN_ALL_ARRIVED);
    for (int split = 0; split < 2; split++) {
        if (sizes[split].kind != MEGABATCH_WHOLE)
            continue;
        phases_set(p, split_names[split].arena, until[split]);
        phases_set(p, split_names[split].reader, until[split]);
    }
    if (sizes[0].kind == MEGABATCH_WHOLE)
        phases_set(p, fisher_block, PLAN_ALL_ARRIVED);
}

/* What is kept of the rows. Where tasks have data of their own, validation rows of the one before
 * are held while a task's training rows arrive, but in the run's first task, when that arena is:
 * the larger one counts. */
static void rows_plan(struct plan *p, const struct options *o, const struct megabatch_size sizes[2])
{
    int later = PLAN_VALIDATION_ARRIVES | PLAN_ALL_ARRIVED | PLAN_ESTIMATING;
    struct plan_row *arena = row_find(p, split_names[1].arena);
    if (data_sets(o) > 1 && sizes[1].kind == MEGABATCH_WHOLE && sizes[1].bytes > arena->bytes) {
        later |= PLAN_TRAINING_ARRIVES;
        arena->phases &= ~PLAN_TRAINING_ARRIVES;
    }
    megabatch_plan(p, PLAN_ALWAYS, &sizes[0], split_names[0].rows);
    megabatch_plan(p, later, &sizes[1], split_names[1].rows);
}

/* All rows but those of mega-batches, as for trainerd_plan. */
static int stages_plan(struct plan *p, const struct planned *r, const struct split_shape *train,
                       uint64_t terms, struct err *e)
{
    const struct plan_bases *bases = r->bases;
    p->count = 0;
    if (trainerd_plan(p, r, train, terms, e) < 0 ||
        fisherd_plan(p, r->o, r->m, bases->device, r->train, e) < 0)
        return -1;
    loaderd_plan(p, r->o, bases, r->train, r->validation);
    plan_add(p, "monitord", base_name, bases->monitord);
    if (bases->device && bases->device->apart)
        plan_add(p, "monitord", management_library, MANAGEMENT_LIBRARY_BYTES);
    plan_add(p, "trainerd", base_name, bases->trainerd + bases->driver);
    plan_add(p, "fisherd", base_name,
             ewc_terms_max(r->o) ? bases->fisherd + bases->driver : bases->fisherd_idle);
    return 0;
}

/* The same of one task, with the rows that it keeps: as many as sizes[] has room for. */
static int task_plan(struct plan *p, const struct planned *r, uint32_t task,
                     const struct megabatch_size sizes[2], struct err *e)
{
    const struct split_shape *train = r->of_tasks ? r->of_tasks[task] : r->train;
    struct megabatch_size of_task[] = {sizes[0], sizes[1]};
    if (stages_plan(p, r, train, ewc_terms(r->o, task), e) < 0)
        return -1;
    if (sizes[0].kind == MEGABATCH_WHOLE)
        of_task[0].bytes =
            megabatch_size_make(train->spans, train->span_bytes_max, 1, sizes[0].bytes).bytes;
    splits_end(p, r->o, of_task);
    rows_plan(p, r->o, of_task);
    return 0;
}

/* Is it the engine's own, a region of engine/memory.h, in trainerd? */
static int is_region(const struct plan_row *row)
{
    static const char *const others[] = {
        base_name,         theta_stars,          stacks,
        checkpoint_behind, split_names[0].arena, split_names[1].arena};
    int found = strcmp(row->stage, "trainerd") == 0;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        found &= strcmp(row->what, others[i]) != 0;
    return found;
}

static uint64_t beside_regions(const struct plan *p)
{
    uint64_t taken = 0;
    for (int i = 0; i < p->count; i++)
        if (p->rows[i].phases == PLAN_ALWAYS && strcmp(p->rows[i].stage, PLAN_DEVICE) != 0 &&
            !is_region(&p->rows[i]))
            taken += p->rows[i].bytes;
    return taken;
}

/* Room for the rows is what is left beside the most that any task takes. The plan is at each time
 * that of the task that takes most then, on the host and on the device: protected tasks may take
 * more on one of them than another task's rows do on the other. */
static int plan_make_with(struct plan *p, const struct planned *r, struct megabatch_size sizes[2],
                          struct err *e)
{
    struct plan of_task = {0};
    if (stages_plan(p, r, r->train, ewc_terms_max(r->o), e) < 0 ||
        megabatches_make(p, r->o, r->bases->device, r->train, r->validation, sizes, e) < 0)
        return -1;
    for (uint32_t i = 0; i < r->o->task_count; i++) {
        if (task_plan(&of_task, r, i, sizes, e) < 0)
            return -1;
        of_task.beside_regions = beside_regions(&of_task);
        if (i == 0)
            *p = of_task;
        plan_most(p, &of_task);
        if (of_task.beside_regions < p->beside_regions)
            p->beside_regions = of_task.beside_regions;
    }
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
    return plan_total(p, NULL) <= plan_host_limit(o) &&
           plan_total(p, PLAN_DEVICE) <= plan_device_limit(o, d);
}

int plan_make(struct plan *p, const struct options *o, const struct model *m,
              const struct plan_bases *bases, const struct split_shape *train,
              const struct split_shape *validation, const struct split_shape *const *of_tasks,
              uint64_t *micro_rows, struct megabatch_size sizes[2], struct err *e)
{
    struct planned r = {o, m, bases, train, validation, of_tasks, 0};
    for (uint64_t rows = o->batch_size; rows; rows = plan_micro_rows_half(o, m, rows)) {
        r.micro_rows = *micro_rows = rows;
        if (plan_make_with(p, &r, sizes, e) < 0)
            return -1;
        if (plan_fits(p, o, bases->device))
            return 0;
    }
    r.micro_rows = *micro_rows = o->batch_size; /* smaller ones do not help: tell what was asked */
    return plan_make_with(p, &r, sizes, e);
}
