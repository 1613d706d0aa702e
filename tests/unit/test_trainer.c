/* test_trainer.c - the pure parts of trainerd: schedule, lineage, retention, rates, plan.
 */
#include "tests/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/device.h"
#include "engine/memory.h"
#include "proto/checkpoint.h"
#include "trainerd/disk.h"
#include "trainerd/lineage.h"
#include "trainerd/rate.h"
#include "trainerd/retention.h"
#include "trainerd/schedule.h"
#include "tests/unit/cuda_fixture.h"
#include "trainerd/trainer.h"

static struct options options; /* large; each case is a process of its own */

static struct task_options *task_add(const char *name, const char *comparison_of, uint64_t epochs)
{
    struct task_options *t = &options.tasks[options.task_count++];
    *t = (struct task_options){.name = strdup(name),
                               .epochs = epochs,
                               .from = strdup("start"),
                               .comparison_of = strdup(comparison_of),
                               .file = strdup(""),
                               .source = strdup(""),
                               .permute_features = OPTION_NONE};
    return t;
}

/* A, B, the comparison of B, C, the comparison of C. */
static void five_tasks(void)
{
    options.batch_size = 128;
    options.gradient_accumulation_steps = 1;
    options.optimizer = "adamw";
    options.data_file = "x.h5";
    task_add("A", "", 3);
    task_add("B", "", 2);
    task_add("B-without", "B", 2);
    task_add("C", "", 1);
    task_add("C-without", "C", 1);
}

/* A task has data of its own. */
static void task_file(uint32_t i, const char *file)
{
    free(options.tasks[i].file);
    options.tasks[i].file = strdup(file);
}

/* All tasks with so many rows. */
static int open_all(struct schedule *s, uint64_t rows, struct err *e)
{
    uint64_t of_tasks[OPTION_TASKS_MAX];
    for (uint32_t i = 0; i < options.task_count; i++)
        of_tasks[i] = rows;
    return schedule_open(s, &options, of_tasks, e);
}

TEST(schedule_counts_steps_over_all_tasks)
{
    struct schedule s;
    struct err e;
    five_tasks();
    CHECK_OK(open_all(&s, 60000, &e), e);
    CHECK_EQ(s.epoch_steps[0], 469); /* 468 whole batches and one of 96 rows */
    CHECK_EQ(s.first_step[0], 0);
    CHECK_EQ(s.first_step[1], 3 * 469);
    CHECK_EQ(schedule_steps(&s), 9 * 469);
    CHECK_EQ(schedule_batch_rows(&s, 0, 0), 128);
    CHECK_EQ(schedule_batch_rows(&s, 0, 468 * 128), 96);
    CHECK_EQ(schedule_batch_rows(&s, 0, 59999), 1);
}

TEST(schedule_counts_optimizer_steps_of_micro_batches)
{
    struct schedule s;
    struct err e;
    five_tasks();
    options.batch_size = 64;
    options.gradient_accumulation_steps = 4;
    CHECK_OK(open_all(&s, 60000, &e), e);
    CHECK_EQ(s.epoch_steps[0], 235); /* 234 of 256 rows and one of 96 */
    CHECK_EQ(schedule_batch_rows(&s, 0, 0), 256);
    CHECK_EQ(schedule_batch_rows(&s, 0, 234 * 256), 96);
}

TEST(schedule_gives_the_backbone_its_rate_and_sgd_its_momentum)
{
    struct schedule s;
    struct err e;
    five_tasks();
    options.learning_rate = 1e-2;
    options.scheduler_type = "onecycle";
    options.div_factor = 25;
    options.final_div_factor = 1e4;
    options.warmup_pct = 0.3;
    options.adam_beta1 = 0.9;
    options.momentum = 0.8;
    CHECK_OK(open_all(&s, 60000, &e), e);
    struct schedule_rates at = schedule_rates(&options, &s, 0, 0, 100, 1);
    CHECK(at.backbone_rate == at.rate && at.beta1 == 0.9);
    options.backbone_lr = 1e-3;
    options.optimizer = "sgd";
    struct schedule_rates sgd = schedule_rates(&options, &s, 0, 0, 100, 1);
    CHECK(sgd.rate == at.rate && sgd.beta1 == 0.8);
    CHECK(sgd.backbone_rate > at.rate / 10.0001 && sgd.backbone_rate < at.rate / 9.9999);
}

TEST(schedule_of_data_smaller_than_a_batch)
{
    struct schedule s;
    struct err e;
    five_tasks();
    CHECK_OK(open_all(&s, 5, &e), e);
    CHECK_EQ(s.epoch_steps[0], 1);
    CHECK_EQ(schedule_batch_rows(&s, 0, 0), 5);
    CHECK_OK(open_all(&s, 128, &e), e);
    CHECK_EQ(s.epoch_steps[0], 1);
    CHECK_EQ(schedule_batch_rows(&s, 0, 0), 128);
}

