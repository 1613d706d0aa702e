/* profile.c - collects samples and writes the JSON side of the memory profile; see profile.h. */
#include "monitord/profile.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "monitord/json.h"
#include "proto/durable.h"
#include "proto/journal.h"

static const double write_every_s = 10;
static const double write_share = 0.01; /* of the time may go into rewriting, when files grow */
static const double before_s = 5; /* stages that started with us may have been a little earlier */

void profile_open(struct profile *p, const char *name, double sample_s, double now_unix_s)
{
    time_t second = (time_t)now_unix_s;
    struct tm tm;
    *p = (struct profile){.began_unix_s = now_unix_s,
                          .sample_s = sample_s,
                          .write_due_s = write_every_s,
                          .row_samples = 1};
    snprintf(p->name, sizeof p->name, "%s", name);
    localtime_r(&second, &tm);
    strftime(p->base, sizeof p->base, "logs/memory_profile/memory_profile_%Y%m%d_%H%M%S", &tm);
}

/* ---- samples ---- */

static void row_join(struct profile_row *into, const struct profile_row *from)
{
    for (int i = 0; i < SAMPLE_SERIES; i++)
        if (from->rss_bytes[i] > into->rss_bytes[i])
            into->rss_bytes[i] = from->rss_bytes[i];
    if (from->together_bytes > into->together_bytes)
        into->together_bytes = from->together_bytes;
    into->gpu_sum += from->gpu_sum;
    into->gpu_count += from->gpu_count;
}

double profile_gpu(const struct profile_row *row)
{
    return row->gpu_count ? row->gpu_sum / row->gpu_count : NAN;
}

int profile_has_gpu(const struct profile *p)
{
    for (uint32_t i = 0; i < profile_rows(p); i++)
        if (p->rows[i].gpu_count)
            return 1;
    return 0;
}

/* The open row goes on: it covers as many samples as the others. */
static void rows_halve(struct profile *p)
{
    for (uint32_t i = 0; i < p->row_count / 2; i++) {
        p->rows[i] = p->rows[2 * i];
        row_join(&p->rows[i], &p->rows[2 * i + 1]);
    }
    p->rows[p->row_count / 2] = p->rows[p->row_count];
    p->row_count /= 2;
    p->row_samples *= 2;
}

void profile_add(struct profile *p, const struct sample_round *round)
{
    struct profile_row row = {.time_s = round->unix_s - p->began_unix_s};
    struct profile_row *open = &p->rows[p->row_count];
    for (int i = 0; i < SAMPLE_SERIES; i++)
        row.rss_bytes[i] = round->there[i] ? round->of[i].rss_bytes : 0;
    for (int i = 0; i < STAGE_COUNT; i++)
        row.together_bytes += row.rss_bytes[i];
    if (round->gpu_there && !isnan(round->gpu.utilisation)) {
        row.gpu_sum = round->gpu.utilisation;
        row.gpu_count = 1;
    }
    if (p->open_samples++ == 0)
        *open = row;
    else
        row_join(open, &row);
    if (p->open_samples == p->row_samples && p->row_count == PROFILE_ROWS_MAX)
        rows_halve(p);
    if (p->open_samples < p->row_samples)
        return;
    p->row_count++;
    p->open_samples = 0;
}

uint64_t profile_peak(const struct profile *p, int series)
{
    uint64_t peak = 0;
    for (uint32_t i = 0; i < profile_rows(p); i++) {
        const struct profile_row *row = &p->rows[i];
        uint64_t value = series < SAMPLE_SERIES ? row->rss_bytes[series] : row->together_bytes;
        if (value > peak)
            peak = value;
    }
    return peak;
}

/* ---- events ---- */

struct collecting {
    struct profile *profile;
    const char *stage;
    uint64_t launch; /* of the last start seen */
    int starts;      /* seen in it */
};

uint32_t profile_events(const struct profile *p, const char *what)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < p->event_count; i++)
        count += strcmp(p->events[i].what, what) == 0;
    return count;
}

/* Every second one of those that may be many, and of which there are most, goes when there is no
 * room. */
static void events_thin(struct profile *p)
{
    static const char *const kinds[] = {"checkpoint", "epoch-end", "mark", "micro-batch"};
    const char *many = kinds[0];
    uint32_t kept = 0, of_many = 0;
    for (size_t i = 1; i < sizeof kinds / sizeof kinds[0]; i++)
        if (profile_events(p, kinds[i]) > profile_events(p, many))
            many = kinds[i];
    for (uint32_t i = 0; i < p->event_count; i++)
        if (strcmp(p->events[i].what, many) != 0 || of_many++ % 2 == 0)
            p->events[kept++] = p->events[i];
    p->events_dropped += p->event_count - kept;
    p->event_count = kept;
}

static void event_add(struct collecting *c, double unix_s, const char *what, const char *label)
{
    struct profile *p = c->profile;
    double time_s = unix_s - p->began_unix_s;
    if (!(time_s > -before_s))
        return; /* of an earlier launch, or before monitord was restarted */
    if (p->event_count == PROFILE_EVENTS_MAX)
        events_thin(p);
    if (p->event_count == PROFILE_EVENTS_MAX) {
        p->events_dropped++;
        return;
    }
    struct profile_event *v = &p->events[p->event_count++];
    v->time_s = time_s;
    snprintf(v->stage, sizeof v->stage, "%s", c->stage);
    snprintf(v->what, sizeof v->what, "%s", what);
    snprintf(v->label, sizeof v->label, "%s", label);
}

