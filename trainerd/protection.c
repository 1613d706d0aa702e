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

/* The file's values, as often as it takes, into f. */
static int fisher_compress(struct importance *f, const float *values, uint64_t count, struct err *e)
{
    for (int pass = 0; pass < IMPORTANCE_PASSES; pass++) {
        importance_pass(f, pass);
        if (importance_take(f, values, count, e) < 0)
            return -1;
    }
    importance_done(f);
    return 0;
}

/* p->fisher from the file: 1; or it is damaged and removed: 0; -1. */
static int fisher_read(struct trainer *t, struct protection *p, const char *path,
                       const struct fisherfile_meta *meta, struct err *e)
{
    struct err why;
    int result = -1;
    float *values = malloc(meta->parameters * sizeof *values);
    if (!values)
        return err_set(e, EXIT_CODE_TEMPORARY,
                       "no memory for the Fisher information: %" PRIu64 " parameters",
                       meta->parameters);
    if (fisherfile_read(path, meta, values, &why) < 0)
        result = damaged_remove(path, &why, e);
    else if (importance_open(&p->fisher, &t->model, e) == 0)
        result = fisher_compress(&p->fisher, values, meta->parameters, e) < 0
                     ? err_prefix(e, "%s", path)
                     : 1;
    free(values);
    if (result < 1)
        importance_close(&p->fisher);
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
    int result = fisher_read(t, p, path, &meta, e);
    if (result == 1)
        log_info("task=%s bytes_per_parameter=%.3f error=%.4f its Fisher information protects it",
                 task, (double)p->fisher.region.bytes / (double)meta.parameters, p->fisher.error);
    return result;
}

/* A unit that no sample woke has no Fisher information at all, on either side of it: that is what
 * damping is for. */
static void term_add(struct trainer *t, const struct protection *p)
{
    t->terms[t->term_count++] =
        (struct ewc_term){.importance = &p->fisher,
                          .theta_stars = p->theta_star.parameters,
                          .lambda = t->options->ewc_lambda,
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
