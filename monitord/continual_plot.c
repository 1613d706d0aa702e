/* continual_plot.c - the pictures of a sequence of tasks; see continual.h. */
#include <math.h>

#include "monitord/continual.h"
#include "monitord/gnuplot.h"
#include "proto/metric.h"

static const double LIMIT_S = 20;

/* Colours that differ in lightness too, for those who do not see hues (Okabe and Ito). */
static const char *const colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                      "#e69f00", "#56b4e9", "#000000"};
enum { COLOURS = sizeof colours / sizeof *colours };

/* gnuplot's marks, filled and empty: when the colours are used up they begin anew with other
 * marks. */
static const int marks[][2] = {{7, 6}, {5, 4}, {9, 8}, {11, 10}, {13, 12}};
enum { MARKS = sizeof marks / sizeof *marks };

static void number_print(FILE *out, double value)
{
    if (isnan(value))
        fputs(" NaN", out);
    else
        fprintf(out, " %.6g", value);
}

/* A data block: for each task that had ended a line with its place and the result on each task. */
static void block_print(const struct continual *c, const struct continual_results *r,
                        const char *name, FILE *out)
{
    fprintf(out, "$%s << EOD\n", name);
    for (uint32_t i = 0; i < c->count; i++) {
        fprintf(out, "%u", i);
        for (uint32_t k = 0; k < c->count; k++)
            number_print(out, r->result[i][k]);
        fputc('\n', out);
    }
    fputs("EOD\n", out);
}

/* The names of all tasks along an axis. */
static void tics_print(const struct continual *c, char axis, FILE *out)
{
    fprintf(out, "set %ctics (", axis);
    for (uint32_t i = 0; i < c->count; i++) {
        fputs(i ? ", " : "", out);
        gnuplot_quote(out, c->names[i]);
        fprintf(out, " %u", i);
    }
    fputs(") nomirror out\n", out);
}

/* ---- report/results.png ---- */

enum {
    LABELS_MAX = 10,   /* tasks with a number in each cell */
    CELL_COLUMNS = 75, /* that "100.00 %" takes, and air */
    MAP_COLUMNS = 250, /* around the cells: names, scale */
    MAP_COLUMNS_MIN = 650,
};

static int results_width(const struct continual *c)
{
    int cells = c->count < LABELS_MAX ? (int)c->count : LABELS_MAX;
    int map = MAP_COLUMNS + CELL_COLUMNS * cells;
    return (c->compared ? 2 : 1) * (map > MAP_COLUMNS_MIN ? map : MAP_COLUMNS_MIN);
}

/* The cells of a matrix as "column row value text", where there is one. */
static void cells_print(const struct continual *c, const struct continual_results *r,
                        const char *name, FILE *out)
{
    char text[METRIC_TEXT_MAX];
    fprintf(out, "$%s << EOD\n", name);
    for (uint32_t i = 0; i < c->count; i++)
        for (uint32_t k = 0; k < c->count; k++)
            if (!isnan(r->result[i][k]))
                fprintf(out, "%u %u %.6g \"%s\"\n", k, i, r->result[i][k],
                        metric_format(text, c->metric, r->result[i][k]));
    fputs("EOD\n", out);
}

static void map_print(const struct continual *c, const char *name, const char *title, FILE *out)
{
    fputs("set title ", out);
    gnuplot_quote(out, title);
    fprintf(out,
            "\nplot $%s using 1:2:($1-.5):($1+.5):($2-.5):($2+.5):3 with boxxyerror fs solid "
            "fc palette notitle",
            name);
    if (c->count <= LABELS_MAX)
        fprintf(out, ", $%s using 1:2:4 with labels tc rgb '#000000' notitle", name);
    fputc('\n', out);
}

