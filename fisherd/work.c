/* work.c - see work.h: the exact per-sample Fisher information, in one pass over the samples.
 *
 * The sums are float32 numbers of squared gradients, added slice after slice in the order of the
 * samples: slices are always whole, whenever the rows of one arrive, so the result depends neither
 * on the loader's timing, nor on the number of threads, nor on where a kill came. The samples are
 * the first positions of epoch 0 of an order keyed by the run's seed and the job: a random subset
 * that every restart finds again.
 */
#include "fisherd/work.h"

#include <inttypes.h>
#include <malloc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/device.h"
#include "engine/factors.h"
#include "engine/threads.h"
#include "fisherd/blocks.h"
#include "fisherd/store.h"
#include "proto/checkpoint.h"
#include "proto/fisherdir.h"
#include "proto/limits.h"
#include "proto/log.h"
#include "proto/order.h"
#include "proto/weighing.h"

static const char *const estimators[] = {
    [ESTIMATOR_EXACT] = "exact: mean over samples of the squared gradient",
    [ESTIMATOR_FACTORED] = "factored: product of the exact one's row and column sums",
    [ESTIMATOR_ADAM] = "adam: second moment of the optimizer, times the rows of a batch",
    [ESTIMATOR_ONLINE] = "online"};

static enum estimator_kind kind_of(const char *name)
{
    int kind = ESTIMATOR_EXACT;
    while (strncmp(estimators[kind], name, strlen(name)) != 0)
        kind++; /* the option's choices are these */
    return (enum estimator_kind)kind;
}

void work_paths(const struct msg_estimate *job, char path[96], char part_dir[96])
{
    const char *online = job->merge[0] ? ".online" : "";
    snprintf(path, 96, "fisher/%s%s.h5", job->task, online);
    snprintf(part_dir, 96, "fisher/%s%s.part", job->task, online);
}

uint64_t work_key(const struct work *w)
{
    return order_key(w->options->seed, order_hash(w->job.job, strlen(w->job.job)));
}

/* Read the checkpoint's parameters and module buffers into the stepper and see that they are those
 * the job names. */
static int parameters_read(struct work *w, struct checkpoint_meta *meta, struct err *e)
{
    uint32_t parameters = w->model.tensor_count, count = parameters + w->model.buffer_count;
    struct checkpoint_tensor *tensors = calloc(count, sizeof *tensors);
    if (!tensors)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read checkpoint %s", w->job.checkpoint);
    for (uint32_t i = 0; i < count; i++) {
        int buffer = i >= parameters;
        const struct tensor_info *t =
            buffer ? &w->model.buffers[i - parameters] : &w->model.tensors[i];
        snprintf(tensors[i].name, sizeof tensors[i].name, "%s", t->name);
        tensors[i].rank = t->rank;
        memcpy(tensors[i].dims, t->dims, sizeof t->dims);
        tensors[i].parameter = t->first + (buffer ? stepper_module_buffers(w->stepper)
                                                  : stepper_parameters(w->stepper));
        tensors[i].kind = buffer ? CHECKPOINT_BUFFER : CHECKPOINT_PARAMETER;
    }
    int result = checkpoint_read(w->job.checkpoint, meta, tensors, count, 0, e);
    free(tensors);
    if (result == 0 && strcmp(meta->parameters_sha256, w->job.digest) != 0)
        result = err_set(e, EXIT_CODE_PERMANENT,
                         "checkpoint %s holds the parameters %s, the job is about %s",
                         w->job.checkpoint, meta->parameters_sha256, w->job.digest);
    return result;
}

static struct step_config step_config_of(const struct options *o)
{
    struct step_config c = {.batch_rows_max = o->batch_size,
                            .slice_rows = o->slice_rows,
                            .threads = o->threads ? (int)o->threads : limits_threads(""),
                            .seed = o->seed};
    c.batch_rows_max = stepper_fisher_rows(&c, o->fisher_samples);
    return c;
}

