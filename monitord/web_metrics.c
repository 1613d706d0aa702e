/* web_metrics.c - see web_metrics.h. The table below is what there is. */
#include "monitord/web_metrics.h"

#include <math.h>
#include <string.h>

#include "monitord/json.h"
#include "proto/daemon.h"

void web_figures_take(struct web_figures *g, const struct web_record *r, const struct web_follow *f)
{
    const struct history *h = &r->history;
    memset(g, 0, sizeof *g);
    g->follow = f;
    for (int i = 0; i < STAGE_COUNT; i++) {
        g->pids[i] = run_lock_holder(stage_names[i]);
        g->restarts[i] = h->restarts[i];
    }
    for (int i = 0; i < SAMPLE_SERIES; i++)
        g->planned_bytes[i] = web_planned_bytes(r, i);
    g->speaks = web_speaks(r, f);
    g->validation_loss = NAN;
    for (uint32_t i = h->epoch_count; i > 0 && isnan(g->validation_loss); i--)
        g->validation_loss = h->epochs[i - 1].validation_loss;
    g->advice_count = h->advice_count;
}

/* ---- values: NaN is left out ----------------------------------------------------------------- */

static double stage_up(const struct web_figures *g, int i)
{
    return g->pids[i] > 0;
}

static double stage_restarts(const struct web_figures *g, int i)
{
    return g->restarts[i];
}

/* What is no more measured is not told. */
static const struct msg_memory_sample *sample_of(const struct web_figures *g, int i)
{
    int there = g->speaks && g->follow->sample_heard[i] && (i >= STAGE_COUNT || g->pids[i] > 0);
    return there ? &g->follow->samples[i] : NULL;
}

#define SAMPLE_VALUE(name, value)                                                                  \
    static double name(const struct web_figures *g, int i)                                         \
    {                                                                                              \
        const struct msg_memory_sample *m = sample_of(g, i);                                       \
        return m ? (double)(value) : NAN;                                                          \
    }
SAMPLE_VALUE(rss_bytes, m->rss_bytes)
SAMPLE_VALUE(peak_bytes, m->peak_bytes)
SAMPLE_VALUE(swap_bytes, m->swap_bytes)
SAMPLE_VALUE(heap_bytes, m->heap_bytes)
SAMPLE_VALUE(cpu_s, m->cpu_s)

static double planned_bytes(const struct web_figures *g, int i)
{
    return g->planned_bytes[i] ? (double)g->planned_bytes[i] : NAN;
}

/* Steps are told by monitord, and made by trainerd. */
static int is_training(const struct web_figures *g)
{
    return g->speaks && g->pids[stage_index("trainerd")] > 0;
}

/* Of the newest message of a kind: `kind` is its place in struct web_follow. */
#define MESSAGE_VALUE(name, kind, value)                                                           \
    static double name(const struct web_figures *g, int i)                                         \
    {                                                                                              \
        const __typeof__(g->follow->kind) *m = &g->follow->kind;                                   \
        (void)i;                                                                                   \
        return g->follow->kind##_heard && is_training(g) ? (double)(value) : NAN;                  \
    }
MESSAGE_VALUE(step_number, step, m->step)
MESSAGE_VALUE(step_total, step, m->steps)
MESSAGE_VALUE(step_epoch, step, m->epoch)
MESSAGE_VALUE(step_loss, step, m->loss)
MESSAGE_VALUE(step_penalty, step, m->penalty)
MESSAGE_VALUE(step_rate, step, m->learning_rate)
MESSAGE_VALUE(step_norm, step, m->gradient_norm)
MESSAGE_VALUE(step_speed, step, m->steps_per_s)
MESSAGE_VALUE(step_samples, step, m->samples_per_s)
MESSAGE_VALUE(step_wait, step, m->wait_share)
MESSAGE_VALUE(step_eta, step, m->eta_s)
MESSAGE_VALUE(device_free, step, m->device_bytes ? (double)m->device_free_bytes : NAN)

