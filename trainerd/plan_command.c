/* plan_command.c - `trainerd --plan`: the memory plan of a run, printed before there is one.
 *
 * The shapes of the splits come from `loaderd --describe` and the processes' own memory from
 * `prepare bases`, both over standard input: trainerd itself opens no data file. In a run the
 * latter stand in its file `bases`.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/device.h"
#include "proto/fisherdir.h"
#include "proto/limits.h"
#include "trainerd/advice.h"
#include "trainerd/disk.h"

enum { LINE_BYTES = 512 };

/* One line `key=value` of a description; others (fingerprint) are of no use here. */
static void shape_set(struct split_shape *s, const char *key, const char *value)
{
    struct {
        const char *key;
        uint64_t *number;
    } numbers[] = {{"rows", &s->rows},
                   {"spans", &s->spans},
                   {"span_rows", &s->span_rows},
                   {"span_bytes_max", &s->span_bytes_max},
                   {"chunk_bytes_max", &s->chunk_bytes_max},
                   {"kept_bytes", &s->kept_bytes},
                   {"row_bytes", &s->row_bytes},
                   {"values", &s->values},
                   {"value_parts", &s->value_parts},
                   {"target_values", &s->targets},
                   {"weights.values", &s->weights},
                   {"edge_features.values", &s->edge_values},
                   {"node_features.batch_items_max", &s->batch_nodes},
                   {"edge_source.batch_items_max", &s->batch_edges},
                   {"node_features.slice_items_max", &s->slice_nodes},
                   {"node_features.sample_items_max", &s->sample_nodes}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (strcmp(key, numbers[i].key) == 0)
            *numbers[i].number = strtoull(value, NULL, 10);
    }
    if (strcmp(key, "layout") == 0)
        snprintf(s->layout, sizeof s->layout, "%.8s", value);
    if (strcmp(key, "value_type") == 0)
        snprintf(s->value_type, sizeof s->value_type, "%.7s", value);
    if (strcmp(key, "target_type") == 0)
        snprintf(s->target_type, sizeof s->target_type, "%.7s", value);
}

/* What was read of one file goes into the most of all. */
static int shapes_add(struct plan_shapes *s, struct split_shape now[2], struct err *e)
{
    if (now[0].rows && s->train.rows &&
        data_shapes_agree(&s->train, &now[0], "one file", "another", e) < 0)
        return -1;
    if (now[0].rows && s->sets < OPTION_TASKS_MAX)
        memcpy(s->of_sets[s->sets++], now, sizeof s->of_sets[0]);
    if (now[0].rows)
        data_shapes_join(&s->train, &now[0]);
    if (now[1].rows)
        data_shapes_join(&s->validation, &now[1]);
    now[0] = now[1] = (struct split_shape){0};
    return 0;
}

int plan_read_shapes(FILE *in, struct plan_shapes *shapes, struct plan_bases *bases, struct err *e)
{
    char line[LINE_BYTES];
    struct split_shape now[2] = {{0}};
    *shapes = (struct plan_shapes){.sets = 0};
    *bases = (struct plan_bases){0};
    while (fgets(line, sizeof line, in)) {
        line[strcspn(line, "\n")] = 0;
        char *value = strchr(line, '='), *key = strchr(line, '.');
        if (!value || !key || key > value)
            continue;
        *value++ = 0;
        *key++ = 0;
        int split = strcmp(line, "train") == 0 ? 0 : strcmp(line, "validation") == 0 ? 1 : -1;
        if (split == 0 && now[1].layout[0] && shapes_add(shapes, now, e) < 0) /* the next file */
            return -1;
        if (split >= 0)
            shape_set(&now[split], key, value);
        else if (strcmp(line, "base") == 0)
            plan_bases_set(bases, key, value);
    }
    if (shapes_add(shapes, now, e) < 0)
        return -1;
    for (int i = 0; i < 2; i++) {
        const struct split_shape *s = i ? &shapes->validation : &shapes->train;
        if (!s->rows || !s->spans || !s->span_rows || !s->span_bytes_max || !s->row_bytes ||
            !s->layout[0] || !s->values)
            return err_set(
                e, EXIT_CODE_PERMANENT,
                "cannot plan: standard input does not describe the %s split (layout, rows, spans, "
                "span_rows, span_bytes_max, row_bytes, values); pipe `loaderd --describe` with the "
                "same --config into it",
                i ? "validation" : "train");
    }
    return plan_bases_check(bases, "standard input", e);
}

