/* web_follow.c - see web_follow.h. */
#include "monitord/web_follow.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/daemon.h"

static const double point_s = 0.5; /* of the curves, at first */

/* A socket's path may have 107 bytes; through the descriptor it always is short. */
static void place_name(const struct web_follow *f, char *text, size_t bytes)
{
    snprintf(text, bytes, "/proc/self/fd/%d", f->directory);
}

static int stream_open(struct web_follow *f, const char *name, struct err *e)
{
    char place[64];
    f->directory = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (f->directory < 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot open the directory of the run %s", name);
    place_name(f, place, sizeof place);
    if (link_open(&f->stream, LINK_SUB, place, "monitor.pub", NULL, e) == 0 &&
        link_subscribe(&f->stream, "", e) == 0)
        return 0;
    link_close(&f->stream);
    close(f->directory);
    f->directory = -1;
    return -1;
}

int web_follow_open(struct web_follow *f, const char *name, struct err *e)
{
    struct web_place here = web_place_here();
    if (strcmp(f->name, name) != 0 || memcmp(&f->place, &here, sizeof here) != 0) {
        web_follow_close(f);
        memset(f, 0, sizeof *f);
        web_series_open(&f->series, point_s);
    }
    f->step_heard = f->block_heard = f->gpu_heard = f->estimates = 0;
    memset(f->sample_heard, 0, sizeof f->sample_heard);
    f->place = here;
    if (stream_open(f, name, e) < 0)
        return -1;
    snprintf(f->name, sizeof f->name, "%s", name);
    return 0;
}

void web_follow_rest(struct web_follow *f)
{
    if (!web_follow_listens(f))
        return;
    link_close(&f->stream);
    for (int i = 0; i < STAGE_COUNT; i++)
        link_close(&f->ask[i]);
    close(f->directory);
    f->directory = -1;
}

void web_follow_close(struct web_follow *f)
{
    web_follow_rest(f);
    f->name[0] = '\0';
}

/* ---- what comes ------------------------------------------------------------------------------ */

static void step_take(struct web_follow *f, const struct msg_trainer_step *m)
{
    const double values[WEB_CURVES] = {
        [WEB_LOSS] = m->loss,
        [WEB_RATE] = m->steps_per_s,
        [WEB_WAIT] = m->wait_share,
        [WEB_LEARNING_RATE] = m->learning_rate,
    };
    f->step = *m;
    f->step_heard = 1;
    f->estimates = 0;
    for (int c = WEB_LOSS; c <= WEB_LEARNING_RATE; c++)
        web_series_put(&f->series, c, m->head.time_s, values[c]);
}

static void sample_take(struct web_follow *f, const struct msg_memory_sample *m)
{
    for (int i = 0; i < SAMPLE_SERIES; i++) {
        if (strcmp(m->stage, sample_name(i)) != 0)
            continue;
        f->samples[i] = *m;
        f->sample_heard[i] = 1;
        web_series_put(&f->series, i, m->head.time_s, (double)m->rss_bytes);
    }
}

static void message_take(struct web_follow *f, enum msg_type type, const union msg *m)
{
    switch (type) {
    case MSG_trainer_step:
        step_take(f, &m->trainer_step);
        break;
    case MSG_fisher_block:
        f->block = m->fisher_block;
        f->block_heard = f->estimates = 1;
        break;
    case MSG_gpu_sample:
        f->gpu = m->gpu_sample;
        f->gpu_heard = 1;
        web_series_put(&f->series, WEB_GPU, f->gpu.head.time_s, f->gpu.utilisation);
        break;
    case MSG_memory_sample:
        sample_take(f, &m->memory_sample);
        break;
    default: /* facts are read from the journals */
        break;
    }
}

static void answers_take(struct web_follow *f, int stage)
{
    static union msg m;
    enum msg_type type;
    struct err e;
    char text[sizeof f->notices[0].text];
    int got;
    while ((got = link_recv(&f->ask[stage], NULL, &type, &m, &e)) != 0) {
        if (got > 0 && type == MSG_done)
            snprintf(text, sizeof text, "%s: %s, accepted", stage_names[stage], m.done.verb);
        else if (got > 0 && type == MSG_unknown)
            snprintf(text, sizeof text, "%s: %.200s", stage_names[stage], m.unknown.reason);
        else
            continue;
        web_follow_note(f, text);
    }
}

void web_follow_turn(struct web_follow *f)
{
    static union msg m;
    enum msg_type type;
    struct err e;
    int got;
    while ((got = link_recv(&f->stream, NULL, &type, &m, &e)) != 0)
        if (got > 0)
            message_take(f, type, &m);
    for (int i = 0; i < STAGE_COUNT; i++)
        if (f->ask[i].socket)
            answers_take(f, i);
}

void web_follow_note(struct web_follow *f, const char *text)
{
    if (f->notice_count == WEB_NOTICES_MAX)
        memmove(f->notices, f->notices + 1, --f->notice_count * sizeof f->notices[0]);
    struct web_notice *n = &f->notices[f->notice_count++];
    n->time_s = clock_unix_s();
    snprintf(n->text, sizeof n->text, "%s", text);
}

/* ---- what is asked --------------------------------------------------------------------------- */

int web_follow_ask(struct web_follow *f, int stage, enum msg_type verb, union msg *m, struct err *e)
{
    struct link *l = &f->ask[stage];
    char place[64], endpoint[64], id[LINK_PEER_BYTES_MAX];
    if (!l->socket) {
        place_name(f, place, sizeof place);
        snprintf(endpoint, sizeof endpoint, "%.*s.ctl", (int)strlen(stage_names[stage]) - 1,
                 stage_names[stage]);
        snprintf(id, sizeof id, "web-%d-%.6f", (int)getpid(), clock_monotonic_s());
        if (link_open(l, LINK_DEALER, place, endpoint, id, e) < 0)
            return -1;
    }
    if (link_send(l, NULL, verb, m) < 0)
        return err_set(e, EXIT_CODE_TEMPORARY,
                       "cannot ask %s: it has not taken what was asked before", stage_names[stage]);
    return 0;
}
