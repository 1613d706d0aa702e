/* plan.c - how much memory a run takes, stage by stage, before any of it is taken.
 *
 * The same table decides at trainerd's start and is printed by --plan, which gets the shapes of the
 * splits from `loaderd --describe` over standard input: trainerd itself opens no data file. Figures
 * are what is allocated for the work; the libraries' own base (some 10 to 20 MiB a process) is not
 * in them.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trainerd/limits.h"

enum { SETS_MAX = 256, LINE_BYTES = 512, FISHER_SLOTS = 3 };

static uint64_t page_up(uint64_t bytes)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) / page * page;
}

/* Bytes of the training arena: two windows while the limit allows, never under one window and a
 * slot. */
static int arena_bytes(const struct options *o, const struct split_shape *s, uint64_t *bytes,
                       struct err *e)
{
    uint64_t window = o->data_shuffle ? o->order_window_spans : 1;
    uint64_t slot = page_up(s->span_bytes_max), limit = o->arena_limit_mb << 20;
    uint64_t slots = o->arena_slots ? o->arena_slots : window == 1 ? 3 : 2 * window; /* as feed.c */
    if (!o->arena_slots && slots * slot > limit)
        slots = limit / slot;
    if (slots < window + 1 || slots * slot > limit)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the arena needs %" PRIu64 " slots of %" PRIu64 " bytes, %" PRIu64
                       " MiB, and arena.limit_mb is %" PRIu64
                       "; raise it, or lower order.window_spans or order.span_rows",
                       slots < window + 1 ? window + 1 : slots, slot,
                       ((slots < window + 1 ? window + 1 : slots) * slot >> 20) + 1,
                       o->arena_limit_mb);
    *bytes = slots * slot;
    return 0;
}

static uint32_t ewc_terms_max(const struct options *o)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < o->task_count; i++)
        most = o->tasks[i].ewc.count > most ? o->tasks[i].ewc.count : most;
    return most;
}

static void trainerd_plan(struct plan *p, const struct options *o, const struct model *m,
                          uint64_t arena, const struct split_shape *validation)
{
    struct step_config c = setup_step_config(o);
    uint64_t terms = ewc_terms_max(o);
    stepper_plan(m, &c, "trainerd", p);
    if (terms)
        plan_add(p, "trainerd", "Fisher information and theta* of a task",
                 terms * 2 * 4 * m->parameter_count);
    plan_add(p, "trainerd", "arena, training", arena);
    plan_add(p, "trainerd", "arena, validation",
             VALIDATION_SLOTS * page_up(validation->span_bytes_max));
}

/* Whole slices, one a thread at least (fisherd/work.c). */
static uint64_t fisherd_batch_rows(const struct step_config *c)
{
    uint64_t slices = (c->batch_rows_max - 1) / c->slice_rows + 1, threads = (uint64_t)c->threads;
    return c->slice_rows * (slices > threads ? slices : threads);
}

static void fisherd_plan(struct plan *p, const struct options *o, const struct model *m,
                         const struct split_shape *train)
{
    struct step_config c = setup_step_config(o);
    uint64_t block =
        o->fisher_block_size < m->parameter_count ? o->fisher_block_size : m->parameter_count;
    if (!ewc_terms_max(o))
        return;
    c.with_optimizer = 0;
    c.batch_rows_max = fisherd_batch_rows(&c);
    stepper_plan(m, &c, "fisherd", p);
    plan_add(p, "fisherd", "one block of the Fisher information", 4 * block);
    plan_add(p, "fisherd", "arena", FISHER_SLOTS * page_up(train->span_bytes_max));
}

/* A decoding thread holds one stored and one decoded chunk. */
static void loaderd_plan(struct plan *p, const struct options *o, const struct split_shape *s,
                         const char *what)
{
    uint64_t workers =
        o->loader_num_workers ? o->loader_num_workers : ((uint64_t)setup_threads(o) + 1) / 2;
    uint64_t chunk_bytes =
        s->span_rows ? s->chunk_rows * (s->span_bytes_max / s->span_rows + 1) : 0;
    plan_add(p, "loaderd", what, workers * 2 * chunk_bytes);
}

int plan_make(struct plan *p, const struct options *o, const struct model *m,
              const struct split_shape *train, const struct split_shape *validation, struct err *e)
{
    uint64_t arena = 0;
    if (arena_bytes(o, train, &arena, e) < 0)
        return -1;
    trainerd_plan(p, o, m, arena, validation);
    fisherd_plan(p, o, m, train);
    loaderd_plan(p, o, train, "chunks being decoded, training");
    loaderd_plan(p, o, validation, "chunks being decoded, validation");
    return 0;
}

static uint64_t limit_bytes(const struct options *o, char *source, size_t source_bytes)
{
    if (!o->host_limit_mb)
        return limits_memory("", source, source_bytes);
    snprintf(source, source_bytes, "memory.host_limit_mb");
    return o->host_limit_mb << 20;
}