static void limit_print(const struct plan *p, const struct options *o, const struct device *d)
{
    char source[64];
    struct device_facts f;
    uint64_t limit = limits_host("", o->host_limit_mb, source, sizeof source);
    printf("\n%.0f of %.0f MiB (%s)\n", (double)plan_total(p, NULL) / (1 << 20),
           (double)limit / (1 << 20), source);
    d->facts(&f);
    if (!d->apart) {
        printf("device: cpu, %s\n", f.name);
        return;
    }
    printf("device: %s:%d, %s, %.0f of %.0f MiB; all rows of a micro-batch are one slice\n",
           d->kind, f.index, f.name, (double)plan_total(p, PLAN_DEVICE) / (1 << 20),
           (double)f.memory_bytes / (1 << 20));
}

/* On a CPU they would be another copy of what the arena brings. */
static void no_megabatch_print(const struct options *o)
{
    if (strcmp(o->loader_use_chunk_loader, "gpu") == 0)
        puts("\nmega-batch: none: loader.use_chunk_loader is gpu, and none keeps these rows; "
             "batches "
             "are gathered from the arena");
}

static void megabatch_print(const struct options *o, const struct split_shape *train,
                            const struct megabatch_size *size)
{
    uint64_t chunk = plan_chunk_bytes(o, size->device), held = size->spans * train->span_rows;
    uint64_t row_bytes = shape_row_bytes(train);
    printf("\nmega-batch: %" PRIu64 " bytes a sample, %" PRIu64 " of %" PRIu64
           " samples fit %.2f GiB: ",
           row_bytes, megabatch_samples(chunk, row_bytes, train->rows, o->batch_size), train->rows,
           (double)chunk / (1 << 30));
    if (size->kind == MEGABATCH_WHOLE)
        puts("all are kept, read once for all epochs");
    else if (size->kind == MEGABATCH_WINDOWS)
        printf("%" PRIu64 " at a time, whole windows, again and again\n", held);
    else
        puts("not beside the rest of the plan; batches are gathered from the arena");
}

/* Both numbers of a step are the preset's, or none is. */
static void batch_print(const struct options *o)
{
    uint64_t rows, steps;
    printf("batch: %" PRIu64 " rows a micro-batch x %" PRIu64 " = %" PRIu64
           " rows an optimizer step (",
           o->batch_size, o->gradient_accumulation_steps, options_batch_rows(o));
    if (options_preset_batch(o, &rows, &steps) &&
        (rows != o->batch_size || steps != o->gradient_accumulation_steps))
        printf("given, and not the %" PRIu64 " x %" PRIu64 " of preset %s)\n", rows, steps,
               o->preset);
    else
        printf("preset: %s)\n", o->preset);
}

