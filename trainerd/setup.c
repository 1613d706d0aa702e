/* setup.c - from options to the first turn: what is checked, planned, allocated and resumed.
 *
 * start looks at what needs no data; once loaderd has described both splits the rest follows in one
 * turn: shapes agree -> model -> memory plan against the limit -> allocation -> resume. After it
 * the step allocates nothing.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/device.h"
#include "engine/loss.h"
#include "engine/memory.h"
#include "proto/durable.h"
#include "proto/fisherdir.h"
#include "proto/limits.h"
#include "proto/log.h"
#include "proto/weighing.h"
#include "trainerd/advice.h"
#include "trainerd/disk.h"
#include "trainerd/layers_check.h"
#include "trainerd/watch.h"

int setup_threads(const struct options *o)
{
    return o->threads ? (int)o->threads : limits_threads("");
}

static enum optimizer_kind optimizer_kind(const struct options *o)
{
    if (strcmp(o->optimizer, "sgd") != 0)
        return OPTIMIZER_ADAMW;
    return o->momentum > 0 ? OPTIMIZER_SGD_MOMENTUM : OPTIMIZER_SGD;
}

static enum half half_kind(const struct options *o)
{
    if (!o->use_amp)
        return HALF_NONE;
    return strcmp(o->amp_dtype, "float16") == 0 ? HALF_F16 : HALF_BF16;
}

struct step_config setup_step_config(const struct options *o)
{
    return (struct step_config){.batch_rows_max = o->batch_size,
                                .slice_rows = o->slice_rows,
                                .threads = setup_threads(o),
                                .with_optimizer = 1,
                                .seed = o->seed,
                                .metric = o->metric,
                                .half = half_kind(o),
                                .scaler = {o->amp_init_scale, o->amp_growth_interval},
                                .checkpointing = o->use_gradient_checkpointing,
                                .segments_max = o->checkpoint_segments,
                                .slice_parts =
                                    step_slice_parts(o->use_gradient_checkpointing, o->slice_rows),
                                .accumulates = o->gradient_accumulation_steps > 1,
                                .carried_rows = o->data_stateful ? options_batch_rows(o) : 0,
                                .optimizer = optimizer_kind(o),
                                .backbone_layers = (uint32_t)o->backbone_layers,
                                .freeze_backbone = o->freeze_backbone};
}

int setup_model(struct model *m, const struct options *o, const struct model_input *input,
                struct err *e)
{
    const char *layers[OPTION_LAYERS_MAX];
    char loss[OPTION_TEXT_MAX + 128], delta[64] = "";
    for (uint32_t i = 0; i < o->layer_count; i++)
        layers[i] = o->layers[i];
    if (strcmp(o->model_loss, "huber") == 0)
        snprintf(delta, sizeof delta, " delta=%.17g", o->huber_delta);
    snprintf(loss, sizeof loss, "%s%s%s%s%s", o->model_loss, delta,
             o->missing_targets ? " missing" : "", o->target_weights[0] ? " weights=" : "",
             o->target_weights);
    if (model_open_input(m, layers, o->layer_count, input, loss, e) < 0 ||
        (o->data_stateful && model_carry(m, e) < 0))
        return -1;
    struct step_config c = setup_step_config(o);
    c.freeze_backbone = 1; /* what has a rate of its own, or a head behind it, likewise */
    if (step_frozen(m, &c) < m->parameter_count)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "training.backbone_layers leaves nothing behind the backbone: the first %" PRIu64
                   " layers hold all parameters; lower it",
                   o->backbone_layers);
}

const char *setup_metric(const struct options *o)
{
    return loss_metric_named(loss_type_named(o->model_loss), o->metric)->name;
}

static int fisher_options_check(const struct options *o, struct err *e)
{
    static const char where[] = "continual_learning.ewc_config.fisher_computation.estimator";
    if (strcmp(o->fisher_estimator, "adam") != 0)
        return 0;
    if (strcmp(o->optimizer, "adamw") != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s is adam, but training.optimizer is %s, which keeps no second moment; "
                       "accepted: exact, factored",
                       where, o->optimizer);
    if (strcmp(o->fisher_labels, "true") != 0)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "%s is adam, which takes no labels, but fisher_labels is %s; accepted: exact, "
            "factored, or fisher_labels true",
            where, o->fisher_labels);
    return 0;
}