TEST(schedule_leaves_out_the_last_batch_if_asked)
{
    struct schedule s;
    struct err e = {0};
    five_tasks();
    options.data_drop_last = 1;
    CHECK_OK(open_all(&s, 60000, &e), e);
    CHECK_EQ(s.epoch_steps[0], 468);
    CHECK_EQ(s.rows[0], 468 * 128);
    CHECK_OK(open_all(&s, 128, &e), e);
    CHECK_EQ(s.rows[0], 128);
    CHECK_EQ(open_all(&s, 127, &e), -1);
    CHECK_HAS(e.text, "data.drop_last leaves nothing of the 127 rows of task A");
}

TEST(schedule_gives_a_comparison_the_keys_of_its_original)
{
    struct schedule s;
    struct err e;
    five_tasks();
    CHECK_OK(open_all(&s, 60000, &e), e);
    for (uint64_t epoch = 0; epoch < 2; epoch++)
        CHECK_EQ(schedule_epoch_key(&s, 2, epoch), schedule_epoch_key(&s, 1, epoch));
    CHECK_EQ(schedule_dropout_key(&s, 2, 7), schedule_dropout_key(&s, 1, 7));
    CHECK_EQ(schedule_dropout_key(&s, 1, 7), s.first_step[1] + 7);
    CHECK(schedule_epoch_key(&s, 0, 1) != schedule_epoch_key(&s, 1, 1));
    CHECK(schedule_epoch_key(&s, 3, 0) != schedule_epoch_key(&s, 2, 0));
    CHECK(schedule_dropout_key(&s, 3, 0) != schedule_dropout_key(&s, 2, 0));
}

TEST(schedule_evaluates_every_task_so_far_but_comparisons)
{
    uint32_t list[OPTION_TASKS_MAX];
    five_tasks();
    CHECK_EQ(schedule_evaluations(&options, 0, list), 1);
    CHECK_EQ(schedule_evaluations(&options, 2, list), 2); /* as B: A and B */
    CHECK_EQ(list[1], 1);
    CHECK_EQ(schedule_evaluations(&options, 4, list), 3); /* as C: A, B and C */
    CHECK_EQ(list[2], 3);
}

TEST(schedule_refuses_a_comparison_that_differs)
{
    struct err e = {0};
    five_tasks();
    CHECK_OK(schedule_check(&options, &e), e);
    options.tasks[2].epochs = 3;
    CHECK_EQ(schedule_check(&options, &e), -1);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "B-without");
    CHECK_HAS(e.text, "epochs");
    options.tasks[2].epochs = 2;
    options.tasks[2].permute_features = 1;
    CHECK_EQ(schedule_check(&options, &e), -1);
    CHECK_HAS(e.text, "permute_features");
    options.tasks[2].permute_features = OPTION_NONE;
    options.tasks[2].ewc.count = 1;
    CHECK_EQ(schedule_check(&options, &e), -1);
    CHECK_HAS(e.text, "ewc");
}

TEST(schedule_refuses_more_results_than_a_checkpoint_holds)
{
    struct err e = {0};
    char name[16];
    for (int i = 0; i < 44; i++) { /* 44 * 45 / 2 = 990 */
        snprintf(name, sizeof name, "t%d", i);
        task_add(name, "", 1);
    }
    CHECK_OK(schedule_check(&options, &e), e);
    task_add("t44", "", 1); /* 1,035 */
    CHECK_EQ(schedule_check(&options, &e), -1);
    CHECK_HAS(e.text, "1035");
}

static struct lineage_record record(uint64_t step, double loss)
{
    return (struct lineage_record){.step_plus_1 = step + 1,
                                   .task_epoch = lineage_task_epoch(1, 2),
                                   .position = 128 * step,
                                   .micro_batch_rows = 128,
                                   .loss_bits = lineage_loss_bits(loss)};
}

TEST(lineage_compares_a_recomputed_step)
{
    struct lineage l;
    struct lineage_record r, before;
    struct err e = {0};
    CHECK_OK(lineage_open(&l, "lineage", &e), e);
    for (uint64_t step = 0; step < 5; step++) {
        r = record(step, 1.0 / (double)(step + 1));
        CHECK_EQ(lineage_write(&l, &r, &before, &e), 0);
    }
    lineage_close(&l);
    lineage_close(&l);
    CHECK_OK(lineage_open(&l, "lineage", &e), e);
    r = record(3, 0.25);
    CHECK_EQ(lineage_write(&l, &r, &before, &e), 0);
    r = record(4, 0.25); /* was 0.2 */
    CHECK_EQ(lineage_write(&l, &r, &before, &e), 1);
    CHECK(lineage_loss(&before) == (double)0.2f);
    CHECK_EQ(lineage_write(&l, &r, &before, &e), 0); /* the new one stands now */
    r.position++;
    CHECK_EQ(lineage_write(&l, &r, &before, &e), 1); /* same loss at another position */
    struct stat s;
    CHECK_EQ(stat("lineage", &s), 0);
    CHECK_EQ(s.st_size, 5 * 32);
    lineage_close(&l);
}

