/* test_trainer_files.c - what trainerd leaves on the disk: the record of its steps, which
 * checkpoints stay and under which names, how much room all of it needs, and a write that fails
 * behind training. */
#include <sys/stat.h>
#include <unistd.h>

#include "proto/checkpoint.h"
#include "proto/lineage.h"
#include "tests/test.h"
#include "tests/unit/trainer_fixture.h"
#include "trainerd/disk.h"
#include "trainerd/retention.h"
#include "trainerd/trainer.h"

static struct options options; /* large; each case is a process of its own */

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

TEST(lineage_knows_its_last_step)
{
    struct lineage l;
    struct lineage_record r = record(6, 0.5), last;
    struct err e = {0};
    CHECK_EQ(lineage_last("lineage", &last, &e), 0);
    CHECK_OK(lineage_open(&l, "lineage", &e), e);
    CHECK_EQ(lineage_last("lineage", &last, &e), 0);
    CHECK_EQ(lineage_write(&l, &r, &last, &e), 0); /* steps 0 to 5 are a hole */
    CHECK_EQ(lineage_last("lineage", &last, &e), 1);
    CHECK(memcmp(&last, &r, sizeof r) == 0);
    CHECK_EQ(truncate("lineage", 7 * 32 - 1), 0);
    CHECK_EQ(lineage_last("lineage", &last, &e), 0);
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

TEST(disk_counts_files_and_what_is_free)
{
    struct model m;
    struct err e = {0};
    char text[512];
    const char *const list[] = {"linear out=1000", "relu", "linear out=1000"};
    CHECK_OK(model_open(&m, list, 3, 1000, "softmax_cross_entropy", &e), e);
    trainer_fixture_options(&options);
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
    options.monitor_csv = 1;
    options.monitor_csv_limit_mb = 10;
    struct disk_forecast h = disk_forecast_make(&options, &m, 0, 1000);
    CHECK_EQ(h.most, g.most + (20 << 20));
    CHECK_EQ(h.least, g.least);
    struct disk_room room = {.run = 1 << 20};
    disk_text(&h, &room, text, sizeof text);
    CHECK_HAS(text, ", metrics.csv 20.0 MiB");
    options.monitor_csv = 0;
    options.data_stateful = 0;
    m.carried_values = 0;
    model_close(&m);
}

/* As on a disk of its own: /proc is one, without a byte free. */
TEST(disk_counts_fisher_information_where_it_lies)
{
    struct disk_forecast f = {.fisher = 9 << 20, .most = 10 << 20, .least = 1};
    struct disk_room room = {.run = 2 << 20, .fisher = 5 << 20, .apart = 1, .place = "/fast"};
    struct err e = {0};
    char text[768];
    disk_text(&f, &room, text, sizeof text);
    CHECK_HAS(text, "disk: up to 1.0 MiB of 2 MiB free:");
    CHECK_HAS(text, "Fisher information 9.0 MiB on another disk, 5 MiB free at /fast");
    CHECK(mkdir("fisher", 0700) == 0);
    CHECK_OK(disk_room_find(&room, ".", "fisher", &e), e);
    CHECK(!room.apart && disk_most(&f, &room) == f.most);
    CHECK(rmdir("fisher") == 0 && symlink("/proc", "fisher") == 0);
    CHECK_OK(disk_room_find(&room, ".", "fisher", &e), e);
    CHECK(room.apart && room.fisher == 0 && disk_most(&f, &room) == 1 << 20);
    CHECK_STR(room.place, "/proc");
    CHECK_OK(disk_check(&f, 1, &e), e); /* a warning */
    f.fisher_least = 4 << 20;
    CHECK_OK(disk_check(&f, 0, &e), e);
    CHECK(disk_check(&f, 1, &e) < 0 && e.code == EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "the Fisher information will take at least 4.0 MiB and the file system of "
                      "/proc has 0.0 MiB free");
}

TEST(disk_counts_what_fisher_information_takes_whatever_it_is)
{
    struct model m;
    struct err e = {0};
    const char *const list[] = {"linear out=1000", "relu", "linear out=1000"};
    CHECK_OK(model_open(&m, list, 3, 1000, "softmax_cross_entropy", &e), e);
    uint64_t vector = 4 * m.parameter_count;
    trainer_fixture_options(&options);
    options.optimizer = "adamw";
    options.on_nan = "stop";
    options.tasks[1].ewc.count = 1;
    snprintf(options.tasks[1].ewc.name[0], sizeof options.tasks[1].ewc.name[0], "%s",
             options.tasks[0].name);
    CHECK_EQ(disk_forecast_make(&options, &m, 0, 1000).fisher_least, 3 * vector); /* its sums */
    options.fisher_use_compression = 0;
    CHECK_EQ(disk_forecast_make(&options, &m, 0, 1000).fisher_least, 4 * vector);
    options.fisher_estimator = "adam";
    CHECK_EQ(disk_forecast_make(&options, &m, 0, 1000).fisher_least, vector);
    options.fisher_estimator = "exact";
    options.tasks[1].ewc.count = 0;
    CHECK_EQ(disk_forecast_make(&options, &m, 0, 1000).fisher_least, 0);
    model_close(&m);
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
