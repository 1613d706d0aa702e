/* report_write.c - the report as JSON, as Markdown and as a short table; see report.h. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "monitord/json.h"
#include "monitord/report.h"
#include "proto/epochs.h"
#include "proto/metric.h"

static const double mebibyte = 1 << 20;

static uint64_t peak_bytes(const struct report *r, int stage)
{
    return r->pages[stage].rss_peak_bytes + r->pages[stage].helpers_peak_bytes;
}

/* A receipt as it is shown: the epoch of a task (from 1) where the rows were trained on, else its
 * number in the stream; the times as shares of their sum. */
struct receipt_view {
    const char *task; /* NULL: none */
    uint64_t epoch;
    double read, decode, credit;
};

static struct receipt_view receipt_view(const struct report *r, const struct msg_loader_receipt *m)
{
    double sum = m->read_s + m->decode_s + m->credit_s, scale = sum > 0 ? 1 / sum : 0;
    struct receipt_view v = {NULL, m->epoch, m->read_s * scale, m->decode_s * scale,
                             m->credit_s * scale};
    uint64_t epoch;
    uint32_t task = epochs_key_split(m->epoch, &epoch);
    if (strcmp(m->consumer, "trainer.train") == 0 && task < r->options->task_count) {
        v.task = r->options->tasks[task].name;
        v.epoch = epoch + 1;
    }
    return v;
}

static const char *receipt_of(const struct msg_loader_receipt *m)
{
    return m->whole ? "whole" : "part";
}

/* ---- report.json ---- */

static void json_tasks(const struct report *r, struct json *j)
{
    json_list(j, "tasks");
    for (uint32_t i = 0; i < r->task_count; i++) {
        const struct report_task *t = &r->tasks[i];
        json_object_flat(j, NULL);
        json_str(j, "name", t->name);
        json_str(j, "metric", t->metric[0] ? t->metric : NULL);
        json_f64(j, "after_own_training", t->after_own_training);
        json_f64(j, "final", t->final);
        json_f64(j, "final_without_ewc", t->final_without_ewc);
        json_end(j);
    }
    json_end(j);
}

/* Of a GPU's memory: what it has, the plan's most at a time, and the most that each stage had. */
static void json_device(const struct report *r, struct json *j)
{
    json_object_flat(j, "device");
    for (int i = 0; i < STAGE_COUNT; i++)
        if (r->pages[i].device_peak_bytes)
            json_u64(j, stage_names[i], r->pages[i].device_peak_bytes);
    if (r->plan_device_bytes) {
        json_u64(j, "plan", r->plan_device_bytes);
        json_u64(j, "total", r->history->device.memory_bytes);
    }
    json_end(j);
}

/* Of the host's memory: what each stage had page-locked for the GPU at most. */
static void json_locked(const struct report *r, struct json *j)
{
    json_object_flat(j, "page_locked");
    for (int i = 0; i < STAGE_COUNT; i++)
        if (r->pages[i].locked_peak_bytes)
            json_u64(j, stage_names[i], r->pages[i].locked_peak_bytes);
    json_end(j);
}

static void json_memory(const struct report *r, struct json *j)
{
    json_object(j, "memory");
    json_object_flat(j, "peak"); /* resident bytes; of helpers, the private ones */
    for (int i = 0; i < STAGE_COUNT; i++)
        json_u64(j, stage_names[i], peak_bytes(r, i));
    json_end(j);
    json_u64(j, "arena_bytes", r->arena_bytes);
    json_object_flat(j, "plan"); /* bytes at most at a time */
    for (int i = 0; i < STAGE_COUNT; i++)
        if (r->plan_bytes[i])
            json_u64(j, stage_names[i], r->plan_bytes[i]);
    json_end(j);
    json_device(r, j);
    json_locked(r, j);
    json_list(j, "plan_rows");
    for (uint32_t i = 0; i < r->history->plan.rows_count; i++) {
        const struct msg_plan_row *row = &r->history->plan.rows[i];
        json_object_flat(j, NULL);
        json_str(j, "stage", row->stage);
        json_str(j, "what", row->what);
        json_u64(j, "bytes", row->bytes);
        json_end(j);
    }
    json_end(j);
    json_end(j);
}

