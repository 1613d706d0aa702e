/* test_feed.c - proto/feed against a loader in processes of its own: real sockets, a real door and
 * arena, made of server.c and a pattern instead of a file. It is killed, stopped, lies, and every
 * row that arrives must be the right one all the same.
 */
#include "proto/feed.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proto/door.h"
#include "proto/opened.h"
#include "proto/server.h"
#include "tests/test.h"

enum {
    ROWS = 1003,
    CHUNK_ROWS = 8,
    SPAN_ROWS = 64,
    SPANS = 16,
    VALUES = 24,
    TARGETS_AT = 1536, /* 64 rows of 24 bytes */
    SPAN_BYTES = TARGETS_AT + SPAN_ROWS * 4,
    STREAMS_MAX = 8,
    DOORS_MAX = 16,
};

/* How the loader behaves. */
struct manner {
    int kills;         /* it dies that many times: once in the middle of a span, then is killed at
                          random moments */
    int slow_ms;       /* a span takes at least that long */
    uint64_t stops_at; /* the first loader stops itself (SIGSTOP) after that many spans; 0: never */
    uint64_t
        changes_at;   /* the first loader dies after that many spans, the next has another file */
    uint64_t lies_at; /* the checksum of that span is wrong */
    uint64_t span_bytes;   /* announced instead of SPAN_BYTES */
    uint64_t rows;         /* announced instead of ROWS */
    int graphs;            /* the rows are graphs */
    uint64_t cuts_at;      /* a pointer of that span points beyond its field */
    const char *rejection; /* answer to open */
};

/* ---- the loader ---------------------------------------------------------------------------------
 */

struct fake_stream {
    struct server *server; /* NULL: free place */
    struct link_peer peer;
    struct order order;
    int door, arena_fd, verify;
    struct arena arena;
    struct msg_grant queue[64];
    int queued;
};

static struct fake {
    struct manner manner;
    uint64_t incarnation, streams, spans;
    struct link ctl;
    int listener, door[DOORS_MAX];
    struct fake_stream stream[STREAMS_MAX];
} fake;

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* What stands in the pretended file. */
static unsigned char feature_of(uint64_t row, int j)
{
    return (unsigned char)order_key(row, (uint64_t)j);
}

static uint32_t target_of(uint64_t row)
{
    return (uint32_t)(row * 7 + 1);
}

/* Graphs: row r has r mod 5 nodes of a byte, and an edge if it has nodes. */
enum { NODES_AT = 576, EDGE_PTR_AT = 832, FROM_AT = 1408, TO_AT = 1472 };

static void fake_describe_graphs(struct msg_opened *o)
{
    static const struct msg_field_info fields[] = {
        {"node_ptr", "u64", 1, 8, 0, "", SPAN_ROWS + 1},
        {"node_features", "u8", 1, 1, NODES_AT, "node_ptr", 4 * SPAN_ROWS},
        {"edge_ptr", "u64", 1, 8, EDGE_PTR_AT, "", SPAN_ROWS + 1},
        {"edge_source", "u8", 1, 1, FROM_AT, "edge_ptr", SPAN_ROWS},
        {"edge_target", "u8", 1, 1, TO_AT, "edge_ptr", SPAN_ROWS},
    };
    MSG_STR(o->layout, "graph");
    memcpy(o->fields, fields, sizeof fields);
    o->fields_count = sizeof fields / sizeof *fields;
}

static void fake_write_graph(char *slot, uint64_t i, uint64_t row)
{
    uint64_t *nodes = (uint64_t *)slot + i, *edges = (uint64_t *)(slot + EDGE_PTR_AT) + i;
    if (i == 0)
        nodes[0] = edges[0] = 0;
    nodes[1] = nodes[0] + row % 5;
    edges[1] = edges[0] + (row % 5 > 0);
    for (uint64_t j = 0; j < row % 5; j++)
        slot[NODES_AT + nodes[0] + j] = (char)feature_of(row, (int)j);
    slot[FROM_AT + edges[0]] = 0;
    slot[TO_AT + edges[0]] = (char)(row % 5 - 1);
}

