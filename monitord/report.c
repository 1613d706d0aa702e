/* report.c - makes the report of a run that is down; see report.h. The printing is in
 * report_write.c. */
#include "monitord/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/durable.h"
#include "proto/log.h"

/* The metric on `task`'s data at the end of `after`, or NULL. */
static const struct checkpoint_result *result_find(const struct checkpoint_meta *meta,
                                                   const char *task, const char *after)
{
    for (uint32_t i = 0; i < meta->result_count; i++)
        if (strcmp(meta->results[i].task, task) == 0 && strcmp(meta->results[i].after, after) == 0)
            return &meta->results[i];
    return NULL;
}

static double value_of(const struct checkpoint_result *result)
{
    return result ? result->value : NAN;
}

static int is_comparison(const struct task_options *t)
{
    return t->comparison_of[0] != '\0';
}

/* The last task that is no comparison: its end is the end of the run's own work. */
static const struct task_options *last_own(const struct options *o)
{
    const struct task_options *last = NULL;
    for (uint32_t i = 0; i < o->task_count; i++)
        if (!is_comparison(&o->tasks[i]))
            last = &o->tasks[i];
    return last;
}

/* The comparison with that task, else the last comparison there is, or NULL. */
static const struct task_options *comparison_with(const struct options *o, const char *task)
{
    const struct task_options *found = NULL;
    for (uint32_t i = 0; i < o->task_count; i++)
        if (is_comparison(&o->tasks[i]) && (!found || strcmp(found->comparison_of, task) != 0 ||
                                            strcmp(o->tasks[i].comparison_of, task) == 0))
            found = &o->tasks[i];
    return found;
}

static void tasks_make(struct report *r)
{
    const struct options *o = r->options;
    const struct task_options *last = last_own(o);
    const struct task_options *comparison = last ? comparison_with(o, last->name) : NULL;
    r->compared = comparison != NULL;
    for (uint32_t i = 0; i < o->task_count; i++) {
        if (is_comparison(&o->tasks[i]))
            continue;
        const char *name = o->tasks[i].name;
        const struct checkpoint_result *own = result_find(r->meta, name, name);
        struct report_task *t = &r->tasks[r->task_count++];
        snprintf(t->name, sizeof t->name, "%s", name);
        snprintf(t->metric, sizeof t->metric, "%s", own ? own->metric : "");
        t->after_own_training = value_of(own);
        t->final = value_of(result_find(r->meta, name, last->name));
        t->final_without_ewc =
            value_of(comparison ? result_find(r->meta, name, comparison->name) : NULL);
    }
}

/* Digest of the parameters at the end of the last task with EWC; without any, of the last task. */
static void weights_find(struct report *r)
{
    const struct options *o = r->options;
    const struct task_options *wanted = NULL;
    for (uint32_t i = 0; i < o->task_count; i++)
        if (o->tasks[i].ewc.count || !wanted || !wanted->ewc.count)
            wanted = &o->tasks[i];
    for (uint32_t i = 0; wanted && i < r->meta->result_count; i++)
        if (strcmp(r->meta->results[i].after, wanted->name) == 0)
            snprintf(r->weights_sha256, sizeof r->weights_sha256, "%s",
                     r->meta->results[i].weights_sha256);
}

