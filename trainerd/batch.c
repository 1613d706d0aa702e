/* batch.c - rows from the arena or the mega-batch into the stepper: the gather that training and
 * evaluation share.
 *
 * A batch may be larger than what is resident, and a window may end inside it: what is there is
 * gathered and released at once (the caller seeks past t->batch.gathered), the rest when it comes.
 * The rows' places in the batch are fixed by their positions, so the pieces do not change the
 * arithmetic.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>

int batch_row_error(const struct feed *f, uint64_t epoch, uint64_t position, struct err *e)
{
    uint64_t row = order_file_row(&f->info.order, epoch, position);
    return err_prefix(e, "row %" PRIu64 " of %s in %s", row, f->config.split, f->config.file);
}

/* Where what the rows' targets weigh is, if there is that. */
static void weights_find(struct batch *b, const struct feed *f, uint64_t count,
                         struct gather_config *g)
{
    for (uint64_t i = 0; g->weights && i < count; i++)
        b->weights[i] = feed_field(&f->info.weights, b->rows[i]);
    g->weight_rows = b->weights;
}

/* Where it says whether a row begins, if anything does. */
static void begins_find(struct batch *b, const struct feed *f, uint64_t count,
                        struct gather_config *g)
{
    int known = f->info.begins.name[0] != 0;
    for (uint64_t i = 0; known && i < count; i++)
        b->begins[i] = feed_field(&f->info.begins, b->rows[i]);
    g->begin_rows = known ? b->begins : NULL;
}

/* The `count` rows found, which are graphs. */
static int graphs_gather(struct trainer *t, const struct feed *f, const struct gather_config *of,
                         uint64_t count, uint64_t *bad, struct err *e)
{
    struct batch *b = &t->batch;
    struct gather_config g = *of;
    const void **targets = f->info.targets.name[0] ? b->targets : NULL; /* or rows to predict */
    weights_find(b, f, count, &g);
    for (uint64_t i = 0; i < count; i++) {
        struct feed_graph row = feed_graph(f, b->rows[i]);
        if (targets)
            targets[i] = feed_field(&f->info.targets, b->rows[i]);
        b->graphs[i] = (struct graph_row){row.nodes,         row.sources,    row.targets,
                                          row.edge_features, row.node_count, row.edge_count};
    }
    snprintf(g.feature_type, sizeof g.feature_type, "%.7s", f->info.features[0].type);
    g.features = f->info.feature_values;
    return stepper_gather_graphs(t->stepper, &g, b->gathered, count, b->graphs, targets, bad, e);
}

/* The `count` rows found, part after part of their features. */
static int rows_gather(struct trainer *t, const struct megabatch *m, const struct gather_config *of,
                       uint64_t count, uint64_t *bad, struct err *e)
{
    const struct feed *f = m->feed;
    struct batch *b = &t->batch;
    struct gather_config g = *of;
    g.on_device = m->size.device != NULL;
    if (t->model.graphs)
        return graphs_gather(t, f, of, count, bad, e);
    const void **targets = f->info.targets.name[0] ? b->targets : NULL; /* or rows to predict */
    for (uint64_t i = 0; targets && i < count; i++)
        b->targets[i] = feed_field(&f->info.targets, b->rows[i]);
    weights_find(b, f, count, &g);
    begins_find(b, f, count, &g);
    for (uint32_t part = 0; part < f->info.feature_parts; part++) {
        const struct msg_field_info *x = &f->info.features[part];
        for (uint64_t i = 0; i < count; i++)
            b->features[i] = feed_field(x, b->rows[i]);
        snprintf(g.feature_type, sizeof g.feature_type, "%.7s", x->type);
        g.features = x->values;
        if (stepper_gather(t->stepper, &g, b->gathered, count, b->features, part ? NULL : targets,
                           bad, e) < 0)
            return -1;
        g.column += x->values;
    }
    return 0;
}

int batch_gather_found(struct trainer *t, const struct megabatch *m, const struct gather_config *g,
                       uint64_t count, uint64_t *bad, struct err *e)
{
    t->batch.gathered = 0;
    return rows_gather(t, m, g, count, bad, e);
}

void batch_look_ahead(struct trainer *t, struct megabatch *m, uint64_t epoch, uint64_t position,
                      uint64_t rows)
{
    struct batch_ahead *a = &t->batch.ahead;
    a->count = 0;
    if (!m->size.device || !megabatch_complete(m))
        return;
    a->epoch = epoch;
    a->position = position;
    a->count = megabatch_rows(m, epoch, position, rows, a->rows);
}

/* As megabatch_rows, of training rows those that were looked for before. */
static uint64_t rows_find(struct trainer *t, struct megabatch *m, uint64_t epoch, uint64_t position,
                          uint64_t count)
{
    struct batch *b = &t->batch;
    struct batch_ahead *a = &b->ahead;
    int known = m == &t->train_rows && a->count && a->epoch == epoch && a->position == position;
    if (!known)
        return megabatch_rows(m, epoch, position, count, b->rows);
    struct feed_row *rows = b->rows;
    b->rows = a->rows;
    a->rows = rows;
    count = a->count < count ? a->count : count;
    a->count = 0;
    return count;
}

int batch_gather(struct trainer *t, struct megabatch *m, const struct gather_config *g,
                 uint64_t epoch, uint64_t position, uint64_t rows, struct err *e)
{
    struct batch *b = &t->batch;
    while (b->gathered < rows) {
        uint64_t at = position + b->gathered, bad = 0;
        uint64_t count = rows_find(t, m, epoch, at, rows - b->gathered);
        if (!count)
            return 0;
        if (rows_gather(t, m, g, count, &bad, e) < 0)
            return batch_row_error(m->feed, epoch, at + bad, e);
        b->gathered += count;
    }
    return 1;
}

uint64_t batch_micro_rows(const struct trainer *t, uint64_t whole, uint64_t done, uint64_t left)
{
    uint64_t rows = whole - done % whole;
    if (rows > t->micro_rows)
        rows = t->micro_rows;
    return rows < left ? rows : left;
}

void batch_permute(struct trainer *t, uint32_t task)
{
    uint64_t seed = t->options->tasks[task].permute_features;
    if (seed != OPTION_NONE && seed != t->permutation_seed)
        order_features(seed, (uint32_t)t->model.inputs, t->permutation);
    if (seed != OPTION_NONE)
        t->permutation_seed = seed;
    t->gather_train.permutation = seed == OPTION_NONE ? NULL : t->permutation;
    t->gather_validation.permutation = t->gather_train.permutation;
}
