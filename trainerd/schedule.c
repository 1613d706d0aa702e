/* schedule.c - see schedule.h. Everything here is a pure function of options and row counts, so
 * that a restart finds every key again without having kept it.
 */
#include "trainerd/schedule.h"

#include <stdio.h>
#include <string.h>

#include "proto/checkpoint.h"

uint32_t schedule_evaluations(const struct options *o, uint32_t task,
                              uint32_t list[OPTION_TASKS_MAX])
{
    uint32_t count = 0, last = epochs_key_task(o, task), next = o->forward_transfer;
    for (uint32_t i = 0; i < o->task_count && (i <= last || next); i++) {
        if (o->tasks[i].comparison_of[0])
            continue;
        list[count++] = i;
        next -= i > last;
    }
    return count;
}

uint32_t schedule_first_evaluations(const struct options *o, uint32_t list[OPTION_TASKS_MAX])
{
    uint32_t count = 0;
    for (uint32_t i = 0; o->forward_transfer && i < o->task_count; i++)
        if (!o->tasks[i].comparison_of[0])
            list[count++] = i;
    return count;
}

static int comparison_check(const struct options *o, uint32_t task, struct err *e)
{
    const struct task_options *t = &o->tasks[task];
    const char *differs = options_comparison_differs(o, task);
    if (differs)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "task %s is a comparison of %s but has another value of %s; a comparison repeats its "
            "original without EWC, so give both the same",
            t->name, t->comparison_of, differs);
    if (t->ewc.count)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "task %s is a comparison of %s and names tasks in ewc; a comparison repeats its "
            "original without EWC, so leave its ewc empty",
            t->name, t->comparison_of);
    return 0;
}

/* Epochs of a task before those that are averaged. */
static uint64_t averaged_from(const struct options *o, const struct task_options *t)
{
    if (!o->use_swa)
        return t->epochs;
    if (o->swa_start_epoch)
        return o->swa_start_epoch;
    return t->epochs > 1 ? t->epochs * 9 / 10 : 1;
}

static int averaging_check(const struct options *o, const struct task_options *t, struct err *e)
{
    if (!o->use_swa || !o->swa_start_epoch || averaged_from(o, t) < t->epochs)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "training.swa_start_epoch %llu leaves no epoch of task %s to average: it has "
                   "%llu; accepted: fewer, or auto",
                   (unsigned long long)o->swa_start_epoch, t->name, (unsigned long long)t->epochs);
}

int schedule_averages_few(const struct options *o, uint32_t task, char *text, size_t bytes)
{
    const struct task_options *t = &o->tasks[task];
    unsigned long long from = averaged_from(o, t), epochs = t->epochs;
    if (!o->use_swa || from + 1 < epochs)
        return 0;
    if (from >= epochs)
        snprintf(text, bytes,
                 "task %s has one epoch, so training.use_swa averages nothing: it ends with the "
                 "weights of that epoch",
                 t->name);
    else if (epochs < 3)
        snprintf(text, bytes,
                 "of the %llu epochs of task %s training.use_swa averages the last alone, whose "
                 "weights it ends with; three are needed to average two",
                 epochs, t->name);
    else
        snprintf(text, bytes,
                 "of the %llu epochs of task %s training.use_swa averages the last alone, whose "
                 "weights it ends with (training.swa_start_epoch%s); with training.swa_start_epoch "
                 "%llu it averages two",
                 epochs, t->name, o->swa_start_epoch ? "" : " auto: the last tenth", epochs - 2);
    return 1;
}

int schedule_check(const struct options *o, struct err *e)
{
    uint32_t list[OPTION_TASKS_MAX];
    uint64_t results = schedule_first_evaluations(o, list);
    for (uint32_t i = 0; i < o->task_count; i++) {
        if (o->tasks[i].comparison_of[0] && comparison_check(o, i, e) < 0)
            return -1;
        if (averaging_check(o, &o->tasks[i], e) < 0)
            return -1;
        results += schedule_evaluations(o, i, list);
    }
    if (results > CHECKPOINT_RESULTS_MAX)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "the %u tasks make %llu evaluations at the ends of tasks and a checkpoint holds "
            "%d; split the list into several runs",
            o->task_count, (unsigned long long)results, CHECKPOINT_RESULTS_MAX);
    return 0;
}

