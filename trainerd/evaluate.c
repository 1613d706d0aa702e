/* evaluate.c - the metric of one or more tasks on the validation split, dropout off.
 *
 * After each epoch the task in training is evaluated; after its last one, all tasks so far are, and
 * the results go into the checkpoint that ends the task. Those of the weights that the run begins
 * with, where they are wanted, go into its first checkpoint. Where the first decides whether the
 * epoch is the last one, or with which weights the task ends (ending.c), the second comes after it.
 * Nothing of an evaluation is kept over a restart: it begins again, and gives the same.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "proto/weighing.h"

enum { BATCHES_A_TURN = 8 }; /* a few milliseconds, so that control messages are answered */

/* The validation stream is in file order in every epoch of it; each pass is one, so that reading
 * ahead for the next pass goes on after the last row of this one. */
static void follow(struct trainer *t)
{
    struct evaluation *v = &t->evaluation;
    uint64_t position = v->position + t->batch.gathered;
    if (!data_holds(t, &t->validation, v->list[v->index]))
        return; /* not yet */
    int done = position == t->validation.info.order.rows;
    if (done && v->index + 1 == v->count && !t->options->loader_persistent_workers)
        megabatch_rest(&t->validation_rows, 1);
    else
        megabatch_seek(&t->validation_rows, v->pass + (uint64_t)done, done ? 0 : position,
                       v->pass + 1);
}

static void pass_begin(struct trainer *t)
{
    struct evaluation *v = &t->evaluation;
    v->position = 0;
    v->pass++;
    stepper_evaluate_begin(t->stepper);
    if (t->options->data_stateful)
        stepper_pass_streams(t->stepper, t->data.set[t->data.set_of[v->list[v->index]]].batch_size);
    follow(t);
    snprintf(t->daemon->doing, sizeof t->daemon->doing,
             "task %s, epoch %" PRIu64 ": evaluating on %s", tasks_current(t)->name,
             t->meta.epoch + 1, t->options->tasks[v->list[v->index]].name);
}

/* A stop in the middle of a task's last evaluation has saved some of its results: they come again.
 */
static void results_drop(struct checkpoint_meta *m, const char *after)
{
    while (m->result_count && strcmp(m->results[m->result_count - 1].after, after) == 0)
        m->result_count--;
}

/* What the results are of: a task's name, or the word for the weights before all tasks. */
static const char *passes_after(const struct trainer *t)
{
    return t->evaluation.kind == EVALUATION_START ? CHECKPOINT_AFTER_NONE : tasks_current(t)->name;
}

static int passes_begin(struct trainer *t, enum evaluation_kind kind, struct err *e)
{
    struct evaluation *v = &t->evaluation;
    uint32_t task = (uint32_t)t->meta.task;
    v->index = 0;
    v->kind = kind;
    v->weights_sha256[0] = 0;
    v->count = 1;
    v->list[0] = epochs_key_task(t->options, task);
    results_drop(&t->meta, passes_after(t));
    if (kind == EVALUATION_END)
        v->count = schedule_evaluations(t->options, task, v->list);
    if (kind == EVALUATION_START)
        v->count = schedule_first_evaluations(t->options, v->list);
    if (kind != EVALUATION_EPOCH) {
        if (saving_fetch(t, e) < 0)
            return -1;
        if (checkpoint_parameters_digest(t->tensors, t->model.tensor_count, v->weights_sha256, e) <
            0)
            return -1;
    }
    t->batch.gathered = 0;
    t->state = TRAINER_EVALUATE;
    pass_begin(t);
    return 0;
}

int evaluate_begin(struct trainer *t, struct err *e)
{
    int last = t->meta.epoch + 1 == tasks_current(t)->epochs;
    return passes_begin(t, last && !ending_chooses(t) ? EVALUATION_END : EVALUATION_EPOCH, e);
}

int evaluate_first(struct trainer *t, struct err *e)
{
    return passes_begin(t, EVALUATION_START, e);
}

int evaluate_end(struct trainer *t, struct err *e)
{
    return passes_begin(t, EVALUATION_END, e);
}