static void json_epochs(const struct report *r, struct json *j)
{
    json_u64(j, "epochs_left_out", r->history->epochs_left); /* before those that follow */
    json_list(j, "epochs");
    for (uint32_t i = 0; i < r->history->epoch_count; i++) {
        const struct history_epoch *v = &r->history->epochs[i];
        json_object_flat(j, NULL);
        json_str(j, "task", v->task);
        json_u64(j, "epoch", v->epoch);
        json_f64(j, "loss", v->loss);
        json_f64(j, "validation_loss", v->validation_loss);
        json_str(j, "metric", v->metric[0] ? v->metric : NULL);
        json_f64(j, "value", v->value);
        json_end(j);
    }
    json_end(j);
}

static void json_receipts(const struct report *r, struct json *j)
{
    json_list(j, "receipts"); /* the newest last */
    for (uint32_t i = 0; i < r->history->receipt_count; i++) {
        const struct msg_loader_receipt *m = &r->history->receipts[i];
        struct receipt_view v = receipt_view(r, m);
        json_object_flat(j, NULL);
        json_str(j, "consumer", m->consumer);
        json_str(j, "split", m->split);
        json_str(j, "task", v.task);
        json_u64(j, "epoch", v.epoch);
        json_str(j, "of", receipt_of(m));
        json_u64(j, "first_span", m->first_span);
        json_u64(j, "spans", m->spans);
        json_u64(j, "rows", m->rows);
        json_str(j, "digest", m->digest);
        json_u64(j, "bytes_read", m->bytes_read);
        json_u64(j, "bytes_decoded", m->bytes_decoded);
        json_f64(j, "amplification", m->amplification);
        json_fixed(j, "read_s", m->read_s, 6);
        json_fixed(j, "decode_s", m->decode_s, 6);
        json_fixed(j, "credit_s", m->credit_s, 6);
        json_fixed(j, "read_share", v.read, 4);
        json_fixed(j, "decode_share", v.decode, 4);
        json_fixed(j, "credit_share", v.credit, 4);
        json_end(j);
    }
    json_end(j);
}

static void json_pretrained(const struct report *r, struct json *j)
{
    const struct msg_event_pretrained *m = &r->history->pretrained;
    if (!m->file[0]) {
        json_null(j, "pretrained");
        return;
    }
    json_object(j, "pretrained");
    json_str(j, "file", m->file);
    json_str(j, "sha256", m->sha256);
    json_u64(j, "tensors_taken", m->taken);
    json_str(j, "fresh", m->fresh);
    json_str(j, "unused", m->unused);
    json_end(j);
}

static void json_decisions(const struct report *r, struct json *j)
{
    json_list(j, "decisions");
    for (uint32_t i = 0; i < r->history->decision_count; i++) {
        const struct msg_event_training *m = &r->history->decisions[i];
        json_object(j, NULL);
        json_str(j, "what", m->what);
        json_str(j, "task", m->task);
        json_u64(j, "epoch", m->epoch);
        json_u64(j, "step", m->step);
        json_f64(j, "value", m->value);
        json_str(j, "sentence", m->sentence);
        json_end(j);
    }
    json_end(j);
}

/* NULL: it is. */
static const char *irreproducible(const struct report *r)
{
    return r->history->differing_steps  ? "recomputed steps differ"
           : r->history->option_changes ? "it went on with other options"
                                        : NULL;
}

