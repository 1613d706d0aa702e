/* test_feed.c - proto/feed against a loader in processes of its own (fake_loader.h): whatever that
 * does, every row that arrives must be the right one.
 */
#include "proto/feed.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "proto/daemon.h"
#include "tests/test.h"
#include "tests/unit/fake_loader.h"

static struct feed *feed_make(const struct feed_config *changes)
{
    struct feed *f = malloc(sizeof *f);
    struct feed_config config = *changes;
    config.role = "test.train";
    config.incarnation = 1;
    config.file = "/data/pattern.h5";
    config.split = "train";
    config.seed = 17;
    if (!config.window_spans)
        config.window_spans = 3;
    if (!config.arena_limit_bytes)
        config.arena_limit_bytes = 1 << 20;
    if (!config.peer_timeout_ms)
        config.peer_timeout_ms = 10000;
    link_incarnation_set(1);
    feed_open(f, &config);
    return f;
}

/* Waits until there may be something to do, and does it. In this order: what a pump brings must be
 * looked at before waiting again. */
static int feed_wait(struct feed *f, struct err *e)
{
    struct link_poll_item items[3];
    int count = feed_poll_items(f, items);
    link_poll(items, count, feed_timeout_ms(f));
    return feed_pump(f, e);
}

static void feed_await_ready(struct feed *f)
{
    struct err e;
    while (!feed_ready(f))
        CHECK_OK(feed_wait(f, &e), e);
}

static void graph_check(const struct feed *f, struct feed_row at, uint64_t row)
{
    uint64_t nodes, edges;
    const unsigned char *x = feed_items(f, &f->info.fields[1], at, &nodes);
    const unsigned char *from = feed_items(f, &f->info.fields[3], at, &edges);
    CHECK(x && from && nodes == row % 5 && edges == (nodes > 0));
    for (uint64_t j = 0; j < nodes; j++)
        CHECK_EQ(x[j], fake_feature(row, (int)j));
    const unsigned char *to = feed_items(f, &f->info.fields[4], at, &edges);
    CHECK(!edges || (*from == 0 && *to == nodes - 1));
    struct feed_graph g = feed_graph(f, at);
    CHECK(g.nodes == x && g.sources == from && g.targets == to && !g.edge_features);
    CHECK(g.node_count == nodes && g.edge_count == edges);
}

static void rows_check(const struct feed *f, uint64_t epoch, uint64_t position, uint64_t count,
                       const struct feed_row *rows)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t row = order_file_row(&f->info.order, epoch, position + i);
        if (strcmp(f->info.layout, "graph") == 0) {
            graph_check(f, rows[i], row);
            continue;
        }
        const unsigned char *x = feed_field(&f->info.features[0], rows[i]);
        uint32_t target;
        for (int j = 0; j < VALUES; j++)
            CHECK_EQ(x[j], fake_feature(row, j));
        memcpy(&target, feed_field(&f->info.targets, rows[i]), 4);
        CHECK_EQ(target, fake_target(row));
    }
}

/* Reads from `position` of `epoch` to the end of last_epoch in batches, checking every row. 0 or
 * -1. */
static int feed_read(struct feed *f, uint64_t epoch, uint64_t position, uint64_t last_epoch,
                     uint64_t batch, struct err *e)
{
    struct feed_row rows[256];
    feed_seek(f, epoch, position, last_epoch);
    while (epoch <= last_epoch) {
        uint64_t left = f->info.order.rows - position;
        uint64_t count = feed_rows(f, epoch, position, left < batch ? left : batch, rows);
        rows_check(f, epoch, position, count, rows);
        if (count == 0 && feed_wait(f, e) < 0)
            return -1;
        position += count;
        feed_seek(f, epoch, position, last_epoch);
        if (position == f->info.order.rows) {
            position = 0;
            epoch++;
        }
    }
    return 0;
}

