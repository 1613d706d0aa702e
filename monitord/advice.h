/* advice.h - what is wrong with how a run goes, while it goes on, and which option helps:
 * memory.advice.
 *
 * Pure: samples and the stages' messages in, advice out, so that a test can make any run up. Each
 * kind is told once, and again only after what it was about has gone (hysteresis), at most every
 * ADVICE_EVERY_S; what is about one task is told once of each. What a plan says before a run is
 * trainerd's (docs/MEMORY.md).
 *
 *   system, container  more than 80 % of the memory is in use, until less than 75 % is
 *   swap               anything of a stage is swapped out, until nothing is
 *   device             the stages have more of a GPU's memory than planned or allowed, or others
 *                      have taken what is planned
 *   rate               iterations a second differ tenfold within a task
 *   wait               over 30 % of the time goes into waiting for data, until less than 15 % does
 *   gap                the validation loss has been rising while the training loss falls
 *   leak               a stage's heap grows evenly with steps or epochs, until it is restarted
 *
 * advice_memory.c has the first four, advice_training.c the next three, advice_leak.c the last.
 */
#ifndef MONITORD_ADVICE_H
#define MONITORD_ADVICE_H

#include <stdint.h>

#include "monitord/sample.h"
#include "proto/options.h"

enum advice_kind {
    ADVICE_SYSTEM,
    ADVICE_CONTAINER,
    ADVICE_SWAP,
    ADVICE_DEVICE,
    ADVICE_RATE,
    ADVICE_WAIT,
    ADVICE_GAP,
    ADVICE_LEAK, /* of the first stage; those of the others follow */
    ADVICE_KINDS = ADVICE_LEAK + STAGE_COUNT
};

enum { ADVICE_EVERY_S = 600, ADVICE_WINDOWS = 3 };

/* *m is filled, its head excepted. */
typedef void advice_tell(void *self, struct msg_memory_advice *m);

/* What was told of a kind. */
struct advice_told {
    int stands;    /* what it was about has not gone since */
    double unix_s; /* 0: never */
    char task[65]; /* rate, gap: of which task */
};

struct advice_window { /* a piece of training, ten seconds or a step long */
    double began_unix_s;
    double seconds, wait_s; /* of training, and of that spent waiting for data */
    uint64_t steps;
};

enum { TREND_POINTS = 16 };

struct advice_trend { /* of bytes over steps or epochs; where it is full, half of it stays */
    uint32_t count;
    uint64_t at[TREND_POINTS], bytes[TREND_POINTS];
};

struct advice_heap { /* of a stage */
    uint64_t pid;
    uint64_t lowest;                   /* since the last trainer.step; UINT64_MAX: not known */
    uint64_t floor;                    /* since the last epoch that counts; likewise */
    uint32_t samples;                  /* that the floor is of */
    struct advice_trend steps, epochs; /* in one stretch of training; from epoch to epoch */
};

struct advice {
    const struct options *options; /* borrowed */
    advice_tell *tell;
    void *self;
    double now_unix_s; /* time of what came last */
    struct advice_told told[ADVICE_KINDS];
    uint64_t host_planned, rows_planned, activations_planned; /* trainerd's, bytes; 0: not known */
    int on_device;                                            /* there is a GPU */
    uint64_t device_planned, device_total, device_free;       /* bytes; 0, UINT64_MAX: not known */
    double device_wrong_since_s;                              /* 0: it is not */
    /* rate and wait: of one start of trainerd, rate of one task */
    uint64_t incarnation;
    char task[65];
    struct advice_window window; /* the open one */
    uint64_t step;               /* of the message before */
    uint32_t windows;            /* full ones of this task and start, the first one included */
    double slowest, fastest;     /* steps/s; the first window left out */
    double slowest_wait;         /* wait_share of the slowest */
    struct advice_window waits[ADVICE_WINDOWS]; /* the newest full ones of this start */
    uint32_t wait_count;
    /* gap */
    struct msg_trainer_evaluation evaluated; /* behind the epoch that ends next; epoch 0: not yet */
    char gap_task[65];
    uint64_t gap_epoch, best_epoch; /* the last one that ended, the one with the least validation
                                       loss; 0: none */
    double first_loss, best_loss, best_training_loss; /* the first two of validation */
    uint32_t above; /* epochs in a row that were clearly worse than the best */
    /* leak */
    struct advice_heap heap[STAGE_COUNT];
    char leak_task[65]; /* of the newest trainer.step, like what follows */
    uint64_t leak_incarnation, leak_epoch, leak_step;
    double stretch_unix_s; /* when the stretch of training began; 0: nothing is trained */
};

void advice_open(struct advice *a, const struct options *o, advice_tell *tell, void *self);

/* It was told before, by this process or the one before it. */
void advice_was_told(struct advice *a, const struct msg_memory_advice *m);

/* Forget what was told: another launch begins. */
void advice_forget(struct advice *a);

void advice_samples(struct advice *a, const struct sample_round *round);

/* A message of a stage's stream; facts may come twice. */
void advice_message(struct advice *a, enum msg_type type, const union msg *m);

/* Facts of trainerd's journal, in order, from its beginning: `begin` forgets those that were known,
 * and nothing is told of them. */
void advice_facts_begin(struct advice *a);
void advice_fact(struct advice *a, enum msg_type type, const union msg *m);

#endif
