/* layout_lane.c - the memory of one slice in flight: which buffers its layers read and write, what
 * is kept of them, and where all of it lies in a lane. */
#include <string.h>

#include "engine/stepper.h"

uint64_t rows_most(const struct step_config *c, int graphs)
{
    uint64_t rows = c->batch_rows_max < c->slice_rows ? c->batch_rows_max : c->slice_rows;
    return graphs ? c->slice_nodes_max : rows;
}

/* Which buffer each layer reads and writes, and the floats of the buffers. A layer works in place
 * where it can, its input is a lane's buffer, the layer before does not need that for its backward
 * and no segment begins with it. */
static void layout_route(struct layout *y, const struct model *m, const struct step_config *c,
                         uint64_t *floats)
{
    int kept = 0; /* somebody's backward, or the end of a residual pair, reads the newest buffer */
    uint32_t segment = 0;
    y->buffers = 0;
    for (uint32_t i = 0; i < m->layer_count; i++) {
        const struct layer_instance *l = &m->layers[i];
        if (i == y->segment_first[segment + 1]) {
            kept = 1;
            segment++;
        }
        y->route[i].in = i ? y->route[i - 1].out : 0;
        int in_place = l->type->in_place && y->route[i].in > 0 && !kept;
        if (!l->type->same && !in_place)
            floats[++y->buffers] =
                floats_padded(size_times(rows_most(c, l->graphs_out), l->outputs));
        y->route[i].out = y->buffers;
        int needed = l->type->needs_output && (i >= y->first_trained || l->type->residual);
        kept = needed || (l->type->same && kept);
    }
}

/* The buffers before the one that the first trained layer reads are dead as soon as the next layer
 * has run, unless a residual pair begins there. */
static void layout_forward_buffers(struct layout *y, const struct model *m)
{
    uint32_t read = y->route[y->first_trained].in;
    y->forward_buffers = y->frozen && read ? read - 1 : 0;
    for (uint32_t i = 0; i < y->first_trained; i++)
        if (m->layers[i].type->residual)
            y->forward_buffers = 0;
}

/* With half a buffer that no backward reads is not kept. */
static void layout_unread(struct layout *y, const struct model *m)
{
    memset(y->unread, y->half != HALF_NONE, sizeof y->unread);
    for (uint32_t i = 0; i < m->layer_count; i++) {
        const struct layer_instance *l = &m->layers[i];
        const struct route *r = &y->route[i];
        int residual = l->type->residual != 0;
        if (residual || !(l->type->same || layer_copies(l)))
            y->unread[l->type->needs_output ? r->out : r->in] = 0;
        if (residual)
            y->unread[r->in] = y->unread[r->out] = 0;
    }
    for (uint32_t k = 1; k < y->segments; k++) /* runs again from there */
        y->unread[y->route[y->segment_first[k]].in] = 0;
}

/* A place for each depth of residual pairs, as large as the largest of them. */
static uint64_t layout_residuals(struct layout *y, const struct model *m,
                                 const struct step_config *c, uint64_t at)
{
    int found = 1;
    for (uint32_t depth = 0; found; depth++) {
        uint64_t most = 0;
        found = 0;
        for (uint32_t i = 0; i < m->layer_count; i++) {
            const struct layer_instance *l = &m->layers[i];
            if (!l->type->residual || l->depth != depth)
                continue;
            found = 1;
            y->skip_at[i] = at;
            uint64_t floats = size_times(rows_most(c, l->graphs), l->inputs);
            most = floats > most ? floats : most;
        }
        at = size_plus(at, floats_padded(most));
    }
    return at;
}

static uint64_t scratch_floats_max(const struct model *m, const struct step_config *c)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < m->layer_count; i++) {
        const struct layer_instance *l = &m->layers[i];
        uint64_t floats =
            l->type->scratch_floats
                ? l->type->scratch_floats(l, rows_most(c, l->graphs), layer_keep_of(l, c),
                                          c->device && c->device->apart)
                : 0;
        most = floats > most ? floats : most;
    }
    return floats_padded(most);
}

/* What is between two segments stays, and so does what a residual pair carries over a border. */
static void buffers_kept(const struct layout *y, const struct model *m,
                         char kept[MODEL_LAYERS_MAX + 1])
{
    for (uint32_t k = 1; k < y->segments; k++)
        kept[y->route[y->segment_first[k]].in] = 1;
    for (uint32_t k = 0; k < y->segments; k++)
        for (uint32_t i = y->segment_first[k]; i < y->segment_first[k + 1]; i++)
            if (m->layers[i].type->residual > 0 && m->layers[i].partner >= y->segment_first[k + 1])
                kept[y->route[i].out] = 1;
}

/* Floats that keep `count` values. */
static uint64_t kept_floats(enum half half, uint64_t count)
{
    return floats_padded(half ? size_padded(count, 2) / 2 : count);
}

/* The place of one layer's output and of what it keeps, if that is (not) to stay; returns what is
 * behind them. */
