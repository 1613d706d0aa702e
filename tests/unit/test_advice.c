/* test_advice.c - monitord: when advice is given, on made-up samples and messages, and that it is
 * not given again and again. */
#include "monitord/advice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "monitord/advisor.h"
#include "proto/journal.h"
#include "tests/test.h"

static const char pipeline[] = "name: demo\n"
                               "data: {file: x.h5}\n"
                               "model: {layers: [{type: linear, out: 2}]}\n"
                               "tasks:\n"
                               "  - {name: A}\n"
                               "  - {name: B}\n";

static struct options options;
static struct advice advice;
static struct msg_memory_advice told; /* the last one */
static int told_count;

static void tell(void *self, struct msg_memory_advice *m)
{
    CHECK(self == &advice && m->option[0]);
    CHECK_HAS(m->sentence, m->option);
    told = *m;
    told_count++;
}

static void begin(void)
{
    struct err e;
    test_file_write("pipeline.yaml", pipeline);
    CHECK_OK(options_read(&options, "pipeline.yaml", NULL, 0, &e), e);
    advice_open(&advice, &options, tell, &advice);
    told_count = 0;
}

static void option_set(char **option, const char *text)
{
    free(*option);
    *option = strdup(text);
}

/* What has been told since the last call, "": nothing. */
static const char *news(void)
{
    static int seen;
    static char what[17];
    if (told_count < seen)
        seen = 0;
    CHECK(told_count <= seen + 1);
    snprintf(what, sizeof what, "%s", told_count > seen ? told.what : "");
    seen = told_count;
    return what;
}

/* ---- memory ---- */

static struct sample_round samples;

static void measured(double unix_s, int series, uint64_t used_mib, uint64_t of_mib)
{
    samples.unix_s = unix_s;
    samples.there[series] = 1;
    samples.of[series].rss_bytes = used_mib << 20;
    samples.of[series].peak_bytes = of_mib << 20;
    advice_samples(&advice, &samples);
}

TEST(advice_on_memory_is_given_once_until_it_has_fallen)
{
    begin();
    measured(1000, 1, 700, 700); /* trainerd */
    measured(1001, SAMPLE_SYSTEM, 800, 1000);
    CHECK_STR(news(), "");
    measured(1002, SAMPLE_SYSTEM, 801, 1000);
    CHECK_STR(news(), "system");
    CHECK(told.value == 801.0 / 1000 && told.limit == 0.8);
    CHECK_STR(told.option, "loader.use_chunk_loader");
    CHECK_HAS(told.sentence, "80 % of the machine's memory is in use (801 of 1000 MiB, this run's "
                             "stages have 700); where it is full the kernel swaps");
    measured(2000, SAMPLE_SYSTEM, 950, 1000);
    measured(2001, SAMPLE_SYSTEM, 760, 1000);
    measured(2002, SAMPLE_SYSTEM, 950, 1000);
    CHECK_STR(news(), "");
    measured(2003, SAMPLE_SYSTEM, 740, 1000);
    measured(2004, SAMPLE_SYSTEM, 810, 1000);
    CHECK_STR(news(), "system");
    measured(2005, SAMPLE_SYSTEM, 740, 1000);
    measured(2006, SAMPLE_SYSTEM, 810, 1000); /* to and fro: not more than one in ten minutes */
    measured(2603, SAMPLE_SYSTEM, 810, 1000);
    CHECK_STR(news(), "");
    measured(2605, SAMPLE_SYSTEM, 810, 1000);
    CHECK_STR(news(), "system");
    options_free(&options);
}

/* Each time an option that is not set so already, and of other programs' memory none of the run's.
 */
TEST(advice_on_memory_names_an_option_that_helps)
{
    begin();
    measured(1000, 1, 100, 100);
    measured(1001, SAMPLE_CONTAINER, 900, 1000);
    CHECK_STR(news(), "container");
    CHECK_STR(told.option, "memory.host_limit_mb");
    CHECK_HAS(told.sentence, "most of it is other programs'");
    CHECK_HAS(told.sentence, "of the container's memory");
    measured(1002, 1, 800, 800);
    advice_forget(&advice);
    option_set(&options.loader_use_chunk_loader, "gpu");
    measured(1003, SAMPLE_CONTAINER, 900, 1000);
    CHECK_STR(told.option, "training.use_gradient_checkpointing");
    advice_forget(&advice);
    options.use_gradient_checkpointing = 1;
    measured(1004, SAMPLE_CONTAINER, 900, 1000);
    CHECK_STR(told.option, "memory.host_limit_mb");
    CHECK_HAS(told.sentence, "--plan");
    options_free(&options);
}

