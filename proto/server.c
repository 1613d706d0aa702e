/* server.c - see server.h: what the loader does about one stream, as a table.
 *
 *   state      what exists                   event       what follows
 *   STARTING   reader, reading the file      DESCRIBED   OPENED -> OPENED
 *                                            TICK, late  REJECTED (now), CLOSE -> CLOSED
 *   OPENED     its description               OPEN        OPENED again
 *                                            HELLO       HAND -> ARMING; too small: WELCOME no
 *                                            TICK, late  REJECTED (now), CLOSE -> CLOSED
 *   ARMING     reader is mapping the arena   ARMED       WELCOME yes -> SERVING
 *                                            TICK, late  REJECTED (now), CLOSE -> CLOSED
 *   SERVING    reader filling slots          GRANT       new: READ; done: READY again
 *                                            DONE        of the slot's newest grant: READY
 *                                            TICK, late  REJECTED (now), CLOSE -> CLOSED
 *   CLOSED     nothing                       any         nothing
 *   all but OPENED, CLOSED                   HELLO       WELCOME no
 *   all but CLOSED                           REJECTED    REJECTED (ever), CLOSE -> CLOSED
 *                                            DIED        REJECTED (now), CLOSE -> CLOSED
 *                                            HANGUP      CLOSE -> CLOSED
 *
 * The refusal always goes out before CLOSE, whose last act is the hang-up of the door. A crash of
 * the loader leaves nothing: the consumer opens again at the next one and grants what it still
 * wants.
 */
#include "proto/server.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "proto/err.h"

struct step {
    struct server *s;
    struct server_action *actions;
    int count;
};

static struct server_action *act(struct step *t, enum server_action_type type)
{
    ensure(t->count < SERVER_ACTIONS_MAX);
    struct server_action *a = &t->actions[t->count++];
    a->type = type;
    a->permanent = a->ok = 0;
    a->reason[0] = '\0';
    return a;
}

static void stream_close(struct step *t)
{
    t->s->state = SERVER_CLOSED;
    act(t, SERVER_ACT_CLOSE);
}

