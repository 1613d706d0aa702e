/* daemon.c - the one skeleton of every stage. See daemon.h.
 *
 *   main -> daemon_run: skeleton_open (directory, options, lock, journal, links, start, ready)
 *                       skeleton_loop (turn, answer, wait)
 *                       skeleton_end  (stop, last fact, exits/<stage>, everything closed)
 *
 * What a kill leaves: the lock and the sockets' owners vanish with the process; a torn journal
 * record is cut at the next open; exits/<stage> is absent, since it was removed at the start.
 */
#include "proto/daemon.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "proto/daemon_base.h"
#include "proto/daemon_mark.h"
#include "proto/daemon_process.h"
#include "proto/durable.h"
#include "proto/log.h"

enum {
    LOCK_WAIT_MS = 5000, /* a stage that was just killed may still hold its lock */
    START_DEADLINE_S = 120,
    WAIT_MS_MAX = 1000,       /* the loop turns at least this often */
    REQUESTS_MAX = 64,        /* control messages answered between two turns */
    RAISE_INTERVAL_MS = 100,  /* of the high-water page */
    MALFORMED_INTERVAL_S = 10 /* between two log lines about malformed control messages */
};

struct skeleton {
    struct daemon *d;
    const struct daemon_spec *spec;
    void *self;
    int signal_fd, ready_fd;
    int entered; /* we stand in the run's directory */
    int started; /* spec->start succeeded */
    const char *stop_cause;
    double raised_s, malformed_logged_s;
};

double clock_monotonic_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

double clock_unix_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ---- what stages call ---------------------------------------------------------------------------
 */

void daemon_publish(struct daemon *d, enum msg_type type, void *m)
{
    link_send(&d->pub, NULL, type, m); /* PUB never refuses */
}

int daemon_fact(struct daemon *d, enum msg_type type, void *m, struct err *e)
{
    struct msg_head *head = m;
    *head = (struct msg_head){d->lock.incarnation, d->pub.seq[type] + 1, clock_unix_s()};
    if (journal_append(&d->journal, type, m, e) < 0) {
        if (e)
            e->code = EXIT_CODE_TEMPORARY;
        return -1;
    }
    daemon_publish(d, type, m);
    return 0;
}

void daemon_reply(struct daemon *d, const struct link_peer *peer, enum msg_type type, void *m)
{
    link_send(&d->ctl, peer, type, m); /* a peer that is gone needs no answer */
}

/* ---- open ---------------------------------------------------------------------------------------
 */

static uint64_t launch_number(void)
{
    const char *text = getenv("FINETUNED_LAUNCH");
    return text ? strtoull(text, NULL, 10) : 0;
}

static int stage_fact(struct skeleton *s, const char *what, int code, const char *sentence,
                      struct err *e)
{
    struct msg_event_stage m = {.pid = (uint64_t)getpid(), .launch = launch_number()};
    m.code = (uint64_t)code;
    MSG_STR(m.stage, s->spec->stage);
    MSG_STR(m.what, what);
    MSG_STR(m.sentence, sentence);
    return daemon_fact(s->d, MSG_event_stage, &m, e);
}

