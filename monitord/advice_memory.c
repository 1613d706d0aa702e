/* advice_memory.c - advice about memory: the machine's, the container's, swap, a GPU's. See
 * advice.h. */
#include <inttypes.h>
#include <string.h>

#include "monitord/advice_private.h"

static const double share_over = 0.80, share_under = 0.75; /* of the memory, in use */
static const double own_share_least = 0.25; /* of what is in use: less is not this run's doing */
static const double part_least = 0.10;      /* of what trainerd takes: an option saves less */
static const double plan_margin = 0.05;     /* the plan is nearer than that */

static const double device_wrong_s = 5;

enum { DEVICE_MARGIN_BYTES = 64 << 20 };

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

static int is_worth_it(const struct advice *a, uint64_t bytes)
{
    return a->host_planned == 0 || (double)bytes >= part_least * (double)a->host_planned;
}

/* An option that a run may be resumed with, and that saves something of this one. */
static struct advice_help host_help(const struct advice *a)
{
    const struct options *o = a->options;
    if (!a->on_device && strcmp(o->loader_use_chunk_loader, "true") == 0 &&
        is_worth_it(a, a->rows_planned))
        return (struct advice_help){
            "loader.use_chunk_loader",
            "loader.use_chunk_loader: gpu keeps no copy of the rows in the host's "
            "memory, with the same result"};
    if (!o->use_gradient_checkpointing && is_worth_it(a, a->activations_planned))
        return (struct advice_help){
            "training.use_gradient_checkpointing",
            "training.use_gradient_checkpointing: true takes less for activations, "
            "with the same result"};
    return (struct advice_help){
        "memory.host_limit_mb",
        "a smaller memory.host_limit_mb makes --plan name options with which the "
        "run takes less"};
}

static struct advice_help beside_help(void)
{
    return (struct advice_help){
        "memory.host_limit_mb",
        "most of it is other programs'; with memory.host_limit_mb set to what they "
        "leave, the run is planned beside them"};
}

static uint64_t stages_bytes(const struct sample_round *r)
{
    uint64_t bytes = 0;
    for (int i = 0; i < STAGE_COUNT; i++)
        bytes += r->there[i] ? r->of[i].rss_bytes : 0;
    return bytes;
}

/* Of the machine or the container. */
static void share_look(struct advice *a, const struct sample_round *r, int series,
                       enum advice_kind kind, const char *whose, const char *then)
{
    const struct msg_memory_sample *s = &r->of[series];
    if (!r->there[series] || s->peak_bytes == 0)
        return;
    double share = (double)s->rss_bytes / (double)s->peak_bytes;
    uint64_t own = stages_bytes(r);
    if (!advice_due(a, kind, share > share_over, share < share_under))
        return;
    struct advice_help help =
        (double)own < own_share_least * (double)s->rss_bytes ? beside_help() : host_help(a);
    advice_say(
        a, kind, share, share_over, help.option,
        "%.0f %% of the %s memory is in use (%.0f of %.0f MiB, this run's stages have %.0f); "
        "where it is full %s; %s",
        100 * share, whose, mib(s->rss_bytes), mib(s->peak_bytes), mib(own), then, help.words);
}

static void swap_look(struct advice *a, const struct sample_round *r)
{
    uint64_t bytes = 0, most = 0;
    const char *stage = "";
    for (int i = 0; i < STAGE_COUNT; i++) {
        uint64_t its = r->there[i] ? r->of[i].swap_bytes : 0;
        bytes += its;
        if (its > most) {
            most = its;
            stage = stage_names[i];
        }
    }
    if (!advice_due(a, ADVICE_SWAP, bytes > 0, bytes == 0))
        return;
    struct advice_help help = host_help(a);
    advice_say(a, ADVICE_SWAP, (double)bytes, 0, help.option,
               "%.3g MiB of this run's memory are swapped out, most of them %s's (%.3g): a stage "
               "that needs them waits for the disk; %s",
               mib(bytes), stage, mib(most), help.words);
}

/* ---- a GPU's ---- */

static uint64_t device_limit(const struct advice *a)
{
    uint64_t asked = a->options->device_limit_mb << 20;
    return asked && (asked < a->device_total || !a->device_total) ? asked : a->device_total;
}

/* What is wrong with a GPU's memory, in bytes; 0: nothing. */
struct device_fault {
    uint64_t planned; /* others have taken some of it */
    uint64_t exceeded,
        limit; /* what the stages should not have more than: the limit, or the plan */
};

