/* test_daemon.c - The skeleton, with a small stage of its own in a forked child: start, control,
 * stop, refusals, hangs. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "proto/daemon.h"
#include "proto/daemon_mark.h"
#include "proto/durable.h"
#include "tests/test.h"

static struct err e;

/* ---- a stage ------------------------------------------------------------------------------------
 */

enum { DEADLINE_S = 1 };
enum behaviour { WORKS, FAILS_AT_START, FAILS_LATER, FINISHES, HANGS, WORKS_IN_PIECES };

struct toy {
    enum behaviour behaviour;
    int turns, stopped;
};

static int toy_start(void *self, struct daemon *d, struct err *err)
{
    struct toy *t = self;
    snprintf(d->doing, sizeof d->doing, "playing with seed %llu",
             (unsigned long long)d->options.seed);
    if (t->behaviour == FAILS_AT_START)
        return err_set(err, EXIT_CODE_PERMANENT, "the toy is broken");
    return 0;
}

static int toy_turn(void *self, struct daemon *d, int *sleep_ms, struct err *err)
{
    struct toy *t = self;
    *sleep_ms = 50;
    if (++t->turns < 3)
        return DAEMON_GO_ON;
    switch (t->behaviour) {
    case FAILS_LATER:
        return err_set(err, EXIT_CODE_TEMPORARY, "the toy has a hiccup");
    case FINISHES:
        snprintf(d->sentence, sizeof d->sentence, "played enough");
        return DAEMON_FINISHED;
    case HANGS:
        for (;;)
            pause();
    case WORKS_IN_PIECES:
        for (int i = 0; i < 3; i++) {
            usleep(DEADLINE_S * 600 * 1000);
            daemon_piece_done(d);
        }
        return DAEMON_FINISHED;
    default:
        return DAEMON_GO_ON;
    }
}

static int toy_request(void *self, struct daemon *d, const struct link_peer *peer,
                       enum msg_type type, const union msg *m)
{
    struct msg_pong pong = {.stream = m->ping.stream, .known = 1};
    (void)self;
    if (type != MSG_ping)
        return 0;
    daemon_reply(d, peer, MSG_pong, &pong);
    return 1;
}

static void toy_stop(void *self, struct daemon *d)
{
    struct toy *t = self;
    struct err err;
    (void)d;
    t->stopped = 1;
    ensure(durable_write("stopped", "", 0, &err) == 0);
}

static const struct daemon_spec spec = {
    .stage = "loaderd",
    .purpose = "plays",
    .example = "loaderd --run runs/fashion",
    .deadline_s = DEADLINE_S,
    .start = toy_start,
    .turn = toy_turn,
    .request = toy_request,
    .stop = toy_stop,
};

/* ---- starting it --------------------------------------------------------------------------------
 */

static void run_dir_make(void)
{
    static struct options o;
    static const char text[] =
        "seed: 42\ndata: {file: /x.h5}\nmodel: {layers: [{type: relu}]}\ntasks: [{name: A}]\n";
    CHECK_OK(durable_write("p.yaml", text, sizeof text - 1, &e), e);
    CHECK_OK(options_read(&o, "p.yaml", NULL, 0, &e), e);
    CHECK_OK(run_prepare("r", &o, &e), e);
    options_free(&o);
}

struct stage {
    pid_t pid;
    int ready; /* read end of the notification pipe, -1 when by hand */
    int log;
};

static struct stage toy_run(enum behaviour behaviour, int supervised)
{
    struct stage s = {.ready = -1};
    int ready[2], output[2];
    CHECK(pipe(ready) == 0 && pipe(output) == 0);
    s.pid = fork();
    CHECK(s.pid >= 0);
    if (s.pid == 0) {
        static struct toy toy;
        char number[16], *argv[] = {"loaderd", "--run", "r", NULL};
        toy.behaviour = behaviour;
        snprintf(number, sizeof number, "%d", ready[1]);
        supervised ? setenv("FINETUNED_READY_FD", number, 1) : unsetenv("FINETUNED_READY_FD");
        setenv("FINETUNED_LAUNCH", "5", 1);
        signal(SIGINT, SIG_IGN); /* as a shell's & leaves it */
        close(ready[0]);
        dup2(output[1], STDERR_FILENO);
        exit(daemon_run(3, argv, &spec, &toy));
    }
    close(ready[1]);
    close(output[1]);
    s.log = output[0];
    if (supervised)
        s.ready = ready[0];
    else
        close(ready[0]);
    return s;
}

static void ready_wait(struct stage *s)
{
    char byte;
    CHECK(read(s->ready, &byte, 1) == 1);
    CHECK_EQ(byte, '\n');
    CHECK(read(s->ready, &byte, 1) == 0); /* closed */
}