TEST(advice_on_swap_is_given_for_any_of_it)
{
    begin();
    samples.of[3].swap_bytes = 1 << 20; /* left over: it does not run */
    measured(1000, 0, 10, 10);
    CHECK_STR(news(), "");
    samples.of[0].swap_bytes = 3 << 19;
    measured(1001, 1, 10, 10);
    CHECK_STR(news(), "swap");
    CHECK_HAS(told.sentence,
              "1.5 MiB of this run's memory are swapped out, most of them loaderd's");
    CHECK(told.value == 3 << 19 && told.limit == 0);
    samples.of[1].swap_bytes = 1 << 20;
    measured(1700, 1, 10, 10);
    CHECK_STR(news(), "");
    samples.of[0].swap_bytes = samples.of[1].swap_bytes = 0;
    measured(1701, 1, 10, 10);
    samples.of[1].swap_bytes = 1;
    measured(1702, 1, 10, 10);
    CHECK_STR(news(), "swap");
    options_free(&options);
}

static void device_is(uint64_t total_mib, uint64_t planned_mib)
{
    union msg m = {.event_device = {.kind = "cuda", .memory_bytes = total_mib << 20}};
    advice_message(&advice, MSG_event_device, &m);
    m = (union msg){.event_plan = {.totals_count = 1}};
    MSG_STR(m.event_plan.totals[0].stage, "device");
    m.event_plan.totals[0].bytes = planned_mib << 20;
    advice_message(&advice, MSG_event_plan, &m);
}

/* What takes a tenth of what trainerd has and more is worth an option. */
TEST(advice_on_memory_follows_the_plan)
{
    begin();
    union msg m = {.event_plan = {.rows_count = 2, .totals_count = 1}};
    struct msg_plan_row *rows = m.event_plan.rows, *total = m.event_plan.totals;
    MSG_STR(rows[0].stage, "trainerd");
    MSG_STR(rows[0].what, "mega-batch, training: all rows");
    rows[0].bytes = 5;
    MSG_STR(rows[1].stage, "trainerd");
    MSG_STR(rows[1].what, "activations and their gradients");
    rows[1].bytes = 20;
    MSG_STR(total->stage, "trainerd");
    total->bytes = 100;
    advice_message(&advice, MSG_event_plan, &m);
    measured(1000, 1, 800, 800);
    measured(1001, SAMPLE_SYSTEM, 900, 1000);
    CHECK_STR(told.option, "training.use_gradient_checkpointing");
    rows[1].bytes = 9;
    advice_message(&advice, MSG_event_plan, &m);
    advice_forget(&advice);
    measured(1002, SAMPLE_SYSTEM, 900, 1000);
    CHECK_STR(told.option, "memory.host_limit_mb");
    CHECK_HAS(told.sentence, "makes --plan name options");
    options_free(&options);
}

static void device_free(double unix_s, uint64_t free_mib)
{
    union msg m = {.trainer_step = {.head = {.time_s = unix_s, .incarnation = 1}, .task = "A"}};
    m.trainer_step.device_free_bytes = free_mib << 20;
    advice_message(&advice, MSG_trainer_step, &m);
}

