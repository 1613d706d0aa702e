/* gnuplot.c - see gnuplot.h. */
#include "monitord/gnuplot.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proto/durable.h"

enum { PICTURE_PATH_MAX = 256 };

extern char **environ;

void gnuplot_quote(FILE *out, const char *text)
{
    fputc('\'', out);
    for (; *text; text++) {
        if (*text == '\'')
            fputc('\'', out);
        fputc((unsigned char)*text < 0x20 ? ' ' : *text, out);
    }
    fputc('\'', out);
}

static void temporary_path(char path[PICTURE_PATH_MAX], const char *picture)
{
    ensure(snprintf(path, PICTURE_PATH_MAX, "%s.tmp", picture) < PICTURE_PATH_MAX);
}

FILE *gnuplot_open(const char *script, const char *picture, int width, int height, struct err *e)
{
    char temporary[PICTURE_PATH_MAX];
    temporary_path(temporary, picture);
    FILE *out = fopen(script, "we");
    if (!out) {
        err_errno(e, EXIT_CODE_TEMPORARY, "cannot write %s", script);
        return NULL;
    }
    fprintf(out,
            "if (strstrt(GPVAL_TERMINALS, 'pngcairo') > 0) {\n"
            "    set terminal pngcairo noenhanced size %d,%d font 'DejaVu Sans,11'\n"
            "} else {\n"
            "    set terminal png noenhanced size %d,%d\n"
            "}\nset encoding utf8\nset output ",
            width, height, width, height);
    gnuplot_quote(out, temporary);
    fputc('\n', out);
    return out;
}

static int gnuplot_start(const char *script, pid_t *pid, struct err *e)
{
    char *argv[] = {"gnuplot", (char *)script, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t how;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawnattr_init(&how);
    posix_spawnattr_setsigmask(&how, &none);
    posix_spawnattr_setsigdefault(&how, &all);
    posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    int number = posix_spawnp(pid, "gnuplot", &files, &how, argv, environ);
    posix_spawnattr_destroy(&how);
    posix_spawn_file_actions_destroy(&files);
    if (number)
        return err_set(e, EXIT_CODE_TEMPORARY, "cannot start gnuplot: %s", strerror(number));
    return 0;
}

/* Wait for it, but not longer than limit_s. */
static int gnuplot_wait(pid_t pid, double limit_s, struct err *e)
{
    const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    int status = 0, killed = 0;
    for (double waited_s = 0; waitpid(pid, &status, killed ? 0 : WNOHANG) == 0; waited_s += 0.02) {
        if (waited_s >= limit_s)
            killed = kill(pid, SIGKILL) == 0;
        else
            nanosleep(&pause, NULL);
    }
    if (killed)
        return err_set(e, EXIT_CODE_TEMPORARY, "gnuplot took over %g s and was ended", limit_s);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return err_set(e, EXIT_CODE_TEMPORARY, "gnuplot failed (its words are in the log above)");
    return 0;
}

int gnuplot_close(FILE **out_p, const char *script, const char *picture, double limit_s,
                  struct err *e)
{
    char temporary[PICTURE_PATH_MAX];
    FILE *out = *out_p;
    pid_t pid;
    temporary_path(temporary, picture);
    *out_p = NULL;
    int result =
        fclose(out) == 0 ? 0 : err_errno(e, EXIT_CODE_TEMPORARY, "cannot write %s", script);
    if (result == 0)
        result = gnuplot_start(script, &pid, e);
    if (result == 0)
        result = gnuplot_wait(pid, limit_s, e);
    if (result == 0)
        result = durable_commit(temporary, picture, e);
    unlink(script);
    if (result < 0)
        unlink(temporary);
    return result;
}