static uint64_t layer_place(struct layout *y, const struct model *m, const struct step_config *c,
                            const uint64_t *floats, uint32_t i, const char *kept, int stays,
                            uint64_t at)
{
    const struct layer_instance *l = &m->layers[i];
    enum layer_keep keep = layer_keep_of(l, c);
    uint32_t buffer = y->route[i].out, before = i ? y->route[i - 1].out : 0;
    int is_own = buffer != before && buffer > y->forward_buffers && !y->unread[buffer];
    if (is_own && kept[buffer] == stays) {
        y->activation_at[buffer] = at;
        at = size_plus(at, kept_floats(y->half, floats[buffer]));
    }
    if (l->type->saved_floats && !layer_is_frozen(y, i) && (keep == KEEP_LITTLE) == stays) {
        y->saved_at[i] = at;
        at = size_plus(at, floats_padded(l->type->saved_floats(l, rows_most(c, l->graphs), keep)));
    }
    return at;
}

/* Activations from `rest` on: what stays first, then one place for the rest of every segment. */
static uint64_t layout_activations(struct layout *y, const struct model *m,
                                   const struct step_config *c, const uint64_t *floats,
                                   uint64_t rest)
{
    char kept[MODEL_LAYERS_MAX + 1] = {0};
    uint64_t end = 0;
    buffers_kept(y, m, kept);
    for (uint32_t i = 0; i < m->layer_count; i++)
        rest = layer_place(y, m, c, floats, i, kept, 1, rest);
    for (uint32_t k = 0; k < y->segments; k++) {
        uint64_t at = rest;
        for (uint32_t i = y->segment_first[k]; i < y->segment_first[k + 1]; i++)
            at = layer_place(y, m, c, floats, i, kept, 0, at);
        end = at > end ? at : end;
    }
    return end;
}

/* Buffers that only frozen layers read alternate between two places, and what such layers would
 * keep, which nobody asks for, has one. */
static uint64_t layout_frozen(struct layout *y, const struct model *m, const struct step_config *c,
                              const uint64_t *floats)
{
    uint64_t at = 0, widest = 0, most = 0;
    for (uint32_t b = 1; b <= y->forward_buffers; b++)
        widest = floats[b] > widest ? floats[b] : widest;
    for (uint32_t b = 1; !y->half && b <= y->forward_buffers; b++) {
        y->activation_at[b] = b % 2 ? 0 : widest;
        at = size_times(b > 1 ? 2 : 1, widest);
    }
    for (uint32_t i = 0; i < m->layer_count && layer_is_frozen(y, i); i++) {
        const struct layer_instance *l = &m->layers[i];
        uint64_t saved = l->type->saved_floats ? l->type->saved_floats(l, rows_most(c, l->graphs),
                                                                       layer_keep_of(l, c))
                                               : 0;
        y->saved_at[i] = at;
        most = saved > most ? saved : most;
    }
    return size_plus(at, floats_padded(most));
}

/* With half layers work on float32 in a few places. Forward alternates between one of its own and
 * that of a gradient: the one that the gradient behind the segment is not in, which is there when
 * it runs again, or comes with the last layer's outputs (loss_type.linear). */
static uint64_t layout_work(struct layout *y, uint64_t odd_delta, uint64_t even_delta,
                            uint64_t widest, uint64_t at)
{
    y->work_at = at;
    for (uint32_t k = 0; k < y->segments; k++) {
        int taken = y->route[y->segment_first[k + 1] - 1].out % 2;
        y->work_even_at[k] =
            taken && !layer_is_frozen(y, y->segment_first[k]) ? even_delta : odd_delta;
    }
    return size_plus(at, widest);
}

/* Gradients at the buffers. In training one is dead as soon as the layer before has its own: two
 * places alternate, each as large as its own buffers need, but with half forward works in the odd
 * one, too. For the Fisher information all stay until the lanes are squared. */
static uint64_t layout_deltas(struct layout *y, const struct step_config *c, const uint64_t *floats,
                              uint64_t at)
{
    uint64_t most[2] = {0}, widest = 0, first = at;
    for (uint32_t b = 1; b <= y->buffers; b++) {
        if (b > y->forward_buffers && floats[b] > most[b % 2])
            most[b % 2] = floats[b];
        widest = floats[b] > widest ? floats[b] : widest;
    }
    most[1] = y->half ? widest : most[1];
    y->delta_floats[0] = most[0], y->delta_floats[1] = most[1];
    for (uint32_t b = 1; b <= y->buffers; b++) {
        y->delta_at[b] = c->with_optimizer && b % 2 == 0 ? size_plus(at, most[1]) : at;
        at = c->with_optimizer ? at : size_plus(at, floats[b]);
    }
    at = c->with_optimizer ? size_plus(at, size_plus(most[0], most[1])) : at;
    return y->half ? layout_work(y, first, size_plus(first, most[1]), widest, at) : at;
}

/* Places of the buffers in a lane. */
void layout_lane(struct layout *y, const struct model *m, const struct step_config *c)
{
    uint64_t floats[MODEL_LAYERS_MAX + 1] = {0};
    layout_route(y, m, c, floats);
    layout_forward_buffers(y, m);
    layout_unread(y, m);
    uint64_t at = layout_activations(y, m, c, floats, layout_frozen(y, m, c, floats));
    at = layout_deltas(y, c, floats, at);
    y->scratch_at = layout_residuals(y, m, c, at);
    y->lane_activations = size_plus(y->scratch_at, scratch_floats_max(m, c));
}