/* Exit status; its log is in log_text. */
static char log_text[8192];

static int end_wait(struct stage *s)
{
    int status;
    size_t used = 0;
    ssize_t n;
    while ((n = read(s->log, log_text + used, sizeof log_text - 1 - used)) > 0)
        used += (size_t)n;
    log_text[used] = '\0';
    CHECK(waitpid(s->pid, &status, 0) == s->pid);
    close(s->log);
    if (s->ready >= 0)
        close(s->ready);
    return status;
}

static void exits_with(struct stage *s, int code)
{
    int status = end_wait(s);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code)
        test_fail(__FILE__, __LINE__, "status %x instead of exit code %d: %s", status, code,
                  log_text);
}

static void exit_file_is(const char *text)
{
    char *data;
    size_t bytes;
    CHECK_OK(durable_read("r/exits/loaderd", 4096, &data, &bytes, &e), e);
    CHECK_STR(data, text);
    free(data);
}

struct facts {
    int count, marks;
    char what[16][17], mark[81]; /* the last one */
    uint64_t code, incarnation;
};

static int fact_see(void *self, enum msg_type type, const union msg *m)
{
    struct facts *f = self;
    if (type == MSG_event_mark) {
        CHECK_STR(m->event_mark.stage, "loaderd");
        strcpy(f->mark, m->event_mark.text);
        f->marks++;
        return 0;
    }
    CHECK_EQ(type, MSG_event_stage);
    CHECK_EQ(m->event_stage.launch, 5);
    CHECK_STR(m->event_stage.stage, "loaderd");
    strcpy(f->what[f->count++], m->event_stage.what);
    f->code = m->event_stage.code;
    f->incarnation = m->head.incarnation;
    return 0;
}

static struct facts facts_read(void)
{
    struct facts f = {0};
    CHECK_OK(journal_read("r/journals/loaderd", fact_see, &f, &e), e);
    return f;
}

/* ---- talking to it ------------------------------------------------------------------------------
 */

static void ask(struct link *dealer, enum msg_type type, void *m, enum msg_type *answer,
                union msg *out)
{
    CHECK_EQ(link_send(dealer, NULL, type, m), 0);
    struct link_poll_item item = {.link = dealer};
    for (int got = 0; !got;) {
        CHECK(link_poll(&item, 1, 10000) == 1);
        got = link_recv(dealer, NULL, answer, out, &e);
        CHECK(got >= 0);
    }
}

TEST(daemon_answers_status_and_stops)
{
    static union msg m;
    enum msg_type answer;
    struct link dealer;
    struct msg_status status = {0};
    struct msg_ping ping = {.stream = 9};
    struct msg_checkpoint checkpoint = {0};
    struct msg_stop stop = {0};
    run_dir_make();
    struct stage s = toy_run(WORKS, 1);
    ready_wait(&s);
    CHECK_OK(link_open(&dealer, LINK_DEALER, "r", "loader.ctl", "test-1", &e), e);

    ask(&dealer, MSG_status, &status, &answer, &m);
    CHECK_EQ(answer, MSG_status_is);
    CHECK_STR(m.status_is.stage, "loaderd");
    CHECK_EQ(m.status_is.pid, s.pid);
    CHECK_STR(m.status_is.doing, "playing with seed 42");
    CHECK_EQ(m.head.incarnation, 1);
    ask(&dealer, MSG_ping, &ping, &answer, &m);
    CHECK_EQ(answer, MSG_pong);
    CHECK_EQ(m.pong.stream, 9);
    ask(&dealer, MSG_checkpoint, &checkpoint, &answer, &m);
    CHECK_EQ(answer, MSG_unknown);
    CHECK_STR(m.unknown.reason, "loaderd does not answer checkpoint");
    ask(&dealer, MSG_stop, &stop, &answer, &m);
    CHECK_EQ(answer, MSG_done);
    CHECK_STR(m.done.verb, "stop");
    exits_with(&s, EXIT_CODE_TEMPORARY);
    exit_file_is("111 stopped by a stop message\n");
    CHECK(access("r/stopped", F_OK) == 0);
    link_close(&dealer);
    link_shutdown();

    struct facts f = facts_read();
    CHECK_EQ(f.count, 3);
    CHECK_STR(f.what[0], "start");
    CHECK_STR(f.what[1], "ready");
    CHECK_STR(f.what[2], "stop");
    CHECK_EQ(f.code, EXIT_CODE_TEMPORARY);
}

