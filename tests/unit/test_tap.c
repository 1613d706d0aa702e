/* test_tap.c - the foreground display of a run: given these messages, exactly this text. */
#include "monitord/tap_display.h"

#include <math.h>

#include "tests/test.h"

static char *text;
static size_t text_bytes;
static struct display d;

static void display_begin(int terminal)
{
    FILE *out = open_memstream(&text, &text_bytes);
    CHECK(out);
    display_open(&d, out, terminal);
}

/* What has been written since the last call. */
static const char *written(void)
{
    static char copy[8192];
    static size_t seen;
    CHECK(fflush(d.out) == 0 && text_bytes - seen < sizeof copy);
    memcpy(copy, text + seen, text_bytes - seen);
    copy[text_bytes - seen] = '\0';
    seen = text_bytes;
    return copy;
}

static const union msg step = {.trainer_step = {.task = "A",
                                                .epoch = 2,
                                                .epochs = 3,
                                                .step = 250,
                                                .steps = 1000,
                                                .loss = 0.5,
                                                .learning_rate = 1e-3,
                                                .steps_per_s = 412.4,
                                                .eta_s = 61.6}};
static const union msg block = {.fisher_block = {.task = "A",
                                                 .block = 2,
                                                 .blocks = 4,
                                                 .samples_done = 2048,
                                                 .samples = 4096,
                                                 .eta_s = 3700}};

static union msg stage(const char *what, uint64_t pid, uint64_t code)
{
    union msg m = {.event_stage = {.stage = "loaderd", .pid = pid, .code = code}};
    MSG_STR(m.event_stage.what, what);
    MSG_STR(m.event_stage.sentence, "cannot read\x1b[2J it");
    return m;
}

static union msg memory(const char *name, uint64_t pid, uint64_t mib)
{
    union msg m = {.memory_sample = {.pid = pid, .rss_bytes = mib << 20}};
    MSG_STR(m.memory_sample.stage, name);
    return m;
}

static void show(enum msg_type type, union msg m)
{
    display_message(&d, type, &m);
}

TEST(terminal_line_is_rewritten)
{
    display_begin(1);
    display_tick(&d, 100, 120);
    CHECK_STR(written(), ""); /* nothing known, nothing said */
    show(MSG_memory_sample, memory("loaderd", 7, 20));
    show(MSG_memory_sample, memory("trainerd", 8, 30));
    show(MSG_memory_sample, memory("trainerd", 8, 40));
    show(MSG_memory_sample, memory("system", 0, 9999));
    show(MSG_memory_sample, memory("container", 0, 9999));
    show(MSG_memory_sample, memory("device", 0, 9999));
    show(MSG_trainer_step, step);
    display_tick(&d, 100, 140);
    CHECK_STR(written(),
              "\r[########......................]  25 %  A epoch 2/3  step 250/1000  412 it/s  "
              "loss 0.5000  rate 0.001  memory 60 MiB  left 1:02\033[K");
    show(MSG_trainer_step, step);
    display_tick(&d, 100.05, 140);
    CHECK_STR(written(), ""); /* at most ten a second */
    show(MSG_event_task, (union msg){.event_task = {.what = "task-start", .task = "B"}});
    CHECK_STR(written(), "\r\033[Ktask B starts\n");
    display_tick(&d, 100.06, 30); /* drawn again below the event; cut to the width */
    CHECK_STR(written(), "\r 25 %  A 2/3 250/1000 412 it/\033[K");
    display_close(&d, 30);
    CHECK_STR(written(), "\n");
}

/* 80 columns hold everything that a user waits for, also with a long name. */
TEST(narrow_terminals_keep_the_time_left)
{
    union msg m = step;
    MSG_STR(m.trainer_step.task, "B-without-ewc");
    m.trainer_step.penalty = 0.25;
    m.trainer_step.steps_per_s = 1001;
    display_begin(1);
    show(MSG_memory_sample, memory("trainerd", 8, 138));
    show(MSG_trainer_step, step);
    display_tick(&d, 100, 80);
    CHECK_STR(written(), "\r[##...]  25 %  A 2/3 250/1000 412 it/s loss 0.5000 rate 0.001 "
                         "138 MiB left 1:02\033[K");
    show(MSG_trainer_step, m);
    display_tick(&d, 101, 80);
    CHECK_STR(written(), "\r 25 %  B-without-ewc 2/3 250/1000 1001 it/s loss 0.5000 138 MiB "
                         "left 1:02\033[K");
    show(MSG_fisher_block, block);
    display_tick(&d, 102, 40);
    CHECK_STR(written(), "\r 50 %  A Fisher 2/4 2048/4096 left 1:01\033[K");
    show(MSG_fisher_block, block);
    display_tick(&d, 103, 80);
    CHECK_STR(written(),
              "\r[#############.............]  50 %  A Fisher 2/4 2048/4096 138 MiB left "
              "1:01:40\033[K");
    display_close(&d, 80);
}

