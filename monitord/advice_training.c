/* advice_training.c - advice about how training goes: its rate, its waiting for data, and how it
 * does on rows that it was not trained on. See advice.h.
 *
 * Rate and waiting are looked at in windows of WINDOW_S of trainer.step messages. The first window
 * of a task, and of a start of trainerd, does not count: caches and the mega-batch are filled then.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "monitord/advice_private.h"
#include "monitord/history.h"
#include "proto/limits.h"

static const double WINDOW_S = 10;
static const double rate_times = 10;                     /* between slowest and fastest */
static const double wait_over = 0.30, wait_under = 0.15; /* of the time, in all windows kept */
static const double wait_slow = 0.50;  /* of a slow window: it waited, and did not compute slowly */
static const double loss_above = 0.05; /* of the best validation loss, and ... */
static const double loss_rise = 0.01;  /* ... of the task's first: what is nearly none is no loss */
static const uint32_t epochs_above = 3;

/* ---- rate ---- */

static void window_begin(struct advice *a, double unix_s)
{
    a->window = (struct advice_window){.began_unix_s = unix_s};
}

static void training_begin(struct advice *a, const struct msg_trainer_step *m)
{
    if (m->head.incarnation != a->incarnation)
        a->wait_count = 0;
    a->incarnation = m->head.incarnation;
    snprintf(a->task, sizeof a->task, "%s", m->task);
    a->windows = 0;
    a->step = m->step;
    a->slowest = INFINITY;
    a->fastest = 0;
    window_begin(a, m->head.time_s);
}

/* What helps depends on what was slow in the slowest window. */
static struct advice_help rate_help(const struct advice *a)
{
    if (a->slowest_wait > wait_slow)
        return (struct advice_help){"loader.num_workers",
                                    "waited for data: more loader.num_workers decode them faster, "
                                    "unless the disk is what is slow"};
    if (a->on_device)
        return (struct advice_help){"device",
                                    "computed slowly: where another program uses the GPU, device "
                                    "names one that is free"};
    return (struct advice_help){"training.threads",
                                "computed slowly: where other programs use the processors, fewer "
                                "training.threads than there are leave them some"};
}

static void rate_look(struct advice *a, double steps_per_s, double wait_share)
{
    if (steps_per_s <= a->slowest) {
        a->slowest = steps_per_s;
        a->slowest_wait = wait_share;
    }
    a->fastest = fmax(a->fastest, steps_per_s);
    if (!advice_due(a, ADVICE_RATE, a->slowest * rate_times <= a->fastest, 0))
        return;
    struct advice_help help = rate_help(a);
    double times = a->fastest / a->slowest;
    advice_say(a, ADVICE_RATE, times, rate_times, help.option,
               "task %s made between %.3g and %.3g it/s over %.0f s each, so that it may take %.0f "
               "times as long as it could; where it was slowest it %s",
               a->task, a->slowest, a->fastest, WINDOW_S, times, help.words);
}

/* ---- waiting for data ---- */

/* Are rows kept where there is room? gpu keeps them in a GPU's memory only. */
static int keeps_rows(const struct advice *a)
{
    const char *chunks = a->options->loader_use_chunk_loader;
    return strcmp(chunks, "true") == 0 || (a->on_device && strcmp(chunks, "gpu") == 0);
}

static void wait_say(struct advice *a, double share, double seconds)
{
    const struct options *o = a->options;
    char more[160];
    const char *option = "loader.num_workers";
    if (!keeps_rows(a)) {
        option = "loader.use_chunk_loader";
        snprintf(more, sizeof more, "loader.use_chunk_loader: true keeps the rows where they fit");
    } else if (!o->loader_persistent_workers) {
        option = "loader.persistent_workers";
        snprintf(more, sizeof more,
                 "loader.persistent_workers: true does not start the readers anew each epoch");
    } else {
        snprintf(more, sizeof more,
                 "a larger loader.num_workers (%" PRIu64
                 " now) decodes faster, a larger loader.prefetch_factor reads further ahead",
                 limits_decoders("", o->loader_num_workers));
    }
    advice_say(
        a, ADVICE_WAIT, share, wait_over, option,
        "%.0f %% of the last %.0f s of training went into waiting for data, in which nothing "
        "is computed; %s",
        100 * share, seconds, more);
}

static void wait_look(struct advice *a)
{
    const struct advice_window *w = &a->window;
    double seconds = 0, wait_s = 0;
    int over = a->wait_count + 1 >= ADVICE_WINDOWS;
    a->waits[a->wait_count++ % ADVICE_WINDOWS] = *w;
    for (uint32_t i = 0; over && i < ADVICE_WINDOWS; i++) {
        over = a->waits[i].wait_s > wait_over * a->waits[i].seconds;
        seconds += a->waits[i].seconds;
        wait_s += a->waits[i].wait_s;
    }
    if (advice_due(a, ADVICE_WAIT, over, w->wait_s < wait_under * w->seconds))
        wait_say(a, wait_s / seconds, seconds);
}