TEST(lineage_takes_a_hole_for_a_new_step)
{
    struct lineage l;
    struct lineage_record r = record(10, 0.5), before;
    struct err e = {0};
    CHECK_OK(lineage_open(&l, "lineage", &e), e);
    CHECK_EQ(lineage_write(&l, &r, &before, &e), 0); /* steps 0 to 9 are a hole */
    r = record(4, 0.5);
    CHECK_EQ(lineage_write(&l, &r, &before, &e), 0);
    CHECK_EQ(truncate("lineage", 10 * 32 + 7), 0); /* a torn record */
    r = record(10, 0.75);
    CHECK_EQ(lineage_write(&l, &r, &before, &e), 0);
    lineage_close(&l);
}

static int exists(const char *path)
{
    return access(path, F_OK) == 0;
}

TEST(retention_parses_only_step_checkpoints)
{
    uint64_t step, task;
    char path[CHECKPOINT_PATH_BYTES];
    retention_step_path(path, 1407, 1);
    CHECK_STR(path, "checkpoints/step-0000001407-01.h5");
    CHECK(retention_parse(path + 12, &step, &task));
    CHECK_EQ(step, 1407);
    CHECK_EQ(task, 1);
    CHECK(!retention_parse("step-0000001407-01.h5.tmp-12", &step, &task));
    CHECK(!retention_parse("step--5-01.h5", &step, &task));
    CHECK(!retention_parse("task-A.h5", &step, &task));
    CHECK(!retention_parse("best-step-1.h5", &step, &task));
}

TEST(retention_keeps_the_newest_and_named)
{
    char path[CHECKPOINT_PATH_BYTES];
    struct err e = {0};
    CHECK_EQ(mkdir("checkpoints", 0700), 0);
    for (uint64_t step = 100; step <= 700; step += 100) {
        retention_step_path(path, step, 0);
        test_file_write(path, "state");
    }
    retention_step_path(path, 100, 0);
    CHECK_OK(retention_link(path, "checkpoints/task-A.h5", &e), e);
    CHECK_OK(retention_link(path, "checkpoints/task-A.h5", &e), e);
    test_file_write("checkpoints/step-0000000650-00.h5.tmp-77", "half");
    test_file_write("checkpoints/best-A.h5.tmp", "half");
    retention_sweep("checkpoints", 3, 600, 0); /* 700 is of a future that did not verify */
    CHECK(exists("checkpoints/step-0000000600-00.h5"));
    CHECK(exists("checkpoints/step-0000000500-00.h5"));
    CHECK(exists("checkpoints/step-0000000400-00.h5"));
    CHECK(!exists("checkpoints/step-0000000300-00.h5"));
    CHECK(!exists("checkpoints/step-0000000100-00.h5"));
    CHECK(!exists("checkpoints/step-0000000700-00.h5"));
    CHECK(!exists("checkpoints/step-0000000650-00.h5.tmp-77"));
    CHECK(!exists("checkpoints/best-A.h5.tmp"));
    CHECK(exists("checkpoints/task-A.h5"));
}

TEST(retention_link_replaces_what_the_name_meant)
{
    struct stat a, b;
    struct err e = {0};
    CHECK_EQ(mkdir("checkpoints", 0700), 0);
    test_file_write("checkpoints/step-0000000001-00.h5", "one");
    test_file_write("checkpoints/step-0000000002-00.h5", "two");
    CHECK_OK(retention_link("checkpoints/step-0000000001-00.h5", "checkpoints/best-A.h5", &e), e);
    CHECK_OK(retention_link("checkpoints/step-0000000002-00.h5", "checkpoints/best-A.h5", &e), e);
    CHECK_EQ(stat("checkpoints/step-0000000002-00.h5", &a), 0);
    CHECK_EQ(stat("checkpoints/best-A.h5", &b), 0);
    CHECK_EQ(a.st_ino, b.st_ino);
    CHECK(!exists("checkpoints/best-A.h5.tmp"));
    CHECK_EQ(retention_link("checkpoints/step-0000000009-00.h5", "checkpoints/best-A.h5", &e), -1);
    CHECK_HAS(e.text, "step-0000000009-00.h5");
}

