/* shapes.c - what is known of a split before its rows come: from a feed that is open, or (plan.c)
 * from `loaderd --describe`; and what follows from it for the model's input and for the stepper's
 * memory. Where rows are graphs, loaderd has walked the batches of all epochs, so the largest one
 * is known.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <string.h>

#include "engine/device.h"

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
                            .weights = i->weights.values,
                            .edge_values = i->edge_features.values,
                            .batch_nodes = i->features[0].batch_items_max,
                            .batch_edges = i->edge_source.batch_items_max,
                            .slice_nodes = i->features[0].slice_items_max};
    memcpy(s.layout, o->layout, sizeof s.layout);
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

int shapes_check(const struct options *o, const struct split_shape *train,
                 const struct split_shape *validation, struct err *e)
{
    if (strcmp(train->layout, validation->layout) != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s of %s is in the %s layout and %s in the %s layout; both need the same",
                       o->data_train, o->data_file, train->layout, o->data_validation,
                       validation->layout);
    if (train->values != validation->values)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "features of %s have %" PRIu64 " values a %s, those of %s %" PRIu64
                       " in %s; both need the same number",
                       o->data_train, train->values, shape_is_graph(train) ? "node" : "row",
                       o->data_validation, validation->values, o->data_file);
    if (train->weights != validation->weights)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "weights of %s have %" PRIu64 " values a row, those of %s %" PRIu64
                       " in %s; both need the same number",
                       o->data_train, train->weights, o->data_validation, validation->weights,
                       o->data_file);
    if (train->edge_values != validation->edge_values)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "edges of %s have %" PRIu64 " features, those of %s %" PRIu64
                       " in %s; both need the same number",
                       o->data_train, train->edge_values, o->data_validation,
                       validation->edge_values, o->data_file);
    return 0;
}

int shapes_tokens_check(const struct options *o, const struct model *m,
                        const struct split_shape *train, struct err *e)
{
    if (strcmp(train->layout, "tokens") == 0 && !m->token_count)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s holds tokens, and the model's first layer takes numbers; accepted: "
                       "embedding",
                       o->data_file);
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
