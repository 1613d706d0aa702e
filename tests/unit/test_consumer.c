/* test_consumer.c - the tables of proto/consumer.c and proto/server.c, row by row: what each event
 * does where it matters, and that it does nothing where it must not. test_protocol.c runs them
 * together.
 */
#include "proto/consumer.h"

#include "tests/test.h"

static struct consumer con;
static struct consumer_action acts[CONSUMER_ACTIONS_MAX];
static int act_count;
static uint64_t now_ms;

static void step(struct consumer_event event)
{
    event.now_ms = now_ms;
    act_count = consumer_step(&con, &event, acts);
}

static void tick(uint64_t later_ms)
{
    now_ms += later_ms;
    step((struct consumer_event){.type = CONSUMER_EV_TICK});
}

/* The step's actions, one letter each. */
static const char *did(void)
{
    static char letters[CONSUMER_ACTIONS_MAX + 1];
    static const char of[] = {
        [CONSUMER_ACT_OPEN] = 'O',  [CONSUMER_ACT_ASK] = 'A',  [CONSUMER_ACT_DOOR] = 'D',
        [CONSUMER_ACT_GRANT] = 'G', [CONSUMER_ACT_PING] = 'P', [CONSUMER_ACT_KILL] = 'K',
        [CONSUMER_ACT_CLOSE] = 'C', [CONSUMER_ACT_FAIL] = 'F'};
    for (int i = 0; i < act_count; i++)
        letters[i] = of[acts[i].type];
    letters[act_count] = '\0';
    return letters;
}

static union msg opened_make(uint64_t stream, uint64_t incarnation)
{
    union msg m = {.opened = {.head.incarnation = incarnation,
                              .stream = stream,
                              .fingerprint = "cafe",
                              .rows = 37,
                              .chunk_rows = 2,
                              .spans = 10,
                              .span_rows = 4,
                              .span_bytes_max = 64,
                              .fields_count = 1}};
    m.opened.fields[0] = (struct msg_field_info){"features", "u8", 16, 16, 0};
    return m;
}

static void open_with(uint64_t stream, uint64_t incarnation)
{
    union msg m = opened_make(stream, incarnation);
    step((struct consumer_event){.type = CONSUMER_EV_OPENED, .msg = &m});
}

static void cursor(uint64_t epoch, uint64_t span, uint64_t last_epoch)
{
    step((struct consumer_event){.type = CONSUMER_EV_CURSOR, .cursor = {epoch, span, last_epoch}});
}

/* The loader says that slot i is ready, with changes. */
static void ready(uint64_t i, uint64_t stream, uint64_t generation, uint64_t rows,
                  uint64_t incarnation)
{
    union msg m = {.ready = {.head.incarnation = incarnation,
                             .stream = stream,
                             .epoch = con.slots[i].epoch,
                             .span = con.slots[i].span,
                             .slot = i,
                             .generation = generation,
                             .rows = rows}};
    step((struct consumer_event){.type = CONSUMER_EV_READY, .msg = &m});
}

/* A consumer with 3 slots, flowing, all granted: spans 0 1 2 of epoch 0. */
static void start_flowing(void)
{
    now_ms = 100000;
    consumer_init(
        &con, &(struct consumer_config){.peer_timeout_ms = 800, .retry_ms = 10, .attempts_max = 4});
    tick(0);
    CHECK_STR(did(), "O");
    open_with(7, 5);
    CHECK_STR(did(), "D");
    con.config.slots = 3;
    step((struct consumer_event){.type = CONSUMER_EV_WELCOME});
    CHECK_STR(did(), "");
    cursor(0, 0, 1);
    CHECK_STR(did(), "GGG");
}

TEST(spans_are_granted_in_order_of_need)
{
    start_flowing();
    for (uint64_t i = 0; i < 3; i++)
        CHECK(con.slots[i].state == SLOT_GRANTED && con.slots[i].span == i && acts[i].slot == i);
    ready(1, 7, con.slots[1].generation, 4, 5);
    CHECK_STR(did(), "");
    CHECK_EQ(consumer_find(&con, 0, 1), 1);
    CHECK_EQ(consumer_find(&con, 0, 0), -1);
    cursor(0, 2, 1); /* slot 1 is behind; slot 0 too, but the loader has it */
    CHECK_STR(did(), "G");
    CHECK(con.slots[0].state == SLOT_GRANTED && con.slots[0].span == 0 && con.slots[1].span == 3);
    ready(0, 7, con.slots[0].generation, 4, 5); /* not wanted any more: used again at once */
    CHECK_STR(did(), "G");
    CHECK(con.slots[0].span == 4);
}

