/* gpu.c - see gpu.h. */
#include "monitord/gpu.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "proto/daemon.h"
#include "proto/journal.h"
#include "proto/log.h"

static const double every_s = 1, again_s = 60;
static const double look_share = 0.01; /* of the time may go into looking */

void gpu_open(struct gpu *g)
{
    *g = (struct gpu){0};
}

void gpu_close(struct gpu *g)
{
    nvml_close(&g->nvml);
    g->there = 0;
}

/* ---- which GPU ---- */

static void device_keep(struct gpu *g, const struct msg_event_device *m)
{
    const char *bus = strcmp(m->kind, "cpu") != 0 ? m->bus : "";
    if (strcmp(bus, g->bus) != 0)
        gpu_close(g);
    MSG_STR(g->bus, bus);
    g->due_s = 0;
}

static int fact_visit(void *self, enum msg_type type, const union msg *m)
{
    struct gpu *g = self;
    if (type == MSG_event_device && m->head.incarnation == g->incarnation)
        device_keep(g, &m->event_device);
    return 0;
}

void gpu_message(struct gpu *g, enum msg_type type, const union msg *m)
{
    struct err why = {0};
    if (type != MSG_event_device && type != MSG_trainer_step)
        return;
    int known = m->head.incarnation == g->incarnation;
    g->incarnation = m->head.incarnation;
    if (type == MSG_event_device)
        device_keep(g, &m->event_device);
    else if (!known && journal_read("journals/trainerd", fact_visit, g, &why) < 0)
        log_warn("What the training computes on is not known: %s", why.text);
}

/* ---- looking ---- */

static int sample_take(struct gpu *g, struct err *e)
{
    if (!g->nvml.library && nvml_open(&g->nvml, g->bus, e) < 0)
        return -1;
    MSG_STR(g->sample.bus, g->bus);
    return nvml_read(&g->nvml, &g->sample, e);
}

/* It may be over later: a driver that is busy, a GPU that is reset. */
static void failure_tell(struct gpu *g, const struct err *why)
{
    gpu_close(g);
    if (strcmp(g->told.text, why->text) == 0)
        return;
    g->told = *why;
    log_info("bus=%s How the GPU does is not known: %s", g->bus, why->text);
}

int gpu_look(struct gpu *g, int trainerd_runs, double now_s)
{
    struct err why = {0};
    if (!trainerd_runs)
        g->there = 0;
    if (!trainerd_runs || !g->bus[0] || now_s < g->due_s)
        return 0;
    double began_s = clock_monotonic_s();
    int failed = sample_take(g, &why) < 0;
    double took_s = clock_monotonic_s() - began_s;
    g->due_s = now_s + fmax(failed ? again_s : every_s, took_s / look_share);
    g->there = !failed;
    if (failed)
        failure_tell(g, &why);
    return g->there;
}

void gpu_count(struct highwater_page *page, const struct msg_gpu_sample *m)
{
    highwater_mean_add(&page->gpu_utilisation, m->utilisation);
    highwater_mean_add(&page->gpu_used_bytes, m->used_bytes ? (double)m->used_bytes : NAN);
    highwater_mean_add(&page->gpu_temperature_c, m->temperature_c);
    highwater_mean_add(&page->gpu_power_w, m->power_w);
}

/* ---- the log ---- */

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

/* " key=value" behind what is in text, where the value is known. */
static void word_add(char text[GPU_LINE_BYTES], const char *key, int digits, double value)
{
    size_t used = strlen(text);
    if (!isnan(value))
        snprintf(text + used, GPU_LINE_BYTES - used, " %s=%.*f", key, digits, value);
}

static void line_format(const struct gpu *g, const struct msg_trainer_step *m,
                        char text[GPU_LINE_BYTES])
{
    const struct msg_gpu_sample *s = &g->sample;
    snprintf(text, GPU_LINE_BYTES,
             "step=%" PRIu64 " device_mib=%.1f device_peak_mib=%.1f device_free_mib=%.1f", m->step,
             mib(m->device_bytes), mib(m->device_peak_bytes), mib(m->device_free_bytes));
    if (g->there) {
        word_add(text, "utilisation", 2, s->utilisation);
        word_add(text, "used_mib", 1, s->used_bytes ? mib(s->used_bytes) : NAN);
        word_add(text, "temperature_c", 0, s->temperature_c);
        word_add(text, "power_w", 0, s->power_w);
        word_add(text, "clock_mhz", 0, s->clock_mhz);
    }
    strncat(text, " The GPU at this step; device_mib is what trainerd has of its memory.",
            GPU_LINE_BYTES - strlen(text) - 1);
}

/* trainerd goes back to a checkpoint's step when it is started again: those steps are worth lines
 * again. */
int gpu_line(struct gpu *g, const struct msg_trainer_step *m, uint64_t every, double now_s,
             char text[GPU_LINE_BYTES])
{
    if (!every || !m->device_bytes)
        return 0;
    uint64_t lines = m->step / every;
    int due = lines > g->lines && now_s >= g->line_due_s;
    if (lines < g->lines || due)
        g->lines = lines;
    if (!due)
        return 0;
    g->line_due_s = now_s + every_s;
    line_format(g, m, text);
    return 1;
}
