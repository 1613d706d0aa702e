/* step.c - the optimizer step in the order of the mathematics.
 *
 *   waves of slices   forward, backward; each slice's gradient into its own buffer
 *   gradient sweep    add the slices in order, then the EWC terms, then the norm: one pass, block
 * by block update sweep      clip and AdamW: one pass
 *
 * Sums over parameters are kept a block of SWEEP_BLOCK and added in block order, so no number here
 * depends on which thread did what, or on how many there are.
 */
#include "engine/step.h"

#include <math.h>

#include "engine/stepper.h"

struct sweep {
    struct stepper *s;
    uint64_t items, blocks;            /* of the pool; all blocks */
    uint64_t slice_first, slice_count; /* slices whose gradients are not yet in the batch's */
    uint64_t first, end;               /* the range of the parameters to be added */
    const struct ewc_term *terms;
    int term_count;
    int last; /* the batch is complete: EWC and norm too */
    struct adamw_scalars adamw;
};

/* Parameters of block `block`. */
static uint64_t block_count(const struct stepper *s, uint64_t block)
{
    uint64_t left = s->model->parameter_count - block * SWEEP_BLOCK;
    return left < SWEEP_BLOCK ? left : SWEEP_BLOCK;
}

static void block_gradient(const struct sweep *w, uint64_t block)
{
    struct stepper *s = w->s;
    uint64_t first = block * SWEEP_BLOCK, count = block_count(s, block);
    float *g = s->gradient + first;
    uint64_t begin = w->first > first ? w->first : first;
    uint64_t end = w->end < first + count ? w->end : first + count;
    for (uint64_t i = 0; i < w->slice_count && begin < end; i++)
        op_add(s->backend, slice_gradient(s, w->slice_first + i) + begin, s->gradient + begin,
               end - begin);
    if (!w->last)
        return;
    s->block_penalty[block] = 0;
    for (int i = 0; i < w->term_count; i++) {
        const struct ewc_term *t = &w->terms[i];
        double penalty;
        op_ewc_add(s->backend, s->parameters + first, t->theta_star + first, t->fisher + first,
                   t->lambda, g, count, &penalty);
        s->block_penalty[block] += penalty;
    }
    op_sum_squares(s->backend, g, count, &s->block_norm2[block]);
}

static void block_update(const struct sweep *w, uint64_t block)
{
    struct stepper *s = w->s;
    uint64_t first = block * SWEEP_BLOCK;
    op_adamw(s->backend, s->parameters + first, s->moment_m + first, s->moment_v + first,
             s->gradient + first, block_count(s, block), &w->adamw);
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
        block_update(w, b);
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

/* The gradients of a wave of slices, slice 0's being in place already, for a range of layers. */
static void layers_add(void *argument, uint64_t first, uint64_t count, uint32_t layer_first,
                       uint32_t layer_end)
{
    struct sweep *w = argument;
    const struct layer_instance *layers = w->s->model->layers, *last = &layers[layer_end - 1];
    w->slice_first = first ? first : 1;
    w->slice_count = first + count - w->slice_first;
    if (layer_end == layer_first)
        return;
    w->first = layers[layer_first].first;
    w->end = last->first + last->count;
    if (w->slice_count > 0 && w->first < w->end)
        pool_run(w->s->pool, gradient_item, w, w->items);
}

/* Where statistics cross the slices: all of them forward, then all of them back. */
static void gradient_of_phases(struct batch_work *b, struct sweep *w)
{
    statistics_forward(b);
    statistics_backward(b, layers_add, w);
    w->slice_count = 0;
    w->last = 1;
    pool_run(b->s->pool, gradient_item, w, w->items);
}

/* Forward and backward over the whole batch; afterwards the batch's gradient is complete, EWC
 * included. */
static void gradient_compute(struct stepper *s, uint64_t rows, uint64_t step,
                             const struct ewc_term *terms, int term_count)
{
    struct batch_work b = {.s = s, .work = SLICE_TRAIN, .rows = rows, .step = step};
    struct sweep w = sweep_make(s);
    uint64_t slices = batch_slices(s, rows);
    w.terms = terms;
    w.term_count = term_count;
    if (s->layout.statistics_count) {
        gradient_of_phases(&b, &w);
        return;
    }
    while (b.wave_first < slices) {
        uint64_t count = wave_run(&b);
        /* slice 0 is in place already */
        w.slice_first = b.wave_first ? b.wave_first : 1;
        w.slice_count = b.wave_first + count - w.slice_first;
        b.wave_first += count;
        w.last = b.wave_first == slices;
        if (w.last || w.slice_count > 0)
            pool_run(s->pool, gradient_item, &w, w.items);
    }
}

static double blocks_sum(const double *blocks, uint64_t count)
{
    double sum = 0;
    for (uint64_t i = 0; i < count; i++)
        sum += blocks[i];
    return sum;
}

static void result_fill(const struct stepper *s, uint64_t rows, struct step_result *r)
{
    r->loss_sum = rows_sum(s->losses, rows);
    r->loss = r->loss_sum / (double)rows;
    r->penalty = blocks_sum(s->block_penalty, s->layout.blocks);
    r->gradient_norm = sqrt(blocks_sum(s->block_norm2, s->layout.blocks));
}

static int result_check(const struct step_result *r, uint64_t step, struct err *e)
{
    if (!isfinite(r->loss))
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "cannot take step %llu: the batch's loss is %g; nothing was updated; a lower "
            "learning rate or another data.scale may help",
            (unsigned long long)step, r->loss);
    if (!isfinite(r->gradient_norm) || !isfinite(r->penalty))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot take step %llu: the gradient's norm is %g (loss %g, penalty %g); "
                       "nothing was updated; a lower learning rate or a smaller lambda may help",
                       (unsigned long long)step, r->gradient_norm, r->loss, r->penalty);
    return 0;
}

/* The step's constants, in double until the end; torch clip_grad_norm_ and AdamW. */
static struct adamw_scalars adamw_scalars_make(const struct adamw_config *a, uint64_t t,
                                               double norm)
{
    double clip = a->max_grad_norm > 0 ? fmin(1.0, a->max_grad_norm / (norm + 1e-6)) : 1.0;
    return (struct adamw_scalars){
        .clip = (float)clip,
        .decay = (float)(a->learning_rate * a->weight_decay),
        .beta1 = (float)a->beta1,
        .one_beta1 = (float)(1.0 - a->beta1),
        .beta2 = (float)a->beta2,
        .one_beta2 = (float)(1.0 - a->beta2),
        .rate = (float)(a->learning_rate / (1.0 - pow(a->beta1, (double)t))),
        .root = (float)(1.0 / sqrt(1.0 - pow(a->beta2, (double)t))),
        .eps = (float)a->eps,
    };
}

int stepper_train(struct stepper *s, uint64_t rows, uint64_t step, uint64_t t,
                  const struct adamw_config *a, const struct ewc_term *terms, int term_count,
                  struct step_result *result, struct err *e)
{
    struct sweep update = sweep_make(s);
    ensure(s->config.with_optimizer && rows > 0 && rows <= s->config.batch_rows_max && t > 0);
    if (model_rows_check(s->model, rows, e) < 0)
        return -1;
    gradient_compute(s, rows, step, terms, term_count);
    result_fill(s, rows, result);
    if (result_check(result, step, e) < 0)
        return -1;
    statistics_take(s, 0);
    update.adamw = adamw_scalars_make(a, t, result->gradient_norm);
    pool_run(s->pool, update_item, &update, update.items);
    return 0;
}