TEST(advice_on_a_gpu_is_given_above_the_plan_and_the_limit)
{
    begin();
    device_is(16000, 10000);
    measured(1000, SAMPLE_DEVICE, 10500, 0);
    measured(1010, SAMPLE_DEVICE, 10500, 0);
    CHECK_STR(news(), "");
    measured(1020, SAMPLE_DEVICE, 10600, 0);
    measured(1024, SAMPLE_DEVICE, 10600, 0);
    CHECK_STR(news(), ""); /* a moment is not told */
    measured(1025, SAMPLE_DEVICE, 10600, 0);
    CHECK_STR(news(), "device");
    CHECK_HAS(told.sentence, "10600 MiB of the GPU's memory, more than was planned (10000)");
    options.device_limit_mb = 8000;
    measured(1701, SAMPLE_DEVICE, 9000, 0);
    measured(1710, SAMPLE_DEVICE, 9000, 0);
    CHECK_STR(news(), ""); /* it stood all the time */
    measured(1711, SAMPLE_DEVICE, 7000, 0);
    measured(1712, SAMPLE_DEVICE, 9000, 0);
    measured(1720, SAMPLE_DEVICE, 9000, 0);
    CHECK_STR(news(), "device");
    CHECK_HAS(told.sentence, "more than they may have (8000)");
    options_free(&options);
}

TEST(advice_on_a_gpu_is_given_when_others_have_what_is_planned)
{
    begin();
    device_is(16000, 10000);
    device_free(999, 13000);
    measured(1000, SAMPLE_DEVICE, 3000, 0);
    measured(1010, SAMPLE_DEVICE, 3000, 0);
    CHECK_STR(news(), "");
    device_free(1011, 5000);
    measured(1012, SAMPLE_DEVICE, 3000, 0);
    measured(1020, SAMPLE_DEVICE, 3000, 0);
    CHECK_STR(news(), "device");
    CHECK(told.value == 8000.0 * (1 << 20) && told.limit == 10000.0 * (1 << 20));
    CHECK_HAS(told.sentence, "10000 MiB of the GPU's memory are planned, but the stages have 3000 "
                             "and only 5000 more are free");
    CHECK_HAS(told.sentence, "memory.device_limit_mb: 8000");
    options_free(&options);
}

/* A run on a CPU has no such thing, and where it is not known what is planned nothing is said. */
TEST(advice_is_silent_on_what_is_not_there)
{
    begin();
    samples = (struct sample_round){0};
    for (int i = 0; i < SAMPLE_SERIES; i++)
        samples.of[i] = (struct msg_memory_sample){.rss_bytes = 99, .peak_bytes = 100};
    for (int i = 0; i < 100; i++) {
        samples.unix_s = 1000 + i;
        advice_samples(&advice, &samples);
    }
    device_free(2000, 0);
    samples.there[SAMPLE_DEVICE] = 1;
    for (int i = 0; i < 100; i++) {
        samples.unix_s = 2000 + i;
        advice_samples(&advice, &samples);
    }
    CHECK_STR(news(), "");
    options_free(&options);
}

/* ---- rate and waiting ---- */

static double clock_s; /* of trainer.step */

/* So many seconds of training, ten messages a second. */
static void trained(const char *task, uint64_t incarnation, double seconds, double steps_per_s,
                    double wait_share)
{
    static uint64_t step;
    for (double end_s = clock_s + seconds; clock_s < end_s; clock_s += 0.1) {
        step += (uint64_t)fmax(1, 0.1 * steps_per_s);
        union msg m = {.trainer_step = {.head = {.time_s = clock_s, .incarnation = incarnation},
                                        .step = step,
                                        .steps_per_s = steps_per_s,
                                        .wait_share = wait_share}};
        MSG_STR(m.trainer_step.task, task);
        advice_message(&advice, MSG_trainer_step, &m);
    }
}

TEST(advice_on_the_rate_is_given_once_a_task)
{
    begin();
    clock_s = 1000;
    trained("A", 1, 10.5, 1, 1); /* caches are filled */
    trained("A", 1, 60, 100, 0);
    trained("A", 1, 2, 1, 0); /* a moment, and others make up for it */
    trained("A", 1, 60, 40, 0);
    CHECK_STR(news(), "");
    trained("A", 1, 25, 5, 0.1);
    CHECK_STR(news(), "rate");
    CHECK(told.value > 10 && told.limit == 10);
    CHECK_STR(told.task, "A");
    CHECK_STR(told.option, "training.threads");
    trained("A", 1, 60, 100, 0);
    trained("A", 1, 25, 1, 0);
    trained("A", 2, 25, 100, 0); /* trainerd was restarted */
    trained("A", 2, 60, 1, 0);
    CHECK_STR(news(), "");
    trained("B", 2, 10.2, 200, 0); /* another task has another rate */
    trained("B", 2, 60, 100, 0);
    CHECK_STR(news(), "");
    trained("B", 2, 11, 3, 0.9);
    CHECK_STR(news(), "rate");
    CHECK_STR(told.option, "loader.num_workers");
    CHECK_HAS(told.sentence, "task B made between 3 and 10");
    options_free(&options);
}

