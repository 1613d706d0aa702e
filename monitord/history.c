/* history.c - sums over the journals; see history.h. */
#include "monitord/history.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "proto/epochs.h"
#include "proto/journal.h"

void history_open(struct history *h, const struct options *o)
{
    memset(h, 0, sizeof *h);
    h->options = o;
}

void history_journal(struct history *h, int stage)
{
    ensure(stage >= 0 && stage < STAGE_COUNT);
    h->stage = stage;
}

/* Index of a launch; when the table is full, the last one stands for all later ones. */
static uint32_t launch_find(struct history *h, uint64_t number, double time_s)
{
    for (uint32_t i = 0; i < h->launch_count; i++)
        if (h->launches[i].number == number)
            return i;
    if (h->launch_count == HISTORY_LAUNCHES_MAX)
        return h->launch_count - 1;
    h->launches[h->launch_count] = (struct history_launch){number, time_s, time_s};
    return h->launch_count++;
}

static void stage_start(struct history *h, const struct msg_event_stage *m)
{
    struct history_place *p = &h->places[h->stage];
    uint32_t launch = launch_find(h, m->launch, m->head.time_s);
    if (h->stage == stage_index("trainerd"))
        h->evaluated.epoch = 0; /* it is evaluated again */
    if (!p->in_launch || launch != p->launch)
        p->launch_starts = 0;
    p->in_launch = 1;
    p->launch = launch;
    h->starts[h->stage]++;
    if (p->launch_starts++ > 0 && m->launch != 0)
        h->restarts[h->stage]++;
}

static struct history_task *task_find(struct history *h, const char *name)
{
    for (uint32_t i = 0; i < h->task_count; i++)
        if (strcmp(h->tasks[i].task, name) == 0)
            return &h->tasks[i];
    if (h->task_count == OPTION_TASKS_MAX)
        return NULL;
    struct history_task *t = &h->tasks[h->task_count++];
    snprintf(t->task, sizeof t->task, "%s", name);
    return t;
}

/* The oldest quarter leaves the table, all but its time. None of them ends again: a kill sets back
 * by a checkpoint's distance. */
static void epochs_leave(struct history *h)
{
    uint32_t leaving = HISTORY_EPOCHS_MAX / 4;
    for (uint32_t i = 0; i < leaving; i++) {
        struct history_task *t = task_find(h, h->epochs[i].task);
        if (t)
            t->seconds += h->epochs[i].seconds;
    }
    h->epochs_left += leaving;
    h->epoch_count -= leaving;
    memmove(h->epochs, &h->epochs[leaving], h->epoch_count * sizeof *h->epochs);
}

/* The evaluation is one on the data of the task that is trained; a comparison's are its original's.
 */
static int evaluation_is_own(const struct options *o, const struct msg_trainer_evaluation *m)
{
    int task = options_task(o, m->after);
    return task >= 0 && strcmp(m->task, o->tasks[epochs_key_task(o, (uint32_t)task)].name) == 0;
}

/* Where a task ends with other weights than those of its last epoch these are evaluated once more:
 * not what that epoch came to. */
int history_evaluation_counts(const struct options *o, const struct msg_trainer_evaluation *before,
                              const struct msg_trainer_evaluation *m)
{
    int again = m->epoch == before->epoch && strcmp(m->after, before->after) == 0;
    return m->epoch && evaluation_is_own(o, m) && !(again && m->final && !before->final);
}

/* An epoch is evaluated before its end is told. */
static void evaluation_keep(struct history *h, const struct msg_trainer_evaluation *m)
{
    if (history_evaluation_counts(h->options, &h->evaluated, m))
        h->evaluated = *m;
}

static void epoch_evaluated(struct history_epoch *epoch, struct msg_trainer_evaluation *m)
{
    epoch->validation_loss = epoch->value = NAN;
    if (m->epoch != epoch->epoch || strcmp(m->after, epoch->task) != 0)
        return;
    epoch->validation_loss = m->loss;
    epoch->value = m->value;
    snprintf(epoch->metric, sizeof epoch->metric, "%s", m->metric);
    m->epoch = 0;
}

/* An epoch whose end was lost to a kill ends again, with the same loss: it stands once. */
static void epoch_end(struct history *h, const struct msg_event_task *m)
{
    uint32_t at = 0;
    h->epoch_rows += m->rows;
    h->epoch_seconds += m->seconds;
    h->epoch_wait_seconds += m->wait_seconds;
    while (at < h->epoch_count &&
           (h->epochs[at].epoch != m->epoch || strcmp(h->epochs[at].task, m->task) != 0))
        at++;
    if (at == HISTORY_EPOCHS_MAX) {
        epochs_leave(h);
        at = h->epoch_count;
    }
    if (at == h->epoch_count)
        h->epoch_count++;
    h->epochs[at] =
        (struct history_epoch){.epoch = m->epoch, .loss = m->loss, .seconds = m->seconds};
    snprintf(h->epochs[at].task, sizeof h->epochs[at].task, "%s", m->task);
    epoch_evaluated(&h->epochs[at], &h->evaluated);
}