MESSAGE_VALUE(gpu_utilisation, gpu, m->utilisation)
MESSAGE_VALUE(gpu_used, gpu, m->used_bytes ? (double)m->used_bytes : NAN)
MESSAGE_VALUE(gpu_total, gpu, m->total_bytes ? (double)m->total_bytes : NAN)
MESSAGE_VALUE(gpu_temperature, gpu, m->temperature_c)
MESSAGE_VALUE(gpu_power, gpu, m->power_w)

static double epoch_validation(const struct web_figures *g, int i)
{
    (void)i;
    return g->validation_loss;
}

static double advice_given(const struct web_figures *g, int i)
{
    (void)i;
    return g->advice_count;
}

/* ---- the table ------------------------------------------------------------------------------- */

enum of { OF_RUN, OF_STAGE, OF_SYSTEM, OF_CONTAINER, OF_DEVICE };

static const struct figure {
    const char *name, *type, *help;
    enum of of; /* OF_STAGE: a line a stage */
    double (*value)(const struct web_figures *g, int sample);
} table[] = {
    {"stage_up", "gauge", "1: the stage runs", OF_STAGE, stage_up},
    {"stage_restarts_total", "counter", "starts of the stage that followed a death or a restart",
     OF_STAGE, stage_restarts},
    {"stage_resident_bytes", "gauge", "resident memory of the stage and its helpers", OF_STAGE,
     rss_bytes},
    {"stage_resident_peak_bytes", "gauge", "the most of it so far", OF_STAGE, peak_bytes},
    {"stage_planned_bytes", "gauge", "the most that it was planned to take", OF_STAGE,
     planned_bytes},
    {"stage_heap_bytes", "gauge", "of its heap that are in use, helpers not counted", OF_STAGE,
     heap_bytes},
    {"stage_swap_bytes", "gauge", "of its memory that are swapped out", OF_STAGE, swap_bytes},
    {"stage_cpu_seconds_total", "counter", "CPU time of this start of the stage", OF_STAGE, cpu_s},
    {"system_used_bytes", "gauge", "the machine's memory in use", OF_SYSTEM, rss_bytes},
    {"system_total_bytes", "gauge", "the machine's memory", OF_SYSTEM, peak_bytes},
    {"system_swap_bytes", "gauge", "the machine's swap in use", OF_SYSTEM, swap_bytes},
    {"container_used_bytes", "gauge", "memory of the fullest control group with a limit",
     OF_CONTAINER, rss_bytes},
    {"container_limit_bytes", "gauge", "that limit", OF_CONTAINER, peak_bytes},
    {"device_used_bytes", "gauge", "of the GPU's memory that the stages have", OF_DEVICE,
     rss_bytes},
    {"device_used_peak_bytes", "gauge", "the most of it so far", OF_DEVICE, peak_bytes},
    {"device_planned_bytes", "gauge", "the most that was planned", OF_DEVICE, planned_bytes},
    {"device_free_bytes", "gauge", "of the GPU's memory that nobody has", OF_RUN, device_free},
    {"gpu_utilisation_ratio", "gauge", "share of the time in which a kernel ran, whoever's", OF_RUN,
     gpu_utilisation},
    {"gpu_memory_used_bytes", "gauge", "of the GPU's memory, by whatever process", OF_RUN,
     gpu_used},
    {"gpu_memory_total_bytes", "gauge", "memory that the GPU has", OF_RUN, gpu_total},
    {"gpu_temperature_celsius", "gauge", "of the GPU's chip", OF_RUN, gpu_temperature},
    {"gpu_power_watts", "gauge", "of the whole board", OF_RUN, gpu_power},
    {"step", "gauge", "optimizer steps done", OF_RUN, step_number},
    {"steps", "gauge", "optimizer steps of the whole run", OF_RUN, step_total},
    {"epoch", "gauge", "epoch of the task, from 1", OF_RUN, step_epoch},
    {"loss", "gauge", "training loss of a recent step", OF_RUN, step_loss},
    {"penalty", "gauge", "EWC penalty of a recent step", OF_RUN, step_penalty},
    {"learning_rate", "gauge", "of a recent step", OF_RUN, step_rate},
    {"gradient_norm", "gauge", "of a recent step, before clipping", OF_RUN, step_norm},
    {"steps_per_second", "gauge", "over the last second", OF_RUN, step_speed},
    {"samples_per_second", "gauge", "over the last second", OF_RUN, step_samples},
    {"wait_ratio", "gauge", "share of that time spent waiting for data", OF_RUN, step_wait},
    {"remaining_seconds", "gauge", "estimated time left of the whole run", OF_RUN, step_eta},
    {"validation_loss", "gauge", "of the newest epoch that was evaluated", OF_RUN,
     epoch_validation},
    {"advice", "gauge", "pieces of advice given in the run, 64 at most", OF_RUN, advice_given},
};

