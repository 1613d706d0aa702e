/* run.c - a run's directory: making it, resuming it, and the locks of its stages. See run.h.
 */
#include "proto/run.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "proto/durable.h"
#include "proto/fisherdir.h"
#include "proto/run_anew.h"

enum { LOCK_POLL_MS = 20 };

/* ---- the directory ------------------------------------------------------------------------------
 */

/* mkdir that is content with a directory already there. */
static int directory_make(const char *path, mode_t mode, struct err *e)
{
    struct stat st;
    if (mkdir(path, mode) == 0)
        return 0;
    if (errno != EEXIST)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot make the directory %s", path);
    if (stat(path, &st) < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot look at %s", path);
    if (!S_ISDIR(st.st_mode))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot make the directory %s: a file of that name is there", path);
    return 0;
}

/* The run's own directory and those above it. */
static int directories_make(const char *run, struct err *e)
{
    char path[PATH_MAX];
    size_t length = strlen(run);
    if (length == 0 || length >= sizeof path)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot make a run directory of %zu bytes; 1 to %zu are accepted", length,
                       sizeof path - 1);
    memcpy(path, run, length + 1);
    for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        int result = directory_make(path, 0777, e);
        *slash = '/';
        if (result < 0)
            return -1;
    }
    return directory_make(path, 0777, e);
}

int run_make(const char *run, struct err *e)
{
    static const char *const below[] = {
        "locks",       "sockets",   "services", "journals",
        "exits",       "highwater", "logs",     "logs/memory_profile",
        "checkpoints", "report"};
    char path[PATH_MAX];
    if (directories_make(run, e) < 0)
        return -1;
    for (size_t i = 0; i < sizeof below / sizeof below[0]; i++) {
        if ((size_t)snprintf(path, sizeof path, "%s/%s", run, below[i]) >= sizeof path)
            return err_set(e, EXIT_CODE_PERMANENT, "the run directory's name is too long: %.200s",
                           run);
        if (directory_make(path, 0700, e) < 0)
            return -1;
    }
    return 0;
}

static int effective_write(const char *path, const struct options *o, struct err *e)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot write %s", path);
    int result = options_write(o, out, e);
    if (fclose(out) != 0 && result == 0)
        result = err_errno(e, EXIT_CODE_TEMPORARY, "cannot write %s", path);
    if (result == 0)
        result = durable_write(path, text, bytes, e);
    free(text);
    return result;
}

/* A value for a sentence; lists of tasks and layers are too long for one. */
static void value_quote(const struct options *o, const char *key, char *text, size_t bytes)
{
    char value[OPTION_TEXT_MAX + 1];
    if (options_get(o, key, value, sizeof value, NULL) == 0)
        snprintf(text, bytes, " \"%.60s\"", value);
    else
        snprintf(text, bytes, " another list");
}

/* What counts from the newest checkpoint on, for trainerd to tell; before the options are there, so
 * that a death in between tells too much and not too little. It stands behind what was not told
 * yet, as far as there is room. */
static int changes_write(const char *run, const struct options *was, const struct options *is,
                         struct err *e)
{
    char path[PATH_MAX], text[RUN_CHANGES_MAX + 1], *old = NULL;
    size_t used = 0, bytes = 0;
    ensure((size_t)snprintf(path, sizeof path, "%s/changed", run) < sizeof path);
    if (access(path, F_OK) == 0 && durable_read(path, RUN_CHANGES_MAX, &old, &bytes, e) < 0)
        return -1;
    used = (size_t)snprintf(text, sizeof text, "%s%s", old ? old : "", bytes ? ", " : "");
    free(old);
    if (used >= sizeof text || !options_changes(was, is, text + used, sizeof text - used))
        return 0;
    return durable_write(path, text, strlen(text), e);
}

/* "code sentence\n" */
int run_verdict(const char *run, char *sentence, size_t bytes)
{
    char path[PATH_MAX], text[RUN_VERDICT_MAX + 8] = "";
    int code = 0, used = 0;
    ensure((size_t)snprintf(path, sizeof path, "%s/verdict", run) < sizeof path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe would be waited for */
    if (fd < 0)
        return -1;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0 || sscanf(text, "%3d%n", &code, &used) != 1 || code < 0 || code > 255 ||
        (text[used] != ' ' && text[used] != '\n'))
        return -1;
    text[used + (int)strcspn(text + used, "\n")] = '\0';
    if (sentence)
        snprintf(sentence, bytes, "%s", text[used] ? text + used + 1 : "");
    return code;
}