TEST(advice_on_waiting_is_given_when_it_lasts)
{
    begin();
    clock_s = 1000;
    trained("A", 1, 10.2, 100, 1);
    trained("A", 1, 20.4, 100, 0.4); /* two windows */
    trained("A", 1, 10.2, 100, 0.2);
    trained("A", 1, 20.4, 100, 0.5);
    CHECK_STR(news(), "");
    trained("A", 1, 10.2, 100, 0.5);
    CHECK_STR(news(), "wait");
    CHECK(told.value > 0.4 && told.value < 0.51 && told.limit == 0.3);
    CHECK_STR(told.option, "loader.num_workers");
    trained("A", 1, 700, 100, 0.5);
    CHECK_STR(news(), "");
    trained("A", 1, 20.4, 100, 0.1);
    option_set(&options.loader_use_chunk_loader, "gpu"); /* on a CPU: false */
    trained("A", 1, 51, 100, 0.5);
    CHECK_STR(news(), "wait");
    CHECK_STR(told.option, "loader.use_chunk_loader");
    options_free(&options);
}

/* Where 15 of 20 s are waited for data there are ten messages a second in the others and none then:
 * those behind it, whose rate and share are those of the last 16 s, tell of it. */
TEST(advice_on_waiting_counts_time_and_not_messages)
{
    uint64_t step = 0;
    begin();
    clock_s = 1000;
    for (int i = 0; i < 6 * 50; i++, clock_s += 0.1) {
        int behind = i % 50 < 11;
        clock_s += i % 50 == 0 ? 15 : 0;
        union msg m = {.trainer_step = {.head = {.time_s = clock_s, .incarnation = 1},
                                        .step = step += 10,
                                        .steps_per_s = behind ? 110 / 16.1 : 100,
                                        .wait_share = behind ? 15 / 16.1 : 0,
                                        .task = "A"}};
        advice_message(&advice, MSG_trainer_step, &m);
    }
    CHECK_EQ(told_count, 1);
    CHECK_STR(told.what, "wait");
    CHECK(told.value > 0.7 && told.value < 0.8);
    options_free(&options);
}

/* Steps that take longer than a window are one each. */
TEST(advice_looks_at_slow_steps_one_by_one)
{
    begin();
    for (int i = 0; i < 8; i++) {
        clock_s = 1000 + 30 * i;
        trained("A", 1, 0.05, 0.05, 0.8);
        CHECK_STR(news(), i == 4 ? "wait" : "");
    }
    options_free(&options);
}

/* ---- gap ---- */

static void epoch(const char *task, uint64_t number, double loss, double validation_loss)
{
    union msg m = {.trainer_evaluation = {.epoch = number, .loss = validation_loss}};
    MSG_STR(m.trainer_evaluation.task, task);
    MSG_STR(m.trainer_evaluation.after, task);
    advice_message(&advice, MSG_trainer_evaluation, &m);
    m = (union msg){.event_task = {.what = "epoch-end", .epoch = number, .loss = loss}};
    MSG_STR(m.event_task.task, task);
    advice_message(&advice, MSG_event_task, &m);
}