void report_print_json(const struct report *r, FILE *out)
{
    struct json j;
    json_begin(&j, out);
    json_object(&j, NULL);
    json_str(&j, "name", r->options->name);
    json_bool(&j, "finished", r->finished);
    json_str(&j, "device", r->device);
    json_str(&j, "device_name", r->history->device.name[0] ? r->history->device.name : NULL);
    json_str(&j, "cpu", r->meta->cpu[0] ? r->meta->cpu : NULL);
    json_u64(&j, "threads", r->meta->threads);
    json_u64(&j, "seed", r->options->seed);
    json_tasks(r, &j);
    continual_print_json(&r->continual, &j);
    report_ewc_json(r, &j);
    json_u64(&j, "steps", r->steps);
    json_f64(&j, "samples_per_second", r->samples_per_second);
    json_f64(&j, "data_wait_share", r->data_wait_share);
    json_fixed(&j, "wall_seconds", r->wall_seconds, 3);
    json_fixed(&j, "cpu_seconds", r->cpu_seconds, 3);
    json_memory(r, &j);
    report_gpu_json(r, &j);
    json_u64(&j, "launches", r->history->launch_count);
    json_object_flat(&j, "restarts");
    for (int i = 0; i < STAGE_COUNT; i++)
        json_u64(&j, stage_names[i], r->history->restarts[i]);
    json_end(&j);
    report_deaths_json(r, &j);
    report_notes_json(r, &j);
    json_bool(&j, "reproducible", !irreproducible(r));
    json_str(&j, "weights_sha256", r->weights_sha256[0] ? r->weights_sha256 : NULL);
    json_str(&j, "data_fingerprint", r->meta->fingerprint[0] ? r->meta->fingerprint : NULL);
    json_pretrained(r, &j);
    json_decisions(r, &j);
    json_epochs(r, &j);
    json_receipts(r, &j);
    json_end(&j);
    json_finish(&j);
}

/* ---- for people ---- */

/* 1234567 as "1,234,567". Returns text. */
static const char *grouped(char text[32], uint64_t value)
{
    char digits[24];
    int count = snprintf(digits, sizeof digits, "%" PRIu64, value), at = 0;
    for (int i = 0; i < count; i++) {
        if (i && (count - i) % 3 == 0)
            text[at++] = ',';
        text[at++] = digits[i];
    }
    text[at] = '\0';
    return text;
}

static void effort_print(const struct report *r, FILE *out)
{
    char steps[32], rate[32];
    fprintf(out, "%s steps, %.1f s, %.1f CPU s", grouped(steps, r->steps), r->wall_seconds,
            r->cpu_seconds);
    if (!isnan(r->samples_per_second))
        fprintf(out, ", %s samples/s while training, %.1f %% of that time waiting for data",
                grouped(rate, (uint64_t)llround(r->samples_per_second)), 100 * r->data_wait_share);
}

void report_print_table(const struct report *r, FILE *out)
{
    char a[METRIC_TEXT_MAX], b[METRIC_TEXT_MAX], c[METRIC_TEXT_MAX];
    fprintf(out, "\n  %-16s %-10s %18s %14s", "task", "metric", "after own training", "at the end");
    fprintf(out, r->compared ? " %14s\n" : "\n", "without EWC");
    for (uint32_t i = 0; i < r->task_count; i++) {
        const struct report_task *t = &r->tasks[i];
        fprintf(out, "  %-16s %-10s %18s %14s", t->name, t->metric[0] ? t->metric : "-",
                metric_format(a, t->metric, t->after_own_training),
                metric_format(b, t->metric, t->final));
        if (r->compared)
            fprintf(out, " %14s", metric_format(c, t->metric, t->final_without_ewc));
        fputc('\n', out);
    }
    continual_print_table(&r->continual, out);
    report_ewc_table(r, out);
    fputs("\n  ", out);
    effort_print(r, out);
    fputs("\n  peak memory:", out);
    for (int i = 0; i < STAGE_COUNT; i++)
        fprintf(out, " %s %.0f MiB%s", stage_names[i], (double)peak_bytes(r, i) / mebibyte,
                i + 1 < STAGE_COUNT ? "," : "");
    fputs("\n  restarts:", out);
    for (int i = 0; i < STAGE_COUNT; i++)
        fprintf(out, " %s %u%s", stage_names[i], r->history->restarts[i],
                i + 1 < STAGE_COUNT ? "," : "");
    fprintf(out, "\n  weights: %s\n", r->weights_sha256[0] ? r->weights_sha256 : "-");
    report_notes_table(r, out);
    if (!r->finished)
        fputs("  The run is not finished.\n", out);
    if (r->history->differing_steps)
        fputs("  Not reproducible: recomputed steps differ (other CPU type or thread count?).\n",
              out);
}