/* The whole of two epochs with that loader and that configuration. */
static struct feed *two_epochs(const struct manner *manner, const struct feed_config *changes)
{
    struct err e;
    fake_loader_supervise(manner);
    struct feed *f = feed_make(changes);
    feed_await_ready(f);
    CHECK_OK(feed_read(f, 0, 0, 1, 100, &e), e);
    CHECK_EQ(f->info.order.rows, changes->streams && !changes->rest
                                     ? ROWS / changes->streams * changes->streams
                                     : ROWS);
    CHECK_STR(f->info.fingerprint, "cafe");
    return f;
}

static void feed_free(struct feed *f)
{
    feed_close(f);
    feed_close(f);
    free(f);
    link_shutdown();
}

TEST(two_epochs_undisturbed)
{
    struct feed *f = two_epochs(&(struct manner){0}, &(struct feed_config){.shuffle = 1});
    CHECK_EQ(f->info.slots, 6);
    CHECK_EQ(f->info.arena_bytes, f->arena.bytes);
    CHECK_EQ(f->attempt, 1);
    CHECK_EQ(f->consumer.generation, 2 * SPANS); /* each span was asked for once */
    feed_free(f);
}

TEST(two_epochs_verified_with_the_fewest_slots)
{
    struct feed *f = two_epochs(&(struct manner){0},
                                &(struct feed_config){.shuffle = 1, .slots = 4, .verify = 1});
    CHECK_EQ(f->info.slots, 4);
    feed_free(f);
}

TEST(two_epochs_in_file_order)
{
    struct feed *f = two_epochs(&(struct manner){0}, &(struct feed_config){.slots = 0});
    CHECK_EQ(f->info.slots, 2);
    CHECK_EQ(f->info.order.window_spans, 1);
    feed_free(f);
}

TEST_LIMIT(two_epochs_with_a_loader_that_is_killed, 60)
{
    struct manner manner = {.kills = 15, .slow_ms = 3};
    struct feed *f = two_epochs(&manner, &(struct feed_config){.shuffle = 1, .verify = 1});
    CHECK(f->attempt > 1);
    feed_free(f);
}

TEST(a_stopped_loader_is_killed)
{
    struct manner manner = {.stops_at = 9};
    struct feed *f =
        two_epochs(&manner, &(struct feed_config){.shuffle = 1, .peer_timeout_ms = 300});
    CHECK_EQ(f->consumer.loader_incarnation, 2);
    feed_free(f);
}

TEST(graphs_come_with_their_own_items)
{
    struct feed_row row;
    struct err e;
    uint64_t count;
    struct feed *f = two_epochs(&(struct manner){.graphs = 1, .kills = 2, .slow_ms = 2},
                                &(struct feed_config){.shuffle = 1, .verify = 1});
    CHECK_STR(f->info.layout, "graph");
    CHECK_EQ(f->info.field_count, 5);
    feed_seek(f, 1, ROWS - 1, 1);
    while (feed_rows(f, 1, ROWS - 1, 1, &row) == 0)
        CHECK_OK(feed_wait(f, &e), e);
    uint64_t *pointer = (uint64_t *)row.span + row.row; /* somebody writes to the arena */
    pointer[1] = 4 * SPAN_ROWS + 1;
    CHECK(!feed_items(f, &f->info.fields[1], row, &count) && count == 0);
    pointer[1] = 3;
    pointer[0] = 4;
    CHECK(!feed_items(f, &f->info.fields[1], row, &count) && count == 0);
    feed_free(f);
}

TEST(streams_go_on_from_batch_to_batch)
{
    enum { STREAMS = 4, PART = ROWS / STREAMS };
    struct feed *f = two_epochs(&(struct manner){0}, &(struct feed_config){.streams = STREAMS});
    CHECK_EQ(f->info.order.rows, STREAMS * PART);
    for (uint64_t p = 0; p < f->info.order.rows; p++) /* and two_epochs has seen these rows */
        CHECK_EQ(order_file_row(&f->info.order, 0, p), p % STREAMS * PART + p / STREAMS);
    feed_free(f);
}

