/* ending.c - the weights that a task ends with: its last ones, those of its best epoch, or the
 * average of several epochs.
 *
 * Where they are not the last ones the state at the epoch's last step is saved first, and nothing
 * between that and the end of the task: what is in memory meanwhile is no state of training. A
 * death in between goes on from that checkpoint and chooses the same weights again.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "proto/metric.h"
#include "trainerd/average.h"
#include "trainerd/watch.h"

int ending_chooses(const struct trainer *t)
{
    return t->options->use_swa || strcmp(t->options->keep, "best") == 0;
}

int ending_due(struct trainer *t, double value, double loss, struct err *e)
{
    const struct task_options *task = tasks_current(t);
    const struct options *o = t->options;
    if (t->meta.epoch + 1 == task->epochs)
        return 1;
    if (!watch_stops(&t->meta, o, watch_value(o, value, loss)))
        return 0;
    char sentence[512];
    snprintf(sentence, sizeof sentence,
             "task %s ends with epoch %" PRIu64 " of %" PRIu64 ": %" PRIu64
             " epochs without a better %s than %.6g",
             task->name, t->meta.epoch + 1, task->epochs, o->early_stopping_patience, o->watch,
             t->meta.stop_best);
    return progress_training_fact(t, "early-stop", watch_value(o, value, loss), sentence, e) < 0
               ? -1
               : 1;
}

/* Where the average at the end of an epoch stands. */
static struct average average_at(const struct trainer *t, uint64_t epochs)
{
    const struct checkpoint_meta *m = &t->meta;
    struct average a = {.step = schedule_epoch_begin(&t->schedule, m->task, epochs),
                        .task = m->task,
                        .count = m->average_count};
    memcpy(a.sha256, m->average_sha256, sizeof a.sha256);
    return a;
}

/* With other options averaging begins later than it had: its epochs would not follow each other. */
static int average_give_up(struct trainer *t, struct err *e)
{
    struct checkpoint_meta *m = &t->meta;
    char sentence[512];
    uint64_t count = m->average_count;
    if (!count)
        return 0;
    snprintf(sentence, sizeof sentence,
             "task %s, epoch %" PRIu64 ": the average of the weights at the ends of %" PRIu64
             " epochs so far is given up; of %" PRIu64
             " epochs it begins behind the first %" PRIu64,
             tasks_current(t)->name, m->epoch + 1, count, tasks_current(t)->epochs,
             t->schedule.averaged_from[m->task]);
    m->average_count = 0;
    m->average_sha256[0] = 0;
    return progress_training_fact(t, "average", (double)count, sentence, e);
}

int ending_average(struct trainer *t, struct err *e)
{
    struct checkpoint_meta *m = &t->meta;
    if (m->epoch < t->schedule.averaged_from[m->task])
        return average_give_up(t, e);
    struct average now = average_at(t, m->epoch), next = average_at(t, m->epoch + 1);
    if (saving_fetch(t, e) < 0)
        return -1;
    if (average_add(&now, &next, stepper_parameters(t->stepper), t->model.parameter_count, e) < 0)
        return -1;
    m->average_count = next.count;
    memcpy(m->average_sha256, next.sha256, sizeof m->average_sha256);
    return 0;
}

static int average_take(struct trainer *t, struct err *e)
{
    struct average a = average_at(t, t->meta.epoch + 1);
    char sentence[512];
    if (!a.count) {
        snprintf(sentence, sizeof sentence,
                 "task %s ends after %" PRIu64
                 " epochs, none of which training.use_swa averages: it does behind the first "
                 "%" PRIu64 "; its weights are those of its last epoch",
                 tasks_current(t)->name, t->meta.epoch + 1,
                 t->schedule.averaged_from[t->meta.task]);
        return progress_training_fact(t, "average", 0, sentence, e);
    }
    if (saving_fetch(t, e) < 0)
        return -1;
    if (average_read(&a, stepper_parameters(t->stepper), t->model.parameter_count, e) < 0)
        return -1;
    stepper_send(t->stepper);
    snprintf(sentence, sizeof sentence,
             "task %s ends with the average of the weights at the ends of %" PRIu64 " epochs",
             tasks_current(t)->name, a.count);
    return progress_training_fact(t, "weights", (double)a.count, sentence, e);
}

