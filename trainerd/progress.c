/* progress.c - what the world hears while training goes on: trainer.step, and the facts of tasks
 * and epochs.
 *
 * Two clocks: the training clock runs while steps are made (evaluation and checkpoints stop it) and
 * gives rates and the seconds of event.task; the wall clock decides when to publish. Where training
 * goes on from a checkpoint inside an epoch, the training clock goes on from what that has.
 */
#include "trainerd/trainer.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "proto/log.h"

static const double PUBLISH_EVERY_S = 0.1, WAIT_TOLD_S = 1;

static double training_seconds(const struct progress *p, double now_s)
{
    return p->seconds + (p->running_since_s != 0 ? now_s - p->running_since_s : 0);
}

static void point_add(struct progress *p, double now_s)
{
    struct rate_point point = {.time_s = training_seconds(p, now_s),
                               .wait_s = p->wait_s,
                               .steps = p->steps,
                               .rows = p->rows};
    rate_add(&p->rate, &point);
    p->published_s = now_s;
}

void progress_open(struct trainer *t)
{
    t->progress.statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
}

void progress_close(struct trainer *t)
{
    if (t->progress.statm >= 0)
        close(t->progress.statm);
    t->progress.statm = -1;
}

void progress_run(struct trainer *t)
{
    struct progress *p = &t->progress;
    if (p->running_since_s != 0)
        return;
    p->running_since_s = clock_monotonic_s();
    if (!p->rate.count)
        point_add(p, p->running_since_s);
}

void progress_pause(struct trainer *t)
{
    struct progress *p = &t->progress;
    progress_wait(t, 0);
    p->seconds = training_seconds(p, clock_monotonic_s());
    p->running_since_s = 0;
}

void progress_wait(struct trainer *t, int missing)
{
    struct progress *p = &t->progress;
    if (missing && p->wait_since_s == 0)
        p->wait_since_s = clock_monotonic_s();
    else if (missing && clock_monotonic_s() - p->wait_since_s > WAIT_TOLD_S)
        snprintf(t->daemon->doing, sizeof t->daemon->doing,
                 "task %s, epoch %" PRIu64 " of %" PRIu64 ": waiting for rows from loaderd",
                 tasks_current(t)->name, t->meta.epoch + 1, tasks_current(t)->epochs);
    if (!missing && p->wait_since_s != 0) {
        p->wait_s += clock_monotonic_s() - p->wait_since_s;
        p->wait_since_s = 0;
    }
}

