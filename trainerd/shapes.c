/* shapes.c - what is known of a split before its rows come: from a feed that is open, or (plan.c)
 * from `loaderd --describe`; and what follows from it for the model's input and for the stepper's
 * memory. Where rows are graphs, loaderd has walked the batches of all epochs, so the largest one
 * is known.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <string.h>

#include "engine/device.h"
#include "engine/labels.h"
#include "proto/weighing.h"

struct split_shape shape_of(const struct feed *f)
{
    const struct msg_opened *o = &f->consumer.opened;
    const struct feed_info *i = &f->info;
    struct split_shape s = {.rows = o->rows,
                            .spans = o->spans,
                            .span_rows = o->span_rows,
                            .span_bytes_max = o->span_bytes_max,
                            .chunk_bytes_max = o->chunk_bytes_max,
                            .kept_bytes = o->kept_bytes,
                            .values = i->feature_values,
                            .value_parts = i->feature_parts,
                            .targets = i->targets.values,
                            .weights = i->weights.values,
                            .edge_values = i->edge_features.values,
                            .batch_nodes = i->features[0].batch_items_max,
                            .batch_edges = i->edge_source.batch_items_max,
                            .slice_nodes = i->features[0].slice_items_max,
                            .sample_nodes = i->features[0].sample_items_max};
    memcpy(s.layout, o->layout, sizeof s.layout);
    snprintf(s.target_type, sizeof s.target_type, "%.7s", i->targets.type);
    for (uint32_t k = 0; k < i->feature_parts && s.value_type[0] != 'f'; k++)
        snprintf(s.value_type, sizeof s.value_type, "%.7s", i->features[k].type);
    for (uint32_t k = 0; k < o->fields_count; k++)
        s.row_bytes += o->fields[k].row_bytes;
    return s;
}

int shape_is_graph(const struct split_shape *s)
{
    return strcmp(s->layout, "graph") == 0;
}

uint64_t shape_row_bytes(const struct split_shape *s)
{
    return shape_is_graph(s) ? s->span_bytes_max / s->span_rows + 1 : s->row_bytes;
}

struct model_input shape_input(const struct split_shape *s)
{
    return (struct model_input){s->values, shape_is_graph(s), s->edge_values};
}

static const char *split_name(const struct options *o, int validation)
{
    return validation ? o->data_validation : o->data_train;
}

/* Timeframes are gathered one after the other: a permutation across them is not. */
static int permutation_check(const struct options *o, const struct data_set *s, struct err *e)
{
    for (uint32_t i = 0; i < o->task_count && s->train.value_parts > 1; i++)
        if (options_data_task(o, i) == s->task && o->tasks[i].permute_features != OPTION_NONE)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "task %s permutes the features, which in %s are %" PRIu64
                           " timeframes; permute_features takes features in one data set",
                           o->tasks[i].name, s->file, s->train.value_parts);
    return 0;
}

/* Of one kind and width. */
static int splits_agree(const struct options *o, const struct data_set *s, struct err *e)
{
    const struct split_shape *train = &s->train, *validation = &s->validation;
    if (strcmp(train->layout, validation->layout) != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s of %s is in the %s layout and %s in the %s layout; both need the same",
                       o->data_train, s->file, train->layout, o->data_validation,
                       validation->layout);
    if (train->values != validation->values)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "features of %s have %" PRIu64 " values a %s, those of %s %" PRIu64
                       " in %s; both need the same number",
                       o->data_train, train->values, shape_is_graph(train) ? "node" : "row",
                       o->data_validation, validation->values, s->file);
    if (train->weights != validation->weights)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "weights of %s have %" PRIu64 " values a row, those of %s %" PRIu64
                       " in %s; both need the same number",
                       o->data_train, train->weights, o->data_validation, validation->weights,
                       s->file);
    if (train->edge_values != validation->edge_values)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "edges of %s have %" PRIu64 " features, those of %s %" PRIu64
                       " in %s; both need the same number",
                       o->data_train, train->edge_values, o->data_validation,
                       validation->edge_values, s->file);
    return 0;
}