/* `value` is the last epoch's. */
static int best_take(struct trainer *t, double value, struct err *e)
{
    char sentence[512], best[METRIC_TEXT_MAX], last[METRIC_TEXT_MAX];
    const char *metric = t->meta.metric;
    if (metric_better(metric, value, t->meta.best_value))
        return 0;
    if (save_read_best(t, e) < 0)
        return -1;
    t->meta.batches_tracked = t->other.batches_tracked;
    snprintf(sentence, sizeof sentence,
             "task %s ends with the weights of its epoch %" PRIu64
             " (%s %s), not those of its last "
             "one (%s)",
             tasks_current(t)->name, t->other.epoch, metric,
             metric_format(best, metric, t->meta.best_value), metric_format(last, metric, value));
    return progress_training_fact(t, "weights", t->meta.best_value, sentence, e);
}

int ending_choose(struct trainer *t, double value, struct err *e)
{
    if (!ending_chooses(t))
        return 0;
    if (save_checkpoint(t, e) < 0)
        return -1;
    t->weights_chosen = 1;
    if (!t->options->use_swa)
        return best_take(t, value, e);
    if (ending_average(t, e) < 0 || average_take(t, e) < 0)
        return -1;
    return t->meta.average_count && t->model.buffer_count;
}

void ending_renew_begin(struct trainer *t)
{
    t->renewal_position = 0;
    t->batch.gathered = 0;
    t->meta.batches_tracked = 0;
    stepper_renew_begin(t->stepper);
    if (t->options->data_stateful)
        stepper_pass_streams(t->stepper, options_batch_rows(t->options));
    t->state = TRAINER_RENEW;
    snprintf(t->daemon->doing, sizeof t->daemon->doing,
             "task %s: the statistics of batchnorm for the average of its weights",
             tasks_current(t)->name);
}

/* The order of the epoch that was trained last, in micro-batches; dropout as in the steps that
 * would come next. */
int ending_renew_turn(struct trainer *t, int *sleep_ms, struct err *e)
{
    uint32_t task = (uint32_t)t->meta.task;
    uint64_t all = t->schedule.rows[task];
    int there = data_train(t, task, e);
    if (there <= 0)
        return data_wait(there, sleep_ms);
    uint64_t rows =
        batch_micro_rows(t, t->options->batch_size, t->renewal_position, all - t->renewal_position);
    uint64_t epoch = schedule_epoch_key(&t->schedule, task, t->meta.epoch);
    uint64_t key = schedule_dropout_key(&t->schedule, task, t->meta.task_step);
    batch_permute(t, task);
    megabatch_seek(&t->train_rows, epoch, t->renewal_position + t->batch.gathered, epoch);
    int whole =
        batch_gather(t, &t->train_rows, &t->gather_train, epoch, t->renewal_position, rows, e);
    if (whole < 0)
        return DAEMON_FAILED;
    if (!whole) {
        megabatch_seek(&t->train_rows, epoch, t->renewal_position + t->batch.gathered, epoch);
        *sleep_ms = megabatch_busy(&t->train_rows) ? 0 : 1000;
        return DAEMON_GO_ON;
    }
    if (stepper_renew(t->stepper, rows, key + t->meta.batches_tracked, e) < 0)
        return DAEMON_FAILED;
    t->meta.batches_tracked++;
    t->renewal_position += rows;
    t->batch.gathered = 0;
    if (t->renewal_position < all)
        return DAEMON_GO_ON;
    return evaluate_end(t, e) < 0 ? DAEMON_FAILED : DAEMON_GO_ON;
}
