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

#include "proto/limits.h"

enum { LINE_BYTES = 512 };

/* Bytes of the arena that a feed makes for a split. */
static int arena_bytes(const struct feed_config *c, const struct split_shape *s, uint64_t *bytes,
                       struct err *e)
{
    uint64_t slots, slot_bytes;
    if (feed_arena(c, s->span_bytes_max, &slots, &slot_bytes, e) < 0)
        return -1;
    *bytes = slots * slot_bytes;
    return 0;
}

static uint32_t ewc_terms_max(const struct options *o)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < o->task_count; i++)
        most = o->tasks[i].ewc.count > most ? o->tasks[i].ewc.count : most;
    return most;
}

static int trainerd_plan(struct plan *p, const struct options *o, const struct model *m,
                         const struct split_shape *train, const struct split_shape *validation,
                         struct err *e)
{
    struct step_config c = setup_step_config(o);
    struct feed_config f = setup_feed_config(o, 0), v = setup_feed_config(o, 1);
    uint64_t terms = ewc_terms_max(o), bytes = 0, validation_bytes = 0;
    if (arena_bytes(&f, train, &bytes, e) < 0 ||
        arena_bytes(&v, validation, &validation_bytes, e) < 0)
        return -1;
    stepper_plan(m, &c, "trainerd", p);
    if (terms)
        plan_add(p, "trainerd", "Fisher information and theta* of a task",
                 terms * 2 * 4 * m->parameter_count);
    plan_add(p, "trainerd", "arena, training", bytes);
    plan_add(p, "trainerd", "arena, validation", validation_bytes);
    return 0;
}

/* As fisherd/work.c has it: a batch of stepper_fisher_rows, windows of one span. */
static int fisherd_plan(struct plan *p, const struct options *o, const struct model *m,
                        const struct split_shape *train, struct err *e)
{
    struct step_config c = setup_step_config(o);
    struct feed_config f = setup_feed_config(o, 0);
    uint64_t block =
        o->fisher_block_size < m->parameter_count ? o->fisher_block_size : m->parameter_count;
    uint64_t bytes = 0;
    f.window_spans = 1;
    f.slots = 0;
    if (!ewc_terms_max(o))
        return 0;
    if (arena_bytes(&f, train, &bytes, e) < 0)
        return -1;
    c.with_optimizer = 0;
    c.batch_rows_max = stepper_fisher_rows(&c);
    stepper_plan(m, &c, "fisherd", p);
    plan_add(p, "fisherd", "a block of the Fisher information, and one read back", 2 * 4 * block);
    plan_add(p, "fisherd", "arena", bytes);
    return 0;
}

/* A decoding thread holds one stored and one decoded chunk. */
static void loaderd_plan(struct plan *p, const struct options *o, const struct split_shape *s,
                         const char *what)
{
    uint64_t workers = limits_decoders("", o->loader_num_workers);
    uint64_t chunk_bytes =
        s->span_rows ? s->chunk_rows * (s->span_bytes_max / s->span_rows + 1) : 0;
    plan_add(p, "loaderd", what, workers * 2 * chunk_bytes);
}

int plan_make(struct plan *p, const struct options *o, const struct model *m,
              const struct split_shape *train, const struct split_shape *validation, struct err *e)
{
    if (trainerd_plan(p, o, m, train, validation, e) < 0 || fisherd_plan(p, o, m, train, e) < 0)
        return -1;
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
    if (strcmp(key, "layout") == 0)
        snprintf(s->layout, sizeof s->layout, "%.8s", value);
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
        if (!s->rows || !s->span_rows || !s->span_bytes_max || !s->layout[0] ||
            (strcmp(s->layout, "dense") == 0 && !s->values))
            return err_set(
                e, EXIT_CODE_PERMANENT,
                "cannot plan: standard input does not describe the %s split (layout, rows, "
                "span_rows, span_bytes_max, values); pipe `loaderd --describe` with the same "
                "--config into it",
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
        setup_layout_check(train.layout, o.data_train, o.data_file, e) < 0 ||
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
    const char *config, *set[OPTION_SETS_MAX];
    int set_count;
    struct err e = {0};
    if (argc < 2 || strcmp(argv[1], "--plan") != 0)
        return -1;
    if (options_arguments(argc, argv, 2, &config, set, &set_count, &e) == 0 &&
        plan_run(config, set, set_count, &e) == 0)
        return EXIT_CODE_DONE;
    fprintf(stderr, "trainerd --plan: %s\n", e.text);
    return e.code;
}