static void stage_event(struct collecting *c, const struct msg_event_stage *m)
{
    char label[64];
    if (strcmp(m->what, "start") != 0)
        return;
    if (m->launch == 0 || m->launch != c->launch)
        c->starts = 0;
    c->launch = m->launch;
    int restart = c->starts++ > 0;
    snprintf(label, sizeof label, "%s %s", c->stage, restart ? "restarted" : "started");
    event_add(c, m->head.time_s, restart ? "restart" : "start", label);
}

static int event_visit(void *self, enum msg_type type, const union msg *m)
{
    struct collecting *c = self;
    char label[96];
    if (type == MSG_event_stage) {
        stage_event(c, &m->event_stage);
    } else if (type == MSG_event_task) {
        const struct msg_event_task *t = &m->event_task;
        if (strcmp(t->what, "epoch-end") == 0)
            snprintf(label, sizeof label, "%s epoch %llu", t->task, (unsigned long long)t->epoch);
        else
            snprintf(label, sizeof label, "%s", t->task);
        event_add(c, m->head.time_s, t->what, label);
    } else if (type == MSG_trainer_checkpoint) {
        snprintf(label, sizeof label, "step %llu", (unsigned long long)m->trainer_checkpoint.step);
        event_add(c, m->head.time_s, "checkpoint", label);
    } else if (type == MSG_memory_advice) {
        snprintf(label, sizeof label, "advice: %s", m->memory_advice.what);
        event_add(c, m->head.time_s, "advice", label);
    } else if (type == MSG_event_training && strcmp(m->event_training.what, "micro-batch") == 0) {
        event_add(c, m->head.time_s, "micro-batch", "another micro-batch");
    } else if (type == MSG_event_mark) {
        event_add(c, m->head.time_s, "mark", m->event_mark.text);
    } else if (type == MSG_event_determinism) {
        event_add(c, m->head.time_s, "determinism", "a recomputed step differs");
    }
    return 0;
}

static int event_order(const void *a, const void *b)
{
    double x = ((const struct profile_event *)a)->time_s;
    double y = ((const struct profile_event *)b)->time_s;
    return (x > y) - (x < y);
}

static int events_collect(struct profile *p, struct err *e)
{
    p->event_count = p->events_dropped = 0;
    for (int i = 0; i < STAGE_COUNT; i++) {
        char path[64];
        struct collecting c = {.profile = p, .stage = stage_names[i]};
        snprintf(path, sizeof path, "journals/%s", stage_names[i]);
        if (journal_read(path, event_visit, &c, e) < 0)
            return -1;
    }
    qsort(p->events, p->event_count, sizeof *p->events, event_order);
    return 0;
}

/* ---- the file ---- */

static void row_write(struct json *j, const struct profile_row *row)
{
    json_object_flat(j, NULL);
    json_fixed(j, "t", row->time_s, 3);
    for (int i = 0; i < SAMPLE_SERIES; i++) {
        if (row->rss_bytes[i])
            json_u64(j, sample_name(i), row->rss_bytes[i]);
        else
            json_null(j, sample_name(i));
    }
    json_fixed(j, "gpu_utilisation", profile_gpu(row), 3);
    json_end(j);
}

static void event_write(struct json *j, const struct profile_event *v)
{
    json_object_flat(j, NULL);
    json_fixed(j, "t", v->time_s, 3);
    json_str(j, "stage", v->stage);
    json_str(j, "what", v->what);
    json_str(j, "label", v->label);
    json_end(j);
}

static void profile_print(const struct profile *p, FILE *out)
{
    struct json j;
    json_begin(&j, out);
    json_object(&j, NULL);
    json_str(&j, "name", p->name);
    json_fixed(&j, "began_unix_s", p->began_unix_s, 3);
    json_f64(&j, "row_s", p->sample_s * p->row_samples);
    json_str(&j, "unit",
             "bytes of resident memory, of system and container: in use, of device: of a GPU's; "
             "null: not "
             "running, or none; t: seconds since the beginning; gpu_utilisation: share of the time "
             "in which a kernel ran on the GPU, 0 to 1");
    json_object(&j, "peak_bytes");
    for (int i = 0; i < SAMPLE_SERIES; i++)
        json_u64(&j, sample_name(i), profile_peak(p, i));
    json_u64(&j, "stages_together", profile_peak(p, SAMPLE_SERIES));
    json_end(&j);
    json_u64(&j, "events_dropped", p->events_dropped);
    json_list(&j, "events");
    for (uint32_t i = 0; i < p->event_count; i++)
        event_write(&j, &p->events[i]);
    json_end(&j);
    json_list(&j, "samples");
    for (uint32_t i = 0; i < profile_rows(p); i++)
        row_write(&j, &p->rows[i]);
    json_end(&j);
    json_end(&j);
    json_finish(&j);
}

int profile_due(const struct profile *p, double now_unix_s)
{
    return now_unix_s - p->began_unix_s >= p->write_due_s;
}

static double monotonic_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int profile_write(struct profile *p, double now_unix_s, struct err *e)
{
    char path[sizeof p->base + 8], *text = NULL;
    size_t bytes = 0;
    double started_s = monotonic_s();
    int result = -1;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot write the memory profile");
    if (events_collect(p, e) == 0) {
        profile_print(p, out);
        result = 0;
    }
    if (fclose(out) != 0 && result == 0)
        result = err_errno(e, EXIT_CODE_TEMPORARY, "cannot write the memory profile");
    snprintf(path, sizeof path, "%s.json", p->base);
    if (result == 0)
        result = durable_write(path, text, bytes, e);
    free(text);
    double took_s = monotonic_s() - started_s;
    p->write_due_s = now_unix_s - p->began_unix_s + fmax(write_every_s, took_s / write_share);
    return result;
}