TEST(rate_is_that_of_the_last_points)
{
    struct rate r = {0};
    double steps, rows, share;
    rate_read(&r, &steps, &rows, &share);
    CHECK(steps == 0 && rows == 0 && share == 0);
    CHECK(rate_newest(&r) == NULL);
    for (int i = 0; i <= 100; i++) { /* slow at first, 10 steps each tenth of a second later */
        double time = i < 50 ? i : 50 + (i - 50) * 0.1;
        struct rate_point p = {time, time / 4, (uint64_t)(i * 10), (uint64_t)(i * 1280)};
        rate_add(&r, &p);
    }
    rate_read(&r, &steps, &rows, &share);
    CHECK(steps > 99.999 && steps < 100.001);
    CHECK(rows > 12799.9 && rows < 12800.1);
    CHECK(share > 0.2499 && share < 0.2501);
}

TEST(rate_needs_time_to_pass)
{
    struct rate r = {0};
    struct rate_point p = {1, 0, 5, 5};
    double steps, rows, share;
    rate_add(&r, &p);
    rate_add(&r, &p);
    rate_read(&r, &steps, &rows, &share);
    CHECK(steps == 0 && rows == 0 && share == 0);
}

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
    CHECK_EQ(shapes.of_sets[0].rows, 7);
    CHECK_EQ(shapes.of_sets[1].rows, 9);
    CHECK_EQ(shapes.of_sets[1].spans, 2);
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

static void plan_options(void)
{
    static char model_loss[] = "softmax_cross_entropy";
    static char metric[] = "auto", none[] = "", estimator[] = "exact";
    static const char *const layers[] = {"linear out=256", "relu", "linear out=10"};
    five_tasks();
    options.slice_rows = 64;
    options.threads = 2;
    options.data_shuffle = 1;
    options.order_window_spans = 4;
    options.arena_limit_mb = 16;
    options.fisher_block_size = 1000000;
    options.fisher_use_compression = 1;
    options.fisher_estimator = estimator;
    options.fisher_compression = "log_rank1";
    options.fisher_labels = "true";
    options.ewc_mode = "separate";
    options.loader_pin_memory = "auto";
    options.fisher_samples = 4096;
    options.model_loss = model_loss;
    options.metric = metric;
    options.pretrained = options.pretrained_map = none;
    options.target_weights = options.data_weights = none;
    for (int i = 0; i < 3; i++)
        snprintf(options.layers[options.layer_count++], sizeof options.layers[0], "%s", layers[i]);
}

static const struct plan_bases bases = {.trainerd = 24 << 20,
                                        .fisherd = 24 << 20,
                                        .fisherd_idle = 1,
                                        .loaderd = 9 << 20,
                                        .reader = 10 << 20,
                                        .monitord = 12 << 20};

