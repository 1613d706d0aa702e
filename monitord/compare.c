/* compare.c - `monitord --compare RUN...`: several runs side by side, as Markdown tables on
 * standard output: the options that differ, what each task reached, what it took.
 *
 * Each run is read as its report is (report.c), from options, newest checkpoint, journals and
 * high-water pages, so an unfinished run can be compared too. Runs that differ by nothing but their
 * seed (and name) are repeats: means and deviations are told besides.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitord/report.h"
#include "proto/metric.h"

enum { RUNS_MAX = 16, ROWS_MAX = 1024, CELL_BYTES = 4200, SHOWN_BYTES = 60 };

#define ALL_TASKS "all tasks"

static const char help[] =
    "usage: compare.sh RUN RUN...\n\n"
    "Prints, as Markdown tables, the options that differ between runs (2 to 16 directories), the "
    "metric of\neach task after its own training and at the end (the best in bold), and steps, "
    "time, memory and\nrestarts. Of runs that differ by their seed alone mean and standard "
    "deviation are added. Tasks that not\nall runs have are named, and their options left out.\n\n"
    "Exit codes: 0 done; 100 cannot work; 111 may work later.\n\n"
    "example: pipelines/compare.sh runs/fashion runs/lambda-500\n";

/* A line of a table: its name and a text a run; NULL: the run has none. */
struct line {
    char *key, *text[RUNS_MAX];
    double number[RUNS_MAX]; /* where the line is of a metric */
    char metric[32];         /* empty: it is of none */
};

struct table {
    int runs; /* of which the last is being read */
    struct line lines[ROWS_MAX];
    int count;
};

struct comparison {
    int runs;
    char *names[RUNS_MAX];
    struct table options, results, figures;
    struct err e; /* the first failure inside a callback */
};

static struct line *line_find(struct table *t, const char *key, struct err *e)
{
    for (int i = 0; i < t->count; i++)
        if (strcmp(t->lines[i].key, key) == 0)
            return &t->lines[i];
    if (t->count == ROWS_MAX) {
        err_set(e, EXIT_CODE_PERMANENT, "the runs have more than %d options and results together",
                ROWS_MAX);
        return NULL;
    }
    struct line *l = &t->lines[t->count];
    l->key = strdup(key);
    for (int i = 0; i < RUNS_MAX; i++)
        l->number[i] = NAN;
    if (l->key)
        t->count++;
    else
        err_set(e, EXIT_CODE_TEMPORARY, "no memory for the comparison");
    return l->key ? l : NULL;
}

/* The text of run number `run` in the line `key`. NULL: *e says why not. */
static struct line *cell_set(struct table *t, int run, const char *key, const char *text,
                             struct err *e)
{
    struct line *l = line_find(t, key, e);
    if (!l)
        return NULL;
    free(l->text[run]); /* two tasks of one name do not occur, but a key told twice would leak */
    l->text[run] = strdup(text);
    if (!l->text[run])
        err_set(e, EXIT_CODE_TEMPORARY, "no memory for the comparison");
    return l->text[run] ? l : NULL;
}

static void option_see(void *self, const char *key, const char *text)
{
    struct comparison *c = self;
    if (!c->e.code)
        cell_set(&c->options, c->runs, key, text, &c->e);
}

static void metric_set(struct comparison *c, const char *task, const char *when, const char *metric,
                       double value)
{
    char key[192], text[METRIC_TEXT_MAX];
    snprintf(key, sizeof key, "%s: %s %s", task, metric, when);
    if (isnan(value) || c->e.code)
        return;
    struct line *l = cell_set(&c->results, c->runs, key, metric_format(text, metric, value), &c->e);
    if (!l)
        return;
    l->number[c->runs] = value;
    snprintf(l->metric, sizeof l->metric, "%s", metric);
}

static void figure_set(struct comparison *c, const char *key, const char *format, double value)
{
    char text[64];
    snprintf(text, sizeof text, format, value);
    if (!c->e.code)
        cell_set(&c->figures, c->runs, key, isnan(value) ? "-" : text, &c->e);
}

