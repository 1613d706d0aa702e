/* report_ewc.c - what the report says of the Fisher information of the run's tasks: how each is
 * stored, what its file takes, and by how much it is off. Read from the files themselves; a task
 * whose file is not there, or not whole, is left out.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>

#include "monitord/report.h"
#include "proto/fisherfile.h"
#include "proto/log.h"

static void file_read(struct report *r, const char *task, const char *ending, const char *word)
{
    static struct fisherfile_meta meta; /* large */
    struct report_ewc *state = &r->ewc[r->ewc_count];
    struct err e = {0};
    struct stat st;
    char path[128];
    snprintf(path, sizeof path, "fisher/%s%s", task, ending);
    if (stat(path, &st) < 0)
        return;
    if (fisherfile_read_meta(path, &meta, &e) < 0) {
        log_warn("path=%s The report leaves it out: %s", path, e.text);
        return;
    }
    *state = (struct report_ewc){.bytes = (uint64_t)st.st_size,
                                 .parameters = meta.parameters,
                                 .samples = meta.samples,
                                 .error = meta.error};
    snprintf(state->task, sizeof state->task, "%s%s", task, word);
    snprintf(state->form, sizeof state->form, "%s", meta.compression);
    r->ewc_count++;
}

void report_ewc_read(struct report *r)
{
    r->ewc_count = 0;
    for (uint32_t i = 0; i < r->options->task_count; i++) {
        file_read(r, r->options->tasks[i].name, ".h5", "");
        file_read(r, r->options->tasks[i].name, ".online.h5", ", online");
    }
}

static double bytes_per_parameter(const struct report_ewc *s)
{
    return s->parameters ? (double)s->bytes / (double)s->parameters : NAN;
}

void report_ewc_json(const struct report *r, struct json *j)
{
    json_list(j, "ewc_state");
    for (uint32_t i = 0; i < r->ewc_count; i++) {
        const struct report_ewc *s = &r->ewc[i];
        json_object_flat(j, NULL);
        json_str(j, "task", s->task);
        json_str(j, "form", s->form);
        json_u64(j, "samples", s->samples);
        json_u64(j, "parameters", s->parameters);
        json_u64(j, "bytes", s->bytes);
        json_fixed(j, "bytes_per_parameter", bytes_per_parameter(s), 4);
        json_f64(j, "error", s->error);
        json_end(j);
    }
    json_end(j);
}

void report_ewc_markdown(const struct report *r, FILE *out)
{
    if (!r->ewc_count)
        return;
    fputs("| EWC state of | form | samples | bytes of the file | bytes a parameter | error |\n"
          "|---|---|---:|---:|---:|---:|\n",
          out);
    for (uint32_t i = 0; i < r->ewc_count; i++) {
        const struct report_ewc *s = &r->ewc[i];
        fprintf(out, "| %s | %s | %" PRIu64 " | %" PRIu64 " | %.3f | %.2f %% |\n", s->task, s->form,
                s->samples, s->bytes, bytes_per_parameter(s), 100 * s->error);
    }
    fputs("\n", out);
}

void report_ewc_table(const struct report *r, FILE *out)
{
    uint64_t bytes = 0, parameters = 0;
    for (uint32_t i = 0; i < r->ewc_count; i++) {
        bytes += r->ewc[i].bytes;
        parameters += r->ewc[i].parameters;
    }
    if (parameters)
        fprintf(out, "\n  EWC state: %.2f MiB in files, %.3f bytes a parameter of each task\n",
                (double)bytes / (1 << 20), (double)bytes / (double)parameters);
}