int run_is_finished(const char *run)
{
    return run_verdict(run, NULL, 0) == EXIT_CODE_DONE;
}

/* Nothing comes after its newest checkpoint, so nothing can be trained with what counts from there
 * on. */
static int finished_check(const char *run, const struct options *was, const struct options *is,
                          struct err *e)
{
    char text[320];
    if (!run_is_finished(run) || !options_changes(was, is, text, sizeof text))
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "cannot resume the run with other options (%s): %.200s is finished and was made "
                   "with the old ones; choose those, or to train on another --run with this one's "
                   "weights as its model.pretrained",
                   text, run);
}

/* Take other options anew, in a run that has nothing yet that was made with the recorded ones. */
static int run_anew(const char *run, const char *path, const struct options *o, struct err *e)
{
    return run_forget(run, e) < 0 || effective_write(path, o, e) < 0 ? -1 : 1;
}

/* The recorded place of the Fisher information is forgotten where another one is given and nothing
 * lies there that the run would be parted from: 1 then, else 0. */
static int fisher_dir_forget(const char *run, struct options *recorded, const struct options *o,
                             struct err *e)
{
    if (strcmp(recorded->fisher_dir, o->fisher_dir) == 0 || fisherdir_holds(run))
        return 0;
    char *copy = strdup(o->fisher_dir);
    if (!copy)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read the run's options");
    free(recorded->fisher_dir);
    recorded->fisher_dir = copy;
    return 1;
}

static int recorded_resume(const char *run, const char *path, struct options *recorded,
                           struct options *o, struct err *e)
{
    char was[80], is[80];
    int result = 0;
    /* a file that somebody else put there is not written over */
    if (options_difference(recorded, o) && options_is_effective(path) && !run_is_finished(run) &&
        run_is_untrained(run))
        return run_anew(run, path, o, e);
    if (o->batch_size_auto) /* what it was where the run began */
        o->batch_size = recorded->batch_size;
    int moves = fisher_dir_forget(run, recorded, o, e);
    if (moves < 0)
        return -1;
    const char *reason, *key = options_conflict(recorded, o, &reason);
    if (key) {
        value_quote(recorded, key, was, sizeof was);
        value_quote(o, key, is, sizeof is);
        result = err_set(e, EXIT_CODE_PERMANENT,
                         "cannot resume the run with another %s: %.200s says%s, %.200s (with its "
                         "--set options) says%s; %s; choose another --run, or the old value",
                         key, path, was, o->source, is, reason);
    } else if (finished_check(run, recorded, o, e) < 0) {
        result = -1;
    } else if (moves || options_difference(recorded, o)) {
        result = changes_write(run, recorded, o, e);
        if (result == 0)
            result = effective_write(path, o, e);
    }
    return result;
}

static int run_resume(const char *run, const char *path, struct options *o, struct err *e)
{
    struct options recorded;
    if (options_read(&recorded, path, NULL, 0, e) < 0)
        return err_prefix(e, "cannot resume the run");
    int result = recorded_resume(run, path, &recorded, o, e);
    options_free(&recorded);
    return result;
}

int run_prepare(const char *run, struct options *o, struct err *e)
{
    char path[PATH_MAX];
    if (run_make(run, e) < 0)
        return -1;
    ensure((size_t)snprintf(path, sizeof path, "%s/pipeline.yaml", run) < sizeof path);
    int recorded = access(path, F_OK) == 0;
    if (!recorded && errno != ENOENT)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot look at %s", path);
    int result = recorded ? run_resume(run, path, o, e) : effective_write(path, o, e);
    return result < 0 || fisherdir_make(run, o, e) < 0 ? -1 : result;
}

/* ---- locks of stages ----------------------------------------------------------------------------
 */

static void lock_path(const char *stage, char *path, size_t bytes)
{
    ensure((size_t)snprintf(path, bytes, "locks/%s", stage) < bytes);
}