int plan_check(const struct plan *p, const struct options *o, struct err *e)
{
    char source[64];
    uint64_t limit = limit_bytes(o, source, sizeof source), total = plan_total(p, NULL);
    if (total <= limit)
        return 0;
    return err_set(
        e, EXIT_CODE_PERMANENT,
        "the run needs %" PRIu64 " MiB of memory and %s is %" PRIu64
        " MiB; lower training.batch_size, training.threads or arena.limit_mb, or make the model "
        "smaller (--plan shows what takes it)",
        (total >> 20) + 1, source, limit >> 20);
}

/* One line `key=value` of a description; others (spans, fingerprint) are of no use here. */
static void shape_set(struct split_shape *s, const char *key, const char *value)
{
    struct {
        const char *key;
        uint64_t *number;
    } numbers[] = {{"rows", &s->rows},
                   {"chunk_rows", &s->chunk_rows},
                   {"span_rows", &s->span_rows},
                   {"span_bytes_max", &s->span_bytes_max},
                   {"values", &s->values}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (strcmp(key, numbers[i].key) == 0)
            *numbers[i].number = strtoull(value, NULL, 10);
    }
    if (strcmp(key, "feature_type") == 0)
        snprintf(s->feature_type, sizeof s->feature_type, "%.7s", value);
    if (strcmp(key, "target_type") == 0)
        snprintf(s->target_type, sizeof s->target_type, "%.7s", value);
}

int plan_read_shapes(FILE *in, struct split_shape *train, struct split_shape *validation,
                     struct err *e)
{
    char line[LINE_BYTES];
    *train = *validation = (struct split_shape){0};
    while (fgets(line, sizeof line, in)) {
        line[strcspn(line, "\n")] = 0;
        char *value = strchr(line, '='), *key = strchr(line, '.');
        if (!value || !key || key > value)
            continue;
        *value++ = 0;
        *key++ = 0;
        if (strcmp(line, "train") == 0)
            shape_set(train, key, value);
        else if (strcmp(line, "validation") == 0)
            shape_set(validation, key, value);
    }
    const struct split_shape *both[] = {train, validation};
    for (int i = 0; i < 2; i++) {
        const struct split_shape *s = both[i];
        if (!s->rows || !s->span_rows || !s->span_bytes_max || !s->values)
            return err_set(
                e, EXIT_CODE_PERMANENT,
                "cannot plan: standard input does not describe the %s split (rows, span_rows, "
                "span_bytes_max, values); pipe `loaderd --describe` with the same --config into it",
                i ? "validation" : "train");
    }
    return 0;
}

static void limit_print(const struct plan *p, const struct options *o)
{
    char source[64];
    uint64_t limit = limit_bytes(o, source, sizeof source);
    printf("\n%.0f of %.0f MiB (%s)\n", (double)plan_total(p, NULL) / (1 << 20),
           (double)limit / (1 << 20), source);
}

static int plan_run(const char *config, const char *const *set, int set_count, struct err *e)
{
    static struct options o; /* large */
    struct model m = {0};
    struct plan p = {0};
    struct split_shape train, validation;
    int result = -1;
    if (options_read(&o, config, set, set_count, e) < 0 || setup_options_check(&o, e) < 0 ||
        plan_read_shapes(stdin, &train, &validation, e) < 0 ||
        setup_model(&m, &o, train.values, e) < 0 ||
        plan_make(&p, &o, &m, &train, &validation, e) < 0)
        goto out;
    plan_print(&p, stdout);
    limit_print(&p, &o);
    result = plan_check(&p, &o, e);
    if (fflush(stdout) != 0)
        result = err_errno(e, EXIT_CODE_TEMPORARY, "cannot print the plan");
out:
    model_close(&m);
    options_free(&o);
    return result;
}

int plan_command(int argc, char **argv)
{
    const char *config = NULL, *set[SETS_MAX];
    int set_count = 0;
    struct err e = {0};
    if (argc < 2 || strcmp(argv[1], "--plan") != 0)
        return -1;
    for (int i = 2; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--config") == 0 && value && !config) {
            config = value;
        } else if (strcmp(argv[i], "--set") == 0 && value && set_count < SETS_MAX) {
            set[set_count++] = value;
        } else {
            fprintf(stderr,
                    "trainerd --plan: cannot use %s; expected --config FILE [--set "
                    "section.key=value]...\n",
                    argv[i]);
            return EXIT_CODE_PERMANENT;
        }
    }
    if (!config)
        err_set(&e, EXIT_CODE_PERMANENT, "--config FILE is missing");
    else if (plan_run(config, set, set_count, &e) == 0)
        return EXIT_CODE_DONE;
    fprintf(stderr, "trainerd --plan: %s\n", e.text);
    return e.code;
}
