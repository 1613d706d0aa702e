/* tasks.c - walking the task list: the only place that decides what comes next.
 *
 *   state     what is being done                     leaves for               a crash leaves
 *   OPENING   loaderd describes both splits          BEGIN at a task's        what it began with
 *             (setup.c)                              start, else PROTECT
 *   BEGIN     weights of the task: fresh, of a file, PROTECT, or EVALUATE     the end of the task
 *             or of the end of an earlier one;       before the run's first   before
 *             moments zero                           step
 *   PROTECT   Fisher information and theta* of the   TRAIN                    same; fisherd's files
 *             tasks in `ewc` (protection.c)
 *   TRAIN     an optimizer step a turn (train.c)     EVALUATE at the          a checkpoint at most
 *                                                    epoch's last row         checkpoint_every_s
 *   EVALUATE  the task's metric, at its end that of  TRAIN, BEGIN, DONE; or   as TRAIN
 *             all tasks so far (evaluate.c)          PROTECT; mostly through
 *                                                    a checkpoint
 *   RENEW     statistics of batchnorm for averaged   EVALUATE                 as EVALUATE
 *             weights (ending.c)
 *   DONE      -
 *
 * BEGIN is a pure function of the checkpoints at the ends of earlier tasks and of model.pretrained,
 * whose digest the cursor keeps, so a restart there needs no more.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "proto/log.h"
#include "proto/metric.h"
#include "trainerd/watch.h"

const struct task_options *tasks_current(const struct trainer *t)
{
    ensure(t->meta.task < t->options->task_count);
    return &t->options->tasks[t->meta.task];
}

/* A comparison does as its original. */
static int averaging_tell(struct trainer *t, struct err *e)
{
    char sentence[512];
    if (tasks_current(t)->comparison_of[0] ||
        !schedule_averages_few(t->options, (uint32_t)t->meta.task, sentence, sizeof sentence))
        return 0;
    return progress_training_fact(t, "average", NAN, sentence, e);
}

static int begin_turn(struct trainer *t, int *sleep_ms, struct err *e)
{
    const struct task_options *task = tasks_current(t);
    float *parameters = stepper_parameters(t->stepper);
    data_task(t);
    (void)sleep_ms;
    float *buffers = stepper_module_buffers(t->stepper);
    int fresh = strcmp(task->from, "start") == 0;
    if (fresh) {
        model_initialise(&t->model, t->options->seed, parameters);
        model_initialise_buffers(&t->model, buffers);
    }
    if ((fresh ? pretrained_load(t, parameters, buffers, e)
               : save_read_end(t, task->from, parameters, buffers, e)) < 0)
        return DAEMON_FAILED;
    t->meta.batches_tracked = fresh ? 0 : t->other.batches_tracked;
    stepper_moments_clear(t->stepper);
    stepper_send(t->stepper);
    if (stepper_scaler(t->stepper)) {
        struct step_config c = setup_step_config(t->options);
        grad_scaler_begin(stepper_scaler(t->stepper), &c.scaler);
    }
    t->meta.loss_scale = 0; /* until a step has used it */
    t->meta.scale_tracker = 0;
    snprintf(t->meta.task_name, sizeof t->meta.task_name, "%s", task->name);
    if (data_train(t, (uint32_t)t->meta.task, e) < 0) /* it is opened while other things are done */
        return DAEMON_FAILED;
    train_follow(t);
    progress_task_begin(t);
    if (progress_task_fact(t, PROGRESS_TASK_START, e) < 0 || averaging_tell(t, e) < 0)
        return DAEMON_FAILED;
    t->state = TRAINER_PROTECT;
    if (!t->meta.task && t->options->forward_transfer && evaluate_first(t, e) < 0)
        return DAEMON_FAILED;
    return DAEMON_GO_ON;
}