static void report_take(struct comparison *c, const struct report *r)
{
    double peak = 0, restarts = 0;
    for (uint32_t i = 0; i < r->task_count; i++) {
        const struct report_task *t = &r->tasks[i];
        metric_set(c, t->name, "after own training", t->metric, t->after_own_training);
        metric_set(c, t->name, "at the end", t->metric, t->final);
        metric_set(c, t->name, "at the end without EWC", t->metric, t->final_without_ewc);
    }
    if (r->continual.count) {
        const struct continual *s = &r->continual;
        metric_set(c, ALL_TASKS, "at the end", s->metric, s->own.average);
        if (s->compared)
            metric_set(c, ALL_TASKS, "at the end without EWC", s->metric, s->without_ewc.average);
    }
    for (int i = 0; i < STAGE_COUNT; i++) {
        peak += (double)(r->pages[i].rss_peak_bytes + r->pages[i].helpers_peak_bytes);
        restarts += r->history->restarts[i];
    }
    figure_set(c, "steps", "%.0f", (double)r->steps);
    figure_set(c, "wall time, s", "%.1f", r->wall_seconds);
    figure_set(c, "CPU time, s", "%.1f", r->cpu_seconds);
    figure_set(c, "samples/s while training", "%.0f", r->samples_per_second);
    figure_set(c, "of it waiting for data, %", "%.1f", 100 * r->data_wait_share);
    figure_set(c, "peaks of all stages, MiB", "%.0f", peak / (1 << 20));
    figure_set(c, "restarts", "%.0f", restarts);
    if (c->e.code)
        return;
    char digest[13];
    snprintf(digest, sizeof digest, "%.12s", r->weights_sha256[0] ? r->weights_sha256 : "-");
    cell_set(&c->figures, c->runs, "finished", r->finished ? "yes" : "no", &c->e);
    if (!c->e.code)
        cell_set(&c->figures, c->runs, "weights", digest, &c->e);
}

/* Their order counts as well. */
static void tasks_take(struct comparison *c, const struct options *o)
{
    char text[OPTION_TASKS_MAX * (sizeof o->tasks[0].name + 2)] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < o->task_count; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", i ? ", " : "",
                                 o->tasks[i].name);
    if (!c->e.code)
        cell_set(&c->options, c->runs, "tasks", text, &c->e);
}