TEST(advice_on_the_gap_is_given_when_it_lasts_and_training_goes_on_well)
{
    begin();
    epoch("A", 1, 1.0, 1.0);
    epoch("A", 2, 0.8, 0.9);
    epoch("A", 3, 0.7, 0.96);
    epoch("A", 4, 0.6, 0.93); /* not clearly worse */
    epoch("A", 5, 0.5, 0.96);
    epoch("A", 6, 0.4, 1.0);
    epoch("A", 6, 0.4, 1.0); /* trained again after a death */
    CHECK_STR(news(), "");
    epoch("A", 7, 0.3, 1.1);
    CHECK_STR(news(), "gap");
    CHECK_STR(told.task, "A");
    CHECK_STR(told.option, "training.early_stopping_patience");
    CHECK(told.value > 0.79 && told.value < 0.81 && told.limit > 0.09 && told.limit < 0.11);
    CHECK_HAS(told.sentence, "the validation loss of task A, 0.9 after epoch 2, is 1.1 after epoch "
                             "7, while the training loss fell from 0.8 to 0.3");
    epoch("A", 8, 0.2, 1.2);
    epoch("A", 9, 0.1, 1.3);
    CHECK_STR(news(), "");
    for (uint64_t i = 1; i < 10; i++) /* it gets worse as a whole: a rate that is too high */
        epoch("B", i, 1.0 + 0.1 * (double)i, 1.0 + 0.2 * (double)i);
    CHECK_STR(news(), "");
    options.early_stopping_patience = 5;
    for (uint64_t i = 10; i < 20; i++)
        epoch("B", i, 1.0 - 0.01 * (double)i, 1.2 + 0.2 * (double)i);
    CHECK_STR(news(), "gap");
    CHECK_STR(told.option, "training.keep");
    options_free(&options);
}

TEST(advice_on_the_gap_is_not_given_where_there_is_hardly_a_loss)
{
    begin();
    epoch("A", 1, 1.0, 0.9);
    for (uint64_t i = 2; i < 20; i++)
        epoch("A", i, 1e-3 / (double)i, 1e-3 * (double)i / 2);
    CHECK_STR(news(), "");
    epoch("A", 20, 1e-5, 0.011);
    CHECK_STR(news(), "");
    epoch("A", 21, 1e-5, 0.011);
    epoch("A", 22, 1e-5, 0.011);
    CHECK_STR(news(), "gap");
    options_free(&options);
}

/* As good runs go: the gap grows while both fall; and evaluations of other tasks are not the
 * task's.
 */
TEST(advice_on_the_gap_is_not_given_while_validation_gets_better)
{
    union msg other = {.trainer_evaluation = {.task = "B", .after = "A", .loss = 99}};
    begin();
    for (uint64_t i = 1; i < 50; i++) {
        other.trainer_evaluation.epoch = i;
        epoch("A", i, 1.0 / (double)i, 0.5 + 0.5 / (double)i);
        advice_message(&advice, MSG_trainer_evaluation, &other);
    }
    CHECK_STR(news(), "");
    options_free(&options);
}

/* ---- leak ---- */

static struct sample_round heaps;
static uint64_t step_now;

static void heaps_begin(void)
{
    begin();
    heaps = (struct sample_round){.there = {1, 1, 1, 1}};
    for (int i = 0; i < STAGE_COUNT; i++)
        heaps.of[i] = (struct msg_memory_sample){.pid = 10 + (uint64_t)i, .heap_bytes = 1 << 20};
    clock_s = 1000;
    step_now = 0;
}

/* A tenth of a second: that many steps, then everybody's heap. */
static void heaps_measured(const char *task, uint64_t epoch, uint64_t steps)
{
    union msg m = {.trainer_step = {.head = {.time_s = clock_s, .incarnation = 1}, .epoch = epoch}};
    MSG_STR(m.trainer_step.task, task);
    m.trainer_step.step = step_now += steps;
    advice_message(&advice, MSG_trainer_step, &m);
    heaps.unix_s = clock_s + 0.01;
    advice_samples(&advice, &heaps);
    clock_s += 0.1;
}

static void heaps_epoch_end(const char *task, uint64_t epoch)
{
    union msg m = {.event_task = {.head = {.time_s = clock_s}, .what = "epoch-end"}};
    MSG_STR(m.event_task.task, task);
    m.event_task.epoch = epoch;
    advice_message(&advice, MSG_event_task, &m);
}

static uint64_t *heap_of(const char *stage)
{
    return &heaps.of[stage_index(stage)].heap_bytes;
}

