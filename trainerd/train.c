/* train.c - one optimizer step: gather and accumulate each micro-batch, update, advance the cursor,
 * record. Called by tasks.c while the state is TRAIN, a micro-batch a turn, or where no more rows
 * are to come as many as there is time for; nothing in here blocks, and nothing but the cursor
 * remembers that a step was made: a batch that was accumulated in part when the process died is
 * begun again.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "engine/device.h"
#include "proto/log.h"

static const double TURN_S = 0.001; /* so that control messages are answered */

void train_follow(struct trainer *t)
{
    const struct schedule *s = &t->schedule;
    uint32_t task = (uint32_t)t->meta.task;
    uint64_t epoch = t->meta.epoch, position = t->meta.position + t->batch.done + t->batch.gathered;
    if (!data_holds(t, &t->train, task))
        return; /* not yet: the stream is another task's, or being opened */
    if (position == s->rows[task]) {
        position = 0;
        epoch++;
        if (!t->options->loader_persistent_workers) {
            feed_rest(&t->train);
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
    t->batch.done = t->batch.gathered = 0;
}

static int step_make(struct trainer *t, uint64_t rows, struct err *e)
{
    const struct options *o = t->options;
    struct schedule_rates at =
        schedule_rates(o, &t->schedule, (uint32_t)t->meta.task, t->meta.epoch,
                       t->meta.task_step - (o->amp_schedule_on_skip ? 0 : t->meta.task_skipped),
                       t->meta.plateau_scale * t->meta.restore_scale);
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
    struct step_result r = {.loss = NAN};
    if (stepper_update(t->stepper, t->meta.task_step - t->meta.task_skipped + 1, &optimizer, &r,
                       e) < 0) {
        int goes_on = recover_step(t, rows, &r, e);
        if (goes_on <= 0)
            return goes_on;
        r.skipped = 1;
    }
    if (lineage_step(t, &r, e) < 0)
        return -1;
    if (r.skipped && !r.refused)
        log_info("step=%" PRIu64
                 " loss_scale=%g a scaled gradient is not finite: the step was skipped",
                 t->meta.step + 1, r.loss_scale);
    cursor_advance(t, rows, &r);
    progress_step(t, rows, at.rate, &r);
    return 0;
}

/* The micro-batch that has been gathered, into the gradient of a batch of `rows` rows. */
static void micro_batch_accumulate(struct trainer *t, uint64_t rows)
{
    struct batch *b = &t->batch;
    uint64_t key = schedule_dropout_key(&t->schedule, (uint32_t)t->meta.task, t->meta.task_step);
    if (!b->done && !t->meta.position)
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
    uint64_t position = t->meta.position + rows, all = t->schedule.rows[task];
    if (!t->device->apart || position == all)
        return;
    uint64_t next = schedule_batch_rows(&t->schedule, task, position);
    batch_look_ahead(t, &t->train_rows, schedule_epoch_key(&t->schedule, task, t->meta.epoch),
                     position, batch_micro_rows(t, t->options->batch_size, 0, next));
}

static int micro_batch_turn(struct trainer *t, int *sleep_ms, struct err *e)
{
    uint32_t task = (uint32_t)t->meta.task;
    if (t->meta.position == t->schedule.rows[task]) {
        progress_pause(t);
        megabatch_rest(&t->train_rows);
        return evaluate_begin(t, e) < 0 ? DAEMON_FAILED : DAEMON_GO_ON;
    }
    int there = data_train(t, task, e);
    if (there <= 0)
        return data_wait(there, sleep_ms);
    progress_run(t);
    batch_permute(t, task);
    if (!t->batch.gathered && dynamic_turn(t, e) < 0)
        return DAEMON_FAILED;
    uint64_t rows = schedule_batch_rows(&t->schedule, task, t->meta.position);
    uint64_t micro =
        batch_micro_rows(t, t->options->batch_size, t->batch.done, rows - t->batch.done);
    uint64_t epoch = schedule_epoch_key(&t->schedule, task, t->meta.epoch);
    int whole = batch_gather(t, &t->train_rows, &t->gather_train, epoch,
                             t->meta.position + t->batch.done, micro, e);
    if (whole < 0)
        return DAEMON_FAILED;
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
    if (step_make(t, rows, e) < 0 || save_if_due(t, e) < 0)
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