/* A ready with that offset, in a slot of 64 bytes of which the fields take 48. */
static const char *ready_at(uint64_t offset)
{
    start_flowing();
    con.opened.fields_count = 1;
    con.opened.fields[0] = (struct msg_field_info){.row_bytes = 12, .items_max = 4};
    union msg m = {.ready = {.head.incarnation = 5,
                             .stream = 7,
                             .generation = con.slots[0].generation,
                             .rows = 4,
                             .offset = offset}};
    step((struct consumer_event){.type = CONSUMER_EV_READY, .msg = &m});
    return did();
}

TEST(a_span_may_begin_behind_its_slots_first_byte)
{
    CHECK_STR(ready_at(16), "");
    CHECK(con.slots[0].state == SLOT_READY && con.slots[0].offset == 16);
    CHECK_STR(ready_at(24), "F");
    CHECK_STR(ready_at(12), "F");
}

TEST(the_epoch_ends_and_the_next_begins)
{
    start_flowing();
    for (uint64_t i = 0; i < 3; i++)
        ready(i, 7, con.slots[i].generation, 4, 5);
    cursor(0, 9, 1);
    CHECK_STR(did(), "GGG");
    CHECK(con.slots[0].span == 9 && con.slots[0].epoch == 0);
    CHECK(con.slots[1].span == 0 && con.slots[1].epoch == 1);
    for (uint64_t i = 0; i < 3; i++)
        ready(i, 7, con.slots[i].generation, i ? 4 : 1, 5); /* the last span is short: 37 rows */
    CHECK_EQ(con.state, CONSUMER_FLOWING);
    cursor(1, 9, 1); /* the last span of all: nothing after it */
    CHECK_STR(did(), "G");
    cursor(2, 0, 1);
    CHECK_STR(did(), "");
    CHECK_EQ(consumer_find(&con, 1, 0), -1);
}

TEST(what_is_held_is_not_asked_for_again)
{
    start_flowing();
    uint64_t generation = con.generation;
    cursor(0, 0, 1);
    cursor(0, 1, 1);
    cursor(0, 0, 1);
    CHECK_EQ(con.generation, generation);
    ready(2, 7, con.slots[2].generation, 4, 5);
    cursor(0, 2, 1);
    cursor(0, 2, 1);
    CHECK_EQ(con.generation, generation); /* 0 and 1 are still the loader's */
}

TEST(old_or_foreign_answers_are_ignored)
{
    start_flowing();
    uint64_t generation = con.slots[0].generation;
    ready(0, 6, generation, 4, 5);     /* another stream */
    ready(0, 7, generation - 1, 4, 5); /* an older grant */
    ready(0, 7, generation + 9, 4, 5); /* one never made */
    ready(0, 7, generation, 4, 4);     /* an older loader */
    union msg m = {.ready = {.head.incarnation = 5, .stream = 7, .slot = 4095}};
    step((struct consumer_event){.type = CONSUMER_EV_READY, .msg = &m});
    CHECK_EQ(consumer_find(&con, 0, 0), -1);
    ready(0, 7, generation, 4, 5);
    CHECK_EQ(consumer_find(&con, 0, 0), 0);
    ready(0, 7, generation, 4, 5); /* twice */
    CHECK(con.slots[0].state == SLOT_READY && act_count == 0);
    open_with(8, 5); /* a late copy */
    CHECK(act_count == 0 && con.stream == 7);
}

TEST(a_wrong_number_of_rows_fails)
{
    start_flowing();
    ready(0, 7, con.slots[0].generation, 3, 5);
    CHECK_STR(did(), "F");
    CHECK(acts[0].permanent);
    CHECK_HAS(acts[0].reason, "3 rows for span 0, which has 4");
    tick(100000);
    CHECK_STR(did(), "");
}

