/* test_protocol.c - simulator of the arena protocol: consumers and one loader made of the two step
 * functions, on a simulated clock, through thousands of seeded schedules of trouble.
 *
 * Simulated: messages that take time, come twice, or are lost (with a dying peer, and now and then
 * on a full queue); a loader that is killed (its readers write on for a while), stopped, and
 * started again; readers that are killed; consumers that are stopped, killed and started again, and
 * that seek back and forth. Checked at every step: a reader writes only slots that were granted to
 * it and not taken back; what is READY is complete, is the span it claims to be, and stays so while
 * it is read; every span that is wanted comes in the end.
 */
#include <stddef.h>

#include "proto/consumer.h"
#include "proto/server.h"

#include "tests/test.h"

enum {
    CONSUMERS_MAX = 3,
    STREAMS_MAX = 24,
    DOORS_MAX = 64,
    MEMORIES_MAX = 64,
    SLOTS_MAX = 6,
    WIRE_MAX = 4096,
    QUEUE_MAX = 64,
    PEER_TIMEOUT_MS = 400,
    RETRY_MS = 20,
    DOOR_TIMEOUT_MS = 600,
    READER_TIMEOUT_MS = 1500,
    CHAOS_MS = 2500,
    CALM_MS = 20000, /* afterwards everything must be done within this */
};

struct content {
    uint64_t epoch, span, generation;
    int complete;
};

struct memory { /* an arena; number 0 is none */
    struct content slot[SLOTS_MAX];
};

struct wire { /* a message under way */
    uint64_t at_ms, route;
    int to_loader, consumer;
    enum msg_type type;
    union {
        struct msg_head head;
        struct msg_opened opened;
        struct msg_grant grant;
        struct msg_ready ready;
        struct msg_rejected rejected;
        struct msg_ping ping;
        struct msg_pong pong;
    } m;
};

struct door {
    int used, consumer_holds, parent_holds, reader_holds;
    int hello, welcome; /* packets under way: 0 none; welcome 1 yes, -1 no */
    uint64_t loader, stream, slots;
    int memory;
};

struct stream { /* what one loader process knows, and the reader process, which may outlive it */
    int used, parent_knows;
    struct server server;
    int consumer, door; /* door -1: none yet */
    uint64_t route;
    int reader_lives, reader_death_seen, memory;
    uint64_t reader_ends_ms; /* orphan: until then it writes on */
    uint64_t describe_at_ms, arm_at_ms, write_until_ms;
    int described, armed, writing;
    struct msg_grant queue[QUEUE_MAX];
    int queued;
    struct msg_grant done[QUEUE_MAX];
    int done_count;
};

struct app { /* a consumer process and what it reads */
    struct consumer consumer;
    uint64_t incarnation, route, stalled_until_ms;
    int door, memory; /* door -1: none */
    uint64_t slots, epoch, span, last_epoch, read_until_ms;
    int reading, finished; /* reading: slot + 1 */
};

static struct world {
    int schedule, app_count, calm;
    uint64_t random, now_ms, routes, loader, streams, loader_back_ms, loader_stopped_until_ms;
    int loader_lives, memories, wire_count, deliveries;
    uint64_t spans, trouble;
    uint64_t last_at_ms[2][CONSUMERS_MAX];
    struct door door[DOORS_MAX];
    struct memory memory[MEMORIES_MAX];
    struct app app[CONSUMERS_MAX];
    struct wire wire[WIRE_MAX]; /* last, and large: a new world forgets only their number */
} w;
static struct stream streams[STREAMS_MAX];

