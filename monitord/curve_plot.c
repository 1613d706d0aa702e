/* curve_plot.c - the picture of what training came to: the mean training loss and the validation
 * loss of each epoch, all tasks one after the other; see report.h.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "monitord/gnuplot.h"
#include "monitord/report.h"

static const double LIMIT_S = 20;

static int begins(const struct history *h, uint32_t i)
{
    return !i || strcmp(h->epochs[i].task, h->epochs[i - 1].task) != 0;
}

/* From 1, those that left the table counted. */
static uint64_t place_of(const struct history *h, uint32_t i)
{
    return h->epochs_left + i + 1;
}

static void number_print(FILE *out, double value)
{
    if (isfinite(value))
        fprintf(out, " %.6g", value);
    else
        fputs(" NaN", out);
}

/* A data block: an epoch a line; an empty line between two tasks, where no line is drawn. */
static void block_print(const struct history *h, FILE *out)
{
    fputs("$epochs << EOD\n", out);
    for (uint32_t i = 0; i < h->epoch_count; i++) {
        fprintf(out, "%s%" PRIu64, i && begins(h, i) ? "\n" : "", place_of(h, i));
        number_print(out, h->epochs[i].loss);
        number_print(out, h->epochs[i].validation_loss);
        fputc('\n', out);
    }
    fputs("EOD\n", out);
}

/* A line where a task begins, with its name. */
static void tasks_print(const struct history *h, FILE *out)
{
    for (uint32_t i = 0; i < h->epoch_count; i++) {
        double at = (double)place_of(h, i) - 0.5;
        if (!begins(h, i))
            continue;
        fprintf(out,
                "set arrow from %.1f, graph 0 to %.1f, graph 1 nohead back lw 1 lc rgb '#bbbbbb'\n"
                "set label ",
                at, at);
        gnuplot_quote(out, h->epochs[i].task);
        fprintf(out,
                " at %.1f, graph 0.985 rotate by 90 right offset character 0.7,0 "
                "tc rgb '#444444' front\n",
                at);
    }
}

static void script_print(const struct history *h, FILE *out)
{
    block_print(h, out);
    tasks_print(h, out);
    fprintf(out,
            "set xlabel 'epoch of the run'\nset ylabel 'loss'\n"
            "set xrange [%" PRIu64 "-0.5:%" PRIu64 "+0.5]\nset offsets 0, 0, graph 0.25, 0\n"
            "set key outside right top samplen 2 spacing 1.2\n"
            "set grid ytics lc rgb '#dddddd'\nset tics nomirror out\nset border 3\n"
            "set datafile missing 'NaN'\nset title ",
            place_of(h, 0), place_of(h, h->epoch_count - 1));
    gnuplot_quote(out, "loss of each epoch");
    fprintf(out,
            "\nplot $epochs using 1:2 with %s pt 7 ps 0.6 lw 2 lc rgb '#0072b2' title 'training', "
            "\\\n     $epochs using 1:3 with %s pt 5 ps 0.6 lw 2 lc rgb '#d55e00' title "
            "'validation'\n",
            h->epoch_count > 200 ? "lines" : "linespoints",
            h->epoch_count > 200 ? "lines" : "linespoints");
}

/* Epochs of which both losses are numbers. */
static uint32_t whole_count(const struct history *h)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < h->epoch_count; i++)
        count += isfinite(h->epochs[i].loss) && isfinite(h->epochs[i].validation_loss);
    return count;
}

int curve_draw(const struct history *h, struct err *e)
{
    static const char script[] = "report/curve.gnuplot", picture[] = "report/curve.png";
    if (whole_count(h) < 2)
        return 0;
    FILE *out = gnuplot_open(script, picture, 1000, 560, e);
    if (!out)
        return -1;
    script_print(h, out);
    return gnuplot_close(&out, script, picture, LIMIT_S, e) < 0 ? -1 : 1;
}