void report_make(struct report *r, const struct options *o, const struct checkpoint_meta *meta,
                 const struct history *h, const struct highwater_page *pages)
{
    memset(r, 0, sizeof *r);
    r->options = o;
    r->meta = meta;
    r->history = h;
    r->finished = meta->version != 0 && meta->task == o->task_count;
    r->device = h->device.kind[0] ? h->device.kind : "cpu"; /* runs of old do not say */
    tasks_make(r);
    continual_make(&r->continual, o, meta, h);
    weights_find(r);
    r->steps = meta->step - meta->steps_skipped;
    r->wall_seconds = history_wall_s(h);
    r->samples_per_second = h->epoch_seconds > 0 ? (double)h->epoch_rows / h->epoch_seconds : NAN;
    r->data_wait_share = h->epoch_seconds > 0 ? h->epoch_wait_seconds / h->epoch_seconds : NAN;
    for (uint32_t i = 0; i < h->plan.totals_count; i++) {
        int stage = stage_index(h->plan.totals[i].stage);
        if (stage >= 0)
            r->plan_bytes[stage] = h->plan.totals[i].bytes;
        else if (strcmp(h->plan.totals[i].stage, "device") == 0)
            r->plan_device_bytes = h->plan.totals[i].bytes;
    }
    for (int i = 0; i < STAGE_COUNT; i++) {
        r->pages[i] = pages[i];
        r->cpu_seconds += 1e-6 * (double)pages[i].cpu_us;
        r->arena_bytes += pages[i].arena_peak_bytes;
    }
}

/* ---- monitord --report ---- */

static void pages_read(struct highwater_page *pages)
{
    for (int i = 0; i < STAGE_COUNT; i++) {
        char path[64];
        struct err e = {0};
        snprintf(path, sizeof path, "highwater/%s", stage_names[i]);
        if (highwater_read(path, &pages[i], &e) < 0) {
            log_warn("The peaks of %s are not known: %s", stage_names[i], e.text);
            memset(&pages[i], 0, sizeof pages[i]);
        }
    }
}

static int file_write(const struct report *r, const char *path,
                      void (*print)(const struct report *, FILE *), struct err *e)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot write %s", path);
    print(r, out);
    int result = fclose(out) == 0 ? durable_write(path, text, bytes, e)
                                  : err_errno(e, EXIT_CODE_TEMPORARY, "cannot write %s", path);
    free(text);
    return result;
}

int report_load(struct report *r, struct options *o, struct err *e)
{
    static struct checkpoint_meta meta; /* large */
    static struct history history;
    struct highwater_page pages[STAGE_COUNT];
    char path[4096];
    int found = checkpoint_newest("checkpoints", path, sizeof path, e);
    memset(&meta, 0, sizeof meta);
    if (found < 0 || (found && checkpoint_read_meta(path, &meta, NULL, 0, e) < 0) ||
        history_read(&history, o, e) < 0)
        return -1;
    pages_read(pages);
    report_make(r, o, &meta, &history, pages);
    report_ewc_read(r);
    report_deaths_read(r);
    return 0;
}

static int picture_is_drawn(int result, const struct err *why)
{
    if (result < 0)
        log_warn("A picture of the report is missing: %s", why->text);
    return result > 0;
}

static void pictures_draw(struct report *r)
{
    struct err why = {0};
    r->continual.drawn = picture_is_drawn(continual_draw(&r->continual, &why), &why);
    r->curve_drawn = picture_is_drawn(curve_draw(r->history, &why), &why);
}

static int report_run(const char *run, struct options *o, struct err *e)
{
    static struct report r; /* large */
    char path[4096];
    if (chdir(run) < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot enter the run directory %s", run);
    if (options_read(o, "pipeline.yaml", NULL, 0, e) < 0)
        return err_prefix(e, "%s is no run directory", run);
    if (report_load(&r, o, e) < 0 || file_write(&r, "report/report.json", report_print_json, e) < 0)
        return -1;
    pictures_draw(&r);
    if (file_write(&r, "report/report.md", report_print_markdown, e) < 0)
        return -1;
    report_print_table(&r, stdout);
    if (!realpath("report/report.md", path))
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot find report/report.md again");
    printf("\nreport: %s\n", path);
    return 0;
}

int report_command(const char *run)
{
    static struct options o;
    struct err e = {0};
    int result = report_run(run, &o, &e);
    options_free(&o);
    if (result == 0 && fflush(stdout) == 0)
        return EXIT_CODE_DONE;
    fprintf(stderr, "monitord: %s\n", e.code ? e.text : "cannot write to standard output");
    return e.code ? e.code : EXIT_CODE_TEMPORARY;
}