int setup_options_check(const struct options *o, struct err *e)
{
    const struct loss_type *loss = loss_type_named(o->model_loss);
    if (layers_check(o, e) < 0)
        return -1;
    if (loss && !loss_metric_named(loss, o->metric)) {
        char accepted[64] = "loss";
        for (int i = 0; loss->metrics[i]; i++)
            snprintf(accepted + strlen(accepted), sizeof accepted - strlen(accepted), ", %s",
                     loss->metrics[i]->name);
        return err_set(e, EXIT_CODE_PERMANENT,
                       "training.metric is %s, which does not go with the loss %s; accepted: %s",
                       o->metric, o->model_loss, accepted);
    }
    if (pretrained_options_check(o, e) < 0 || fisher_options_check(o, e) < 0)
        return -1;
    return schedule_check(o, e);
}

uint64_t setup_ahead_rows(const struct options *o)
{
    uint64_t workers = limits_decoders("", o->loader_num_workers);
    return o->loader_prefetch_factor * (workers ? workers : 1) * o->batch_size;
}

struct feed_config setup_feed_config(const struct options *o, int validation)
{
    struct feed_config c = feed_config_of(o);
    c.file = o->data_file;
    c.split = validation ? o->data_validation : o->data_train;
    c.seed = epochs_seed(o);
    c.batch_rows = o->batch_size;
    c.slice_rows = o->slice_rows / step_slice_parts(o->use_gradient_checkpointing, o->slice_rows);
    c.window_spans = 1;
    c.streams = o->data_stateful ? o->batch_size : 0;
    c.rest = validation;
    if (validation)
        return c;
    c.shuffle = o->data_shuffle;
    c.streams = o->data_stateful ? options_batch_rows(o) : 0;
    c.window_spans = o->order_window_spans;
    c.slots = o->arena_slots;
    c.ahead_rows = setup_ahead_rows(o);
    c.pin = strcmp(o->loader_pin_memory, "true") == 0;
    return c;
}

/* There is no checkpoint: has there been none yet? */
static int beginning_check(struct err *e)
{
    struct lineage_record last;
    int made = lineage_last("lineage", &last, e);
    if (made <= 0 || lineage_is_beginning(&last))
        return made < 0 ? -1 : 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "the run made %" PRIu64
                   " steps (lineage), but of its checkpoints none is left in "
                   "checkpoints; bring one of them back, or begin anew in another --run",
                   last.step_plus_1);
}

/* t->meta is that of resume_path, which may be a name that a later checkpoint takes away. */
static int resume_name(struct trainer *t, struct err *e)
{
    char path[CHECKPOINT_PATH_BYTES];
    retention_step_path(path, t->meta.step, t->meta.task);
    if (strcmp(path, t->resume_path) == 0)
        return 0;
    log_warn("path=%s step=%" PRIu64 " no later checkpoint can be read", t->resume_path,
             t->meta.step);
    if (retention_link(t->resume_path, path, e) < 0)
        return -1;
    snprintf(t->resume_path, sizeof t->resume_path, "%s", path);
    return 0;
}

/* A run whose last checkpoint says that all is done needs no data to say so again; a kill may have
 * come between that checkpoint and its other names. */
static int resume_find(struct trainer *t, struct err *e)
{
    int found = checkpoint_newest("checkpoints", t->resume_path, sizeof t->resume_path, e);
    if (found <= 0) {
        t->resume_path[0] = 0;
        return found < 0 ? -1 : beginning_check(e);
    }
    if (checkpoint_read_meta(t->resume_path, &t->meta, NULL, 0, e) < 0 || resume_name(t, e) < 0)
        return -1;
    if (t->meta.task != t->options->task_count || t->meta.seed != t->options->seed)
        return 0;
    t->state = TRAINER_DONE;
    return saving_links(t->options, &t->meta, &t->other, t->resume_path, e);
}

