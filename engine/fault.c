/* fault.c - where a number that is not finite came from: looked for once a step has one, never
 * before.
 *
 * A loss: the first row that has one is in a micro-batch that is still resident, so its slice goes
 * forward again, and the first layer whose output of that row is not finite is the one. A gradient:
 * backward comes from the last layer, so the last one in the list with such a gradient is the one;
 * the slice is looked for where the whole batch is resident.
 */
#include <math.h>

#include "engine/layer.h"
#include "engine/stepper.h"

static int all_finite(const float *x, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        if (!isfinite(x[i]))
            return 0;
    return 1;
}

/* The first layer with a bad output for row `row` of the slice; -1: none has. */
static int forward_layer(const struct batch_work *b, uint64_t slice, uint64_t row)
{
    const struct model *m = b->s->model;
    for (uint32_t i = 0; i < m->layer_count; i++) {
        const struct layer_instance *l = &m->layers[i];
        struct layer_pass p = slice_pass(b, slice, i);
        l->type->forward(l, &p);
        if (!all_finite(p.output + row * l->outputs, l->outputs))
            return (int)i;
    }
    return -1;
}

void fault_of_losses(struct stepper *s, uint64_t rows)
{
    struct batch_work b = {.s = s, .work = SLICE_TRAIN, .rows = rows};
    for (uint64_t row = 0; row < rows && !s->fault.rows; row++) {
        if (isfinite(s->losses[row]))
            continue;
        s->fault = (struct step_fault){.row = s->batch.done + row, .rows = 1};
        s->fault.layer = forward_layer(&b, row / s->config.slice_rows, row % s->config.slice_rows);
    }
}

/* The last layer with a bad gradient in a vector of the trained parameters; -1: none has. */
static int backward_layer(const struct stepper *s, const float *gradient)
{
    for (uint32_t i = s->model->layer_count; i-- > s->layout.first_trained;) {
        const struct layer_instance *l = &s->model->layers[i];
        if (l->count && !all_finite(gradient + (l->first - s->layout.frozen), l->count))
            return (int)i;
    }
    return -1;
}

void fault_of_gradient(struct stepper *s)
{
    uint64_t rows = s->batch.rows;
    struct batch_work b = {.s = s, .work = SLICE_TRAIN, .rows = rows};
    s->fault =
        (struct step_fault){.layer = backward_layer(s, s->gradient), .backward = 1, .rows = rows};
    if (rows > s->config.batch_rows_max || s->batch.micro_batches > 1)
        return;
    s->batch.done = 0;
    for (uint64_t slice = 0; slice < batch_slices(s, rows); slice++) {
        slice_run_alone(&b, slice);
        int layer = backward_layer(s, slice_gradient(s, slice));
        if (layer < 0)
            continue;
        s->fault.layer = layer;
        s->fault.row = slice * s->config.slice_rows;
        s->fault.rows = slice_rows(s, rows, slice);
        return;
    }
}

const struct step_fault *stepper_fault(const struct stepper *s)
{
    return &s->fault;
}
