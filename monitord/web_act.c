/* web_act.c - see web_act.h. */
#include "monitord/web_act.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "proto/mark.h"

enum { TELL_MS_MAX = 2000, TELL_POLL_MS = 5 };

extern char **environ;

/* s6's programs only write to a supervisor's pipe: one that takes longer is not going to end. */
static int program_wait(pid_t pid, const char *name, struct err *e)
{
    int status = 0, waited_ms = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (waited_ms >= TELL_MS_MAX) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return err_set(e, EXIT_CODE_TEMPORARY, "%s did not end within %d s", name,
                           TELL_MS_MAX / 1000);
        }
        nanosleep(&(struct timespec){.tv_nsec = TELL_POLL_MS * 1000000L}, NULL);
        waited_ms += TELL_POLL_MS;
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return err_set(e, EXIT_CODE_TEMPORARY,
                       "%s could not tell the supervisor: the run may just have ended", name);
    return 0;
}

static int supervisor_tell(const char *program, const char *option, const char *place,
                           struct err *e)
{
    char *argv[] = {(char *)program, (char *)option, (char *)place, NULL};
    posix_spawn_file_actions_t files;
    pid_t pid;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    int number = posix_spawnp(&pid, program, &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    if (number)
        return err_set(e, EXIT_CODE_TEMPORARY, "cannot start %s: %s", program, strerror(number));
    return program_wait(pid, program, e);
}

static int stage_act(const char *verb, const char *stage, struct err *e)
{
    static const char *const options[][2] = {{"start", "-u"}, {"stop", "-d"}, {"restart", "-r"}};
    char place[64];
    if (stage_index(stage) < 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "\"%.32s\" is not a stage; loaderd, trainerd, fisherd and monitord are",
                       stage);
    snprintf(place, sizeof place, "services/%s", stage);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (strcmp(verb, options[i][0]) == 0)
            return supervisor_tell("s6-svc", options[i][1], place, e);
    return err_set(e, EXIT_CODE_PERMANENT,
                   "\"%.32s\" cannot be done to a stage; start, stop and restart can", verb);
}

static int follow_wanted(const struct web_follow *f, struct err *e)
{
    return f ? 0
             : err_set(e, EXIT_CODE_TEMPORARY,
                       "the run is not listened to: there are too many live ones; another page "
                       "with --run can ask it");
}

static int mark_act(struct web_follow *f, const char *text, struct err *e)
{
    union msg m = {0};
    if (mark_check(text, e) < 0 || follow_wanted(f, e) < 0)
        return -1;
    MSG_STR(m.mark.text, text);
    return web_follow_ask(f, stage_index("monitord"), MSG_mark, &m, e);
}

int web_act(struct web_follow *f, const char *verb, const char *stage, const char *text,
            struct err *e)
{
    union msg m = {0};
    int trainerd = stage_index("trainerd");
    if (stage)
        return stage_act(verb, stage, e);
    if (strcmp(verb, "end") == 0)
        return supervisor_tell("s6-svscanctl", "-t", "services", e);
    if (strcmp(verb, "mark") == 0)
        return mark_act(f, text, e);
    if (strcmp(verb, "checkpoint") == 0)
        return follow_wanted(f, e) < 0 ? -1 : web_follow_ask(f, trainerd, MSG_checkpoint, &m, e);
    if (strcmp(verb, "release") == 0)
        return follow_wanted(f, e) < 0 ? -1 : web_follow_ask(f, trainerd, MSG_release, &m, e);
    return err_set(e, EXIT_CODE_PERMANENT,
                   "\"%.32s\" cannot be done to a run; end, checkpoint, release and mark can",
                   verb);
}