int setup_start(struct trainer *t, struct err *e)
{
    t->lineage.fd = -1;
    t->permutation_seed = OPTION_NONE;
    t->saved_task = UINT64_MAX;
    t->deadline_s = tasks_deadline(t->options);
    progress_open(t);
    if (setup_options_check(t->options, e) < 0 || resume_find(t, e) < 0)
        return -1;
    if (t->state != TRAINER_DONE) {
        if (compute_open(&t->device, t->options, t->meta.cpu, e) < 0 || compute_fact(t, e) < 0 ||
            data_begin(t, e) < 0)
            return -1;
        snprintf(t->daemon->doing, sizeof t->daemon->doing, "waiting for loaderd to open the data");
    }
    return 0;
}

static int split_check(const struct feed *f, struct err *e)
{
    const struct feed_info *i = &f->info;
    const char *split = f->config.split, *file = f->config.file;
    if (!i->order.rows)
        return err_set(e, EXIT_CODE_PERMANENT, "%s of %s has no rows; at least one is needed",
                       split, file);
    if (!f->config.weights[0] || i->weights.name[0])
        return 0;
    weighing_absent(f->config.weights, e);
    return err_prefix(e, "%s of %s", split, file);
}

static struct msg_plan_row plan_row_message(const char *stage, const char *what, uint64_t bytes)
{
    struct msg_plan_row row = {.bytes = bytes};
    MSG_STR(row.stage, stage);
    MSG_STR(row.what, what);
    return row;
}

static int plan_fact(struct trainer *t, const struct plan *p, struct err *e)
{
    static const char *const stages[] = {"loaderd", "trainerd", "fisherd", "monitord", PLAN_DEVICE};
    struct msg_event_plan m = {0};
    _Static_assert(sizeof m.rows / sizeof m.rows[0] == PLAN_ROWS_MAX, "every plan fits");
    for (int i = 0; i < p->count; i++)
        m.rows[m.rows_count++] =
            plan_row_message(p->rows[i].stage, p->rows[i].what, p->rows[i].bytes);
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
        m.totals[m.totals_count++] =
            plan_row_message(stages[i], "most at a time", plan_total(p, stages[i]));
    return daemon_fact(t->daemon, MSG_event_plan, &m, e);
}

/* For the most of all tasks. The options are the run's with the largest batch_size in its place. */
static int plan_apply(struct trainer *t, struct err *e)
{
    struct plan p = {0};
    struct data *d = &t->data;
    struct plan_bases bases;
    const struct split_shape *of_tasks[OPTION_TASKS_MAX];
    for (uint32_t i = 0; i < t->options->task_count; i++)
        of_tasks[i] = &d->set[d->set_of[i]].train;
    t->present = t->daemon->options;
    t->present.batch_size = options_batch_size_max(&t->present);
    t->batch_rows_max = options_batch_rows(&t->present);
    if (plan_bases_read(&bases, "bases", e) < 0)
        return -1;
    compute_bases(&bases, t->device);
    struct advice_run run = {
        t->options, &t->model, &bases, &d->train, &d->validation, of_tasks, t->resume_path[0] != 0};
    if (plan_make(&p, t->options, &t->model, &bases, &d->train, &d->validation, of_tasks,
                  &t->micro_rows, d->sizes, e) < 0 ||
        plan_fact(t, &p, e) < 0 || advice_check(&run, &p, e) < 0)
        return -1;
    memory_limit_set(plan_regions_limit(&p, t->options));
    if (t->device->apart)
        device_limit_set(device_limit_of(t->device, t->options->device_limit_mb));
    struct highwater_page *page = t->daemon->highwater.page;
    uint64_t arenas = t->train.info.arena_bytes + t->validation.info.arena_bytes;
    if (page && arenas > page->arena_peak_bytes)
        page->arena_peak_bytes = arenas;
    t->micro_rows_planned = t->micro_rows;
    if (t->micro_rows < t->options->batch_size)
        log_warn("micro_batch_rows=%" PRIu64 " batch_size=%" PRIu64
                 " micro-batches are smaller than asked for, because the run would not fit; its "
                 "steps are the same",
                 t->micro_rows, t->options->batch_size);
    return 0;
}

