/* recover.c - a step whose loss or gradient is no number, or a loss beyond training.loss_max: what
 * is said, and going back.
 *
 * The step changed nothing. With training.on_nan: skip the run goes on with the next one: the
 * cursor passes over the batch's rows, the optimizer's count and, unless amp_schedule_on_skip, the
 * schedule do not, and neither does the mean of the epoch's losses; how often that happened is in
 * the cursor. With training.on_nan: restore the run goes back to the end of the epoch before
 * (checkpoints/restore.h5; never to a checkpoint inside the epoch, which are made by the clock),
 * and from there on the task's rates are multiplied by restore_factor: doing the same again would
 * end the same. How often that happened is in the checkpoint, which is written again before
 * anything else is done, so a restart neither forgets it nor goes back for ever. In the run's first
 * epoch it begins anew. The lineage of what is left behind is cut off.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/layer.h"

/* Names the layer and the rows of the file. */
static void fault_describe(const struct trainer *t, char *text, size_t bytes)
{
    const struct step_fault *f = stepper_fault(t->stepper);
    const struct order *order = &t->train.info.order;
    uint32_t task = (uint32_t)t->meta.task;
    uint64_t epoch = schedule_epoch_key(&t->schedule, task, t->meta.epoch);
    uint64_t at = t->meta.position + f->row;
    size_t used = 0;
    text[0] = 0;
    if (!f->rows)
        return;
    if (f->layer >= 0)
        used = (size_t)snprintf(text, bytes, "; it came up first in the %s of layer %d (%s)",
                                f->backward ? "gradient" : "output", f->layer,
                                t->model.layers[f->layer].type->name);
    else
        used = (size_t)snprintf(text, bytes, "; it came up first in the loss");
    if (f->rows == 1)
        snprintf(text + used, bytes - used, ", row %" PRIu64 " of %s in the file",
                 order_file_row(order, epoch, at), t->train.config.split);
    else
        snprintf(text + used, bytes - used,
                 ", positions %" PRIu64 " to %" PRIu64 " of the epoch (row %" PRIu64
                 " of %s in the file and those after it in the order)",
                 at, at + f->rows - 1, order_file_row(order, epoch, at), t->train.config.split);
}

/* *e with step, task, layer and rows. */
static void error_describe(struct trainer *t, uint64_t rows, struct err *e)
{
    char fault[512];
    size_t used = strlen(e->text);
    fault_describe(t, fault, sizeof fault);
    snprintf(e->text + used, sizeof e->text - used, "%s", fault);
    err_prefix(e, "step %" PRIu64 " of task %s, rows %" PRIu64 " to %" PRIu64 " of epoch %" PRIu64,
               t->meta.step + 1, tasks_current(t)->name, t->meta.position,
               t->meta.position + rows - 1, t->meta.epoch + 1);
}

/* Is the checkpoint at `path`, if there is one, the state with which the present epoch began? */
static int is_epoch_begin(struct trainer *t, const char *path)
{
    const struct checkpoint_meta *m = &t->meta, *other = &t->other;
    struct err why;
    if (access(path, F_OK) != 0 || checkpoint_read_meta(path, &t->other, NULL, 0, &why) < 0)
        return 0;
    return other->task == m->task && other->epoch == m->epoch && !other->position;
}

/* Where to go back to: t->resume_path, empty for the run's beginning. restore.h5 may be of another
 * epoch: the run went on with another on_nan, or from an older checkpoint. */
static int target_find(struct trainer *t, struct err *e)
{
    const struct checkpoint_meta *m = &t->meta;
    retention_restore_path(t->resume_path);
    if (is_epoch_begin(t, t->resume_path))
        return 0;
    retention_step_path(t->resume_path, schedule_epoch_begin(&t->schedule, m->task, m->epoch),
                        m->task);
    if (is_epoch_begin(t, t->resume_path))
        return 0;
    t->resume_path[0] = 0;
    if (!m->task && !m->epoch)
        return 0;
    size_t used = strlen(e->text);
    snprintf(e->text + used, sizeof e->text - used,
             "; there is no checkpoint of the end of the epoch before to go back to (as "
             "checkpoints/restore.h5 it is made where training.on_nan is restore)");
    return -1;
}