TEST(streams_have_all_rows_where_the_rest_is_wanted)
{
    feed_free(two_epochs(&(struct manner){0}, &(struct feed_config){.streams = 15, .rest = 1}));
}

static void span_is_right(const struct feed *f, uint64_t epoch, uint64_t span, const char *at)
{
    struct order_run run = {0};
    while (order_run_next(&f->info.order, epoch, span, &run))
        for (uint64_t i = 0; i < run.rows; i++) {
            const struct feed_row row = {at, run.at + i};
            const unsigned char *x = feed_field(&f->info.features[0], row);
            for (int j = 0; j < VALUES; j++)
                CHECK_EQ(x[j], fake_feature(run.first + i, j));
        }
}

/* Each is released as soon as it was taken, in the middle of a window, too; also where the loader
 * dies between. */
TEST(spans_are_taken_one_by_one)
{
    struct err e;
    fake_loader_supervise(&(struct manner){.kills = 2});
    struct feed *f = feed_make(&(struct feed_config){.shuffle = 1, .slots = 4});
    feed_await_ready(f);
    for (uint64_t epoch = 0; epoch < 2; epoch++)
        for (uint64_t span = 0; span < SPANS; span++) {
            const char *at;
            feed_seek_span(f, epoch, span, 1);
            CHECK(!span || !feed_span(f, epoch, span - 1));
            while (!(at = feed_span(f, epoch, span)))
                CHECK_OK(feed_wait(f, &e), e);
            span_is_right(f, epoch, span, at);
        }
    feed_free(f);
}

TEST(a_resting_feed_holds_nothing_and_goes_on)
{
    struct err e;
    fake_loader_supervise(&(struct manner){0});
    struct feed *f = feed_make(&(struct feed_config){.shuffle = 1});
    feed_await_ready(f);
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
        CHECK_OK(feed_read(f, epoch, 0, epoch, 50, &e), e);
        feed_rest(f);
        feed_rest(f);
        struct link_poll_item items[3];
        CHECK(f->arena.fd < 0 && f->door < 0 && !f->dealer.socket);
        CHECK_EQ(feed_poll_items(f, items), 0);
        CHECK_EQ(feed_timeout_ms(f), FEED_IDLE_MS);
        CHECK_OK(feed_pump(f, &e), e);
    }
    feed_free(f);
}

