/* web_state.c - see web_state.h. */
#include "monitord/web_state.h"

#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "monitord/json.h"
#include "monitord/web_files.h"
#include "proto/daemon.h"
#include "proto/highwater.h"

enum { EPOCHS_SHOWN = 512 };

/* ---- the record ------------------------------------------------------------------------------ */

/* 0: there are none. */
static int64_t options_time_ns(void)
{
    struct stat st;
    return stat("pipeline.yaml", &st) < 0
               ? 0
               : (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
}

/* A journal that is shorter than what was read of it is another one. */
static int journals_are_others(const struct history *h)
{
    char path[64];
    struct stat st;
    for (int i = 0; i < STAGE_COUNT; i++) {
        snprintf(path, sizeof path, "journals/%s", stage_names[i]);
        if (h->places[i].bytes &&
            (stat(path, &st) < 0 || (uint64_t)st.st_size < h->places[i].bytes))
            return 1;
    }
    return 0;
}

void web_record_close(struct web_record *r)
{
    options_free(&r->options);
    r->place = (struct web_place){0, 0};
}

void web_record_read(struct web_record *r)
{
    struct web_place here = web_place_here();
    int64_t time_ns = options_time_ns();
    struct err e = {0};
    if (memcmp(&here, &r->place, sizeof here) != 0 || time_ns != r->options_time_ns ||
        journals_are_others(&r->history)) {
        web_record_close(r);
        history_open(&r->history, &r->options);
        r->place = here;
        r->options_time_ns = time_ns;
        r->unread = (struct err){0};
        options_read(&r->options, "pipeline.yaml", NULL, 0, &r->unread);
    }
    if (r->options.task_count && history_read_on(&r->history, &e) < 0)
        r->unread = e;
}

int web_speaks(const struct web_record *r, const struct web_follow *f)
{
    const double silence_s = 5;
    double limit_s = fmax(silence_s, silence_s * r->options.monitor_sample_s);
    return f->sample_heard[SAMPLE_SYSTEM] &&
           clock_unix_s() - f->samples[SAMPLE_SYSTEM].head.time_s <= limit_s;
}

uint64_t web_planned_bytes(const struct web_record *r, int sample)
{
    const struct msg_event_plan *plan = &r->history.plan;
    for (uint32_t i = 0; i < plan->totals_count; i++)
        if (strcmp(plan->totals[i].stage, sample_name(sample)) == 0)
            return plan->totals[i].bytes;
    return 0;
}

/* ---- pieces of the answer -------------------------------------------------------------------- */

static void verdict_write(struct json *j, const struct web_run *run)
{
    json_str(j, "name", run->name);
    json_bool(j, "live", run->live);
    json_f64(j, "changed_s", run->changed_s);
    if (run->code < 0) {
        json_null(j, "code");
        return;
    }
    json_u64(j, "code", (uint64_t)run->code);
    json_str(j, "sentence", run->sentence);
}

void web_runs_write(const struct web_runs *w, FILE *out)
{
    struct json j;
    json_begin(&j, out);
    json_object(&j, NULL);
    json_list(&j, "runs");
    for (int i = 0; i < w->count; i++) {
        json_object_flat(&j, NULL);
        verdict_write(&j, &w->runs[i]);
        json_end(&j);
    }
    json_end(&j);
    json_u64(&j, "left_out", (uint64_t)w->left_out);
    json_end(&j);
    json_finish(&j);
}

/* The most that a stage has taken so far, as its page of peaks says, helpers included. */
static uint64_t peak_bytes(int stage)
{
    struct highwater_page page;
    struct err unread;
    char path[64];
    snprintf(path, sizeof path, "highwater/%s", stage_names[stage]);
    return highwater_read(path, &page, &unread) < 0 ? 0
                                                    : page.rss_peak_bytes + page.helpers_peak_bytes;
}

/* A measurement of memory, where there is one. */
static void sample_write(struct json *j, const char *key, int sample, const struct web_record *r,
                         const struct web_follow *f)
{
    const struct msg_memory_sample *m = f ? &f->samples[sample] : NULL;
    uint64_t planned = web_planned_bytes(r, sample);
    if (key)
        json_object_flat(j, key);
    if (planned)
        json_u64(j, "planned_bytes", planned);
    if (m && f->sample_heard[sample]) {
        if (sample >= STAGE_COUNT)
            json_u64(j, "peak_bytes", m->peak_bytes);
        json_u64(j, "rss_bytes", m->rss_bytes);
        json_u64(j, "swap_bytes", m->swap_bytes);
        json_u64(j, "heap_bytes", m->heap_bytes);
        json_f64(j, "cpu_s", m->cpu_s);
    }
    if (key)
        json_end(j);
}

static void stages_write(struct json *j, const struct web_record *r, const struct web_follow *f)
{
    json_list(j, "stages");
    for (int i = 0; i < STAGE_COUNT; i++) {
        json_object_flat(j, NULL);
        json_str(j, "name", stage_names[i]);
        json_u64(j, "pid", (uint64_t)run_lock_holder(stage_names[i]));
        json_u64(j, "restarts", r->history.restarts[i]);
        json_u64(j, "peak_bytes", peak_bytes(i));
        sample_write(j, NULL, i, r, f);
        json_end(j);
    }
    json_end(j);
    for (int i = SAMPLE_SYSTEM; i < SAMPLE_SERIES; i++)
        if (f && f->sample_heard[i])
            sample_write(j, sample_name(i), i, r, f);
}

/* A message as tap prints it. */
static void message_write(struct json *j, const char *key, enum msg_type type, const void *m)
{
    msg_print_json(json_value(j, key), type, m);
}

static void series_write(struct json *j, const struct web_series *s)
{
    json_object(j, "series");
    json_f64(j, "began_s", s->began_s);
    json_f64(j, "point_s", s->point_s);
    for (int c = 0; c < WEB_CURVES; c++) {
        json_list_flat(j, web_series_name(c));
        for (int i = 0; i < s->points; i++)
            json_f64(j, NULL, web_series_value(s, c, i));
        json_end(j);
    }
    json_end(j);
}

static void epochs_write(struct json *j, const struct history *h)
{
    uint32_t first = h->epoch_count > EPOCHS_SHOWN ? h->epoch_count - EPOCHS_SHOWN : 0;
    json_u64(j, "epochs_left_out", h->epochs_left + first);
    json_list(j, "epochs");
    for (uint32_t i = first; i < h->epoch_count; i++) {
        const struct history_epoch *e = &h->epochs[i];
        json_object_flat(j, NULL);
        json_str(j, "task", e->task);
        json_u64(j, "epoch", e->epoch);
        json_f64(j, "loss", e->loss);
        json_f64(j, "seconds", e->seconds);
        json_f64(j, "validation_loss", e->validation_loss);
        json_f64(j, "value", e->value);
        json_str(j, "metric", e->metric);
        json_end(j);
    }
    json_end(j);
}

static void said_write(struct json *j, double time_s, const char *kind, const char *text)
{
    json_object_flat(j, NULL);
    json_f64(j, "time_s", time_s);
    json_str(j, "kind", kind);
    json_str(j, "text", text);
    json_end(j);
}

/* What is told in words: of the run itself, and answers to what was asked here. */
static void sentences_write(struct json *j, const struct history *h, const struct web_follow *f)
{
    json_list(j, "sentences");
    for (uint32_t i = 0; i < h->advice_count; i++)
        said_write(j, h->advice[i].head.time_s, "advice", h->advice[i].sentence);
    for (uint32_t i = 0; i < h->decision_count; i++)
        said_write(j, h->decisions[i].head.time_s, h->decisions[i].what, h->decisions[i].sentence);
    for (uint32_t i = 0; i < h->mark_count; i++)
        said_write(j, h->marks[i].head.time_s, "mark", h->marks[i].text);
    for (int i = 0; f && i < f->notice_count; i++)
        said_write(j, f->notices[i].time_s, "answer", f->notices[i].text);
    json_end(j);
}

void web_state_write(const struct web_run *run, const struct web_record *r,
                     const struct web_follow *f, FILE *out)
{
    struct json j;
    json_begin(&j, out);
    json_object(&j, NULL);
    verdict_write(&j, run);
    json_f64(&j, "now_s", clock_unix_s());
    if (r->unread.code)
        json_str(&j, "unread", r->unread.text);
    if (r->history.device.kind[0])
        json_str(&j, "device_name", r->history.device.name);
    json_bool(&j, "estimates", f && f->estimates);
    json_bool(&j, "speaks", f && web_speaks(r, f));
    if (f && f->sample_heard[SAMPLE_SYSTEM])
        json_f64(&j, "measured_s", f->samples[SAMPLE_SYSTEM].head.time_s);
    stages_write(&j, r, f);
    if (f && f->step_heard)
        message_write(&j, "step", MSG_trainer_step, &f->step);
    if (f && f->block_heard)
        message_write(&j, "estimate", MSG_fisher_block, &f->block);
    if (f && f->gpu_heard)
        message_write(&j, "gpu", MSG_gpu_sample, &f->gpu);
    if (f)
        series_write(&j, &f->series);
    epochs_write(&j, &r->history);
    sentences_write(&j, &r->history, f);
    web_files_write(&j);
    json_end(&j);
    json_finish(&j);
}
