/* save.c - checkpoints: when one is made, the names that keep them, and reading them again.
 *
 * checkpoints/step-<step>-<task>.h5 is the state between two steps; the newest that verifies is
 * where a restart goes on. More names keep a file for good: task-<name>.h5 is the end of a task
 * (its weights are theta* and what later tasks begin `from`), best-<name>.h5 the best epoch of it;
 * a third one, restore.h5, is the newest end of an epoch where training.on_nan goes back to it.
 * The names are hard links made after the commit; a crash in between is mended when the run resumes
 * (saving_links is idempotent).
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/log.h"

static void saved_mark(struct trainer *t)
{
    t->saved_task = t->meta.task;
    t->saved_epoch = t->meta.epoch;
    t->saved_position = t->meta.position;
}

/* Tensors of a checkpoint that stands at that row of an epoch, where all states begin at 0. */
static uint32_t tensors_at(const struct trainer *t, uint64_t position)
{
    return t->tensor_count + (position ? t->model.carried_count : 0);
}

int save_checkpoint(struct trainer *t, struct err *e)
{
    const struct checkpoint_meta *m = &t->meta;
    int saved =
        m->task == t->saved_task && m->epoch == t->saved_epoch && m->position == t->saved_position;
    if (saved || t->weights_chosen)
        return 0;
    ensure(!t->ahead.rows);
    int running = t->progress.running_since_s != 0;
    progress_pause(t);
    progress_keep(t);
    int result = saving_begin(t, tensors_at(t, m->position), e);
    if (result == 0)
        saved_mark(t);
    if (running)
        progress_run(t);
    return result;
}

int save_epoch(struct trainer *t, int is_needed, struct err *e)
{
    int goes_back = strcmp(t->options->on_nan, "restore") == 0; /* to each epoch's end */
    return is_needed || goes_back || !saving_writes(t) ? save_checkpoint(t, e) : 0;
}

int save_is_due(const struct trainer *t)
{
    return !t->saving.under_way &&
           clock_monotonic_s() - t->saved_s >= t->options->checkpoint_every_s;
}

static int agreement_check(struct trainer *t, const char *path, const char *model, struct err *e)
{
    const struct checkpoint_meta *m = &t->other;
    if (m->seed != t->options->seed)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot go on from %s: it was made with seed %" PRIu64
                       ", the options say %" PRIu64 "; use that seed or another --run",
                       path, m->seed, t->options->seed);
    if (strcmp(model, t->model_text) != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot go on from %s: its model is another one than model.layers and the "
                       "data give; use "
                       "the same layers or another --run",
                       path);
    if (strcmp(m->metric, setup_metric(t->options)) != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot go on from %s: its best epoch was chosen by %s, the options say %s; "
                       "use that training.metric or another --run",
                       path, m->metric, setup_metric(t->options));
    if (strcmp(m->fingerprint, t->data.fingerprint) != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot go on from %s: it was made with other data (fingerprint %.12s) than "
                       "%s%s now holds "
                       "(%.12s); bring the old file back or use another --run",
                       path, m->fingerprint, t->options->data_file,
                       t->data.set_count > 1 ? " or another task's file" : "", t->data.fingerprint);
    return 0;
}

/* `epochs` of a task may be others from a checkpoint on: not fewer than it shows, and not of a task
 * that has ended. */
static int epochs_check(const struct trainer *t, const char *path, struct err *e)
{
    const struct checkpoint_meta *m = &t->meta;
    const struct schedule *s = &t->schedule;
    if (m->task >= s->task_count)
        return 0;
    const char *task = t->options->tasks[m->task].name;
    uint64_t began = m->step - m->task_step;
    if (m->epoch >= s->epochs[m->task])
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot go on from %s: task %s has %" PRIu64
                       " epochs behind it and more to come, but its epochs are %" PRIu64
                       "; accepted are %" PRIu64 " or more",
                       path, task, m->epoch, s->epochs[m->task], m->epoch + 1);
    if (began != s->first_step[m->task])
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot go on from %s: task %s began with step %" PRIu64
                       ", which the options put at step %" PRIu64
                       ": the tasks before it have ended, and their epochs stay what they were; "
                       "use those it was made with or another --run",
                       path, task, began, s->first_step[m->task]);
    return 0;
}

/* Every number of the cursor follows from task, epoch and position: a checkpoint of other options
 * shows here. */
static int cursor_check(struct trainer *t, const char *path, struct err *e)
{
    const struct checkpoint_meta *m = &t->meta;
    const struct schedule *s = &t->schedule;
    int ended = m->task == s->task_count && !m->epoch && !m->position, inside = 0;
    uint64_t task_step = 0;
    if (m->task < s->task_count) {
        uint64_t batch_rows = s->batch_rows[m->task];
        task_step =
            m->epoch * s->epoch_steps[m->task] + (m->position + batch_rows - 1) / batch_rows;
        inside = m->position <= s->rows[m->task] && m->epoch < s->epochs[m->task];
    }
    if ((inside || ended) && m->task_step == task_step &&
        m->step == s->first_step[m->task] + m->task_step && m->slice_rows == t->options->slice_rows)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "cannot go on from %s: it stands at step %" PRIu64 " (task %" PRIu64
                   ", epoch %" PRIu64 ", row %" PRIu64
                   "), which the options' tasks, batch_size, gradient_accumulation_steps and "
                   "slice_rows do not give; use those it was made with or another --run",
                   path, m->step, m->task, m->epoch, m->position);
}