TEST(plain_lines_are_calm)
{
    display_begin(0);
    show(MSG_trainer_step, step);
    display_tick(&d, 100, 80);
    const char *line = " 25 %  A epoch 2/3  step 250/1000  412 it/s  loss 0.5000  rate 0.001  "
                       "left 1:02\n";
    CHECK_STR(written(), line);
    for (int i = 0; i < 19; i++) {
        show(MSG_trainer_step, step);
        display_tick(&d, 100.1 + 0.1 * i, 80);
    }
    CHECK_STR(written(), "");
    display_tick(&d, 102.01, 80);
    CHECK_STR(written(), line);
    display_tick(&d, 105, 80); /* no news, no line */
    CHECK_STR(written(), "");
    show(MSG_fisher_block, block);
    display_close(&d, 80); /* the last news are not lost */
    CHECK_STR(written(), " 50 %  A Fisher  block 2/4  sample 2048/4096  left 1:01:40\n");
}

TEST(gpu_shows_its_memory_and_how_busy_it_is)
{
    union msg m = step, sample = {.gpu_sample = {.utilisation = 0.934}};
    union msg device = {.event_device = {.kind = "cuda", .name = "H100", .memory_bytes = 1 << 30}};
    m.trainer_step.device_bytes = 512 << 20;
    display_begin(0);
    show(MSG_trainer_step, m);
    display_tick(&d, 100, 80);
    CHECK_STR(written(), " 25 %  A epoch 2/3  step 250/1000  412 it/s  loss 0.5000  rate 0.001  "
                         "device 512 MiB  left 1:02\n");
    show(MSG_gpu_sample, sample);
    show(MSG_trainer_step, m);
    display_tick(&d, 103, 80);
    CHECK_HAS(written(), "  device 512 MiB, 93 % busy  left 1:02\n");
    show(MSG_event_device, device); /* another start of trainerd */
    CHECK_HAS(written(), "computing on cuda:0, H100, 1024 MiB\n");
    show(MSG_trainer_step, m);
    display_tick(&d, 106, 80);
    CHECK_HAS(written(), "  device 512 MiB  left 1:02\n");
}

TEST(penalty_and_unknown_times)
{
    union msg m = step;
    m.trainer_step.penalty = 0.25;
    m.trainer_step.eta_s = NAN;
    m.trainer_step.step = 2000; /* beyond the announced end: never over 100 % */
    display_begin(0);
    show(MSG_trainer_step, m);
    display_tick(&d, 100, 80);
    CHECK_STR(written(), "100 %  A epoch 2/3  step 2000/1000  412 it/s  loss 0.5000  "
                         "penalty 0.2500  rate 0.001  left ?\n");
}

TEST(restarts_and_failures_are_told)
{
    display_begin(0);
    show(MSG_event_stage, stage("start", 7, 0));
    show(MSG_event_stage, stage("ready", 7, 0));
    CHECK_STR(written(), "");
    show(MSG_event_stage, stage("fail", 7, 111));
    CHECK_STR(written(), "loaderd failed with code 111: cannot read?[2J it\n");
    show(MSG_event_stage, stage("fail", 7, 100));
    CHECK_STR(written(), ""); /* the verdict says it */
    show(MSG_event_stage, stage("start", 9, 0));
    CHECK_STR(written(), "loaderd restarted (process 9)\n");
    show(MSG_event_stage, stage("stop", 9, 0));
    CHECK_STR(written(), "");

    /* Known from a sample only, since its start was missed. */
    show(MSG_memory_sample, memory("fisherd", 20, 1));
    union msg m = stage("start", 21, 0);
    MSG_STR(m.event_stage.stage, "fisherd");
    show(MSG_event_stage, m);
    CHECK_STR(written(), "fisherd restarted (process 21)\n");

    /* Measured before it was heard, whatever came of its start. */
    show(MSG_memory_sample, memory("fisherd", 22, 1));
    CHECK_STR(written(), "fisherd restarted (process 22)\n");
    m.event_stage.pid = 22;
    show(MSG_event_stage, m);
    show(MSG_memory_sample, memory("fisherd", 22, 1));
    CHECK_STR(written(), "");
}