TEST(advice_on_a_leak_of_an_object_a_step_comes_within_200_steps)
{
    heaps_begin();
    for (int i = 0; i < 50; i++)
        heaps_measured("A", 1, 10); /* it begins in the midst */
    uint64_t began = step_now;
    while (!told_count && step_now < began + 2000) {
        heaps_measured("A", 1, 10);
        *heap_of("loaderd") += 10 * 64;
    }
    CHECK_STR(news(), "leak");
    CHECK(step_now <= began + 200);
    CHECK_STR(told.stage, "loaderd");
    CHECK_STR(told.option, "monitor.profile");
    CHECK(told.value > 56 && told.value <= 64 && told.limit == 0);
    CHECK_HAS(told.sentence, "loaderd leaks: its heap (1.0 MiB) has grown by ");
    CHECK_HAS(told.sentence, " bytes every step since step ");
    CHECK_HAS(told.sentence, "pipelines/restart.sh loaderd gives them back");
    for (int i = 0; i < 8000; i++) {
        heaps_measured("A", 1, 10);
        *heap_of("loaderd") += 10 * 64;
    }
    CHECK_STR(news(), ""); /* once, until it is restarted */
    heaps.of[stage_index("loaderd")].pid = 99;
    for (int i = 0; i < 40; i++) {
        heaps_measured("A", 1, 10);
        *heap_of("loaderd") += 10 * 64;
    }
    CHECK_STR(news(), "leak");
    for (int i = 0; i < 40; i++) { /* each stage is told of by itself */
        heaps_measured("A", 1, 10);
        *heap_of("fisherd") += 10 * 32;
    }
    CHECK_STR(news(), "leak");
    CHECK_STR(told.stage, "fisherd");
    CHECK(told.value >= 28 && told.value <= 32); /* a bit of what was before counts */
    options_free(&options);
}

/* Steps that take longer than samples, of which many are of one step. */
TEST(advice_on_a_leak_counts_steps_and_not_samples)
{
    heaps_begin();
    for (int i = 0; i < 200 * 10; i++) {
        heaps_measured("A", 1, i % 10 == 0);
        *heap_of("trainerd") += i % 10 == 0 ? 64 : 0;
    }
    CHECK_STR(news(), "leak");
    CHECK(told.value > 62 && told.value <= 64);
    options_free(&options);
}

/* Each so large that it would be seen, of as many epochs as there were of anything. */
TEST(advice_on_a_leak_is_not_given_for_noise_steps_and_growth_that_ends)
{
    unsigned long long noise = 1;
    heaps_begin();
    for (uint64_t i = 0; i < 6000; i++) {
        noise = noise * 6364136223846793005ull + 1442695040888963407ull;
        *heap_of("loaderd") = (1 << 20) + (noise >> 33) % (64 << 10);   /* noise */
        *heap_of("trainerd") = (1 << 20) + (i / 7 % 2) * (512 << 10);   /* up and down */
        *heap_of("fisherd") = (1 << 20) + (i > 300) * (300 << 20);      /* once */
        *heap_of("fisherd") += (i > 3000) * (200 << 20);                /* and again */
        *heap_of("monitord") = (1 << 20) + 128 * (i < 5000 ? i : 5000); /* a queue, or a ring */
        heaps_measured("A", 1 + i / 60, 10);
        if (i % 60 == 59)
            heaps_epoch_end("A", 1 + i / 60);
    }
    CHECK_STR(news(), "");
    options_free(&options);
}

/* What an evaluation or a checkpoint takes, and another task, is not between two steps; of epochs
 * only the floors count. */
TEST(advice_on_a_leak_compares_like_moments)
{
    heaps_begin();
    for (uint64_t epoch = 1; epoch <= 40; epoch++) {
        const char *task = epoch <= 20 ? "A" : "B";
        for (int i = 0; i < 12; i++)
            heaps_measured(task, epoch, 10);
        for (int i = 0; i < 12; i++) { /* an evaluation, evenly more */
            *heap_of("trainerd") += 100 << 10;
            heaps_measured(task, epoch, 0);
        }
        heaps_epoch_end(task, epoch);
        *heap_of("trainerd") -= 1200 << 10;
        *heap_of("trainerd") += epoch % 5 ? 0 : 8 << 10;
    }
    CHECK_STR(news(), "");
    options_free(&options);
}