struct gather_config setup_gather(const struct feed *f, double scale)
{
    const struct feed_info *i = &f->info;
    struct gather_config g = {
        .targets = i->targets.values, .scale = scale, .edge_features = i->edge_features.values};
    g.weights = i->weights.values;
    snprintf(g.target_type, sizeof g.target_type, "%.7s", i->targets.type);
    snprintf(g.weight_type, sizeof g.weight_type, "%.7s", i->weights.type);
    snprintf(g.begin_type, sizeof g.begin_type, "%.7s", i->begins.type);
    snprintf(g.end_type, sizeof g.end_type, "%.7s", i->edge_source.type);
    snprintf(g.edge_type, sizeof g.edge_type, "%.7s", i->edge_features.type);
    return g;
}

/* While the device computes: the other rows go on coming to it. */
static int rows_go_on(void *self)
{
    struct trainer *t = self;
    int train = megabatch_go_on(&t->train_rows);
    return megabatch_go_on(&t->validation_rows) || train;
}

int setup_stepper(struct trainer *t, const struct step_config *c, struct err *e)
{
    struct step_config own = *c;
    uint64_t planned = t->micro_rows_planned; /* micro-batches may grow to that */
    uint64_t rows = c->batch_rows_max > planned ? c->batch_rows_max : planned;
    own.meanwhile = rows_go_on;
    own.self = t;
    if (stepper_open(&t->stepper, &t->model, &own, e) < 0)
        return -1;
    t->batch.rows = calloc(rows, sizeof *t->batch.rows);
    t->batch.ahead.rows = calloc(rows, sizeof *t->batch.rows);
    t->batch.features = calloc(rows, sizeof *t->batch.features);
    t->batch.targets = calloc(rows, sizeof *t->batch.targets);
    t->batch.weights = calloc(rows, sizeof *t->batch.weights);
    t->batch.begins = calloc(rows, sizeof *t->batch.begins);
    t->batch.graphs = t->model.graphs ? calloc(rows, sizeof *t->batch.graphs) : NULL;
    t->permutation = calloc(t->model.inputs, sizeof *t->permutation);
    if (!t->batch.rows || !t->batch.ahead.rows || !t->batch.features || !t->batch.targets ||
        !t->batch.weights || !t->batch.begins || !t->permutation ||
        (t->model.graphs && !t->batch.graphs))
        return err_set(e, EXIT_CODE_TEMPORARY, "no memory for the batch's row pointers");
    return 0;
}

/* NULL where the optimizer keeps none of the tensor. */
static float *moment_of(const struct tensor_info *tensor, float *moment, uint64_t frozen)
{
    return moment && tensor->first >= frozen ? moment + (tensor->first - frozen) : NULL;
}

static void tensor_set(struct checkpoint_tensor *tensor, const struct tensor_info *info,
                       float *numbers)
{
    snprintf(tensor->name, sizeof tensor->name, "%s", info->name);
    tensor->rank = info->rank;
    memcpy(tensor->dims, info->dims, sizeof tensor->dims);
    tensor->parameter = numbers + info->first;
}

static void tensors_set(struct trainer *t, uint64_t frozen)
{
    for (uint32_t i = 0; i < t->model.tensor_count; i++) {
        const struct tensor_info *info = &t->model.tensors[i];
        tensor_set(&t->tensors[i], info, stepper_parameters(t->stepper));
        t->tensors[i].m = moment_of(info, stepper_moment_m(t->stepper), frozen);
        t->tensors[i].v = moment_of(info, stepper_moment_v(t->stepper), frozen);
    }
    for (uint32_t i = 0; i < t->model.buffer_count; i++) {
        struct checkpoint_tensor *tensor = &t->tensors[t->model.tensor_count + i];
        tensor_set(tensor, &t->model.buffers[i], stepper_module_buffers(t->stepper));
        tensor->kind = CHECKPOINT_BUFFER;
    }
    for (uint32_t i = 0; i < t->model.carried_count; i++) {
        const struct tensor_info *info = &t->model.carried[i];
        struct checkpoint_tensor *tensor = &t->tensors[t->tensor_count + i];
        snprintf(tensor->name, sizeof tensor->name, "%s", info->name);
        tensor->kind = CHECKPOINT_CARRIED;
        tensor->rank = 2;
        tensor->dims[0] = t->batch_rows_max;
        tensor->dims[1] = info->dims[0];
        tensor->parameter = stepper_carried(t->stepper) + info->first * t->batch_rows_max;
    }
}

