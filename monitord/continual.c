/* continual.c - see continual.h. */
#include "monitord/continual.h"

#include <math.h>
#include <string.h>

#include "proto/metric.h"

/* 1, or -1 for a metric of which less is better: differences times this are gains. */
static double gain_sign(const char *metric)
{
    return metric_better(metric, 0, 1) ? -1 : 1;
}

/* The best of a task from its own end on, the last one left out. */
static double best_of(const struct continual_results *r, const char *metric, uint32_t task,
                      uint32_t last)
{
    double best = NAN;
    for (uint32_t after = task; after < last; after++)
        if (metric_better(metric, r->result[after][task], best))
            best = r->result[after][task];
    return best;
}

/* A sum with a NaN in it is one: a figure is known where all it needs is. */
void continual_figures(struct continual_results *r, const char *metric, const double *fresh,
                       uint32_t count)
{
    double sign = gain_sign(metric), average = 0, forgetting = 0, backward = 0, forward = 0;
    ensure(count > 0);
    uint32_t last = count - 1;
    for (uint32_t j = 0; j < count; j++)
        average += r->result[last][j];
    for (uint32_t j = 0; j < last; j++) {
        backward += sign * (r->result[last][j] - r->result[j][j]);
        forgetting += sign * (best_of(r, metric, j, last) - r->result[last][j]);
        forward += sign * (r->result[j][j + 1] - fresh[j + 1]);
    }
    r->average = average / count;
    r->backward_transfer = last ? backward / last : NAN;
    r->forgetting = last ? forgetting / last : NAN;
    r->forward_transfer = last ? forward / last : NAN;
}

/* The tasks that are no comparison; 0 if one of them does not go on from the one before it. */
static uint32_t tasks_find(const struct options *o, uint32_t list[OPTION_TASKS_MAX])
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < o->task_count; i++) {
        const struct task_options *t = &o->tasks[i];
        if (t->comparison_of[0])
            continue;
        if (count && strcmp(t->from, o->tasks[list[count - 1]].name) != 0)
            return 0;
        list[count++] = i;
    }
    return count < 2 ? 0 : count;
}

static uint32_t name_find(const struct continual *c, const char *name)
{
    uint32_t i = 0;
    while (i < c->count && strcmp(c->names[i], name) != 0)
        i++;
    return i;
}

/* The way without EWC: the comparison of each task, from the first one that has one on; what comes
 * before is shared. 1 if there is one to the last task, each task of which begins where the one
 * before it ended: a comparison may also begin with weights that EWC has made. */
static int comparisons_find(const struct options *o, const uint32_t *tasks, uint32_t count,
                            uint32_t without[OPTION_TASKS_MAX])
{
    int begun = 0;
    for (uint32_t i = 0; i < count; i++) {
        int comparison = options_comparison(o, tasks[i]);
        if (comparison < 0 && begun)
            return 0;
        begun |= comparison >= 0;
        without[i] = comparison < 0 ? tasks[i] : (uint32_t)comparison;
        if (i && strcmp(o->tasks[without[i]].from, o->tasks[without[i - 1]].name) != 0)
            return 0;
    }
    return begun;
}

static void results_clear(struct continual_results *r)
{
    for (uint32_t i = 0; i < OPTION_TASKS_MAX; i++)
        for (uint32_t j = 0; j < OPTION_TASKS_MAX; j++)
            r->result[i][j] = r->loss[i][j] = NAN;
}

/* Row i: what was said after task after[i] of the options. */
static void results_fill(struct continual *c, struct continual_results *r, const struct options *o,
                         const struct checkpoint_meta *meta, const uint32_t *after)
{
    results_clear(r);
    for (uint32_t k = 0; k < meta->result_count; k++) {
        const struct checkpoint_result *m = &meta->results[k];
        uint32_t task = name_find(c, m->task);
        for (uint32_t i = 0; task < c->count && i < c->count; i++)
            if (strcmp(m->after, o->tasks[after[i]].name) == 0) {
                r->result[i][task] = m->value;
                r->loss[i][task] = m->loss;
            }
    }
    continual_figures(r, c->metric, c->fresh, c->count);
}

static void fresh_fill(struct continual *c, const struct checkpoint_meta *meta)
{
    for (uint32_t i = 0; i < c->count; i++)
        c->fresh[i] = NAN;
    for (uint32_t k = 0; k < meta->result_count; k++) {
        const struct checkpoint_result *m = &meta->results[k];
        uint32_t task = name_find(c, m->task);
        snprintf(c->metric, sizeof c->metric, "%s", m->metric);
        if (task < c->count && strcmp(m->after, CHECKPOINT_AFTER_NONE) == 0)
            c->fresh[task] = m->value;
    }
}

void continual_make(struct continual *c, const struct options *o,
                    const struct checkpoint_meta *meta, const struct history *h)
{
    uint32_t tasks[OPTION_TASKS_MAX], without[OPTION_TASKS_MAX];
    memset(c, 0, sizeof *c);
    c->count = tasks_find(o, tasks);
    if (!c->count)
        return;
    for (uint32_t i = 0; i < c->count; i++)
        snprintf(c->names[i], sizeof c->names[i], "%s", o->tasks[tasks[i]].name);
    fresh_fill(c, meta);
    results_fill(c, &c->own, o, meta, tasks);
    c->compared = comparisons_find(o, tasks, c->count, without);
    if (c->compared)
        results_fill(c, &c->without_ewc, o, meta, without);
    for (uint32_t i = 0; i < c->count; i++)
        c->seconds[i] = history_task_s(h, c->names[i]);
}