TEST(disk_counts_files_and_what_is_free)
{
    struct model m;
    struct err e = {0};
    const char *const list[] = {"linear out=1000", "relu", "linear out=1000"};
    CHECK_OK(model_open(&m, list, 3, 1000, "softmax_cross_entropy", &e), e);
    plan_options();
    options.optimizer = "adamw";
    options.on_nan = "restore";
    options.fisher_compression = "gzip";
    options.checkpoint_keep = 3;
    options.tasks[1].ewc.count = options.tasks[2].ewc.count = 1; /* both protect the first one */
    snprintf(options.tasks[1].ewc.name[0], sizeof options.tasks[1].ewc.name[0], "%s",
             options.tasks[0].name);
    options.tasks[2].ewc = options.tasks[1].ewc;
    struct disk_forecast f = disk_forecast_make(&options, &m, 0, 1000);
    uint64_t vector = 4 * m.parameter_count, file = 3 * vector + (64 << 10);
    CHECK_EQ(f.checkpoint, file);
    CHECK_EQ(f.checkpoints, 3 + 1 + 2 * 5 + 1);
    CHECK_EQ(f.lineage, 32000);
    CHECK_EQ(f.averages, 0);
    CHECK_EQ(f.least, 6 * file); /* tasks may end after fewer steps */
    /* gzip may save nothing; a model of two blocks has files of sums */
    CHECK_EQ(f.fisher, 2 * (vector + (64 << 10)) + 3 * vector); /* its parts, too */
    CHECK_EQ(f.most, f.checkpoints * file + f.fisher + 32000);
    options.use_swa = 1;
    CHECK_EQ(disk_forecast_make(&options, &m, 1000, 1000).averages, 4 * vector);
    CHECK_EQ(disk_forecast_make(&options, &m, 1000, 1000).checkpoint, file - 8000);
    CHECK_OK(disk_check(&f, 1, &e), e);
    f.most = UINT64_MAX / 2;
    CHECK_OK(disk_check(&f, 1, &e), e); /* a warning */
    f.least = UINT64_MAX / 2;
    CHECK_OK(disk_check(&f, 0, &e), e); /* one that goes on has its files already */
    CHECK(disk_check(&f, 1, &e) < 0 && e.code == EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "the run will write at least 8796093022208.0 MiB and its file system has");
    options.use_swa = 0;
    m.carried_values = 50; /* of a row of the batch; ends of tasks have none */
    options.data_stateful = 1;
    uint64_t carried = 50 * options_batch_rows(&options) * 4;
    struct disk_forecast g = disk_forecast_make(&options, &m, 0, 1000);
    CHECK_EQ(g.most, g.checkpoints * (file + carried) + g.fisher + 32000);
    CHECK_EQ(g.least, 6 * file);
    options.data_stateful = 0;
    m.carried_values = 0;
    model_close(&m);
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

static uint64_t micro_rows;

static const struct split_shape shape_of_images = {.rows = 60000,
                                                   .spans = 40,
                                                   .chunk_bytes_max = 1 << 17,
                                                   .kept_bytes = 1 << 10,
                                                   .span_rows = 1536,
                                                   .values = 784,
                                                   .span_bytes_max = 1 << 20};

TEST(plan_fits_the_arena_and_the_limit)
{
    struct model m = {0};
    struct plan p = {0};
    struct megabatch_size sizes[2];
    struct err e = {0};
    plan_options();
    CHECK_OK(setup_model(&m, &options, &(struct model_input){.values = 784}, &e), e);
    CHECK_OK(plan_make(&p, &options, &m, &bases, &shape_of_images, &shape_of_images, NULL,
                       &micro_rows, sizes, &e),
             e);
    CHECK(plan_total(&p, "trainerd") > (8 + 3) << 20);
    CHECK_EQ(plan_total(&p, "loaderd"), ((9 + 2 * 10) << 20) + 2 * (3 * (1 << 17) + (1 << 10)));
    CHECK_EQ(plan_total(&p, "fisherd"), bases.fisherd_idle); /* no task has ewc */
    uint64_t without = plan_total(&p, "trainerd");
    snprintf(options.tasks[1].ewc.name[0], sizeof options.tasks[1].ewc.name[0], "A");
    options.tasks[1].ewc.count = 1;
    p.count = 0;
    CHECK_OK(plan_make(&p, &options, &m, &bases, &shape_of_images, &shape_of_images, NULL,
                       &micro_rows, sizes, &e),
             e);
    CHECK_EQ(plan_total(&p, "trainerd") - without,
             4 * m.parameter_count + importance_bytes(&m, 0) + /* theta*, and on the way: */
                 5 * m.parameter_count + m.parameter_count / 16 + importance_build_bytes(&m));
    CHECK(plan_total(&p, "fisherd") > bases.fisherd);
    options.host_limit_mb = 4096;
    CHECK_OK(plan_check(&p, &options, NULL, &e), e);
    options.host_limit_mb = 10;
    CHECK_EQ(plan_check(&p, &options, NULL, &e), -1);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "memory.host_limit_mb is 10 MiB");
    p.count = 0;
    options.arena_limit_mb = 4; /* a window of 4 spans and one slot need 5 */
    CHECK_EQ(plan_make(&p, &options, &m, &bases, &shape_of_images, &shape_of_images, NULL,
                       &micro_rows, sizes, &e),
             -1);
    CHECK_HAS(e.text, "arena.limit_mb is 4");
    model_close(&m);
}

/* Where tasks have data of their own the plan is that of the one that takes most: the large one
 * protects nothing, and nothing of the small one is added to it. */
