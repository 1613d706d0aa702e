/* train.c - one optimizer step: gather and accumulate each micro-batch, update, advance the cursor,
 * record. Called by tasks.c while the state is TRAIN, a micro-batch a turn, or where no more rows
 * are to come as many as there is time for; nothing in here blocks, and nothing but the cursor
 * remembers that a step was made: a batch that was accumulated in part when the process died is
 * begun again. Where a device apart can be asked for a step ahead (engine/ahead.c), the cursor is
 * one step behind it until train_settle, which whoever looks at both calls first.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "engine/device.h"
#include "proto/log.h"
#include "trainerd/watch.h"

static const double TURN_S = 0.001; /* so that control messages are answered */

/* Where the step begins that is to be made: behind the one that was asked for. */
static uint64_t position_next(const struct trainer *t)
{
    return t->meta.position + t->ahead.rows;
}

void train_follow(struct trainer *t)
{
    const struct schedule *s = &t->schedule;
    uint32_t task = (uint32_t)t->meta.task;
    uint64_t epoch = t->meta.epoch;
    uint64_t position = position_next(t) + t->batch.done + t->batch.gathered;
    if (!data_holds(t, &t->train, task))
        return; /* not yet: the stream is another task's, or being opened */
    if (position == s->rows[task]) {
        position = 0;
        epoch++;
        if (!t->options->loader_persistent_workers) {
            megabatch_rest(&t->train_rows, 1);
            return;
        }
    }
    if (epoch == s->epochs[task]) { /* read ahead for the next task while this one is evaluated */
        epoch = 0;
        task++;
    }
    if (task < s->task_count && data_holds(t, &t->train, task))
        megabatch_seek(&t->train_rows, schedule_epoch_key(s, task, epoch), position,
                       schedule_epoch_key(s, task, s->epochs[task] - 1));
}

static int lineage_step(struct trainer *t, const struct step_result *r, struct err *e)
{
    uint32_t skipped = r->skipped ? LINEAGE_SKIPPED : 0;
    struct lineage_record before, now = {
                                      .step_plus_1 = t->meta.step + 1,
                                      .task_epoch = lineage_task_epoch(t->meta.task, t->meta.epoch),
                                      .position = t->meta.position,
                                      .micro_batch_rows = (uint32_t)t->micro_rows | skipped,
                                      .loss_bits = lineage_loss_bits(r->loss),
                                  };
    int differs = lineage_write(&t->lineage, &now, &before, e);
    if (differs <= 0 || t->lineage_differs)
        return differs < 0 ? -1 : 0;
    t->lineage_differs = 1;
    struct msg_event_determinism m = {.step = now.step_plus_1,
                                      .loss_before = lineage_loss(&before),
                                      .loss_now = lineage_loss(&now)};
    MSG_STR(m.sentence,
            "a step computed again after a restart gave another loss than before; the weights "
            "of this run are not reproducible bit for bit");
    return daemon_fact(t->daemon, MSG_event_determinism, &m, e);
}

static void cursor_advance(struct trainer *t, uint64_t rows, const struct step_result *r)
{
    t->meta.position += rows;
    t->meta.step++;
    t->meta.task_step++;
    t->meta.task_skipped += r->skipped;
    if (stepper_scaler(t->stepper)) {
        t->meta.loss_scale = (double)stepper_scaler(t->stepper)->scale;
        t->meta.scale_tracker = stepper_scaler(t->stepper)->tracker;
    }
    if (t->model.buffer_count && !r->refused)
        t->meta.batches_tracked += (rows + t->options->batch_size - 1) / t->options->batch_size;
    if (r->refused || r->empty)
        t->meta.epoch_rows_bad += rows;
    else
        t->meta.epoch_loss_sum += r->loss_sum;
}

/* A step is made: its results are known. */
static int step_count(struct trainer *t, const struct step_ahead *step, const struct step_result *r,
                      struct err *e)
{
    if (lineage_step(t, r, e) < 0)
        return -1;
    if (r->skipped && !r->refused)
        log_info("step=%" PRIu64
                 " loss_scale=%g a scaled gradient is not finite: the step was skipped",
                 t->meta.step + 1, r->loss_scale);
    cursor_advance(t, step->rows, r);
    progress_step(t, step->rows, step->rate, r);
    return 1;
}

