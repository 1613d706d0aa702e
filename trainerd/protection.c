/* protection.c - the EWC terms of a task: for each task it protects, Fisher information and theta*.
 *
 * theta* is the checkpoint at that task's end, mapped where it lies; the Fisher file must have been
 * made from just those parameters, and is kept compressed (engine/importance.h). Where there is
 * none yet, fisherd is asked. All is in place before the task's first step, so a Fisher result
 * never takes effect in the middle of a task.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/fisher_code.h"
#include "proto/fisherfile.h"
#include "proto/log.h"

static int theta_star_map(struct trainer *t, struct protection *p, const char *task, struct err *e)
{
    if (p->theta_star.at)
        return 0;
    if (save_map_end(t, task, &p->theta_star, e) < 0)
        return -1;
    snprintf(p->sha256, sizeof p->sha256, "%s", t->other.parameters_sha256);
    return 0;
}

static int fisher_check(const struct trainer *t, const struct protection *p, const char *path,
                        const struct fisherfile_meta *meta, struct err *e)
{
    if (strcmp(meta->parameters_sha256, p->sha256) != 0)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "%s was made from parameters %.12s, but theta* is %.12s; remove the file to have it "
            "made again",
            path, meta->parameters_sha256, p->sha256);
    if (meta->parameters != t->model.parameter_count)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s holds %" PRIu64 " parameters, the model has %" PRIu64
                       "; remove the file to have it made again",
                       path, meta->parameters, t->model.parameter_count);
    return 0;
}

/* It can be computed again, so a damaged one costs only that: 0; or -1. */
static int damaged_remove(const char *path, const struct err *why, struct err *e)
{
    if (why->code == EXIT_CODE_TEMPORARY) {
        *e = *why;
        return -1;
    }
    log_warn("path=%s \"removed, fisherd is asked for it again: %s\"", path, why->text);
    if (unlink(path) < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot remove the damaged file %s", path);
    return 0;
}

/* The values of a block that was read. */
static int block_values(const struct fisherfile_block *block, float *values, struct err *e)
{
    struct fisher_code code;
    if (fisher_code_begin(&code, block->form, block->count, e) < 0)
        return -1;
    for (int i = 0; i < block->arrays; i++)
        fisher_code_add(&code, block->array[i].name, h5type_name(block->array[i].type),
                        block->array[i].count, block->array[i].data);
    return fisher_decode(&code, values, e);
}

/* One block into the form that training keeps. */
static int block_take(struct importance *f, const char *path, const struct fisherfile_block *block,
                      struct err *e)
{
    float *values = malloc(block->count * sizeof *values);
    if (!values)
        return err_set(e, EXIT_CODE_TEMPORARY,
                       "no memory for a block of the Fisher information: %" PRIu64 " parameters",
                       block->count);
    int result = block_values(block, values, e);
    if (result == 0)
        result = importance_take(f, values, block->count, e);
    free(values);
    return result == 0 ? 0
                       : err_prefix(e, "%s, parameters from %" PRIu64 " on", path, block->first);
}

/* All blocks, one after the other. */
static int blocks_take(struct importance *f, const char *path, struct err *e)
{
    struct fisherfile *file;
    struct fisherfile_meta meta;
    struct fisherfile_block block;
    int more = fisherfile_open(&file, path, &meta, e);
    if (more < 0)
        return -1;
    while ((more = fisherfile_next(file, &block, e)) > 0) {
        more = block_take(f, path, &block, e);
        fisherfile_block_free(&block);
        if (more < 0)
            break;
    }
    fisherfile_close(&file);
    return more;
}

static int fisher_read(struct trainer *t, struct importance *f, const char *path, struct err *e)
{
    int result = importance_open(f, &t->model, !t->options->fisher_use_compression, e);
    while (result == 0 && importance_next(f)) {
        result = blocks_take(f, path, e);
        if (result == 0 && importance_taken(f) != t->model.parameter_count)
            result = err_set(e, EXIT_CODE_PERMANENT,
                             "%s has become another file while it was read: %" PRIu64
                             " parameters, the model has %" PRIu64,
                             path, importance_taken(f), t->model.parameter_count);
    }
    if (result < 0)
        importance_close(f);
    return result;
}

/* 1: the file of that job is there, and about theta*; 0: it is not; -1. */
static int fisher_there(const struct trainer *t, const struct protection *p,
                        const struct fisher_wish *w, struct fisherfile_meta *meta, struct err *e)
{
    struct err why;
    if (access(w->path, F_OK) != 0)
        return 0;
    if (fisherfile_read_meta(w->path, meta, &why) < 0) {
        log_warn("path=%s %s; asking fisherd for it again", w->path, why.text);
        return 0;
    }
    if (strcmp(meta->job, w->job) != 0)
        return 0;
    return fisher_check(t, p, w->path, meta, e) < 0 ? -1 : 1;
}

/* 1: p->fisher is there; 0: there is no file of this job; -1. */
static int fisher_load(struct trainer *t, struct protection *p, const struct fisher_wish *w,
                       struct err *e)
{
    struct fisherfile_meta meta;
    struct err why;
    int there = fisher_there(t, p, w, &meta, e);
    if (there <= 0)
        return there;
    if (fisher_read(t, &p->fisher, w->path, &why) < 0)
        return damaged_remove(w->path, &why, e);
    log_info("task=%s bytes_per_parameter=%.3f error=%.4f its Fisher information protects it",
             w->task, (double)p->fisher.region.bytes / (double)meta.parameters, p->fisher.error);
    return 1;
}

/* A unit that no sample woke has no Fisher information at all, on either side of it: that is what
 * damping is for. */
static void term_add(struct trainer *t, const struct protection *p)
{
    static uint64_t version; /* what is loaded now may lie where another task's was */
    t->terms[t->term_count++] =
        (struct ewc_term){.importance = &p->fisher,
                          .theta_stars = p->theta_star.parameters,
                          .lambda = t->options->ewc_lambda * (t->options->ewc_half ? 1 : 2),
                          .damping = t->options->ewc_damping * p->fisher.mean,
                          .version = ++version};
}

/* Each task by itself: 1 when all terms are there, 0 while fisherd is asked, -1. */
static int separate_turn(struct trainer *t, int *sleep_ms, struct err *e)
{
    const struct option_list *names = &tasks_current(t)->ewc;
    while ((uint32_t)t->term_count < names->count) {
        const char *task = names->name[t->term_count];
        struct protection *p = &t->protections[t->term_count];
        struct fisher_wish wish;
        if (theta_star_map(t, p, task, e) < 0)
            return -1;
        fisher_client_wish(t, task, p->sha256, &wish);
        int there = fisher_load(t, p, &wish, e);
        if (there <= 0)
            return there < 0 ? -1 : fisher_client_turn(t, &wish, sleep_ms, e);
        term_add(t, p);
    }
    return 1;
}

/* The next of the listed tasks in the run's order, behind `last`; NULL: there is none. */
static const char *task_behind(const struct trainer *t, int last)
{
    const struct options *o = t->options;
    const struct option_list *names = &tasks_current(t)->ewc;
    for (uint32_t i = (uint32_t)(last + 1); i < o->task_count; i++)
        for (uint32_t k = 0; k < names->count; k++)
            if (strcmp(names->name[k], o->tasks[i].name) == 0)
                return names->name[k];
    return NULL;
}

/* All tasks as one term: theta* of the newest, their Fisher information added up by fisherd once
 * that of each is there. Of the others only the digests are kept, each taken once, however often
 * fisherd is asked. As separate_turn. */
static int online_turn(struct trainer *t, int *sleep_ms, struct err *e)
{
    struct protection *p = NULL;
    struct fisher_wish wish = {0}, sum = {0};
    struct fisherfile_meta meta;
    uint32_t tasks = 0;
    for (const char *task; t->term_count == 0; tasks++) {
        task = task_behind(t, tasks ? options_task(t->options, wish.task) : -1);
        if (!task)
            break;
        p = &t->protections[tasks];
        if (!p->sha256[0] && theta_star_map(t, p, task, e) < 0)
            return -1;
        if (tasks)
            checkpoint_map_close(&p[-1].theta_star);
        fisher_client_wish(t, task, p->sha256, &wish);
        int there = fisher_there(t, p, &wish, &meta, e);
        if (there <= 0)
            return there < 0 ? -1 : fisher_client_turn(t, &wish, sleep_ms, e);
        fisher_client_merge(t, &sum, &wish);
    }
    if (!p) /* nothing is protected, or the term is there */
        return 1;
    int there = fisher_load(t, p, &sum, e);
    if (there <= 0)
        return there < 0 ? -1 : fisher_client_turn(t, &sum, sleep_ms, e);
    term_add(t, p);
    return 1;
}

int protection_turn(struct trainer *t, int *sleep_ms, struct err *e)
{
    int online = strcmp(t->options->ewc_mode, "online") == 0;
    int done = online ? online_turn(t, sleep_ms, e) : separate_turn(t, sleep_ms, e);
    if (done < 0)
        return DAEMON_FAILED;
    if (!done)
        return DAEMON_GO_ON;
    fisher_client_close(t);
    t->saved_s = clock_monotonic_s();
    t->state = TRAINER_TRAIN;
    return DAEMON_GO_ON;
}

void protection_free(struct trainer *t)
{
    for (int i = 0; i < OPTION_NAMES_MAX; i++) {
        importance_close(&t->protections[i].fisher);
        checkpoint_map_close(&t->protections[i].theta_star);
        t->protections[i] = (struct protection){0};
    }
    t->term_count = 0;
}