static void markdown_tasks(const struct report *r, FILE *out)
{
    char a[METRIC_TEXT_MAX], b[METRIC_TEXT_MAX], c[METRIC_TEXT_MAX];
    fprintf(out, "| task | metric | after own training | at the end |%s\n|---|---|---:|---:|%s\n",
            r->compared ? " at the end without EWC |" : "", r->compared ? "---:|" : "");
    for (uint32_t i = 0; i < r->task_count; i++) {
        const struct report_task *t = &r->tasks[i];
        fprintf(out, "| %s | %s | %s | %s |", t->name, t->metric[0] ? t->metric : "-",
                metric_format(a, t->metric, t->after_own_training),
                metric_format(b, t->metric, t->final));
        if (r->compared)
            fprintf(out, " %s |", metric_format(c, t->metric, t->final_without_ewc));
        fputc('\n', out);
    }
}

static void markdown_stages(const struct report *r, FILE *out)
{
    fputs("| stage | peak resident memory (MiB) | planned | shared memory made | CPU seconds | "
          "restarts |\n|---|---:|---:|---:|---:|---:|\n",
          out);
    for (int i = 0; i < STAGE_COUNT; i++) {
        const struct highwater_page *p = &r->pages[i];
        char planned[32] = "-";
        if (r->plan_bytes[i])
            snprintf(planned, sizeof planned, "%.1f", (double)r->plan_bytes[i] / mebibyte);
        fprintf(out, "| %s | %.1f | %s | %.1f | %.2f | %u |\n", stage_names[i],
                (double)peak_bytes(r, i) / mebibyte, planned,
                (double)p->arena_peak_bytes / mebibyte, 1e-6 * (double)p->cpu_us,
                r->history->restarts[i]);
    }
}

static void markdown_receipts(const struct report *r, FILE *out)
{
    if (!r->history->receipt_count)
        return;
    fputs("| rows for | split | task | epoch | of it | rows | digest | MiB read | decoded / "
          "delivered "
          "| s reading | decoding | waiting for grants |\n"
          "|---|---|---|---:|---|---:|---|---:|---:|---:|---:|---:|\n",
          out);
    for (uint32_t i = 0; i < r->history->receipt_count; i++) {
        const struct msg_loader_receipt *m = &r->history->receipts[i];
        struct receipt_view v = receipt_view(r, m);
        fprintf(out, "| %s | %s | %s | %" PRIu64 " | %s | %" PRIu64 " | `%s` | %.1f | %.2f |",
                m->consumer, m->split, v.task ? v.task : "-", v.epoch, receipt_of(m), m->rows,
                m->digest, (double)m->bytes_read / mebibyte, m->amplification);
        fprintf(out, " %.3f (%.0f %%) | %.3f (%.0f %%) | %.3f (%.0f %%) |\n", m->read_s,
                100 * v.read, m->decode_s, 100 * v.decode, m->credit_s, 100 * v.credit);
    }
    fputs("\n", out);
}

static void markdown_plan(const struct report *r, FILE *out)
{
    const struct msg_event_plan *plan = &r->history->plan;
    if (!plan->rows_count)
        return;
    fputs("| planned for | what | MiB |\n|---|---|---:|\n", out);
    for (uint32_t i = 0; i < plan->rows_count; i++)
        fprintf(out, "| %s | %s | %.2f |\n", plan->rows[i].stage, plan->rows[i].what,
                (double)plan->rows[i].bytes / mebibyte);
    fputs("\n", out);
}

