/* advice_leak.c - advice on a stage that leaks: its heap grows as evenly as steps or epochs go by.
 * See advice.h.
 *
 * Looked at is what malloc has handed out, which is exact; resident memory is not. Only like
 * moments are compared, in two series. In `steps` are moments in one stretch of training: whatever
 * else is done (an epoch's end, an evaluation, a checkpoint, an estimate) ends the stretch and
 * begins the series anew. In `epochs` is the floor of each epoch, the least that the heap was in
 * it, since what is taken for a while comes and goes above the floor and what leaked does not. Both
 * begin anew with each task and each process.
 *
 * A leak is a straight line; what grows once is a stair, and noise goes up and down. So growth
 * counts where none of eight moments or more is far off the line from the first to the last. What
 * fills up evenly would be taken for a leak, but the stages make all that they have before they
 * train; only monitord queues for its listeners, up to a limit.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "monitord/advice_private.h"
#include "proto/link.h"

/* malloc's smallest piece is 32 bytes: one that is lost at each step makes 4 KiB in 128 of them. */
static const uint64_t steps_least = 100, steps_growth_least = 4 << 10;
static const uint64_t epochs_growth_least = 64 << 10;
static const uint64_t epoch_growth_large = 100 << 20; /* twice in a row: that does not wait */
static const double off_line = 1.0 / 8;               /* of the growth */
static const double half_least = 1.0 / 2; /* of its share of the growth, where that is even */
static const double settle_s = 0.25; /* a stage tells its heap ten times a second, between turns */

enum { TREND_LEAST = TREND_POINTS / 2, FLOOR_SAMPLES = 4 };

/* ---- a line ---- */

static double grown(const struct advice_trend *t, uint32_t from, uint32_t to)
{
    return (double)t->bytes[to] - (double)t->bytes[from];
}

static void point_move(struct advice_trend *t, uint32_t from, uint32_t to)
{
    t->at[to] = t->at[from];
    t->bytes[to] = t->bytes[from];
}

/* The newer half stays where growth has begun or has ended, else of two neighbours the lower one.
 */
static void trend_thin(struct advice_trend *t)
{
    const uint32_t half = TREND_POINTS / 2;
    double all = grown(t, 0, TREND_POINTS - 1), newer = grown(t, half, TREND_POINTS - 1);
    double share = (double)(t->at[TREND_POINTS - 1] - t->at[half]) /
                   (double)(t->at[TREND_POINTS - 1] - t->at[0]);
    int evenly = newer > half_least * share * all && all - newer > half_least * (1 - share) * all;
    for (uint32_t i = 0; i < half; i++) {
        uint32_t lower = 2 * i + (t->bytes[2 * i + 1] < t->bytes[2 * i]);
        point_move(t, evenly ? lower : half + i, i);
    }
    t->count = half;
}

static void trend_add(struct advice_trend *t, uint64_t at, uint64_t bytes)
{
    if (t->count && at == t->at[t->count - 1])
        return;
    if (t->count && (at < t->at[t->count - 1] || bytes < t->bytes[0]))
        t->count = 0;
    if (t->count == TREND_POINTS)
        trend_thin(t);
    t->at[t->count] = at;
    t->bytes[t->count++] = bytes;
}

static int trend_straight(const struct advice_trend *t)
{
    uint32_t last = t->count - 1;
    double slope = grown(t, 0, last) / (double)(t->at[last] - t->at[0]);
    for (uint32_t i = 1; i < last; i++) {
        double off = grown(t, 0, i) - slope * (double)(t->at[i] - t->at[0]);
        if (off > off_line * grown(t, 0, last) || -off > off_line * grown(t, 0, last))
            return 0;
    }
    return 1;
}

static int trend_leaks(const struct advice_trend *t, uint64_t least, uint64_t growth_least)
{
    return t->count >= TREND_LEAST && t->at[t->count - 1] - t->at[0] >= least &&
           grown(t, 0, t->count - 1) >= (double)growth_least && trend_straight(t);
}

static int trend_large(const struct advice_trend *t)
{
    uint32_t n = t->count;
    return n >= 3 && grown(t, n - 2, n - 1) > (double)epoch_growth_large &&
           grown(t, n - 3, n - 2) > (double)epoch_growth_large;
}

/* ---- telling ---- */

static enum advice_kind kind_of(int stage)
{
    return (enum advice_kind)((int)ADVICE_LEAK + stage);
}

static void leak_say(struct advice *a, int stage, const struct advice_trend *t, const char *unit)
{
    static const char option[] = "monitor.profile";
    uint32_t last = t->count - 1;
    double growth = grown(t, 0, last), rate = growth / (double)(t->at[last] - t->at[0]);
    if (!advice_due(a, kind_of(stage), 1, 0))
        return;
    advice_say(a, kind_of(stage), rate, 0, option,
               "%s leaks: its heap (%.1f MiB) has grown by %.1f bytes every %s since %s %" PRIu64
               " of task %s, %.1f KiB by %s %" PRIu64
               ", and goes on until memory is full; pipelines/restart.sh %s gives them back, and "
               "the run's result stays the same; it is an error of the program: please report it, "
               "with the memory profile that %s: true writes",
               stage_names[stage], (double)t->bytes[last] / (1 << 20), rate, unit, unit, t->at[0],
               a->leak_task, growth / (1 << 10), unit, t->at[last], stage_names[stage], option);
}