/* The newest come last; a part says nothing new of an epoch that was delivered whole. */
static void receipt_keep(struct history *h, const struct msg_loader_receipt *m)
{
    struct msg_loader_receipt *r = h->receipts;
    uint32_t at = 0;
    while (at < h->receipt_count &&
           (r[at].epoch != m->epoch || strcmp(r[at].consumer, m->consumer) != 0 ||
            strcmp(r[at].split, m->split) != 0))
        at++;
    if (at < h->receipt_count && r[at].whole && !m->whole)
        return;
    if (at == HISTORY_RECEIPTS_MAX)
        at = 0;
    if (at < h->receipt_count) {
        h->receipt_count--;
        memmove(&r[at], &r[at + 1], (h->receipt_count - at) * sizeof *r);
    }
    r[h->receipt_count++] = *m;
}

/* The newest come last; one that was made again after a death stands once, as it came last. */
static void decision_keep(struct history *h, const struct msg_event_training *m)
{
    struct msg_event_training *d = h->decisions;
    uint32_t at = 0;
    h->option_changes += strcmp(m->what, "options") == 0;
    while (at < h->decision_count &&
           (d[at].step != m->step || strcmp(d[at].what, m->what) != 0 ||
            strcmp(d[at].task, m->task) != 0 || strcmp(d[at].sentence, m->sentence) != 0))
        at++;
    if (at == HISTORY_DECISIONS_MAX)
        at = 0;
    if (at < h->decision_count) {
        h->decision_count--;
        memmove(&d[at], &d[at + 1], (h->decision_count - at) * sizeof *d);
    }
    d[h->decision_count++] = *m;
}

static void advice_keep(struct history *h, const struct msg_memory_advice *m)
{
    if (h->advice_count == HISTORY_ADVICE_MAX)
        memmove(&h->advice[0], &h->advice[1], --h->advice_count * sizeof *m);
    h->advice[h->advice_count++] = *m;
}

/* By its time, since each stage has some in its journal; of too many the oldest leaves. */
static void mark_keep(struct history *h, const struct msg_event_mark *m)
{
    uint32_t at = h->mark_count;
    while (at && h->marks[at - 1].head.time_s > m->head.time_s)
        at--;
    if (h->mark_count == HISTORY_MARKS_MAX) {
        if (at == 0)
            return;
        memmove(&h->marks[0], &h->marks[1], --at * sizeof *m);
    } else {
        memmove(&h->marks[at + 1], &h->marks[at], (h->mark_count++ - at) * sizeof *m);
    }
    h->marks[at] = *m;
}

void history_add(struct history *h, enum msg_type type, const union msg *m)
{
    if (type == MSG_event_stage && strcmp(m->event_stage.what, "start") == 0)
        stage_start(h, &m->event_stage);
    else if (type == MSG_event_task && strcmp(m->event_task.what, "epoch-end") == 0)
        epoch_end(h, &m->event_task);
    else if (type == MSG_trainer_evaluation)
        evaluation_keep(h, &m->trainer_evaluation);
    else if (type == MSG_memory_advice)
        advice_keep(h, &m->memory_advice);
    else if (type == MSG_event_determinism)
        h->differing_steps++;
    else if (type == MSG_event_training)
        decision_keep(h, &m->event_training);
    else if (type == MSG_event_mark)
        mark_keep(h, &m->event_mark);
    else if (type == MSG_event_pretrained)
        h->pretrained = m->event_pretrained;
    else if (type == MSG_event_device)
        h->device = m->event_device;
    else if (type == MSG_loader_receipt)
        receipt_keep(h, &m->loader_receipt);
    else if (type == MSG_event_plan && h->stage == stage_index("trainerd"))
        h->plan = m->event_plan;
    if (h->places[h->stage].in_launch) {
        struct history_launch *l = &h->launches[h->places[h->stage].launch];
        l->first_s = fmin(l->first_s, m->head.time_s);
        l->last_s = fmax(l->last_s, m->head.time_s);
    }
}

static int visit(void *self, enum msg_type type, const union msg *m)
{
    history_add(self, type, m);
    return 0;
}

int history_read(struct history *h, const struct options *o, struct err *e)
{
    history_open(h, o);
    return history_read_on(h, e);
}

int history_read_on(struct history *h, struct err *e)
{
    for (int i = 0; i < STAGE_COUNT; i++) {
        char path[64];
        snprintf(path, sizeof path, "journals/%s", stage_names[i]);
        history_journal(h, i);
        if (journal_read_on(path, &h->places[i].bytes, visit, h, e) < 0)
            return -1;
    }
    return 0;
}

double history_task_s(const struct history *h, const char *task)
{
    double sum = 0;
    for (uint32_t i = 0; i < h->task_count; i++)
        if (strcmp(h->tasks[i].task, task) == 0)
            sum += h->tasks[i].seconds;
    for (uint32_t i = 0; i < h->epoch_count; i++)
        if (strcmp(h->epochs[i].task, task) == 0)
            sum += h->epochs[i].seconds;
    return sum;
}

double history_wall_s(const struct history *h)
{
    double sum = 0;
    for (uint32_t i = 0; i < h->launch_count; i++)
        sum += h->launches[i].last_s - h->launches[i].first_s;
    return sum;
}