static void fake_describe(const struct order *order, union msg *m)
{
    struct msg_opened *o = &m->opened;
    memset(o, 0, sizeof *o);
    MSG_STR(o->fingerprint, fake.manner.changes_at && fake.incarnation > 1 ? "beef" : "cafe");
    o->rows = fake.manner.rows ? fake.manner.rows : order->rows;
    o->streams = order->streams;
    o->chunk_rows = CHUNK_ROWS;
    o->spans = order_spans(order);
    o->span_rows = SPAN_ROWS;
    o->span_bytes_max = fake.manner.span_bytes ? fake.manner.span_bytes : SPAN_BYTES;
    o->fields_count = 2;
    MSG_STR(o->layout, "dense");
    o->fields[0] = (struct msg_field_info){"features", "u8", VALUES, VALUES, 0, "", SPAN_ROWS};
    o->fields[1] = (struct msg_field_info){"targets", "u32", 1, 4, TARGETS_AT, "", SPAN_ROWS};
    if (fake.manner.graphs)
        fake_describe_graphs(o);
}

static void fake_step(struct fake_stream *s, struct server_event event);

/* The row of the file that is row i of a delivered span. */
static uint64_t fake_row(const struct order *o, uint64_t epoch, uint64_t span, uint64_t i)
{
    uint64_t laid = span * SPAN_ROWS + i;
    if (!o->shuffle)
        return order_span_first(o, span) + i;
    return order_chunk_at(o, epoch, laid / CHUNK_ROWS) * CHUNK_ROWS + laid % CHUNK_ROWS;
}

/* Writes one span into its slot, row by row, and says so. */
static void fake_read(struct fake_stream *s, const struct msg_grant *g)
{
    char *slot = arena_slot(&s->arena, g->slot);
    union msg m = {.ready = {.epoch = g->epoch,
                             .span = g->span,
                             .slot = g->slot,
                             .generation = g->generation,
                             .rows = order_span_rows(&s->order, g->span)}};
    for (uint64_t i = 0; i < m.ready.rows; i++) {
        if (i == m.ready.rows / 2 && fake.manner.kills && fake.incarnation == 1 && fake.spans == 3)
            raise(SIGKILL);        /* one death at least finds a consumer and a slot half written */
        if (i == m.ready.rows / 2) /* so that most others do too */
            nanosleep(&(struct timespec){.tv_nsec = fake.manner.slow_ms * 1000000L}, NULL);
        uint64_t row = fake_row(&s->order, g->epoch, g->span, i);
        uint32_t target = target_of(row);
        if (fake.manner.graphs) {
            fake_write_graph(slot, i, row);
            continue;
        }
        for (int j = 0; j < VALUES; j++)
            slot[i * VALUES + (uint64_t)j] = (char)feature_of(row, j);
        memcpy(slot + TARGETS_AT + i * 4, &target, 4);
    }
    if (fake.spans + 1 == fake.manner.cuts_at)
        ((uint64_t *)slot)[m.ready.rows] = 4 * SPAN_ROWS + 1;
    if (s->verify)
        m.ready.checksum = opened_checksum(&s->server->opened, slot, m.ready.rows);
    m.ready.checksum += ++fake.spans == fake.manner.lies_at;
    fake_step(s, (struct server_event){.type = SERVER_EV_DONE, .msg = &m});
    if (fake.incarnation == 1 && fake.spans == fake.manner.stops_at)
        raise(SIGSTOP);
    if (fake.incarnation == 1 && fake.spans == fake.manner.changes_at)
        raise(SIGKILL);
}

static void fake_close(struct fake_stream *s)
{
    arena_close(&s->arena);
    if (s->door >= 0)
        close(s->door);
    free(s->server);
    s->server = NULL;
}

static void fake_hand(struct fake_stream *s, uint64_t slots, uint64_t slot_bytes)
{
    struct err e;
    CHECK_OK(arena_attach(&s->arena, s->arena_fd, slots, slot_bytes, &e), e);
    fake_step(s, (struct server_event){.type = SERVER_EV_ARMED});
}

