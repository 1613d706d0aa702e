/* web_follow.h - what a live run says, kept for the page: the newest of each measurement, and its
 * curves.
 *
 * It listens to monitor.pub as tap does, so that no stage notices. What was said before it began is
 * not known but for facts, which stand in the journals (web_state.c). Verbs are sent to a stage and
 * not waited for: the answer is a notice.
 */
#ifndef MONITORD_WEB_FOLLOW_H
#define MONITORD_WEB_FOLLOW_H

#include "monitord/stages.h"
#include "monitord/web_runs.h"
#include "monitord/web_series.h"
#include "proto/link.h"
#include "proto/msg.h"

enum { WEB_NOTICES_MAX = 8 };

struct web_notice {
    double time_s; /* Unix time */
    char text[256];
};

struct web_follow {
    char name[WEB_NAME_MAX + 1]; /* "": this place is free */
    struct web_place place;      /* of its directory */
    int directory;               /* of the run; -1: it has ended, what it said is kept */
    struct link stream, ask[STAGE_COUNT];
    struct msg_trainer_step step;
    struct msg_fisher_block block;
    struct msg_memory_sample samples[SAMPLE_SERIES];
    struct msg_gpu_sample gpu;
    int step_heard, block_heard, gpu_heard, sample_heard[SAMPLE_SERIES];
    int estimates;                              /* fisher.block is newer than trainer.step */
    struct web_notice notices[WEB_NOTICES_MAX]; /* the newest last */
    int notice_count;
    struct web_series series;
};

/* Begin with the run in whose directory one stands; of one that had ended the curves go on, unless
 * it is another one of the same name. */
int web_follow_open(struct web_follow *f, const char *name, struct err *e);
/* Listen no more, and keep what was said. */
void web_follow_rest(struct web_follow *f);
void web_follow_close(struct web_follow *f); /* harmless twice */

static inline int web_follow_listens(const struct web_follow *f)
{
    return f->name[0] && f->directory >= 0;
}

/* Take what has come. */
void web_follow_turn(struct web_follow *f);

/* Send verb (m: with its fields) to a stage. */
int web_follow_ask(struct web_follow *f, int stage, enum msg_type verb, union msg *m,
                   struct err *e);

void web_follow_note(struct web_follow *f, const char *text);

#endif