TEST(plan_is_that_of_the_task_that_takes_most)
{
    struct split_shape small = shape_of_images;
    const struct split_shape *of_tasks[OPTION_TASKS_MAX];
    struct model m = {0};
    struct plan p = {0};
    struct megabatch_size sizes[2];
    struct err e = {0};
    small.rows = 3072, small.spans = 2;
    plan_options();
    options.task_count = 2;
    options.loader_use_chunk_loader = 1;
    options.host_limit_mb = 4096;
    for (int i = 0; i < 2; i++) {
        task_file((uint32_t)i, i ? "/small" : "/large");
        of_tasks[i] = i ? &small : &shape_of_images;
    }
    CHECK_OK(setup_model(&m, &options, &(struct model_input){.values = 784}, &e), e);
    CHECK_OK(plan_make(&p, &options, &m, &bases, &shape_of_images, &shape_of_images, of_tasks,
                       &micro_rows, sizes, &e),
             e);
    uint64_t without = plan_total(&p, "trainerd");
    snprintf(options.tasks[1].ewc.name[0], sizeof options.tasks[1].ewc.name[0], "A");
    options.tasks[1].ewc.count = 1;
    CHECK_OK(plan_make(&p, &options, &m, &bases, &shape_of_images, &shape_of_images, of_tasks,
                       &micro_rows, sizes, &e),
             e);
    CHECK_EQ(sizes[0].kind, MEGABATCH_WHOLE);
    CHECK_EQ(plan_total(&p, "trainerd"), without);
    CHECK_OK(plan_make(&p, &options, &m, &bases, &shape_of_images, &shape_of_images, NULL,
                       &micro_rows, sizes, &e),
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
    CHECK_OK(
        plan_make(p, &options, m, b, most, &shape_of_images, two->rows, &micro_rows, sizes, &e), e);
}

/* One task's arena is large, the other has more of the engine's own memory and takes more of the
 * device: whatever the order of the tasks and wherever there is a limit, none is forgotten. */
TEST(plan_holds_the_most_of_each_task)
{
    struct split_shape small = shape_of_images, large = shape_of_images;
    large.span_bytes_max = 8 << 20;
    small.rows = 3072, small.spans = 2;
    const struct two_tasks arena = {{&large, &large}, {1, 1}}, terms = {{&small, &small}, {20, 20}};
    const struct two_tasks both[] = {{{&large, &small}, {1, 20}}, {{&small, &large}, {20, 1}}};
    struct plan_bases b = bases;
    struct plan p[3] = {0};
    struct model m = {0};
    struct err e = {0};
    plan_options();
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
        CHECK_HAS(e.text, "of device memory");
    }
    options.device_limit_mb = 0;
    model_close(&m);
}

/* The figures that users of chunk loading know: 360 steps of 167 float32 features (or 1104 of 128)
 * and 36 targets a sample, 51,779 samples. */
TEST(samples_of_a_chunk)
{
    uint64_t market = 360 * 167 * 4 + 36 * 4, frames = 1104 * 128 * 4 + 36 * 4, gib = 1 << 30;
    CHECK_EQ(megabatch_samples(12 * gib, market, 1 << 20, 128), 53547);
    CHECK_EQ(megabatch_samples(12 * gib, frames, 1 << 20, 128), 22789);
    CHECK_EQ(megabatch_samples(12 * gib, market, 51779, 128), 51779);
    CHECK_EQ(megabatch_samples(1000, market, 51779, 128), 128);
    CHECK_EQ(megabatch_samples(1000, market, 50, 128), 50);
}

