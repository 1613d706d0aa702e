/* step.c - the optimizer step in the order of the mathematics.
 *
 *   waves of slices   forward, backward; each slice's gradient into its own buffer
 *   gradient sweep    add the slices in order, after the batch's last one the EWC terms
 *                     (penalty.c) and the norm: one pass, block by block
 *   update sweep      clip and the optimizer's step (optimizer.c): one pass
 *
 * Sums over parameters are kept a block of SWEEP_BLOCK and added in block order, so no number here
 * depends on which thread did what, or on how many there are.
 */
#include "engine/step.h"

#include <float.h>
#include <math.h>

#include "engine/optimizer.h"
#include "engine/penalty.h"
#include "engine/stepper.h"

struct sweep {
    struct stepper *s;
    uint64_t items, blocks;            /* of the pool; all blocks */
    uint64_t slice_first, slice_count; /* slices whose gradients are not yet in the batch's */
    uint64_t first, end;               /* the range of the parameters to be added */
    int last;                          /* the batch is complete: EWC and norm too */
    struct optimizer_scalars optimizer;
};

/* First parameter of block `block`, and how many it has: blocks begin behind what is frozen. */
static uint64_t block_first(const struct stepper *s, uint64_t block)
{
    return s->layout.frozen + block * sweep_block(s);
}

static uint64_t block_count(const struct stepper *s, uint64_t block)
{
    uint64_t left = s->model->parameter_count - block_first(s, block);
    return left < sweep_block(s) ? left : sweep_block(s);
}

static void block_gradient(const struct sweep *w, uint64_t block)
{
    struct stepper *s = w->s;
    uint64_t first = block_first(s, block), count = block_count(s, block),
             frozen = s->layout.frozen;
    uint64_t begin = w->first > first ? w->first : first;
    uint64_t end = w->end < first + count ? w->end : first + count;
    float *g = s->gradient + (first - frozen);
    for (uint64_t i = 0; i < w->slice_count && begin < end; i++)
        op_add(s->backend, slice_gradient(s, w->slice_first + i) + (begin - frozen),
               s->gradient + (begin - frozen), end - begin);
    if (!w->last)
        return;
    float inverse = s->batch.scale != 1 ? grad_scaler_inverse(&s->scaler) : 1;
    if (s->weighted)
        op_divide_weight(s->backend, s->weight_sum,
                         (double)s->batch.rows * (double)s->model->target_steps, inverse, g, count);
    else if (s->batch.scale != 1)
        op_scale(s->backend, inverse, g, count);
    penalty_add(s, first, count, g, &s->block_penalty[block]);
    if (!s->device->apart)
        op_sum_squares(s->backend, g, count, &s->block_norm2[block]);
}

/* The blocks of one item of the pool. */
static void gradient_item(void *argument, uint64_t item, int thread)
{
    const struct sweep *w = argument;
    (void)thread;
    for (uint64_t b = item * w->blocks / w->items; b < (item + 1) * w->blocks / w->items; b++)
        block_gradient(w, b);
}

static void update_item(void *argument, uint64_t item, int thread)
{
    const struct sweep *w = argument;
    (void)thread;
    for (uint64_t b = item * w->blocks / w->items; b < (item + 1) * w->blocks / w->items; b++)
        optimizer_update(w->s, &w->optimizer, block_first(w->s, b), block_count(w->s, b));
}

/* Four shares a thread: enough to even out a thread that started late. */
static struct sweep sweep_make(struct stepper *s)
{
    struct sweep w = {
        .s = s, .blocks = s->layout.blocks, .first = 0, .end = s->model->parameter_count};
    uint64_t shares = 4 * (uint64_t)s->config.threads;
    w.items = w.blocks < shares ? w.blocks : shares;
    return w;
}

void update_run(struct stepper *s, const struct optimizer_config *a, uint64_t t, double norm,
                const struct step_verdict *late)
{
    struct sweep update = sweep_make(s);
    update.optimizer = optimizer_scalars_make(a, t, norm, late);
    stepper_run(s, update_item, &update, update.items);
}