TEST(ready_slots_survive_the_loader)
{
    start_flowing();
    ready(0, 7, con.slots[0].generation, 4, 5);
    step((struct consumer_event){.type = CONSUMER_EV_HANGUP});
    CHECK_STR(did(), "C");
    CHECK_EQ(consumer_find(&con, 0, 0), 0);
    CHECK(con.slots[1].state == SLOT_FREE);
    tick(9);
    CHECK_STR(did(), "");
    tick(1);
    CHECK_STR(did(), "O");
    open_with(1, 6);
    step((struct consumer_event){.type = CONSUMER_EV_WELCOME});
    CHECK_STR(did(), "GG");                     /* only what is missing */
    ready(1, 7, con.slots[1].generation, 4, 5); /* the dead loader's */
    CHECK_EQ(consumer_find(&con, 0, 1), -1);
}

TEST(silence_is_asked_about_then_ended)
{
    start_flowing();
    tick(99);
    CHECK_STR(did(), "");
    CHECK_EQ(consumer_due_ms(&con), now_ms + 1);
    tick(1);
    CHECK_STR(did(), "PGGG"); /* and what may have been lost is said again */
    for (int i = 0; i < 6; i++)
        tick(100);
    CHECK_STR(did(), "PGGG");
    tick(100);
    CHECK_STR(did(), "K");
    CHECK_EQ(con.state, CONSUMER_DYING);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(con.slots[i].state, SLOT_QUARANTINED);
    cursor(0, 5, 1);
    CHECK_STR(did(), ""); /* quarantined slots are nobody's */
    tick(300);
    tick(300);
    tick(200);
    CHECK_STR(did(), "K");
    step((struct consumer_event){.type = CONSUMER_EV_HANGUP});
    CHECK_STR(did(), "C");
    CHECK_EQ(con.slots[0].state, SLOT_FREE);
}

TEST(an_answer_buys_time)
{
    start_flowing();
    union msg pong = {.pong = {.head.incarnation = 5, .stream = 7, .known = 1}};
    for (int i = 0; i < 50; i++) {
        tick(100);
        CHECK(!strchr(did(), 'K'));
        if (i % 4 == 3)
            step((struct consumer_event){.type = CONSUMER_EV_PONG, .msg = &pong});
    }
    CHECK_EQ(con.state, CONSUMER_FLOWING);
}

TEST(our_own_absence_kills_nobody)
{
    start_flowing();
    tick(100);
    tick(5000); /* we were stopped, and so may the loader have been */
    CHECK(!strchr(did(), 'K'));
    for (int i = 0; i < 7; i++)
        tick(100);
    CHECK(!strchr(did(), 'K'));
    tick(100);
    CHECK_STR(did(), "K");
}

TEST(nothing_wanted_means_nothing_to_say)
{
    start_flowing();
    for (uint64_t i = 0; i < 3; i++)
        ready(i, 7, con.slots[i].generation, 4, 5);
    CHECK(consumer_due_ms(&con) == UINT64_MAX);
    for (int i = 0; i < 100; i++) {
        tick(100);
        CHECK_STR(did(), "");
    }
    cursor(0, 1, 1); /* patience begins with the question, not with the last answer */
    CHECK_STR(did(), "G");
    tick(99);
    CHECK_STR(did(), "");
}

TEST(a_loader_that_lost_the_stream_is_left)
{
    start_flowing();
    union msg pong = {.pong = {.head.incarnation = 5, .stream = 3}};
    step((struct consumer_event){.type = CONSUMER_EV_PONG, .msg = &pong});
    CHECK_EQ(con.state, CONSUMER_FLOWING); /* of another stream */
    pong.pong.stream = 7;
    step((struct consumer_event){.type = CONSUMER_EV_PONG, .msg = &pong});
    CHECK(con.state == CONSUMER_DYING && con.slots[0].state == SLOT_QUARANTINED);
    tick(10);
    CHECK_STR(did(), ""); /* the hang-up should be on its way */
    for (int i = 0; i < 8; i++)
        tick(100);
    CHECK_STR(did(), "K");
}

TEST(a_door_that_never_hangs_up_is_given_up)
{
    start_flowing();
    for (int i = 0; i < 50 && con.state != CONSUMER_FAILED; i++)
        tick(100);
    CHECK_STR(did(), "F");
    CHECK(!acts[0].permanent);
    CHECK_HAS(acts[0].reason, "still holds the arena");
}

