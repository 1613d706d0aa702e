/* fake_loader.c - see fake_loader.h: real sockets, a real door and arena. */
#include "tests/unit/fake_loader.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proto/daemon.h"
#include "proto/door.h"
#include "proto/link.h"
#include "proto/opened.h"
#include "proto/order.h"
#include "proto/server.h"
#include "tests/test.h"

enum {
    TARGETS_AT = SPAN_ROWS * VALUES,
    OFFSET_MAX = 56, /* spans begin at any multiple of 8 up to there */
    SPAN_BYTES = TARGETS_AT + SPAN_ROWS * 4 + OFFSET_MAX,
    STREAMS_MAX = 8,
    DOORS_MAX = 16,
};

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
    return (uint64_t)(1000 * clock_monotonic_s());
}

unsigned char fake_feature(uint64_t row, int j)
{
    return (unsigned char)order_key(row, (uint64_t)j);
}

uint32_t fake_target(uint64_t row)
{
    return (uint32_t)(row * 7 + 1);
}

/* Where the parts of graphs stand in a slot. */
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
        slot[NODES_AT + nodes[0] + j] = (char)fake_feature(row, (int)j);
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
    uint64_t offset = fake.spans * 8 % (OFFSET_MAX + 8);
    char *slot = (char *)arena_slot(&s->arena, g->slot) + offset;
    union msg m = {.ready = {.epoch = g->epoch,
                             .span = g->span,
                             .slot = g->slot,
                             .generation = g->generation,
                             .offset = offset,
                             .rows = order_span_rows(&s->order, g->span)}};
    for (uint64_t i = 0; i < m.ready.rows; i++) {
        if (i == m.ready.rows / 2 && fake.manner.kills && fake.incarnation == 1 && fake.spans == 3)
            raise(SIGKILL);        /* one death at least finds a consumer and a slot half written */
        if (i == m.ready.rows / 2) /* so that most others do too */
            nanosleep(&(struct timespec){.tv_nsec = fake.manner.slow_ms * 1000000L}, NULL);
        uint64_t row = fake_row(&s->order, g->epoch, g->span, i);
        uint32_t target = fake_target(row);
        if (fake.manner.graphs) {
            fake_write_graph(slot, i, row);
            continue;
        }
        for (int j = 0; j < VALUES; j++)
            slot[i * VALUES + (uint64_t)j] = (char)fake_feature(row, j);
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
    uint64_t streams = m->open.streams;
    uint64_t rows = streams && !m->open.rest ? ROWS / streams * streams : ROWS;
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

void fake_loader_supervise(const struct manner *manner)
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