/* The arithmetic of the mega-batch and of the read-ahead, for people. */
static int rows_print(const struct options *o, const struct device *device,
                      const struct split_shape *train, uint64_t micro_rows,
                      const struct megabatch_size *size, struct err *e)
{
    struct feed_config f = setup_feed_config(o, 0);
    uint64_t slots, slot_bytes, ahead = setup_ahead_rows(o);
    compute_feed_config(&f, o, device);
    if (feed_arena(&f, train->spans, train->span_rows, train->span_bytes_max, &slots, &slot_bytes,
                   e) < 0)
        return -1;
    if (size->device || compute_keeps_rows(o, NULL))
        megabatch_print(o, train, size);
    else
        no_megabatch_print(o);
    if (size->kind == MEGABATCH_WHOLE)
        printf("resident samples: all %" PRIu64 " rows, which come through ", train->rows);
    else
        printf("resident samples: ");
    printf("%" PRIu64 " slots of %" PRIu64 " rows in the training arena", slots, train->span_rows);
    if (ahead && size->kind != MEGABATCH_WHOLE)
        printf("; read ahead: %" PRIu64 " workers x %" PRIu64 " batches x %" PRIu64
               " rows = %" PRIu64,
               ahead / o->loader_prefetch_factor / o->batch_size, o->loader_prefetch_factor,
               o->batch_size, ahead);
    if (micro_rows < o->batch_size)
        printf("\nmicro-batches of %" PRIu64 " rows instead of %" PRIu64
               ", with which it would not fit: the same steps, the same bits",
               micro_rows, o->batch_size);
    putchar('\n');
    batch_print(o);
    return 0;
}

/* Where the bits of a step depend on how it is cut into micro-batches. */
static void arithmetic_print(const struct options *o, const struct model *m, const struct device *d)
{
    if (m->buffer_count)
        printf("\nbatchnorm: statistics are those of a micro-batch of %" PRIu64
               " rows, all of which are resident; another one is another arithmetic\n",
               o->batch_size);
    else if (!d->apart && o->gradient_accumulation_steps > 1 && o->batch_size % o->slice_rows)
        printf("\nslices: micro-batches of %" PRIu64 " rows are not whole slices of %" PRIu64
               " (training.slice_rows): another arithmetic than that of %" PRIu64
               " rows in micro-batches that are\n",
               o->batch_size, o->slice_rows, options_batch_rows(o));
}

/* Weight averaging of tasks that are too short for it. */
static void averaging_print(const struct options *o)
{
    char text[512];
    for (uint32_t i = 0; i < o->task_count; i++)
        if (!o->tasks[i].comparison_of[0] && schedule_averages_few(o, i, text, sizeof text))
            printf("\naveraging: %s\n", text);
}

/* Where the run's directory is or will be, as finetune.sh says, else here. */
static const char *place_find(void)
{
    const char *place = getenv("FINETUNED_PLACE");
    return place ? place : ".";
}

/* That, and where its Fisher information is or will be. */
static int room_find(struct disk_room *r, const struct options *o, struct err *e)
{
    char parent[PATH_MAX];
    int given = fisherdir_parent(o, parent, e);
    if (given < 0)
        return -1;
    return disk_room_find(r, place_find(), given ? parent : place_find(), e);
}

/* Against what is free there; steps are those of whole epochs. */
static int disk_print(const struct options *o, const struct model *m,
                      const struct split_shape *train, struct err *e)
{
    uint64_t steps = 0;
    struct disk_room r;
    struct step_config c = setup_step_config(o);
    char text[768];
    for (uint32_t i = 0; i < o->task_count; i++)
        steps += o->tasks[i].epochs * ((train->rows - 1) / options_batch_rows(o) + 1);
    struct disk_forecast f = disk_forecast_make(o, m, step_frozen(m, &c), steps);
    if (room_find(&r, o, e) < 0)
        return -1;
    disk_text(&f, &r, text, sizeof text);
    printf("%s\n", text);
    if (disk_most(&f, &r) > r.run)
        puts("      that may not fit: lower training.checkpoint_keep, or make room "
             "(pipelines/clean.sh)");
    if (r.apart && f.fisher > r.fisher)
        printf("      the Fisher information may not fit at %s: make room there\n", r.place);
    return 0;
}

/* The sets of data that the options name; where another number of them was described, each has the
 * most of all. */
static void sets_fill(struct data *d, const struct options *o, const struct plan_shapes *shapes)
{
    static struct options view; /* large */
    data_sets_find(d, o, &view);
    for (uint32_t i = 0; i < d->set_count; i++) {
        int each = d->set_count == shapes->sets;
        d->set[i].train = each ? shapes->of_sets[i][0] : shapes->train;
        d->set[i].validation = each ? shapes->of_sets[i][1] : shapes->validation;
    }
}

