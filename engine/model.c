/* model.c - see model.h: layers one after the other, shapes from left to right, tensors end to end.
 */
#include "engine/model.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/layer.h"
#include "engine/layer_text.h"
#include "engine/loss.h"
#include "engine/loss_text.h"

/* Whole name, size and place behind `*end` values. */
static void tensor_place(const struct layer_instance *l, struct tensor_info *t, uint64_t *end)
{
    char part[32];
    snprintf(part, sizeof part, "%.31s", t->name);
    snprintf(t->name, sizeof t->name, "%u.%s", l->place, part);
    t->count = t->dims[0] * (t->rank == 2 ? t->dims[1] : 1); /* widths <= 2^24: fits */
    t->first = *end;
    *end += t->count;
}

/* The tensors and module buffers that layer `l` has just declared at the end of the list of
 * tensors.
 */
static int tensors_place(struct model *m, struct layer_instance *l, struct err *e)
{
    l->first = m->parameter_count;
    l->buffer_first = m->buffer_values;
    for (uint32_t i = 0; i < l->tensor_count; i++)
        tensor_place(l, &m->tensors[m->tensor_count++], &m->parameter_count);
    for (uint32_t i = 0; i < l->buffer_count; i++) {
        struct tensor_info *b = &m->buffers[m->buffer_count++];
        *b = m->tensors[m->tensor_count + i];
        tensor_place(l, b, &m->buffer_values);
    }
    l->count = m->parameter_count - l->first;
    if (m->parameter_count > UINT64_MAX / 64)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "cannot open the model: layer %u (%s) brings it to more than 2^58 parameters", l->place,
            l->type->name);
    return 0;
}

/* Does it take rows of the kind that comes to it? */
static int rows_check(const struct layer_instance *l, struct err *e)
{
    if (l->type->takes == ROWS_NO_GRAPHS && l->graphs)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "layer %u (%s) takes vectors or sequences, and its rows are graphs; a pool "
                       "layer makes a vector of each",
                       l->place, l->type->name);
    if (l->type->takes == ROWS_GRAPHS && !l->graphs)
        return err_set(e, EXIT_CODE_PERMANENT, "layer %u (%s) takes graphs, and its rows are %s",
                       l->place, l->type->name, l->steps > 1 ? "sequences" : "vectors");
    if (l->type->takes == ROWS_TOKENS && (l->place || l->graphs))
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "layer %u (%s) takes tokens, the data's own rows; it must be the first layer, "
            "and the rows no graphs",
            l->place, l->type->name);
    return 0;
}

static int layer_add(struct model *m, const char *text, struct err *e)
{
    struct layer_instance *l = &m->layers[m->layer_count];
    l->place = m->layer_count;
    l->steps = l->place ? m->layers[l->place - 1].steps_out : 1;
    l->values = l->place ? m->layers[l->place - 1].values_out : m->inputs;
    l->inputs = l->steps * l->values;
    l->graphs = l->graphs_out = l->place ? m->layers[l->place - 1].graphs_out : m->graphs;
    l->edge_values = m->edge_inputs;
    if (layer_parse(l, text, e) < 0 || rows_check(l, e) < 0)
        return -1;
    if (m->tensor_count + LAYER_TENSORS_MAX > MODEL_TENSORS_MAX)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "cannot open the model: layer %u (%s) exceeds the %d tensors a model may have",
            l->place, l->type->name, MODEL_TENSORS_MAX);
    l->tensor_first = m->tensor_count;
    if (l->type->infer(l, &m->tensors[m->tensor_count], e) < 0)
        return -1;
    l->outputs = l->steps_out * l->values_out; /* both at most 2^24 */
    if (l->outputs > LAYER_WIDTH_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "layer %u (%s) makes %" PRIu64 " x %" PRIu64
                       " values of a row; accepted: up to %d",
                       l->place, l->type->name, l->steps_out, l->values_out, LAYER_WIDTH_MAX);
    m->edges_used |= l->edges_used;
    m->token_count += l->token_count; /* of the first layer only */
    m->layer_count++;
    return tensors_place(m, l, e);
}

