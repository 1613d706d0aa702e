/* advice.c - when advice is told, and how; see advice.h. */
#include "monitord/advice.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "monitord/advice_private.h"

static const char *const names[] = {"system", "container", "swap", "device",
                                    "rate",   "wait",      "gap",  "leak"};

static const char *name_of(int kind)
{
    return names[kind < ADVICE_LEAK ? kind : ADVICE_LEAK];
}

static const char *stage_of(int kind)
{
    return kind < ADVICE_LEAK ? "" : stage_names[kind - ADVICE_LEAK];
}

void advice_open(struct advice *a, const struct options *o, advice_tell *tell, void *self)
{
    *a = (struct advice){.options = o, .tell = tell, .self = self, .device_free = UINT64_MAX};
}

/* ---- telling ---- */

/* What is about a task as a whole, not about a moment, is told once of it. */
static int is_of_task(enum advice_kind kind)
{
    return kind == ADVICE_RATE || kind == ADVICE_GAP;
}

static const char *task_of(const struct advice *a, enum advice_kind kind)
{
    return kind == ADVICE_GAP ? a->gap_task : a->task;
}

int advice_due(struct advice *a, enum advice_kind kind, int over, int under)
{
    struct advice_told *told = &a->told[kind];
    if (is_of_task(kind))
        return over && strcmp(told->task, task_of(a, kind)) != 0;
    if (under)
        told->stands = 0;
    if (!over || told->stands)
        return 0;
    double since_s = a->now_unix_s - told->unix_s;
    return told->unix_s == 0 || since_s >= ADVICE_EVERY_S || since_s < 0; /* the clock was set */
}

static void told_note(struct advice *a, enum advice_kind kind, double unix_s, const char *task)
{
    struct advice_told *told = &a->told[kind];
    told->stands = 1;
    told->unix_s = unix_s;
    snprintf(told->task, sizeof told->task, "%s", task);
}

void advice_say(struct advice *a, enum advice_kind kind, double value, double limit,
                const char *option, const char *format, ...)
{
    struct msg_memory_advice m = {.value = value, .limit = limit};
    char sentence[sizeof m.sentence];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    MSG_STR(m.what, name_of(kind));
    MSG_STR(m.stage, stage_of(kind));
    MSG_STR(m.task, task_of(a, kind));
    MSG_STR(m.option, option);
    MSG_STR(m.sentence, sentence);
    told_note(a, kind, a->now_unix_s, m.task);
    a->tell(a->self, &m);
}

void advice_was_told(struct advice *a, const struct msg_memory_advice *m)
{
    for (int kind = 0; kind < ADVICE_KINDS; kind++)
        if (strcmp(m->what, name_of(kind)) == 0 && strcmp(m->stage, stage_of(kind)) == 0)
            told_note(a, (enum advice_kind)kind, m->head.time_s, m->task);
}

void advice_forget(struct advice *a)
{
    memset(a->told, 0, sizeof a->told);
}

/* ---- what comes in ---- */

void advice_samples(struct advice *a, const struct sample_round *round)
{
    a->now_unix_s = round->unix_s;
    advice_memory_samples(a, round);
    advice_leak_samples(a, round);
}

void advice_message(struct advice *a, enum msg_type type, const union msg *m)
{
    a->now_unix_s = m->head.time_s;
    advice_leak_message(a, type, m);
    if (type == MSG_trainer_step) {
        a->device_free = m->trainer_step.device_free_bytes;
        advice_training_step(a, &m->trainer_step);
        return;
    }
    advice_memory_fact(a, type, m);
    advice_training_fact(a, type, m, 0);
}

void advice_facts_begin(struct advice *a)
{
    a->evaluated.epoch = a->gap_epoch = a->best_epoch = a->above = 0;
    a->gap_task[0] = '\0';
}

void advice_fact(struct advice *a, enum msg_type type, const union msg *m)
{
    advice_memory_fact(a, type, m);
    advice_training_fact(a, type, m, 1);
}
