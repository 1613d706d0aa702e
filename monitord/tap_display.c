/* tap_display.c - see tap_display.h; tap.c feeds it.
 *
 * The progress line is about training or, while fisherd estimates and training waits, about the
 * estimate: whichever spoke last. A stage has restarted when it speaks, or is measured, under
 * another pid than the one known: its first words are lost where it spoke before monitord's socket
 * had found it again.
 */
#include "monitord/tap_display.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "proto/metric.h"

enum { LINE_BYTES_MAX = 1536, BAR_COLUMNS_MAX = 30, BAR_COLUMNS_MIN = 5 };

static const double TERMINAL_PERIOD_S = 0.1, PLAIN_PERIOD_S = 2.0;

void display_open(struct display *d, FILE *out, int terminal)
{
    *d = (struct display){
        .out = out, .terminal = terminal, .latest = MSG_COUNT, .gpu_utilisation = NAN};
}

/* Text from messages must not steer the terminal: control characters become '?'. */
static void text_clean(char *text)
{
    for (unsigned char *s = (unsigned char *)text; *s; s++) {
        int c1 = s[0] == 0xc2 && s[1] >= 0x80 && s[1] < 0xa0; /* U+0080 to U+009F */
        if (*s < 0x20 || *s == 0x7f)
            *s = '?';
        else if (c1)
            s[0] = s[1] = '?';
    }
}

