/* test_trainer_plan.c - memory before any of it is taken: what it is reckoned from, what is counted
 * for which tasks, what a limit refuses, and micro-batches that are halved until they fit. How rows
 * are kept is in test_trainer_megabatch.c. */
#include "engine/importance.h"
#include "engine/memory.h"
#include "tests/test.h"
#include "tests/unit/cuda_fixture.h"
#include "tests/unit/trainer_fixture.h"
#include "trainerd/trainer.h"

static struct options options; /* large; each case is a process of its own */
static uint64_t micro_rows;

static FILE *text_open(const char *text)
{
    test_file_write("text", text);
    return fopen("text", "r");
}

/* Two files, the first with 5 values a row, the second with so many; the most is in either. */
static const char *described_twice(const char *values)
{
    static char text[2048];
    static const char *const splits[] = {"train", "validation"}, *const rows[] = {"7", "3", "9",
                                                                                  "2"};
    size_t used = (size_t)snprintf(text, sizeof text,
                                   "base.trainerd=1\nbase.fisherd=1\nbase.fisherd_idle=1\n"
                                   "base.loaderd=1\nbase.reader=1\nbase.monitord=1\n");
    for (int i = 0; i < 4; i++)
        used += (size_t)snprintf(text + used, sizeof text - used,
                                 "%1$s.layout=dense\n%1$s.rows=%2$s\n%1$s.spans=%3$d\n"
                                 "%1$s.span_rows=4\n%1$s.span_bytes_max=9\n%1$s.row_bytes=6\n"
                                 "%1$s.values=%4$s\n",
                                 splits[i % 2], rows[i], 4 - i, i < 2 ? "5" : values);
    return text;
}

TEST(plan_reads_a_description)
{
    static struct plan_shapes shapes;
    const struct split_shape *train = &shapes.train, *validation = &shapes.validation;
    struct plan_bases measured;
    struct err e = {0};
    FILE *f = text_open(
        "base.trainerd=24000000\nbase.fisherd=22000000\nbase.fisherd_idle=9\nbase.loaderd=9000000\n"
        "base.reader=3000000\nbase.monitord=12000000\n"
        "train.rows=60000\ntrain.spans=40\ntrain.chunk_bytes_max=4096\ntrain.span_rows=1536\n"
        "train.span_bytes_max=1206272\ntrain.values=784\ntrain.layout=dense\n"
        "train.spans=40\ntrain.row_bytes=785\nvalidation.spans=7\nvalidation.row_bytes=785\n"
        "validation.rows=10000\nvalidation.span_rows=1536\nvalidation.kept_bytes=77\n"
        "validation.span_bytes_max=1206272\nvalidation.values=784\nvalidation.layout=tokens\n");
    CHECK_OK(plan_read_shapes(f, &shapes, &measured, &e), e);
    fclose(f);
    CHECK_EQ(train->rows, 60000);
    CHECK_EQ(train->values, 784);
    CHECK_STR(train->layout, "dense");
    CHECK_STR(validation->layout, "tokens");
    CHECK_EQ(validation->span_bytes_max, 1206272);
    CHECK_EQ(train->chunk_bytes_max, 4096);
    CHECK_EQ(validation->kept_bytes, 77);
    CHECK_EQ(shapes.sets, 1);
    CHECK_EQ(measured.reader, 3000000);
    CHECK_EQ(measured.trainerd, 24000000);
    f = text_open(described_twice("5"));
    CHECK_OK(plan_read_shapes(f, &shapes, &measured, &e), e);
    fclose(f);
    CHECK_EQ(train->rows, 9);
    CHECK_EQ(train->spans, 4);
    CHECK_EQ(shapes.sets, 2);
    CHECK_EQ(shapes.of_sets[0][0].rows, 7);
    CHECK_EQ(shapes.of_sets[1][0].rows, 9);
    CHECK_EQ(shapes.of_sets[1][0].spans, 2);
    CHECK_EQ(validation->rows, 3);
    f = text_open(described_twice("6")); /* one model takes both */
    CHECK_EQ(plan_read_shapes(f, &shapes, &measured, &e), -1);
    CHECK_HAS(e.text, "do not hold rows of one kind");
    fclose(f);
    f = text_open("train.rows=60000\n");
    CHECK_EQ(plan_read_shapes(f, &shapes, &measured, &e), -1);
    fclose(f);
    CHECK_HAS(e.text, "train split");
}