TEST(a_file_that_changed_while_the_feed_rested_is_refused)
{
    struct err e = {0};
    fake_loader_supervise(&(struct manner){.changes_at = UINT64_MAX});
    struct feed *f = feed_make(&(struct feed_config){.shuffle = 1});
    feed_await_ready(f);
    CHECK_OK(feed_read(f, 0, 0, 0, 50, &e), e);
    int loader = dup(f->pidfd);
    feed_rest(f);
    CHECK(syscall(SYS_pidfd_send_signal, loader, SIGKILL, NULL, 0) == 0);
    CHECK(feed_read(f, 0, 0, 0, 50, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "changed under the run");
    feed_free(f);
}

TEST(seeks_back_and_forth)
{
    struct err e;
    struct feed_row rows[1];
    fake_loader_supervise(&(struct manner){0});
    struct feed *f = feed_make(&(struct feed_config){.shuffle = 1});
    feed_await_ready(f);
    for (int i = 0; i < 60; i++) {
        uint64_t epoch = test_random() % 3, position = test_random() % ROWS;
        feed_seek(f, epoch, position, 2);
        while (feed_rows(f, epoch, position, 1, rows) == 0)
            CHECK_OK(feed_wait(f, &e), e);
        rows_check(f, epoch, position, 1, rows);
    }
    CHECK_OK(feed_read(f, 2, ROWS - 1, 2, 64, &e), e); /* and on to the very end */
    feed_seek(f, 2, ROWS, 2);
    for (int i = 0; i < 20 && f->consumer.waiting; i++)
        CHECK_OK(feed_wait(f, &e), e);
    CHECK_EQ(feed_timeout_ms(f), FEED_IDLE_MS); /* nothing is wanted: nothing to do */
    feed_free(f);
}

TEST(two_feeds_at_once)
{
    struct err e;
    fake_loader_supervise(&(struct manner){.kills = 3, .slow_ms = 1});
    struct feed *a = feed_make(&(struct feed_config){.shuffle = 1});
    struct feed *b = feed_make(&(struct feed_config){.slots = 2});
    b->config.role = "test.validation";
    feed_await_ready(a);
    feed_await_ready(b);
    CHECK_OK(feed_read(a, 0, 0, 0, 128, &e), e);
    CHECK_OK(feed_read(b, 0, 0, 0, 77, &e), e);
    feed_close(b);
    free(b);
    feed_free(a);
}

/* ---- refusals -----------------------------------------------------------------------------------
 */

/* The feed must fail with this in its sentence. */
static void check_fails(const struct manner *manner, const struct feed_config *changes,
                        const char *text)
{
    struct err e = {0};
    int failed = 0;
    fake_loader_supervise(manner);
    struct feed *f = feed_make(changes);
    while (!feed_ready(f) && !failed)
        failed = feed_wait(f, &e) < 0;
    if (!failed)
        failed = feed_read(f, 0, 0, 1, 100, &e) < 0;
    CHECK(failed);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, text);
    CHECK(feed_pump(f, &e) < 0 && strstr(e.text, text)); /* and stays so */
    feed_free(f);
}

TEST(a_rejection_is_passed_on)
{
    check_fails(&(struct manner){.rejection = "the file has no group train"},
                &(struct feed_config){.shuffle = 1}, "the file has no group train");
}

TEST(a_pointer_beyond_its_field_fails)
{
    check_fails(&(struct manner){.graphs = 1, .cuts_at = 5}, &(struct feed_config){.shuffle = 1},
                "node_ptr of a span says that the items of row 63 end at 257");
}

TEST(a_wrong_checksum_fails)
{
    check_fails(&(struct manner){.lies_at = 5}, &(struct feed_config){.shuffle = 1, .verify = 1},
                "CRC-32");
}

TEST(a_changed_file_fails)
{
    check_fails(&(struct manner){.changes_at = 5}, &(struct feed_config){.shuffle = 1},
                "the data file changed under the run");
}

TEST(an_impossible_description_fails)
{
    check_fails(&(struct manner){.rows = ROWS + SPAN_ROWS}, &(struct feed_config){.shuffle = 1},
                "do not make 16 spans");
}

TEST(a_span_over_the_limit_fails)
{
    check_fails(&(struct manner){.span_bytes = 300000}, &(struct feed_config){.shuffle = 1},
                "300000");
}

TEST(fewer_slots_than_a_window_and_one_fail_with_figures)
{
    check_fails(&(struct manner){0}, &(struct feed_config){.shuffle = 1, .slots = 3},
                "arena.slots is 3, a window of 3 spans needs at least 4");
}

TEST(more_slots_than_the_limit_holds_fail_with_figures)
{
    check_fails(&(struct manner){0}, &(struct feed_config){.shuffle = 1, .slots = 4000},
                "arena.limit_mb is 1");
}

TEST(an_absent_loader_is_waited_for_without_spinning)
{
    struct err e;
    CHECK(mkdir("sockets", 0700) == 0);
    struct feed *f = feed_make(&(struct feed_config){.shuffle = 1});
    double begin = clock_monotonic_s();
    int pumps = 0;
    while (clock_monotonic_s() - begin < 0.5) {
        CHECK_OK(feed_wait(f, &e), e);
        pumps++;
    }
    CHECK(pumps > 1 && pumps < 12); /* openings after 0, 100, 300, 700 ms */
    CHECK_HAS(f->consumer.trouble, "sockets/loader.door");
    feed_free(f);
}
