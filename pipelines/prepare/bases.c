/* bases.c - `prepare bases`, and the file `bases` of a run: each stage is started with --base,
 * which prints its line. All start at once and are read one after the other.
 */
#include "pipelines/prepare/bases.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pipelines/prepare/prepare.h"
#include "proto/durable.h"

extern char **environ;

enum { TEXT_BYTES = 1024 };

static const struct {
    const char *program, *of; /* of: a second argument, or NULL */
} stages[] = {{"trainerd", NULL},
              {"fisherd", NULL},
              {"loaderd", NULL},
              {"loaderd", "reader"},
              {"monitord", NULL}};

enum { STAGES = sizeof stages / sizeof *stages };

/* One that is under way. */
struct measuring {
    pid_t pid;
    int out;
};

/* The program `name` beside this one. */
static int beside(const char *name, char path[PATH_MAX], struct err *e)
{
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 32);
    if (length < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot find the directory of the programs");
    path[length] = 0;
    strcpy(strrchr(path, '/') + 1, name); /* shorter than 31 bytes: stages */
    return 0;
}

static int measure_start(int stage, struct measuring *m, struct err *e)
{
    char path[PATH_MAX];
    int ends[2];
    posix_spawn_file_actions_t actions;
    if (beside(stages[stage].program, path, e) < 0)
        return -1;
    char *argv[] = {path, "--base", (char *)(uintptr_t)stages[stage].of, NULL};
    if (pipe2(ends, O_CLOEXEC) != 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot make a pipe");
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    int failed = posix_spawn(&m->pid, path, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    m->out = ends[0];
    if (!failed)
        return 0;
    close(ends[0]);
    errno = failed;
    return err_errno(e, EXIT_CODE_PERMANENT, "cannot start %s to measure it", path);
}

/* Its line, behind what `text` holds. */
static int measure_end(int stage, struct measuring *m, char text[TEXT_BYTES], struct err *e)
{
    size_t at = strlen(text);
    ssize_t count = 1;
    int status = 0;
    while (at < TEXT_BYTES - 1 && count > 0) {
        count = read(m->out, text + at, TEXT_BYTES - 1 - at);
        at += count > 0 ? (size_t)count : 0;
        count = count < 0 && errno == EINTR ? 1 : count;
    }
    text[at] = 0;
    close(m->out);
    while (waitpid(m->pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    return err_set(e, WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_CODE_TEMPORARY,
                   "cannot measure what %s takes before it has work: `%s --base` failed",
                   stages[stage].program, stages[stage].program);
}

static int bases_measure(char text[TEXT_BYTES], struct err *e)
{
    struct measuring measuring[STAGES];
    struct err other;
    int started = 0, result = 0;
    text[0] = 0;
    while (started < STAGES && result == 0) {
        result = measure_start(started, &measuring[started], e);
        started += result == 0;
    }
    for (int i = 0; i < started; i++)
        if (measure_end(i, &measuring[i], text, result ? &other : e) < 0)
            result = -1;
    return result;
}

int bases_write(const char *run, struct err *e)
{
    char path[PATH_MAX], text[TEXT_BYTES];
    ensure((size_t)snprintf(path, sizeof path, "%s/bases", run) < sizeof path);
    if (bases_measure(text, e) < 0)
        return -1;
    return durable_write(path, text, strlen(text), e);
}

int prepare_bases(int argc, char **argv)
{
    char text[TEXT_BYTES];
    struct err e = {0};
    if (argc > 1) {
        int help = strcmp(argv[1], "--help") == 0;
        fputs(
            "usage: prepare bases\n\n"
            "Starts each stage with --base and prints what it takes of memory before it has work,\n"
            "a line each, as trainerd --plan reads them.\n\n"
            "example: prepare bases\n",
            help ? stdout : stderr);
        return help ? EXIT_CODE_DONE : EXIT_CODE_PERMANENT;
    }
    if (bases_measure(text, &e) == 0)
        return fputs(text, stdout) >= 0 && fflush(stdout) == 0 ? EXIT_CODE_DONE
                                                               : EXIT_CODE_TEMPORARY;
    fprintf(stderr, "prepare %s: %s\n", argv[0], e.text);
    return e.code;
}