TEST(bases_of_a_run_are_all_there)
{
    struct plan_bases b;
    struct err e = {0};
    test_file_write(
        "bases",
        "base.trainerd=1\nbase.fisherd=2\nbase.fisherd_idle=1\nbase.loaderd=3\nbase.monitord=4\n");
    CHECK_EQ(plan_bases_read(&b, "bases", &e), -1);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "bases does not say what reader takes");
    CHECK_EQ(plan_bases_read(&b, "missing", &e), -1);
    test_file_write("bases",
                    "base.trainerd=1\nbase.fisherd=2\nbase.fisherd_idle=1\nbase.loaderd=3\nbase."
                    "monitord=4\nbase.reader=5\n");
    CHECK_OK(plan_bases_read(&b, "bases", &e), e);
    CHECK_EQ(b.reader, 5);
}

TEST(plan_fits_the_arena_and_the_limit)
{
    struct model m = {0};
    struct plan p = {0};
    struct megabatch_size sizes[2];
    struct err e = {0};
    trainer_fixture_options(&options);
    CHECK_OK(setup_model(&m, &options, &(struct model_input){.values = 784}, &e), e);
    CHECK_OK(plan_make(&p, &options, &m, &trainer_fixture_bases, &trainer_fixture_images,
                       &trainer_fixture_images, NULL, &micro_rows, sizes, &e),
             e);
    CHECK(plan_total(&p, "trainerd") > (8 + 3) << 20);
    CHECK_EQ(plan_total(&p, "loaderd"), ((9 + 2 * 10) << 20) + 2 * (3 * (1 << 17) + (1 << 10)));
    CHECK_EQ(plan_total(&p, "fisherd"), trainer_fixture_bases.fisherd_idle); /* no task has ewc */
    uint64_t without = plan_total(&p, "trainerd");
    snprintf(options.tasks[1].ewc.name[0], sizeof options.tasks[1].ewc.name[0], "A");
    options.tasks[1].ewc.count = 1;
    p.count = 0;
    CHECK_OK(plan_make(&p, &options, &m, &trainer_fixture_bases, &trainer_fixture_images,
                       &trainer_fixture_images, NULL, &micro_rows, sizes, &e),
             e);
    CHECK_EQ(plan_total(&p, "trainerd") - without,
             4 * m.parameter_count + importance_bytes(&m, 0) + /* theta*, and on the way: */
                 5 * m.parameter_count + m.parameter_count / 16 + importance_build_bytes(&m));
    CHECK(plan_total(&p, "fisherd") > trainer_fixture_bases.fisherd);
    options.host_limit_mb = 4096;
    CHECK_OK(plan_check(&p, &options, NULL, &e), e);
    options.host_limit_mb = 10;
    CHECK_EQ(plan_check(&p, &options, NULL, &e), -1);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "memory.host_limit_mb is 10 MiB; raise it");
    p.count = 0;
    options.arena_limit_mb = 4; /* a window of 4 spans and one slot need 5 */
    CHECK_EQ(plan_make(&p, &options, &m, &trainer_fixture_bases, &trainer_fixture_images,
                       &trainer_fixture_images, NULL, &micro_rows, sizes, &e),
             -1);
    CHECK_HAS(e.text, "arena.limit_mb is 4");
    model_close(&m);
}

/* A task has data of its own. */
static void task_file(uint32_t i, const char *file)
{
    free(options.tasks[i].file);
    options.tasks[i].file = strdup(file);
}

/* Where tasks have data of their own the plan is that of the one that takes most: the large one
 * protects nothing, and nothing of the small one is added to it. */
TEST(plan_is_that_of_the_task_that_takes_most)
{
    struct split_shape small = trainer_fixture_images;
    const struct split_shape *of_tasks[OPTION_TASKS_MAX];
    struct model m = {0};
    struct plan p = {0};
    struct megabatch_size sizes[2];
    struct err e = {0};
    small.rows = 3072, small.spans = 2;
    trainer_fixture_options(&options);
    options.task_count = 2;
    options.loader_use_chunk_loader = "true";
    options.host_limit_mb = 4096;
    for (int i = 0; i < 2; i++) {
        task_file((uint32_t)i, i ? "/small" : "/large");
        of_tasks[i] = i ? &small : &trainer_fixture_images;
    }
    CHECK_OK(setup_model(&m, &options, &(struct model_input){.values = 784}, &e), e);
    CHECK_OK(plan_make(&p, &options, &m, &trainer_fixture_bases, &trainer_fixture_images,
                       &trainer_fixture_images, of_tasks, &micro_rows, sizes, &e),
             e);
    uint64_t without = plan_total(&p, "trainerd");
    snprintf(options.tasks[1].ewc.name[0], sizeof options.tasks[1].ewc.name[0], "A");
    options.tasks[1].ewc.count = 1;
    CHECK_OK(plan_make(&p, &options, &m, &trainer_fixture_bases, &trainer_fixture_images,
                       &trainer_fixture_images, of_tasks, &micro_rows, sizes, &e),
             e);
    CHECK_EQ(sizes[0].kind, MEGABATCH_WHOLE);
    CHECK_EQ(plan_total(&p, "trainerd"), without);
    CHECK_OK(plan_make(&p, &options, &m, &trainer_fixture_bases, &trainer_fixture_images,
                       &trainer_fixture_images, NULL, &micro_rows, sizes, &e),
             e);
    CHECK(plan_total(&p, "trainerd") > without);
    model_close(&m);
}

