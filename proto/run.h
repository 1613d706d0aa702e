/* run.h - a run's directory: where things are, who holds it, how often a stage was started.
 *
 *   RUN/pipeline.yaml     effective pipeline file
 *   RUN/changed           options that are other ones since trainerd's last start: a line
 *   RUN/bases             what each process takes before it has work ("base.trainerd=<bytes>" ...)
 *   RUN/prepared/         what new rows are prepared like (pipelines/prepare/kept.h)
 *   RUN/lock              held (flock) by finetune.sh and everything it starts
 *   RUN/locks/<stage>     held by the stage; holds "incarnation pid\n", rewritten at each start
 *   RUN/sockets/          0700
 *   RUN/services/         s6 service directories
 *   RUN/journals/<stage>  journal.h
 *   RUN/highwater/<stage> highwater.h
 *   RUN/exits/<stage>     "code sentence\n" of the last exit if that was a polite one
 *   RUN/verdict           "code sentence\n" of the whole run, written once by the supervisor's
 * finish RUN/logs/ checkpoints/ report/ lineage
 *   RUN/fisher            a directory, or a link to one: fisherdir.h
 */
#ifndef PROTO_RUN_H
#define PROTO_RUN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/err.h"
#include "proto/options.h"

/* Make the directories below `run` (0700) that are not there, but fisher (fisherdir.h). */
int run_make(const char *run, struct err *e);

/* Create or resume: make the run's directory and write `o` as its effective file durably. If one is
 * there already and an option differs that cannot (changes.def), -1 and a permanent sentence that
 * names the option, both values' sources, the reason and what to do (another --run, or the old
 * options). What counts from the newest checkpoint on is also written to RUN/changed, for trainerd;
 * of a finished run it is refused, too.
 * What `auto` made a number of for this machine takes the recorded one.
 * Where there was no checkpoint yet (run_anew.h) nothing is refused: the run begins anew with `o`,
 * and what its starts told of the other options is removed. Returns 1 then, else 0.
 * RUN/fisher is made as fisherdir.h says. */
int run_prepare(const char *run, struct options *o, struct err *e);

enum { RUN_VERDICT_MAX = 1024 }; /* bytes of its sentence */

/* The exit code of a run that has ended by itself, and its sentence (NULL: not wanted); -1: it has
 * not, or was stopped by somebody. */
int run_verdict(const char *run, char *sentence, size_t bytes);

/* Is it done? The verdict of a run whose tasks all are is 0. */
int run_is_finished(const char *run);

enum { RUN_CHANGES_MAX = 4096 }; /* bytes of RUN/changed */

struct run_lock {
    int fd;               /* -1: not held */
    uint64_t incarnation; /* 1 for the first start of this stage in this run, never repeated */
};

/* Take RUN/locks/<stage> (waiting wait_ms at most), raise and persist (fsync) its incarnation.
 * Relative to the present directory. -1: somebody holds it; the sentence names the holder's pid;
 * the code is temporary (the caller makes it permanent when it is not supervised). */
int run_lock_take(struct run_lock *lock, const char *stage, int wait_ms, struct err *e);
void run_lock_drop(struct run_lock *lock);

/* Pid of the process that holds RUN/locks/<stage>, or 0 if nobody does. Relative to the present
 * dir. */
pid_t run_lock_holder(const char *stage);

/* For who waits for `stage` in vain: kill it if it is stopped (SIGSTOP), since then not even its
 * own alarm can end it. One that is busy, dead or traced is left alone. 1 if it was killed, else 0.
 */
int run_stopped_kill(const char *stage);

#endif