/* As train_settle, of the oldest step that was asked for. */
static int step_take(struct trainer *t, const struct step_ahead *step, struct err *e)
{
    struct step_result r;
    int there = stepper_update_take(t->stepper, &r, e);
    if (there > 0)
        return step_count(t, step, &r, e);
    t->ahead = (struct step_ahead){0};
    t->batch.done = t->batch.gathered = 0;
    t->step_alone = 1;
    return there;
}

int train_settle(struct trainer *t, struct err *e)
{
    struct step_ahead step = t->ahead;
    t->ahead = (struct step_ahead){0};
    return step.rows ? step_take(t, &step, e) : 1;
}

/* With the host waiting for it. */
static int step_make_alone(struct trainer *t, const struct step_ahead *step, uint64_t number,
                           const struct optimizer_config *optimizer, struct err *e)
{
    struct step_result r = {.loss = NAN};
    t->step_alone = 0;
    if (stepper_update(t->stepper, number, optimizer, &r, e) < 0) {
        int goes_on = recover_step(t, step->rows, &r, e);
        if (goes_on <= 0)
            return goes_on;
        r.skipped = 1;
    }
    t->batch.done = t->batch.gathered = 0;
    return step_count(t, step, &r, e);
}

/* The batch is complete. Where that can be, and rows are there to make a step again, the device is
 * asked for it, and meanwhile the one before is taken. 1; 0: training goes on from another state;
 * -1. */
static int step_make(struct trainer *t, uint64_t rows, struct err *e)
{
    const struct options *o = t->options;
    int asks = stepper_asks(t->stepper) && !t->step_alone && megabatch_complete(&t->train_rows);
    int settled = asks ? 1 : train_settle(t, e);
    if (settled <= 0)
        return settled;
    uint64_t task_step = t->meta.task_step + (t->ahead.rows > 0);
    struct schedule_rates at =
        schedule_rates(o, &t->schedule, (uint32_t)t->meta.task, t->meta.epoch,
                       task_step - (o->amp_schedule_on_skip ? 0 : t->meta.task_skipped),
                       watch_scale(&t->meta, o) * t->meta.restore_scale);
    struct optimizer_config optimizer = {.learning_rate = at.rate,
                                         .backbone_rate = at.backbone_rate,
                                         .momentum = at.beta1,
                                         .nesterov = o->nesterov,
                                         .weight_decay = o->weight_decay,
                                         .beta1 = at.beta1,
                                         .beta2 = o->adam_beta2,
                                         .loss_max = o->loss_max,
                                         .eps = o->adam_eps,
                                         .max_grad_norm = o->max_grad_norm};
    struct step_ahead before = t->ahead, step = {.rows = rows, .rate = at.rate};
    uint64_t number = task_step - t->meta.task_skipped + 1;
    if (!asks)
        return step_make_alone(t, &step, number, &optimizer, e);
    stepper_update_ask(t->stepper, number, &optimizer);
    t->ahead = step;
    t->batch.done = t->batch.gathered = 0;
    return before.rows ? step_take(t, &before, e) : 1;
}

/* The micro-batch that has been gathered, into the gradient of a batch of `rows` rows. */
static void micro_batch_accumulate(struct trainer *t, uint64_t rows)
{
    struct batch *b = &t->batch;
    uint64_t key = schedule_dropout_key(&t->schedule, (uint32_t)t->meta.task,
                                        t->meta.task_step + (t->ahead.rows > 0));
    if (!b->done && !position_next(t))
        stepper_carried_clear(t->stepper); /* its rows begin with the epoch */
    if (!b->done)
        stepper_batch(t->stepper, rows, key, t->terms, t->term_count);
    stepper_accumulate(t->stepper, b->gathered);
    b->done += b->gathered;
    b->gathered = 0;
}

/* While the device computes this step: where the next one's first rows lie. */
static void look_ahead(struct trainer *t, uint64_t rows)
{
    uint32_t task = (uint32_t)t->meta.task;
    uint64_t position = position_next(t) + rows, all = t->schedule.rows[task];
    if (!t->device->apart || position == all)
        return;
    uint64_t next = schedule_batch_rows(&t->schedule, task, position);
    batch_look_ahead(t, &t->train_rows, schedule_epoch_key(&t->schedule, task, t->meta.epoch),
                     position, batch_micro_rows(t, t->options->batch_size, 0, next));
}