/* What a run would refuse once loaderd has opened the data. */
static int sets_check(const struct options *o, const struct data *d, const struct model *m,
                      struct err *e)
{
    struct schedule schedule;
    uint64_t rows[OPTION_TASKS_MAX];
    for (uint32_t i = 0; i < d->set_count; i++)
        if (shapes_model_check(o, &d->set[i], m, e) < 0)
            return -1;
    for (uint32_t i = 0; i < o->task_count; i++)
        rows[i] = d->set[d->set_of[i]].train.rows;
    return schedule_open(&schedule, o, rows, e) < 0 ? -1 : shapes_rows_check(o, d, &schedule, m, e);
}

/* A run that has begun may need the file no longer. */
static int weights_check(const struct options *o, const struct model *m, struct err *e)
{
    char path[PATH_MAX];
    struct lineage_record last;
    int needed = 0;
    for (uint32_t i = 0; i < o->task_count; i++)
        needed |= strcmp(o->tasks[i].from, "start") == 0;
    if (!o->pretrained[0] || !needed)
        return 0;
    snprintf(path, sizeof path, "%s/lineage", place_find());
    int made = lineage_last(path, &last, e);
    if (made < 0)
        return -1;
    return made && !lineage_is_beginning(&last) ? 0 : pretrained_fits(o, m, "", e);
}

/* The shapes of the sets, and the model that takes them. */
static int sets_open(struct data *d, struct model *m, const struct options *o,
                     const struct plan_shapes *shapes, struct err *e)
{
    struct model_input input = shape_input(&shapes->train);
    sets_fill(d, o, shapes);
    for (uint32_t i = 0; i < d->set_count; i++)
        if (shapes_check(o, &d->set[i], e) < 0)
            return -1;
    return setup_model(m, o, &input, e) < 0 || sets_check(o, d, m, e) < 0 ? -1
                                                                          : weights_check(o, m, e);
}

static int plan_run(const char *config, const char *const *set, int set_count, struct err *e)
{
    static struct options o; /* large */
    struct model m = {0};
    struct plan p = {0};
    static struct plan_shapes shapes; /* large */
    static struct data d;
    const struct split_shape *train = &shapes.train, *of_tasks[OPTION_TASKS_MAX];
    struct plan_bases bases;
    struct megabatch_size sizes[2];
    const struct device *device = NULL;
    uint64_t micro_rows;
    int result = -1;
    if (options_read(&o, config, set, set_count, e) < 0 || setup_options_check(&o, e) < 0 ||
        compute_open(&device, &o, "", e) < 0 || plan_read_shapes(stdin, &shapes, &bases, e) < 0 ||
        sets_open(&d, &m, &o, &shapes, e) < 0)
        goto out;
    compute_bases(&bases, device);
    o.batch_size = options_batch_size_max(&o);
    for (uint32_t i = 0; i < o.task_count; i++)
        of_tasks[i] = &d.set[d.set_of[i]].train;
    struct advice_run run = {&o, &m, &bases, train, &shapes.validation, of_tasks, 0};
    if (plan_make(&p, &o, &m, &bases, train, &shapes.validation, of_tasks, &micro_rows, sizes, e) <
        0)
        goto out;
    plan_print(&p, stdout);
    limit_print(&p, &o, device);
    arithmetic_print(&o, &m, device);
    averaging_print(&o);
    if (rows_print(&o, device, train, micro_rows, &sizes[0], e) == 0 &&
        disk_print(&o, &m, train, e) == 0)
        result = advice_check(&run, &p, e);
    if (fflush(stdout) != 0)
        result = err_errno(e, EXIT_CODE_TEMPORARY, "cannot print the plan");
out:
    compute_close(&device);
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
