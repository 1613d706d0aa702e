/* model.c - see model.h: layers one after the other, shapes from left to right, tensors end to end.
 */
#include "engine/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/layer.h"
#include "engine/layer_text.h"

static int loss_set(struct model *m, const char *loss, struct err *e)
{
    char accepted[256] = "";
    if (loss_type_named(loss)) {
        snprintf(m->loss, sizeof m->loss, "%s", loss);
        return 0;
    }
    for (int i = 0; loss_types[i]; i++) {
        size_t used = strlen(accepted);
        snprintf(accepted + used, sizeof accepted - used, "%s%s", i ? ", " : "",
                 loss_types[i]->name);
    }
    return err_set(e, EXIT_CODE_PERMANENT,
                   "cannot open the model: unknown loss '%.64s'; accepted: %s", loss, accepted);
}

/* Names, places and sizes of the tensors that layer `l` has just declared at the end of the list.
 */
static int tensors_place(struct model *m, struct layer_instance *l, struct err *e)
{
    l->first = m->parameter_count;
    for (uint32_t i = 0; i < l->tensor_count; i++) {
        struct tensor_info *t = &m->tensors[m->tensor_count++];
        char part[32];
        snprintf(part, sizeof part, "%.31s", t->name);
        snprintf(t->name, sizeof t->name, "%u.%s", l->place, part);
        t->count = t->dims[0] * (t->rank == 2 ? t->dims[1] : 1); /* widths <= 2^24: fits */
        t->first = m->parameter_count;
        m->parameter_count += t->count;
    }
    l->count = m->parameter_count - l->first;
    if (m->parameter_count > UINT64_MAX / 64)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "cannot open the model: layer %u (%s) brings it to more than 2^58 parameters", l->place,
            l->type->name);
    return 0;
}

static int layer_add(struct model *m, const char *text, struct err *e)
{
    struct layer_instance *l = &m->layers[m->layer_count];
    l->place = m->layer_count;
    l->inputs = l->place ? m->layers[l->place - 1].outputs : m->inputs;
    if (layer_parse(l, text, e) < 0)
        return -1;
    if (m->tensor_count + LAYER_TENSORS_MAX > MODEL_TENSORS_MAX)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "cannot open the model: layer %u (%s) exceeds the %d tensors a model may have",
            l->place, l->type->name, MODEL_TENSORS_MAX);
    l->tensor_first = m->tensor_count;
    l->type->infer(l, &m->tensors[m->tensor_count]);
    m->layer_count++;
    return tensors_place(m, l, e);
}

static int layers_check(const struct model *m, struct err *e)
{
    if (m->parameter_count == 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot open the model: none of its %u layers has parameters; at least one "
                       "linear layer is needed",
                       m->layer_count);
    return 0;
}

int model_open(struct model *m, const char *const *layers, uint32_t count, uint64_t inputs,
               const char *loss, struct err *e)
{
    *m = (struct model){.inputs = inputs};
    if (count < 1 || count > MODEL_LAYERS_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot open the model: it has %u layers; accepted: 1 to %d", count,
                       MODEL_LAYERS_MAX);
    if (inputs < 1 || inputs > LAYER_WIDTH_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot open the model: its input has %llu values a row; accepted: 1 to %d",
                       (unsigned long long)inputs, LAYER_WIDTH_MAX);
    if (loss_set(m, loss, e) < 0)
        return -1;
    m->layers = calloc(count, sizeof *m->layers);
    m->tensors = calloc(MODEL_TENSORS_MAX, sizeof *m->tensors);
    if (!m->layers || !m->tensors) {
        err_errno(e, EXIT_CODE_TEMPORARY, "cannot allocate the model's list of %u layers", count);
        goto fail;
    }
    for (uint32_t i = 0; i < count; i++)
        if (layer_add(m, layers[i], e) < 0)
            goto fail;
    if (layers_check(m, e) < 0)
        goto fail;
    m->outputs = m->layers[count - 1].outputs;
    return 0;
fail:
    model_close(m);
    return -1;
}

void model_close(struct model *m)
{
    free(m->layers);
    free(m->tensors);
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