static void weights_item(void *argument, uint64_t item, int thread)
{
    const struct sweep *w = argument;
    struct stepper *s = w->s;
    uint64_t total = s->model->parameter_count;
    uint64_t first = item * total / w->items, count = (item + 1) * total / w->items - first;
    (void)thread;
    for (uint64_t done = 0; done < count; done += sweep_block(s)) {
        uint64_t at = first + done, left = count - done;
        uint64_t values = left < sweep_block(s) ? left : sweep_block(s);
        op_copy(s->backend, s->parameters + at, s->weights + at, values);
        op_round_half(s->backend, s->layout.half, matrix_of(s->weights + at, 1, values));
    }
}

void weights_round(struct stepper *s)
{
    struct sweep w = sweep_make(s);
    if (!s->layout.half || s->weights_current)
        return;
    stepper_run(s, weights_item, &w, w.items);
    s->weights_current = s->device->apart;
}

void weights_narrow(struct stepper *s)
{
    if (s->weights_half)
        op_store_half(s->backend, s->layout.half, s->weights, s->weights_half,
                      s->model->parameter_count);
}

/* The sums of losses and weights lie behind the blocks' penalties. */
static void sums_clear(struct stepper *s)
{
    if (!s->sums_clear)
        s->device->clear(s->block_penalty, (s->layout.blocks + 2) * sizeof *s->block_penalty);
    s->sums_clear = s->device->apart;
}

void stepper_batch(struct stepper *s, uint64_t rows, uint64_t step, const struct ewc_term *terms,
                   int term_count)
{
    ensure(s->config.with_optimizer && rows > 0);
    ensure(rows <= s->config.batch_rows_max || s->config.accumulates);
    s->host.graphs.nodes_done = 0;
    s->batch =
        (struct batch_state){.rows = rows,
                             .step = step,
                             .terms = terms,
                             .term_count = term_count,
                             .scale = s->layout.half == HALF_F16 ? (double)s->scaler.scale : 1};
    s->fault = (struct step_fault){.layer = -1};
    s->bad_number = 0;
    fetch_drop(s);
    sums_clear(s);
    step_send(s, step);
    s->batch.unsent = s->device->apart && terms_send(s, &s->batch.why) < 0;
}

/* The gradients of a wave of slices, but of one that is in place already, for a range of layers. */
static void layers_add(void *argument, uint64_t first, uint64_t count, uint32_t layer_first,
                       uint32_t layer_end)
{
    struct sweep *w = argument;
    const struct layer_instance *layers = w->s->model->layers, *last = &layers[layer_end - 1];
    uint64_t in_place = !w->s->batch.done && !first;
    if (layer_end == layer_first)
        return;
    w->slice_first = first + in_place;
    w->slice_count = count - in_place;
    w->first = layers[layer_first].first;
    w->end = last->first + last->count;
    if (w->slice_count > 0 && w->first < w->end)
        stepper_run(w->s, gradient_item, w, w->items);
}

static void micro_batch_count(struct stepper *s, uint64_t rows)
{
    if (!s->device->apart && !isfinite(*s->loss_sum))
        fault_of_losses(s, rows);
    s->batch.resident = rows;
    s->batch.micro_batches++;
    s->batch.done += rows;
    s->host.graphs.nodes_done += s->model->graphs ? s->host.graphs.node_ptr[rows] : 0;
}

/* Of the micro-batch: known before its last slice completes the batch's gradient. */
static void weights_add(struct stepper *s, uint64_t rows)
{
    uint64_t numbers = rows * s->model->target_steps;
    if (!s->weighted)
        return;
    op_row_weights(s->backend, targets_weights(s, &s->at, 0, WEIGHT_ITSELF), numbers,
                   s->loss->values ? s->model->outputs : 1, s->loss->whole_rows, s->at.row_weights);
    op_sum_add(s->backend, s->at.row_weights, numbers, s->weight_sum);
}

/* Where statistics cross the slices: all of them forward, then all of them back. */
static void gradient_of_phases(struct batch_work *b, struct sweep *w, uint64_t rows)
{
    struct stepper *s = b->s;
    statistics_forward(b);
    statistics_take(s, 0);
    statistics_backward(b, layers_add, w);
    w->slice_count = 0;
    w->last = s->batch.done + rows == s->batch.rows;
    if (w->last)
        stepper_run(s, gradient_item, w, w->items);
}