/* The state at the end of the epoch before, or at the run's beginning. Checkpoints since then go
 * before the new state is written: a restart that found them would come here once more. */
static int state_restore(struct trainer *t, struct err *e)
{
    uint64_t restores = t->meta.restores + 1;
    double scale = t->meta.restore_scale * t->options->restore_factor;
    char path[CHECKPOINT_PATH_BYTES];
    if (setup_cursor(t, e) < 0 || lineage_cut(&t->lineage, t->meta.step, e) < 0)
        return -1;
    retention_step_path(path, t->meta.step, t->meta.task);
    if (t->resume_path[0] && retention_link(t->resume_path, path, e) < 0)
        return -1;
    retention_sweep("checkpoints", t->options->checkpoint_keep, t->meta.step, t->meta.task);
    t->batch.done = t->batch.gathered = 0;
    t->meta.restores = restores;
    t->meta.restore_scale = scale;
    t->saved_task = UINT64_MAX; /* the same cursor, but not the same state */
    return t->resume_path[0] && save_checkpoint(t, e) < 0 ? -1 : saving_end(t, e);
}

/* *e says why; 0: training goes on from another state. */
static int go_back(struct trainer *t, double loss, struct err *e)
{
    const struct options *o = t->options;
    char sentence[700];
    struct err why = *e;
    size_t used = strlen(e->text);
    if (strcmp(o->on_nan, "restore") != 0 || !stepper_bad_number(t->stepper))
        return -1;
    if (t->meta.restores >= o->restores_max) {
        snprintf(e->text + used, sizeof e->text - used,
                 "; the task went back to a checkpoint %" PRIu64
                 " times already (training.restores_max)",
                 t->meta.restores);
        return -1;
    }
    if (saving_end(t, e) < 0 || target_find(t, e) < 0 || state_restore(t, e) < 0)
        return -1;
    snprintf(sentence, sizeof sentence,
             "back to step %" PRIu64 ", %.100s; from there on the rate is %g of what it was, time "
             "%" PRIu64 " of %" PRIu64 ": %.400s",
             t->meta.step, t->resume_path[0] ? t->resume_path : "the beginning",
             t->meta.restore_scale, t->meta.restores, o->restores_max, why.text);
    return progress_training_fact(t, "restore", loss, sentence, e);
}

/* *e says why; 1: the step is to be passed over. */
static int pass_over(struct trainer *t, double loss, struct err *e)
{
    const struct options *o = t->options;
    char sentence[700];
    size_t used = strlen(e->text);
    if (t->meta.bad_steps >= o->skips_max) {
        snprintf(e->text + used, sizeof e->text - used,
                 "; the task has skipped %" PRIu64 " steps already (training.skips_max)",
                 t->meta.bad_steps);
        return -1;
    }
    t->meta.bad_steps++;
    snprintf(sentence, sizeof sentence, "number %" PRIu64 " of at most %" PRIu64 ": %.600s",
             t->meta.bad_steps, o->skips_max, e->text);
    return progress_training_fact(t, "skip", loss, sentence, e) < 0 ? -1 : 1;
}

int recover_step(struct trainer *t, uint64_t rows, const struct step_result *r, struct err *e)
{
    error_describe(t, rows, e);
    if (strcmp(t->options->on_nan, "skip") == 0 && r->refused)
        return pass_over(t, r->loss, e);
    return go_back(t, r->loss, e);
}

/* Weights that were chosen at a task's end come from epochs that were good: going back would choose
 * them again. */
int recover_evaluation(struct trainer *t, struct err *e)
{
    err_prefix(e, "evaluating on task %s after epoch %" PRIu64 " of task %s",
               t->options->tasks[t->evaluation.list[t->evaluation.index]].name, t->meta.epoch + 1,
               tasks_current(t)->name);
    return t->weights_chosen ? -1 : go_back(t, NAN, e);
}