/* "incarnation pid" of an open lock file; zeros if it is empty. -1 if it holds something else. */
static int lock_read(int fd, uint64_t *incarnation, pid_t *pid)
{
    char text[64];
    long long holder = 0;
    *incarnation = 0;
    *pid = 0;
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    if (n == 0)
        return 0;
    if (n < 0)
        return -1;
    text[n] = '\0';
    if (sscanf(text, "%" SCNu64 " %lld\n", incarnation, &holder) != 2)
        return -1;
    *pid = (pid_t)holder;
    return 0;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Poll for the lock; at least one second try, since run_lock_holder takes it for a moment to look.
 */
static int lock_wait(int fd, int wait_ms)
{
    int64_t until = now_ms() + wait_ms;
    for (int tries = 1; flock(fd, LOCK_EX | LOCK_NB) < 0; tries++) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return -1;
        if (tries > 1 && now_ms() >= until) {
            errno = EWOULDBLOCK;
            return -1;
        }
        nanosleep(&(struct timespec){0, LOCK_POLL_MS * 1000000L}, NULL);
    }
    return 0;
}

/* The number must be on the disk before it is used: after a power cut it may not come again. */
static int incarnation_write(int fd, uint64_t incarnation, const char *path, struct err *e)
{
    char text[64];
    int length =
        snprintf(text, sizeof text, "%" PRIu64 " %lld\n", incarnation, (long long)getpid());
    if (durable_pwrite_all(fd, text, (size_t)length, 0, path, e) < 0)
        return -1;
    if (ftruncate(fd, length) < 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot cut %s", path);
    return durable_sync(fd, path, e);
}

int run_lock_take(struct run_lock *lock, const char *stage, int wait_ms, struct err *e)
{
    char path[128];
    pid_t holder;
    lock_path(stage, path, sizeof path);
    *lock = (struct run_lock){.fd = -1};
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot open the lock %s of this run", path);
    if (lock_wait(fd, wait_ms) < 0) {
        if (errno != EWOULDBLOCK)
            err_errno(e, EXIT_CODE_TEMPORARY, "cannot lock %s", path);
        else if (lock_read(fd, &lock->incarnation, &holder) == 0 && holder > 0)
            err_set(e, EXIT_CODE_TEMPORARY,
                    "cannot start %s: process %lld is the %s of this run already (it holds %s); "
                    "stop that one first",
                    stage, (long long)holder, stage, path);
        else
            err_set(e, EXIT_CODE_TEMPORARY, "cannot start %s: another process holds %s", stage,
                    path);
        goto fail;
    }
    if (lock_read(fd, &lock->incarnation, &holder) < 0) {
        err_set(e, EXIT_CODE_PERMANENT,
                "cannot start %s: %s does not hold \"number pid\", so the number of this start "
                "is unknown; choose another --run",
                stage, path);
        goto fail;
    }
    lock->incarnation++;
    if (incarnation_write(fd, lock->incarnation, path, e) < 0)
        goto fail;
    lock->fd = fd;
    return 0;
fail:
    close(fd);
    lock->incarnation = 0;
    return -1;
}

void run_lock_drop(struct run_lock *lock)
{
    if (lock->fd >= 0)
        close(lock->fd);
    lock->fd = -1;
}

pid_t run_lock_holder(const char *stage)
{
    char path[128];
    uint64_t incarnation;
    pid_t holder = 0;
    lock_path(stage, path, sizeof path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    if (flock(fd, LOCK_SH | LOCK_NB) < 0 && lock_read(fd, &incarnation, &holder) < 0)
        holder = 0;
    close(fd);
    return holder;
}

/* Is the process of that name and stopped? */
static int is_stopped(pid_t pid, const char *name)
{
    char path[32], text[64], wanted[64];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    snprintf(wanted, sizeof wanted, "%d (%s) T", (int)pid, name);
    return strncmp(text, wanted, strlen(wanted)) == 0;
}

int run_stopped_kill(const char *stage)
{
    pid_t pid = run_lock_holder(stage);
    int pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (pidfd < 0)
        return 0;
    /* Looked at after the descriptor was made: what is killed is what was seen. */
    int kills = is_stopped(pid, stage) && run_lock_holder(stage) == pid &&
                syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) == 0;
    close(pidfd);
    return kills;
}