static int run_take(struct comparison *c, const char *run, struct err *e)
{
    static struct options o; /* large */
    static struct report r;
    int result = -1;
    if (chdir(run) < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot enter the run directory %s", run);
    if (options_read(&o, "pipeline.yaml", NULL, 0, e) < 0) {
        err_prefix(e, "%s is no run directory", run);
        goto out;
    }
    if (report_load(&r, &o, e) < 0)
        goto out;
    options_each(&o, option_see, c);
    tasks_take(c, &o);
    report_take(c, &r);
    c->runs++;
    *e = c->e;
    result = c->e.code ? -1 : 0;
out:
    options_free(&o);
    return result;
}

/* ---- the tables ---------------------------------------------------------------------------------
 */

static int line_differs(const struct line *l, int runs)
{
    for (int i = 1; i < runs; i++)
        if (!l->text[i] != !l->text[0] || (l->text[0] && strcmp(l->text[i], l->text[0]) != 0))
            return 1;
    return 0;
}

/* Of the options of a task some run has none: it is a task of the others only. */
static int line_is_of_some(const struct line *l, int runs)
{
    int some = 0;
    for (int i = 0; i < runs; i++)
        some |= !l->text[i];
    return some && strncmp(l->key, "tasks.", 6) == 0;
}

static int tasks_differ(const struct comparison *c)
{
    int differ = 0;
    for (int i = 0; i < c->options.count; i++)
        differ |= line_is_of_some(&c->options.lines[i], c->runs);
    return differ;
}

static int line_is_of_a_repeat(const struct line *l)
{
    return strcmp(l->key, "seed") == 0 || strcmp(l->key, "name") == 0;
}

/* Do the runs differ by nothing but their seeds? */
static int runs_are_repeats(const struct comparison *c)
{
    int seeds = 0;
    for (int i = 0; i < c->options.count; i++) {
        const struct line *l = &c->options.lines[i];
        if (!line_differs(l, c->runs))
            continue;
        if (!line_is_of_a_repeat(l))
            return 0;
        seeds |= strcmp(l->key, "seed") == 0;
    }
    return seeds;
}

/* A text as a cell shows it: cut where it is long, and what would end a cell escaped. */
static void cell_print(const char *text, int bold)
{
    size_t shown = 0;
    fputs(bold ? " **" : " ", stdout);
    for (const char *s = text ? text : "-"; *s && (shown < SHOWN_BYTES || (*s & 0xc0) == 0x80);
         s++, shown++) /* whole characters */
        printf(*s == '|' ? "\\|" : "%c", *s);
    if (text && strlen(text) > SHOWN_BYTES)
        fputs("...", stdout);
    if (text && !*text)
        fputs("(none)", stdout);
    fputs(bold ? "** |" : " |", stdout);
}

static void head_print(const struct comparison *c, const char *what, const char *more)
{
    printf("| %s |", what);
    for (int i = 0; i < c->runs; i++)
        cell_print(c->names[i], 0);
    printf("%s\n|---|", more);
    for (int i = 0; i < c->runs + (*more != 0); i++)
        fputs("---|", stdout);
    putchar('\n');
}

/* Means over other tasks are not better or worse. */
static int is_best(const struct comparison *c, const struct line *l, int run)
{
    int different = 0;
    if (!l->metric[0] || isnan(l->number[run]) ||
        (strncmp(l->key, ALL_TASKS ":", sizeof ALL_TASKS) == 0 && tasks_differ(c)))
        return 0;
    for (int i = 0; i < c->runs; i++) {
        if (metric_better(l->metric, l->number[i], l->number[run]))
            return 0;
        different |= !isnan(l->number[i]) && l->number[i] != l->number[run];
    }
    return different;
}

/* Mean and sample standard deviation of the runs that have a value. */
static void spread_print(const struct line *l, int runs)
{
    char mean[METRIC_TEXT_MAX], deviation[METRIC_TEXT_MAX];
    double sum = 0, squares = 0;
    int n = 0;
    for (int i = 0; i < runs; i++)
        if (!isnan(l->number[i])) {
            sum += l->number[i];
            n++;
        }
    for (int i = 0; i < runs; i++)
        if (!isnan(l->number[i]))
            squares += (l->number[i] - sum / n) * (l->number[i] - sum / n);
    metric_format(mean, l->metric, sum / n);
    metric_format(deviation, l->metric, n > 1 ? sqrt(squares / (n - 1)) : NAN);
    printf(" %s, %s |", mean, deviation);
}

static void line_print(const struct comparison *c, const struct line *l, int spread)
{
    printf("| %s |", l->key);
    for (int i = 0; i < c->runs; i++)
        cell_print(l->text[i], is_best(c, l, i));
    if (spread)
        spread_print(l, c->runs);
    putchar('\n');
}

/* "Not all runs have the same tasks: B (runs/a, runs/c), X (runs/b); the options ..." */
static void tasks_print(const struct comparison *c)
{
    static const char end[] = ".name";
    int shown = 0;
    for (int i = 0; i < c->options.count; i++) {
        const struct line *l = &c->options.lines[i];
        size_t length = strlen(l->key), tail = sizeof end - 1;
        if (length < tail || strcmp(l->key + length - tail, end) != 0 ||
            !line_is_of_some(l, c->runs))
            continue;
        printf("%s%.*s (",
               shown++ ? ", " : "Not all runs have the same tasks: ", (int)(length - tail - 6),
               l->key + 6);
        for (int k = 0, told = 0; k < c->runs; k++)
            if (l->text[k])
                printf("%s%s", told++ ? ", " : "", c->names[k]);
        putchar(')');
    }
    if (shown)
        puts("; the options of these are not compared.\n");
}

static void options_print(const struct comparison *c)
{
    int differing = 0;
    for (int i = 0; i < c->options.count; i++) {
        const struct line *l = &c->options.lines[i];
        if (!line_differs(l, c->runs) || line_is_of_some(l, c->runs))
            continue;
        if (!differing++)
            head_print(c, "option", "");
        line_print(c, l, 0);
    }
    if (!differing)
        puts("The options of the runs are the same.");
    putchar('\n');
}

static void comparison_print(const struct comparison *c)
{
    int repeats = runs_are_repeats(c);
    tasks_print(c);
    options_print(c);
    head_print(c, "task", repeats ? " mean, deviation |" : "");
    for (int i = 0; i < c->results.count; i++)
        line_print(c, &c->results.lines[i], repeats);
    putchar('\n');
    head_print(c, "figure", "");
    for (int i = 0; i < c->figures.count; i++)
        line_print(c, &c->figures.lines[i], 0);
}

static void table_free(struct table *t)
{
    for (int i = 0; i < t->count; i++) {
        free(t->lines[i].key);
        for (int k = 0; k < RUNS_MAX; k++)
            free(t->lines[i].text[k]);
    }
}

static int compare_run(struct comparison *c, int count, char **runs, struct err *e)
{
    char *paths[RUNS_MAX] = {NULL};
    int result = 0;
    for (int i = 0; i < count && result == 0; i++) { /* before the first chdir */
        paths[i] = realpath(runs[i], NULL);
        if (!paths[i])
            result = err_errno(e, EXIT_CODE_PERMANENT, "cannot find the run directory %s", runs[i]);
    }
    for (int i = 0; i < count && result == 0; i++) {
        c->names[i] = runs[i];
        result = run_take(c, paths[i], e);
    }
    for (int i = 0; i < count; i++)
        free(paths[i]);
    if (result == 0)
        comparison_print(c);
    table_free(&c->options);
    table_free(&c->results);
    table_free(&c->figures);
    return result;
}

int compare_command(int count, char **runs)
{
    static struct comparison c; /* large */
    struct err e = {0};
    int result = 0;
    for (int i = 0; i < count; i++)
        if (strcmp(runs[i], "--help") == 0) {
            fputs(help, stdout);
            return fflush(stdout) == 0 ? EXIT_CODE_DONE : EXIT_CODE_TEMPORARY;
        }
    if (count < 2 || count > RUNS_MAX)
        result = err_set(&e, EXIT_CODE_PERMANENT,
                         "%d runs are named; accepted are 2 to %d directories (see --help)", count,
                         RUNS_MAX);
    else
        result = compare_run(&c, count, runs, &e);
    if (result == 0 && fflush(stdout) == 0)
        return EXIT_CODE_DONE;
    fprintf(stderr, "compare: %s\n", e.code ? e.text : "cannot write to standard output");
    return e.code ? e.code : EXIT_CODE_TEMPORARY;
}