/* A label's value: quoted, with what would end it escaped. */
static void label_write(const char *name, const char *value, FILE *out)
{
    fprintf(out, "%s=\"", name);
    for (; *value; value++) {
        if (*value == '\n')
            fputs("\\n", out);
        else if (*value == '"' || *value == '\\')
            fprintf(out, "\\%c", *value);
        else
            fputc(*value, out);
    }
    fputc('"', out);
}

static void value_write(const struct figure *f, const struct web_figures *g, int sample, FILE *out)
{
    double value = f->value(g, sample);
    if (isnan(value))
        return;
    fprintf(out, "finetuned_%s{", f->name);
    label_write("run", g->follow->name, out);
    if (f->of == OF_STAGE) {
        fputc(',', out);
        label_write("stage", stage_names[sample], out);
    }
    fputs("} ", out);
    if (isinf(value))
        fputs(value < 0 ? "-Inf" : "+Inf", out);
    else
        json_number(out, value);
    fputc('\n', out);
}

/* The samples that it is about: from *first on as many. */
static int samples_of(enum of of, int *first)
{
    static const int shared[] = {
        [OF_SYSTEM] = SAMPLE_SYSTEM,
        [OF_CONTAINER] = SAMPLE_CONTAINER,
        [OF_DEVICE] = SAMPLE_DEVICE,
    };
    *first = of == OF_RUN || of == OF_STAGE ? 0 : shared[of];
    return of == OF_STAGE ? STAGE_COUNT : 1;
}

static const char exit_name[] = "run_exit_code";
static const char exit_help[] =
    "with which a run has ended by itself in the last hour; 0: done, 75: its time is over";

static void endings_write(const struct web_runs *w, FILE *out)
{
    const double told_s = 3600;
    double now_s = clock_unix_s();
    fprintf(out, "# HELP finetuned_%s %s\n# TYPE finetuned_%s gauge\n", exit_name, exit_help,
            exit_name);
    for (int i = 0; i < w->count; i++) {
        const struct web_run *r = &w->runs[i];
        if (r->live || r->code < 0 || now_s - r->changed_s > told_s)
            continue;
        fprintf(out, "finetuned_%s{", exit_name);
        label_write("run", r->name, out);
        fprintf(out, "} %d\n", r->code);
    }
}

void web_metrics_write(const struct web_figures *figures, int count, const struct web_runs *w,
                       FILE *out)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct figure *f = &table[i];
        int first, samples = samples_of(f->of, &first);
        fprintf(out, "# HELP finetuned_%s %s\n# TYPE finetuned_%s %s\n", f->name, f->help, f->name,
                f->type);
        for (int r = 0; r < count; r++)
            for (int s = first; s < first + samples; s++)
                value_write(f, &figures[r], s, out);
    }
    endings_write(w, out);
}

void web_metrics_reference(FILE *out)
{
    fputs("# Figures for Prometheus\n\nMade by `make docs` from monitord/web_metrics.c. "
          "`pipelines/web.sh` serves them at `/metrics` ([MONITORING](MONITORING.md)), of each\n"
          "live run, named by the label `run`. What is not known is left out, and what monitord "
          "measures while "
          "it does not.\n\n"
          "| name | type | labels | meaning |\n|---|---|---|---|\n",
          out);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        fprintf(out, "| `finetuned_%s` | %s | %s | %s |\n", table[i].name, table[i].type,
                table[i].of == OF_STAGE ? "`run`, `stage`" : "`run`", table[i].help);
    fprintf(out, "| `finetuned_%s` | gauge | `run` | %s |\n", exit_name, exit_help);
}