#define SIM(condition)                                                                             \
    do {                                                                                           \
        if (!(condition))                                                                          \
            test_fail(__FILE__, __LINE__, "schedule %d at %llu ms: %s", w.schedule,                \
                      (unsigned long long)w.now_ms, #condition);                                   \
    } while (0)

static uint64_t rnd(uint64_t below)
{
    uint64_t z = (w.random += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (z ^ (z >> 31)) % below;
}

/* One in `n`, in the time of trouble. */
static int chance(uint64_t n)
{
    return !w.calm && rnd(n) == 0;
}

/* ---- messages -----------------------------------------------------------------------------------
 */

static size_t message_bytes(enum msg_type type)
{
    switch (type) {
    case MSG_open:
        return sizeof(struct msg_head); /* what is asked for is always the same here */
    case MSG_opened:
        return sizeof(struct msg_opened);
    case MSG_grant:
        return sizeof(struct msg_grant);
    case MSG_ready:
        return sizeof(struct msg_ready);
    case MSG_rejected:
        return sizeof(struct msg_rejected);
    default:
        return sizeof(struct msg_ping);
    }
}

static void wire_put(int to_loader, int consumer, uint64_t route, enum msg_type type, const void *m,
                     uint64_t incarnation)
{
    int copies = chance(50) ? 0 : chance(20) ? 2 : 1;
    for (int i = 0; i < copies; i++) {
        SIM(w.wire_count < WIRE_MAX);
        struct wire *x = &w.wire[w.wire_count++];
        uint64_t *last = &w.last_at_ms[to_loader][consumer];
        uint64_t at = w.now_ms + rnd(w.calm ? 3 : 12);
        if (i == 0) /* in order; a copy may come any time later */
            *last = at = at > *last ? at : *last;
        else
            at += rnd(100);
        x->at_ms = at;
        x->route = route;
        x->to_loader = to_loader;
        x->consumer = consumer;
        x->type = type;
        memcpy(&x->m, m, message_bytes(type));
        x->m.head.incarnation = incarnation;
    }
}

/* The oldest message that is due for this side, taken out; 0 if there is none. */
static int wire_take(int to_loader, int consumer, struct wire *out)
{
    int best = -1;
    for (int i = 0; i < w.wire_count; i++)
        if (w.wire[i].to_loader == to_loader && w.wire[i].at_ms <= w.now_ms &&
            (to_loader || w.wire[i].consumer == consumer) &&
            (best < 0 || w.wire[i].at_ms < w.wire[best].at_ms))
            best = i;
    if (best < 0)
        return 0;
    *out = w.wire[best];
    memmove(&w.wire[best], &w.wire[best + 1], (size_t)(--w.wire_count - best) * sizeof w.wire[0]);
    return 1;
}

/* A process died: of what it had sent or was to receive, some is lost and some is not. */
static void wire_lose(int to_loader, int consumer)
{
    int kept = 0;
    for (int i = 0; i < w.wire_count; i++) {
        int touched = w.wire[i].to_loader == to_loader || rnd(2) == 0;
        touched = touched && (consumer < 0 || w.wire[i].consumer == consumer);
        if (!touched || rnd(2) == 0)
            w.wire[kept++] = w.wire[i];
    }
    w.wire_count = kept;
}

/* ---- readers ------------------------------------------------------------------------------------
 */

/* The heart of it: may this reader touch that slot now? */
static void check_write(const struct stream *s, const struct msg_grant *g)
{
    const struct app *a = &w.app[s->consumer];
    if (a->memory != s->memory)
        return; /* the memory of a consumer that is dead: nobody reads it */
    const struct slot *slot = &a->consumer.slots[g->slot];
    SIM(slot->state == SLOT_GRANTED || slot->state == SLOT_QUARANTINED);
    SIM(slot->generation == g->generation && slot->epoch == g->epoch && slot->span == g->span);
    SIM(a->reading != (int)g->slot + 1);
}

static void reader_run(struct stream *s)
{
    if (!s->reader_lives)
        return;
    if (s->reader_ends_ms && w.now_ms >= s->reader_ends_ms) {
        s->reader_lives = 0;
        if (s->door >= 0)
            w.door[s->door].reader_holds = 0;
        return;
    }
    s->described |= w.now_ms >= s->describe_at_ms;
    s->armed |= s->memory && w.now_ms >= s->arm_at_ms;
    if (!s->armed || !s->queued)
        return;
    struct msg_grant *g = &s->queue[0];
    struct content *at = &w.memory[s->memory].slot[g->slot];
    check_write(s, g);
    if (!s->writing) {
        *at = (struct content){.complete = 0};
        s->write_until_ms = w.now_ms + rnd(chance(10) ? 200 : 20);
        s->writing = 1;
    } else if (w.now_ms >= s->write_until_ms) {
        *at = (struct content){g->epoch, g->span, g->generation, 1};
        SIM(s->done_count < QUEUE_MAX);
        s->done[s->done_count++] = *g;
        s->writing = 0;
        memmove(s->queue, s->queue + 1, (size_t)--s->queued * sizeof s->queue[0]);
    }
}

/* ---- the loader ---------------------------------------------------------------------------------
 */

static void stream_closed(struct stream *s)
{
    s->reader_lives = 0; /* killed and reaped first, then the door is closed */
    if (s->door >= 0)
        w.door[s->door].reader_holds = w.door[s->door].parent_holds = 0;
    s->used = 0;
}

static void stream_step(struct stream *s, enum server_event_type type, const union msg *m,
                        uint64_t slots)
{
    struct server_action actions[SERVER_ACTIONS_MAX];
    struct server_event event = {
        .type = type, .now_ms = w.now_ms, .msg = m, .slots = slots, .slot_bytes = 4096};
    int count = server_step(&s->server, &event, actions);
    for (int i = 0; i < count; i++) {
        struct server_action *a = &actions[i];
        struct msg_rejected rejected = {.permanent = a->permanent};
        switch (a->type) {
        case SERVER_ACT_OPENED:
            wire_put(0, s->consumer, s->route, MSG_opened, &s->server.opened, w.loader);
            break;
        case SERVER_ACT_REJECTED:
            SIM(!a->permanent);
            wire_put(0, s->consumer, s->route, MSG_rejected, &rejected, w.loader);
            break;
        case SERVER_ACT_HAND:
            s->memory = w.door[s->door].memory;
            s->arm_at_ms = w.now_ms + rnd(10);
            w.door[s->door].reader_holds = 1;
            break;
        case SERVER_ACT_WELCOME:
            w.door[s->door].welcome = a->ok ? 1 : -1;
            break;
        case SERVER_ACT_READ:
            SIM(s->queued < QUEUE_MAX);
            s->queue[s->queued++] = a->grant;
            break;
        case SERVER_ACT_READY:
            wire_put(0, s->consumer, s->route, MSG_ready, &a->ready, w.loader);
            break;
        case SERVER_ACT_CLOSE:
            stream_closed(s);
            return;
        }
    }
}

static struct stream *stream_by_route(uint64_t route)
{
    for (int i = 0; i < STREAMS_MAX; i++)
        if (streams[i].used && streams[i].parent_knows && streams[i].route == route)
            return &streams[i];
    return NULL;
}

static struct stream *stream_by_number(uint64_t number)
{
    for (int i = 0; i < STREAMS_MAX; i++)
        if (streams[i].used && streams[i].parent_knows && streams[i].server.stream == number)
            return &streams[i];
    return NULL;
}

static void loader_open(const struct wire *x, const union msg *m)
{
    struct stream *s = stream_by_route(x->route);
    for (int i = 0; i < STREAMS_MAX && !s; i++) {
        if (streams[i].used)
            continue;
        s = &streams[i];
        server_init(&s->server, (w.loader << 24) + ++w.streams, m->head.incarnation, w.now_ms,
                    DOOR_TIMEOUT_MS, READER_TIMEOUT_MS);
        s->used = s->parent_knows = s->reader_lives = 1;
        s->consumer = x->consumer;
        s->route = x->route;
        s->door = -1;
        s->memory = s->described = s->armed = s->writing = s->queued = s->done_count = 0;
        s->reader_death_seen = 0;
        s->reader_ends_ms = 0;
        s->describe_at_ms = w.now_ms + rnd(chance(5) ? 700 : 20);
    }
    if (s) /* else the loader is full, and the consumer asks again */
        stream_step(s, SERVER_EV_OPEN, m, 0);
}

static void loader_hear(const struct wire *x)
{
    static union msg m;
    struct stream *s;
    memcpy(&m, &x->m, message_bytes(x->type));
    if (x->type == MSG_open) {
        loader_open(x, &m);
    } else if (x->type == MSG_grant) {
        s = stream_by_number(m.grant.stream);
        if (s && s->route == x->route)
            stream_step(s, SERVER_EV_GRANT, &m, 0);
    } else {
        struct msg_pong pong = {.stream = m.ping.stream,
                                .known = stream_by_number(m.ping.stream) != NULL};
        wire_put(0, x->consumer, x->route, MSG_pong, &pong, w.loader);
    }
}

/* Hellos and hang-ups of consumers. */
static void loader_doors(void)
{
    for (int i = 0; i < DOORS_MAX; i++) {
        struct door *d = &w.door[i];
        if (!d->used || !d->parent_holds)
            continue;
        struct stream *s = d->hello || !d->consumer_holds ? stream_by_number(d->stream) : NULL;
        if (!d->consumer_holds) {
            if (s && s->door == i)
                stream_step(s, SERVER_EV_HANGUP, NULL, 0);
            d->parent_holds = 0;
        } else if (d->hello) {
            d->hello = 0;
            if (s && s->door < 0 && s->server.state == SERVER_OPENED) {
                s->door = i;
                stream_step(s, SERVER_EV_HELLO, NULL, d->slots);
            } else {
                d->welcome = -1;
                d->parent_holds = 0;
            }
        }
    }
}

static void opened_fill(union msg *m)
{
    memset(&m->opened, 0, sizeof m->opened);
    MSG_STR(m->opened.fingerprint, "f00d");
    m->opened.rows = w.spans * 8 - 3;
    m->opened.spans = w.spans;
    m->opened.span_rows = m->opened.chunk_rows = 8;
    m->opened.span_bytes_max = 4096;
}

/* What the readers have said, and their deaths. */
static void loader_readers(struct stream *s)
{
    static union msg m;
    if (s->described == 1) {
        s->described = 2;
        opened_fill(&m);
        stream_step(s, SERVER_EV_DESCRIBED, &m, 0);
    }
    if (s->armed == 1) {
        s->armed = 2;
        stream_step(s, SERVER_EV_ARMED, NULL, 0);
    }
    for (int i = 0; i < s->done_count && s->used; i++) {
        const struct msg_grant *g = &s->done[i];
        m.ready = (struct msg_ready){.epoch = g->epoch,
                                     .span = g->span,
                                     .slot = g->slot,
                                     .generation = g->generation,
                                     .rows = g->span == w.spans - 1 ? 5 : 8};
        stream_step(s, SERVER_EV_DONE, &m, 0);
    }
    s->done_count = 0;
    if (s->used && !s->reader_lives)
        stream_step(s, SERVER_EV_DIED, NULL, 0);
    if (s->used)
        stream_step(s, SERVER_EV_TICK, NULL, 0);
}

static void loader_start(void)
{
    w.loader++;
    w.loader_lives = 1;
    w.loader_stopped_until_ms = 0;
}

/* SIGKILL: its readers notice a little later, and write until then. */
static void loader_kill(void)
{
    w.loader_lives = 0;
    w.loader_back_ms = w.now_ms + rnd(200);
    wire_lose(1, -1);
    for (int i = 0; i < DOORS_MAX; i++)
        w.door[i].parent_holds = 0;
    for (int i = 0; i < STREAMS_MAX; i++) {
        streams[i].parent_knows = 0;
        if (streams[i].used && streams[i].reader_lives)
            streams[i].reader_ends_ms = w.now_ms + 1 + rnd(60);
    }
}

static void loader_run(void)
{
    struct wire x;
    for (int i = 0; i < STREAMS_MAX; i++) {
        if (!streams[i].used)
            continue;
        reader_run(&streams[i]);
        if (!streams[i].parent_knows && !streams[i].reader_lives)
            streams[i].used = 0;
    }
    if (!w.loader_lives && w.now_ms >= w.loader_back_ms)
        loader_start();
    if (!w.loader_lives || w.now_ms < w.loader_stopped_until_ms)
        return;
    while (wire_take(1, 0, &x))
        loader_hear(&x);
    loader_doors();
    for (int i = 0; i < STREAMS_MAX; i++)
        if (streams[i].used && streams[i].parent_knows)
            loader_readers(&streams[i]);
}

/* ---- consumers ----------------------------------------------------------------------------------
 */

static int door_hung_up(const struct door *d)
{
    return !d->parent_holds && !d->reader_holds;
}

static int door_connect_simulated(void)
{
    for (int i = 0; i < DOORS_MAX; i++) {
        struct door *d = &w.door[i];
        if (d->used && (d->consumer_holds || !door_hung_up(d)))
            continue;
        *d = (struct door){.used = 1, .consumer_holds = 1, .parent_holds = 1, .loader = w.loader};
        return i;
    }
    SIM(!"a free door");
    return -1;
}

/* Returns 1 if the loader cannot be reached. */
static int app_act(struct app *a, const struct consumer_action *act)
{
    int self = (int)(a - w.app);
    struct msg_head open = {0};
    struct msg_ping ping = {.stream = a->consumer.stream};
    const struct slot *slot = &a->consumer.slots[act->slot];
    struct msg_grant grant = {.stream = a->consumer.stream,
                              .epoch = slot->epoch,
                              .span = slot->span,
                              .slot = act->slot,
                              .generation = slot->generation};
    switch (act->type) {
    case CONSUMER_ACT_OPEN:
        SIM(a->door < 0);
        a->route = ++w.routes;
        if (!w.loader_lives)
            return 1;
        a->door = door_connect_simulated();
        wire_put(1, self, a->route, MSG_open, &open, a->incarnation);
        return 0;
    case CONSUMER_ACT_ASK:
        wire_put(1, self, a->route, MSG_open, &open, a->incarnation);
        return 0;
    case CONSUMER_ACT_DOOR:
        if (!a->memory) {
            SIM(w.memories < MEMORIES_MAX - 1);
            a->memory = ++w.memories;
            a->consumer.config.slots = a->slots;
        }
        if (door_hung_up(&w.door[a->door]))
            return 1;
        w.door[a->door].hello = 1;
        w.door[a->door].stream = a->consumer.stream;
        w.door[a->door].memory = a->memory;
        w.door[a->door].slots = a->slots;
        return 0;
    case CONSUMER_ACT_GRANT:
        SIM(slot->state == SLOT_GRANTED);
        wire_put(1, self, a->route, MSG_grant, &grant, a->incarnation);
        return 0;
    case CONSUMER_ACT_PING:
        wire_put(1, self, a->route, MSG_ping, &ping, a->incarnation);
        return 0;
    case CONSUMER_ACT_KILL:
        if (a->door >= 0 && w.loader_lives && w.door[a->door].loader == w.loader)
            loader_kill();
        return 0;
    case CONSUMER_ACT_CLOSE:
        if (a->door >= 0)
            w.door[a->door].consumer_holds = 0;
        a->door = -1;
        return 0;
    case CONSUMER_ACT_FAIL:
        test_fail(__FILE__, __LINE__, "schedule %d: %s", w.schedule, act->reason);
    }
    return 0;
}

static void app_step(struct app *a, struct consumer_event event)
{
    struct consumer_action actions[CONSUMER_ACTIONS_MAX];
    int unreachable = 0;
    event.now_ms = w.now_ms;
    int count = consumer_step(&a->consumer, &event, actions);
    SIM(count < CONSUMER_ACTIONS_MAX);
    for (int i = 0; i < count; i++)
        unreachable |= app_act(a, &actions[i]);
    if (unreachable)
        app_step(a, (struct consumer_event){.type = CONSUMER_EV_HANGUP});
}

static void app_seek(struct app *a)
{
    app_step(a, (struct consumer_event){.type = CONSUMER_EV_CURSOR,
                                        .cursor = {a->epoch, a->span, a->last_epoch}});
}

static void app_hear(struct app *a)
{
    static union msg m;
    struct wire x;
    struct consumer_event event = {.msg = &m};
    while (wire_take(0, (int)(a - w.app), &x)) {
        if (x.route != a->route)
            continue; /* a DEALER that is closed hears nothing */
        memcpy(&m, &x.m, message_bytes(x.type));
        event.type = x.type == MSG_opened     ? CONSUMER_EV_OPENED
                     : x.type == MSG_rejected ? CONSUMER_EV_REJECTED
                     : x.type == MSG_ready    ? CONSUMER_EV_READY
                                              : CONSUMER_EV_PONG;
        app_step(a, event);
        w.deliveries += x.type == MSG_ready;
    }
    struct door *d = a->door >= 0 ? &w.door[a->door] : NULL;
    if (d && d->welcome > 0) {
        d->welcome = 0;
        app_step(a, (struct consumer_event){.type = CONSUMER_EV_WELCOME});
    } else if (d && door_hung_up(d)) {
        app_step(a, (struct consumer_event){.type = CONSUMER_EV_HANGUP});
    }
}

/* What is READY must be whole and true, and what is being read must not change. */
static void app_check(const struct app *a)
{
    for (uint64_t i = 0; a->memory && i < a->slots; i++) {
        const struct slot *slot = &a->consumer.slots[i];
        const struct content *c = &w.memory[a->memory].slot[i];
        if (slot->state == SLOT_READY)
            SIM(c->complete && c->epoch == slot->epoch && c->span == slot->span &&
                c->generation == slot->generation);
    }
    if (a->reading) {
        const struct slot *slot = &a->consumer.slots[a->reading - 1];
        SIM(slot->state == SLOT_READY && slot->epoch == a->epoch && slot->span == a->span);
    }
}

static void app_read(struct app *a)
{
    if (!a->consumer.opened_once || a->finished)
        return;
    if (!a->consumer.cursor_set)
        app_seek(a);
    if (!a->reading) {
        a->reading = consumer_find(&a->consumer, a->epoch, a->span) + 1;
        a->read_until_ms = w.now_ms + rnd(w.calm ? 2 : 15);
    } else if (w.now_ms >= a->read_until_ms) {
        a->reading = 0;
        if (++a->span == w.spans) {
            a->span = 0;
            a->finished = w.calm && a->epoch == a->last_epoch;
            a->epoch = a->epoch == a->last_epoch && !w.calm ? 0 : a->epoch + 1; /* again */
        }
        app_seek(a);
    }
    if (!a->finished && chance(60)) { /* anywhere */
        a->reading = 0;
        a->epoch = rnd(a->last_epoch + 1);
        a->span = rnd(w.spans);
        app_seek(a);
    }
}

static void app_start(struct app *a)
{
    const struct consumer_config config = {
        .peer_timeout_ms = PEER_TIMEOUT_MS, .retry_ms = RETRY_MS, .attempts_max = 100000};
    consumer_init(&a->consumer, &config);
    a->incarnation++;
    a->door = -1;
    a->memory = a->reading = 0;
    a->stalled_until_ms = 0;
}

static void app_run(struct app *a)
{
    if (chance(1500)) { /* SIGKILL and a new start: its arena and connections are gone */
        if (a->door >= 0)
            w.door[a->door].consumer_holds = 0;
        wire_lose(0, (int)(a - w.app));
        app_start(a);
    }
    if (chance(500))
        a->stalled_until_ms = w.now_ms + rnd(2 * PEER_TIMEOUT_MS);
    if (w.now_ms < a->stalled_until_ms)
        return;
    app_hear(a);
    app_step(a, (struct consumer_event){.type = CONSUMER_EV_TICK});
    app_read(a);
}

/* ---- schedules ----------------------------------------------------------------------------------
 */

static void trouble_make(void)
{
    if (w.loader_lives && chance(w.trouble))
        loader_kill();
    if (w.loader_lives && chance(w.trouble))
        w.loader_stopped_until_ms = rnd(4) ? w.now_ms + rnd(rnd(2) ? 200 : 5 * PEER_TIMEOUT_MS)
                                           : UINT64_MAX; /* until it is killed */
    struct stream *s = &streams[rnd(STREAMS_MAX)];
    if (s->used && s->reader_lives && chance(w.trouble / 3 + 1)) {
        s->reader_lives = 0;
        if (s->door >= 0)
            w.door[s->door].reader_holds = 0;
    }
}

static void world_make(int schedule)
{
    memset(&w, 0, offsetof(struct world, wire));
    for (int i = 0; i < STREAMS_MAX; i++)
        streams[i].used = 0;
    w.schedule = schedule;
    w.random = test_seed() + (uint64_t)schedule * 0x632be59bd9b4e019ull;
    w.spans = 1 + rnd(9);
    w.trouble = 30 + rnd(600);
    w.app_count = 1 + (int)rnd(CONSUMERS_MAX);
    for (int i = 0; i < w.app_count; i++) {
        struct app *a = &w.app[i];
        a->slots = 1 + rnd(SLOTS_MAX);
        a->last_epoch = rnd(4);
        app_start(a);
    }
    loader_start();
}

/* Runs one schedule; returns how many ready messages were heard. */
static int schedule_run(int schedule, int quiet)
{
    world_make(schedule);
    int finished = 0;
    while (finished < w.app_count) {
        w.calm = quiet || w.now_ms >= CHAOS_MS;
        SIM(w.now_ms < CHAOS_MS + CALM_MS);
        w.now_ms += 1 + rnd(5);
        trouble_make();
        loader_run();
        finished = 0;
        for (int i = 0; i < w.app_count; i++) {
            app_run(&w.app[i]);
            app_check(&w.app[i]);
            finished += w.app[i].finished;
        }
    }
    return w.deliveries;
}

TEST(without_trouble_every_span_comes_once)
{
    for (int schedule = 0; schedule < 50; schedule++) {
        int heard = schedule_run(schedule, 1), wanted = 0;
        for (int i = 0; i < w.app_count; i++) {
            wanted += (int)((w.app[i].last_epoch + 1) * w.spans);
            CHECK_EQ(w.app[i].consumer.state, CONSUMER_FLOWING);
        }
        CHECK_EQ(heard, wanted);
        CHECK(w.now_ms < 2000);
    }
}

TEST_LIMIT(every_span_comes_through_any_trouble, 150)
{
    int heard = 0, schedules = TEST_ROUNDS(10000, 1000);
    for (int schedule = 0; schedule < schedules; schedule++)
        heard += schedule_run(schedule, 0);
    CHECK(heard > schedules);
}
