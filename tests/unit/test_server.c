/* test_server.c - the table of proto/server.c, row by row, as test_consumer.c for the other side.
 */
#include "proto/server.h"

#include "tests/test.h"

static uint64_t now_ms;
static struct server s;
static struct server_action serves[SERVER_ACTIONS_MAX];

static union msg opened_make(void)
{
    return (union msg){
        .opened = {.rows = 37, .chunk_rows = 2, .spans = 10, .span_rows = 4, .span_bytes_max = 64}};
}

static int serve(struct server_event event)
{
    event.now_ms = now_ms;
    return server_step(&s, &event, serves);
}

static int hello(uint64_t slots, uint64_t slot_bytes)
{
    return serve(
        (struct server_event){.type = SERVER_EV_HELLO, .slots = slots, .slot_bytes = slot_bytes});
}

static int grant(uint64_t slot, uint64_t span, uint64_t generation, uint64_t incarnation)
{
    union msg m = {.grant = {.head.incarnation = incarnation,
                             .stream = 7,
                             .span = span,
                             .slot = slot,
                             .generation = generation}};
    return serve((struct server_event){.type = SERVER_EV_GRANT, .msg = &m});
}

static void start_opened(void)
{
    union msg m = opened_make();
    now_ms = 5000;
    server_init(&s, 7, 3, now_ms, 1000, 5000);
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_DESCRIBED, .msg = &m}), 1);
    CHECK(serves[0].type == SERVER_ACT_OPENED && s.opened.stream == 7);
}

static void start_serving(void)
{
    start_opened();
    CHECK(hello(3, 64) == 1 && serves[0].type == SERVER_ACT_HAND);
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_ARMED}), 1);
    CHECK(serves[0].type == SERVER_ACT_WELCOME && serves[0].ok);
}

TEST(answers_a_repeated_open)
{
    union msg m = {.open = {.head.incarnation = 3}};
    server_init(&s, 7, 3, 0, 1000, 5000);
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_OPEN, .msg = &m}), 0);
    start_opened();
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_OPEN, .msg = &m}), 1);
    CHECK_EQ(serves[0].type, SERVER_ACT_OPENED);
    m.open.head.incarnation = 2; /* a consumer that is gone */
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_OPEN, .msg = &m}), 0);
}

TEST(refuses_unfit_arenas_and_stays)
{
    start_opened();
    static const uint64_t wrong[][2] = {{3, 63}, {0, 64}, {ARENA_SLOTS_MAX + 1, 64}};
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(hello(wrong[i][0], wrong[i][1]), 1);
        CHECK(serves[0].type == SERVER_ACT_WELCOME && !serves[0].ok && serves[0].reason[0]);
        CHECK_EQ(s.state, SERVER_OPENED);
    }
    CHECK(hello(3, 64) == 1 && serves[0].type == SERVER_ACT_HAND);
    CHECK(hello(3, 64) == 1 && !serves[0].ok && s.state == SERVER_ARMING); /* a second one */
}

TEST(reads_once_and_repeats_its_answer)
{
    start_serving();
    CHECK(grant(1, 4, 10, 3) == 1 && serves[0].type == SERVER_ACT_READ);
    CHECK_EQ(grant(1, 4, 10, 3), 0); /* it is being read */
    CHECK_EQ(grant(1, 4, 9, 3), 0);  /* older */
    CHECK_EQ(grant(2, 4, 11, 2), 0); /* of a consumer that is gone */
    union msg m = {.ready = {.stream = 7, .span = 4, .slot = 1, .generation = 10, .rows = 4}};
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_DONE, .msg = &m}), 1);
    CHECK(serves[0].type == SERVER_ACT_READY && serves[0].ready.rows == 4);
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_DONE, .msg = &m}), 0);
    CHECK(grant(1, 4, 10, 3) == 1 && serves[0].type == SERVER_ACT_READY);
    CHECK(grant(1, 5, 12, 3) == 1 && serves[0].type == SERVER_ACT_READ);
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_DONE, .msg = &m}), 0); /* 10 is old */
}