static int rows_start(struct work *w, struct err *e)
{
    w->batch_rows = step_config_of(w->options).batch_rows_max;
    w->rows = calloc(w->batch_rows, sizeof *w->rows);
    w->features = calloc(w->batch_rows, sizeof *w->features);
    w->targets = calloc(w->batch_rows, sizeof *w->targets);
    w->weights = calloc(w->batch_rows, sizeof *w->weights);
    w->graphs = w->model.graphs ? calloc(w->batch_rows, sizeof *w->graphs) : NULL;
    return w->rows && w->features && w->targets && w->weights && (w->graphs || !w->model.graphs)
               ? 0
               : err_errno(e, EXIT_CODE_TEMPORARY, "cannot hold a batch's rows");
}

/* Open only while a job has samples to sum: between jobs nothing of it is held. Row and column sums
 * of squares are the CPU's. */
static int device_start(struct work *w, struct step_config *c, struct err *e)
{
    struct err why = {0};
    struct device_facts f;
    const char *wanted = w->kind == ESTIMATOR_FACTORED ? "cpu" : w->options->device;
    int found = device_open_again(&w->device, wanted, w->computed_on, w->options->debug_mode, &why);
    if (found < 0) {
        w->device = NULL;
        *e = why;
        return -1;
    }
    log_line(found == DEVICE_UNUSABLE ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG, "device=%s %s",
             w->device->kind, why.text);
    w->device->facts(&f);
    w->device_context_bytes = f.context_bytes;
    device_limit_set(w->device->apart ? device_limit_of(w->device, w->options->device_limit_mb)
                                      : UINT64_MAX);
    device_step_config(w->device, c);
    return 0;
}

void work_device_measure(const struct work *w, struct highwater *page)
{
    struct device_memory memory;
    uint64_t context = w->device_context_bytes;
    if (!w->device || !w->device->apart)
        return;
    w->device->memory(&memory);
    highwater_device(page, context + memory.used_bytes, context + memory.high_bytes,
                     memory.locked_high_bytes);
}

/* The stepper, with the checkpoint's parameters. The stream knows the largest batch. */
static int stepper_start(struct work *w, struct err *e)
{
    const struct feed_info *info = &w->feed->info;
    struct step_config c = step_config_of(w->options);
    c.weights = info->weights.values;
    c.batch_nodes_max = info->features[0].batch_items_max;
    c.batch_edges_max = info->edge_source.batch_items_max;
    c.slice_nodes_max = info->features[0].slice_items_max;
    if (w->model.graphs && (!c.slice_nodes_max || c.batch_nodes_max > UINT32_MAX ||
                            c.batch_edges_max > UINT32_MAX - c.batch_nodes_max))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the largest batch of %s has %" PRIu64 " nodes and %" PRIu64
                       " edges; accepted: 1 to %" PRIu64 " together",
                       w->job.file, c.batch_nodes_max, c.batch_edges_max, (uint64_t)UINT32_MAX);
    struct checkpoint_meta *meta = malloc(sizeof *meta);
    if (!meta)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read checkpoint %s", w->job.checkpoint);
    int result = device_start(w, &c, e);
    if (result == 0)
        result = stepper_open(&w->stepper, &w->model, &c, e);
    if (result == 0)
        result = parameters_read(w, meta, e);
    if (result == 0)
        stepper_send(w->stepper);
    free(meta);
    return result;
}

/* checkpoint -> model. */
static int model_start(struct work *w, struct err *e)
{
    struct checkpoint_meta *meta = malloc(sizeof *meta);
    char *text = malloc(CHECKPOINT_MODEL_MAX);
    int result = -1;
    if (!meta || !text)
        err_errno(e, EXIT_CODE_TEMPORARY, "cannot read checkpoint %s", w->job.checkpoint);
    else if (checkpoint_read_meta(w->job.checkpoint, meta, text, CHECKPOINT_MODEL_MAX, e) == 0)
        result = model_from_text(&w->model, text, e);
    if (result == 0)
        MSG_STR(w->computed_on, meta->cpu);
    if (result == 0)
        result = fisher_labels_check(&w->model, fisher_labels_of(w->options->fisher_labels), e);
    free(meta);
    free(text);
    return result;
}