static void gradient_of_waves(struct batch_work *b, struct sweep *w, uint64_t rows)
{
    struct stepper *s = b->s;
    uint64_t slices = batch_slices(s, rows);
    while (b->wave_first < slices) {
        uint64_t count = wave_run(b), in_place = !s->batch.done && !b->wave_first;
        w->slice_first = slice_sums(s, b->wave_first) + in_place;
        w->slice_count = slice_sums(s, count) - in_place;
        b->wave_first += count;
        w->last = b->wave_first == slices && s->batch.done + rows == s->batch.rows;
        if (w->last || w->slice_count > 0)
            stepper_run(s, gradient_item, w, w->items);
    }
}

/* All that is computed of a micro-batch; what it asks a device for depends on what
 * key_make of recording.c looks at, and on nothing else. */
void micro_batch_compute(struct stepper *s, uint64_t rows)
{
    struct batch_work b = {.s = s, .work = SLICE_TRAIN, .rows = rows};
    struct sweep w = sweep_make(s);
    if (!s->batch.done)
        statistics_restore(s);
    weights_narrow(s);
    weights_add(s, rows);
    if (s->layout.statistics_count)
        gradient_of_phases(&b, &w, rows);
    else
        gradient_of_waves(&b, &w, rows);
    if (!s->device->apart) /* where slices are many and in no order */
        op_sum_add(s->backend, s->at.losses, rows * s->model->target_steps, s->loss_sum);
}

/* After the batch's last row its gradient is complete, EWC included. */
void stepper_accumulate(struct stepper *s, uint64_t rows)
{
    ensure(rows > 0 && rows <= s->config.batch_rows_max && rows <= s->batch.rows - s->batch.done);
    batch_send(s, rows);
    if (!s->batch.done)
        weights_round(s); /* seldom there: no part of what is recorded */
    s->sums_clear = 0;
    if (!s->batch.unsent && !recording_run(s, rows)) /* else stepper_update says why */
        micro_batch_compute(s, rows);
    micro_batch_count(s, rows);
}

static double blocks_sum(const double *blocks, uint64_t count)
{
    double sum = 0;
    for (uint64_t i = 0; i < count; i++)
        sum += blocks[i];
    return sum;
}

/* On a device apart losses are looked at when the batch is done, of which the last micro-batch is
 * still there. */
static void fault_looked_for(struct stepper *s)
{
    uint64_t rows = s->batch.resident;
    s->batch.done -= rows;
    s->host.graphs.nodes_done -= s->model->graphs ? s->host.graphs.node_ptr[rows] : 0;
    fault_of_losses(s, rows);
    s->batch.done += rows;
}

void step_result_fill(const struct stepper *s, uint64_t rows, const double *sums,
                      struct step_result *r)
{
    uint64_t blocks = s->layout.blocks; /* the sums of losses and weights lie behind theirs */
    double loss = sums[2 * blocks], weight = s->weighted ? sums[2 * blocks + 1] : 0;
    r->loss =
        scalar_step_loss(loss, weight, s->weighted, (double)s->model->target_steps, (double)rows);
    r->loss_sum = s->weighted ? r->loss * (double)rows : loss / (double)s->model->target_steps;
    r->empty = s->weighted && weight == 0;
    r->penalty = blocks_sum(sums + blocks, blocks);
    r->gradient_norm = sqrt(blocks_sum(sums, blocks));
}

/* Of the batch, all of which is done: waits for it. */
static int result_fill(struct stepper *s, struct step_result *r, struct err *e)
{
    struct batch_results one; /* on a device apart there is one block */
    const double *sums = s->device->apart ? &one.norm2 : s->block_norm2;
    if (s->batch.unsent)
        return *e = s->batch.why, -1;
    if (s->device->apart) {
        op_sum_squares(s->backend, s->gradient, gradient_count(s), s->block_norm2);
        if (results_fetch(s, &one, e) < 0)
            return -1;
    }
    step_result_fill(s, s->batch.rows, sums, r);
    if (s->device->apart && !isfinite(r->loss))
        fault_looked_for(s);
    return 0;
}

