/* tap_display.h - the foreground of a run, drawn from its messages and deaths: a pure function of
 * what comes in.
 *
 * On a terminal: one line with a bar, rewritten in place, events as lines above it. Elsewhere: the
 * events and a progress line every two seconds. Messages missed before the first one are simply not
 * shown.
 */
#ifndef MONITORD_TAP_DISPLAY_H
#define MONITORD_TAP_DISPLAY_H

#include <stdint.h>
#include <stdio.h>

#include "proto/msg.h"

enum { DISPLAY_STAGES_MAX = 8 };

struct display_stage {
    char name[17];
    uint64_t pid; /* 0: not known yet */
    uint64_t rss_bytes;
};

struct display {
    FILE *out; /* borrowed */
    int terminal;
    struct display_stage stages[DISPLAY_STAGES_MAX];
    int stage_count;
    uint64_t memory_bytes; /* of all stages, when the last of them was measured; 0: not yet */
    enum msg_type latest;  /* trainer.step or fisher.block: what the progress line is about */
    struct msg_trainer_step step;
    struct msg_fisher_block block;
    double gpu_utilisation; /* NaN: not known */
    int changed;            /* the progress line has news */
    int drawn;              /* terminal: a progress line stands there without a newline */
    double drawn_s;
};

void display_open(struct display *d, FILE *out, int terminal);

/* Take in one message; events are written at once. */
void display_message(struct display *d, enum msg_type type, const union msg *m);

/* Take in one line of logs/deaths ("time stage code sentence"), without its newline. What ended by
 * a signal is told; what ended with a code has said so itself. */
void display_death(struct display *d, const char *line);

/* Write the progress line if there is news and it is time. `columns` is the terminal's width. */
void display_tick(struct display *d, double now_s, int columns);

/* Write the last news and end the line. */
void display_close(struct display *d, int columns);

#endif
