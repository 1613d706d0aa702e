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
#include "tests/unit/protocol_world.h"

/* ---- consumers ----------------------------------------------------------------------------------
 */

static int door_hung_up(const struct door *d)
{
    return !d->parent_holds && !d->reader_holds;
}

static int door_connect_simulated(void)
{
    for (int i = 0; i < DOORS_MAX; i++) {
        struct door *d = &world.door[i];
        if (d->used && (d->consumer_holds || !door_hung_up(d)))
            continue;
        *d = (struct door){
            .used = 1, .consumer_holds = 1, .parent_holds = 1, .loader = world.loader};
        return i;
    }
    SIM(!"a free door");
    return -1;
}

/* Returns 1 if the loader cannot be reached. */
static int app_act(struct app *a, const struct consumer_action *act)
{
    int self = (int)(a - world.app);
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
        a->route = ++world.routes;
        if (!world.loader_lives)
            return 1;
        a->door = door_connect_simulated();
        wire_put(1, self, a->route, MSG_open, &open, a->incarnation);
        return 0;
    case CONSUMER_ACT_ASK:
        wire_put(1, self, a->route, MSG_open, &open, a->incarnation);
        return 0;
    case CONSUMER_ACT_DOOR:
        if (!a->memory) {
            SIM(world.memories < MEMORIES_MAX - 1);
            a->memory = ++world.memories;
            a->consumer.config.slots = a->slots;
        }
        if (door_hung_up(&world.door[a->door]))
            return 1;
        world.door[a->door].hello = 1;
        world.door[a->door].stream = a->consumer.stream;
        world.door[a->door].memory = a->memory;
        world.door[a->door].slots = a->slots;
        return 0;
    case CONSUMER_ACT_GRANT:
        SIM(slot->state == SLOT_GRANTED);
        wire_put(1, self, a->route, MSG_grant, &grant, a->incarnation);
        return 0;
    case CONSUMER_ACT_PING:
        wire_put(1, self, a->route, MSG_ping, &ping, a->incarnation);
        return 0;
    case CONSUMER_ACT_KILL:
        if (a->door >= 0 && world.loader_lives && world.door[a->door].loader == world.loader)
            loader_kill();
        return 0;
    case CONSUMER_ACT_CLOSE:
        if (a->door >= 0)
            world.door[a->door].consumer_holds = 0;
        a->door = -1;
        return 0;
    case CONSUMER_ACT_FAIL:
        test_fail(__FILE__, __LINE__, "schedule %d: %s", world.schedule, act->reason);
    }
    return 0;
}

static void app_step(struct app *a, struct consumer_event event)
{
    struct consumer_action actions[CONSUMER_ACTIONS_MAX];
    int unreachable = 0;
    event.now_ms = world.now_ms;
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
    while (wire_take(0, (int)(a - world.app), &x)) {
        if (x.route != a->route)
            continue; /* a DEALER that is closed hears nothing */
        memcpy(&m, &x.m, message_bytes(x.type));
        event.type = x.type == MSG_opened     ? CONSUMER_EV_OPENED
                     : x.type == MSG_rejected ? CONSUMER_EV_REJECTED
                     : x.type == MSG_ready    ? CONSUMER_EV_READY
                                              : CONSUMER_EV_PONG;
        app_step(a, event);
        world.deliveries += x.type == MSG_ready;
    }
    struct door *d = a->door >= 0 ? &world.door[a->door] : NULL;
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
        const struct content *c = &world.memory[a->memory].slot[i];
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
        a->read_until_ms = world.now_ms + world_random(world.calm ? 2 : 15);
    } else if (world.now_ms >= a->read_until_ms) {
        a->reading = 0;
        if (++a->span == world.spans) {
            a->span = 0;
            a->finished = world.calm && a->epoch == a->last_epoch;
            a->epoch = a->epoch == a->last_epoch && !world.calm ? 0 : a->epoch + 1; /* again */
        }
        app_seek(a);
    }
    if (!a->finished && world_chance(60)) { /* anywhere */
        a->reading = 0;
        a->epoch = world_random(a->last_epoch + 1);
        a->span = world_random(world.spans);
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
    if (world_chance(1500)) { /* SIGKILL and a new start: its arena and connections are gone */
        if (a->door >= 0)
            world.door[a->door].consumer_holds = 0;
        wire_lose(0, (int)(a - world.app));
        app_start(a);
    }
    if (world_chance(500))
        a->stalled_until_ms = world.now_ms + world_random(2 * PEER_TIMEOUT_MS);
    if (world.now_ms < a->stalled_until_ms)
        return;
    app_hear(a);
    app_step(a, (struct consumer_event){.type = CONSUMER_EV_TICK});
    app_read(a);
}

/* ---- schedules ----------------------------------------------------------------------------------
 */

static void trouble_make(void)
{
    if (world.loader_lives && world_chance(world.trouble))
        loader_kill();
    if (world.loader_lives && world_chance(world.trouble))
        world.loader_stopped_until_ms =
            world_random(4)
                ? world.now_ms + world_random(world_random(2) ? 200 : 5 * PEER_TIMEOUT_MS)
                : UINT64_MAX; /* until it is killed */
    struct stream *s = &world_streams[world_random(STREAMS_MAX)];
    if (s->used && s->reader_lives && world_chance(world.trouble / 3 + 1)) {
        s->reader_lives = 0;
        if (s->door >= 0)
            world.door[s->door].reader_holds = 0;
    }
}

static void world_make(int schedule)
{
    memset(&world, 0, offsetof(struct world, wire));
    for (int i = 0; i < STREAMS_MAX; i++)
        world_streams[i].used = 0;
    world.schedule = schedule;
    world.random = test_seed() + (uint64_t)schedule * 0x632be59bd9b4e019ull;
    world.spans = 1 + world_random(9);
    world.trouble = 30 + world_random(600);
    world.app_count = 1 + (int)world_random(CONSUMERS_MAX);
    for (int i = 0; i < world.app_count; i++) {
        struct app *a = &world.app[i];
        a->slots = 1 + world_random(SLOTS_MAX);
        a->last_epoch = world_random(4);
        app_start(a);
    }
    loader_start();
}

/* Runs one schedule; returns how many ready messages were heard. */
static int schedule_run(int schedule, int quiet)
{
    world_make(schedule);
    int finished = 0;
    while (finished < world.app_count) {
        world.calm = quiet || world.now_ms >= CHAOS_MS;
        SIM(world.now_ms < CHAOS_MS + CALM_MS);
        world.now_ms += 1 + world_random(5);
        trouble_make();
        loader_run();
        finished = 0;
        for (int i = 0; i < world.app_count; i++) {
            app_run(&world.app[i]);
            app_check(&world.app[i]);
            finished += world.app[i].finished;
        }
    }
    return world.deliveries;
}

TEST(without_trouble_every_span_comes_once)
{
    for (int schedule = 0; schedule < 50; schedule++) {
        int heard = schedule_run(schedule, 1), wanted = 0;
        for (int i = 0; i < world.app_count; i++) {
            wanted += (int)((world.app[i].last_epoch + 1) * world.spans);
            CHECK_EQ(world.app[i].consumer.state, CONSUMER_FLOWING);
        }
        CHECK_EQ(heard, wanted);
        CHECK(world.now_ms < 2000);
    }
}

TEST_LIMIT(every_span_comes_through_any_trouble, 150)
{
    int heard = 0, schedules = TEST_ROUNDS(10000, 1000);
    for (int schedule = 0; schedule < schedules; schedule++)
        heard += schedule_run(schedule, 0);
    CHECK(heard > schedules);
}
