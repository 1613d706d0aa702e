/* fault.c - where a number that is not finite came from: looked for once a step has one, never
 * before.
 *
 * A loss: the micro-batch is still resident, so its slices with such a loss go forward again, and
 * the first layer whose output is not finite is the one, with the first such row. A gradient:
 * backward comes from the last layer, so the last one in the list with such a gradient is the one;
 * the slice is looked for where the whole batch is resident and no statistics cross its slices.
 */
#include <math.h>
#include <stdio.h>

#include "engine/layer.h"
#include "engine/stepper.h"

static int all_finite(const struct stepper *s, const float *x, uint64_t count)
{
    enum { PIECE = 4096 };
    float numbers[PIECE];
    for (uint64_t done = 0, piece; done < count; done += piece) {
        piece = count - done < PIECE ? count - done : PIECE;
        s->device->download(numbers, x + done, piece * sizeof *x);
        for (uint64_t i = 0; i < piece; i++)
            if (!isfinite(numbers[i]))
                return 0;
    }
    return 1;
}

/* What the layer leaves of a row of the slice: of a graph, of all of its nodes. */
static int row_is_finite(const struct stepper *s, const struct layer_instance *l,
                         const struct layer_pass *p, uint64_t slice, uint64_t row)
{
    const uint64_t *nodes = s->host.graphs.node_ptr;
    uint64_t at = slice * s->config.slice_rows;
    uint64_t first = l->graphs_out ? nodes[at + row] - nodes[at] : row;
    uint64_t count = l->graphs_out ? nodes[at + row + 1] - nodes[at + row] : 1;
    return all_finite(s, p->output + first * l->outputs, count * l->outputs);
}

/* The slice forward through the layers before `end`, up to the first one with a bad output. Its
 * place and *row, which row of the slice it is; -1: none has. */
static int forward_layer(const struct batch_work *b, uint64_t slice, uint32_t end, uint64_t *row)
{
    const struct model *m = b->s->model;
    for (uint32_t i = 0; i < end; i++) {
        const struct layer_instance *l = &m->layers[i];
        slice_forward(b, slice, i, i + 1);
        struct layer_pass p = slice_pass(b, slice, i);
        for (*row = 0; *row < slice_rows(b->s, b->rows, slice); ++*row)
            if (!row_is_finite(b->s, l, &p, slice, *row))
                return (int)i;
    }
    return -1;
}

/* The first row of the slice whose loss is bad; its number of rows: none is. */
static uint64_t loss_row(const struct stepper *s, uint64_t rows, uint64_t slice)
{
    uint64_t steps = s->model->target_steps, count = slice_rows(s, rows, slice) * steps, n = 0;
    const double *losses = s->host.losses + slice * s->config.slice_rows * steps;
    while (n < count && isfinite(losses[n]))
        n++;
    return n / steps;
}

static void losses_look(struct batch_work *b)
{
    struct stepper *s = b->s;
    uint32_t end = s->model->layer_count;
    for (uint64_t slice = 0; slice < batch_slices(s, b->rows); slice++) {
        uint64_t of_loss = loss_row(s, b->rows, slice), row;
        uint64_t first = s->batch.done + slice * s->config.slice_rows;
        if (of_loss == slice_rows(s, b->rows, slice))
            continue;
        int layer = forward_layer(b, slice, end, &row);
        if (layer < 0 && s->fault.rows)
            continue;
        s->fault = (struct step_fault){
            .layer = layer, .row = first + (layer < 0 ? of_loss : row), .rows = 1};
        end = layer < 0 ? end : (uint32_t)layer;
    }
}

void fault_of_losses(struct stepper *s, uint64_t rows)
{
    struct batch_work b = {.s = s, .work = SLICE_TRAIN, .rows = rows};
    if (s->fault.rows) /* an earlier micro-batch had one */
        return;
    batch_fetch(s, s->at.losses, rows * s->model->target_steps * sizeof *s->at.losses);
    s->device->wait();
    losses_look(&b);
}

/* The last layer with a bad gradient in a vector of the trained parameters; -1: none has. */
static int backward_layer(const struct stepper *s, const float *gradient)
{
    for (uint32_t i = s->model->layer_count; i-- > s->layout.first_trained;) {
        const struct layer_instance *l = &s->model->layers[i];
        if (l->count && !all_finite(s, gradient + (l->first - s->layout.frozen), l->count))
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
    if (s->batch.micro_batches > 1 || s->layout.statistics_count)
        return;
    s->batch.done = s->host.graphs.nodes_done = 0;
    uint64_t parts = s->layout.parts, most = parts * s->config.slice_rows;
    for (uint64_t slice = 0; slice < batch_slices(s, rows); slice += parts) {
        slice_run_alone(&b, slice);
        int layer = backward_layer(s, slice_gradient(s, slice / parts));
        if (layer < 0)
            continue;
        s->fault.layer = layer;
        s->fault.row = slice * s->config.slice_rows;
        s->fault.rows = rows - s->fault.row < most ? rows - s->fault.row : most;
        return;
    }
}

/* The first row of the slice at which the gradient at the layer's output is bad; its number of
 * rows: at none. */
static uint64_t backward_row(struct batch_work *b, uint64_t slice, uint32_t layer)
{
    const struct layer_instance *l = &b->s->model->layers[layer];
    uint64_t rows = slice_rows(b->s, b->rows, slice), row = 0;
    slice_run_alone(b, slice);
    struct layer_pass p = slice_pass(b, slice, layer);
    p.output = p.d_output;
    while (row < rows && row_is_finite(b->s, l, &p, slice, row))
        row++;
    return row;
}

/* Of the losses, or of any pass; rows of the batch. */
static struct step_fault fisher_fault(struct batch_work *b, uint32_t bad)
{
    struct stepper *s = b->s;
    uint64_t passes = fisher_labels_passes(s->model, b->fisher->labels), row;
    b->backward_only = 0;
    s->fault = (struct step_fault){0};
    losses_look(b);
    for (uint64_t slice = 0; !s->fault.rows && bad && slice < batch_slices(s, b->rows); slice++)
        for (b->pass = 0; b->pass < passes; b->pass++)
            if ((row = backward_row(b, slice, bad - 1)) < slice_rows(s, b->rows, slice))
                return (struct step_fault){(int)bad - 1, 1, slice * s->config.slice_rows + row, 1};
    return s->fault.rows ? s->fault : (struct step_fault){(int)bad - 1, 1, 0, b->rows};
}

int fault_of_fisher(struct batch_work *b, uint32_t bad, struct err *e)
{
    const struct stepper *s = b->s;
    struct step_fault f = b->s->fault = fisher_fault(b, bad);
    char layer[64] = "the loss";
    if (f.layer >= 0)
        snprintf(layer, sizeof layer, "layer %d (%s)", f.layer,
                 s->model->layers[f.layer].type->name);
    if (f.rows > 1)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the squared gradients of %s are not finite; none of samples %llu to %llu "
                       "has such a gradient alone: they are too large for float32",
                       layer, (unsigned long long)b->fisher->position,
                       (unsigned long long)(b->fisher->position + f.rows - 1));
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s of %s is not finite at sample %llu: the parameters or the features are not "
                   "usable",
                   f.backward ? "the gradient" : "the output", layer,
                   (unsigned long long)(b->fisher->position + f.row));
}

const struct step_fault *stepper_fault(const struct stepper *s)
{
    return &s->fault;
}

int stepper_bad_number(const struct stepper *s)
{
    return s->bad_number;
}
