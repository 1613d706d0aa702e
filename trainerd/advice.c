/* advice.c - see advice.h. Called once, by a start or a --plan that is refused.
 *
 *   steps[]   in the order in which they are tried: what costs nothing, then time, then the result
 *   notch     one of a step's values after the other, each smaller than the one before
 *
 * A step stays at the notch that left the plan shortest of fitting, or at none if no notch helped;
 * the next one is tried beside it. Once all fits, steps that are not needed for that are taken
 * back. Nothing is estimated: each try is a whole plan.
 */
#include "trainerd/advice.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/device.h"
#include "proto/limits.h"

enum {
    SLICE_ROWS_LEAST = 16,          /* products of fewer rows take far longer */
    BLOCK_SIZE_LEAST = 1 << 16,     /* parameters; smaller ones save less than a MiB */
    ACCUMULATION_STEPS_MAX = 65536, /* options.def */
};

/* One notch further in *o: 1; 0: there is none. *o is otherwise a run's that could be made. */
typedef int notch(const struct advice_run *r, struct options *o);

/* What it does to the result; NULL: nothing. */
typedef const char *effect(const struct advice_run *r);

/* A chunk of `auto` size takes what is left beside the rest, so nothing smaller need be tried. */
static int chunk_notch(const struct advice_run *r, struct options *o)
{
    (void)r;
    int given = o->loader_chunk_size_gb > 0;
    o->loader_chunk_size_gb = 0;
    return given;
}

/* By an eighth of what the training arena takes, down to the window that the order needs. */
static int arena_notch(const struct advice_run *r, struct options *o)
{
    struct feed_config f = setup_feed_config(o, 0);
    uint64_t slots, slot_bytes;
    compute_feed_config(&f, o, r->bases->device);
    if (feed_arena(&f, r->train->spans, r->train->span_rows, r->train->span_bytes_max, &slots,
                   &slot_bytes, NULL) < 0)
        return 0;
    o->arena_limit_mb = slots * slot_bytes / 8 * 7 >> 20;
    return o->arena_limit_mb > 0;
}

static int workers_notch(const struct advice_run *r, struct options *o)
{
    (void)r;
    o->loader_num_workers = limits_decoders("", o->loader_num_workers) / 2;
    return o->loader_num_workers > 0;
}

/* The next size of whole slices (on a GPU: of whole warps) of which so many make the same step. A
 * task's own batch_size is not the run's: that is left alone. */
static int batch_notch(const struct advice_run *r, struct options *o)
{
    const struct device *d = r->bases->device;
    uint64_t unit = d && d->apart ? LIMITS_BATCH_STEP : o->slice_rows;
    uint64_t step_rows = options_batch_rows(o), rows = (o->batch_size - 1) / unit * unit;
    for (uint32_t i = 0; i < o->task_count; i++)
        if (o->tasks[i].batch_size)
            return 0;
    while (rows && step_rows % rows)
        rows -= unit;
    if (!rows || o->batch_size % unit || step_rows / rows > ACCUMULATION_STEPS_MAX)
        return 0;
    o->batch_size = rows;
    o->gradient_accumulation_steps = step_rows / rows;
    return 1;
}

static int checkpointing_notch(const struct advice_run *r, struct options *o)
{
    (void)r;
    int before = o->use_gradient_checkpointing;
    o->use_gradient_checkpointing = 1;
    return !before;
}

static int threads_notch(const struct advice_run *r, struct options *o)
{
    (void)r;
    o->threads = (uint64_t)setup_threads(o) / 2;
    return o->threads > 0;
}

static int block_notch(const struct advice_run *r, struct options *o)
{
    uint64_t block =
        o->fisher_block_size < r->m->parameter_count ? o->fisher_block_size : r->m->parameter_count;
    o->fisher_block_size = block / 2;
    return block / 2 >= BLOCK_SIZE_LEAST && o->use_memory_efficient;
}

static int slice_notch(const struct advice_run *r, struct options *o)
{
    (void)r;
    o->slice_rows /= 2;
    return o->slice_rows >= SLICE_ROWS_LEAST;
}

static int precision_notch(const struct advice_run *r, struct options *o)
{
    (void)r;
    int before = o->use_amp;
    o->use_amp = 1;
    return !before;
}

static const char rounding[] = "the result is the same but for rounding";

static const char *nothing(const struct advice_run *r)
{
    (void)r;
    return NULL;
}

static const char *rounds(const struct advice_run *r)
{
    (void)r;
    return rounding;
}

static const char *batch_effect(const struct advice_run *r)
{
    if (r->m->buffer_count)
        return "another result: statistics of batchnorm are those of fewer rows";
    if (r->o->data_drop_last)
        return "another result: data.drop_last leaves out other rows";
    if (r->o->data_stateful)
        return "another result: validation rows are evaluated in other streams";
    return r->bases->device && r->bases->device->apart ? rounding : NULL;
}

static const char *block_effect(const struct advice_run *r)
{
    (void)r;
    return "another result: Fisher information is stored in other blocks";
}

static const char *precision_effect(const struct advice_run *r)
{
    (void)r;
    return "another result: activations have 16 bits";
}