static uint64_t resident_bytes(const struct progress *p)
{
    char text[128];
    ssize_t n = p->statm < 0 ? -1 : pread(p->statm, text, sizeof text - 1, 0);
    unsigned long long pages = 0;
    if (n <= 0)
        return 0;
    text[n] = 0;
    return sscanf(text, "%*u %llu", &pages) == 1 ? pages * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static void step_publish(struct trainer *t, double rate, const struct step_result *r, double now_s)
{
    const struct task_options *task = tasks_current(t);
    struct progress *p = &t->progress;
    struct msg_trainer_step m = {.epoch = t->meta.epoch + 1,
                                 .epochs = task->epochs,
                                 .step = t->meta.step,
                                 .steps = schedule_steps(&t->schedule),
                                 .loss = r->loss,
                                 .penalty = r->penalty,
                                 .learning_rate = rate,
                                 .gradient_norm = r->gradient_norm,
                                 .loss_scale = r->loss_scale,
                                 .skipped_steps = t->meta.task_skipped,
                                 .rss_bytes = resident_bytes(p)};
    compute_measure(t, &m);
    point_add(p, now_s);
    rate_read(&p->rate, &m.steps_per_s, &m.samples_per_s, &m.wait_share);
    m.eta_s = m.steps_per_s > 0 ? (double)(m.steps - m.step) / m.steps_per_s : NAN;
    MSG_STR(m.task, task->name);
    daemon_publish(t->daemon, MSG_trainer_step, &m);
    snprintf(t->daemon->doing, sizeof t->daemon->doing,
             "task %s, epoch %" PRIu64 " of %" PRIu64 ", step %" PRIu64 " of %" PRIu64
             ": %.0f steps/s, loss %.4g",
             task->name, m.epoch, m.epochs, m.step, m.steps, m.steps_per_s, m.loss);
}

void progress_step(struct trainer *t, uint64_t rows, double rate, const struct step_result *r)
{
    struct progress *p = &t->progress;
    double now_s = clock_monotonic_s();
    p->steps++;
    p->rows += rows;
    if (now_s - p->published_s >= PUBLISH_EVERY_S ||
        t->meta.position == t->schedule.rows[t->meta.task])
        step_publish(t, rate, r, now_s);
}

static struct progress_mark mark_now(const struct progress *p)
{
    return (struct progress_mark){
        .rows = p->rows, .seconds = training_seconds(p, clock_monotonic_s()), .wait_s = p->wait_s};
}

void progress_epoch_begin(struct trainer *t)
{
    t->progress.epoch = mark_now(&t->progress);
}

void progress_task_begin(struct trainer *t)
{
    t->progress.task = t->progress.epoch = mark_now(&t->progress);
}

/* What is saved at an epoch's end is that of equal runs byte for byte. */
void progress_keep(struct trainer *t)
{
    const struct progress_mark *since = &t->progress.epoch;
    struct progress_mark now = t->meta.position ? mark_now(&t->progress) : *since;
    t->meta.epoch_rows_timed = now.rows - since->rows;
    t->meta.epoch_seconds = now.seconds - since->seconds;
    t->meta.epoch_wait_seconds = now.wait_s - since->wait_s;
}

void progress_resume(struct trainer *t)
{
    struct progress *p = &t->progress;
    p->rows = t->meta.epoch_rows_timed;
    p->seconds = t->meta.epoch_seconds;
    p->wait_s = t->meta.epoch_wait_seconds;
    p->epoch = p->task = (struct progress_mark){0};
}

int progress_task_fact(struct trainer *t, enum progress_fact what, struct err *e)
{
    static const char *const words[] = {"task-start", "epoch-end", "task-end"};
    struct progress_mark now = mark_now(&t->progress);
    const struct progress_mark *since =
        what == PROGRESS_EPOCH_END ? &t->progress.epoch : &t->progress.task;
    struct msg_event_task m = {.epoch = t->meta.epoch,
                               .step = t->meta.step,
                               .rows = now.rows - since->rows,
                               .seconds = now.seconds - since->seconds,
                               .wait_seconds = now.wait_s - since->wait_s,
                               .loss = NAN};
    if (what != PROGRESS_TASK_START)
        m.loss = t->meta.epoch_loss_sum /
                 (double)(t->schedule.rows[t->meta.task] - t->meta.epoch_rows_bad);
    MSG_STR(m.what, words[what]);
    MSG_STR(m.task, tasks_current(t)->name);
    return daemon_fact(t->daemon, MSG_event_task, &m, e);
}

int progress_training_fact(struct trainer *t, const char *what, double value, const char *sentence,
                           struct err *e)
{
    struct msg_event_training m = {.epoch = t->meta.epoch, .step = t->meta.step, .value = value};
    MSG_STR(m.what, what);
    MSG_STR(m.task, t->meta.task_name);
    MSG_STR(m.sentence, sentence);
    log_info("%s", sentence);
    return daemon_fact(t->daemon, MSG_event_training, &m, e);
}

int progress_evaluation_fact(struct trainer *t, const struct checkpoint_result *r, uint64_t rows,
                             struct err *e)
{
    enum evaluation_kind kind = t->evaluation.kind;
    struct msg_trainer_evaluation m = {.epoch = kind == EVALUATION_START ? 0 : t->meta.epoch + 1,
                                       .value = r->value,
                                       .loss = r->loss,
                                       .rows = rows,
                                       .final = kind == EVALUATION_END};
    MSG_STR(m.task, r->task);
    MSG_STR(m.after, r->after);
    MSG_STR(m.metric, r->metric);
    return daemon_fact(t->daemon, MSG_trainer_evaluation, &m, e);
}