/* A loader that was stopped between its word that the reader died and the door's hang-up. */
TEST(whoever_comes_only_when_it_is_due_ends_a_silent_loader)
{
    union msg m = {.rejected = {.head.incarnation = 5, .reason = "the reader died"}};
    start_flowing();
    step((struct consumer_event){.type = CONSUMER_EV_REJECTED, .msg = &m});
    CHECK_EQ(con.state, CONSUMER_DYING);
    uint64_t began_ms = now_ms;
    while (strcmp(did(), "K") != 0 && now_ms < began_ms + 10000)
        tick(consumer_due_ms(&con) - now_ms);
    CHECK_EQ(now_ms - began_ms, con.config.peer_timeout_ms);
}

TEST(openings_without_data_end)
{
    start_flowing();
    int opened = 0;
    for (int i = 0; i < 1000 && con.state != CONSUMER_FAILED; i++) {
        step((struct consumer_event){.type = CONSUMER_EV_HANGUP, .reason = "nobody there"});
        tick(160);
        opened += act_count > 0 && acts[0].type == CONSUMER_ACT_OPEN;
    }
    CHECK_EQ(opened, 3); /* of 4; the first was start_flowing's */
    CHECK_STR(did(), "F");
    CHECK(!acts[0].permanent);
    CHECK_HAS(acts[0].reason, "4 openings");
    CHECK_HAS(acts[0].reason, "nobody there");
}

TEST(restarts_while_all_is_held_are_no_failures)
{
    start_flowing();
    for (uint64_t span = 0; span < 3; span++)
        ready(span, 7, con.slots[span].generation, 4, 5);
    for (int i = 0; i < 20; i++) { /* far more than attempts_max */
        step((struct consumer_event){.type = CONSUMER_EV_HANGUP});
        CHECK_STR(did(), "C");
        tick(10);
        CHECK_STR(did(), "O");
        open_with(8, 6 + (uint64_t)i);
        step((struct consumer_event){.type = CONSUMER_EV_WELCOME});
        CHECK_EQ(con.state, CONSUMER_FLOWING);
    }
}

static void check_changed(union msg m, const char *text)
{
    start_flowing();
    step((struct consumer_event){.type = CONSUMER_EV_HANGUP});
    tick(10);
    step((struct consumer_event){.type = CONSUMER_EV_OPENED, .msg = &m});
    CHECK_STR(did(), "F");
    CHECK(acts[0].permanent);
    CHECK_HAS(acts[0].reason, "the data file changed under the run");
    CHECK_HAS(acts[0].reason, text);
}

TEST(a_file_that_changed_fails)
{
    union msg m = opened_make(1, 6);
    MSG_STR(m.opened.fingerprint, "beef");
    check_changed(m, "was cafe and is beef");
    m = opened_make(1, 6);
    m.opened.rows = 38;
    check_changed(m, "had 37 rows and has 38");
    m = opened_make(1, 6);
    m.opened.span_rows = 8;
    m.opened.spans = 5;
    check_changed(m, "5 of 8");
    m = opened_make(1, 6);
    MSG_STR(m.opened.fields[0].type, "i8");
    check_changed(m, "types");
    m = opened_make(1, 6);
    m.opened.fields_count = 0;
    check_changed(m, "types");
}

TEST(rejections)
{
    union msg m = {.rejected = {.head.incarnation = 5, .reason = "no such group"}};
    start_flowing();
    step((struct consumer_event){.type = CONSUMER_EV_REJECTED, .msg = &m});
    CHECK(con.state == CONSUMER_DYING && con.slots[0].state == SLOT_QUARANTINED);
    m.rejected.permanent = 1;
    step((struct consumer_event){.type = CONSUMER_EV_REJECTED, .msg = &m});
    CHECK_STR(did(), "F");
    CHECK(acts[0].permanent);
    CHECK_STR(acts[0].reason, "no such group");

    start_flowing(); /* one that arrives just after the hang-up still counts */
    step((struct consumer_event){.type = CONSUMER_EV_HANGUP});
    step((struct consumer_event){.type = CONSUMER_EV_REJECTED, .msg = &m});
    CHECK_STR(did(), "F");
}

TEST(many_slots_are_granted_in_several_steps)
{
    start_flowing();
    con.config.slots = 200;
    con.spans = con.opened.spans = 1000;
    con.opened.rows = 4000;
    cursor(0, 0, 0);
    int granted = act_count;
    CHECK_EQ(granted, CONSUMER_ACTIONS_MAX);
    while (act_count == CONSUMER_ACTIONS_MAX) {
        tick(0);
        granted += act_count;
    }
    CHECK_EQ(granted, 197); /* 3 were granted before */
}
