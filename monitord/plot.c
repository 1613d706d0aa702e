/* plot.c - draws the memory profile with gnuplot.
 *
 * Resident memory of each stage and their sum over time; a line with its name where a task begins,
 * a blue one with its text at a user's mark, a brown one where advice was given or the micro-batch
 * became another, a faint one at the end of an epoch where these can be
 * told apart, a red one where a stage came back after a death, a triangle on the axis for a
 * checkpoint. Where a GPU computes, its utilisation by the axis on the right.
 */
#include "monitord/profile.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "monitord/gnuplot.h"

/* Colours that differ in lightness too, for those who do not see hues (Okabe and Ito). */
static const char *const colours[STAGE_COUNT] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7"};

static const double head_room = 1.3; /* above the curves, for the tasks' names */

enum { EPOCH_LINES_MAX = 100, MARK_LABELS_MAX = 60 }; /* of about 1,000 columns */

/* How events of a kind are drawn: lines, and labels where these can be read. */
struct look {
    const char *what, *title, *colour;
    int dash;
    uint32_t lines_max, labels_max; /* of more of them there are none */
};

static const struct look looks[] = {
    {"task-start", "task begins", "#444444", 1, PROFILE_EVENTS_MAX, PROFILE_EVENTS_MAX},
    {"epoch-end", "epoch ends", "#bbbbbb", 2, EPOCH_LINES_MAX, 0},
    {"restart", "stage restarted", "#cc0000", 2, PROFILE_EVENTS_MAX, PROFILE_EVENTS_MAX},
    {"micro-batch", "another micro-batch", "#b35900", 2, PROFILE_EVENTS_MAX, 0},
    {"advice", "advice", "#b35900", 3, PROFILE_EVENTS_MAX, PROFILE_EVENTS_MAX},
    {"mark", "your mark", "#0000cc", 4, PROFILE_EVENTS_MAX, MARK_LABELS_MAX},
};

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

static void frame_print(const struct profile *p, FILE *out, struct scale x, struct scale y,
                        double top)
{
    char title[160], day[32];
    time_t second = (time_t)p->began_unix_s;
    struct tm tm;
    localtime_r(&second, &tm);
    strftime(day, sizeof day, "%Y-%m-%d %H:%M:%S", &tm);
    snprintf(title, sizeof title, "Memory of run %s, begun %s", p->name, day);
    fputs("set title ", out);
    gnuplot_quote(out, title);
    fprintf(out,
            "\nset xlabel 'time since the beginning [%s]'\n"
            "set ylabel 'resident memory, shared pages counted in each stage [%s]'\n"
            "set xrange [0:%g]\nset yrange [0:%g]\n"
            "set key outside right top samplen 2 spacing 1.2\n"
            "set grid ytics lc rgb '#dddddd'\nset tics nomirror out\nset border 3\n"
            "set datafile missing 'NaN'\n",
            x.unit, y.unit, fmax(1, p->rows[profile_rows(p) - 1].time_s) / x.divisor, top);
}

/* As much room above it as above the memory. */
static void gpu_axis_print(FILE *out)
{
    fprintf(out,
            "set border 11\nset y2range [0:%g]\nset y2tics 0,25,100 nomirror out\n"
            "set y2label 'time in which a kernel ran [%%]'\n",
            100 * head_room);
}

static uint32_t lines_of(const struct profile *p, const struct look *look)
{
    uint32_t count = profile_events(p, look->what);
    return count <= look->lines_max ? count : 0;
}

static void event_print(const struct profile_event *v, FILE *out, const struct look *look,
                        double at, int labelled)
{
    fprintf(out, "set arrow from %g, graph 0 to %g, graph 1 nohead back lw 1 dt %d lc rgb '%s'\n",
            at, at, look->dash, look->colour);
    if (!labelled)
        return;
    fputs("set label ", out);
    gnuplot_quote(out, v->label);
    fprintf(out,
            " at %g, graph 0.985 rotate by 90 right offset character 0.7,0 tc rgb '%s' front\n", at,
            look->colour);
}