TEST(rejects_impossible_grants)
{
    static const uint64_t wrong[][3] = {{3, 0, 1}, {0, 10, 1}, {0, 0, 0}};
    for (int i = 0; i < 3; i++) {
        start_serving();
        CHECK_EQ(grant(wrong[i][0], wrong[i][1], wrong[i][2], 3), 2);
        CHECK(serves[0].type == SERVER_ACT_REJECTED && serves[0].permanent);
        CHECK(serves[1].type == SERVER_ACT_CLOSE && s.state == SERVER_CLOSED);
    }
}

TEST(closes_once_and_for_all)
{
    static const enum server_event_type ends[] = {SERVER_EV_DIED, SERVER_EV_REJECTED};
    for (int i = 0; i < 2; i++) {
        start_serving();
        CHECK_EQ(serve((struct server_event){.type = ends[i], .reason = "bad chunk"}), 2);
        CHECK(serves[0].type == SERVER_ACT_REJECTED && serves[1].type == SERVER_ACT_CLOSE);
        CHECK_EQ(serves[0].permanent, ends[i] == SERVER_EV_REJECTED);
        CHECK_HAS(serves[0].reason, i ? "bad chunk" : "died while it read the file");
        CHECK_EQ(serve((struct server_event){.type = SERVER_EV_HANGUP}), 0);
    }
    start_serving();
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_HANGUP}), 1);
    CHECK_EQ(serves[0].type, SERVER_ACT_CLOSE);
    CHECK_EQ(grant(0, 0, 1, 3), 0);
}

TEST(does_not_wait_for_ever_for_an_arena)
{
    start_opened();
    now_ms += 999;
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_TICK}), 0);
    now_ms += 1;
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_TICK}), 2);
    CHECK(serves[0].type == SERVER_ACT_REJECTED && !serves[0].permanent);
    start_serving();
    now_ms += 100000;
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_TICK}), 0);
}

TEST(does_not_wait_for_ever_for_the_reader)
{
    server_init(&s, 7, 3, 1000, 1000, 5000);
    now_ms = 5999;
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_TICK}), 0);
    CHECK_EQ(server_reader_silent_ms(&s, now_ms), 4999);
    now_ms = 6000;
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_TICK}), 2);
    CHECK(serves[0].type == SERVER_ACT_REJECTED && !serves[0].permanent);
    CHECK_HAS(serves[0].reason, "was silent for 5000 ms while it opened the file");
    server_init(&s, 7, 3, 1000, 1000, 5000);
    s.describe_more_ms = 2000;
    now_ms = 7999;
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_TICK}), 0);
    now_ms = 8000;
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_TICK}), 2);
    CHECK_HAS(serves[0].reason, "was silent for 7000 ms while it opened the file");

    start_serving();
    now_ms += 100000; /* nothing was asked: silence is right */
    CHECK(grant(0, 0, 1, 3) == 1 && grant(1, 1, 2, 3) == 1);
    now_ms += 4000;
    union msg m = {.ready = {.stream = 7, .span = 0, .slot = 0, .generation = 1, .rows = 4}};
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_DONE, .msg = &m}), 1);
    now_ms += 4999; /* one is owed still, and the other's answer was a sign of life */
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_TICK}), 0);
    now_ms += 1;
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_TICK}), 2);
    CHECK_HAS(serves[0].reason, "while it read the file");

    start_serving();
    CHECK_EQ(grant(1, 4, 10, 3), 1);
    CHECK_EQ(grant(1, 5, 11, 3), 1); /* the newer grant of a slot replaces the older one */
    m.ready = (struct msg_ready){.stream = 7, .span = 5, .slot = 1, .generation = 11, .rows = 4};
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_DONE, .msg = &m}), 1);
    now_ms += 100000;
    CHECK_EQ(serve((struct server_event){.type = SERVER_EV_TICK}), 0);
}