TEST(size_of_a_megabatch)
{
    struct megabatch_size size = megabatch_size_make(10, 1000, 4, 10 * 1024);
    CHECK_EQ(size.kind, MEGABATCH_WHOLE);
    CHECK_EQ(size.span_bytes, 1024);
    CHECK_EQ(size.bytes, 12288);
    size = megabatch_size_make(10, 1000, 4, 10 * 1024 - 1);
    CHECK_EQ(size.kind, MEGABATCH_WINDOWS);
    CHECK_EQ(size.spans, 8);
    CHECK_EQ(megabatch_size_make(10, 1000, 4, 4 * 1024 - 1).kind, MEGABATCH_ARENA);
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
    plan_options();
    snprintf(options.tasks[1].ewc.name[0], sizeof options.tasks[1].ewc.name[0], "A");
    options.tasks[1].ewc.count = 1;
    CHECK_OK(setup_model(&m, &options, &(struct model_input){.values = 784}, &e), e);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plan p = {0};
        options.batch_size = cases[i].batch_size;
        options.slice_rows = cases[i].slice_rows;
        CHECK_OK(plan_make(&p, &options, &m, &bases, &shape, &shape, NULL, &micro_rows, sizes, &e),
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
    CHECK_OK(shapes_step_config(&c, &options, NULL, &shape_of_images, &shape_of_images, rows, &e),
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
    plan_options();
    options.batch_size = 4096 + 64;
    options.gradient_accumulation_steps = 1;
    CHECK_OK(setup_model(&m, &options, &(struct model_input){.values = 784}, &e), e);
    options.host_limit_mb = 1 << 20;
    options.dynamic_batch_size = 1;
    CHECK_OK(plan_make(&p, &options, &m, &bases, &shape_of_images, &shape_of_images, NULL,
                       &micro_rows, sizes, &e),
             e);
    CHECK_EQ(micro_rows, 4160);
    uint64_t whole = plan_total(&p, NULL) >> 20;
    options.host_limit_mb = whole - 3; /* a row takes 3 KiB: half of the rows 6 MiB */
    CHECK_OK(plan_make(&p, &options, &m, &bases, &shape_of_images, &shape_of_images, NULL,
                       &micro_rows, sizes, &e),
             e);
    CHECK_EQ(micro_rows, 33 * 64); /* of 65 slices */
    CHECK_OK(plan_check(&p, &options, NULL, &e), e);
    limit_check(&m, &p);
    options.host_limit_mb = whole - 9;
    CHECK_OK(plan_make(&p, &options, &m, &bases, &shape_of_images, &shape_of_images, NULL,
                       &micro_rows, sizes, &e),
             e);
    CHECK_EQ(micro_rows, 9 * 64);
    options.dynamic_batch_size = 0;
    CHECK_OK(plan_make(&p, &options, &m, &bases, &shape_of_images, &shape_of_images, NULL,
                       &micro_rows, sizes, &e),
             e);
    CHECK_EQ(micro_rows, 4160);
    CHECK_EQ(plan_check(&p, &options, NULL, &e), -1);
    options.dynamic_batch_size = 1;
    options.host_limit_mb = 10; /* nothing helps: the plan is that of what was asked for */
    CHECK_OK(plan_make(&p, &options, &m, &bases, &shape_of_images, &shape_of_images, NULL,
                       &micro_rows, sizes, &e),
             e);
    CHECK_EQ(micro_rows, 4160);
    model_close(&m);
}

TEST(plan_decides_how_rows_are_kept)
{
    struct split_shape train = {
        .rows = 60000, .spans = 40, .span_rows = 1536, .span_bytes_max = 1 << 20};
    struct split_shape validation = {
        .rows = 10000, .spans = 7, .span_rows = 1536, .span_bytes_max = 1 << 20};
    struct model m = {0};
    struct plan p = {0};
    struct megabatch_size sizes[2];
    struct err e = {0};
    static const struct {
        double chunk_gb;
        uint64_t limit_mb;
        enum megabatch_kind train, validation;
    } cases[] = {
        {0, 4096, MEGABATCH_WHOLE, MEGABATCH_WHOLE}, /* auto: all fits 3 GiB */
        {0, 200, MEGABATCH_WHOLE, MEGABATCH_WHOLE},
        {0, 125, MEGABATCH_WHOLE, MEGABATCH_ARENA},
        {0, 110, MEGABATCH_ARENA, MEGABATCH_ARENA},
        {40.0 / 1024, 4096, MEGABATCH_WHOLE, MEGABATCH_ARENA},
        {39.0 / 1024, 4096, MEGABATCH_WINDOWS, MEGABATCH_ARENA},
    };
    plan_options();
    options.loader_use_chunk_loader = 1;
    CHECK_OK(setup_model(&m, &options, &(struct model_input){.values = 784}, &e), e);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        p.count = 0;
        options.loader_chunk_size_gb = cases[i].chunk_gb;
        options.host_limit_mb = cases[i].limit_mb;
        CHECK_OK(
            plan_make(&p, &options, &m, &bases, &train, &validation, NULL, &micro_rows, sizes, &e),
            e);
        CHECK_EQ(sizes[0].kind, cases[i].train);
        CHECK_EQ(sizes[1].kind, cases[i].validation);
        CHECK_OK(plan_check(&p, &options, NULL, &e), e);
    }
    p.count = 0;
    options.loader_chunk_size_gb = 3.0 / 1024;
    CHECK_EQ(plan_make(&p, &options, &m, &bases, &train, &validation, NULL, &micro_rows, sizes, &e),
             -1);
    CHECK_HAS(e.text, "a window of 4 spans needs 0.004");
    options.loader_use_chunk_loader = 0;
    CHECK_OK(plan_make(&p, &options, &m, &bases, &train, &validation, NULL, &micro_rows, sizes, &e),
             e);
    CHECK_EQ(sizes[0].kind, MEGABATCH_ARENA);
    model_close(&m);
}

/* The emulated device has 1 GiB. */
/* A micro-batch that the limit has room for is taken, one that it has not is refused as if the
 * device had no memory left, and all is as it was. */
static void device_limit_check(const struct model *m, const struct device *d)
{
    struct stepper *s;
    struct step_config c;
    struct device_memory before, after;
    struct err e;
    CHECK_OK(shapes_step_config(&c, &options, d, &shape_of_images, &shape_of_images, 64, &e), e);
    device_limit_set(device_limit_of(d, options.device_limit_mb));
    CHECK_OK(stepper_open(&s, m, &c, &e), e);
    d->memory(&before);
    uint64_t rows = (options.device_limit_mb << 20) / (784 * sizeof(float)); /* the input alone */
    CHECK_EQ(stepper_resize(s, rows, rows, 1, &e), -1);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    CHECK_HAS(e.text, "that the limit leaves for it");
    d->memory(&after);
    CHECK_EQ(before.used_bytes, after.used_bytes);
    device_limit_set(UINT64_MAX);
    CHECK_OK(stepper_resize(s, rows, rows, 1, &e), e);
    stepper_close(&s);
}

TEST(plan_keeps_rows_on_the_device)
{
    struct split_shape shape = {
        .rows = 60000, .spans = 40, .span_rows = 1536, .span_bytes_max = 1 << 20};
    struct plan_bases on_device = bases;
    struct model m = {0};
    struct plan p = {0};
    struct megabatch_size sizes[2];
    struct err e = {0};
    plan_options();
    options.loader_use_chunk_loader = 1;
    options.host_limit_mb = 4096;
    on_device.device = cuda_fixture_device();
    CHECK_OK(setup_model(&m, &options, &(struct model_input){.values = 784}, &e), e);
    CHECK_OK(plan_make(&p, &options, &m, &on_device, &shape, &shape, NULL, &micro_rows, sizes, &e),
             e);
    CHECK_OK(plan_check(&p, &options, on_device.device, &e), e);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(sizes[i].kind, MEGABATCH_WHOLE);
        CHECK(sizes[i].device == on_device.device);
    }
    uint64_t whole = plan_total(&p, PLAN_DEVICE), host = plan_total(&p, "trainerd");
    CHECK(whole > (2 * 40) << 20 && host < (24 + 40) << 20);

    options.device_limit_mb = whole / (1 << 20) - 41; /* windows of 4 MiB, and the rest */
    p.count = 0;
    CHECK_OK(plan_make(&p, &options, &m, &on_device, &shape, &shape, NULL, &micro_rows, sizes, &e),
             e);
    CHECK_OK(plan_check(&p, &options, on_device.device, &e), e);
    CHECK_EQ(sizes[0].kind, MEGABATCH_WINDOWS);
    CHECK_EQ(sizes[0].spans % 4, 0);
    device_limit_check(&m, on_device.device);

    options.device_limit_mb = 4;
    p.count = 0;
    CHECK_OK(plan_make(&p, &options, &m, &on_device, &shape, &shape, NULL, &micro_rows, sizes, &e),
             e);
    CHECK_EQ(sizes[0].kind, MEGABATCH_ARENA);
    CHECK_EQ(plan_check(&p, &options, on_device.device, &e), -1);
    CHECK_HAS(e.text, "of device memory and that of the GPU is 4 MiB");
    options.device_limit_mb = 0;
    model_close(&m);
}

