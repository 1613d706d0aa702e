/* tap.c - looks into a run from outside: its streams, its progress, and answers of its stages.
 *
 * A program of its own. It only connects to sockets of the run, so it may come, go, hang or be
 * killed without any stage noticing; streams are taken from monitord, never from the stage that
 * works. It goes into the run's directory first, so no socket path is too long. What tap_display.c
 * shows is up to it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "monitord/tap_display.h"
#include "monitord/tap_options.h"
#include "proto/link.h"
#include "proto/msg.h"
#include "proto/run.h"

enum { ANSWER_MS = 5000, LOOK_MS = 100, EXIT_INTERRUPTED = 130 };

static volatile sig_atomic_t signal_caught;

static void signal_note(int number)
{
    signal_caught = number;
}

static int run_enter(const char *run, struct err *e)
{
    if (chdir(run) < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot enter run directory %s", run);
    if (access("sockets", X_OK) < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "%s is not a run's directory: no sockets/ in it",
                         run);
    return 0;
}

/* ---- messages as JSON lines ---------------------------------------------------------- */

static int stream_open(struct link *l, const struct tap *t, struct err *e)
{
    if (link_open(l, LINK_SUB, ".", "monitor.pub", NULL, e) < 0)
        return -1;
    if (t->topic_count == 0)
        return link_subscribe(l, "", e);
    for (int i = 0; i < t->topic_count; i++)
        if (link_subscribe(l, t->topics[i], e) < 0)
            return -1;
    return 0;
}

static int stream_print(const struct tap *t, struct err *e)
{
    struct link l = {0};
    struct link_poll_item item = {.link = &l};
    enum msg_type type;
    union msg m;
    uint64_t printed = 0;
    int result = stream_open(&l, t, e);
    while (result == 0 && (t->count == 0 || printed < t->count)) {
        link_poll(&item, 1, -1);
        int got = link_recv(&l, NULL, &type, &m, e);
        if (got < 0)
            fprintf(stderr, "tap: %s\n", e->text); /* the next one may be good */
        if (got <= 0)
            continue;
        msg_print_json(stdout, type, &m);
        printed++;
        if (fflush(stdout) != 0)
            result = err_errno(e, EXIT_CODE_TEMPORARY, "cannot write message %" PRIu64, printed);
    }
    link_close(&l);
    return result;
}

/* ---- progress ------------------------------------------------------------------------ */

static int columns_get(void)
{
    struct winsize size = {0};
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

static double monotonic_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void messages_show(struct display *d, struct link *l)
{
    enum msg_type type;
    union msg m;
    struct err e;
    int got;
    while ((got = link_recv(l, NULL, &type, &m, &e)) != 0)
        if (got > 0)
            display_message(d, type, &m);
}

/* The lines of logs/deaths from *at on, those that are whole; *at follows. It may not be there, and
 * begins anew where it was full (services/finish). */
static void deaths_show(struct display *d, off_t *at)
{
    char text[4096], *next, *line = text;
    struct stat st;
    int fd = open("logs/deaths", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && st.st_size < *at)
        *at = 0;
    ssize_t bytes = pread(fd, text, sizeof text - 1, *at);
    close(fd);
    text[bytes > 0 ? bytes : 0] = '\0';
    for (; (next = strchr(line, '\n')); line = next + 1) {
        *next = '\0';
        display_death(d, line);
    }
    *at += line - text;
}

/* Those that were there before are told by nobody. */
static off_t deaths_skip(void)
{
    struct stat st;
    return stat("logs/deaths", &st) == 0 ? st.st_size : 0;
}

/* Opens a descriptor that becomes readable when the process ends, even before it is waited for. */
static int process_watch(uint64_t pid, int *fd, struct err *e)
{
    *fd = -1;
    if (pid == 0)
        return 0;
    *fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
    if (*fd < 0 && errno != ESRCH)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot watch process %" PRIu64, pid);
    return *fd < 0 ? 1 : 0;
}

/* Shows messages until a reason to end comes up. Returns the exit code, or -1 and *e. */
static int progress_loop(const struct tap *t, struct display *d, struct link *l, struct err *e)
{
    int watch, gone = process_watch(t->until_pid, &watch, e), code = -1;
    off_t deaths_at = deaths_skip();
    if (gone < 0)
        return -1;
    while (code < 0 && !gone && !signal_caught) {
        struct link_poll_item items[2] = {{.link = l}, {.fd = watch}};
        link_poll(items, 2, LOOK_MS);
        messages_show(d, l);
        deaths_show(d, &deaths_at);
        display_tick(d, monotonic_s(), columns_get());
        gone = items[1].ready;
        code = run_verdict(".", NULL, 0);
    }
    if (watch >= 0)
        close(watch);
    link_poll(&(struct link_poll_item){.link = l}, 1, LOOK_MS); /* last words may be under way */
    messages_show(d, l);
    deaths_show(d, &deaths_at);
    if (code >= 0)
        return code;
    if (signal_caught)
        return signal_caught == SIGINT ? EXIT_INTERRUPTED : EXIT_CODE_DONE;
    code = run_verdict(".", NULL, 0); /* it may have been its last deed */
    return code >= 0 ? code
                     : err_set(e, EXIT_CODE_TEMPORARY,
                               "process %" PRIu64 " is gone and left no verdict in %s",
                               t->until_pid, t->run);
}

static int progress_show(const struct tap *t, struct err *e)
{
    struct link l = {0};
    struct display d;
    struct sigaction action = {.sa_handler = signal_note};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    display_open(&d, stdout, isatty(STDOUT_FILENO));
    int code = stream_open(&l, t, e);
    if (code == 0)
        code = progress_loop(t, &d, &l, e);
    display_close(&d, columns_get());
    link_close(&l);
    return code;
}

/* ---- asking a stage ------------------------------------------------------------------ */

/* Name of the stage's control socket: "trainerd" and "trainer" are both "trainer.ctl". */
static int endpoint_find(const char *stage, char *endpoint, size_t bytes, struct err *e)
{
    static const char *const roles[] = {"loader", "trainer", "fisher", "monitor"};
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        size_t length = strlen(roles[i]);
        if (strncmp(stage, roles[i], length) == 0 &&
            (stage[length] == '\0' || strcmp(stage + length, "d") == 0)) {
            snprintf(endpoint, bytes, "%s.ctl", roles[i]);
            return 0;
        }
    }
    return err_set(e, EXIT_CODE_PERMANENT,
                   "\"%s\" is not a stage; loaderd, trainerd, fisherd and monitord are", stage);
}

