/* test_trainer_loop.c - what the training loop keeps from epoch to epoch: rates, plateau, early
 * stopping, the file of the average; and how fast it goes. Whole runs are in
 * tests/process/test_loop.py. */
#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/test.h"
#include "trainerd/average.h"
#include "trainerd/rate.h"
#include "trainerd/schedule.h"
#include "trainerd/trainer.h"
#include "trainerd/watch.h"

static struct options o; /* large; each case is a process of its own */
static struct checkpoint_meta m = {.metric = "accuracy"};

static void options_fill(void)
{
    o.batch_size = 64;
    o.gradient_accumulation_steps = 1;
    o.optimizer = "adamw";
    o.scheduler_type = "constant";
    o.learning_rate = 0.1;
    o.adam_beta1 = 0.9;
    o.watch = "loss";
    o.plateau_factor = 0.5;
    o.plateau_patience = 1;
    o.plateau_threshold = 0.01;
    o.plateau_threshold_mode = "rel";
    o.swa_anneal = "cos";
    o.swa_lr = 0.03;
    o.task_count = 1;
    o.tasks[0] = (struct task_options){
        .name = "A", .epochs = 10, .from = "start", .comparison_of = "", .permute_features = 0};
}

static struct schedule schedule_of_ten_epochs(void)
{
    struct schedule s;
    struct err e;
    CHECK_OK(schedule_check(&o, &e), e);
    CHECK_OK(schedule_open(&s, &o, &(uint64_t){640}, &e), e); /* 10 steps each */
    return s;
}

static double rate_at(const struct schedule *s, uint64_t step, double scale)
{
    return schedule_rates(&o, s, 0, step / s->epoch_steps[0], step, scale).rate;
}

/* The training clock stands still at such a time. */
static void clock_set(struct trainer *t, uint64_t rows, double seconds, double wait_s)
{
    t->progress.rows = rows;
    t->progress.seconds = seconds;
    t->progress.wait_s = wait_s;
}

/* What the process before had made of the epoch counts, what came before it does not. */
TEST(loop_times_of_an_epoch_go_on_after_a_stop)
{
    static struct trainer before, after; /* large */
    clock_set(&before, 1500, 15, 3);
    progress_epoch_begin(&before);
    clock_set(&before, 1700, 17.5, 3.5);
    before.meta.position = 200;
    progress_keep(&before);
    after.meta = before.meta;
    progress_resume(&after);
    after.progress.rows += 800;
    after.progress.seconds += 7.5;
    after.progress.wait_s += 1;
    after.meta.position = 1000;
    progress_keep(&after);
    CHECK_EQ(after.meta.epoch_rows_timed, 1000);
    CHECK(after.meta.epoch_seconds == 10 && after.meta.epoch_wait_seconds == 1.5);
    after.meta.position = 0;
    progress_keep(&after); /* at its end, before the next one has begun */
    CHECK(after.meta.epoch_rows_timed == 0 && after.meta.epoch_seconds == 0 &&
          after.meta.epoch_wait_seconds == 0);
}

TEST(loop_warms_up_epoch_by_epoch)
{
    options_fill();
    o.warmup_epochs = 4;
    struct schedule s = schedule_of_ten_epochs();
    CHECK(rate_at(&s, 0, 1) == 0.1 * 0.25 && rate_at(&s, 9, 1) == 0.1 * 0.25);
    CHECK(rate_at(&s, 10, 1) == 0.1 * 0.5 && rate_at(&s, 39, 1) == 0.1);
    CHECK(rate_at(&s, 99, 0.5) == 0.05);
    o.scheduler_type = "cosine_warmup"; /* has its own */
    CHECK(rate_at(&s, 0, 1) == 0.1);
}