static const struct step {
    notch *notch;
    effect *effect;
    const char *keys[2]; /* of what a notch changes */
} steps[] = {
    {chunk_notch, nothing, {"loader.chunk_size_gb"}},
    {arena_notch, nothing, {"arena.limit_mb"}},
    {workers_notch, nothing, {"loader.num_workers"}},
    {batch_notch, batch_effect, {"training.batch_size", "training.gradient_accumulation_steps"}},
    {checkpointing_notch, nothing, {"training.use_gradient_checkpointing"}},
    {threads_notch, nothing, {"training.threads"}},
    {slice_notch, rounds, {"training.slice_rows"}},
    {block_notch, block_effect, {"continual_learning.ewc_config.fisher_computation.block_size"}},
    {precision_notch, precision_effect, {"training.use_amp"}},
};

enum { STEPS = sizeof steps / sizeof *steps };

/* The run with so many notches of each step, and what then does not fit. */
struct attempt {
    int notches[STEPS];
    struct plan plan;
    uint64_t excess; /* bytes beyond the limits of host and device; 0: it fits */
};

static uint64_t beyond(uint64_t total, uint64_t limit)
{
    return total > limit ? total - limit : 0;
}

/* 1: there is such a run, and its options are *o; 0: there is none. */
static int attempt_make(const struct advice_run *r, struct attempt *a, struct options *o)
{
    struct megabatch_size sizes[2];
    struct err why;
    const char *reason;
    uint64_t micro_rows;
    *o = *r->o;
    for (int i = 0; i < STEPS; i++)
        for (int k = 0; k < a->notches[i]; k++)
            if (!steps[i].notch(r, o))
                return 0;
    if ((r->goes_on && options_conflict(r->o, o, &reason)) ||
        plan_make(&a->plan, o, r->m, r->bases, r->train, r->validation, r->of_tasks, &micro_rows,
                  sizes, &why) < 0)
        return 0;
    a->excess = beyond(plan_total(&a->plan, NULL), plan_host_limit(o)) +
                beyond(plan_total(&a->plan, PLAN_DEVICE), plan_device_limit(o, r->bases->device));
    return 1;
}

/* The notch of step i that leaves least, beside those before it; the first one that fits. */
static void step_try(const struct advice_run *r, struct attempt *best, int i, struct options *o)
{
    struct attempt a = *best;
    for (a.notches[i] = 1; best->excess && attempt_make(r, &a, o); a.notches[i]++)
        if (a.excess < best->excess)
            *best = a;
}

/* Those without which it fits as well. */
static void steps_take_back(const struct advice_run *r, struct attempt *best, struct options *o)
{
    for (int i = 0; i < STEPS; i++) {
        struct attempt a = *best;
        a.notches[i] = 0;
        if (best->notches[i] && attempt_make(r, &a, o) && !a.excess)
            *best = a;
    }
}

/* printf behind what is in *e already. */
static void more(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void more(struct err *e, const char *format, ...)
{
    size_t used = strlen(e->text);
    va_list args;
    va_start(args, format);
    vsnprintf(e->text + used, sizeof e->text - used, format, args);
    va_end(args);
}

/* "a=1, b=2 and c=3" */
static void settings_say(const struct attempt *a, const struct options *o, struct err *e)
{
    char text[OPTION_TEXT_MAX + 1];
    int left = 0;
    const char *between = "";
    for (int i = 0; i < STEPS; i++)
        for (int k = 0; k < 2; k++)
            left += a->notches[i] && steps[i].keys[k];
    for (int i = 0; i < STEPS; i++) {
        for (int k = 0; k < 2 && a->notches[i] && steps[i].keys[k]; k++) {
            ensure(options_get(o, steps[i].keys[k], text, sizeof text, NULL) == 0);
            more(e, "%s%s=%.40s", between, steps[i].keys[k], text);
            between = --left == 1 ? " and " : ", ";
        }
    }
}

/* What all of them do to the result: of the last one that does more than rounding. */
static const char *effect_of(const struct advice_run *r, const struct attempt *a)
{
    const char *found = "the result is the same";
    for (int i = 0; i < STEPS; i++) {
        const char *now = a->notches[i] ? steps[i].effect(r) : NULL;
        if (now && (now != rounding || strcmp(found, "the result is the same") == 0))
            found = now;
    }
    return found;
}

static void advice_say(const struct advice_run *r, const struct attempt *a, const char *stage,
                       const struct options *o, struct err *e)
{
    int any = 0;
    for (int i = 0; i < STEPS; i++)
        any |= a->notches[i];
    more(e, a->excess ? any ? "; even with " : "; no option makes it less" : "; with ");
    settings_say(a, o, e);
    if (any)
        more(e, " it needs %" PRIu64 " MiB", plan_mib(plan_total(&a->plan, stage)));
    if (!a->excess)
        more(e, ", and %s", effect_of(r, a));
    else
        more(e, "; make the model smaller");
    if (a->excess && shape_is_graph(r->train))
        more(e, " (rows are graphs: what a smaller training.batch_size or "
                "training.use_gradient_checkpointing saves, --plan with them says)");
}

int advice_check(const struct advice_run *r, const struct plan *p, struct err *e)
{
    static struct options o; /* large */
    struct attempt best = {.plan = *p};
    if (plan_check(p, r->o, r->bases->device, e) == 0)
        return 0;
    ensure(attempt_make(r, &best, &o)); /* the run itself */
    for (int i = 0; i < STEPS && best.excess; i++)
        step_try(r, &best, i, &o);
    if (!best.excess)
        steps_take_back(r, &best, &o);
    attempt_make(r, &best, &o);
    int host = plan_total(p, NULL) > plan_host_limit(r->o);
    advice_say(r, &best, host ? NULL : PLAN_DEVICE, &o, e);
    return -1;
}