/* One sentence with the results after the last task that is no comparison. */
static void done_sentence(struct trainer *t)
{
    char *text = t->daemon->sentence, value[METRIC_TEXT_MAX];
    size_t room = sizeof t->daemon->sentence, used;
    const struct options *o = t->options;
    const char *after = o->tasks[epochs_key_task(o, o->task_count - 1)].name;
    used = (size_t)snprintf(text, room,
                            "tasks trained: %u, steps made: %" PRIu64 "; after %s:", o->task_count,
                            t->meta.step - t->meta.steps_skipped, after);
    for (uint32_t i = 0, shown = 0; i < t->meta.result_count && used < room; i++) {
        const struct checkpoint_result *r = &t->meta.results[i];
        if (strcmp(r->after, after) == 0)
            used += (size_t)snprintf(text + used, room - used, "%s %s %s on %s", shown++ ? "," : "",
                                     r->metric, metric_format(value, r->metric, r->value), r->task);
    }
}

static int done_turn(struct trainer *t, int *sleep_ms, struct err *e)
{
    (void)sleep_ms, (void)e;
    done_sentence(t);
    return DAEMON_FINISHED;
}

static int task_end(struct trainer *t, struct err *e)
{
    if (progress_task_fact(t, PROGRESS_TASK_END, e) < 0)
        return -1;
    t->meta.task++;
    t->meta.epoch = 0;
    t->meta.moment_steps = t->meta.task_step - t->meta.task_skipped;
    t->meta.task_step = t->meta.task_skipped = 0;
    /* steps are places in the run's schedule: what a task that ended early left out is skipped */
    t->meta.steps_skipped += t->schedule.first_step[t->meta.task] - t->meta.step;
    t->meta.step = t->schedule.first_step[t->meta.task];
    t->meta.best_value = NAN;
    watch_begin(&t->meta, t->options);
    t->meta.average_count = 0;
    t->meta.average_sha256[0] = 0;
    t->meta.restores = t->meta.bad_steps = 0;
    t->meta.restore_scale = 1;
    t->weights_chosen = 0;
    int more = t->meta.task < t->options->task_count;
    snprintf(t->meta.task_name, sizeof t->meta.task_name, "%s", more ? tasks_current(t)->name : "");
    protection_free(t);
    t->state = more ? TRAINER_BEGIN : TRAINER_DONE;
    return 0;
}

/* What a task keeps from one epoch to the next. */
static int epoch_watch(struct trainer *t, double value, double loss, struct err *e)
{
    char sentence[512];
    double watched = watch_value(t->options, value, loss);
    if (ending_average(t, e) < 0)
        return -1;
    if (!watch_epoch(&t->meta, t->options, watched))
        return 0;
    snprintf(sentence, sizeof sentence,
             "task %s, epoch %" PRIu64 ": %" PRIu64 " epochs without a better %s than %.6g; from "
             "now on the rate is %g of the schedule's",
             tasks_current(t)->name, t->meta.epoch + 1, t->options->plateau_patience + 1,
             t->options->watch, t->meta.plateau_best, t->meta.plateau_scale);
    return progress_training_fact(t, "plateau", watched, sentence, e);
}

int tasks_epoch_end(struct trainer *t, double value, double loss, int last, struct err *e)
{
    if (!last && epoch_watch(t, value, loss, e) < 0)
        return -1;
    t->meta.epoch++;
    int is_best = metric_better(t->meta.metric, value, t->meta.best_value);
    if (is_best)
        t->meta.best_value = value;
    if (progress_task_fact(t, PROGRESS_EPOCH_END, e) < 0)
        return -1;
    if (last && task_end(t, e) < 0)
        return -1;
    t->meta.position = 0;
    t->meta.epoch_loss_sum = 0;
    t->meta.epoch_rows_bad = 0;
    if (save_epoch(t, last || is_best, e) < 0)
        return -1;
    uint64_t every = t->options->empty_cache_every_n_epochs;
    if (every && !last && t->meta.epoch % every == 0)
        data_give_back(t, 1);
    progress_epoch_begin(t);
    if (!last)
        t->state = TRAINER_TRAIN;
    return 0;
}

static int feeds_pump(struct trainer *t, struct err *e)
{
    if (feed_pump(&t->train, e) < 0)
        return err_prefix(e, "training rows");
    if (feed_pump(&t->validation, e) < 0)
        return err_prefix(e, "validation rows");
    return 0;
}

enum { SAVING_LOOK_MS = 10 }; /* is a checkpoint there that is written behind training? */

static int timeout_less(int a, int b)
{
    return b >= 0 && (a < 0 || b < a) ? b : a;
}