static int blocks_start(struct work *w, struct err *e)
{
    uint64_t size = w->options->fisher_block_size, total = w->model.parameter_count;
    w->meta.parameters = total;
    w->meta.block_size = size;
    w->meta.blocks = blocks_count(&w->model, size);
    w->values = malloc((size < total ? size : total) * sizeof *w->values);
    return w->values
               ? 0
               : err_errno(e, EXIT_CODE_TEMPORARY, "cannot hold a block of the Fisher information");
}

/* `number` makes the routing id one that this process never used before: ZeroMQ may still hold the
 * connection of the last. */
static int stream_start(struct work *w, uint64_t incarnation, uint64_t number, struct err *e)
{
    const struct options *o = w->options;
    char role[32];
    snprintf(role, sizeof role, "fisherd.%" PRIu64, number);
    w->feed = malloc(sizeof *w->feed);
    if (!w->feed)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot open a stream of samples");
    struct feed_config c = feed_config_of(o);
    c.role = role;
    c.incarnation = incarnation;
    c.file = w->job.file;
    c.split = w->job.split;
    c.seed = work_key(w);
    c.shuffle = 1;
    c.window_spans = 1;
    c.batch_rows = w->batch_rows;
    c.slice_rows = o->slice_rows;
    c.epochs = &(struct msg_epoch_range){.count = 1};
    c.epoch_count = 1;
    feed_open(w->feed, &c);
    return 0;
}

/* No samples, from moments or from other files: all there is to do is to write blocks. */
static int moments_start(struct work *w, struct err *e)
{
    const struct options *o = w->options;
    int task = options_task(o, w->job.task);
    uint64_t own = task >= 0 ? o->tasks[task].batch_size : 0;
    uint64_t rows = (own ? own : o->batch_size) * o->gradient_accumulation_steps;
    if (pool_open(&w->pool, step_config_of(o).threads, e) < 0)
        return -1;
    if (w->kind == ESTIMATOR_ONLINE)
        return merge_open(&w->merge, &w->job, &w->meta, e);
    return moments_open(&w->moments, w->job.checkpoint, w->job.digest, &w->model, o->adam_beta2,
                        rows, e);
}

int work_open(struct work *w, const struct options *o, uint64_t incarnation, uint64_t number,
              const struct msg_estimate *job, struct err *e)
{
    memset(w, 0, sizeof *w);
    w->options = o;
    w->job = *job;
    work_paths(job, w->path, w->part_dir);
    MSG_STR(w->meta.job, job->job);
    MSG_STR(w->meta.task, job->task);
    MSG_STR(w->meta.checkpoint, job->checkpoint);
    MSG_STR(w->meta.parameters_sha256, job->digest);
    w->kind = job->merge[0] ? ESTIMATOR_ONLINE : kind_of(o->fisher_estimator);
    MSG_STR(w->meta.estimator, estimators[w->kind]);
    MSG_STR(w->meta.labels, w->kind == ESTIMATOR_ADAM ? "none" : o->fisher_labels);
    MSG_STR(w->meta.compression, store_form(o));
    if (fisherdir_reach(".", e) < 0 || model_start(w, e) < 0 || blocks_start(w, e) < 0)
        return -1;
    if (w->kind >= ESTIMATOR_ADAM)
        return moments_start(w, e);
    return rows_start(w, e) < 0 ? -1 : stream_start(w, incarnation, number, e);
}

/* What takes samples. */
static void samples_close(struct work *w)
{
    if (w->feed)
        feed_close(w->feed);
    free(w->feed);
    stepper_close(&w->stepper);
    if (w->device)
        w->device->close();
    free(w->permutation);
    free(w->rows);
    free(w->features);
    free(w->targets);
    free(w->weights);
    free(w->graphs);
    w->feed = NULL;
    w->device = NULL;
    w->permutation = NULL;
    w->rows = NULL;
    w->features = w->targets = w->weights = NULL;
    w->graphs = NULL;
}

int work_samples_end(struct work *w, struct err *e)
{
    samples_close(w);
    return w->pool ? 0 : pool_open(&w->pool, step_config_of(w->options).threads, e);
}