static struct device_fault device_fault_find(const struct advice *a, uint64_t bytes)
{
    struct device_fault f = {0};
    uint64_t planned = a->device_planned, limit = device_limit(a);
    double most = (1 + plan_margin) * (double)planned + DEVICE_MARGIN_BYTES;
    if (limit && bytes > limit)
        f.exceeded = f.limit = limit;
    else if (planned && (double)bytes > most)
        f.exceeded = planned;
    else if (planned > bytes && a->device_free != UINT64_MAX &&
             planned - bytes > a->device_free + DEVICE_MARGIN_BYTES)
        f.planned = planned;
    return f;
}

static void device_say(struct advice *a, uint64_t bytes, const struct device_fault *f)
{
    static const char option[] = "memory.device_limit_mb";
    uint64_t there = bytes + a->device_free;
    if (f->planned)
        advice_say(a, ADVICE_DEVICE, (double)there, (double)f->planned, option,
                   "%.0f MiB of the GPU's memory are planned, but the stages have %.0f and only "
                   "%.0f more are free, so another program has some of it and the run may find "
                   "none; with %s: %" PRIu64
                   " it is planned beside that program, and device: names another GPU",
                   mib(f->planned), mib(bytes), mib(a->device_free), option, there >> 20);
    else
        advice_say(a, ADVICE_DEVICE, (double)bytes, (double)f->exceeded, option,
                   "the stages have %.0f MiB of the GPU's memory, more than %s (%.0f), so that the "
                   "run may find none; a smaller %s makes the plan, and the mega-batch with it, "
                   "smaller",
                   mib(bytes), f->limit ? "they may have" : "was planned", mib(f->exceeded),
                   option);
}

/* Stages say now and then what they have and what is free, not in the same moment: only what lasts
 * counts. */
static void device_look(struct advice *a, const struct sample_round *r)
{
    uint64_t bytes = r->of[SAMPLE_DEVICE].rss_bytes;
    if (!r->there[SAMPLE_DEVICE])
        return;
    a->on_device = 1;
    struct device_fault f = device_fault_find(a, bytes);
    int wrong = f.planned || f.exceeded;
    if (!wrong)
        a->device_wrong_since_s = 0;
    else if (a->device_wrong_since_s == 0)
        a->device_wrong_since_s = a->now_unix_s;
    int lasts = wrong && a->now_unix_s - a->device_wrong_since_s >= device_wrong_s;
    if (advice_due(a, ADVICE_DEVICE, lasts, !wrong))
        device_say(a, bytes, &f);
}

void advice_memory_samples(struct advice *a, const struct sample_round *r)
{
    device_look(a, r);
    share_look(a, r, SAMPLE_SYSTEM, ADVICE_SYSTEM, "machine's",
               "the kernel swaps, or kills a process");
    share_look(a, r, SAMPLE_CONTAINER, ADVICE_CONTAINER, "container's",
               "the kernel kills one of its processes");
    swap_look(a, r);
}

static void host_plan_keep(struct advice *a, const struct msg_event_plan *m)
{
    a->host_planned = a->rows_planned = a->activations_planned = 0;
    for (uint32_t i = 0; i < m->rows_count; i++) {
        const struct msg_plan_row *row = &m->rows[i];
        if (strcmp(row->stage, "trainerd") != 0)
            continue;
        if (strncmp(row->what, "mega-batch", 10) == 0)
            a->rows_planned += row->bytes;
        if (strncmp(row->what, "activations", 11) == 0)
            a->activations_planned += row->bytes;
    }
    for (uint32_t i = 0; i < m->totals_count; i++)
        if (strcmp(m->totals[i].stage, "trainerd") == 0)
            a->host_planned = m->totals[i].bytes;
}

void advice_memory_fact(struct advice *a, enum msg_type type, const union msg *m)
{
    if (type == MSG_event_device)
        a->device_total =
            strcmp(m->event_device.kind, "cpu") != 0 ? m->event_device.memory_bytes : 0;
    if (type != MSG_event_plan)
        return;
    host_plan_keep(a, &m->event_plan);
    for (uint32_t i = 0; i < m->event_plan.totals_count; i++)
        if (strcmp(m->event_plan.totals[i].stage, sample_name(SAMPLE_DEVICE)) == 0)
            a->device_planned = m->event_plan.totals[i].bytes;
}