/* Where there is no room for the micro-batch that the plan gave, as in dynamic.c: half of it. */
static int stepper_fit(struct trainer *t, struct step_config *c, struct err *e)
{
    const struct data *d = &t->data;
    for (uint64_t rows = t->micro_rows; rows;
         rows = plan_micro_rows_half(t->options, &t->model, rows)) {
        t->micro_rows = rows;
        if (shapes_step_config(c, t->options, t->device, &d->train, &d->validation, rows, e) < 0)
            return -1;
        int refused = durable_may("memory") < 0;
        if (refused)
            err_errno(e, EXIT_CODE_TEMPORARY, "cannot reserve the buffers of a micro-batch");
        else if (setup_stepper(t, c, e) == 0)
            return 0;
        if (t->stepper || e->code != EXIT_CODE_TEMPORARY)
            return -1;
        log_warn("micro_batch_rows=%" PRIu64 " \"%s\"", rows, e->text);
    }
    return -1;
}

static int buffers_open(struct trainer *t, struct err *e)
{
    struct step_config c;
    if (stepper_fit(t, &c, e) < 0)
        return -1;
    uint64_t frozen = step_frozen(&t->model, &c);
    t->tensor_count = t->model.tensor_count + t->model.buffer_count;
    t->tensors = calloc(t->tensor_count + t->model.carried_count, sizeof *t->tensors);
    if (!t->tensors)
        return err_set(e, EXIT_CODE_TEMPORARY, "no memory for the list of tensors");
    tensors_set(t, frozen);
    stepper_warm(t->stepper, t->micro_rows);
    if (t->schedule.rows[0] % t->micro_rows) /* an epoch's last ones */
        stepper_warm(t->stepper, t->schedule.rows[0] % t->micro_rows);
    return lineage_open(&t->lineage, "lineage", e);
}

static void meta_init(struct trainer *t)
{
    memset(&t->meta, 0, sizeof t->meta);
    t->meta.seed = t->options->seed;
    t->meta.best_value = NAN;
    snprintf(t->meta.metric, sizeof t->meta.metric, "%s", setup_metric(t->options));
    watch_begin(&t->meta, t->options);
    t->meta.restore_scale = 1;
    t->meta.slice_rows = t->options->slice_rows;
    snprintf(t->meta.fingerprint, sizeof t->meta.fingerprint, "%s", t->data.fingerprint);
    compute_name(t->device, t->meta.cpu, sizeof t->meta.cpu);
    t->meta.micro_batch_rows = t->options->batch_size;
    t->meta.threads = compute_threads(t);
}

static void statistics_say(const struct trainer *t)
{
    if (t->model.buffer_count)
        log_info(
            "micro_batch_rows=%" PRIu64
            " batchnorm: statistics are the micro-batch's; with another size of it the weights "
            "are others",
            t->options->batch_size);
}

int setup_cursor(struct trainer *t, struct err *e)
{
    if (!t->resume_path[0]) {
        meta_init(t);
        t->state = TRAINER_BEGIN;
        return 0;
    }
    if (save_load(t, e) < 0)
        return -1;
    t->meta.threads = compute_threads(t);
    t->meta.micro_batch_rows = t->options->batch_size;
    struct grad_scaler *scaler = stepper_scaler(t->stepper);
    if (scaler && t->meta.loss_scale > 0)
        *scaler = (struct grad_scaler){(float)t->meta.loss_scale, t->meta.scale_tracker};
    int at_beginning = !t->meta.epoch && !t->meta.position;
    t->state = at_beginning ? TRAINER_BEGIN : TRAINER_PROTECT;
    data_task(t);
    if (data_train(t, (uint32_t)t->meta.task, e) < 0)
        return -1;
    train_follow(t);
    return 0;
}

/* Options that are other ones since the last start: steps from here on are not those of the
 * lineage. */
