/* continual_write.c - the matrix of results and its figures as JSON, as Markdown and as a short
 * table; see continual.h. */
#include <math.h>
#include <string.h>

#include "monitord/continual.h"
#include "proto/metric.h"

/* ---- report.json ---- */

/* A row is what was said after a task, a column a task's data. */
static void json_matrix(const struct continual *c, const double matrix[][OPTION_TASKS_MAX],
                        const char *key, struct json *j)
{
    json_list(j, key);
    for (uint32_t i = 0; i < c->count; i++) {
        json_list_flat(j, NULL);
        for (uint32_t k = 0; k < c->count; k++)
            json_f64(j, NULL, matrix[i][k]);
        json_end(j);
    }
    json_end(j);
}

static void json_results(const struct continual *c, const struct continual_results *r,
                         const char *key, struct json *j)
{
    json_object(j, key);
    json_matrix(c, r->result, "results", j);
    json_matrix(c, r->loss, "losses", j);
    json_f64(j, "average", r->average);
    json_f64(j, "forgetting", r->forgetting);
    json_f64(j, "backward_transfer", r->backward_transfer);
    json_f64(j, "forward_transfer", r->forward_transfer);
    json_end(j);
}

static void json_costs(const struct continual *c, struct json *j)
{
    json_list(j, "costs");
    for (uint32_t i = 0; i < c->count; i++) {
        json_object_flat(j, NULL);
        json_str(j, "task", c->names[i]);
        json_fixed(j, "training_seconds", c->seconds[i], 3);
        json_end(j);
    }
    json_end(j);
}

void continual_print_json(const struct continual *c, struct json *j)
{
    if (!c->count) {
        json_null(j, "continual");
        return;
    }
    json_object(j, "continual");
    json_str(j, "metric", c->metric[0] ? c->metric : NULL);
    json_list_flat(j, "tasks");
    for (uint32_t i = 0; i < c->count; i++)
        json_str(j, NULL, c->names[i]);
    json_end(j);
    json_list_flat(j, "first_weights"); /* before any training */
    for (uint32_t i = 0; i < c->count; i++)
        json_f64(j, NULL, c->fresh[i]);
    json_end(j);
    json_results(c, &c->own, "own", j);
    if (c->compared)
        json_results(c, &c->without_ewc, "without_ewc", j);
    else
        json_null(j, "without_ewc");
    json_costs(c, j);
    json_end(j);
}

/* ---- for people ---- */

static void markdown_row(const struct continual *c, const char *name, const char *metric,
                         const double *results, FILE *out)
{
    char text[METRIC_TEXT_MAX];
    fprintf(out, "| %s |", name);
    for (uint32_t k = 0; k < c->count; k++)
        fprintf(out, " %s |", metric_format(text, metric, results[k]));
    fputc('\n', out);
}

/* fresh: the row before all tasks, or NULL. */
static void markdown_matrix(const struct continual *c, const double matrix[][OPTION_TASKS_MAX],
                            const char *metric, const char *what, const double *fresh, FILE *out)
{
    fprintf(out, "| %s%s, after | on %s |", metric, what, c->names[0]);
    for (uint32_t i = 1; i < c->count; i++)
        fprintf(out, " %s |", c->names[i]);
    fputs("\n|---|", out);
    for (uint32_t i = 0; i < c->count; i++)
        fputs("---:|", out);
    fputc('\n', out);
    if (fresh && !isnan(fresh[0]))
        markdown_row(c, "nothing", metric, fresh, out);
    for (uint32_t i = 0; i < c->count; i++)
        markdown_row(c, c->names[i], metric, matrix[i], out);
    fputc('\n', out);
}

static void markdown_results(const struct continual *c, const struct continual_results *r,
                             const char *what, FILE *out)
{
    markdown_matrix(c, r->result, c->metric, what, c->fresh, out);
    if (strcmp(c->metric, "loss") != 0)
        markdown_matrix(c, r->loss, "loss", what, NULL, out);
}

struct figure {
    const char *name;
    double own, without_ewc;
};

enum { FIGURES = 4 };

static void figures_list(const struct continual *c, struct figure list[FIGURES])
{
    const struct continual_results *own = &c->own, *without = &c->without_ewc;
    list[0] = (struct figure){"average at the end", own->average, without->average};
    list[1] = (struct figure){"forgetting", own->forgetting, without->forgetting};
    list[2] =
        (struct figure){"backward transfer", own->backward_transfer, without->backward_transfer};
    list[3] = (struct figure){"forward transfer", own->forward_transfer, without->forward_transfer};
}

static void markdown_figures(const struct continual *c, FILE *out)
{
    char a[METRIC_TEXT_MAX], b[METRIC_TEXT_MAX];
    struct figure list[FIGURES];
    figures_list(c, list);
    fprintf(out, "| over all tasks | %s |%s\n|---|---:|%s\n", c->metric,
            c->compared ? " without EWC |" : "", c->compared ? "---:|" : "");
    for (int i = 0; i < FIGURES; i++) {
        fprintf(out, "| %s | %s |", list[i].name, metric_format(a, c->metric, list[i].own));
        if (c->compared)
            fprintf(out, " %s |", metric_format(b, c->metric, list[i].without_ewc));
        fputc('\n', out);
    }
    fputc('\n', out);
}

static void markdown_costs(const struct continual *c, FILE *out)
{
    fputs("| task | seconds of training |\n|---|---:|\n", out);
    for (uint32_t i = 0; i < c->count; i++)
        fprintf(out, "| %s | %.2f |\n", c->names[i], c->seconds[i]);
    fputc('\n', out);
}

void continual_print_markdown(const struct continual *c, FILE *out)
{
    if (!c->count)
        return;
    markdown_results(c, &c->own, "", out);
    if (c->compared)
        markdown_results(c, &c->without_ewc, " without EWC", out);
    markdown_figures(c, out);
    markdown_costs(c, out);
    if (c->drawn)
        fputs("![results](results.png)\n\n![sequence](sequence.png)\n\n", out);
}

void continual_print_table(const struct continual *c, FILE *out)
{
    char a[METRIC_TEXT_MAX], b[METRIC_TEXT_MAX];
    struct figure list[FIGURES];
    if (c->count < 3) /* two tasks are seen at a glance */
        return;
    figures_list(c, list);
    fputc('\n', out);
    for (int i = 0; i < FIGURES; i++) {
        if (isnan(list[i].own))
            continue;
        fprintf(out, "  %-27s %18s", list[i].name, metric_format(a, c->metric, list[i].own));
        if (c->compared)
            fprintf(out, " %29s", metric_format(b, c->metric, list[i].without_ewc));
        fputc('\n', out);
    }
}