static int directory_enter(struct skeleton *s, const char *run, struct err *e)
{
    char absolute[PATH_MAX];
    if (!realpath(run, absolute) || chdir(absolute) < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot enter the run directory %.300s", run);
    if (strlen(absolute) >= sizeof s->d->run)
        return err_set(e, EXIT_CODE_PERMANENT, "the run directory's name is too long");
    strcpy(s->d->run, absolute);
    s->entered = 1;
    return 0;
}

static int lock_take(struct skeleton *s, struct err *e)
{
    char path[128];
    if (run_lock_take(&s->d->lock, s->spec->stage, LOCK_WAIT_MS, e) < 0) {
        /* by hand nobody tries again; a full disk is temporary for everybody */
        if (!s->d->supervised && run_lock_holder(s->spec->stage) > 0)
            e->code = EXIT_CODE_PERMANENT;
        return -1;
    }
    link_incarnation_set(s->d->lock.incarnation);
    snprintf(path, sizeof path, "exits/%s", s->spec->stage);
    if (unlink(path) < 0 && errno != ENOENT)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot remove the old %s", path);
    return 0;
}

/* <stage without its d>.ctl and .pub. The lock is held, so nobody else's sockets are stolen. */
static int links_open(struct skeleton *s, struct err *e)
{
    const char *stage = s->spec->stage;
    int length = (int)strlen(stage) - 1;
    char name[64];
    ensure(length > 0 && length < 32 && stage[length] == 'd');
    /* monitord passes on frames that other stages have encoded. */
    enum link_kind kind = strcmp(stage, "monitord") == 0 ? LINK_XPUB : LINK_PUB;
    snprintf(name, sizeof name, "%.*s.pub", length, stage);
    if (link_open(&s->d->pub, kind, ".", name, NULL, e) < 0)
        return -1;
    snprintf(name, sizeof name, "%.*s.ctl", length, stage);
    return link_open(&s->d->ctl, LINK_ROUTER, ".", name, NULL, e);
}

void daemon_piece_done(const struct daemon *d)
{
    if (d->deadline_s)
        alarm((unsigned)d->deadline_s);
}

static int stage_start(struct skeleton *s, struct err *e)
{
    char sentence[80];
    snprintf(sentence, sizeof sentence, "start %llu of this run",
             (unsigned long long)s->d->lock.incarnation);
    if (stage_fact(s, "start", 0, sentence, e) < 0)
        return -1;
    snprintf(s->d->doing, sizeof s->d->doing, "starting");
    alarm(START_DEADLINE_S);
    if (s->spec->start(s->self, s->d, e) < 0)
        return -1;
    s->started = 1;
    alarm((unsigned)s->spec->deadline_s);
    if (stage_fact(s, "ready", 0, "ready", e) < 0)
        return -1;
    log_info("incarnation=%llu pid=%d The stage is ready.",
             (unsigned long long)s->d->lock.incarnation, (int)getpid());
    return process_ready(&s->ready_fd, e);
}

static int skeleton_open(struct skeleton *s, const char *run, struct err *e)
{
    struct daemon *d = s->d;
    if (process_signals(&s->signal_fd, e) < 0 || process_supervised(&s->ready_fd, e) < 0)
        return -1;
    d->supervised = s->ready_fd >= 0;
    if (directory_enter(s, run, e) < 0 ||
        options_read(&d->options, "pipeline.yaml", NULL, 0, e) < 0 ||
        durable_fail_after(getenv("FINETUNED_FAIL"), e) < 0 || lock_take(s, e) < 0 ||
        journal_open(&d->journal, s->spec->stage, e) < 0 ||
        highwater_open(&d->highwater, s->spec->stage, e) < 0 || links_open(s, e) < 0)
        return -1;
    return stage_start(s, e);
}

/* ---- loop ---------------------------------------------------------------------------------------
 */

static void status_reply(struct skeleton *s, const struct link_peer *peer)
{
    struct msg_status_is m = {.pid = (uint64_t)getpid()};
    m.uptime_s = clock_monotonic_s() - s->d->started_s;
    MSG_STR(m.stage, s->spec->stage);
    MSG_STR(m.doing, s->d->doing);
    daemon_reply(s->d, peer, MSG_status_is, &m);
}

static void unknown_reply(struct skeleton *s, const struct link_peer *peer, const char *reason)
{
    struct msg_unknown m = {0};
    MSG_STR(m.reason, reason);
    daemon_reply(s->d, peer, MSG_unknown, &m);
}

static void mark_reply(struct skeleton *s, const struct link_peer *peer, const char *text)
{
    struct msg_done done = {0};
    struct err why;
    MSG_STR(done.verb, msg_name(MSG_mark));
    if (daemon_mark(s->d, text, &why) < 0)
        unknown_reply(s, peer, why.text);
    else
        daemon_reply(s->d, peer, MSG_done, &done);
}

static void request_answer(struct skeleton *s, const struct link_peer *peer, enum msg_type type,
                           const union msg *m)
{
    struct msg_done done = {0};
    char reason[160];
    switch (type) {
    case MSG_status:
        status_reply(s, peer);
        return;
    case MSG_mark:
        mark_reply(s, peer, m->mark.text);
        return;
    case MSG_stop:
        MSG_STR(done.verb, "stop");
        daemon_reply(s->d, peer, MSG_done, &done);
        s->d->stopping = 1;
        s->stop_cause = "a stop message";
        return;
    default:
        if (s->spec->request && s->spec->request(s->self, s->d, peer, type, m))
            return;
        snprintf(reason, sizeof reason, "%s does not answer %s", s->spec->stage, msg_name(type));
        unknown_reply(s, peer, reason);
    }
}

static void malformed_note(struct skeleton *s, const struct link_peer *peer, const struct err *e)
{
    double now = clock_monotonic_s();
    if (s->malformed_logged_s == 0 || now - s->malformed_logged_s >= MALFORMED_INTERVAL_S) {
        s->malformed_logged_s = now;
        log_warn("malformed=%llu A control message is refused: %s",
                 (unsigned long long)s->d->ctl.malformed, e->text);
    }
    if (peer->bytes)
        unknown_reply(s, peer, e->text);
}

static void requests_answer(struct skeleton *s)
{
    static union msg m;
    for (int i = 0; i < REQUESTS_MAX; i++) {
        struct link_peer peer = {0};
        enum msg_type type;
        struct err e;
        int got = link_recv(&s->d->ctl, &peer, &type, &m, &e);
        if (got == 0)
            return;
        if (got < 0)
            malformed_note(s, &peer, &e);
        else
            request_answer(s, &peer, type, &m);
    }
}

/* Wait for a control message, a signal, or what the stage waits for, at most sleep_ms. */
static void skeleton_wait(struct skeleton *s, int sleep_ms)
{
    struct daemon *d = s->d;
    struct link_poll_item items[LINK_POLL_ITEMS_MAX] = {{.link = &d->ctl}, {.fd = s->signal_fd}};
    const int own = 2, extra_max = (int)(sizeof d->extra / sizeof d->extra[0]);
    ensure(d->extra_count >= 0 && d->extra_count <= extra_max);
    memcpy(items + own, d->extra, (size_t)d->extra_count * sizeof d->extra[0]);
    if (sleep_ms < 0 || sleep_ms > WAIT_MS_MAX)
        sleep_ms = WAIT_MS_MAX;
    alarm((unsigned)s->spec->deadline_s + WAIT_MS_MAX / 1000 + 1);
    link_poll(items, own + d->extra_count, sleep_ms);
    memcpy(d->extra, items + own, (size_t)d->extra_count * sizeof d->extra[0]);
    if (items[0].ready)
        requests_answer(s);
    const char *name = items[1].ready ? process_signal_take(s->signal_fd) : NULL;
    if (name) {
        d->stopping = 1;
        s->stop_cause = name;
    }
}

static void highwater_raise_sometimes(struct skeleton *s)
{
    double now = clock_monotonic_s();
    if ((now - s->raised_s) * 1000 < RAISE_INTERVAL_MS)
        return;
    s->raised_s = now;
    highwater_raise(&s->d->highwater);
}

/* Turns until the stage has finished, has failed, or was asked to stop (then DAEMON_GO_ON). */
static int skeleton_loop(struct skeleton *s, struct err *e)
{
    for (;;) {
        int sleep_ms = 0;
        alarm((unsigned)s->spec->deadline_s);
        int result = s->spec->turn(s->self, s->d, &sleep_ms, e);
        if (result != DAEMON_GO_ON)
            return result;
        durable_leak();
        highwater_raise_sometimes(s);
        skeleton_wait(s, sleep_ms);
        if (s->d->stopping)
            return DAEMON_GO_ON;
    }
}

/* ---- end ----------------------------------------------------------------------------------------
 */

/* The exit code, with its sentence in *e (whose text is that of a failure before). */
static int conclude(struct skeleton *s, int result, struct err *e)
{
    if (result == DAEMON_FINISHED)
        err_set(e, EXIT_CODE_DONE, "%s", s->d->sentence[0] ? s->d->sentence : "finished");
    else if (result == DAEMON_GO_ON)
        err_set(e, EXIT_CODE_TEMPORARY, "stopped by %s", s->stop_cause ? s->stop_cause : "itself");
    ensure(result != DAEMON_FAILED || e->code != 0);
    return e->code;
}

static void skeleton_close(struct skeleton *s)
{
    struct daemon *d = s->d;
    highwater_close(&d->highwater);
    link_close(&d->ctl);
    link_close(&d->pub);
    link_shutdown();
    journal_close(&d->journal);
    run_lock_drop(&d->lock);
    options_free(&d->options);
    if (s->signal_fd >= 0)
        close(s->signal_fd);
    if (s->ready_fd >= 0)
        close(s->ready_fd);
}

static int skeleton_end(struct skeleton *s, int result, struct err *e)
{
    struct daemon *d = s->d;
    int code = conclude(s, result, e);
    if (s->started) {
        alarm((unsigned)s->spec->deadline_s);
        s->spec->stop(s->self, d);
    }
    alarm((unsigned)s->spec->deadline_s);
    struct err last;
    if (d->journal.fd >= 0 && d->pub.socket &&
        stage_fact(s, result == DAEMON_FAILED ? "fail" : "stop", code, e->text, &last) < 0)
        log_warn("The end of this stage is not in its journal: %s", last.text);
    /* One that was refused the lock by hand must not overwrite what the holder's supervisor reads.
     */
    if (s->entered && (d->lock.fd >= 0 || d->supervised))
        process_exit_write(s->spec->stage, code, e->text);
    skeleton_close(s);
    alarm(0);
    log_line(result == DAEMON_FAILED ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO, "code=%d %s", code,
             e->text);
    return code;
}

/* Is it a command with a page of its own? */
static int answers_help(const struct daemon_spec *spec, int argc, char **argv)
{
    for (const char *const *word = spec->help_of; word && *word && argc > 1; word++)
        if (strcmp(argv[1], *word) == 0)
            return 1;
    return 0;
}

int daemon_run(int argc, char **argv, const struct daemon_spec *spec, void *self)
{
    static struct daemon d; /* too large for some stacks */
    struct skeleton s = {.d = &d, .spec = spec, .self = self, .signal_fd = -1, .ready_fd = -1};
    struct err e = {0};
    const char *run;
    log_stage_set(spec->stage);
    if (process_asks(argc, argv, "--help") && !answers_help(spec, argc, argv)) {
        process_help(spec);
        return EXIT_CODE_DONE;
    }
    if (process_asks(argc, argv, "--version")) {
        printf("%s %s\n", spec->stage, FINETUNED_VERSION);
        return EXIT_CODE_DONE;
    }
    if (argc == 2 && strcmp(argv[1], "--base") == 0) {
        memset(&d, 0, sizeof d);
        return base_print(spec, self);
    }
    int code = spec->command ? spec->command(self, argc, argv) : -1;
    if (code != -1)
        return code;
    memset(&d, 0, sizeof d);
    d.stage = spec->stage;
    d.deadline_s = spec->deadline_s;
    d.started_s = clock_monotonic_s();
    d.lock.fd = d.journal.fd = -1;
    int result = DAEMON_FAILED;
    if (process_arguments(argc, argv, &run, &e) == 0 && skeleton_open(&s, run, &e) == 0)
        result = skeleton_loop(&s, &e);
    return skeleton_end(&s, result, &e);
}
