/* report_ewc.c - what the report says of the Fisher information of the run's tasks: how each is
 * stored, what it takes, and by how much it is off. Read from the files themselves; a task whose
 * file is not there, or not whole, is left out.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "monitord/report.h"
#include "proto/fisherfile.h"
#include "proto/log.h"

void report_ewc_read(struct report *r)
{
    static struct fisherfile_meta meta; /* large */
    r->ewc_count = 0;
    for (uint32_t i = 0; i < r->options->task_count; i++) {
        struct report_ewc *state = &r->ewc[r->ewc_count];
        char path[128];
        struct err e = {0};
        snprintf(path, sizeof path, "fisher/%s.h5", r->options->tasks[i].name);
        if (access(path, F_OK) < 0)
            continue;
        if (fisherfile_read_meta(path, &meta, &e) < 0) {
            log_warn("path=%s The report leaves it out: %s", path, e.text);
            continue;
        }
        *state = (struct report_ewc){.bytes = meta.bytes,
                                     .parameters = meta.parameters,
                                     .samples = meta.samples,
                                     .error = meta.error};
        snprintf(state->task, sizeof state->task, "%s", meta.task);
        snprintf(state->form, sizeof state->form, "%s", meta.compression);
        r->ewc_count++;
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
    fputs("| EWC state of | form | samples | bytes | bytes a parameter | error |\n"
          "|---|---|---:|---:|---:|---:|\n",
          out);
    for (uint32_t i = 0; i < r->ewc_count; i++) {
        const struct report_ewc *s = &r->ewc[i];
        fprintf(out, "| %s | %s | %" PRIu64 " | %" PRIu64 " | %.3f | %.2f %% |\n", s->task, s->form,
                s->samples, s->bytes, bytes_per_parameter(s), 100 * s->error);
    }
    fputs("\n", out);
}