/* What wakes the loop before sleep_ms is over. */
static void sleep_prepare(struct trainer *t, int *sleep_ms)
{
    struct daemon *d = t->daemon;
    d->extra_count = feed_poll_items(&t->train, d->extra);
    d->extra_count += feed_poll_items(&t->validation, d->extra + d->extra_count);
    if (t->fisher.dealer.socket)
        d->extra[d->extra_count++] = (struct link_poll_item){.link = &t->fisher.dealer, .fd = -1};
    *sleep_ms = timeout_less(*sleep_ms, feed_timeout_ms(&t->train));
    *sleep_ms = timeout_less(*sleep_ms, feed_timeout_ms(&t->validation));
    if (t->saving.under_way)
        *sleep_ms = timeout_less(*sleep_ms, SAVING_LOOK_MS);
}

double tasks_deadline(const struct options *o)
{
    struct stat st;
    struct timespec now;
    double left = o->max_hours * 3600;
    if (o->max_hours == 0)
        return 0;
    /* finetune.sh writes the file at each launch; a stage that is started by hand is its own */
    if (getenv("FINETUNED_LAUNCH") && stat("launch", &st) == 0) {
        clock_gettime(CLOCK_REALTIME, &now);
        left -= (double)(now.tv_sec - st.st_mtim.tv_sec) +
                1e-9 * (double)(now.tv_nsec - st.st_mtim.tv_nsec);
    }
    return clock_monotonic_s() + left;
}

/* Between two turns: what is in memory is the state between two steps, or can be computed again. */
static int time_is_over(struct trainer *t, struct err *e)
{
    char sentence[256];
    struct err why;
    err_set(e, EXIT_CODE_PAUSED,
            "training.max_hours (%g) is over; the same command goes on from the newest checkpoint",
            t->options->max_hours);
    snprintf(sentence, sizeof sentence, "%.250s", e->text);
    if (train_settle(t, &why) < 0 || (t->state > TRAINER_BEGIN && save_checkpoint(t, &why) < 0) ||
        saving_end(t, &why) < 0 || progress_training_fact(t, "time", NAN, sentence, &why) < 0)
        *e = why;
    return DAEMON_FAILED;
}

/* What control messages asked for, between two steps. Rows of a batch in work are not given back:
 * where one of them cannot be used it is looked at again when the step is done. */
static int asked_turn(struct trainer *t, struct err *e)
{
    int saves = t->checkpoint_asked && t->state > TRAINER_BEGIN;
    int releases = t->release_asked && !t->batch.gathered && !t->batch.done;
    if ((saves || releases) && train_settle(t, e) < 0)
        return -1;
    if (releases) {
        data_give_back(t, 1);
        t->release_asked = 0;
    }
    if (!saves)
        return 0;
    t->checkpoint_asked = 0;
    return t->state == TRAINER_DONE ? 0 : save_checkpoint(t, e);
}

int tasks_turn(struct trainer *t, int *sleep_ms, struct err *e)
{
    static int (*const turn_of[])(struct trainer *, int *, struct err *) = {
        [TRAINER_OPENING] = setup_turn,      [TRAINER_BEGIN] = begin_turn,
        [TRAINER_PROTECT] = protection_turn, [TRAINER_TRAIN] = train_turn,
        [TRAINER_EVALUATE] = evaluate_turn,  [TRAINER_RENEW] = ending_renew_turn,
        [TRAINER_DONE] = done_turn,
    };
    *sleep_ms = 0;
    t->daemon->extra_count = 0;
    if (t->state != TRAINER_DONE && feeds_pump(t, e) < 0)
        return DAEMON_FAILED;
    if (saving_turn(t, e) < 0)
        return DAEMON_FAILED;
    if (asked_turn(t, e) < 0)
        return DAEMON_FAILED;
    if (t->deadline_s != 0 && t->state != TRAINER_DONE && clock_monotonic_s() >= t->deadline_s)
        return time_is_over(t, e);
    int result = turn_of[t->state](t, sleep_ms, e);
    if (result == DAEMON_GO_ON && *sleep_ms)
        sleep_prepare(t, sleep_ms);
    return result;
}
