/* plot.c - draws the memory profile with gnuplot: the only program monitord ever starts.
 *
 * Resident memory of each stage and their sum over time; a line with its name where a task begins,
 * a faint one at the end of an epoch, a red one where a stage came back after a death, a mark on
 * the axis for a checkpoint. The script with the data in it is a temporary file beside the picture,
 * which appears whole or not at all.
 */
#include "monitord/profile.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proto/durable.h"

extern char **environ;

/* Colours that differ in lightness too, for those who do not see hues (Okabe and Ito). */
static const char *const colours[STAGE_COUNT] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7"};

struct scale {
    double divisor;
    const char *unit;
};

static struct scale time_scale(double seconds)
{
    if (seconds > 2 * 3600)
        return (struct scale){3600, "h"};
    if (seconds > 300)
        return (struct scale){60, "min"};
    return (struct scale){1, "s"};
}

static struct scale byte_scale(uint64_t bytes)
{
    if (bytes > 10ull << 30)
        return (struct scale){1ull << 30, "GiB"};
    return (struct scale){1 << 20, "MiB"};
}

/* A gnuplot string: single quotes, doubled inside; control characters become spaces. */
static void quote(FILE *out, const char *text)
{
    fputc('\'', out);
    for (; *text; text++) {
        if (*text == '\'')
            fputc('\'', out);
        fputc((unsigned char)*text < 0x20 ? ' ' : *text, out);
    }
    fputc('\'', out);
}

static void frame_print(const struct profile *p, FILE *out, const char *picture, struct scale x,
                        struct scale y, double top)
{
    char title[160], day[32];
    time_t second = (time_t)p->began_unix_s;
    struct tm tm;
    localtime_r(&second, &tm);
    strftime(day, sizeof day, "%Y-%m-%d %H:%M:%S", &tm);
    snprintf(title, sizeof title, "Memory of run %s, begun %s", p->name, day);
    fputs("if (strstrt(GPVAL_TERMINALS, 'pngcairo') > 0) {\n"
          "    set terminal pngcairo noenhanced size 1400,760 font 'DejaVu Sans,11'\n"
          "} else {\n"
          "    set terminal png noenhanced size 1400,760\n"
          "}\nset output ",
          out);
    quote(out, picture);
    fputs("\nset title ", out);
    quote(out, title);
    fprintf(out,
            "\nset xlabel 'time since the beginning [%s]'\n"
            "set ylabel 'resident memory, shared pages counted in each stage [%s]'\n"
            "set xrange [0:%g]\nset yrange [0:%g]\n"
            "set key outside right top samplen 2 spacing 1.2\n"
            "set grid ytics lc rgb '#dddddd'\nset tics nomirror out\nset border 3\n"
            "set datafile missing 'NaN'\n",
            x.unit, y.unit, fmax(1, p->rows[p->row_count - 1].time_s) / x.divisor, top);
}

static void events_print(const struct profile *p, FILE *out, struct scale x)
{
    for (uint32_t i = 0; i < p->event_count; i++) {
        const struct profile_event *v = &p->events[i];
        double at = v->time_s / x.divisor;
        int task = strcmp(v->what, "task-start") == 0, restart = strcmp(v->what, "restart") == 0;
        const char *colour = task ? "#444444" : restart ? "#cc0000" : "#bbbbbb";
        if (at < 0 || (!task && !restart && strcmp(v->what, "epoch-end") != 0))
            continue;
        fprintf(out,
                "set arrow from %g, graph 0 to %g, graph 1 nohead back lw 1 dt %d lc rgb '%s'\n",
                at, at, task ? 1 : 2, colour);
        if (!task && !restart)
            continue;
        fputs("set label ", out);
        quote(out, v->label);
        fprintf(out,
                " at %g, graph 0.985 rotate by 90 right offset character 0.7,0 tc rgb '%s' front\n",
                at, colour);
    }
}