/* The training rows of each of two tasks, and how many tasks it protects. */
struct two_tasks {
    const struct split_shape *rows[2];
    uint32_t terms[2];
};

static void two_tasks_plan(struct plan *p, const struct model *m, const struct plan_bases *b,
                           const struct split_shape *most, const struct two_tasks *two)
{
    struct megabatch_size sizes[2];
    struct err e;
    for (int i = 0; i < 2; i++)
        options.tasks[i].ewc.count = two->terms[i];
    CHECK_OK(plan_make(p, &options, m, b, most, &trainer_fixture_images, two->rows, &micro_rows,
                       sizes, &e),
             e);
}

/* One task's arena is large, the other has more of the engine's own memory and takes more of the
 * device: whatever the order of the tasks and wherever there is a limit, none is forgotten. */
TEST(plan_holds_the_most_of_each_task)
{
    struct split_shape small = trainer_fixture_images, large = trainer_fixture_images;
    large.span_bytes_max = 8 << 20;
    small.rows = 3072, small.spans = 2;
    const struct two_tasks arena = {{&large, &large}, {1, 1}}, terms = {{&small, &small}, {20, 20}};
    const struct two_tasks both[] = {{{&large, &small}, {1, 20}}, {{&small, &large}, {20, 1}}};
    struct plan_bases b = trainer_fixture_bases;
    struct plan p[3] = {0};
    struct model m = {0};
    struct err e = {0};
    trainer_fixture_options(&options);
    options.task_count = 2;
    options.host_limit_mb = 4096;
    options.arena_limit_mb = 40;
    options.fisher_use_compression = 0;
    for (int i = 0; i < 2; i++)
        task_file((uint32_t)i, i ? "/small" : "/large");
    b.device = cuda_fixture_device();
    CHECK_OK(setup_model(&m, &options, &(struct model_input){.values = 784}, &e), e);
    two_tasks_plan(&p[0], &m, &b, &large, &arena);
    two_tasks_plan(&p[1], &m, &b, &large, &terms);
    CHECK(plan_total(&p[0], NULL) > plan_total(&p[1], NULL));
    CHECK(plan_total(&p[0], PLAN_DEVICE) < plan_total(&p[1], PLAN_DEVICE));
    uint64_t regions = plan_regions_limit(&p[1], &options);
    CHECK(plan_regions_limit(&p[0], &options) < regions);
    for (int order = 0; order < 2; order++) {
        options.device_limit_mb = 0;
        two_tasks_plan(&p[2], &m, &b, &large, &both[order]);
        CHECK_EQ(plan_total(&p[2], NULL), plan_total(&p[0], NULL));
        CHECK_EQ(plan_total(&p[2], "trainerd"), plan_total(&p[0], "trainerd"));
        CHECK_EQ(plan_total(&p[2], PLAN_DEVICE), plan_total(&p[1], PLAN_DEVICE));
        CHECK_EQ(plan_regions_limit(&p[2], &options), regions);
        options.device_limit_mb = plan_total(&p[2], PLAN_DEVICE) >> 20; /* rounded down */
        CHECK_OK(plan_check(&p[0], &options, b.device, &e), e);
        CHECK_EQ(plan_check(&p[2], &options, b.device, &e), -1);
        CHECK_HAS(e.text, "of device memory (--plan shows what takes it)");
    }
    options.device_limit_mb = 0;
    model_close(&m);
}

