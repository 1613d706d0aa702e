/* test_link.c - links over real ipc sockets: what arrives, what is refused, and what never blocks.
 *
 * Malformed traffic needs a sender that keeps no rule; it is a raw ZeroMQ socket, the one place
 * outside proto/link.c that speaks to the library.
 */
#include "proto/link.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <zmq.h>

#include "tests/test.h"

enum { PATIENCE_MS = 5000 };

static struct err e;

static void sockets_make(void)
{
    CHECK(mkdir("sockets", 0700) == 0);
}

/* Waits until `l` is readable and takes one message. */
static int take(struct link *l, struct link_peer *peer, enum msg_type *type, union msg *m)
{
    struct link_poll_item item = {.link = l};
    CHECK_EQ(link_poll(&item, 1, PATIENCE_MS), 1);
    CHECK(item.ready);
    return link_recv(l, peer, type, m, &e);
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

TEST(dealer_and_router_talk)
{
    struct link router, dealer;
    struct link_peer peer;
    enum msg_type type;
    union msg m;
    sockets_make();
    link_incarnation_set(42);
    CHECK_OK(link_open(&router, LINK_ROUTER, ".", "loader.ctl", NULL, &e), e);
    CHECK_OK(link_open(&dealer, LINK_DEALER, ".", "loader.ctl", "trainer-1-1", &e), e);
    CHECK_EQ(link_recv(&router, &peer, &type, &m, &e), 0);

    struct msg_grant grant = {.stream = 5, .slot = 4095};
    CHECK_EQ(link_send(&dealer, NULL, MSG_grant, &grant), 0);
    CHECK_EQ(link_send(&dealer, NULL, MSG_grant, &grant), 0);
    for (uint64_t seq = 1; seq <= 2; seq++) {
        CHECK_EQ(take(&router, &peer, &type, &m), 1);
        CHECK_EQ(type, MSG_grant);
        CHECK_EQ(m.grant.slot, 4095);
        CHECK_EQ(m.head.incarnation, 42);
        CHECK_EQ(m.head.seq, seq);
        CHECK(m.head.time_s > 1.7e9);
    }
    CHECK(peer.bytes == strlen("trainer-1-1") && memcmp(peer.id, "trainer-1-1", peer.bytes) == 0);

    struct msg_ready ready = {.stream = 5, .rows = 256};
    CHECK_EQ(link_send(&router, &peer, MSG_ready, &ready), 0);
    CHECK_EQ(take(&dealer, NULL, &type, &m), 1);
    CHECK_EQ(m.ready.rows, 256);
    link_close(&dealer);
    link_close(&dealer);
    link_close(&router);
    link_shutdown();
}

TEST(run_directory_elsewhere)
{
    struct link router, dealer;
    enum msg_type type;
    union msg m;
    CHECK(mkdir("@run", 0700) == 0 && mkdir("@run/sockets", 0700) == 0);
    CHECK_OK(link_open(&router, LINK_ROUTER, "@run", "loader.ctl", NULL, &e), e);
    CHECK(access("@run/sockets/loader.ctl", F_OK) == 0); /* a file, not an abstract name */
    CHECK(chdir("@run") == 0);
    CHECK_OK(link_open(&dealer, LINK_DEALER, ".", "loader.ctl", "x", &e), e);
    struct msg_status status = {0};
    CHECK_EQ(link_send(&dealer, NULL, MSG_status, &status), 0);
    CHECK_EQ(take(&router, &(struct link_peer){0}, &type, &m), 1);
    CHECK_EQ(type, MSG_status);
    CHECK(chdir("..") == 0); /* the bound path is removed relative to where it was bound */
    link_close(&dealer);
    link_close(&router);
    link_shutdown();
}

TEST(dead_peer_is_noticed)
{
    struct link router, dealer;
    struct link_peer peer, nobody = {.bytes = 6, .id = "nobody"}, nameless = {0};
    enum msg_type type;
    union msg m;
    struct msg_pong pong = {0};
    struct msg_status status = {0};
    sockets_make();
    CHECK_OK(link_open(&router, LINK_ROUTER, ".", "loader.ctl", NULL, &e), e);
    CHECK_EQ(link_send(&router, &nobody, MSG_pong, &pong), -1);
    CHECK_EQ(link_send(&router, &nameless, MSG_pong, &pong), -1);

    CHECK_OK(link_open(&dealer, LINK_DEALER, ".", "loader.ctl", "trainer-1-2", &e), e);
    CHECK_EQ(link_send(&dealer, NULL, MSG_status, &status), 0);
    CHECK_EQ(take(&router, &peer, &type, &m), 1);
    link_close(&dealer);
    double until = now_s() + PATIENCE_MS / 1000.0;
    while (link_send(&router, &peer, MSG_pong, &pong) == 0) { /* until the hang-up has arrived */
        CHECK(now_s() < until);
        struct link_poll_item item = {.link = &router};
        link_poll(&item, 1, 5);
    }
    /* The ROUTER still serves others. */
    CHECK_OK(link_open(&dealer, LINK_DEALER, ".", "loader.ctl", "trainer-1-3", &e), e);
    CHECK_EQ(link_send(&dealer, NULL, MSG_status, &status), 0);
    CHECK_EQ(take(&router, &peer, &type, &m), 1);
    CHECK_EQ(link_send(&router, &peer, MSG_pong, &pong), 0);
    CHECK_EQ(take(&dealer, NULL, &type, &m), 1);
    CHECK_EQ(type, MSG_pong);
}

TEST(full_queues_refuse)
{
    struct link dealer;
    struct msg_status status = {0};
    int sent = 0;
    sockets_make();
    /* Nobody bound: messages queue up to the limit, then -1 at once. */
    CHECK_OK(link_open(&dealer, LINK_DEALER, ".", "loader.ctl", "x", &e), e);
    while (sent <= LINK_QUEUE_MAX && link_send(&dealer, NULL, MSG_status, &status) == 0)
        sent++;
    CHECK_EQ(sent, LINK_QUEUE_MAX);
    double began = now_s();
    link_close(&dealer);
    link_shutdown();
    CHECK(now_s() - began < 3); /* lingers 200 ms, not for ever */
}

/* Sends `count` frames as they are. */
static void raw_send(void *socket, int count, const char *const *frames, const size_t *bytes)
{
    for (int i = 0; i < count; i++)
        CHECK(zmq_send(socket, frames[i], bytes[i], i + 1 < count ? ZMQ_SNDMORE : 0) >= 0);
}

TEST(malformed_is_refused_and_the_rest_arrives)
{
    struct link router;
    struct link_peer peer;
    enum msg_type type;
    union msg m;
    char valid[256];
    struct msg_status status = {.head = {1, 1, 1}};
    sockets_make();
    CHECK_OK(link_open(&router, LINK_ROUTER, ".", "loader.ctl", NULL, &e), e);
    void *context = zmq_ctx_new(), *raw = zmq_socket(context, ZMQ_DEALER);
    CHECK(zmq_setsockopt(raw, ZMQ_ROUTING_ID, "rude", 4) == 0);
    CHECK(zmq_connect(raw, "ipc://sockets/loader.ctl") == 0);
    size_t map = msg_encode(MSG_status, &status, valid, sizeof valid);

    static const struct {
        int count;
        const char *name;
        int valid_map;
        const char *part;
    } cases[] = {
        {1, "status", 0, "less than two frames"},
        {3, "status", 1, "more than two frames"},
        {40, "status", 1, "more than two frames"},
        {2, "statue", 1, "its name, 6 bytes long, is not one of messages.def"},
        {2, "", 1, "its name, 0 bytes long"},
        {2, "status", 0, "message status refused: it is cut off"},
        {2, "ping", 1, "message ping refused: field stream is missing"},
    };
    int count = sizeof cases / sizeof cases[0];
    for (int i = 0; i < count; i++) {
        const char *frames[40];
        size_t bytes[40];
        for (int k = 0; k < cases[i].count; k++) {
            frames[k] = k == 0 ? cases[i].name : valid;
            bytes[k] = k == 0 ? strlen(cases[i].name) : cases[i].valid_map ? map : 0;
        }
        raw_send(raw, cases[i].count, frames, bytes);
        peer.bytes = 0;
        CHECK_EQ(take(&router, &peer, &type, &m), -1);
        CHECK_HAS(e.text, cases[i].part);
        CHECK(peer.bytes == 4 && memcmp(peer.id, "rude", 4) == 0); /* so that it can be told */
        CHECK_EQ(router.malformed, (uint64_t)i + 1);
    }
    raw_send(raw, 2, (const char *[]){"status", valid}, (size_t[]){6, map});
    CHECK_EQ(take(&router, &peer, &type, &m), 1);
    CHECK_EQ(type, MSG_status);
    zmq_setsockopt(raw, ZMQ_LINGER, &(int){0}, sizeof(int));
    zmq_close(raw);
    zmq_ctx_term(context);
}

TEST(long_routing_ids_are_refused)
{
    struct link router;
    struct link_peer peer;
    enum msg_type type;
    union msg m;
    char id[LINK_PEER_BYTES_MAX + 1], valid[256];
    struct msg_status status = {0};
    size_t map = msg_encode(MSG_status, &status, valid, sizeof valid);
    sockets_make();
    CHECK_OK(link_open(&router, LINK_ROUTER, ".", "loader.ctl", NULL, &e), e);
    void *context = zmq_ctx_new();
    memset(id, 'i', sizeof id);
    for (size_t bytes = LINK_PEER_BYTES_MAX; bytes <= LINK_PEER_BYTES_MAX + 1; bytes++) {
        void *raw = zmq_socket(context, ZMQ_DEALER);
        CHECK(zmq_setsockopt(raw, ZMQ_ROUTING_ID, id, bytes) == 0);
        CHECK(zmq_connect(raw, "ipc://sockets/loader.ctl") == 0);
        raw_send(raw, 2, (const char *[]){"status", valid}, (size_t[]){6, map});
        CHECK_EQ(take(&router, &peer, &type, &m), bytes > LINK_PEER_BYTES_MAX ? -1 : 1);
        CHECK_EQ(peer.bytes, bytes > LINK_PEER_BYTES_MAX ? 0 : bytes);
        zmq_close(raw);
    }
    CHECK_HAS(e.text, "routing id of 65 bytes; at most 64");
    zmq_ctx_term(context);
}

TEST(huge_frames_cost_the_connection)
{
    struct link router, dealer;
    struct link_peer peer;
    enum msg_type type;
    union msg m;
    sockets_make();
    CHECK_OK(link_open(&router, LINK_ROUTER, ".", "loader.ctl", NULL, &e), e);
    void *context = zmq_ctx_new(), *raw = zmq_socket(context, ZMQ_DEALER);
    CHECK(zmq_connect(raw, "ipc://sockets/loader.ctl") == 0);
    char *huge = calloc(1, 1 << 20);
    CHECK(huge);
    raw_send(raw, 2, (const char *[]){"status", huge}, (size_t[]){6, 1 << 20});
    CHECK_OK(link_open(&dealer, LINK_DEALER, ".", "loader.ctl", "polite", &e), e);
    struct msg_status status = {0};
    CHECK_EQ(link_send(&dealer, NULL, MSG_status, &status), 0);
    CHECK_EQ(take(&router, &peer, &type, &m), 1);
    CHECK(peer.bytes == 6 && memcmp(peer.id, "polite", 6) == 0);
    CHECK_EQ(router.malformed, 0);
    free(huge);
    zmq_setsockopt(raw, ZMQ_LINGER, &(int){0}, sizeof(int));
    zmq_close(raw);
    zmq_ctx_term(context);
}

TEST(paths_have_a_limit)
{
    struct link l;
    char run[128] = {0};
    /* run + "/sockets/loader.ctl" (19 bytes); 107 in all is the limit */
    memset(run, 'r', sizeof run - 1);
    memcpy(run, "/tmp/", 5);
    run[107 - 19 + 1] = '\0';
    CHECK_EQ(link_open(&l, LINK_DEALER, run, "loader.ctl", "x", &e), -1);
    CHECK_HAS(e.text, "its path has 108 bytes, at most 107 are accepted");
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK(l.socket == NULL);
    link_close(&l);
    run[107 - 19] = '\0';
    CHECK_OK(link_open(&l, LINK_DEALER, run, "loader.ctl", "x", &e), e);
    link_close(&l);
    CHECK_EQ(link_open(&l, LINK_ROUTER, "absent", "loader.ctl", NULL, &e), -1);
    CHECK_HAS(e.text, "cannot bind ipc://./absent/sockets/loader.ctl: No such file or directory");
    CHECK(l.socket == NULL);
}

/* Publishes until `sub` has one message: subscriptions take a moment to arrive. */
static void publish_until_heard(struct link *pub, struct link *sub, enum msg_type type, void *m)
{
    double until = now_s() + PATIENCE_MS / 1000.0;
    struct link_poll_item item = {.link = sub};
    do {
        CHECK(now_s() < until);
        CHECK_EQ(link_send(pub, NULL, type, m), 0);
    } while (link_poll(&item, 1, 5) == 0);
}

TEST(topics_are_prefixes)
{
    struct link pub, sub;
    enum msg_type type;
    union msg m;
    struct msg_trainer_step step = {.task = "A", .step = 3};
    struct msg_loader_span span = {.rows = 9};
    sockets_make();
    CHECK_OK(link_open(&pub, LINK_PUB, ".", "trainer.pub", NULL, &e), e);
    CHECK_OK(link_open(&sub, LINK_SUB, ".", "trainer.pub", NULL, &e), e);
    CHECK_OK(link_subscribe(&sub, "trainer.", &e), e);
    publish_until_heard(&pub, &sub, MSG_trainer_step, &step);
    for (int i = 0; i < 10; i++)
        CHECK_EQ(link_send(&pub, NULL, MSG_loader_span, &span), 0);
    CHECK_EQ(link_send(&pub, NULL, MSG_trainer_step, &step), 0);
    uint64_t last = pub.seq[MSG_trainer_step], seen;
    do {
        CHECK_EQ(take(&sub, NULL, &type, &m), 1);
        CHECK_EQ(type, MSG_trainer_step);
        CHECK_STR(m.trainer_step.task, "A");
        seen = m.head.seq;
    } while (seen != last);
}

TEST(forwarding_keeps_the_bytes)
{
    struct link pub, middle, xpub, sub;
    enum msg_type type;
    union msg m;
    struct msg_trainer_step step = {.task = "A", .loss = 0.25};
    sockets_make();
    link_incarnation_set(9);
    CHECK_OK(link_open(&pub, LINK_PUB, ".", "trainer.pub", NULL, &e), e);
    CHECK_OK(link_open(&middle, LINK_SUB, ".", "trainer.pub", NULL, &e), e);
    CHECK_OK(link_subscribe(&middle, "", &e), e);
    CHECK_OK(link_open(&xpub, LINK_XPUB, ".", "monitor.pub", NULL, &e), e);
    CHECK_OK(link_open(&sub, LINK_SUB, ".", "monitor.pub", NULL, &e), e);
    CHECK_OK(link_subscribe(&sub, "trainer.step", &e), e);
    struct link_poll_item item = {.link = &sub};
    double until = now_s() + PATIENCE_MS / 1000.0;
    uint64_t forwarded = 0;
    do {
        CHECK(now_s() < until);
        publish_until_heard(&pub, &middle, MSG_trainer_step, &step);
        link_incarnation_set(10); /* the forwarder's own number must not appear */
        CHECK_EQ(link_forward(&middle, &xpub, &type, &m, &e), 1);
        CHECK_EQ(type, MSG_trainer_step);
        CHECK(m.trainer_step.loss == 0.25);
        link_incarnation_set(9);
        forwarded = m.head.seq;
    } while (link_poll(&item, 1, 5) == 0);
    do { /* where the machine is busy, those before it, too */
        CHECK_EQ(take(&sub, NULL, &type, &m), 1);
        CHECK_EQ(m.head.incarnation, 9);
        CHECK(m.head.seq <= forwarded);
    } while (m.head.seq < forwarded);

    struct link_poll_item xpub_item = {.link = &xpub}; /* subscriptions wake a loop once at most */
    link_recv(&xpub, NULL, &type, &m, &e);
    CHECK_EQ(link_poll(&xpub_item, 1, 0), 0);

    /* xpub may also speak itself (monitord's samples). */
    struct msg_memory_sample sample = {.stage = "system"};
    CHECK_OK(link_subscribe(&sub, "memory.", &e), e);
    publish_until_heard(&xpub, &sub, MSG_memory_sample, &sample);
    CHECK_EQ(link_recv(&sub, NULL, &type, &m, &e), 1);
    CHECK_EQ(type, MSG_memory_sample);
}

TEST(forwarding_refuses_malformed)
{
    struct link middle, xpub;
    enum msg_type type;
    union msg m;
    sockets_make();
    void *context = zmq_ctx_new(), *raw = zmq_socket(context, ZMQ_XPUB);
    CHECK(zmq_bind(raw, "ipc://sockets/trainer.pub") == 0);
    CHECK_OK(link_open(&middle, LINK_SUB, ".", "trainer.pub", NULL, &e), e);
    CHECK_OK(link_subscribe(&middle, "", &e), e);
    CHECK_OK(link_open(&xpub, LINK_XPUB, ".", "monitor.pub", NULL, &e), e);
    char joined[2];
    CHECK_EQ(zmq_recv(raw, joined, sizeof joined, 0), 1); /* the subscription has arrived */
    raw_send(raw, 2, (const char *[]){"trainer.step", "\xdd\xff\xff\xff\xff"}, (size_t[]){12, 5});
    struct link_poll_item item = {.link = &middle};
    CHECK_EQ(link_poll(&item, 1, PATIENCE_MS), 1);
    CHECK_EQ(link_forward(&middle, &xpub, &type, &m, &e), -1);
    CHECK_HAS(e.text, "message trainer.step refused");
    CHECK_EQ(middle.malformed, 1);
    CHECK_EQ(link_forward(&middle, &xpub, &type, &m, &e), 0);
    zmq_close(raw);
    zmq_ctx_term(context);
}

/* A subscriber that says through `told` when it hears, then sleeps for ever. */
static void subscriber_run(int told)
{
    struct link sub;
    struct link_poll_item item = {.link = &sub};
    if (link_open(&sub, LINK_SUB, ".", "trainer.pub", NULL, &e) < 0 ||
        link_subscribe(&sub, "", &e) < 0 || link_poll(&item, 1, PATIENCE_MS) != 1 ||
        write(told, "x", 1) != 1)
        _exit(1);
    for (;;)
        pause();
}

TEST(publishing_never_blocks)
{
    struct link pub;
    int told[2];
    struct msg_event_stage event = {.stage = "trainerd"};
    memset(event.sentence, 'x', sizeof event.sentence - 1);
    sockets_make();
    CHECK(pipe(told) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        subscriber_run(told[1]);
    CHECK_OK(link_open(&pub, LINK_PUB, ".", "trainer.pub", NULL, &e), e);
    struct link_poll_item item = {.fd = told[0]};
    double until = now_s() + PATIENCE_MS / 1000.0;
    do {
        CHECK(now_s() < until);
        CHECK_EQ(link_send(&pub, NULL, MSG_event_stage, &event), 0);
    } while (link_poll(&item, 1, 5) == 0);
    CHECK(kill(pid, SIGSTOP) == 0);
    double began = now_s();
    for (int i = 0; i < 20 * LINK_QUEUE_MAX; i++) /* 16 MB: far more than every queue holds */
        CHECK_EQ(link_send(&pub, NULL, MSG_event_stage, &event), 0);
    CHECK(now_s() - began < 5);
    CHECK(kill(pid, SIGKILL) == 0);
    waitpid(pid, NULL, 0);
    link_close(&pub);
    link_shutdown();
}

static void on_alarm(int signal)
{
    (void)signal;
}

TEST(polling_mixes_links_and_descriptors)
{
    struct link router, dealer, closed = {0};
    int ends[2];
    sockets_make();
    CHECK(pipe(ends) == 0);
    CHECK_OK(link_open(&router, LINK_ROUTER, ".", "loader.ctl", NULL, &e), e);
    CHECK_OK(link_open(&dealer, LINK_DEALER, ".", "loader.ctl", "x", &e), e);
    struct link_poll_item items[3] = {{.link = &router}, {.fd = ends[0]}, {.link = &closed}};
    CHECK_EQ(link_poll(items, 3, 0), 0);
    CHECK_EQ(link_poll(NULL, 0, 1), 0);

    CHECK(write(ends[1], "x", 1) == 1);
    CHECK_EQ(link_poll(items, 3, PATIENCE_MS), 1);
    CHECK(!items[0].ready && items[1].ready && !items[2].ready);
    char byte;
    CHECK(read(ends[0], &byte, 1) == 1);

    struct msg_status status = {0};
    CHECK_EQ(link_send(&dealer, NULL, MSG_status, &status), 0);
    CHECK_EQ(link_poll(items, 3, PATIENCE_MS), 1);
    CHECK(items[0].ready && !items[1].ready);
    close(ends[1]); /* hang-up */
    CHECK_EQ(link_poll(items, 3, PATIENCE_MS), 2);
    CHECK(items[1].ready);

    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval soon = {.it_value = {0, 20000}};
    struct link_poll_item quiet = {.link = &dealer};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    CHECK_EQ(link_poll(&quiet, 1, PATIENCE_MS), 0); /* a signal ends the wait */
    CHECK(!quiet.ready);
}
