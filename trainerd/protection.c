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
    struct fisher_code code = {.count = block->count};
    int form = fisher_form_of(block->form);
    if (form < 0)
        return err_set(e, EXIT_CODE_PERMANENT, "stored in the form '%s', which is unknown",
                       block->form);
    code.form = (enum fisher_form)form;
    for (; code.parts < block->arrays && code.parts < FISHER_PARTS_MAX; code.parts++) {
        const struct fisherfile_array *a = &block->array[code.parts];
        code.part[code.parts] =
            (struct fisher_part){a->name, h5type_name(a->type), a->count, a->data};
    }
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

/* 1: p->fisher is there; 0: there is no file of this job; -1. */
static int fisher_load(struct trainer *t, struct protection *p, const char *task, const char *job,
                       struct err *e)
{
    char path[128];
    struct fisherfile_meta meta;
    struct err why;
    snprintf(path, sizeof path, "fisher/%s.h5", task);
    if (access(path, F_OK) != 0)
        return 0;
    if (fisherfile_read_meta(path, &meta, &why) < 0) {
        log_warn("path=%s %s; asking fisherd for it again", path, why.text);
        return 0;
    }
    if (strcmp(meta.job, job) != 0)
        return 0;
    if (fisher_check(t, p, path, &meta, e) < 0)
        return -1;
    if (fisher_read(t, &p->fisher, path, &why) < 0)
        return damaged_remove(path, &why, e);
    log_info("task=%s bytes_per_parameter=%.3f error=%.4f its Fisher information protects it", task,
             (double)p->fisher.region.bytes / (double)meta.parameters, p->fisher.error);
    return 1;
}

/* A unit that no sample woke has no Fisher information at all, on either side of it: that is what
 * damping is for. */
static void term_add(struct trainer *t, const struct protection *p)
{
    t->terms[t->term_count++] =
        (struct ewc_term){.importance = &p->fisher,
                          .theta_stars = p->theta_star.parameters,
                          .lambda = t->options->ewc_lambda * (t->options->ewc_half ? 1 : 2),
                          .damping = t->options->ewc_damping * p->fisher.mean};
}

int protection_turn(struct trainer *t, int *sleep_ms, struct err *e)
{
    const struct option_list *names = &tasks_current(t)->ewc;
    while ((uint32_t)t->term_count < names->count) {
        const char *task = names->name[t->term_count];
        struct protection *p = &t->protections[t->term_count];
        char job[129];
        if (theta_star_map(t, p, task, e) < 0)
            return DAEMON_FAILED;
        fisher_client_job(t, task, p->sha256, job);
        int there = fisher_load(t, p, task, job, e);
        if (there < 0)
            return DAEMON_FAILED;
        if (!there)
            return fisher_client_turn(t, task, p->sha256, sleep_ms, e) < 0 ? DAEMON_FAILED
                                                                           : DAEMON_GO_ON;
        term_add(t, p);
    }
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