static void events_print(const struct profile *p, FILE *out, struct scale x)
{
    for (size_t k = 0; k < sizeof looks / sizeof looks[0]; k++) {
        uint32_t lines = lines_of(p, &looks[k]);
        for (uint32_t i = 0; lines && i < p->event_count; i++) {
            const struct profile_event *v = &p->events[i];
            if (v->time_s >= 0 && strcmp(v->what, looks[k].what) == 0)
                event_print(v, out, &looks[k], v->time_s / x.divisor, lines <= looks[k].labels_max);
        }
    }
}

static void data_print(const struct profile *p, FILE *out, struct scale x, struct scale y)
{
    fputs("$memory << EOD\n", out);
    for (uint32_t i = 0; i < profile_rows(p); i++) {
        const struct profile_row *row = &p->rows[i];
        fprintf(out, "%.6g", row->time_s / x.divisor);
        for (int k = 0; k < STAGE_COUNT; k++) {
            if (row->rss_bytes[k])
                fprintf(out, " %.6g", (double)row->rss_bytes[k] / y.divisor);
            else
                fputs(" NaN", out);
        }
        fprintf(out, " %.6g", (double)row->together_bytes / y.divisor);
        if (row->gpu_count)
            fprintf(out, " %.4g\n", 100 * profile_gpu(row));
        else
            fputs(" NaN\n", out);
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
    gnuplot_quote(out, text);
}

static void curves_print(const struct profile *p, FILE *out, struct scale y)
{
    fputs("plot $memory using 1:6 with lines lw 2 dt 3 lc rgb '#000000' title ", out);
    legend(out, "together", profile_peak(p, SAMPLE_SERIES), y);
    for (int k = 0; k < STAGE_COUNT; k++) {
        fprintf(out, ", \\\n     $memory using 1:%d with lines lw 2 lc rgb '%s' title ", k + 2,
                colours[k]);
        legend(out, stage_names[k], profile_peak(p, k), y);
    }
    if (profile_has_gpu(p))
        fputs(", \\\n     $memory using 1:7 axes x1y2 with lines lw 1 lc rgb '#888888' title "
              "'GPU utilisation'",
              out);
    fputs(", \\\n     $checkpoints using 1:2 with points pt 9 ps 1.1 lc rgb '#444444' title "
          "'checkpoint'",
          out);
    for (size_t i = 0; i < sizeof looks / sizeof looks[0]; i++)
        if (lines_of(p, &looks[i]))
            fprintf(out, ", \\\n     NaN with lines lw 1 dt %d lc rgb '%s' title '%s'",
                    looks[i].dash, looks[i].colour, looks[i].title);
    fputc('\n', out);
}

void profile_script(const struct profile *p, FILE *out)
{
    uint64_t peak = profile_peak(p, SAMPLE_SERIES);
    struct scale x = time_scale(p->rows[profile_rows(p) - 1].time_s), y = byte_scale(peak);
    frame_print(p, out, x, y, fmax(1, (double)peak / y.divisor) * head_room);
    if (profile_has_gpu(p))
        gpu_axis_print(out);
    events_print(p, out, x);
    data_print(p, out, x, y);
    curves_print(p, out, y);
}

int profile_draw(const struct profile *p, double limit_s, struct err *e)
{
    char script[sizeof p->base + 16], path[sizeof p->base + 16];
    if (profile_rows(p) == 0)
        return err_set(e, EXIT_CODE_TEMPORARY, "there are no samples to draw");
    snprintf(script, sizeof script, "%s.gnuplot", p->base);
    snprintf(path, sizeof path, "%s.png", p->base);
    FILE *out = gnuplot_open(script, path, 1400, 760, e);
    if (!out)
        return -1;
    profile_script(p, out);
    return gnuplot_close(&out, script, path, limit_s, e);
}
