/* statistics.c - layers whose statistics cross the slices of a micro-batch (batchnorm).
 *
 *   forward    all slices up to such a layer, each leaves its part; the parts are merged in slice
 *              order; all slices on to the next one
 *   backward   the same from the end
 *
 * So all slices of the micro-batch are in their lanes at once, and the bits do not depend on
 * threads. Gradients have room for as many slices as there are threads: backward takes the slices
 * in waves.
 */
#include <inttypes.h>
#include <math.h>

#include "engine/stepper.h"

static const struct layer_instance *layer_of(const struct stepper *s, uint32_t number)
{
    return &s->model->layers[s->layout.statistics_layer[number]];
}

/* Of phase `phase`, the layers between two with statistics: the one that ends it forward. */
static uint32_t phase_end(const struct stepper *s, uint32_t phase)
{
    return phase < s->layout.statistics_count ? s->layout.statistics_layer[phase]
                                              : s->model->layer_count;
}

/* Values that a channel of the layer has in rows first .. first + rows - 1 of the micro-batch. */
static uint64_t channel_values(const struct stepper *s, const struct layer_instance *l,
                               uint64_t first, uint64_t rows)
{
    const uint64_t *nodes = s->host.graphs.node_ptr;
    return l->graphs ? nodes[first + rows] - nodes[first] : rows * l->steps;
}

static void forward_item(void *argument, uint64_t slice, int thread)
{
    const struct batch_work *b = argument;
    const struct stepper *s = b->s;
    uint32_t end = phase_end(s, b->phase);
    (void)thread;
    slice_forward(b, slice, b->phase ? phase_end(s, b->phase - 1) : 0, end);
    if (end < s->model->layer_count) {
        struct layer_pass p = slice_pass_backward(b, slice, end); /* it reads the input */
        p.part = &s->parts[slice];
        s->model->layers[end].type->part_forward(&s->model->layers[end], &p);
    } else if (b->work == SLICE_TRAIN) {
        slice_loss(b, slice);
    }
}

static void forward_merge(const struct stepper *s, uint64_t rows, uint32_t number)
{
    const struct layer_instance *l = layer_of(s, number);
    const struct statistics *t = &s->statistics[number];
    double all = 0;
    for (uint64_t slice = 0; slice < batch_slices(s, rows); slice++) {
        const struct statistics_part *part = &s->parts[slice];
        double count =
            (double)channel_values(s, l, slice * s->config.slice_rows, slice_rows(s, rows, slice));
        op_batchnorm_merge(s->backend, part->first, part->second, all, count, t->mean, t->variance,
                           l->values);
        all += count;
    }
    op_batchnorm_finish(s->backend, t->variance, all, l->type->eps, t->scale, l->values);
}

void statistics_forward(struct batch_work *b)
{
    struct stepper *s = b->s;
    for (b->phase = 0; b->phase <= s->layout.statistics_count; b->phase++) {
        stepper_run(s, forward_item, b, batch_slices(s, b->rows));
        if (b->phase < s->layout.statistics_count)
            forward_merge(s, b->rows, b->phase);
    }
}

/* Back to the layer that ends the phase before, and what that needs of the slice. */
static void backward_item(void *argument, uint64_t item, int thread)
{
    const struct batch_work *b = argument;
    const struct stepper *s = b->s;
    uint64_t slice = b->wave_first + item;
    uint32_t end =
        b->phase < s->layout.statistics_count ? phase_end(s, b->phase) + 1 : s->model->layer_count;
    uint32_t before = b->phase ? phase_end(s, b->phase - 1) : 0;
    (void)thread;
    slice_backward(b, slice, b->phase ? before + 1 : 0, end);
    if (b->phase && before >= s->layout.first_trained) {
        slice_again(b, slice, before);
        struct layer_pass p = slice_pass_backward(b, slice, before);
        s->model->layers[before].type->part_backward(&s->model->layers[before], &p);
    }
}