static void markdown_epochs(const struct history *h, FILE *out)
{
    char loss[METRIC_TEXT_MAX], value[METRIC_TEXT_MAX];
    if (!h->epoch_count)
        return;
    if (h->epochs_left)
        fprintf(out, "The newest %" PRIu32 " epochs; %" PRIu64 " before them are left out:\n\n",
                h->epoch_count, h->epochs_left);
    fputs("| task | epoch | mean training loss | validation loss | metric | value |\n"
          "|---|---:|---:|---:|---|---:|\n",
          out);
    for (uint32_t i = 0; i < h->epoch_count; i++) {
        const struct history_epoch *v = &h->epochs[i];
        snprintf(loss, sizeof loss, isnan(v->validation_loss) ? "-" : "%.6f", v->validation_loss);
        fprintf(out, "| %s | %" PRIu64 " | %.6f | %s | %s | %s |\n", v->task, v->epoch, v->loss,
                loss, v->metric[0] ? v->metric : "-", metric_format(value, v->metric, v->value));
    }
    fputs("\n", out);
}

static void markdown_pretrained(const struct msg_event_pretrained *m, FILE *out)
{
    if (!m->file[0])
        return;
    fprintf(out, "- pretrained: %" PRIu64 " tensors of `%s` (SHA-256 `%s`)", m->taken, m->file,
            m->sha256);
    fprintf(out, "; fresh: %s; not used of the file: %s\n", m->fresh[0] ? m->fresh : "none",
            m->unused[0] ? m->unused : "none");
}

void report_print_markdown(const struct report *r, FILE *out)
{
    fprintf(out, "# Run %s\n\n", r->options->name);
    if (!r->finished)
        fputs("**The run is not finished.**\n\n", out);
    markdown_tasks(r, out);
    fputs("\n", out);
    continual_print_markdown(&r->continual, out);
    report_ewc_markdown(r, out);
    effort_print(r, out);
    fprintf(out, ", %u %s.\n\n", r->history->launch_count,
            r->history->launch_count == 1 ? "launch" : "launches");
    markdown_stages(r, out);
    fputs("\nA peak counts pages shared with other stages (the arena) in each of them.\n\n", out);
    if (r->plan_device_bytes)
        fprintf(
            out,
            "Of the %.0f MiB of the device's memory trainerd had up to %.1f MiB and fisherd %.1f; "
            "planned: %.1f.\n\n",
            (double)r->history->device.memory_bytes / mebibyte,
            (double)r->pages[stage_index("trainerd")].device_peak_bytes / mebibyte,
            (double)r->pages[stage_index("fisherd")].device_peak_bytes / mebibyte,
            (double)r->plan_device_bytes / mebibyte);
    report_gpu_markdown(r, out);
    markdown_plan(r, out);
    markdown_receipts(r, out);
    if (r->curve_drawn)
        fputs("![curve](curve.png)\n\n", out);
    markdown_epochs(r->history, out);
    for (uint32_t i = 0; i < r->history->decision_count; i++)
        fprintf(out, "- %s: %s\n", r->history->decisions[i].what,
                r->history->decisions[i].sentence);
    report_deaths_markdown(r, out);
    report_notes_markdown(r, out);
    fprintf(out, "- device: %s (%s), %" PRIu64 " threads\n- seed: %" PRIu64 "\n", r->device,
            r->history->device.name[0] ? r->history->device.name
            : r->meta->cpu[0]          ? r->meta->cpu
                                       : "-",
            r->meta->threads, r->options->seed);
    const char *why = irreproducible(r);
    fprintf(out, "- reproducible: %s%s\n", why ? "no, " : "yes", why ? why : "");
    fprintf(out, "- weights (SHA-256 of the parameters%s): `%s`\n", r->compared ? ", with EWC" : "",
            r->weights_sha256[0] ? r->weights_sha256 : "-");
    fprintf(out, "- data (fingerprint): `%s`\n",
            r->meta->fingerprint[0] ? r->meta->fingerprint : "-");
    markdown_pretrained(&r->history->pretrained, out);
    fputs("- options: `../pipeline.yaml`\n", out);
}
