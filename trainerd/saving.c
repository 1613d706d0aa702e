/* saving.c - a checkpoint on its way to the disk: the file, the names that keep it, and what is
 * told when both are there.
 *
 * On the CPU it is written at once. On a device apart the host's copies of the device's vectors
 * hold the state as soon as it is fetched: a thread of its own digests and writes them while
 * training goes on, one checkpoint at a time. Nobody is told of one before it is there, and what
 * needs it, reads HDF5 files or writes into those copies waits for it and for copies on their way
 * there first (saving_end). The
 * thread reads the model, the options and the list of tensors, which do not change before the next
 * task begins, and a copy of the cursor.
 *
 * A kill leaves what it leaves elsewhere: a temporary file, which the next checkpoint removes, or
 * the file without its further names, which are made when the run goes on from it.
 */
#include "trainerd/trainer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/device.h"
#include "proto/metric.h"
#include "proto/thread.h"

/* ---- the names that keep it ---- */

/* Value of `task`'s data at the end of that task, or NaN. */
static double end_value(const struct checkpoint_meta *m, const struct options *o, uint32_t task)
{
    const char *own = o->tasks[epochs_key_task(o, task)].name;
    for (uint32_t i = 0; i < m->result_count; i++) {
        if (strcmp(m->results[i].after, o->tasks[task].name) == 0 &&
            strcmp(m->results[i].task, own) == 0)
            return m->results[i].value;
    }
    return NAN;
}

/* What best-<name>.h5 is worth; NaN: there is none. */
static double best_value_kept(const struct options *o, struct checkpoint_meta *other,
                              const char *path, uint32_t task)
{
    struct err why;
    if (access(path, F_OK) != 0 || checkpoint_read_meta(path, other, NULL, 0, &why) < 0)
        return NAN;
    return other->task == task ? other->best_value : end_value(other, o, task);
}

static int best_link(const struct options *o, const struct checkpoint_meta *m,
                     struct checkpoint_meta *other, const char *path, uint32_t task, double value,
                     struct err *e)
{
    char best[CHECKPOINT_PATH_BYTES];
    retention_best_path(best, o->tasks[task].name);
    if (!metric_better(m->metric, value, best_value_kept(o, other, best, task)))
        return 0;
    return retention_link(path, best, e);
}

int saving_links(const struct options *o, const struct checkpoint_meta *m,
                 struct checkpoint_meta *other, const char *path, struct err *e)
{
    if (m->position)
        return 0;
    char restore[CHECKPOINT_PATH_BYTES];
    retention_restore_path(restore);
    if (strcmp(o->on_nan, "restore") != 0)
        unlink(restore); /* of other options: nobody goes back to it any more */
    else if (retention_link(path, restore, e) < 0)
        return -1;
    if (m->epoch)
        return best_link(o, m, other, path, (uint32_t)m->task, m->best_value, e);
    if (!m->task)
        return 0;
    uint32_t ended = (uint32_t)m->task - 1;
    char end[CHECKPOINT_PATH_BYTES];
    retention_task_path(end, o->tasks[ended].name);
    if (retention_link(path, end, e) < 0)
        return -1;
    return best_link(o, m, other, path, ended, end_value(m, o, ended), e);
}

/* ---- writing ---- */

static void checkpoint_make(struct trainer *t)
{
    struct saving *s = &t->saving;
    s->result = checkpoint_write(s->path, s->meta, t->model_text, t->tensors, s->tensor_count,
                                 s->digest, &s->bytes, &s->why);
    if (s->result == 0)
        s->result = saving_links(t->options, s->meta, s->other, s->path, &s->why);
    if (s->result == 0)
        retention_sweep("checkpoints", t->options->checkpoint_keep, s->meta->step, s->meta->task);
    s->ended_s = clock_monotonic_s();
}

static void *thread_main(void *argument)
{
    struct trainer *t = argument;
    checkpoint_make(t);
    atomic_store(&t->saving.is_made, 1);
    return NULL;
}

/* With the cursor as it is now. -1: there is no thread to be had. */
static int write_behind(struct trainer *t)
{
    struct saving *s = &t->saving;
    s->copies[0] = t->meta;
    s->meta = &s->copies[0];
    s->other = &s->copies[1];
    atomic_store(&s->is_made, 0);
    s->behind = thread_start(&s->thread, "checkpoint", thread_main, t) == 0;
    return s->behind ? 0 : -1;
}

int saving_begin(struct trainer *t, uint32_t tensor_count, struct err *e)
{
    struct saving *s = &t->saving;
    if (saving_end(t, e) < 0)
        return -1;
    s->began_s = clock_monotonic_s();
    if (stepper_fetch(t->stepper, e) < 0)
        return -1;
    retention_step_path(s->path, t->meta.step, t->meta.task);
    s->tensor_count = tensor_count;
    s->under_way = 1;
    if (t->device->apart && write_behind(t) == 0)
        return 0;
    s->behind = 0;
    s->meta = &t->meta;
    s->other = &t->other;
    checkpoint_make(t);
    return saving_end(t, e);
}

int saving_writes(const struct trainer *t)
{
    const struct saving *s = &t->saving;
    return s->under_way && s->behind && !atomic_load(&s->is_made);
}

static int checkpoint_fact(struct trainer *t, struct err *e)
{
    const struct saving *s = &t->saving;
    struct msg_trainer_checkpoint m = {
        .step = s->meta->step, .bytes = s->bytes, .seconds = s->ended_s - s->began_s};
    MSG_STR(m.path, s->path);
    MSG_STR(m.digest, s->digest);
    return daemon_fact(t->daemon, MSG_trainer_checkpoint, &m, e);
}

int saving_end(struct trainer *t, struct err *e)
{
    struct saving *s = &t->saving;
    if (t->stepper)
        stepper_fetch_wait(t->stepper);
    if (!s->under_way)
        return 0;
    if (s->behind) {
        pthread_join(s->thread, NULL);
        daemon_piece_done(t->daemon); /* a stop may have another one to write and to wait for */
    }
    s->under_way = 0;
    t->saved_s = s->ended_s;
    if (s->result < 0)
        return *e = s->why, -1;
    return checkpoint_fact(t, e);
}

int saving_turn(struct trainer *t, struct err *e)
{
    struct saving *s = &t->saving;
    int goes_on = t->state == TRAINER_TRAIN || t->state == TRAINER_EVALUATE;
    int is_due = s->under_way &&
                 (atomic_load(&s->is_made) || clock_monotonic_s() - s->began_s >= SAVING_BEHIND_S);
    return goes_on && !is_due ? 0 : saving_end(t, e);
}

int saving_fetch(struct trainer *t, struct err *e)
{
    return saving_end(t, e) < 0 ? -1 : stepper_fetch(t->stepper, e);
}

uint64_t saving_bytes(void)
{
    return 2 * THREAD_STACK_BYTES + sizeof(struct saving);
}