void step_commit(const struct stepper *s, const struct step_verdict *late, const float *x, float *y,
                 uint64_t count)
{
    if (late)
        op_commit(s->backend, late, x, y, count);
    else
        op_copy(s->backend, x, y, count);
}

/* Is the step to be skipped? Gradients that are not finite, though loss and penalty are. */
static int scaler_skips(struct stepper *s, struct step_result *r)
{
    r->loss_scale = r->skipped = r->refused = 0;
    if (s->layout.half != HALF_F16)
        return 0;
    r->loss_scale = s->batch.scale;
    r->skipped = isfinite(r->loss) && isfinite(r->penalty) && !isfinite(r->gradient_norm);
    return r->skipped;
}

/* As PyTorch's: gradients that are not finite halve the scale, whether the step is skipped for them
 * or refused with its loss. A refused step whose gradient is finite (loss_max) tells nothing of the
 * scale: it is not made, and does not count as one of those that let it grow. */
static void scaler_update(struct stepper *s, const struct step_result *r)
{
    int finite = isfinite(r->gradient_norm);
    if (s->layout.half == HALF_F16 && !(r->refused && finite))
        grad_scaler_update(&s->scaler, &s->config.scaler, !finite);
}

static int scale_check(struct stepper *s, struct err *e)
{
    if (s->scaler.scale >= FLT_MIN)
        return 0;
    s->bad_number = 1;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "cannot take the step: gradients are not finite in float16 with any loss scale "
                   "(it has fallen to %g); amp_dtype bfloat16 reaches further",
                   (double)s->scaler.scale);
}

static int result_check(struct stepper *s, const struct step_result *r, double loss_max,
                        struct err *e)
{
    if (!isfinite(r->loss))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot take the step: the batch's loss is %g; nothing was updated; a lower "
                       "learning rate or another data.scale may help",
                       r->loss);
    if (loss_max > 0 && r->loss > loss_max)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot take the step: the batch's loss is %g, more than the %g that are "
                       "accepted; nothing was updated; a lower learning rate may help",
                       r->loss, loss_max);
    if (!isfinite(r->gradient_norm) || !isfinite(r->penalty)) {
        fault_of_gradient(s);
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot take the step: the gradient's norm is %g (loss %g, penalty %g); "
                       "nothing was updated; a lower learning rate or a smaller lambda may help",
                       r->gradient_norm, r->loss, r->penalty);
    }
    return 0;
}

int stepper_update(struct stepper *s, uint64_t t, const struct optimizer_config *a,
                   struct step_result *result, struct err *e)
{
    ensure(s->batch.rows > 0 && s->batch.done == s->batch.rows && t > 0);
    if (result_fill(s, result, e) < 0)
        return -1;
    int skips = scaler_skips(s, result);
    int refused = !skips && result_check(s, result, a->loss_max, e) < 0;
    s->batch.rows = s->batch.done = s->host.graphs.nodes_done = 0;
    s->bad_number = refused;
    result->refused = (uint64_t)refused;
    scaler_update(s, result);
    if (refused)
        return -1;
    statistics_commit(s, NULL);
    carried_commit(s, NULL);
    if (skips)
        return scale_check(s, e);
    update_run(s, a, t, result->gradient_norm, NULL);
    return 0;
}

int stepper_train(struct stepper *s, uint64_t rows, uint64_t step, uint64_t t,
                  const struct optimizer_config *a, const struct ewc_term *terms, int term_count,
                  struct step_result *result, struct err *e)
{
    if (model_rows_check(s->model, rows, e) < 0)
        return -1;
    stepper_batch(s, rows, step, terms, term_count);
    stepper_accumulate(s, rows);
    return stepper_update(s, t, a, result, e);
}

void stepper_warm(struct stepper *s, uint64_t rows)
{
    const struct optimizer_config still = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    const struct grad_scaler scaler = s->scaler;
    struct step_result result;
    struct err ignored; /* rows of zeros may be refused; what fails of the device will again */
    if (!s->device->apart || s->model->graphs || s->carried.set[CARRIED_NOW])
        return;
    for (int i = 0; i < 2; i++) /* the second one is recorded */
        stepper_train(s, rows, 0, 1, &still, NULL, 0, &result, &ignored);
    s->scaler = scaler;
    s->sent_rows = 0;
    stepper_send(s);
}