static enum msg_type mark(struct link *dealer, const char *text, union msg *m)
{
    struct msg_mark request = {0};
    enum msg_type answer;
    MSG_STR(request.text, text);
    ask(dealer, MSG_mark, &request, &answer, m);
    return answer;
}

/* Longer than any may be: the codec here would refuse to send it. */
static void mark_too_long(struct link *dealer, union msg *m)
{
    char map[256] = "\x84\xa4text\xd9\x51", *at = map + 8; /* 81 bytes */
    struct link_poll_item item = {.link = dealer};
    enum msg_type answer;
    memset(at, 'x', 81);
    memcpy(at + 81, "\xabincarnation\x01\xa3seq\x01\xa6time_s\x01", 26);
    CHECK(zmq_send(dealer->socket, "mark", 4, ZMQ_SNDMORE) == 4 &&
          zmq_send(dealer->socket, map, 8 + 81 + 26, 0) == 8 + 81 + 26);
    CHECK(link_poll(&item, 1, 10000) == 1 && link_recv(dealer, NULL, &answer, m, &e) == 1);
    CHECK_EQ(answer, MSG_unknown);
}

TEST(daemon_takes_marks_into_its_journal)
{
    static union msg m;
    struct link dealer;
    run_dir_make();
    struct stage s = toy_run(WORKS, 1);
    ready_wait(&s);
    CHECK_OK(link_open(&dealer, LINK_DEALER, "r", "loader.ctl", "test-4", &e), e);
    CHECK_EQ(mark(&dealer, "gr\303\266\303\237er: \"1\"", &m), MSG_done);
    CHECK_STR(m.done.verb, "mark");
    CHECK_EQ(mark(&dealer, "", &m), MSG_unknown);
    CHECK_STR(m.unknown.reason, "the text of a mark has 0 bytes; 1 to 80 are accepted");
    CHECK_EQ(mark(&dealer, "ab\033[2J", &m), MSG_unknown);
    CHECK_STR(m.unknown.reason, "the text of a mark has a control character at byte 2; printable "
                                "UTF-8 is accepted");
    CHECK_EQ(mark(&dealer, "a\302\233", &m), MSG_unknown);
    mark_too_long(&dealer, &m);
    CHECK_STR(m.unknown.reason,
              "message mark refused: field text has 81 bytes; at most 80 are accepted");
    CHECK_STR(facts_read().mark, "gr\303\266\303\237er: \"1\"");
    for (int i = 1; i < DAEMON_MARKS_MAX; i++)
        CHECK_EQ(mark(&dealer, "again", &m), MSG_done);
    CHECK_EQ(mark(&dealer, "again", &m), MSG_unknown);
    CHECK_HAS(m.unknown.reason, "loaderd has taken 1000 marks since it was started");
    CHECK_EQ(facts_read().marks, DAEMON_MARKS_MAX);
    kill(s.pid, SIGTERM);
    exits_with(&s, EXIT_CODE_TEMPORARY);
    link_close(&dealer);
    link_shutdown();
}

/* Nobody's mark is worth a stage. */
TEST(daemon_goes_on_when_a_mark_cannot_be_written)
{
    static union msg m;
    struct link dealer;
    run_dir_make();
    setenv("FINETUNED_FAIL", "write:4:ENOSPC:once", 1); /* behind incarnation, start, ready */
    struct stage s = toy_run(WORKS, 1);
    ready_wait(&s);
    CHECK_OK(link_open(&dealer, LINK_DEALER, "r", "loader.ctl", "test-5", &e), e);
    CHECK_EQ(mark(&dealer, "lost", &m), MSG_unknown);
    CHECK_HAS(m.unknown.reason, "the mark is not taken: cannot write");
    CHECK_HAS(m.unknown.reason, "No space left on device");
    CHECK_EQ(mark(&dealer, "kept", &m), MSG_done);
    CHECK_EQ(facts_read().marks, 1);
    CHECK_STR(facts_read().mark, "kept");
    kill(s.pid, SIGTERM);
    exits_with(&s, EXIT_CODE_TEMPORARY);
    link_close(&dealer);
    link_shutdown();
}

TEST(daemon_stops_at_signals_even_if_ignored_before)
{
    static const int signals[] = {SIGTERM, SIGINT};
    run_dir_make();
    for (int i = 0; i < 2; i++) {
        struct stage s = toy_run(WORKS, 1);
        ready_wait(&s);
        CHECK(access("r/exits/loaderd", F_OK) < 0); /* the last start's is gone */
        kill(s.pid, signals[i]);
        exits_with(&s, EXIT_CODE_TEMPORARY);
        exit_file_is(i ? "111 stopped by SIGINT\n" : "111 stopped by SIGTERM\n");
        CHECK_EQ(facts_read().incarnation, i + 1);
    }
}