/* Writes one line that stays, above the progress line. */
static void line_write(struct display *d, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void line_write(struct display *d, const char *format, ...)
{
    char line[LINE_BYTES_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    text_clean(line);
    fprintf(d->out, "%s%s\n", d->drawn ? "\r\033[K" : "", line);
    fflush(d->out);
    if (d->drawn)
        d->changed = 1, d->drawn_s = 0; /* draw it again below */
    d->drawn = 0;
}

/* The entry of the stage called `name`, made when it is new; NULL when there is no room. */
static struct display_stage *stage_find(struct display *d, const char *name)
{
    for (int i = 0; i < d->stage_count; i++)
        if (strcmp(d->stages[i].name, name) == 0)
            return &d->stages[i];
    if (d->stage_count == DISPLAY_STAGES_MAX)
        return NULL;
    struct display_stage *stage = &d->stages[d->stage_count++];
    snprintf(stage->name, sizeof stage->name, "%s", name);
    return stage;
}

static void pid_seen(struct display *d, struct display_stage *stage, uint64_t pid)
{
    if (stage->pid != 0 && stage->pid != pid)
        line_write(d, "%s restarted (process %" PRIu64 ")", stage->name, pid);
    stage->pid = pid;
}

static void stage_event(struct display *d, const struct msg_event_stage *m)
{
    struct display_stage *stage = stage_find(d, m->stage);
    int failed = strcmp(m->what, "fail") == 0;
    /* A stop is somebody's wish; a permanent failure and the time limit are the run's verdict,
     * which says it itself. */
    if (failed && m->code != EXIT_CODE_PERMANENT && m->code != EXIT_CODE_PAUSED)
        line_write(d, "%s failed with code %" PRIu64 ": %s", m->stage, m->code, m->sentence);
    if (!stage)
        return;
    if (strcmp(m->what, "start") == 0)
        pid_seen(d, stage, m->pid);
    if (failed || strcmp(m->what, "stop") == 0)
        stage->rss_bytes = 0;
}

/* While one of them is away, as at the end of a run, the others are not the whole. */
static void memory_sum(struct display *d)
{
    uint64_t bytes = 0;
    for (int i = 0; i < d->stage_count; i++) {
        if (!d->stages[i].rss_bytes)
            return;
        bytes += d->stages[i].rss_bytes;
    }
    d->memory_bytes = bytes;
}

static void stage_sample(struct display *d, const struct msg_memory_sample *m)
{
    if (m->pid == 0)
        return; /* no stage: the machine, its container, a GPU's memory */
    struct display_stage *stage = stage_find(d, m->stage);
    if (!stage)
        return;
    pid_seen(d, stage, m->pid);
    stage->rss_bytes = m->rss_bytes;
    memory_sum(d);
}

static void task_event(struct display *d, const struct msg_event_task *m)
{
    if (strcmp(m->what, "task-start") == 0)
        line_write(d, "task %s starts", m->task);
    else if (strcmp(m->what, "task-end") == 0)
        line_write(d, "task %s is done after %" PRIu64 " epochs", m->task, m->epoch);
    else if (m->seconds > 0)
        line_write(d,
                   "%s epoch %" PRIu64 ": loss %.4f, %" PRIu64
                   " rows in %.1f s (%.0f rows/s, %.0f %% of it waiting for data)",
                   m->task, m->epoch, m->loss, m->rows, m->seconds, (double)m->rows / m->seconds,
                   100 * m->wait_seconds / m->seconds);
    else
        line_write(d, "%s epoch %" PRIu64 ": loss %.4f", m->task, m->epoch, m->loss);
}

void display_message(struct display *d, enum msg_type type, const union msg *m)
{
    const struct msg_trainer_evaluation *evaluation = &m->trainer_evaluation;
    char value[METRIC_TEXT_MAX];
    switch (type) {
    case MSG_trainer_step:
        d->step = m->trainer_step;
        d->latest = type;
        d->changed = 1;
        break;
    case MSG_fisher_block:
        d->block = m->fisher_block;
        d->latest = type;
        d->changed = 1;
        break;
    case MSG_trainer_evaluation:
        line_write(d, "%s after %s epoch %" PRIu64 ": %s %s, loss %.4f%s", evaluation->task,
                   evaluation->after, evaluation->epoch, evaluation->metric,
                   metric_format(value, evaluation->metric, evaluation->value), evaluation->loss,
                   evaluation->final ? " (final)" : "");
        break;
    case MSG_event_task:
        task_event(d, &m->event_task);
        break;
    case MSG_event_training:
        if (strcmp(m->event_training.what, "time") != 0) /* the verdict says it */
            line_write(d, "%s: %s", m->event_training.what, m->event_training.sentence);
        break;
    case MSG_event_determinism:
        line_write(d, "not reproduced: %s", m->event_determinism.sentence);
        break;
    case MSG_memory_advice:
        line_write(d, "advice: %s", m->memory_advice.sentence);
        break;
    case MSG_event_mark:
        line_write(d, "mark (%s): %s", m->event_mark.stage, m->event_mark.text);
        break;
    case MSG_event_pretrained:
        line_write(d, "task %s begins with %" PRIu64 " tensors of %s; fresh: %s",
                   m->event_pretrained.task, m->event_pretrained.taken, m->event_pretrained.file,
                   m->event_pretrained.fresh[0] ? m->event_pretrained.fresh : "none");
        break;
    case MSG_event_device:
        d->gpu_utilisation = NAN; /* of another trainerd's */
        if (strcmp(m->event_device.kind, "cpu") != 0)
            line_write(d, "computing on %s:%" PRIu64 ", %s, %" PRIu64 " MiB", m->event_device.kind,
                       m->event_device.index, m->event_device.name,
                       m->event_device.memory_bytes >> 20);
        break;
    case MSG_event_stage:
        stage_event(d, &m->event_stage);
        break;
    case MSG_gpu_sample:
        d->gpu_utilisation = m->gpu_sample.utilisation;
        break;
    case MSG_memory_sample:
        stage_sample(d, &m->memory_sample);
        break;
    default: /* requests and answers are not on the stream; spans and checkpoints say too much */
        break;
    }
}

void display_death(struct display *d, const char *line)
{
    int code, at = 0;
    if (sscanf(line, "%*s %*s %d %n", &code, &at) == 1 && at > 0 && code >= 256)
        line_write(d, "%s", line + at);
}

static void eta_format(char *text, size_t bytes, double eta_s)
{
    if (!isfinite(eta_s) || eta_s < 0 || eta_s > 1e9) {
        snprintf(text, bytes, "?");
        return;
    }
    unsigned long s = (unsigned long)(eta_s + 0.5);
    if (s >= 3600)
        snprintf(text, bytes, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text, bytes, "%lu:%02lu", s / 60, s % 60);
}

static double memory_mib(const struct display *d)
{
    return (double)d->memory_bytes / 1048576;
}

static double part_of(double done, double all)
{
    double part = all > 0 ? done / all : 0;
    return part > 1 ? 1 : part;
}

/* What the progress line says, from everything to what fits a narrow terminal. */
enum detail { DETAIL_FULL, DETAIL_SHORT, DETAIL_NO_RATE, DETAIL_NO_MEMORY };

static void estimate_format(const struct display *d, enum detail detail, char *line, size_t bytes)
{
    const struct msg_fisher_block *b = &d->block;
    char left[32], memory[48] = "";
    eta_format(left, sizeof left, b->eta_s);
    if (memory_mib(d) > 0 && detail < DETAIL_NO_MEMORY)
        snprintf(memory, sizeof memory, detail ? " %.0f MiB" : "  memory %.0f MiB", memory_mib(d));
    snprintf(line, bytes,
             detail ? "%s Fisher %" PRIu64 "/%" PRIu64 " %" PRIu64 "/%" PRIu64 "%s left %s"
                    : "%s Fisher  block %" PRIu64 "/%" PRIu64 "  sample %" PRIu64 "/%" PRIu64
                      "%s  left %s",
             b->task, b->block, b->blocks, b->samples_done, b->samples, memory, left);
}

static void device_format(const struct display *d, char *text, size_t bytes)
{
    int used = snprintf(text, bytes, "  device %.0f MiB", (double)d->step.device_bytes / 1048576);
    if (!isnan(d->gpu_utilisation))
        snprintf(text + used, bytes - (size_t)used, ", %.0f %% busy", 100 * d->gpu_utilisation);
}

static void step_format(const struct display *d, enum detail detail, char *line, size_t bytes)
{
    const struct msg_trainer_step *s = &d->step;
    char left[32], memory[48] = "", device[48] = "", rate[48] = "", penalty[48] = "";
    eta_format(left, sizeof left, s->eta_s);
    if (memory_mib(d) > 0 && detail < DETAIL_NO_MEMORY)
        snprintf(memory, sizeof memory, detail ? " %.0f MiB" : "  memory %.0f MiB", memory_mib(d));
    if (s->device_bytes && detail == DETAIL_FULL)
        device_format(d, device, sizeof device);
    if (detail < DETAIL_NO_RATE)
        snprintf(rate, sizeof rate, detail ? " rate %.3g" : "  rate %.3g", s->learning_rate);
    if (s->penalty > 0 && detail == DETAIL_FULL)
        snprintf(penalty, sizeof penalty, "  penalty %.4f", s->penalty);
    snprintf(line, bytes,
             detail ? "%s %" PRIu64 "/%" PRIu64 " %" PRIu64 "/%" PRIu64
                      " %.0f it/s loss %.4f%s%s%s%s left %s"
                    : "%s epoch %" PRIu64 "/%" PRIu64 "  step %" PRIu64 "/%" PRIu64
                      "  %.0f it/s  loss %.4f%s%s%s%s  left %s",
             s->task, s->epoch, s->epochs, s->step, s->steps, s->steps_per_s, s->loss, penalty,
             rate, memory, device, left);
}

/* The share that is done, 0 to 1. */
static double progress_part(const struct display *d)
{
    const struct msg_fisher_block *b = &d->block;
    if (d->latest != MSG_fisher_block)
        return part_of((double)d->step.step, (double)d->step.steps);
    return part_of((double)b->samples_done, (double)b->samples);
}

/* A bar of so many columns; only the percentage when they are too few. */
static void bar_format(char *bar, size_t bytes, double part, int columns)
{
    char cells[BAR_COLUMNS_MAX + 1];
    if (columns > BAR_COLUMNS_MAX)
        columns = BAR_COLUMNS_MAX;
    if (columns < BAR_COLUMNS_MIN) {
        snprintf(bar, bytes, "%3.0f %%  ", 100 * part);
        return;
    }
    for (int i = 0; i < columns; i++)
        cells[i] = (double)i < part * columns ? '#' : '.';
    cells[columns] = '\0';
    snprintf(bar, bytes, "[%s] %3.0f %%  ", cells, 100 * part);
}

static void progress_draw(struct display *d, int columns)
{
    char line[LINE_BYTES_MAX], bar[64], whole[LINE_BYTES_MAX + 64];
    int bar_room, room; /* for the cells of a bar; beside the percentage alone */
    for (int detail = DETAIL_FULL; detail <= DETAIL_NO_MEMORY; detail++) {
        (d->latest == MSG_fisher_block ? estimate_format : step_format)(d, detail, line,
                                                                        sizeof line);
        /* The NUL of these stands for the last column, left empty. */
        bar_room = columns - (int)strlen(line) - (int)sizeof "[] 100 %  ";
        room = columns - (int)strlen(line) - (int)sizeof "100 %  ";
        if (!d->terminal || bar_room >= BAR_COLUMNS_MIN || (detail && room >= 0))
            break;
    }
    bar_format(bar, sizeof bar, progress_part(d), d->terminal ? bar_room : 0);
    snprintf(whole, sizeof whole, "%s%s", bar, line);
    text_clean(whole);
    if (d->terminal)
        fprintf(d->out, "\r%.*s\033[K", columns > 1 ? columns - 1 : 1, whole);
    else
        fprintf(d->out, "%s\n", whole);
    fflush(d->out);
    d->drawn = d->terminal;
    d->changed = 0;
}

void display_tick(struct display *d, double now_s, int columns)
{
    if (!d->changed || d->latest == MSG_COUNT ||
        now_s - d->drawn_s < (d->terminal ? TERMINAL_PERIOD_S : PLAIN_PERIOD_S))
        return;
    progress_draw(d, columns);
    d->drawn_s = now_s;
}

void display_close(struct display *d, int columns)
{
    if (d->changed && d->latest != MSG_COUNT)
        progress_draw(d, columns);
    if (d->drawn)
        fputc('\n', d->out);
    fflush(d->out);
    d->drawn = 0;
}
