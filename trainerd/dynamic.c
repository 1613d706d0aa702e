/* dynamic.c - micro-batches that follow the memory there is (training.dynamic_batch_size).
 *
 *   before a micro-batch   is there room?  no: half of its rows, at once; what the batch has
 *                          accumulated stays, only the rows not yet computed come in smaller parts
 *   GROW_STEPS later       twice as many again, up to the plan's, if that leaves the reserve
 *
 * Decisions follow memory, never timing: what is asked every LOOK_STEPS steps is how much can still
 * be taken. They change no bit (whole slices; a model with batchnorm is left alone), so nothing
 * of them is kept over a restart; the lineage has the rows of each step's last micro-batch.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>

#include "engine/device.h"
#include "proto/durable.h"
#include "proto/limits.h"

enum {
    LOOK_STEPS = 16,
    GROW_STEPS = 256,
    RESERVE_BYTES = 24 << 20, /* less than this left: a container dies soon */
};

static int change_tell(struct trainer *t, uint64_t before, const char *why, struct err *e)
{
    char sentence[256];
    snprintf(sentence, sizeof sentence,
             "micro-batches of %" PRIu64 " rows instead of %" PRIu64
             ": %s; steps and weights are the same%s",
             t->micro_rows, before, why, t->device->apart ? " but for rounding" : "");
    t->micro_rows_step = t->meta.step;
    return progress_training_fact(t, "micro-batch", (double)t->micro_rows, sentence, e);
}

/* 0: so many rows it is; 1: there is no room for them, and all is as it was; -1. */
static int resize(struct trainer *t, uint64_t rows, struct err *e)
{
    int accumulates = rows < t->batch_rows_max;
    uint64_t slice_rows = t->device->apart ? rows : t->options->slice_rows;
    int result = stepper_resize(t->stepper, rows, slice_rows, accumulates, e);
    if (result == 0)
        t->micro_rows = rows;
    return result == -1 ? 1 : result;
}

static int shrink(struct trainer *t, struct err *e)
{
    uint64_t before = t->micro_rows, rows = before;
    int result = 1;
    while (result > 0 && (rows = plan_micro_rows_half(t->options, &t->model, rows)))
        result = resize(t, rows, e);
    if (result < 0)
        return -1;
    return result ? 1 : change_tell(t, before, "memory is short", e);
}

static int grow(struct trainer *t, struct err *e)
{
    uint64_t before = t->micro_rows, rows = t->micro_rows_planned;
    while (plan_micro_rows_half(t->options, &t->model, rows) > before)
        rows = plan_micro_rows_half(t->options, &t->model, rows);
    int result = resize(t, rows, e);
    if (result < 0)
        return -1;
    if (result == 0 && limits_available("") < RESERVE_BYTES)
        return resize(t, before, e) < 0 ? -1 : 0;
    t->micro_rows_step = t->meta.step;
    return result ? 0 : change_tell(t, before, "there is room again", e);
}

int dynamic_turn(struct trainer *t, struct err *e)
{
    int between =
        !t->batch.done; /* what a device has is planned: the host's memory is not looked at */
    uint64_t step = t->meta.step + (t->ahead.rows > 0);
    int look = between && !t->device->apart && step % LOOK_STEPS == 0;
    uint64_t asked = step * options_batch_rows(t->options) + t->batch.done + 1;
    if (!t->options->dynamic_batch_size || t->model.buffer_count || asked == t->micro_asked)
        return 0; /* once a micro-batch, however often its rows are waited for */
    t->micro_asked = asked;
    int refused = durable_may("memory") < 0;
    int grows =
        between && t->micro_rows < t->micro_rows_planned && step >= t->micro_rows_step + GROW_STEPS;
    int settled = refused || grows ? train_settle(t, e) : 1;
    if (settled <= 0)
        return settled;
    if (refused || (look && limits_available("") < RESERVE_BYTES)) {
        int result = shrink(t, e);
        if (result > 0 && refused)
            return err_set(e, EXIT_CODE_TEMPORARY,
                           "cannot compute a micro-batch of %" PRIu64
                           " rows: there is no memory for it, and no smaller one of whole slices",
                           t->micro_rows);
        return result < 0 ? -1 : 0;
    }
    return grows ? grow(t, e) : 0;
}
