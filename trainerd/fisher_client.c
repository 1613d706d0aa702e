/* fisher_client.c - asking fisherd for a task's Fisher information, once a second until it is
 * there.
 *
 * The request names the job, so asking again costs nothing and a fisherd that died is asked like
 * any other; its answer only says when to look at the file. A DEALER that hears nothing for
 * loader.peer_timeout_s is replaced by one with a routing id never used before (a peer that was
 * stopped may have swallowed what went to the old one), and a fisherd that is stopped is killed, to
 * be restarted; one that hangs ends itself by its alarm.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "proto/log.h"

static const double ASK_EVERY_S = 1;

static const struct data_set *data_of(const struct trainer *t, const char *task)
{
    return &t->data.set[t->data.set_of[options_task(t->options, task)]];
}

static uint64_t samples_wanted(const struct trainer *t, const char *task)
{
    uint64_t rows = data_of(t, task)->train.rows;
    return t->options->fisher_samples < rows ? t->options->fisher_samples : rows;
}

void fisher_client_wish(const struct trainer *t, const char *task, const char *sha256,
                        struct fisher_wish *w)
{
    *w = (struct fisher_wish){0};
    snprintf(w->task, sizeof w->task, "%s", task);
    snprintf(w->sha256, sizeof w->sha256, "%s", sha256);
    snprintf(w->job, sizeof w->job, "%s-%.32s-%" PRIu64, task, sha256, samples_wanted(t, task));
    snprintf(w->path, sizeof w->path, "fisher/%s.h5", task);
}

void fisher_client_merge(const struct trainer *t, struct fisher_wish *sum,
                         const struct fisher_wish *newer)
{
    struct fisher_wish next = *newer;
    if (!sum->task[0]) {
        *sum = next;
        return;
    }
    char text[sizeof sum->job + sizeof next.job + 32];
    size_t used = (size_t)snprintf(next.merge, sizeof next.merge, "%s%s%s", sum->merge,
                                   sum->merge[0] ? " " : "", sum->task);
    ensure(used < sizeof next.merge); /* OPTION_NAMES_MAX names */
    uint64_t bytes = (uint64_t)snprintf(text, sizeof text, "%s + %s, %.17g", sum->job, newer->job,
                                        t->options->ewc_gamma);
    snprintf(next.job, sizeof next.job, "%s-online-%016" PRIx64, next.task,
             order_hash(text, bytes));
    snprintf(next.path, sizeof next.path, "fisher/%s.online.h5", next.task);
    *sum = next;
}

void fisher_client_close(struct trainer *t)
{
    link_close(&t->fisher.dealer);
    t->fisher.estimated_job[0] = 0;
    t->fisher.samples = t->fisher.samples_done = 0;
}

static int dealer_open(struct trainer *t, double now_s, struct err *e)
{
    struct fisher_client *c = &t->fisher;
    char id[64];
    link_close(&c->dealer);
    snprintf(id, sizeof id, "trainerd-%" PRIu64 "-%" PRIu64, t->daemon->lock.incarnation,
             ++c->attempt);
    if (link_open(&c->dealer, LINK_DEALER, ".", "fisher.ctl", id, e) < 0)
        return -1;
    c->answered_s = now_s;
    c->asked_s = 0;
    return 0;
}

static void estimate_send(struct trainer *t, const struct fisher_wish *w)
{
    const struct options *o = t->options;
    const char *task = w->task;
    uint64_t permute = o->tasks[options_task(o, task)].permute_features;
    struct msg_estimate m = {.samples = samples_wanted(t, task),
                             .scale = o->data_scale,
                             .permute = permute != OPTION_NONE,
                             .permute_seed = permute != OPTION_NONE ? permute : 0,
                             .gamma = o->ewc_gamma};
    char path[CHECKPOINT_PATH_BYTES];
    retention_task_path(path, task);
    MSG_STR(m.job, w->job);
    MSG_STR(m.task, task);
    MSG_STR(m.checkpoint, path);
    MSG_STR(m.digest, w->sha256);
    MSG_STR(m.merge, w->merge);
    MSG_STR(m.file, data_of(t, task)->file);
    MSG_STR(m.split, o->data_train);
    MSG_STR(m.fingerprint, data_of(t, task)->fingerprint);
    link_send(&t->fisher.dealer, NULL, MSG_estimate,
              &m); /* lost is as good as late: it is sent again */
}

static int answer_take(struct trainer *t, const char *job, enum msg_type type, const union msg *m,
                       struct err *e)
{
    struct fisher_client *c = &t->fisher;
    if (type == MSG_refused && strcmp(m->refused.job, job) == 0)
        return err_set(e, EXIT_CODE_PERMANENT, "fisherd refuses the Fisher information %s: %.600s",
                       job, m->refused.reason);
    if (type == MSG_estimating && strcmp(m->estimating.job, job) == 0) {
        c->samples_done = m->estimating.samples_done;
        c->samples = m->estimating.samples;
    }
    if (type == MSG_estimated && strcmp(m->estimated.job, job) == 0)
        snprintf(c->estimated_job, sizeof c->estimated_job, "%s", job);
    return 0;
}

static int answers_receive(struct trainer *t, const char *job, double now_s, struct err *e)
{
    enum msg_type type;
    union msg m;
    struct err why;
    int got;
    while ((got = link_recv(&t->fisher.dealer, NULL, &type, &m, &why)) != 0) {
        t->fisher.answered_s = now_s;
        if (got < 0)
            log_warn("from=fisherd %s", why.text);
        else if (answer_take(t, job, type, &m, e) < 0)
            return -1;
    }
    return 0;
}

int fisher_client_turn(struct trainer *t, const struct fisher_wish *w, int *sleep_ms, struct err *e)
{
    struct fisher_client *c = &t->fisher;
    double now_s = clock_monotonic_s();
    const char *job = w->job, *task = w->task;
    if (strcmp(c->estimated_job, job) == 0) /* protection.c has looked at the file since */
        return err_set(e, EXIT_CODE_PERMANENT,
                       "fisherd says that the Fisher information %s is done, but %s is not there "
                       "or is another "
                       "one",
                       job, w->path);
    int silent = c->dealer.socket && now_s - c->answered_s > (double)t->options->peer_timeout_s;
    if (silent && run_stopped_kill("fisherd"))
        log_warn("task=%s fisherd is stopped and silent: killing it, to be restarted", task);
    if ((silent || !c->dealer.socket) && dealer_open(t, now_s, e) < 0)
        return -1;
    if (answers_receive(t, job, now_s, e) < 0)
        return -1;
    if (strcmp(c->estimated_job, job) == 0)
        return 0;
    data_give_back(t, 0); /* fisherd computes on the same device */
    if (now_s - c->asked_s >= ASK_EVERY_S) {
        estimate_send(t, w);
        c->asked_s = now_s;
    }
    snprintf(t->daemon->doing, sizeof t->daemon->doing,
             "task %s: waiting for fisherd, Fisher information of task %s, %" PRIu64 " of %" PRIu64
             " samples",
             tasks_current(t)->name, task, c->samples_done,
             c->samples ? c->samples : samples_wanted(t, task));
    *sleep_ms = (int)(1000 * (c->asked_s + ASK_EVERY_S - now_s)) + 1;
    return 0;
}