void work_close(struct work *w)
{
    samples_close(w);
    model_close(&w->model);
    sums_close(&w->sums);
    moments_close(&w->moments);
    merge_close(&w->merge);
    pool_close(&w->pool);
    free(w->values);
    fisher_code_free(&w->code);
    fisherfile_join_close(&w->join);
    memset(w, 0, sizeof *w);
    malloc_trim(0); /* fisherd idles for most of a run */
}

/* The types and shapes of the stream against the model. */
static int stream_check(struct work *w, struct err *e)
{
    const struct feed_info *info = &w->feed->info;
    if (strcmp(info->fingerprint, w->job.fingerprint) != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has changed since task %s was trained on it (fingerprint %.12s, was "
                       "%.12s); put the old file back, or start a new run",
                       w->job.file, w->job.task, info->fingerprint, w->job.fingerprint);
    if ((strcmp(info->layout, "graph") == 0) != w->model.graphs)
        return err_set(e, EXIT_CODE_PERMANENT, "%s is in the %s layout, the model of %s takes %s",
                       w->job.file, info->layout, w->job.checkpoint,
                       w->model.graphs ? "graphs" : "no graphs");
    if (w->job.permute && info->feature_parts > 1)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the features of %s are %u timeframes, which cannot be permuted; accepted: "
                       "features in one data set",
                       w->job.file, info->feature_parts);
    if (info->feature_values != w->model.inputs)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s holds rows of %" PRIu64 " features, the model of %s takes %" PRIu64,
                       w->job.file, info->feature_values, w->job.checkpoint, w->model.inputs);
    if (info->edge_features.values != w->model.edge_inputs)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s holds edges of %" PRIu64 " features, the model of %s takes %" PRIu64,
                       w->job.file, info->edge_features.values, w->job.checkpoint,
                       w->model.edge_inputs);
    if (!info->targets.name[0])
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has no data set `targets`, which the model's loss takes", w->job.file);
    if ((w->options->data_weights[0] && !info->weights.name[0] &&
         weighing_absent(w->options->data_weights, e) < 0) ||
        model_targets_check(&w->model, info->targets.type, info->targets.values, e) < 0 ||
        weighing_width_check(info->weights.values, model_row_targets(&w->model), e) < 0)
        return err_prefix(e, "%s", w->job.file);
    return 0;
}

int work_block(struct work *w, struct err *e)
{
    for (; w->block < w->meta.blocks; w->block++) {
        int has = fisherfile_has_part(w->part_dir, w->block, w->job.job, e);
        if (has < 0)
            return -1;
        if (has)
            continue;
        blocks_at(&w->model, w->options->fisher_block_size, w->block, &w->range);
        return 1;
    }
    return 0;
}

/* Where all blocks are made nothing is summed any more. Half of the samples are whole slices:
 * cutting there changes no bits. Factors do not tell the noise, so their half is not kept. */
static int sums_start(struct work *w, struct err *e)
{
    const uint64_t slice = w->options->slice_rows;
    struct sums_config c = {.directory = w->part_dir,
                            .job = w->job.job,
                            .numbers = w->meta.parameters,
                            .resident = w->meta.block_size,
                            .half_at = w->meta.samples / 2 / slice * slice};
    if (w->kind == ESTIMATOR_FACTORED) {
        c.numbers = c.resident = factors_count(&w->model);
        c.half_at = 0;
    }
    int found = work_block(w, e);
    w->position = w->meta.samples;
    w->summed = found == 0;
    if (found <= 0)
        return found;
    if (sums_open(&w->sums, &c, e) < 0)
        return -1;
    w->position = w->sums.position;
    w->committed_s = clock_monotonic_s();
    feed_seek(w->feed, 0, w->position, 0);
    return 0;
}