static void reject(struct step *t, int permanent, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void reject(struct step *t, int permanent, const char *format, ...)
{
    struct server_action *a = act(t, SERVER_ACT_REJECTED);
    va_list args;
    va_start(args, format);
    vsnprintf(a->reason, sizeof a->reason, format, args);
    va_end(args);
    a->permanent = permanent;
    stream_close(t);
}

static void on_open(struct step *t, const struct msg_open *open)
{
    struct server *s = t->s;
    if (open->head.incarnation < s->consumer_incarnation)
        return;
    if (s->state != SERVER_STARTING) /* there the answer follows when the file is described */
        act(t, SERVER_ACT_OPENED);
}

static void on_described(struct step *t, const struct msg_opened *opened, uint64_t now_ms)
{
    struct server *s = t->s;
    if (s->state != SERVER_STARTING)
        return;
    s->opened = *opened;
    s->opened.stream = s->stream;
    s->state = SERVER_OPENED;
    /* A large file may take long to describe; the consumer's turn begins now. */
    s->born_ms = s->heard_ms = now_ms;
    act(t, SERVER_ACT_OPENED);
}

static void on_hello(struct step *t, const struct server_event *event)
{
    struct server *s = t->s;
    const char *refusal = NULL;
    if (s->state == SERVER_STARTING)
        refusal = "the stream is not opened yet";
    else if (s->state != SERVER_OPENED)
        refusal = "the stream has its arena already";
    else if (event->slots < 1 || event->slots > ARENA_SLOTS_MAX)
        refusal = "the arena has no slots or more than 4096";
    else if (event->slot_bytes < s->opened.span_bytes_max)
        refusal = "the arena's slots are smaller than a span";
    if (refusal) {
        struct server_action *a = act(t, SERVER_ACT_WELCOME);
        snprintf(a->reason, sizeof a->reason, "%s", refusal);
        return;
    }
    s->slots = event->slots;
    s->born_ms = event->now_ms;
    s->state = SERVER_ARMING;
    act(t, SERVER_ACT_HAND);
}

static void on_armed(struct step *t)
{
    if (t->s->state != SERVER_ARMING)
        return;
    t->s->state = SERVER_SERVING;
    act(t, SERVER_ACT_WELCOME)->ok = 1;
}

static void on_grant(struct step *t, const struct msg_grant *grant, uint64_t now_ms)
{
    struct server *s = t->s;
    if (s->state != SERVER_SERVING || grant->stream != s->stream ||
        grant->head.incarnation < s->consumer_incarnation)
        return;
    if (grant->slot >= s->slots || grant->span >= s->opened.spans || grant->generation == 0) {
        reject(t, 1,
               "a grant names slot %" PRIu64 " and span %" PRIu64 ": the arena has %" PRIu64
               " slots and an epoch %" PRIu64 " spans",
               grant->slot, grant->span, s->slots, s->opened.spans);
        return;
    }
    struct server_slot *slot = &s->slot[grant->slot];
    if (grant->generation < slot->generation)
        return;
    if (grant->generation > slot->generation) {
        if (s->reading == 0)
            s->heard_ms = now_ms;
        s->reading += slot->generation == 0 || slot->done;
        slot->generation = grant->generation;
        slot->done = 0;
        act(t, SERVER_ACT_READ)->grant = *grant;
    } else if (slot->done) {
        act(t, SERVER_ACT_READY)->ready = slot->ready;
    }
}

static void on_done(struct step *t, const struct msg_ready *ready, uint64_t now_ms)
{
    struct server *s = t->s;
    if (s->state != SERVER_SERVING || ready->slot >= s->slots)
        return;
    s->heard_ms = now_ms;
    struct server_slot *slot = &s->slot[ready->slot];
    if (slot->generation == 0 || slot->done || slot->generation != ready->generation)
        return;
    slot->done = 1;
    s->reading--;
    slot->ready = *ready;
    slot->ready.stream = s->stream;
    act(t, SERVER_ACT_READY)->ready = slot->ready;
}

static const char *const reader_doing[] = {
    [SERVER_STARTING] = "opened the file",
    [SERVER_OPENED] = "waited for the arena",
    [SERVER_ARMING] = "mapped the arena",
    [SERVER_SERVING] = "read the file",
};

static void on_died(struct step *t)
{
    reject(t, 0, "the loader's reader died while it %s", reader_doing[t->s->state]);
}

static void on_tick(struct step *t, uint64_t now_ms)
{
    struct server *s = t->s;
    uint64_t timeout_ms = s->reader_timeout_ms;
    if (s->state == SERVER_STARTING)
        timeout_ms += s->describe_more_ms;
    if (server_reader_silent_ms(s, now_ms) >= timeout_ms)
        reject(t, 0, "the loader's reader was silent for %" PRIu64 " ms while it %s", timeout_ms,
               reader_doing[s->state]);
    if (s->state != SERVER_OPENED && s->state != SERVER_ARMING)
        return;
    if (now_ms - s->born_ms >= s->door_timeout_ms)
        reject(t, 0, "the stream was closed: %s within %" PRIu64 " ms",
               s->state == SERVER_OPENED ? "no arena came through the door"
                                         : "its reader did not map the arena",
               s->door_timeout_ms);
}

void server_init(struct server *s, uint64_t stream, uint64_t consumer_incarnation, uint64_t now_ms,
                 uint64_t door_timeout_ms, uint64_t reader_timeout_ms)
{
    ensure(reader_timeout_ms > 0);
    memset(s, 0, sizeof *s);
    s->state = SERVER_STARTING;
    s->stream = stream;
    s->consumer_incarnation = consumer_incarnation;
    s->born_ms = s->heard_ms = now_ms;
    s->door_timeout_ms = door_timeout_ms;
    s->reader_timeout_ms = reader_timeout_ms;
}

uint64_t server_reader_silent_ms(const struct server *s, uint64_t now_ms)
{
    int owes = s->state == SERVER_STARTING || (s->state == SERVER_SERVING && s->reading > 0);
    return owes ? now_ms - s->heard_ms : 0;
}

int server_step(struct server *s, const struct server_event *event,
                struct server_action actions[SERVER_ACTIONS_MAX])
{
    struct step t = {.s = s, .actions = actions};
    if (s->state == SERVER_CLOSED)
        return 0;
    switch (event->type) {
    case SERVER_EV_OPEN:
        on_open(&t, &event->msg->open);
        break;
    case SERVER_EV_DESCRIBED:
        on_described(&t, &event->msg->opened, event->now_ms);
        break;
    case SERVER_EV_HELLO:
        on_hello(&t, event);
        break;
    case SERVER_EV_ARMED:
        on_armed(&t);
        break;
    case SERVER_EV_GRANT:
        on_grant(&t, &event->msg->grant, event->now_ms);
        break;
    case SERVER_EV_DONE:
        on_done(&t, &event->msg->ready, event->now_ms);
        break;
    case SERVER_EV_REJECTED:
        reject(&t, 1, "%s", event->reason);
        break;
    case SERVER_EV_DIED:
        on_died(&t);
        break;
    case SERVER_EV_HANGUP:
        stream_close(&t);
        break;
    case SERVER_EV_TICK:
        on_tick(&t, event->now_ms);
        break;
    }
    return t.count;
}