/* ---- windows ---- */

static void window_end(struct advice *a)
{
    const struct advice_window *w = &a->window;
    if (a->windows++ == 0 || w->seconds == 0)
        return;
    rate_look(a, (double)w->steps / w->seconds, w->wait_s / w->seconds);
    wait_look(a);
}

/* A message says how fast the steps of the last second or so were made. One behind a long wait is
 * alone where others are ten a second: each counts for the time that its steps took. */
static void window_add(struct advice *a, const struct msg_trainer_step *m)
{
    struct advice_window *w = &a->window;
    uint64_t steps = m->step > a->step ? m->step - a->step : 0; /* restored: they go back */
    a->step = m->step;
    w->steps += steps;
    w->seconds += (double)steps / m->steps_per_s;
    w->wait_s += m->wait_share * (double)steps / m->steps_per_s;
}

void advice_training_step(struct advice *a, const struct msg_trainer_step *m)
{
    if (m->head.incarnation != a->incarnation || strcmp(m->task, a->task) != 0)
        training_begin(a, m);
    if (m->steps_per_s <= 0)
        return; /* the first message of a start has none yet */
    window_add(a, m);
    if (m->head.time_s - a->window.began_unix_s < WINDOW_S)
        return;
    window_end(a);
    window_begin(a, m->head.time_s);
}

/* ---- gap of training and validation loss ---- */

static void gap_begin(struct advice *a, const char *task)
{
    snprintf(a->gap_task, sizeof a->gap_task, "%s", task);
    a->gap_epoch = a->best_epoch = a->above = 0;
}

static struct advice_help gap_help(const struct options *o)
{
    int last = strcmp(o->keep, "last") == 0;
    if (o->early_stopping_patience == 0)
        return (struct advice_help){
            "training.early_stopping_patience",
            last ? "training.early_stopping_patience: 3 ends a task that gets no better, and "
                   "training.keep: best ends it with the weights of its best epoch"
                 : "training.early_stopping_patience: 3 ends a task that gets no better"};
    if (last)
        return (struct advice_help){
            "training.keep",
            "training.keep: best ends the task with the weights of its best epoch"};
    return (struct advice_help){
        "training.weight_decay",
        "a larger training.weight_decay, more rows or a smaller model help"};
}

static void gap_look(struct advice *a, double training_loss, double loss, int quiet)
{
    double rise = loss - a->best_loss;
    int above = rise > loss_above * fabs(a->best_loss) && rise > loss_rise * fabs(a->first_loss) &&
                training_loss < a->best_training_loss;
    a->above = above ? a->above + 1 : 0;
    if (!advice_due(a, ADVICE_GAP, a->above >= epochs_above, 0) || quiet)
        return;
    struct advice_help help = gap_help(a->options);
    advice_say(
        a, ADVICE_GAP, loss - training_loss, a->best_loss - a->best_training_loss, help.option,
        "the validation loss of task %s, %.4g after epoch %" PRIu64 ", is %.4g after epoch %" PRIu64
        ", while the training loss fell from %.4g to %.4g: the task learns its rows by "
        "heart; %s",
        a->gap_task, a->best_loss, a->best_epoch, loss, a->gap_epoch, a->best_training_loss,
        training_loss, help.words);
}

/* One that was trained again after a death says nothing new. */
static void gap_epoch(struct advice *a, const struct msg_event_task *m, int quiet)
{
    struct msg_trainer_evaluation *v = &a->evaluated;
    if (strcmp(m->task, a->gap_task) != 0)
        gap_begin(a, m->task);
    int counts = m->epoch > a->gap_epoch && v->epoch == m->epoch && strcmp(v->after, m->task) == 0;
    v->epoch = 0;
    if (!counts || !isfinite(m->loss) || !isfinite(v->loss))
        return;
    a->gap_epoch = m->epoch;
    if (a->best_epoch == 0)
        a->first_loss = v->loss;
    if (a->best_epoch == 0 || v->loss < a->best_loss) {
        a->best_epoch = m->epoch;
        a->best_loss = v->loss;
        a->best_training_loss = m->loss;
        a->above = 0;
        return;
    }
    gap_look(a, m->loss, v->loss, quiet);
}

void advice_training_fact(struct advice *a, enum msg_type type, const union msg *m, int quiet)
{
    if (type == MSG_trainer_evaluation &&
        history_evaluation_counts(a->options, &a->evaluated, &m->trainer_evaluation))
        a->evaluated = m->trainer_evaluation;
    else if (type == MSG_event_task && strcmp(m->event_task.what, "epoch-end") == 0)
        gap_epoch(a, &m->event_task, quiet);
}