static int task_open(struct schedule *s, const struct options *o, uint32_t i, uint64_t rows,
                     struct err *e)
{
    uint64_t batch_size = o->tasks[i].batch_size ? o->tasks[i].batch_size : o->batch_size;
    uint64_t batch_rows = batch_size * o->gradient_accumulation_steps;
    ensure(rows > 0 && batch_rows > 0);
    if (o->data_drop_last && rows < batch_size)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "data.drop_last leaves nothing of the %llu rows of task %s: they are fewer than the "
            "%llu of a batch; lower training.batch_size",
            (unsigned long long)rows, o->tasks[i].name, (unsigned long long)batch_size);
    if (o->data_drop_last)
        rows -= rows % batch_size; /* the last step may be of fewer batches */
    s->rows[i] = rows;
    s->batch_rows[i] = batch_rows;
    s->epoch_steps[i] = (rows - 1) / batch_rows + 1;
    s->key_task[i] = epochs_key_task(o, i);
    s->epochs[i] = o->tasks[i].epochs;
    s->averaged_from[i] = averaged_from(o, &o->tasks[i]);
    s->first_step[i + 1] = s->first_step[i] + s->epochs[i] * s->epoch_steps[i];
    return 0;
}

int schedule_open(struct schedule *s, const struct options *o, const uint64_t *rows, struct err *e)
{
    *s = (struct schedule){.task_count = o->task_count};
    for (uint32_t i = 0; i < o->task_count; i++)
        if (task_open(s, o, i, rows[i], e) < 0)
            return -1;
    return 0;
}

uint64_t schedule_steps(const struct schedule *s)
{
    return s->first_step[s->task_count];
}

uint64_t schedule_epoch_begin(const struct schedule *s, uint64_t task, uint64_t epoch)
{
    ensure(task < s->task_count);
    return s->first_step[task] + epoch * s->epoch_steps[task];
}

uint64_t schedule_batch_rows(const struct schedule *s, uint32_t task, uint64_t position)
{
    ensure(task < s->task_count && position < s->rows[task]);
    uint64_t left = s->rows[task] - position;
    return left < s->batch_rows[task] ? left : s->batch_rows[task];
}

uint64_t schedule_epoch_key(const struct schedule *s, uint32_t task, uint64_t epoch)
{
    return epochs_key(s->key_task[task], epoch);
}

/* constant and plateau: from 0 in equal steps, one an epoch. */
static double warmup_share(const struct options *o, uint64_t epoch)
{
    return epoch < o->warmup_epochs ? (double)(epoch + 1) / (double)o->warmup_epochs : 1;
}

/* Before weight averaging. */
static struct schedule_rates scheduled(const struct options *o, const struct schedule *s,
                                       uint32_t task, uint64_t epoch, uint64_t task_step)
{
    int sgd = strcmp(o->optimizer, "sgd") == 0;
    int kind = lr_schedule_kind_named(o->scheduler_type);
    struct lr_schedule rates = {
        .kind = kind < 0 ? LR_CONSTANT : (enum lr_schedule_kind)kind, /* plateau */
        .steps = s->epochs[task] * s->epoch_steps[task],
        .rate = o->learning_rate,
        .beta1 = sgd ? o->momentum : o->adam_beta1,
        .warmup_pct = o->warmup_pct,
        .div_factor = o->div_factor,
        .final_div_factor = o->final_div_factor,
        .cycle_momentum = o->cycle_momentum,
    };
    struct lr_point rest = lr_schedule_at(&rates, task_step), backbone = rest;
    if (o->backbone_lr > 0) {
        rates.rate = o->backbone_lr;
        backbone = lr_schedule_at(&rates, task_step);
    }
    double warm = rates.kind == LR_CONSTANT ? warmup_share(o, epoch) : 1;
    return (struct schedule_rates){
        .rate = rest.rate * warm, .backbone_rate = backbone.rate * warm, .beta1 = rest.beta1};
}

struct schedule_rates schedule_rates(const struct options *o, const struct schedule *s,
                                     uint32_t task, uint64_t epoch, uint64_t step, double scale)
{
    uint64_t from = s->averaged_from[task];
    struct schedule_rates r;
    if (epoch < from) {
        r = scheduled(o, s, task, epoch, step);
    } else {
        int linear = strcmp(o->swa_anneal, "linear") == 0;
        r = scheduled(o, s, task, from ? from - 1 : 0, from ? from * s->epoch_steps[task] - 1 : 0);
        r.rate = lr_averaging_at(r.rate, o->swa_lr, epoch - from + 1, o->swa_anneal_epochs, linear);
        r.backbone_rate = lr_averaging_at(r.backbone_rate, o->swa_lr, epoch - from + 1,
                                          o->swa_anneal_epochs, linear);
    }
    r.rate *= scale;
    r.backbone_rate *= scale;
    return r;
}

uint64_t schedule_dropout_key(const struct schedule *s, uint32_t task, uint64_t task_step)
{
    return s->first_step[s->key_task[task]] + task_step;
}