/* Is a row of this epoch used again, in a later one or by the next task? */
static int rows_come_again(const struct trainer *t)
{
    const struct schedule *s = &t->schedule;
    uint32_t task = (uint32_t)t->meta.task;
    return t->meta.epoch + 1 < s->epochs[task] ||
           (task + 1 < s->task_count && data_holds(t, &t->train, task + 1));
}

/* Where all rows are kept, the evaluation is not to begin while some are still to come: both
 * splits' arenas would be held together, which no plan has. */
static int epoch_end(struct trainer *t, int *sleep_ms, struct err *e)
{
    int again = t->options->loader_persistent_workers && rows_come_again(t);
    int whole = t->train_rows.size.kind == MEGABATCH_WHOLE;
    int settled = train_settle(t, e);
    if (settled <= 0)
        return settled < 0 ? DAEMON_FAILED : DAEMON_GO_ON;
    if (again && !megabatch_is_filled(&t->train_rows)) {
        *sleep_ms = 1000;
        return DAEMON_GO_ON;
    }
    progress_pause(t);
    if (!t->saving.under_way)            /* of which the thread reads */
        stepper_fetch_begin(t->stepper); /* the epoch's checkpoint, while it is evaluated */
    megabatch_rest(&t->train_rows, whole && !again);
    return evaluate_begin(t, e) < 0 ? DAEMON_FAILED : DAEMON_GO_ON;
}

/* But at an epoch's end, whose own checkpoint follows at once. */
static int save_if_due(struct trainer *t, struct err *e)
{
    if (position_next(t) == t->schedule.rows[t->meta.task] || !save_is_due(t))
        return 0;
    int settled = train_settle(t, e);
    return settled > 0 ? save_checkpoint(t, e) : settled;
}

/* *e says which row cannot be used. A step that was asked for before comes first; where it is
 * refused it is made again, and then the row is met again. */
static int gather_failed(struct trainer *t, struct err *e)
{
    struct err why;
    int settled = train_settle(t, &why);
    if (settled < 0)
        *e = why;
    return settled == 0 ? DAEMON_GO_ON : DAEMON_FAILED;
}

static int micro_batch_turn(struct trainer *t, int *sleep_ms, struct err *e)
{
    uint32_t task = (uint32_t)t->meta.task;
    if (position_next(t) == t->schedule.rows[task])
        return epoch_end(t, sleep_ms, e);
    int there = data_train(t, task, e);
    if (there <= 0)
        return data_wait(there, sleep_ms);
    progress_run(t);
    batch_permute(t, task);
    if (!t->batch.gathered && dynamic_turn(t, e) < 0)
        return DAEMON_FAILED;
    uint64_t position = position_next(t), rows = schedule_batch_rows(&t->schedule, task, position);
    uint64_t micro =
        batch_micro_rows(t, t->options->batch_size, t->batch.done, rows - t->batch.done);
    uint64_t epoch = schedule_epoch_key(&t->schedule, task, t->meta.epoch);
    int whole = batch_gather(t, &t->train_rows, &t->gather_train, epoch, position + t->batch.done,
                             micro, e);
    if (whole < 0)
        return gather_failed(t, e);
    progress_wait(t, !whole);
    train_follow(t);
    if (!whole) {
        *sleep_ms = megabatch_busy(&t->train_rows) ? 0 : 1000;
        return DAEMON_GO_ON;
    }
    micro_batch_accumulate(t, rows);
    if (t->batch.done < rows)
        return DAEMON_GO_ON;
    look_ahead(t, rows);
    int made = step_make(t, rows, e);
    if (made < 0 || (made > 0 && save_if_due(t, e) < 0))
        return DAEMON_FAILED;
    return DAEMON_GO_ON;
}

int train_turn(struct trainer *t, int *sleep_ms, struct err *e)
{
    double until_s = clock_monotonic_s() + TURN_S;
    int result;
    do
        result = micro_batch_turn(t, sleep_ms, e);
    while (result == DAEMON_GO_ON && t->state == TRAINER_TRAIN && !*sleep_ms &&
           megabatch_complete(&t->train_rows) && clock_monotonic_s() < until_s);
    return result;
}
