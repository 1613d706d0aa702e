/* advice_private.h - what the files of advice.h share. */
#ifndef MONITORD_ADVICE_PRIVATE_H
#define MONITORD_ADVICE_PRIVATE_H

#include "monitord/advice.h"

struct advice_help {
    const char *option, *words; /* what it does, for the end of a sentence */
};

/* 1: it is to be told now, what it is about being `over`. Once `under` it may be told again. */
int advice_due(struct advice *a, enum advice_kind kind, int over, int under);

/* Tell it: the values, the option that helps, and a sentence with why it matters and what the
 * option does. */
void advice_say(struct advice *a, enum advice_kind kind, double value, double limit,
                const char *option, const char *format, ...) __attribute__((format(printf, 6, 7)));

/* advice_memory.c */
void advice_memory_samples(struct advice *a, const struct sample_round *round);
void advice_memory_fact(struct advice *a, enum msg_type type, const union msg *m);

/* advice_training.c; quiet: nothing is told */
void advice_training_step(struct advice *a, const struct msg_trainer_step *m);
void advice_training_fact(struct advice *a, enum msg_type type, const union msg *m, int quiet);

/* advice_leak.c */
void advice_leak_samples(struct advice *a, const struct sample_round *round);
void advice_leak_message(struct advice *a, enum msg_type type, const union msg *m);

#endif
