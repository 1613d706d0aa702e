/* report_gpu.c - what the report says of the GPU as a whole: what monitord kept in its page. */
#include <math.h>

#include "monitord/report.h"

/* Has the GPU told anything of how it did? */
static int gpu_known(const struct highwater_page *p)
{
    return p->gpu_utilisation.count || p->gpu_used_bytes.count || p->gpu_temperature_c.count ||
           p->gpu_power_w.count;
}

/* Of a figure of the GPU: null where it was never told. */
static void json_mean(struct json *j, const char *key, const struct highwater_mean *m)
{
    json_object_flat(j, key);
    json_f64(j, "mean", m->count ? m->sum / (double)m->count : NAN);
    json_f64(j, "most", m->count ? m->most : NAN);
    json_end(j);
}

/* Of the GPU as a whole, while trainerd ran, as monitord looked at it. */
void report_gpu_json(const struct report *r, struct json *j)
{
    const struct highwater_page *p = &r->pages[stage_index("monitord")];
    if (!gpu_known(p)) {
        json_null(j, "gpu");
        return;
    }
    json_object(j, "gpu");
    json_mean(j, "utilisation", &p->gpu_utilisation);
    json_mean(j, "used_bytes", &p->gpu_used_bytes);
    json_mean(j, "temperature_c", &p->gpu_temperature_c);
    json_mean(j, "power_w", &p->gpu_power_w);
    json_end(j);
}

static void markdown_mean(FILE *out, const char *what, const struct highwater_mean *m,
                          double divisor)
{
    if (m->count)
        fprintf(out, "| %s | %.1f | %.1f |\n", what, m->sum / (double)m->count / divisor,
                m->most / divisor);
}

void report_gpu_markdown(const struct report *r, FILE *out)
{
    const struct highwater_page *p = &r->pages[stage_index("monitord")];
    if (!gpu_known(p))
        return;
    fputs("| the GPU while trainerd ran | mean | most |\n|---|---:|---:|\n", out);
    markdown_mean(out, "time in which a kernel ran (%)", &p->gpu_utilisation, 0.01);
    markdown_mean(out, "its memory in use, by whatever process (MiB)", &p->gpu_used_bytes, 1 << 20);
    markdown_mean(out, "temperature (C)", &p->gpu_temperature_c, 1);
    markdown_mean(out, "power (W)", &p->gpu_power_w, 1);
    fputs("\n", out);
}