int shapes_check(const struct options *o, const struct data_set *s, struct err *e)
{
    for (int i = 0; i < 2; i++)
        if (!(i ? &s->validation : &s->train)->targets)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "%s of %s has no data set `%s`; it holds what the model is to learn",
                           split_name(o, i), s->file, o->data_targets);
    return permutation_check(o, s, e) < 0 ? -1 : splits_agree(o, s, e);
}

/* Tokens and an embedding go together, as they are stored. */
static int tokens_check(const struct options *o, const struct data_set *s, const struct model *m,
                        struct err *e)
{
    if (strcmp(s->train.layout, "tokens") == 0 && !m->token_count)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s holds tokens, and the model's first layer takes numbers; accepted: "
                       "embedding",
                       s->file);
    for (int i = 0; i < 2 && m->token_count; i++) {
        const char *type = (i ? &s->validation : &s->train)->value_type;
        if (type[0] == 'f')
            return err_set(e, EXIT_CODE_PERMANENT,
                           "the features of %s of %s are of type %s, and the model's first layer, "
                           "an embedding, takes tokens; accepted: whole numbers, or another first "
                           "layer",
                           split_name(o, i), s->file, type);
    }
    if (m->token_count && o->data_scale != 1)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "data.scale is %g and the model takes tokens, which cannot be scaled; "
                       "accepted: 1",
                       o->data_scale);
    for (uint32_t i = 0; i < o->task_count && m->token_count; i++)
        if (o->tasks[i].permute_features != OPTION_NONE)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "task %s permutes the features, and the model takes tokens, whose order "
                           "is what it learns",
                           o->tasks[i].name);
    return 0;
}

int shapes_model_check(const struct options *o, const struct data_set *s, const struct model *m,
                       struct err *e)
{
    if (tokens_check(o, s, m, e) < 0)
        return -1;
    if (fisher_labels_check(m, fisher_labels_of(o->fisher_labels), e) < 0)
        return err_prefix(e, "continual_learning.ewc_config");
    for (int i = 0; i < 2; i++) {
        const struct split_shape *split = i ? &s->validation : &s->train;
        if (model_targets_check(m, split->target_type, split->targets, e) < 0 ||
            weighing_width_check(split->weights, model_row_targets(m), e) < 0)
            return err_prefix(e, "%s of %s", split_name(o, i), s->file);
    }
    return 0;
}

int shapes_rows_check(const struct options *o, const struct data *d,
                      const struct schedule *schedule, const struct model *m, struct err *e)
{
    for (uint32_t i = 0; i < o->task_count; i++) {
        uint64_t micro = d->set[d->set_of[i]].batch_size, rows = schedule->rows[i];
        uint64_t last = rows % micro;
        if (model_rows_check(m, last ? last : micro, e) < 0)
            return err_prefix(e,
                              "an epoch of task %s, of %" PRIu64
                              " rows in micro-batches of %" PRIu64
                              ", ends with one of 1 row; set data.drop_last or another "
                              "training.batch_size",
                              o->tasks[i].name, rows, micro);
    }
    return 0;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

int shapes_step_config(struct step_config *c, const struct options *o, const struct device *device,
                       const struct split_shape *train, const struct split_shape *validation,
                       uint64_t micro_rows, struct err *e)
{
    *c = setup_step_config(o);
    uint64_t rows = larger(train->rows, validation->rows);
    c->batch_rows_max = micro_rows < rows ? micro_rows : rows;
    c->weights = train->weights;
    c->accumulates |= micro_rows < o->batch_size;
    c->batch_nodes_max = larger(train->batch_nodes, validation->batch_nodes);
    c->batch_edges_max = larger(train->batch_edges, validation->batch_edges);
    c->slice_nodes_max = larger(train->slice_nodes, validation->slice_nodes);
    device_step_config(device, c);
    if (!shape_is_graph(train))
        return 0;
    if (!c->slice_nodes_max)
        return err_set(e, EXIT_CODE_PERMANENT, "the graphs of %s have no nodes", o->data_file);
    if (c->batch_nodes_max <= UINT32_MAX && c->batch_edges_max <= UINT32_MAX - c->batch_nodes_max)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "the largest batch of %s has %" PRIu64 " nodes and %" PRIu64
                   " edges; accepted: up to %" PRIu64 " together; lower training.batch_size",
                   o->data_file, c->batch_nodes_max, c->batch_edges_max, (uint64_t)UINT32_MAX);
}