TEST(loop_averages_at_a_rate_that_replaces_the_schedule)
{
    options_fill();
    o.use_swa = 1;
    o.scheduler_type = "cosine_warmup";
    o.backbone_lr = 0.01;
    struct schedule s = schedule_of_ten_epochs();
    CHECK_EQ(s.averaged_from[0], 9);
    CHECK(rate_at(&s, 89, 1) < 0.1 && rate_at(&s, 90, 1) == 0.03 && rate_at(&s, 99, 1) == 0.03);
    CHECK(schedule_rates(&o, &s, 0, 9, 95, 0.5).backbone_rate == 0.015);
    o.swa_start_epoch = 6;
    o.swa_anneal_epochs = 2;
    s = schedule_of_ten_epochs();
    double before = rate_at(&s, 59, 1);
    CHECK(fabs(rate_at(&s, 60, 1) - (before + 0.03) / 2) < 1e-15 && rate_at(&s, 70, 1) == 0.03);
    o.swa_start_epoch = 10;
    struct err e = {0};
    CHECK_EQ(schedule_check(&o, &e), -1);
    CHECK_HAS(e.text, "leaves no epoch of task A to average");
    o.swa_start_epoch = 0;
    o.tasks[0].epochs = 1; /* auto: nothing to average */
    s = schedule_of_ten_epochs();
    CHECK_EQ(s.averaged_from[0], 1);
    CHECK(rate_at(&s, 2, 1) > 0.05);
}

/* What is said of that many epochs, or "". */
static const char *averaging_of(uint64_t epochs, uint64_t from)
{
    static char text[512];
    text[0] = '\0';
    options_fill();
    o.use_swa = 1;
    o.tasks[0].epochs = epochs;
    o.swa_start_epoch = from;
    CHECK_EQ(schedule_averages_few(&o, 0, text, sizeof text), text[0] != '\0');
    return text;
}

TEST(loop_says_where_there_is_too_little_to_average)
{
    CHECK_HAS(averaging_of(1, 0), "task A has one epoch, so training.use_swa averages nothing");
    CHECK_HAS(averaging_of(2, 0), "of the 2 epochs of task A training.use_swa averages the last");
    CHECK_HAS(averaging_of(2, 0), "three are needed");
    CHECK_HAS(averaging_of(10, 0), "(training.swa_start_epoch auto: the last tenth); with "
                                   "training.swa_start_epoch 8 it averages two");
    CHECK_HAS(averaging_of(5, 4), "(training.swa_start_epoch); with training.swa_start_epoch 3 it");
    CHECK_STR(averaging_of(5, 3), "");
    CHECK_STR(averaging_of(11, 0), "");
    o.use_swa = 0;
    o.tasks[0].epochs = 1;
    CHECK(!schedule_averages_few(&o, 0, NULL, 0));
}

TEST(loop_watches_the_loss)
{
    options_fill();
    o.early_stopping_patience = 3;
    watch_begin(&m, &o);
    CHECK(!watch_stops(&m, &o, INFINITY) && m.plateau_scale == 1);
    CHECK(watch_value(&o, 0.9, 0.3) == 0.3);
    CHECK(!watch_epoch(&m, &o, 1) && m.stop_best == 1);
    CHECK(!watch_epoch(&m, &o, 1.1) && !watch_epoch(&m, &o, 0.999)); /* better by any amount */
    CHECK_EQ(m.stop_bad, 0);
    CHECK(!watch_epoch(&m, &o, 1) && !watch_epoch(&m, &o, NAN));
    CHECK_EQ(m.stop_bad, 2);
    CHECK(watch_stops(&m, &o, 2) && watch_stops(&m, &o, NAN) && !watch_stops(&m, &o, 0.5));
    CHECK(m.plateau_scale == 1); /* it is not switched on */
}

TEST(loop_watches_the_metric_and_lowers_the_rate)
{
    options_fill();
    o.watch = "metric";
    o.scheduler_type = "plateau";
    watch_begin(&m, &o);
    CHECK(watch_value(&o, 0.9, 0.3) == 0.9);
    CHECK(!watch_epoch(&m, &o, 0.5) && !watch_epoch(&m, &o, 0.6));
    CHECK(!watch_epoch(&m, &o, 0.6) && watch_epoch(&m, &o, 0.603)); /* below the threshold */
    CHECK(m.plateau_scale == 0.5 && m.plateau_best == 0.6 && m.stop_best == 0.603);
    struct schedule s = schedule_of_ten_epochs();
    CHECK(rate_at(&s, 50, m.plateau_scale) == 0.05);
    watch_begin(&m, &o);
    CHECK(m.plateau_scale == 1 && m.plateau_best == -INFINITY && m.stop_bad == 0);
}