TEST(advice_on_a_leak_from_epoch_to_epoch)
{
    heaps_begin();
    uint64_t epoch = 1;
    for (; epoch < 20 && !told_count; epoch++) {
        for (int i = 0; i < 3; i++) /* too few for a series of steps, and for an epoch */
            heaps_measured("A", epoch, 10);
        heaps_epoch_end("A", epoch);
        *heap_of("fisherd") += 10 << 10;
    }
    CHECK_STR(news(), "leak");
    CHECK_STR(told.stage, "fisherd");
    CHECK(told.value == 10 << 10);
    CHECK_HAS(told.sentence, "bytes every epoch since epoch 2 of task A");
    for (uint64_t last = epoch + 4; epoch < last; epoch++) { /* over 100 MB an epoch */
        for (int i = 0; i < 10; i++)
            heaps_measured("B", epoch, 10);
        heaps_epoch_end("B", epoch);
        *heap_of("trainerd") += 101 << 20;
        CHECK_STR(news(), epoch + 2 == last ? "leak" : "");
    }
    CHECK_STR(told.stage, "trainerd");
    options_free(&options);
}

/* ---- restarts ---- */

static void journal_add(const char *stage, enum msg_type type, void *m)
{
    struct journal j;
    struct err e;
    *(struct msg_head *)m = (struct msg_head){1, 1, 1000};
    CHECK_OK(journal_open(&j, stage, &e), e);
    CHECK_OK(journal_append(&j, type, m, &e), e);
    journal_close(&j);
}

static void monitord_started(uint64_t launch)
{
    struct msg_event_stage m = {.launch = launch};
    MSG_STR(m.stage, "monitord");
    MSG_STR(m.what, "start");
    journal_add("monitord", MSG_event_stage, &m);
}

static void journal_epoch(uint64_t number, double loss, double validation_loss)
{
    struct msg_trainer_evaluation v = {.epoch = number, .loss = validation_loss};
    struct msg_event_task t = {.epoch = number, .loss = loss};
    MSG_STR(v.task, "A");
    MSG_STR(v.after, "A");
    MSG_STR(t.task, "A");
    MSG_STR(t.what, "epoch-end");
    journal_add("trainerd", MSG_trainer_evaluation, &v);
    journal_add("trainerd", MSG_event_task, &t);
}

/* What was told in a launch is not told again in it, and epochs of the past count. */
TEST(advisor_goes_on_after_a_restart)
{
    static struct daemon d; /* large */
    static struct advisor advisor;
    struct msg_memory_advice m = {.value = 0.9};
    union msg step = {.trainer_step = {.head = {.time_s = 5000, .incarnation = 7}, .task = "A"}};
    begin();
    CHECK(mkdir("journals", 0700) == 0);
    d.options = options;
    monitord_started(1);
    MSG_STR(m.what, "swap");
    journal_add("monitord", MSG_memory_advice, &m);
    MSG_STR(m.what, "leak");
    MSG_STR(m.stage, "trainerd");
    journal_add("monitord", MSG_memory_advice, &m);
    MSG_STR(m.stage, "");
    MSG_STR(m.what, "gap");
    MSG_STR(m.task, "B");
    journal_add("monitord", MSG_memory_advice, &m);
    monitord_started(1);
    for (uint64_t i = 1; i < 4; i++)
        journal_epoch(i, 1.0 - 0.1 * (double)i, 1.0 + (double)i);
    advisor_open(&advisor, &d);
    CHECK(advisor.advice.told[ADVICE_SWAP].stands && !advisor.advice.told[ADVICE_SYSTEM].stands);
    CHECK(advisor.advice.told[ADVICE_LEAK + 1].stands && !advisor.advice.told[ADVICE_LEAK].stands);
    CHECK_STR(advisor.advice.told[ADVICE_GAP].task, "B");
    advisor_message(&advisor, MSG_trainer_step, &step);
    CHECK_EQ(advisor.advice.gap_epoch, 3);
    CHECK_EQ(advisor.advice.best_epoch, 1);
    CHECK_EQ(advisor.advice.above, 2);
    monitord_started(2); /* the run is resumed: what is still wrong is told again */
    advisor_open(&advisor, &d);
    CHECK(!advisor.advice.told[ADVICE_SWAP].stands);
    CHECK_STR(advisor.advice.told[ADVICE_GAP].task, "");
    options_free(&options);
}