static const char *row_words(const struct layer_instance *l)
{
    return l->graphs ? "of each node " : "";
}

/* Partners and depth of the residual pairs; what a pair adds must be of one shape. */
static int residuals_pair(struct model *m, struct err *e)
{
    uint32_t open[MODEL_LAYERS_MAX], depth = 0;
    for (uint32_t i = 0; i < m->layer_count; i++) {
        struct layer_instance *l = &m->layers[i];
        if (l->type->residual > 0)
            open[depth++] = i;
        if (l->type->residual >= 0)
            continue;
        if (depth == 0)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "layer %u (residual_end) has no residual_begin before it", i);
        struct layer_instance *begin = &m->layers[open[--depth]];
        if (begin->steps != l->steps || begin->values != l->values || begin->graphs != l->graphs)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "layer %u (residual_end): its input is %s%" PRIu64 " x %" PRIu64
                           ", that of its residual_begin (layer %u) %s%" PRIu64 " x %" PRIu64
                           "; both must be the same",
                           i, row_words(l), l->steps, l->values, begin->place, row_words(begin),
                           begin->steps, begin->values);
        begin->partner = i;
        l->partner = begin->place;
        begin->depth = l->depth = depth;
    }
    if (depth > 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "layer %u (residual_begin) has no residual_end behind it", open[depth - 1]);
    return 0;
}

static int layers_check(struct model *m, struct err *e)
{
    const struct layer_instance *last = &m->layers[m->layer_count - 1];
    if (m->parameter_count == 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot open the model: none of its %u layers has parameters; at least one "
                       "linear layer is needed",
                       m->layer_count);
    if (last->graphs_out)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "cannot open the model: layer %u (%s) leaves a vector for each node, and the "
            "loss takes one for each graph; a pool layer makes it",
            last->place, last->type->name);
    return residuals_pair(m, e);
}

int model_open(struct model *m, const char *const *layers, uint32_t count, uint64_t inputs,
               const char *loss, struct err *e)
{
    return model_open_input(m, layers, count, &(struct model_input){.values = inputs}, loss, e);
}

int model_open_input(struct model *m, const char *const *layers, uint32_t count,
                     const struct model_input *input, const char *loss, struct err *e)
{
    uint64_t inputs = input->values;
    *m = (struct model){
        .inputs = inputs, .graphs = input->graphs, .edge_inputs = input->edge_values};
    if (count < 1 || count > MODEL_LAYERS_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot open the model: it has %u layers; accepted: 1 to %d", count,
                       MODEL_LAYERS_MAX);
    if (inputs < 1 || inputs > LAYER_WIDTH_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot open the model: its input has %llu values a row; accepted: 1 to %d",
                       (unsigned long long)inputs, LAYER_WIDTH_MAX);
    if (input->edge_values > LAYER_WIDTH_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot open the model: edges have %" PRIu64 " features; accepted: up to %d",
                       input->edge_values, LAYER_WIDTH_MAX);
    if (loss_parse(m, loss, e) < 0)
        goto fail;
    m->layers = calloc(count, sizeof *m->layers);
    m->tensors = calloc(MODEL_TENSORS_MAX, sizeof *m->tensors);
    m->buffers = calloc(LAYER_BUFFERS_MAX * count, sizeof *m->buffers);
    if (!m->layers || !m->tensors || !m->buffers) {
        err_errno(e, EXIT_CODE_TEMPORARY, "cannot allocate the model's list of %u layers", count);
        goto fail;
    }
    for (uint32_t i = 0; i < count; i++)
        if (layer_add(m, layers[i], e) < 0)
            goto fail;
    if (layers_check(m, e) < 0)
        goto fail;
    m->outputs = m->layers[count - 1].outputs;
    m->target_steps = loss_type_named(m->loss)->values ? 1 : m->layers[count - 1].steps_out;
    if (loss_weights_check(m, e) < 0)
        goto fail;
    return 0;
fail:
    model_close(m);
    return -1;
}

