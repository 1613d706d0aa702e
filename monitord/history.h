/* history.h - what the journals say about a run: launches, restarts, time, losses.
 *
 * Pure: facts in, sums out. A launch is one start of the whole run by finetune.sh; every
 * event.stage carries its number, and the facts that follow in the same journal belong to it. A
 * restart is a start of a stage that is not its first in a launch; starts by hand (launch 0) are
 * none.
 */
#ifndef MONITORD_HISTORY_H
#define MONITORD_HISTORY_H

#include <stdint.h>

#include "monitord/stages.h"
#include "proto/err.h"
#include "proto/msg.h"
#include "proto/options.h"

enum {
    HISTORY_LAUNCHES_MAX = 4096,
    HISTORY_EPOCHS_MAX = 4096,
    HISTORY_RECEIPTS_MAX = 256,
    HISTORY_DECISIONS_MAX = 64,
    HISTORY_MARKS_MAX = 64,
    HISTORY_ADVICE_MAX = 64
};

struct history_launch {
    uint64_t number;
    double first_s, last_s; /* Unix time of its first and last fact */
};

struct history_epoch {
    char task[65];
    uint64_t epoch;       /* from 1 */
    double loss, seconds; /* mean of its training; time it took */
    /* on the validation rows of the task's own data behind it; NaN and no metric: not evaluated */
    double validation_loss, value;
    char metric[33];
};

struct history_task { /* of the epochs of a task that left the table */
    char task[65];
    double seconds;
};

struct history {
    const struct options *options; /* borrowed; of the run */
    struct history_launch launches[HISTORY_LAUNCHES_MAX];
    uint32_t launch_count;
    uint32_t starts[STAGE_COUNT], restarts[STAGE_COUNT];
    struct history_epoch epochs[HISTORY_EPOCHS_MAX]; /* the newest, in order; what came twice stands
                                                        once, as it came last */
    uint32_t epoch_count;
    uint64_t epochs_left; /* left the table, before those in it */
    struct history_task tasks[OPTION_TASKS_MAX];
    uint32_t task_count;
    struct msg_loader_receipt
        receipts[HISTORY_RECEIPTS_MAX]; /* the newest, one of each consumer, split and epoch */
    uint32_t receipt_count;
    struct msg_event_training
        decisions[HISTORY_DECISIONS_MAX]; /* of the training loop, the newest, each once */
    uint32_t decision_count;
    struct msg_event_mark marks[HISTORY_MARKS_MAX]; /* users', the newest, in the order of time */
    uint32_t mark_count;
    struct msg_memory_advice advice[HISTORY_ADVICE_MAX]; /* the newest */
    uint32_t advice_count;
    uint32_t option_changes; /* launches that went on with other options */
    uint64_t epoch_rows;     /* trained on in epochs that were finished, and the time it took */
    double epoch_seconds, epoch_wait_seconds; /* of it spent waiting for data */
    uint32_t differing_steps; /* starts that found a recomputed step to differ from the lineage */
    struct msg_event_pretrained pretrained; /* the last one; no file: none */
    struct msg_event_device device;         /* the last one; no kind: none yet */
    struct msg_event_plan plan;             /* the last one; no rows: none yet */
    int stage; /* whose journal is being read, and where one is in each */
    struct history_place {
        int in_launch; /* launches[launch] is the present one */
        uint32_t launch, launch_starts;
        uint64_t bytes; /* read so far */
    } places[STAGE_COUNT];
    struct msg_trainer_evaluation evaluated; /* behind the epoch that ends next; epoch 0: not yet */
};

void history_open(struct history *h, const struct options *o);

/* The facts of stage's journal follow, in order, behind those of it that were there before. */
void history_journal(struct history *h, int stage);
void history_add(struct history *h, enum msg_type type, const union msg *m);

/* Is it of the weights that an epoch ended with, on the data of the task that was trained? before:
 * the last one for which that was so, epoch 0: none. */
int history_evaluation_counts(const struct options *o, const struct msg_trainer_evaluation *before,
                              const struct msg_trainer_evaluation *m);

/* Read journals/<stage> of all stages below the present directory, of the run with these options.
 */
int history_read(struct history *h, const struct options *o, struct err *e);

/* And later what has been appended to them since. */
int history_read_on(struct history *h, struct err *e);

/* Seconds that the epochs of a task took. */
double history_task_s(const struct history *h, const char *task);

/* Seconds between first and last fact, summed over launches. */
double history_wall_s(const struct history *h);

#endif
