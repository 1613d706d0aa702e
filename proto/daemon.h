/* daemon.h - the one skeleton of every stage, and the only place that ends a process.
 *
 * daemon_run: parses --run DIR / --help / --version and the stage's own arguments, resets signal
 * dispositions, asks for SIGKILL when the supervisor dies, changes into the run's directory, reads
 * its pipeline.yaml, takes the stage's lock and incarnation, opens <stage>.ctl (ROUTER) and
 * <stage>.pub (PUB), journal and high-water page, calls start, writes a newline to descriptor
 * FINETUNED_READY_FD (s6's notification), then loops: turn, answer control messages, sleep as turn
 * allows. SIGTERM, SIGINT or a `stop` message end the loop after the turn in progress; stop is
 * called; exits/<stage> is written; the process exits. alarm() is re-armed each turn with the
 * turn's deadline, so a hang ends itself (SIGALRM: restarted). FINETUNED_LAUNCH (environment) is
 * the run's launch number for event.stage.
 *
 * --base prints "base.<stage>=<bytes>", what the process takes before it has any work: the program,
 * its libraries and their tables. The memory plan begins with it.
 *
 * Exit codes: 0 only when turn said DAEMON_FINISHED, so that a supervisor can trust it; 111 with
 * the sentence "stopped by SIGTERM" (SIGINT, a stop message) for a stop before that; else e->code
 * of what failed. exits/<stage> is removed once the lock is held, so what stands there is never an
 * older start's.
 *
 *   int main(int argc, char **argv) { static struct trainerd self; return daemon_run(argc, argv,
 * &spec, &self); }
 */
#ifndef PROTO_DAEMON_H
#define PROTO_DAEMON_H

#include "proto/err.h"
#include "proto/highwater.h"
#include "proto/journal.h"
#include "proto/link.h"
#include "proto/options.h"
#include "proto/run.h"

#define FINETUNED_VERSION "0.1.0" /* printed by --version of every program */

enum daemon_result {
    DAEMON_GO_ON = 0,
    DAEMON_FINISHED = 1, /* the stage's work is done: exit 0 */
    DAEMON_FAILED = -1,  /* *e says why; exit with e->code */
};

struct daemon {
    const char *stage;
    char run[4096]; /* absolute */
    struct options options;
    struct run_lock lock; /* lock.incarnation is ours */
    struct link ctl, pub;
    struct journal journal;
    struct highwater highwater;
    int supervised;                  /* FINETUNED_READY_FD was set */
    int deadline_s;                  /* the spec's; 0: it does not run */
    double started_s;                /* monotonic */
    char doing[257];                 /* one sentence for status; the stage writes it */
    int stopping;                    /* a stop was asked */
    char sentence[768];              /* the stage may set it before DAEMON_FINISHED */
    struct link_poll_item extra[16]; /* what also wakes the loop; the stage fills them each turn */
    int extra_count;
    int marks; /* made by users since this start (daemon_mark.c) */
};

struct daemon_spec {
    const char *stage;   /* "trainerd" */
    const char *purpose; /* one sentence for --help */
    const char *example; /* one command line for --help */
    int deadline_s;      /* a turn that takes longer is a hang */
    /* Makes what turn needs, within 120 s; a failed start gives back what it took itself (stop is
     * not called then). */
    int (*start)(void *self, struct daemon *d, struct err *e);
    /* One piece of work. Sets *sleep_ms to how long the loop may wait for messages before the next
     * turn (0: none) and d->extra to what else wakes it. Returns an enum daemon_result. */
    int (*turn)(void *self, struct daemon *d, int *sleep_ms, struct err *e);
    /* Touches all of *self and uses each library that the stage will use once, on little, standing
     * in an empty directory which is removed: what the process has then is its base (--base). NULL:
     * it uses none but the skeleton's. */
    int (*warm)(void *self, struct err *e);
    /* A control message that the skeleton does not answer itself (it answers status, stop
     * and mark). 1: handled, 0: not for this stage (the skeleton answers `unknown`). May be NULL.
     */
    int (*request)(void *self, struct daemon *d, const struct link_peer *peer, enum msg_type type,
                   const union msg *m);
    void (*stop)(void *self, struct daemon *d); /* save what is cheap to save, free everything */
    /* Other ways to call the program ("--reader", "--report RUN", "--plan"), before anything is
     * opened: returns -1 if argv is not such a call, else the exit code. May be NULL. extra_help
     * lists them. */
    int (*command)(void *self, int argc, char **argv);
    const char *extra_help;
    const char *const *help_of; /* first words of those that answer --help themselves, NULL ends
                                   them; may be NULL */
};

/* Runs the daemon; returns the exit code (never before everything is closed). */
int daemon_run(int argc, char **argv, const struct daemon_spec *spec, void *self);

/* A turn or a stop of several pieces of work, each of which may take as long: one is done. The next
 * one has the deadline to itself. */
void daemon_piece_done(const struct daemon *d);

/* Publish a measurement; never blocks. */
void daemon_publish(struct daemon *d, enum msg_type type, void *m);

/* Append a fact to the journal, then publish it. A journal that cannot be written is a temporary
 * failure. */
int daemon_fact(struct daemon *d, enum msg_type type, void *m, struct err *e);

/* Answer a control message. */
void daemon_reply(struct daemon *d, const struct link_peer *peer, enum msg_type type, void *m);

double clock_monotonic_s(void);
double clock_unix_s(void);

#endif