static int verb_find(const char *verb, enum msg_type *type, struct err *e)
{
    static const enum msg_type verbs[] = {MSG_status, MSG_stop, MSG_checkpoint, MSG_release,
                                          MSG_mark};
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(verb, msg_name(verbs[i])) == 0) {
            *type = verbs[i];
            return 0;
        }
    return err_set(e, EXIT_CODE_PERMANENT,
                   "\"%s\" is not a verb; status, stop, checkpoint, release and mark are", verb);
}

/* Waits for the answer. Returns the exit code, or -1 and *e. */
static int answer_print(const struct tap *t, struct link *l, struct err *e)
{
    struct link_poll_item item = {.link = l};
    enum msg_type type;
    union msg m;
    double until = monotonic_s() + ANSWER_MS / 1000.0, left;
    while ((left = until - monotonic_s()) > 0) {
        link_poll(&item, 1, (int)(left * 1000) + 1);
        int got = link_recv(l, NULL, &type, &m, e);
        if (got < 0)
            return err_prefix(e, "cannot read the answer of %s", t->stage);
        if (got == 0)
            continue;
        msg_print_json(stdout, type, &m);
        return type == MSG_unknown ? EXIT_CODE_PERMANENT : EXIT_CODE_DONE;
    }
    return err_set(e, EXIT_CODE_TEMPORARY,
                   "%s of run %s did not answer %s within %d s; it is not running or hangs",
                   t->stage, t->run, t->verb, ANSWER_MS / 1000);
}

static int stage_ask(const struct tap *t, struct err *e)
{
    struct link l = {0};
    enum msg_type verb = MSG_status;
    union msg m = {0};
    char endpoint[32], id[LINK_PEER_BYTES_MAX];
    if (endpoint_find(t->stage, endpoint, sizeof endpoint, e) < 0 ||
        verb_find(t->verb, &verb, e) < 0)
        return -1;
    if (verb == MSG_mark)
        MSG_STR(m.mark.text, t->text);
    snprintf(id, sizeof id, "tap-%d-%.6f", (int)getpid(), monotonic_s());
    int code = link_open(&l, LINK_DEALER, ".", endpoint, id, e);
    if (code == 0) {
        ensure(link_send(&l, NULL, verb, &m) == 0); /* the first message of a new queue */
        code = answer_print(t, &l, e);
    }
    link_close(&l);
    return code;
}

int main(int argc, char **argv)
{
    static struct tap t;
    struct err e = {0};
    int code = tap_options_parse(&t, argc, argv, &e);
    if (code == 0 && t.help)
        tap_help_print(stdout);
    else if (code == 0 && t.reference)
        msg_print_docs(stdout);
    else if (code == 0 && (code = run_enter(t.run, &e)) == 0)
        code = t.progress ? progress_show(&t, &e)
               : t.stage  ? stage_ask(&t, &e)
                          : stream_print(&t, &e);
    link_shutdown();
    if (code < 0)
        fprintf(stderr, "tap: %s\n", e.text);
    return code < 0 ? e.code : code;
}