TEST(loop_takes_the_plateau_as_the_options_have_it_now)
{
    options_fill();
    o.scheduler_type = "plateau";
    o.plateau_patience = 0;
    watch_begin(&m, &o);
    CHECK(watch_scale(&m, &o) == 1);
    CHECK(!watch_epoch(&m, &o, 1) && watch_epoch(&m, &o, 1) && watch_epoch(&m, &o, 1));
    CHECK(m.plateau_scale == 0.25 && watch_scale(&m, &o) == 0.25);
    o.plateau_min_lr = 0.04; /* of a rate of 0.1 */
    CHECK(watch_scale(&m, &o) == 0.04 / 0.1);
    o.plateau_min_lr = 0.4;
    CHECK(watch_scale(&m, &o) == 1);
    o.plateau_min_lr = 0;
    o.scheduler_type = "constant";
    CHECK(watch_scale(&m, &o) == 1);
    o.scheduler_type = "plateau"; /* no epoch has ended meanwhile */
    CHECK(watch_scale(&m, &o) == 0.25);
    o.scheduler_type = "constant";
    CHECK(!watch_epoch(&m, &o, 2) && !watch_epoch(&m, &o, 2));
    o.scheduler_type = "plateau"; /* anew */
    CHECK(watch_scale(&m, &o) == 1 && m.plateau_best == INFINITY);
    CHECK(!watch_epoch(&m, &o, 2) && m.plateau_best == 2 && m.stop_best == 1);
}

enum { COUNT = 70001 }; /* more than a block */

TEST(average_is_torchs_and_its_file_is_checked)
{
    static float p[COUNT], back[COUNT], wanted[COUNT];
    struct average now = {0}, next;
    struct err e = {0};
    CHECK_EQ(mkdir("checkpoints", 0700), 0);
    for (uint64_t n = 0; n < 5; n++) {
        for (int i = 0; i < COUNT; i++) {
            p[i] = sinf((float)(i + 1) * (float)(n + 1));
            wanted[i] = n ? wanted[i] + (p[i] - wanted[i]) / (float)(n + 1) : p[i];
        }
        next = (struct average){.step = 10 * (n + 1), .task = 3};
        CHECK_OK(average_add(&now, &next, p, COUNT, &e), e);
        CHECK_EQ(next.count, n + 1);
        now = next;
    }
    CHECK_OK(average_read(&now, back, COUNT, &e), e);
    CHECK(memcmp(back, wanted, sizeof back) == 0);
    CHECK_OK(average_add(&(struct average){0}, &next, p, COUNT, &e), e); /* made again: another */
    CHECK_EQ(average_read(&now, back, COUNT, &e), -1);
    CHECK_HAS(e.text, "average-0000000050-03.f32 is damaged");
    CHECK_EQ(average_add(&now, &next, p, COUNT, &e), -1);
    CHECK_HAS(e.text, "is damaged");
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    now.step = 40;
    CHECK_EQ(truncate("checkpoints/average-0000000040-03.f32", 4 * COUNT - 4), 0);
    CHECK_EQ(average_read(&now, back, COUNT, &e), -1);
    now.step = 35;
    CHECK_EQ(average_read(&now, back, COUNT, &e), -1);
    CHECK_HAS(e.text, "cannot open the average of the weights");
    CHECK(access("checkpoints/average-0000000050-03.f32.tmp", F_OK) != 0);
}

static void file_make(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0);
    close(fd);
}

TEST(averages_stay_as_long_as_a_checkpoint_needs_them)
{
    char path[CHECKPOINT_PATH_BYTES];
    CHECK_EQ(mkdir("checkpoints", 0700), 0);
    for (uint64_t step = 10; step <= 70; step += 10) {
        retention_average_path(path, step, 1);
        file_make(path);
        retention_step_path(path, step + 5, 1);
        file_make(path);
    }
    file_make("checkpoints/average-0000000005-00.f32"); /* of the task before */
    file_make("checkpoints/average-0000000080-01.f32.tmp");
    retention_sweep("checkpoints", 3, 75, 1); /* stays: 75, 65 and 55 */
    for (uint64_t step = 10; step <= 70; step += 10) {
        retention_average_path(path, step, 1);
        CHECK_EQ(access(path, F_OK) == 0, step >= 50);
    }
    CHECK(access("checkpoints/average-0000000005-00.f32", F_OK) != 0);
    CHECK(access("checkpoints/average-0000000080-01.f32.tmp", F_OK) != 0);
    retention_step_path(path, 90, 2);
    file_make(path);
    retention_sweep("checkpoints", 1, 90, 2);
    CHECK(access("checkpoints/average-0000000070-01.f32", F_OK) != 0);
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