static int changes_tell(struct trainer *t, struct err *e)
{
    char *text, sentence[700];
    size_t bytes;
    if (access("changed", F_OK) < 0)
        return 0;
    if (durable_read("changed", RUN_CHANGES_MAX, &text, &bytes, e) < 0 ||
        lineage_cut(&t->lineage, t->meta.step, e) < 0)
        return -1;
    snprintf(sentence, sizeof sentence, "from step %" PRIu64 " on with other options: %.600s",
             t->meta.step, text);
    free(text);
    if (progress_training_fact(t, "options", NAN, sentence, e) < 0)
        return -1;
    return unlink("changed") == 0 ? 0 : err_errno(e, EXIT_CODE_TEMPORARY, "cannot remove changed");
}

/* Both streams of a set of data are open: is it what a model can be trained on, and this model? */
static int set_check(struct trainer *t, struct err *e)
{
    struct data_set s = t->data.set[t->data.stream[0].set];
    s.train = shape_of(&t->train);
    s.validation = shape_of(&t->validation);
    struct model_input input = shape_input(&s.train);
    const struct options *o = &t->daemon->options;
    if (split_check(&t->train, e) < 0 || split_check(&t->validation, e) < 0 ||
        shapes_check(o, &s, e) < 0)
        return -1;
    if (!t->data.known && (setup_model(&t->model, t->options, &input, e) < 0 ||
                           model_text(&t->model, t->model_text, sizeof t->model_text, e) < 0))
        return -1;
    return shapes_model_check(o, &s, &t->model, e);
}

static int schedule_make(struct trainer *t, struct err *e)
{
    uint64_t rows[OPTION_TASKS_MAX];
    for (uint32_t i = 0; i < t->options->task_count; i++)
        rows[i] = t->data.set[t->data.set_of[i]].train.rows;
    return schedule_open(&t->schedule, &t->daemon->options, rows, e);
}

/* Needs the schedule. */
static int disk_apply(struct trainer *t, struct err *e)
{
    struct step_config c = setup_step_config(&t->daemon->options);
    struct disk_forecast f = disk_forecast_make(
        &t->daemon->options, &t->model, step_frozen(&t->model, &c), schedule_steps(&t->schedule));
    return fisherdir_reach(".", e) < 0 ? -1 : disk_check(&f, !t->resume_path[0], e);
}

int setup_turn(struct trainer *t, int *sleep_ms, struct err *e)
{
    if (!feed_ready(&t->train) || !feed_ready(&t->validation)) {
        *sleep_ms = 1000;
        return DAEMON_GO_ON;
    }
    int described = set_check(t, e) < 0 ? -1 : data_describe(t, e);
    if (described <= 0)
        return data_wait(described, sleep_ms);
    if (plan_apply(t, e) < 0 || schedule_make(t, e) < 0 || disk_apply(t, e) < 0 ||
        buffers_open(t, e) < 0 ||
        shapes_rows_check(&t->daemon->options, &t->data, &t->schedule, &t->model, e) < 0 ||
        setup_cursor(t, e) < 0 || changes_tell(t, e) < 0 || pretrained_check(t, e) < 0)
        return DAEMON_FAILED;
    progress_resume(t);
    statistics_say(t);
    log_info("parameters=%" PRIu64 " rows=%" PRIu64 " steps=%" PRIu64 " threads=%" PRIu64
             " data and model are open",
             t->model.parameter_count, t->data.train.rows, schedule_steps(&t->schedule),
             t->meta.threads);
    return DAEMON_GO_ON;
}

void setup_free(struct trainer *t)
{
    protection_free(t);
    fisher_client_close(t);
    megabatch_close(&t->train_rows);
    megabatch_close(&t->validation_rows);
    feed_close(&t->train);
    feed_close(&t->validation);
    if (t->stepper)
        stepper_close(&t->stepper);
    compute_close(&t->device);
    model_close(&t->model);
    free(t->batch.rows);
    free(t->batch.ahead.rows);
    free(t->batch.features);
    free(t->batch.targets);
    free(t->batch.weights);
    free(t->batch.begins);
    free(t->batch.graphs);
    free(t->permutation);
    free(t->tensors);
    t->batch = (struct batch){0};
    t->permutation = NULL;
    t->tensors = NULL;
    lineage_close(&t->lineage);
    progress_close(t);
}