static void data_print(const struct profile *p, FILE *out, struct scale x, struct scale y)
{
    fputs("$memory << EOD\n", out);
    for (uint32_t i = 0; i < p->row_count; i++) {
        const struct profile_row *row = &p->rows[i];
        uint64_t sum = 0;
        fprintf(out, "%.6g", row->time_s / x.divisor);
        for (int k = 0; k < STAGE_COUNT; k++) {
            sum += row->rss_bytes[k];
            if (row->rss_bytes[k])
                fprintf(out, " %.6g", (double)row->rss_bytes[k] / y.divisor);
            else
                fputs(" NaN", out);
        }
        fprintf(out, " %.6g\n", (double)sum / y.divisor);
    }
    fputs("EOD\n$checkpoints << EOD\n", out);
    for (uint32_t i = 0; i < p->event_count; i++)
        if (strcmp(p->events[i].what, "checkpoint") == 0 && p->events[i].time_s >= 0)
            fprintf(out, "%.6g 0\n", p->events[i].time_s / x.divisor);
    fputs("-1 0\nEOD\n", out); /* outside the picture: a data block may not be empty */
}

static void legend(FILE *out, const char *name, uint64_t peak, struct scale y)
{
    char text[96];
    snprintf(text, sizeof text, "%s (peak %.*f %s)", name, y.divisor > 1 << 20 ? 2 : 0,
             (double)peak / y.divisor, y.unit);
    quote(out, text);
}

static void curves_print(const struct profile *p, FILE *out, struct scale y)
{
    fputs("plot $memory using 1:6 with lines lw 2 dt 3 lc rgb '#000000' title ", out);
    legend(out, "together", profile_peak(p, PROFILE_SERIES), y);
    for (int k = 0; k < STAGE_COUNT; k++) {
        fprintf(out, ", \\\n     $memory using 1:%d with lines lw 2 lc rgb '%s' title ", k + 2,
                colours[k]);
        legend(out, stage_names[k], profile_peak(p, k), y);
    }
    fputs(", \\\n     $checkpoints using 1:2 with points pt 9 ps 1.1 lc rgb '#444444' title "
          "'checkpoint'"
          ", \\\n     NaN with lines lw 1 lc rgb '#444444' title 'task begins'"
          ", \\\n     NaN with lines lw 1 dt 2 lc rgb '#bbbbbb' title 'epoch ends'"
          ", \\\n     NaN with lines lw 1 dt 2 lc rgb '#cc0000' title 'stage restarted'\n",
          out);
}

/* There is room above the curves for the tasks' names. */
static int script_write(const struct profile *p, const char *script, const char *picture,
                        struct err *e)
{
    uint64_t peak = profile_peak(p, PROFILE_SERIES);
    struct scale x = time_scale(p->rows[p->row_count - 1].time_s), y = byte_scale(peak);
    FILE *out = fopen(script, "we");
    if (!out)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot write %s", script);
    frame_print(p, out, picture, x, y, fmax(1, (double)peak / y.divisor) * 1.3);
    events_print(p, out, x);
    data_print(p, out, x, y);
    curves_print(p, out, y);
    if (fclose(out) != 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot write %s", script);
    return 0;
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

int profile_draw(const struct profile *p, double limit_s, struct err *e)
{
    char script[sizeof p->base + 16], temporary[sizeof p->base + 16], path[sizeof p->base + 16];
    pid_t pid;
    if (p->row_count == 0)
        return err_set(e, EXIT_CODE_TEMPORARY, "there are no samples to draw");
    snprintf(script, sizeof script, "%s.gnuplot", p->base);
    snprintf(temporary, sizeof temporary, "%s.png.tmp", p->base);
    snprintf(path, sizeof path, "%s.png", p->base);
    int result = script_write(p, script, temporary, e);
    if (result == 0)
        result = gnuplot_start(script, &pid, e);
    if (result == 0)
        result = gnuplot_wait(pid, limit_s, e);
    if (result == 0)
        result = durable_commit(temporary, path, e);
    unlink(script);
    if (result < 0)
        unlink(temporary);
    return result;
}
