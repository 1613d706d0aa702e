/* test_trainer_schedule.c - the run as a list of steps: how many each task has, of how many rows,
 * with which rates and keys, what is evaluated, and task lists that cannot be. */
#include "tests/test.h"
#include "tests/unit/trainer_fixture.h"
#include "trainerd/schedule.h"

static struct options options; /* large; each case is a process of its own */

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
    trainer_fixture_tasks(&options);
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
    trainer_fixture_tasks(&options);
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
    trainer_fixture_tasks(&options);
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
    trainer_fixture_tasks(&options);
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
    trainer_fixture_tasks(&options);
    options.data_drop_last = 1;
    CHECK_OK(open_all(&s, 60000, &e), e);
    CHECK_EQ(s.epoch_steps[0], 468);
    CHECK_EQ(s.rows[0], 468 * 128);
    CHECK_OK(open_all(&s, 128, &e), e);
    CHECK_EQ(s.rows[0], 128);
    CHECK_EQ(open_all(&s, 127, &e), -1);
    CHECK_HAS(e.text, "data.drop_last leaves nothing of the 127 rows of task A");
}

/* A batch is what training.batch_size says, as PyTorch's DataLoader drops it: not a whole step. */
TEST(schedule_leaves_out_no_more_than_a_batch_where_steps_take_several)
{
    struct schedule s;
    struct err e = {0};
    trainer_fixture_tasks(&options);
    options.data_drop_last = 1;
    options.batch_size = 64;
    options.gradient_accumulation_steps = 8;
    CHECK_OK(open_all(&s, 1000, &e), e);
    CHECK_EQ(s.rows[0], 960);
    CHECK_EQ(s.epoch_steps[0], 2);
    CHECK_EQ(schedule_batch_rows(&s, 0, 0), 512);
    CHECK_EQ(schedule_batch_rows(&s, 0, 512), 448);
    CHECK_OK(open_all(&s, 300, &e), e);
    CHECK_EQ(s.rows[0], 256);
    CHECK_EQ(s.epoch_steps[0], 1);
    options.tasks[1].batch_size = 128;
    CHECK_OK(open_all(&s, 1000, &e), e);
    CHECK_EQ(s.rows[1], 896);
    CHECK_EQ(open_all(&s, 63, &e), -1);
    CHECK_HAS(e.text, "fewer than the 64 of a batch; lower training.batch_size");
}

TEST(schedule_gives_a_comparison_the_keys_of_its_original)
{
    struct schedule s;
    struct err e;
    trainer_fixture_tasks(&options);
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
    trainer_fixture_tasks(&options);
    CHECK_EQ(schedule_evaluations(&options, 0, list), 1);
    CHECK_EQ(schedule_evaluations(&options, 2, list), 2); /* as B: A and B */
    CHECK_EQ(list[1], 1);
    CHECK_EQ(schedule_evaluations(&options, 4, list), 3); /* as C: A, B and C */
    CHECK_EQ(list[2], 3);
}

TEST(schedule_refuses_a_comparison_that_differs)
{
    struct err e = {0};
    trainer_fixture_tasks(&options);
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
        trainer_fixture_task(&options, name, "", 1);
    }
    CHECK_OK(schedule_check(&options, &e), e);
    trainer_fixture_task(&options, "t44", "", 1); /* 1,035 */
    CHECK_EQ(schedule_check(&options, &e), -1);
    CHECK_HAS(e.text, "1035");
}