static int pass_end(struct trainer *t, struct err *e)
{
    struct evaluation *v = &t->evaluation;
    struct evaluation_result done = stepper_evaluate_end(t->stepper);
    /* Where it keeps all rows and began in the middle, those missing come in the next pass. */
    megabatch_rest(&t->validation_rows, t->validation_rows.size.kind == MEGABATCH_WHOLE);
    if (isnan(done.loss)) {
        weighing_nothing(done.rows, e);
        return err_prefix(e, "%s of %s", t->validation.config.split, t->validation.config.file);
    }
    struct checkpoint_result r = {.value = done.metric, .loss = done.loss};
    snprintf(r.task, sizeof r.task, "%s", t->options->tasks[v->list[v->index]].name);
    snprintf(r.after, sizeof r.after, "%s", passes_after(t));
    snprintf(r.metric, sizeof r.metric, "%s", t->meta.metric);
    snprintf(r.weights_sha256, sizeof r.weights_sha256, "%s", v->weights_sha256);
    if (v->list[v->index] == epochs_key_task(t->options, (uint32_t)t->meta.task)) {
        v->own_value = r.value;
        v->own_loss = r.loss;
    }
    if (v->kind != EVALUATION_EPOCH) {
        ensure(t->meta.result_count < CHECKPOINT_RESULTS_MAX); /* schedule_check */
        t->meta.results[t->meta.result_count++] = r;
    }
    return progress_evaluation_fact(t, &r, done.rows, e);
}

/* 1: one more batch is done; 0: rows are missing, or training goes on from another state; -1. */
static int batch_evaluate(struct trainer *t, struct err *e)
{
    struct evaluation *v = &t->evaluation;
    uint64_t rows = batch_micro_rows(t, t->data.set[t->data.set_of[v->list[v->index]]].batch_size,
                                     v->position, t->validation.info.order.rows - v->position);
    int whole =
        batch_gather(t, &t->validation_rows, &t->gather_validation, v->pass, v->position, rows, e);
    if (whole <= 0) {
        follow(t);
        return whole;
    }
    if (stepper_evaluate(t->stepper, rows, e) < 0)
        return recover_evaluation(t, e);
    v->position += rows;
    t->batch.gathered = 0;
    follow(t);
    return 1;
}

/* After the task's own evaluation: once more, with all tasks so far, if that was its last epoch. */
static int passes_end(struct trainer *t, struct err *e)
{
    struct evaluation *v = &t->evaluation;
    int ends = v->kind == EVALUATION_END;
    if (v->kind == EVALUATION_START) {
        t->state = TRAINER_PROTECT;
        return 0;
    }
    int due = ends ? 0 : ending_due(t, v->own_value, v->own_loss, e);
    if (due < 0)
        return -1;
    if (!due)
        return tasks_epoch_end(t, v->own_value, v->own_loss, ends, e);
    int renew = ending_choose(t, v->own_value, e);
    if (renew > 0)
        ending_renew_begin(t);
    return renew > 0 ? 0 : renew < 0 ? -1 : evaluate_end(t, e);
}

int evaluate_turn(struct trainer *t, int *sleep_ms, struct err *e)
{
    struct evaluation *v = &t->evaluation;
    int there = data_validation(t, v->list[v->index], e);
    if (there <= 0)
        return data_wait(there, sleep_ms);
    batch_permute(t, v->list[v->index]); /* a stream that was opened just now has no order yet */
    for (int i = 0; i < BATCHES_A_TURN && v->position < t->validation.info.order.rows; i++) {
        int done = batch_evaluate(t, e);
        if (done < 0)
            return DAEMON_FAILED;
        if (!done) {
            int wait = t->state == TRAINER_EVALUATE && !megabatch_busy(&t->validation_rows);
            *sleep_ms = wait ? 1000 : 0;
            return DAEMON_GO_ON;
        }
    }
    if (v->position < t->validation.info.order.rows)
        return DAEMON_GO_ON;
    if (pass_end(t, e) < 0)
        return DAEMON_FAILED;
    if (++v->index < v->count) {
        pass_begin(t);
        return DAEMON_GO_ON;
    }
    return passes_end(t, e) < 0 ? DAEMON_FAILED : DAEMON_GO_ON;
}