/* Both maps have one scale of colours, from the least to the largest of all their results. */
static void range_print(const struct continual *c, FILE *out)
{
    double low = INFINITY, high = -INFINITY;
    for (uint32_t i = 0; i < c->count; i++)
        for (uint32_t k = 0; k < c->count; k++) {
            low = fmin(low, c->own.result[i][k]); /* a NaN is passed over */
            high = fmax(high, c->own.result[i][k]);
            if (!c->compared)
                continue;
            low = fmin(low, c->without_ewc.result[i][k]);
            high = fmax(high, c->without_ewc.result[i][k]);
        }
    if (low < high)
        fprintf(out, "set cbrange [%.6g:%.6g]\n", low, high);
}

static void maps_print(const struct continual *c, FILE *out)
{
    int smaller = metric_better(c->metric, 0, 1);
    cells_print(c, &c->own, "own", out);
    if (c->compared)
        cells_print(c, &c->without_ewc, "without", out);
    tics_print(c, 'x', out);
    tics_print(c, 'y', out);
    fprintf(out,
            "set xlabel 'on the data of'\nset ylabel 'after'\nset xtics rotate by -30\n"
            "set xrange [-0.5:%u-0.5]\nset yrange [%u-0.5:-0.5]\nset border 0\n"
            "set palette defined (0 '%s', 1 '%s')\nset cblabel ",
            c->count, c->count, smaller ? "#56b4e9" : "#ffffff", smaller ? "#ffffff" : "#56b4e9");
    gnuplot_quote(out, c->metric);
    fputc('\n', out);
    range_print(c, out);
    fprintf(out, "set multiplot layout 1,%d\n", c->compared ? 2 : 1);
    map_print(c, "own", c->compared ? "with EWC" : "results", out);
    if (c->compared)
        map_print(c, "without", "without EWC", out);
    fputs("unset multiplot\n", out);
}

/* ---- report/sequence.png ---- */

static void curves_print(const struct continual *c, FILE *out)
{
    block_print(c, &c->own, "own", out);
    if (c->compared)
        block_print(c, &c->without_ewc, "without", out);
    tics_print(c, 'x', out);
    fputs("set xtics rotate by -30\nset xlabel 'after'\nset ylabel ", out);
    gnuplot_quote(out, c->metric);
    fprintf(out,
            "\nset xrange [-0.2:%u-0.8]\nset key outside right top samplen 2 spacing 1.2\n"
            "set grid ytics lc rgb '#dddddd'\nset ytics nomirror out\nset border 3\n"
            "set datafile missing 'NaN'\nset title ",
            c->count);
    gnuplot_quote(out, c->compared ? "each task after each task; dashed: without EWC"
                                   : "each task after each task");
    fputs("\nplot ", out);
    for (uint32_t k = 0; k < c->count; k++) {
        const char *colour = colours[k % COLOURS];
        const int *mark = marks[k / COLOURS % MARKS];
        fprintf(out, "%s$own using 1:%u with linespoints pt %d lw 2 lc rgb '%s' title ",
                k ? ", \\\n     " : "", k + 2, mark[0], colour);
        gnuplot_quote(out, c->names[k]);
        if (c->compared)
            fprintf(out,
                    ", \\\n     $without using 1:%u with linespoints pt %d lw 1 dt 2 lc rgb '%s' "
                    "notitle",
                    k + 2, mark[1], colour);
    }
    fputc('\n', out);
}

static int picture_make(const struct continual *c, const char *name, int width,
                        void (*print)(const struct continual *, FILE *), struct err *e)
{
    char script[64], picture[64];
    snprintf(script, sizeof script, "report/%s.gnuplot", name);
    snprintf(picture, sizeof picture, "report/%s.png", name);
    FILE *out = gnuplot_open(script, picture, width, 560, e);
    if (!out)
        return -1;
    print(c, out);
    return gnuplot_close(&out, script, picture, LIMIT_S, e);
}

int continual_draw(const struct continual *c, struct err *e)
{
    if (c->count < 3 || isnan(c->own.result[0][0]))
        return 0;
    if (picture_make(c, "results", results_width(c), maps_print, e) < 0 ||
        picture_make(c, "sequence", 900, curves_print, e) < 0)
        return -1;
    return 1;
}