TEST(daemon_that_finishes_exits_0)
{
    run_dir_make();
    struct stage s = toy_run(FINISHES, 0);
    exits_with(&s, EXIT_CODE_DONE);
    exit_file_is("0 played enough\n");
    CHECK_HAS(log_text, "loaderd info code=0 played enough");
}

TEST(daemon_that_fails_says_why)
{
    run_dir_make();
    struct stage s = toy_run(FAILS_LATER, 1);
    exits_with(&s, EXIT_CODE_TEMPORARY);
    exit_file_is("111 the toy has a hiccup\n");
    CHECK(access("r/stopped", F_OK) == 0);
    CHECK_STR(facts_read().what[2], "fail");
    CHECK(unlink("r/stopped") == 0);

    s = toy_run(FAILS_AT_START, 1);
    exits_with(&s, EXIT_CODE_PERMANENT);
    exit_file_is("100 the toy is broken\n");
    CHECK(access("r/stopped", F_OK) < 0);
    CHECK_HAS(log_text, "loaderd error code=100 the toy is broken");
    struct facts f = facts_read();
    CHECK_EQ(f.count, 5);
    CHECK_STR(f.what[4], "fail");
    CHECK_EQ(f.code, 100);
}

TEST(daemon_that_hangs_ends_itself)
{
    run_dir_make();
    struct stage s = toy_run(HANGS, 1);
    int status = end_wait(&s);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM);
    CHECK_HAS(log_text, "a turn took longer than its deadline");
    CHECK(access("r/exits/loaderd", F_OK) < 0);
    s = toy_run(FINISHES, 1); /* nothing is left that would keep the next one out */
    exits_with(&s, EXIT_CODE_DONE);
}

/* Together longer than a turn may take. */
TEST(daemon_whose_turn_has_pieces_has_the_deadline_for_each)
{
    run_dir_make();
    struct stage s = toy_run(WORKS_IN_PIECES, 1);
    exits_with(&s, EXIT_CODE_DONE);
}

TEST(daemon_second_instance_is_refused)
{
    char holder[64];
    run_dir_make();
    struct stage first = toy_run(WORKS, 1);
    ready_wait(&first);
    struct stage by_hand = toy_run(WORKS, 0), supervised = toy_run(WORKS, 1);
    snprintf(holder, sizeof holder, "process %d is the loaderd of this run already",
             (int)first.pid);
    exits_with(&by_hand, EXIT_CODE_PERMANENT);
    CHECK_HAS(log_text, holder);
    exits_with(&supervised, EXIT_CODE_TEMPORARY);
    CHECK_HAS(log_text, holder);
    kill(first.pid, SIGTERM);
    exits_with(&first, EXIT_CODE_TEMPORARY);
}

TEST(daemon_without_a_run_says_so)
{
    struct stage s = toy_run(WORKS, 0);
    exits_with(&s, EXIT_CODE_PERMANENT);
    CHECK_HAS(log_text, "cannot enter the run directory r: No such file");
    run_dir_make();
    CHECK_OK(durable_write("r/pipeline.yaml", "sed: 1\n", 7, &e), e);
    s = toy_run(WORKS, 1);
    exits_with(&s, EXIT_CODE_PERMANENT);
    exit_file_is("100 pipeline.yaml:1: unknown option sed; the nearest is seed\n");
}

TEST(daemon_dies_with_its_supervisor)
{
    run_dir_make();
    int output[2];
    char byte;
    CHECK(pipe(output) == 0);
    pid_t supervisor = fork();
    if (supervisor == 0) {
        struct stage s = toy_run(WORKS, 1);
        ready_wait(&s);
        if (write(output[1], "x", 1) != 1)
            _exit(1);
        pause();
    }
    CHECK(read(output[0], &byte, 1) == 1);
    CHECK(chdir("r") == 0);
    pid_t stage = run_lock_holder("loaderd");
    CHECK(stage > 0);
    kill(supervisor, SIGKILL);
    waitpid(supervisor, NULL, 0);
    struct run_lock lock;
    CHECK_OK(run_lock_take(&lock, "loaderd", 10000, &e), e); /* free once the stage is dead */
    CHECK_EQ(lock.incarnation, 2);
    run_lock_drop(&lock);
}