/* There are never more rows in memory than the data have, nor in a slice than in a micro-batch. */
TEST(plan_counts_no_rows_that_never_come)
{
    struct split_shape shape = {.rows = 64,
                                .spans = 1,
                                .chunk_bytes_max = 1 << 16,
                                .span_rows = 64,
                                .values = 784,
                                .span_bytes_max = 1 << 16};
    static const struct {
        uint64_t batch_size, slice_rows;
    } cases[] = {{64, 64}, {4096, 64}, {64, 4096}, {1 << 20, 65536}};
    uint64_t expected = 0, fisher = 0;
    struct model m = {0};
    struct megabatch_size sizes[2];
    struct err e = {0};
    trainer_fixture_options(&options);
    snprintf(options.tasks[1].ewc.name[0], sizeof options.tasks[1].ewc.name[0], "A");
    options.tasks[1].ewc.count = 1;
    CHECK_OK(setup_model(&m, &options, &(struct model_input){.values = 784}, &e), e);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plan p = {0};
        options.batch_size = cases[i].batch_size;
        options.slice_rows = cases[i].slice_rows;
        CHECK_OK(plan_make(&p, &options, &m, &trainer_fixture_bases, &shape, &shape, NULL,
                           &micro_rows, sizes, &e),
                 e);
        expected = i ? expected : plan_total(&p, "trainerd");
        fisher = i ? fisher : plan_total(&p, "fisherd");
        CHECK_EQ(plan_total(&p, "trainerd"), expected);
        CHECK_EQ(plan_total(&p, "fisherd"), fisher);
    }
    model_close(&m);
}

/* What the plan has fits under the limit at work, and the micro-batch that it did not allow does
 * not: that is refused as if there were no memory, and all is as it was. */
static void limit_check(const struct model *m, const struct plan *p)
{
    struct stepper *s;
    struct step_config c;
    struct err e;
    uint64_t rows = micro_rows;
    CHECK_OK(shapes_step_config(&c, &options, NULL, &trainer_fixture_images,
                                &trainer_fixture_images, rows, &e),
             e);
    memory_limit_set(plan_regions_limit(p, &options));
    CHECK_OK(stepper_open(&s, m, &c, &e), e);
    uint64_t used = memory_used();
    CHECK_EQ(stepper_resize(s, options.batch_size, options.slice_rows, 1, &e), -1);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    CHECK_HAS(e.text, "that the limit leaves for it");
    CHECK_EQ(memory_used(), used);
    memory_limit_set(UINT64_MAX);
    CHECK_OK(stepper_resize(s, options.batch_size, options.slice_rows, 1, &e), e);
    stepper_close(&s);
}

TEST(micro_batches_are_halved_until_the_run_fits)
{
    struct model m = {0};
    struct plan p = {0};
    struct megabatch_size sizes[2];
    struct err e = {0};
    trainer_fixture_options(&options);
    options.batch_size = 4096 + 64;
    options.gradient_accumulation_steps = 1;
    CHECK_OK(setup_model(&m, &options, &(struct model_input){.values = 784}, &e), e);
    options.host_limit_mb = 1 << 20;
    options.dynamic_batch_size = 1;
    CHECK_OK(plan_make(&p, &options, &m, &trainer_fixture_bases, &trainer_fixture_images,
                       &trainer_fixture_images, NULL, &micro_rows, sizes, &e),
             e);
    CHECK_EQ(micro_rows, 4160);
    uint64_t whole = plan_total(&p, NULL) >> 20;
    options.host_limit_mb = whole - 3; /* a row takes 3 KiB: half of the rows 6 MiB */
    CHECK_OK(plan_make(&p, &options, &m, &trainer_fixture_bases, &trainer_fixture_images,
                       &trainer_fixture_images, NULL, &micro_rows, sizes, &e),
             e);
    CHECK_EQ(micro_rows, 33 * 64); /* of 65 slices */
    CHECK_OK(plan_check(&p, &options, NULL, &e), e);
    limit_check(&m, &p);
    options.host_limit_mb = whole - 9;
    CHECK_OK(plan_make(&p, &options, &m, &trainer_fixture_bases, &trainer_fixture_images,
                       &trainer_fixture_images, NULL, &micro_rows, sizes, &e),
             e);
    CHECK_EQ(micro_rows, 9 * 64);
    options.dynamic_batch_size = 0;
    CHECK_OK(plan_make(&p, &options, &m, &trainer_fixture_bases, &trainer_fixture_images,
                       &trainer_fixture_images, NULL, &micro_rows, sizes, &e),
             e);
    CHECK_EQ(micro_rows, 4160);
    CHECK_EQ(plan_check(&p, &options, NULL, &e), -1);
    options.dynamic_batch_size = 1;
    options.host_limit_mb = 10; /* nothing helps: the plan is that of what was asked for */
    CHECK_OK(plan_make(&p, &options, &m, &trainer_fixture_bases, &trainer_fixture_images,
                       &trainer_fixture_images, NULL, &micro_rows, sizes, &e),
             e);
    CHECK_EQ(micro_rows, 4160);
    model_close(&m);
}
