/* work_batch.c - work_batch of work.h: samples from the stream into the sums of all parameters, and
 * those kept from time to time. */
#include "fisherd/work.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "proto/order.h"

/* Where what the rows' targets weigh is, if there is that. */
static void weights_find(struct work *w, uint64_t count, struct gather_config *g)
{
    for (uint64_t i = 0; g->weights && i < count; i++)
        w->weights[i] = feed_field(&w->feed->info.weights, w->rows[i]);
    g->weight_rows = w->weights;
}

/* The `count` rows found, which are graphs. */
static int graphs_gather(struct work *w, uint64_t count, uint64_t *bad, struct err *e)
{
    const struct feed_info *info = &w->feed->info;
    struct gather_config g = w->gather;
    weights_find(w, count, &g);
    for (uint64_t i = 0; i < count; i++) {
        struct feed_graph row = feed_graph(w->feed, w->rows[i]);
        w->targets[i] = feed_field(&info->targets, w->rows[i]);
        w->graphs[i] = (struct graph_row){row.nodes,         row.sources,    row.targets,
                                          row.edge_features, row.node_count, row.edge_count};
    }
    snprintf(g.feature_type, sizeof g.feature_type, "%.7s", info->features[0].type);
    g.features = info->feature_values;
    return stepper_gather_graphs(w->stepper, &g, w->gathered, count, w->graphs, w->targets, bad, e);
}

/* The `count` rows found, part after part of their features. */
static int parts_gather(struct work *w, uint64_t count, uint64_t *bad, struct err *e)
{
    const struct feed_info *info = &w->feed->info;
    struct gather_config g = w->gather;
    if (w->model.graphs)
        return graphs_gather(w, count, bad, e);
    weights_find(w, count, &g);
    for (uint64_t i = 0; i < count; i++)
        w->targets[i] = feed_field(&info->targets, w->rows[i]);
    for (uint32_t part = 0; part < info->feature_parts; part++) {
        const struct msg_field_info *x = &info->features[part];
        for (uint64_t i = 0; i < count; i++)
            w->features[i] = feed_field(x, w->rows[i]);
        snprintf(g.feature_type, sizeof g.feature_type, "%.7s", x->type);
        g.features = x->values;
        if (stepper_gather(w->stepper, &g, w->gathered, count, w->features,
                           part ? NULL : w->targets, bad, e) < 0)
            return -1;
        g.column += x->values;
    }
    return 0;
}

/* Gather what has arrived of the batch's `wanted` rows. */
static int rows_gather(struct work *w, uint64_t wanted, struct err *e)
{
    uint64_t at = w->position + w->gathered, bad;
    uint64_t count = feed_rows(w->feed, 0, at, wanted - w->gathered, w->rows);
    if (count == 0)
        return 0;
    if (parts_gather(w, count, &bad, e) < 0)
        return err_prefix(e, "%s, split '%s', row %" PRIu64, w->job.file, w->job.split,
                          order_file_row(&w->feed->info.order, 0, at + bad));
    w->gathered += count;
    if (at + count < w->feed->info.order.rows)
        feed_seek(w->feed, 0, at + count, 0); /* gives the spans before it back */
    return 0;
}

/* A gradient that is not finite: which row of the file that was. */
static int fault_tell(const struct work *w, struct err *e)
{
    const struct step_fault *f = stepper_fault(w->stepper);
    if (f->rows != 1)
        return -1;
    return err_prefix(e, "%s, split '%s', row %" PRIu64, w->job.file, w->job.split,
                      order_file_row(&w->feed->info.order, 0, w->position + f->row));
}

static void sums_forget(void *argument, uint64_t first, uint64_t count)
{
    sums_release(argument, first, count);
}

/* The gathered batch into the sums. */
static int batch_sum(struct work *w, uint64_t rows, struct err *e)
{
    struct fisher_sums to = {.count = w->meta.parameters,
                             .at = w->sums.at,
                             .weight = &w->sums.weight,
                             .factored = w->kind == ESTIMATOR_FACTORED,
                             .labels = fisher_labels_of(w->options->fisher_labels),
                             .key = order_key(work_key(w), 0),
                             .position = w->position,
                             .release = sums_in_memory(&w->sums) ? NULL : sums_forget,
                             .argument = &w->sums,
                             .resident = w->sums.config.resident};
    if (stepper_fisher(w->stepper, rows, &to, e) < 0)
        return fault_tell(w, e);
    w->position += rows;
    w->gathered = 0;
    return 0;
}

/* At half of the samples, at their end, and from time to time: a tenth of it at most. */
static void sums_keep(struct work *w)
{
    double now_s = clock_monotonic_s(), every_s = w->options->checkpoint_every_s;
    int all = w->position == w->meta.samples;
    if (w->position == w->sums.config.half_at)
        sums_half(&w->sums);
    if (!all && now_s - w->committed_s < fmax(every_s, 9 * w->commit_cost))
        return;
    sums_commit(&w->sums, w->position, !all);
    w->committing_s = now_s;
}

/* Go on with what keeping them takes. 1: nothing is left of it; 0, -1. */
static int sums_settle(struct work *w, struct err *e)
{
    int settled = sums_turn(&w->sums, e);
    if (settled > 0 && w->committing_s > 0) {
        w->committed_s = clock_monotonic_s();
        w->commit_cost = w->committed_s - w->committing_s;
        w->committing_s = 0;
    }
    return settled;
}

/* Rows of the next batch: of those that loaderd knows, which begin at multiples of batch_rows, but
 * cut at half of the samples. */
static uint64_t batch_wanted(const struct work *w)
{
    uint64_t half = w->sums.config.half_at;
    uint64_t left = (w->position < half ? half : w->meta.samples) - w->position;
    uint64_t whole = w->batch_rows - w->position % w->batch_rows;
    return left < whole ? left : whole;
}

int work_batch(struct work *w, struct err *e)
{
    uint64_t wanted = batch_wanted(w), before;
    if (feed_pump(w->feed, e) < 0)
        return -1;
    int settled = sums_settle(w, e);
    if (settled <= 0)
        return settled < 0 ? -1 : 1;
    if (wanted == 0) {
        w->summed = 1;
        return 1;
    }
    do { /* once a window that the batch touches */
        before = w->gathered;
        if (rows_gather(w, wanted, e) < 0)
            return -1;
    } while (w->gathered > before && w->gathered < wanted);
    if (w->gathered < wanted)
        return 0;
    if (batch_sum(w, wanted, e) < 0)
        return -1;
    sums_keep(w);
    return 1;
}
