/* protocol_loader.c - see protocol_world.h: a loader around server.c, and the readers it starts,
 * which may outlive it.
 */
#include "tests/unit/protocol_world.h"

struct stream world_streams[STREAMS_MAX];

/* ---- readers ------------------------------------------------------------------------------------
 */

/* The heart of it: may this reader touch that slot now? */
static void check_write(const struct stream *s, const struct msg_grant *g)
{
    const struct app *a = &world.app[s->consumer];
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
    if (s->reader_ends_ms && world.now_ms >= s->reader_ends_ms) {
        s->reader_lives = 0;
        if (s->door >= 0)
            world.door[s->door].reader_holds = 0;
        return;
    }
    s->described |= world.now_ms >= s->describe_at_ms;
    s->armed |= s->memory && world.now_ms >= s->arm_at_ms;
    if (!s->armed || !s->queued)
        return;
    struct msg_grant *g = &s->queue[0];
    struct content *at = &world.memory[s->memory].slot[g->slot];
    check_write(s, g);
    if (!s->writing) {
        *at = (struct content){.complete = 0};
        s->write_until_ms = world.now_ms + world_random(world_chance(10) ? 200 : 20);
        s->writing = 1;
    } else if (world.now_ms >= s->write_until_ms) {
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
        world.door[s->door].reader_holds = world.door[s->door].parent_holds = 0;
    s->used = 0;
}

static void stream_step(struct stream *s, enum server_event_type type, const union msg *m,
                        uint64_t slots)
{
    struct server_action actions[SERVER_ACTIONS_MAX];
    struct server_event event = {
        .type = type, .now_ms = world.now_ms, .msg = m, .slots = slots, .slot_bytes = 4096};
    int count = server_step(&s->server, &event, actions);
    for (int i = 0; i < count; i++) {
        struct server_action *a = &actions[i];
        struct msg_rejected rejected = {.permanent = a->permanent};
        switch (a->type) {
        case SERVER_ACT_OPENED:
            wire_put(0, s->consumer, s->route, MSG_opened, &s->server.opened, world.loader);
            break;
        case SERVER_ACT_REJECTED:
            SIM(!a->permanent);
            wire_put(0, s->consumer, s->route, MSG_rejected, &rejected, world.loader);
            break;
        case SERVER_ACT_HAND:
            s->memory = world.door[s->door].memory;
            s->arm_at_ms = world.now_ms + world_random(10);
            world.door[s->door].reader_holds = 1;
            break;
        case SERVER_ACT_WELCOME:
            world.door[s->door].welcome = a->ok ? 1 : -1;
            break;
        case SERVER_ACT_READ:
            SIM(s->queued < QUEUE_MAX);
            s->queue[s->queued++] = a->grant;
            break;
        case SERVER_ACT_READY:
            wire_put(0, s->consumer, s->route, MSG_ready, &a->ready, world.loader);
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
        if (world_streams[i].used && world_streams[i].parent_knows &&
            world_streams[i].route == route)
            return &world_streams[i];
    return NULL;
}

static struct stream *stream_by_number(uint64_t number)
{
    for (int i = 0; i < STREAMS_MAX; i++)
        if (world_streams[i].used && world_streams[i].parent_knows &&
            world_streams[i].server.stream == number)
            return &world_streams[i];
    return NULL;
}

static void loader_open(const struct wire *x, const union msg *m)
{
    struct stream *s = stream_by_route(x->route);
    for (int i = 0; i < STREAMS_MAX && !s; i++) {
        if (world_streams[i].used)
            continue;
        s = &world_streams[i];
        server_init(&s->server, (world.loader << 24) + ++world.streams, m->head.incarnation,
                    world.now_ms, DOOR_TIMEOUT_MS, READER_TIMEOUT_MS);
        s->used = s->parent_knows = s->reader_lives = 1;
        s->consumer = x->consumer;
        s->route = x->route;
        s->door = -1;
        s->memory = s->described = s->armed = s->writing = s->queued = s->done_count = 0;
        s->reader_death_seen = 0;
        s->reader_ends_ms = 0;
        s->describe_at_ms = world.now_ms + world_random(world_chance(5) ? 700 : 20);
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
        wire_put(0, x->consumer, x->route, MSG_pong, &pong, world.loader);
    }
}

/* Hellos and hang-ups of consumers. */
static void loader_doors(void)
{
    for (int i = 0; i < DOORS_MAX; i++) {
        struct door *d = &world.door[i];
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
    m->opened.rows = world.spans * 8 - 3;
    m->opened.spans = world.spans;
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
                                     .rows = g->span == world.spans - 1 ? 5 : 8};
        stream_step(s, SERVER_EV_DONE, &m, 0);
    }
    s->done_count = 0;
    if (s->used && !s->reader_lives)
        stream_step(s, SERVER_EV_DIED, NULL, 0);
    if (s->used)
        stream_step(s, SERVER_EV_TICK, NULL, 0);
}

void loader_start(void)
{
    world.loader++;
    world.loader_lives = 1;
    world.loader_stopped_until_ms = 0;
}

/* SIGKILL: its readers notice a little later, and write until then. */
void loader_kill(void)
{
    world.loader_lives = 0;
    world.loader_back_ms = world.now_ms + world_random(200);
    wire_lose(1, -1);
    for (int i = 0; i < DOORS_MAX; i++)
        world.door[i].parent_holds = 0;
    for (int i = 0; i < STREAMS_MAX; i++) {
        world_streams[i].parent_knows = 0;
        if (world_streams[i].used && world_streams[i].reader_lives)
            world_streams[i].reader_ends_ms = world.now_ms + 1 + world_random(60);
    }
}

void loader_run(void)
{
    struct wire x;
    for (int i = 0; i < STREAMS_MAX; i++) {
        if (!world_streams[i].used)
            continue;
        reader_run(&world_streams[i]);
        if (!world_streams[i].parent_knows && !world_streams[i].reader_lives)
            world_streams[i].used = 0;
    }
    if (!world.loader_lives && world.now_ms >= world.loader_back_ms)
        loader_start();
    if (!world.loader_lives || world.now_ms < world.loader_stopped_until_ms)
        return;
    while (wire_take(1, 0, &x))
        loader_hear(&x);
    loader_doors();
    for (int i = 0; i < STREAMS_MAX; i++)
        if (world_streams[i].used && world_streams[i].parent_knows)
            loader_readers(&world_streams[i]);
}