static void backward_merge(const struct stepper *s, uint64_t rows, uint32_t number)
{
    const struct layer_instance *l = layer_of(s, number);
    const struct statistics *t = &s->statistics[number];
    double all = (double)channel_values(s, l, 0, rows);
    uint64_t slices = batch_slices(s, rows);
    for (uint64_t slice = 0; slice < slices; slice++)
        op_batchnorm_means_add(s->backend, s->parts[slice].first, s->parts[slice].second,
                               slice + 1 == slices ? all : 1, slice == 0, t->d, t->dn, l->values);
}

void statistics_backward(struct batch_work *b, statistics_add *add, void *argument)
{
    struct stepper *s = b->s;
    uint64_t slices = batch_slices(s, b->rows), lanes = s->layout.gradient_lanes;
    for (b->phase = s->layout.statistics_count + 1; b->phase-- > 0;) {
        uint32_t end =
            b->phase < s->layout.statistics_count ? phase_end(s, b->phase) : s->model->layer_count;
        uint32_t first = b->phase ? phase_end(s, b->phase - 1) : 0;
        for (b->wave_first = 0; b->wave_first < slices; b->wave_first += lanes) {
            uint64_t left = slices - b->wave_first, count = left < lanes ? left : lanes;
            stepper_run(s, backward_item, b, count);
            add(argument, b->wave_first, count, first, end);
        }
        if (b->phase)
            backward_merge(s, b->rows, b->phase - 1);
    }
}

void statistics_take(struct stepper *s, uint64_t batches)
{
    for (uint32_t i = 0; i < s->layout.statistics_count; i++) {
        const struct layer_instance *l = layer_of(s, i);
        double momentum = batches ? 1 / (double)batches : l->type->momentum(l);
        const struct statistics *t = &s->statistics[i];
        float *mean = s->module_buffers_next + l->buffer_first, *variance = mean + l->values;
        op_batchnorm_running(s->backend, t->mean, t->variance, momentum, mean, variance, l->values);
    }
}

void statistics_commit(struct stepper *s, const struct step_verdict *late)
{
    if (s->module_buffers)
        step_commit(s, late, s->module_buffers_next, s->module_buffers, s->model->buffer_values);
}

void statistics_restore(struct stepper *s)
{
    if (s->module_buffers)
        op_copy(s->backend, s->module_buffers, s->module_buffers_next, s->model->buffer_values);
}

void statistics_use(struct stepper *s)
{
    for (uint32_t i = 0; i < s->layout.statistics_count; i++) {
        const struct layer_instance *l = layer_of(s, i);
        const struct statistics *t = &s->statistics[i];
        const float *mean = s->module_buffers + l->buffer_first, *variance = mean + l->values;
        op_batchnorm_use(s->backend, mean, variance, l->type->eps, t->mean, t->scale, t->d, t->dn,
                         l->values);
    }
}

void stepper_renew_begin(struct stepper *s)
{
    model_initialise_buffers(s->model, stepper_module_buffers(s));
    stepper_send(s);
    carried_pass_begin(s);
    s->renewed = 0;
}

int stepper_renew(struct stepper *s, uint64_t rows, uint64_t step, struct err *e)
{
    struct batch_work b = {.s = s, .work = SLICE_RENEW, .rows = rows};
    ensure(s->config.with_optimizer && rows > 0 && rows <= s->config.batch_rows_max);
    if (model_rows_check(s->model, rows, e) < 0)
        return -1;
    s->renew_step = step;
    fetch_drop(s);
    step_send(s, step);
    weights_round(s);
    batch_send(s, rows);
    statistics_restore(s);
    statistics_forward(&b);
    carried_pass_advance(s, rows);
    statistics_take(s, ++s->renewed);
    statistics_commit(s, NULL);
    if (stepper_fetch(s, e) < 0)
        return -1;
    const float *buffers = stepper_module_buffers(s);
    for (uint64_t i = 0; i < s->model->buffer_values; i++)
        if (!isfinite(buffers[i]))
            return err_set(e, EXIT_CODE_PERMANENT,
                           "cannot renew the statistics of batchnorm: of %" PRIu64
                           " rows one is %g: the parameters or the features are not usable",
                           rows, (double)buffers[i]);
    return 0;
}