static void fake_act(struct fake_stream *s, struct server_action *a,
                     const struct server_event *event)
{
    struct door_welcome welcome = {.magic = DOOR_MAGIC, .ok = a->ok};
    struct msg_rejected rejected = {.permanent = a->permanent};
    struct err e;
    switch (a->type) {
    case SERVER_ACT_OPENED:
        link_send(&fake.ctl, &s->peer, MSG_opened, &s->server->opened);
        break;
    case SERVER_ACT_REJECTED:
        MSG_STR(rejected.reason, a->reason);
        link_send(&fake.ctl, &s->peer, MSG_rejected, &rejected);
        break;
    case SERVER_ACT_HAND:
        fake_hand(s, event->slots, event->slot_bytes);
        break;
    case SERVER_ACT_WELCOME:
        door_send(s->door, &welcome, sizeof welcome, NULL, 0, &e);
        break;
    case SERVER_ACT_READ:
        CHECK(s->queued < 64);
        s->queue[s->queued++] = a->grant;
        break;
    case SERVER_ACT_READY:
        link_send(&fake.ctl, &s->peer, MSG_ready, &a->ready);
        break;
    case SERVER_ACT_CLOSE:
        fake_close(s);
        break;
    }
}

static void fake_step(struct fake_stream *s, struct server_event event)
{
    struct server_action actions[SERVER_ACTIONS_MAX];
    event.now_ms = now_ms();
    int count = s->server ? server_step(s->server, &event, actions) : 0;
    for (int i = 0; i < count; i++)
        fake_act(s, &actions[i], &event);
}

static void fake_open(const struct link_peer *peer, const union msg *m)
{
    union msg described;
    struct fake_stream *s = NULL;
    for (int i = 0; i < STREAMS_MAX; i++) {
        struct fake_stream *at = &fake.stream[i];
        if (at->server && at->peer.bytes == peer->bytes &&
            memcmp(at->peer.id, peer->id, peer->bytes) == 0) {
            fake_step(at, (struct server_event){.type = SERVER_EV_OPEN, .msg = m});
            return;
        }
        s = s || at->server ? s : at;
    }
    CHECK(s && strcmp(m->open.file, "/data/pattern.h5") == 0);
    *s = (struct fake_stream){.server = malloc(sizeof *s->server),
                              .peer = *peer,
                              .door = -1,
                              .arena = ARENA_CLOSED,
                              .verify = m->open.verify};
    uint64_t streams = m->open.streams, rows = streams ? ROWS / streams * streams : ROWS;
    s->order =
        (struct order){m->open.seed, m->open.shuffle, rows, CHUNK_ROWS, SPAN_ROWS, 1, streams};
    server_init(s->server, fake.incarnation * 1000 + ++fake.streams, m->head.incarnation, now_ms(),
                5000, 60000);
    if (fake.manner.rejection) {
        fake_step(
            s, (struct server_event){.type = SERVER_EV_REJECTED, .reason = fake.manner.rejection});
        return;
    }
    fake_describe(&s->order, &described);
    fake_step(s, (struct server_event){.type = SERVER_EV_DESCRIBED, .msg = &described});
}

static struct fake_stream *fake_find(uint64_t stream)
{
    for (int i = 0; i < STREAMS_MAX; i++)
        if (fake.stream[i].server && fake.stream[i].server->stream == stream)
            return &fake.stream[i];
    return NULL;
}

static void fake_messages(void)
{
    union msg m;
    enum msg_type type;
    struct link_peer peer;
    struct err e;
    while (link_recv(&fake.ctl, &peer, &type, &m, &e) > 0) {
        struct fake_stream *s = fake_find(type == MSG_grant ? m.grant.stream : m.ping.stream);
        struct msg_pong pong = {.stream = m.ping.stream, .known = s != NULL};
        if (type == MSG_open)
            fake_open(&peer, &m);
        else if (type == MSG_grant && s)
            fake_step(s, (struct server_event){.type = SERVER_EV_GRANT, .msg = &m});
        else if (type == MSG_ping)
            link_send(&fake.ctl, &peer, MSG_pong, &pong);
    }
}

static void fake_hello(int *door)
{
    struct door_hello hello;
    int fds[DOOR_FDS_MAX], count;
    struct err e;
    ssize_t bytes = door_recv(*door, &hello, sizeof hello, fds, &count, &e);
    if (bytes < 0)
        return;
    struct fake_stream *s = bytes == sizeof hello && count == 1 ? fake_find(hello.stream) : NULL;
    if (s && s->door < 0) {
        s->door = *door;
        s->arena_fd = fds[0];
        fake_step(s, (struct server_event){.type = SERVER_EV_HELLO,
                                           .slots = hello.slots,
                                           .slot_bytes = hello.slot_bytes});
    } else {
        close(*door);
    }
    *door = -1;
}