static int cpu_compare(struct trainer *t, struct err *e)
{
    char cpu[sizeof t->meta.cpu];
    compute_name(t->device, cpu, sizeof cpu);
    int same = t->device->apart ? strcmp(cpu, t->meta.cpu) == 0 : engine_cpu_same(cpu, t->meta.cpu);
    struct msg_event_determinism m = {.step = t->meta.step};
    char sentence[sizeof m.sentence];
    snprintf(sentence, sizeof sentence,
             "the run began with another arithmetic (%s) than it goes on with (%s), that of "
             "another machine or version; its weights are not reproducible bit for bit",
             t->meta.cpu, cpu);
    MSG_STR(m.sentence, sentence);
    snprintf(t->meta.cpu, sizeof t->meta.cpu, "%s", cpu);
    if (same)
        return 0;
    return daemon_fact(t->daemon, MSG_event_determinism, &m, e);
}

int save_load(struct trainer *t, struct err *e)
{
    const char *path = t->resume_path;
    char *model = malloc(CHECKPOINT_MODEL_MAX);
    int result = -1;
    if (!model) {
        err_set(e, EXIT_CODE_TEMPORARY, "no memory to read %s", path);
        goto out;
    }
    if (checkpoint_read_meta(path, &t->other, model, CHECKPOINT_MODEL_MAX, e) < 0 ||
        agreement_check(t, path, model, e) < 0 ||
        checkpoint_read(path, &t->meta, t->tensors, tensors_at(t, t->other.position), 1, e) < 0 ||
        epochs_check(t, path, e) < 0 || cursor_check(t, path, e) < 0 ||
        saving_links(t->options, &t->meta, &t->other, path, e) < 0 || cpu_compare(t, e) < 0)
        goto out;
    stepper_send(t->stepper);
    saved_mark(t);
    t->saved_s = clock_monotonic_s();
    log_info("path=%s step=%" PRIu64 " going on from this checkpoint", path, t->meta.step);
    result = 0;
out:
    free(model);
    return result;
}

/* Digest of the weights that `task` ended with, as its results have it; empty: they do not. */
static const char *end_digest(const struct checkpoint_meta *m, const char *task)
{
    for (uint32_t i = 0; i < m->result_count; i++)
        if (strcmp(m->results[i].after, task) == 0)
            return m->results[i].weights_sha256;
    return "";
}

/* t->other, read from `path`, against what this run knows of the end of its task number `index`. */
static int end_check(const struct trainer *t, const char *path, const char *task, int index,
                     struct err *e)
{
    const struct checkpoint_meta *m = &t->other;
    const char *known = end_digest(&t->meta, task);
    if (m->task != (uint64_t)index + 1 || m->epoch || m->position)
        return err_set(e, EXIT_CODE_PERMANENT, "%s is not the checkpoint at the end of task %s",
                       path, task);
    if (strcmp(m->parameters_sha256, known) != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s holds the weights %.12s, but task %s ended with %.12s; bring the old "
                       "file back or use another --run",
                       path, m->parameters_sha256, task, known);
    return 0;
}

/* The parameters, and unless buffers is NULL the module buffers, of the checkpoint at `path`, whose
 * meta becomes t->other. */
static int parameters_read(struct trainer *t, const char *path, float *parameters, float *buffers,
                           struct err *e)
{
    uint32_t count = buffers ? t->tensor_count : t->model.tensor_count;
    struct checkpoint_tensor *tensors = malloc(t->tensor_count * sizeof *tensors);
    if (!tensors)
        return err_set(e, EXIT_CODE_TEMPORARY, "no memory to read %s", path);
    for (uint32_t i = 0; i < count; i++) {
        tensors[i] = t->tensors[i];
        tensors[i].parameter = tensors[i].kind == CHECKPOINT_BUFFER
                                   ? buffers + t->model.buffers[i - t->model.tensor_count].first
                                   : parameters + t->model.tensors[i].first;
        tensors[i].m = tensors[i].v = NULL;
    }
    int result = checkpoint_read(path, &t->other, tensors, count, 0, e);
    free(tensors);
    return result;
}

int save_read_end(struct trainer *t, const char *task, float *parameters, float *buffers,
                  struct err *e)
{
    char path[CHECKPOINT_PATH_BYTES];
    int index = options_task(t->options, task);
    ensure(index >= 0);
    retention_task_path(path, task);
    if (parameters_read(t, path, parameters, buffers, e) < 0)
        return err_prefix(e, "the weights at the end of task %s", task);
    return end_check(t, path, task, index, e);
}

int save_map_end(struct trainer *t, const char *task, struct checkpoint_map *map, struct err *e)
{
    char path[CHECKPOINT_PATH_BYTES];
    int index = options_task(t->options, task);
    ensure(index >= 0);
    retention_task_path(path, task);
    if (checkpoint_map_open(map, path, &t->other, t->tensors, t->model.tensor_count, e) < 0)
        return err_prefix(e, "the weights at the end of task %s", task);
    if (end_check(t, path, task, index, e) == 0)
        return 0;
    checkpoint_map_close(map);
    return -1;
}

int save_read_best(struct trainer *t, struct err *e)
{
    char path[CHECKPOINT_PATH_BYTES];
    const struct checkpoint_meta *m = &t->other;
    retention_best_path(path, tasks_current(t)->name);
    if (saving_fetch(t, e) < 0)
        return -1;
    if (parameters_read(t, path, stepper_parameters(t->stepper), stepper_module_buffers(t->stepper),
                        e) < 0)
        return err_prefix(e, "the weights of the best epoch of task %s", tasks_current(t)->name);
    stepper_send(t->stepper);
    if (m->task == t->meta.task && m->best_value == t->meta.best_value)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s is not the checkpoint of the best epoch of task %s (%s %.6g); bring that "
                   "file back or use another --run",
                   path, tasks_current(t)->name, t->meta.metric, t->meta.best_value);
}