/* monitord's own heap also has what is queued for a listener of the stream who does not read. */
static uint64_t growth_least(int stage, uint64_t least)
{
    const uint64_t queue = (uint64_t)LINK_QUEUE_MAX << 10;
    return strcmp(stage_names[stage], "monitord") == 0 && queue > least ? queue : least;
}

static void steps_look(struct advice *a, int stage)
{
    const struct advice_trend *t = &a->heap[stage].steps;
    if (trend_leaks(t, steps_least, growth_least(stage, steps_growth_least)))
        leak_say(a, stage, t, "step");
}

static void epochs_look(struct advice *a, int stage)
{
    const struct advice_trend *t = &a->heap[stage].epochs;
    if (trend_large(t) || trend_leaks(t, 0, growth_least(stage, epochs_growth_least)))
        leak_say(a, stage, t, "epoch");
}

/* ---- moments ---- */

static void floor_begin(struct advice_heap *h)
{
    h->floor = UINT64_MAX;
    h->samples = 0;
}

static void stretch_end(struct advice *a)
{
    a->stretch_unix_s = 0;
    for (int i = 0; i < STAGE_COUNT; i++) {
        a->heap[i].steps.count = 0;
        a->heap[i].lowest = UINT64_MAX;
    }
}

static void task_begin(struct advice *a, const struct msg_trainer_step *m)
{
    snprintf(a->leak_task, sizeof a->leak_task, "%s", m->task);
    a->leak_incarnation = m->head.incarnation;
    stretch_end(a);
    for (int i = 0; i < STAGE_COUNT; i++) {
        a->heap[i].epochs.count = 0;
        floor_begin(&a->heap[i]);
    }
}

/* What was sampled since the step before lies between two steps of one stretch. */
static void steps_point(struct advice *a)
{
    for (int i = 0; i < STAGE_COUNT; i++) {
        struct advice_heap *h = &a->heap[i];
        if (h->lowest == UINT64_MAX)
            continue;
        trend_add(&h->steps, a->leak_step, h->lowest);
        h->lowest = UINT64_MAX;
        steps_look(a, i);
    }
}

static void step_heed(struct advice *a, const struct msg_trainer_step *m)
{
    if (m->head.incarnation != a->leak_incarnation || strcmp(m->task, a->leak_task) != 0)
        task_begin(a, m);
    if (m->epoch != a->leak_epoch)
        stretch_end(a);
    if (a->stretch_unix_s != 0)
        steps_point(a);
    else
        a->stretch_unix_s = m->head.time_s;
    a->leak_epoch = m->epoch;
    a->leak_step = m->step;
}

/* Epochs so short that there are few samples of one are taken together. */
static void epoch_heed(struct advice *a, const struct msg_event_task *m)
{
    if (strcmp(m->what, "epoch-end") != 0 || strcmp(m->task, a->leak_task) != 0)
        return;
    for (int i = 0; i < STAGE_COUNT; i++) {
        struct advice_heap *h = &a->heap[i];
        if (h->samples < FLOOR_SAMPLES)
            continue;
        trend_add(&h->epochs, m->epoch, h->floor);
        floor_begin(h);
        epochs_look(a, i);
    }
}

void advice_leak_message(struct advice *a, enum msg_type type, const union msg *m)
{
    if (type == MSG_loader_span) /* rows come while steps are made */
        return;
    if (type == MSG_trainer_step) {
        step_heed(a, &m->trainer_step);
        return;
    }
    stretch_end(a);
    if (type == MSG_event_task)
        epoch_heed(a, &m->event_task);
}

/* A stage's heap was looked at up to settle_s ago. */
static void heap_sample(struct advice *a, struct advice_heap *h, uint64_t bytes)
{
    int in_stretch = a->stretch_unix_s != 0 && a->now_unix_s - a->stretch_unix_s >= settle_s;
    if (bytes < h->floor)
        h->floor = bytes;
    h->samples++;
    if (in_stretch && bytes < h->lowest)
        h->lowest = bytes;
}

void advice_leak_samples(struct advice *a, const struct sample_round *r)
{
    for (int i = 0; i < STAGE_COUNT; i++) {
        struct advice_heap *h = &a->heap[i];
        const struct msg_memory_sample *s = &r->of[i];
        if (!r->there[i] || s->heap_bytes == 0)
            continue;
        if (h->pid != s->pid) {
            advice_due(a, kind_of(i), 0, h->pid != 0);
            *h = (struct advice_heap){.pid = s->pid, .lowest = UINT64_MAX};
            floor_begin(h);
        }
        heap_sample(a, h, s->heap_bytes);
    }
}