static int targets_refuse(const struct model *m, const char *type, uint64_t values, struct err *e)
{
    char steps[96] = "";
    if (m->target_steps > 1)
        snprintf(steps, sizeof steps, " for each of the %" PRIu64 " steps that the model leaves",
                 m->target_steps);
    return err_set(e, EXIT_CODE_PERMANENT,
                   "its targets are %" PRIu64
                   " values of type %.8s a row, and the loss %s takes one integer class a row%s "
                   "(u8, i8, u16, i16, u32, i32, u64, i64); losses of values: "
                   "mean_squared_error, l1, huber, cosine, binary_cross_entropy",
                   values, type, m->loss, steps);
}

int model_targets_check(const struct model *m, const char *type, uint64_t values, struct err *e)
{
    enum element element = element_named(type);
    if (!loss_type_named(m->loss)->values &&
        (values != m->target_steps || !element_is_whole(element)))
        return targets_refuse(m, type, values, e);
    if (element == ELEMENT_COUNT)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "its targets are of type '%.8s'; accepted: u8, i8, u16, i16, u32, i32, u64, "
                       "i64, f16, f32, f64",
                       type);
    if (loss_type_named(m->loss)->values && values != m->outputs)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "its targets are %" PRIu64 " values a row and the model has %" PRIu64
                       " outputs; the loss %s takes a value an output",
                       values, m->outputs, m->loss);
    return 0;
}

uint64_t model_row_targets(const struct model *m)
{
    return loss_type_named(m->loss)->values ? m->outputs : m->target_steps;
}

int model_draws(const struct model *m)
{
    int draws = 0;
    for (uint32_t i = 0; i < m->layer_count; i++)
        draws |= m->layers[i].type->draws;
    return draws;
}

int model_draws_nodes(const struct model *m)
{
    int draws = 0;
    for (uint32_t i = 0; i < m->layer_count; i++)
        draws |= m->layers[i].type->draws && m->layers[i].graphs;
    return draws;
}

int model_rows_check(const struct model *m, uint64_t rows, struct err *e)
{
    for (uint32_t i = 0; i < m->layer_count; i++)
        if (m->layers[i].type->statistics && rows * m->layers[i].steps < 2)
            return err_set(
                e, EXIT_CODE_PERMANENT,
                "layer %u (%s) needs more than one row in a micro-batch, to have a variance", i,
                m->layers[i].type->name);
    return 0;
}

int model_carry(struct model *m, struct err *e)
{
    m->carried = calloc(LAYER_CARRIED_MAX * m->layer_count, sizeof *m->carried);
    if (!m->carried)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot list what the model's layers carry");
    for (uint32_t i = 0; i < m->layer_count; i++) {
        struct layer_instance *l = &m->layers[i];
        l->carried_first = m->carried_values;
        if (l->type->carry && l->type->carry(l, &m->carried[m->carried_count], e) < 0)
            return -1;
        for (uint32_t k = 0; k < l->carried_count; k++)
            tensor_place(l, &m->carried[m->carried_count++], &m->carried_values);
    }
    return 0;
}

void model_close(struct model *m)
{
    free(m->layers);
    free(m->tensors);
    free(m->buffers);
    free(m->target_weights);
    free(m->carried);
    *m = (struct model){0};
}

void model_initialise(const struct model *m, uint64_t seed, float *parameters)
{
    for (uint32_t i = 0; i < m->layer_count; i++) {
        const struct layer_instance *l = &m->layers[i];
        if (l->type->initialise)
            l->type->initialise(l, seed, parameters + l->first);
    }
}

void model_initialise_buffers(const struct model *m, float *buffers)
{
    for (uint32_t i = 0; i < m->buffer_count; i++)
        for (uint64_t k = 0; k < m->buffers[i].count; k++)
            buffers[m->buffers[i].first + k] =
                (float)(strstr(m->buffers[i].name, "running_var") != NULL);
}