/* Frames that are no message: counted, logged once, answered, survived. */
TEST(daemon_survives_malformed_requests)
{
    static union msg m;
    enum msg_type answer;
    struct link dealer;
    struct msg_status status = {0};
    run_dir_make();
    struct stage s = toy_run(WORKS, 1);
    ready_wait(&s);
    CHECK_OK(link_open(&dealer, LINK_DEALER, "r", "loader.ctl", "test-3", &e), e);
    for (int i = 0; i < 100; i++)
        CHECK(zmq_send(dealer.socket, "status", 6, ZMQ_SNDMORE) == 6 &&
              zmq_send(dealer.socket, "\xdf\xff\xff\xff\xff", 5, 0) == 5);
    int refused = 0;
    CHECK_EQ(link_send(&dealer, NULL, MSG_status, &status), 0);
    struct link_poll_item item = {.link = &dealer};
    do {
        CHECK(link_poll(&item, 1, 10000) == 1);
        CHECK(link_recv(&dealer, NULL, &answer, &m, &e) == 1);
        refused += answer == MSG_unknown;
    } while (answer == MSG_unknown);
    CHECK_EQ(answer, MSG_status_is);
    CHECK_EQ(refused, 100);
    kill(s.pid, SIGTERM);
    exits_with(&s, EXIT_CODE_TEMPORARY);
    const char *line = strstr(log_text, "A control message is refused");
    CHECK(line && !strstr(line + 1, "A control message is refused"));
    link_close(&dealer);
    link_shutdown();
}

TEST(daemon_publishes_facts)
{
    static union msg m;
    enum msg_type type;
    struct link sub;
    run_dir_make();
    struct stage s = toy_run(WORKS, 1);
    ready_wait(&s);
    CHECK_OK(link_open(&sub, LINK_SUB, "r", "loader.pub", NULL, &e), e);
    CHECK_OK(link_subscribe(&sub, "event.", &e), e);
    /* The subscription may arrive after `start` and `ready`; the fact of the end is always seen. */
    struct link dealer;
    struct msg_status status = {0};
    enum msg_type answer;
    CHECK_OK(link_open(&dealer, LINK_DEALER, "r", "loader.ctl", "test-2", &e), e);
    struct link_poll_item item = {.link = &sub};
    for (int i = 0; i < 40; i++) { /* time for it, without a sleep */
        ask(&dealer, MSG_status, &status, &answer, &m);
        link_poll(&item, 1, 10);
    }
    kill(s.pid, SIGTERM);
    exits_with(&s, EXIT_CODE_TEMPORARY);
    int seen = 0;
    while (link_poll(&item, 1, 2000) == 1 && link_recv(&sub, NULL, &type, &m, &e) == 1) {
        CHECK_EQ(type, MSG_event_stage);
        if (strcmp(m.event_stage.what, "stop") == 0) {
            CHECK_EQ(m.event_stage.code, EXIT_CODE_TEMPORARY);
            seen = 1;
            break;
        }
    }
    CHECK(seen);
    link_close(&sub);
    link_close(&dealer);
    link_shutdown();
}

static int daemon_run_captured(int argc, char **argv, char *text, size_t bytes)
{
    static struct toy toy;
    int saved[2] = {dup(1), dup(2)};
    FILE *f = tmpfile();
    fflush(stdout);
    dup2(fileno(f), 1);
    dup2(fileno(f), 2);
    int code = daemon_run(argc, argv, &spec, &toy);
    fflush(stdout);
    dup2(saved[0], 1);
    dup2(saved[1], 2);
    rewind(f);
    text[fread(text, 1, bytes - 1, f)] = '\0';
    fclose(f);
    return code;
}

TEST(daemon_help_and_arguments)
{
    static char text[65536];
    char *help[] = {"loaderd", "--help", NULL}, *version[] = {"loaderd", "--version", NULL};
    char *none[] = {"loaderd", NULL}, *odd[] = {"loaderd", "--run", "r", "--frob", NULL};
    CHECK_EQ(daemon_run_captured(2, help, text, sizeof text), EXIT_CODE_DONE);
    CHECK_HAS(text, "loaderd - plays");
    CHECK_HAS(text, "--run DIR");
    CHECK_HAS(text, "training.batch_size = 128");
    CHECK_HAS(text, "example: loaderd --run runs/fashion");
    CHECK_EQ(daemon_run_captured(2, version, text, sizeof text), EXIT_CODE_DONE);
    CHECK_STR(text, "loaderd " FINETUNED_VERSION "\n");
    CHECK_EQ(daemon_run_captured(1, none, text, sizeof text), EXIT_CODE_PERMANENT);
    CHECK_HAS(text, "--run DIR is missing");
    CHECK_EQ(daemon_run_captured(4, odd, text, sizeof text), EXIT_CODE_PERMANENT);
    CHECK_HAS(text, "argument \"--frob\" is unknown");
}