/* While stages leave, and until one that died is back, what they took together last is told. */
TEST(memory_is_that_of_all_stages)
{
    display_begin(0);
    show(MSG_memory_sample, memory("loaderd", 7, 20));
    show(MSG_memory_sample, memory("trainerd", 8, 30));
    show(MSG_memory_sample, memory("monitord", 9, 8));
    show(MSG_trainer_step, step);
    show(MSG_event_stage, stage("stop", 7, 0));
    show(MSG_memory_sample, memory("monitord", 9, 6));
    display_tick(&d, 100, 80);
    CHECK_HAS(written(), "  memory 58 MiB  ");
    show(MSG_memory_sample, memory("loaderd", 10, 10));
    show(MSG_trainer_step, step);
    display_tick(&d, 103, 80);
    CHECK_HAS(written(), "  memory 46 MiB  ");
    show(MSG_event_stage, stage("fail", 10, 111));
    show(MSG_trainer_step, step);
    display_close(&d, 80);
    CHECK_HAS(written(), "  memory 46 MiB  ");
}

TEST(deaths_by_a_signal_are_told)
{
    display_begin(0);
    display_death(&d, "2026-01-02T03:04:05Z fisherd 256 fisherd was ended by signal 9\x1b[2J");
    CHECK_STR(written(), "fisherd was ended by signal 9?[2J\n");
    display_death(&d, "2026-01-02T03:04:05Z loaderd 111 cannot read it"); /* it said so itself */
    display_death(&d, "2026-01-02T03:04:05Z loaderd");
    display_death(&d, "");
    CHECK_STR(written(), "");
}

TEST(evaluations_and_epochs_are_told)
{
    display_begin(0);
    show(MSG_trainer_evaluation, (union msg){.trainer_evaluation = {.task = "A",
                                                                    .after = "B",
                                                                    .epoch = 2,
                                                                    .metric = "accuracy",
                                                                    .value = 0.8125,
                                                                    .loss = 0.6,
                                                                    .final = 1}});
    CHECK_STR(written(), "A after B epoch 2: accuracy 81.25 %, loss 0.6000 (final)\n");
    show(MSG_event_task, (union msg){.event_task = {.what = "epoch-end",
                                                    .task = "A",
                                                    .epoch = 1,
                                                    .rows = 60000,
                                                    .seconds = 2,
                                                    .wait_seconds = 0.5,
                                                    .loss = 0.25}});
    CHECK_STR(written(), "A epoch 1: loss 0.2500, 60000 rows in 2.0 s (30000 rows/s, 25 % of it "
                         "waiting for data)\n");
    show(MSG_event_task,
         (union msg){.event_task = {.what = "epoch-end", .task = "A", .epoch = 1, .loss = 0.25}});
    CHECK_STR(written(), "A epoch 1: loss 0.2500\n"); /* no time, no rate */
    show(MSG_event_task, (union msg){.event_task = {.what = "task-end", .task = "A", .epoch = 3}});
    CHECK_STR(written(), "task A is done after 3 epochs\n");
    show(MSG_event_training,
         (union msg){.event_training = {.what = "plateau", .sentence = "the rate is less"}});
    show(MSG_event_training, (union msg){.event_training = {.what = "time", .sentence = "over"}});
    show(MSG_event_determinism, (union msg){.event_determinism = {.sentence = "step 3 differs"}});
    CHECK_STR(written(), "plateau: the rate is less\nnot reproduced: step 3 differs\n");
    show(MSG_event_mark, (union msg){.event_mark = {.stage = "trainerd", .text = "now"}});
    CHECK_STR(written(), "mark (trainerd): now\n");
    show(MSG_memory_advice,
         (union msg){.memory_advice = {.what = "swap", .sentence = "take less"}});
    CHECK_STR(written(), "advice: take less\n");
    show(MSG_event_pretrained,
         (union msg){.event_pretrained = {.task = "A", .file = "x.safetensors", .taken = 4}});
    CHECK_STR(written(), "task A begins with 4 tensors of x.safetensors; fresh: none\n");
}

TEST(stages_without_room_are_left_out)
{
    display_begin(0);
    for (int i = 0; i < 2 * DISPLAY_STAGES_MAX; i++) {
        char name[17];
        snprintf(name, sizeof name, "stage%d", i);
        show(MSG_memory_sample, memory(name, 1, 1));
    }
    show(MSG_trainer_step, step);
    display_tick(&d, 100, 80);
    CHECK_HAS(written(), "  memory 8 MiB  ");
}