static void fake_doors(void)
{
    struct err e;
    pid_t pid;
    char data[8];
    int fd, fds[DOOR_FDS_MAX], count;
    while ((fd = door_accept(fake.listener, &pid, &e)) >= 0) {
        int i = 0;
        while (fake.door[i] >= 0)
            CHECK(++i < DOORS_MAX);
        fake.door[i] = fd;
    }
    for (int i = 0; i < DOORS_MAX; i++)
        if (fake.door[i] >= 0)
            fake_hello(&fake.door[i]);
    for (int i = 0; i < STREAMS_MAX; i++) {
        struct fake_stream *s = &fake.stream[i];
        if (s->server && s->door >= 0 &&
            door_recv(s->door, data, sizeof data, fds, &count, &e) >= 0)
            fake_step(s, (struct server_event){.type = SERVER_EV_HANGUP});
    }
}

static _Noreturn void fake_run(const struct manner *manner, uint64_t incarnation)
{
    struct err e;
    fake = (struct fake){.manner = *manner, .incarnation = incarnation};
    memset(fake.door, -1, sizeof fake.door);
    link_incarnation_set(incarnation);
    CHECK_OK(link_open(&fake.ctl, LINK_ROUTER, ".", "loader.ctl", NULL, &e), e);
    CHECK_OK(fake.listener = door_listen("sockets/loader.door", &e), e);
    for (;;) {
        struct link_poll_item items[] = {{.link = &fake.ctl}, {.fd = fake.listener}};
        link_poll(items, 2, 1);
        fake_messages();
        fake_doors();
        for (int i = 0; i < STREAMS_MAX; i++) {
            struct fake_stream *s = &fake.stream[i];
            if (!s->server || !s->queued)
                continue;
            struct msg_grant g = s->queue[0];
            memmove(s->queue, s->queue + 1, (size_t)--s->queued * sizeof g);
            fake_read(s, &g);
        }
    }
}

/* A process that keeps a loader running, and kills it as often as its manner says. It is forked
 * before this process touches a socket, since a fork must not inherit ZeroMQ's threads. */
static void loader_supervise(const struct manner *manner)
{
    CHECK(mkdir("sockets", 0700) == 0);
    if (fork() != 0)
        return;
    for (uint64_t incarnation = 1;; incarnation++) {
        pid_t pid = fork();
        if (pid == 0)
            fake_run(manner, incarnation);
        if (incarnation > 1 && (int)incarnation <= manner->kills) {
            struct timespec moment = {.tv_nsec = (long)(1 + test_random() % 60) * 1000000};
            nanosleep(&moment, NULL);
            kill(pid, SIGKILL);
        }
        int status;
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        if (WIFEXITED(status))
            _exit(1); /* a failed CHECK of the loader: the reader will run into its limit */
    }
}

/* ---- the consumer -------------------------------------------------------------------------------
 */

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
        CHECK_EQ(x[j], feature_of(row, (int)j));
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
            CHECK_EQ(x[j], feature_of(row, j));
        memcpy(&target, feed_field(&f->info.targets, rows[i]), 4);
        CHECK_EQ(target, target_of(row));
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
    loader_supervise(manner);
    struct feed *f = feed_make(changes);
    feed_await_ready(f);
    CHECK_OK(feed_read(f, 0, 0, 1, 100, &e), e);
    CHECK_EQ(f->info.order.rows,
             changes->streams ? ROWS / changes->streams * changes->streams : ROWS);
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
    CHECK_EQ(f->info.slots, 3);
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

TEST(a_resting_feed_holds_nothing_and_goes_on)
{
    struct err e;
    loader_supervise(&(struct manner){0});
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
    loader_supervise(&(struct manner){.changes_at = UINT64_MAX});
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
    loader_supervise(&(struct manner){0});
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
    loader_supervise(&(struct manner){.kills = 3, .slow_ms = 1});
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
    loader_supervise(manner);
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
    uint64_t start = now_ms(), pumps = 0;
    while (now_ms() - start < 500) {
        CHECK_OK(feed_wait(f, &e), e);
        pumps++;
    }
    CHECK(pumps > 1 && pumps < 12); /* openings after 0, 100, 300, 700 ms */
    CHECK_HAS(f->consumer.trouble, "sockets/loader.door");
    feed_free(f);
}