TEST(compute_without_a_cuda_library)
{
    static char automatic[] = "auto", cuda[] = "cuda:1";
    const struct device *d;
    struct err e = {0};
    setenv("FINETUNED_CUDA_LIBRARY", "none.so", 1);
    plan_options();
    options.device = automatic;
    CHECK_OK(compute_open(&d, &options, &e), e);
    CHECK(d == &device_cpu);
    compute_close(&d);
    options.device = cuda;
    CHECK_EQ(compute_open(&d, &options, &e), -1);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "no CUDA backend");
    CHECK(!d);
    compute_close(&d);
}

TEST(setup_refuses_a_metric_of_another_loss)
{
    char automatic[] = "auto", r2[] = "r2", l1[] = "l1";
    struct err e = {0};
    plan_options();
    options.device = automatic;
    CHECK_STR(setup_metric(&options), "accuracy");
    options.metric = r2;
    CHECK_EQ(setup_options_check(&options, &e), -1);
    CHECK_HAS(e.text, "training.metric is r2, which does not go with the loss "
                      "softmax_cross_entropy; accepted: loss, accuracy");
    options.model_loss = l1;
    CHECK_OK(setup_options_check(&options, &e), e);
    CHECK_STR(setup_metric(&options), "r2");
}

/* What is under way failed long ago, which is known once it was waited for. */
TEST(a_checkpoint_is_not_written_behind_training_for_ever)
{
    static struct trainer t; /* large */
    struct err e;
    t.state = TRAINER_TRAIN;
    t.saving.under_way = 1;
    t.saving.result = -1;
    err_set(&t.saving.why, EXIT_CODE_TEMPORARY, "the disk is full");
    t.saving.began_s = clock_monotonic_s() - SAVING_BEHIND_S + 60;
    CHECK_OK(saving_turn(&t, &e), e);
    CHECK(t.saving.under_way);
    t.saving.began_s = clock_monotonic_s() - SAVING_BEHIND_S;
    CHECK_EQ(saving_turn(&t, &e), -1);
    CHECK_STR(e.text, "the disk is full");
    CHECK(!t.saving.under_way);
}