int work_ready(struct work *w, struct err *e)
{
    if (w->kind >= ESTIMATOR_ADAM) {
        w->position = w->meta.samples;
        w->summed = 1;
        return 1;
    }
    if (feed_pump(w->feed, e) < 0)
        return -1;
    if (!feed_ready(w->feed))
        return 0;
    if (stream_check(w, e) < 0 || stepper_start(w, e) < 0)
        return -1;
    const struct feed_info *info = &w->feed->info;
    uint64_t rows = info->order.rows;
    w->meta.samples = w->job.samples < rows ? w->job.samples : rows;
    if (w->job.permute) {
        w->permutation = malloc(w->model.inputs * sizeof *w->permutation);
        if (!w->permutation)
            return err_errno(e, EXIT_CODE_TEMPORARY, "cannot hold the permutation of the features");
        order_features(w->job.permute_seed, (uint32_t)w->model.inputs, w->permutation);
    }
    w->gather.targets = info->targets.values;
    w->gather.weights = info->weights.values;
    snprintf(w->gather.weight_type, sizeof w->gather.weight_type, "%.7s", info->weights.type);
    w->gather.scale = w->job.scale;
    w->gather.permutation = w->permutation;
    w->gather.edge_features = info->edge_features.values;
    snprintf(w->gather.target_type, sizeof w->gather.target_type, "%.7s", info->targets.type);
    snprintf(w->gather.end_type, sizeof w->gather.end_type, "%.7s", info->edge_source.type);
    snprintf(w->gather.edge_type, sizeof w->gather.edge_type, "%.7s", info->edge_features.type);
    return sums_start(w, e) < 0 ? -1 : 1;
}

/* Of the sums of samples that weigh so much to their mean, which is the curvature of a mean loss
 * over the same weights; where nothing counts that is flat. */
static double mean_of(double sum, double weight)
{
    return weight > 0 ? sum / weight : 0;
}

/* The block's mean into w->values. Its noise: what the means of the two halves of the samples
 * differ by, as a share of the mean, times the root of n1 n2 / n^2, which makes that difference's
 * variance the mean's; n is what samples weigh, the number of them if they are alike. NaN where
 * there is one slice, or nothing counts in a half. */
static double block_mean(struct work *w)
{
    const float *sums = w->sums.at + w->range.first;
    const float *half = w->sums.has_half ? w->sums.half + w->range.first : NULL;
    double steps = (double)w->model.target_steps;
    double n = w->sums.weight / steps, n1 = w->sums.half_weight / steps, n2 = n - n1;
    double differences = 0, squares = 0;
    for (uint64_t i = 0; i < w->range.count; i++) {
        double mean = mean_of((double)sums[i], n);
        double off = half ? (double)half[i] / n1 - ((double)sums[i] - (double)half[i]) / n2 : NAN;
        differences += off * off;
        squares += mean * mean;
        w->values[i] = (float)mean;
    }
    return squares > 0 || !half ? sqrt(differences * n1 * n2 / squares) / n : 0;
}

/* The block's values, whatever they are estimated from. */
static int block_values(struct work *w, struct err *e)
{
    w->range.noise = NAN;
    if (w->kind == ESTIMATOR_ONLINE)
        return merge_block(&w->merge, w->block, &w->range, w->values, e);
    if (w->kind == ESTIMATOR_ADAM)
        return moments_read(&w->moments, w->range.first, w->range.count, w->values, e);
    if (w->kind == ESTIMATOR_FACTORED)
        factors_expand(&w->model, w->sums.at,
                       mean_of((double)w->model.target_steps, w->sums.weight), w->range.first,
                       w->range.count, w->values);
    else
        w->range.noise = block_mean(w);
    sums_release(&w->sums, w->range.first, w->range.count);
    if (w->meta.blocks == 1) /* there is no other block: room for the stored form */
        sums_close(&w->sums);
    return 0;
}

int work_finish(struct work *w, struct err *e)
{
    if (block_values(w, e) < 0)
        return -1;
    return store_block(&w->code, w->options, &w->model, w->pool, w->part_dir, w->block, w->job.job,
                       &w->range, w->values, e);
}

int work_join(struct work *w, struct err *e)
{
    if (!w->join) {
        sums_close(&w->sums); /* the parts are all there */
        return fisherfile_join_open(&w->join, w->path, e);
    }
    int joined = fisherfile_join_next(w->join, w->part_dir, &w->meta, e);
    if (joined == 1)
        work_clean(w->part_dir);
    return joined;
}

/* The sums are what a part is made from that a power cut spoiled: they stay until no part is
 * needed. */
void work_clean(const char *part_dir)
{
    sums_remove(part_dir);
    fisherfile_remove_parts(part_dir);
}
