/* test_report.c - monitord: what journals tell of a run, and the report that is made of it. */
#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitord/history.h"
#include "monitord/report.h"
#include "monitord/stages.h"
#include "proto/epochs.h"
#include "proto/journal.h"
#include "proto/run.h"
#include "tests/test.h"

/* ---- history ---- */

static const char pipeline[] = "name: demo\n"
                               "data: {file: x.h5}\n"
                               "model: {layers: [{type: linear, out: 2}]}\n"
                               "tasks:\n"
                               "  - {name: A}\n"
                               "  - {name: B, from: A, ewc: [A]}\n"
                               "  - {name: B-plain, from: A, comparison_of: B}\n";

static struct options options;

static void options_make(struct options *o)
{
    struct err e;
    FILE *f = fopen("pipeline.yaml", "w");
    CHECK(f && fputs(pipeline, f) >= 0 && fclose(f) == 0);
    CHECK_OK(options_read(o, "pipeline.yaml", NULL, 0, &e), e);
}

static void started(struct history *h, double time_s, uint64_t launch)
{
    union msg m = {.event_stage = {.head = {.time_s = time_s}, .what = "start", .launch = launch}};
    history_add(h, MSG_event_stage, &m);
}

static void epoch_ended(struct history *h, double time_s, const char *task, uint64_t epoch,
                        double loss)
{
    union msg m = {.event_task = {.head = {.time_s = time_s},
                                  .what = "epoch-end",
                                  .epoch = epoch,
                                  .rows = 100,
                                  .seconds = 0.5,
                                  .wait_seconds = 0.125,
                                  .loss = loss}};
    MSG_STR(m.event_task.task, task);
    history_add(h, MSG_event_task, &m);
}

TEST(history_counts_restarts_of_a_launch_only)
{
    static struct history h;
    history_open(&h, &options);
    history_journal(&h, 0);
    started(&h, 10, 1);
    started(&h, 12, 1);  /* died */
    started(&h, 13, 1);  /* died again */
    started(&h, 100, 2); /* the run was stopped and resumed */
    started(&h, 101, 2);
    history_journal(&h, 1);
    started(&h, 9, 1);
    started(&h, 102, 2);
    history_journal(&h, 2);
    started(&h, 200, 0); /* by hand */
    started(&h, 201, 0);
    CHECK_EQ(h.restarts[0], 3);
    CHECK_EQ(h.restarts[1], 0);
    CHECK_EQ(h.restarts[2], 0);
    CHECK_EQ(h.starts[2], 2);
    CHECK_EQ(h.launch_count, 3);
    CHECK(history_wall_s(&h) == (13 - 9) + (102 - 100) + (201 - 200));
}

/* Journals that are read a piece at a time, in turns, come to what each as a whole comes to: a
 * start of another stage between an evaluation and its epoch's end takes nothing from it. */
TEST(history_read_in_turns_is_the_same)
{
    static struct history whole, turns;
    static struct journal journals[STAGE_COUNT];
    struct err e;
    CHECK(mkdir("journals", 0700) == 0);
    history_open(&turns, &options);
    for (int i = 0; i < STAGE_COUNT; i++)
        CHECK_OK(journal_open(&journals[i], stage_names[i], &e), e);
    for (uint64_t epoch = 1; epoch <= 40; epoch++) {
        int stage = (int)(test_random() % STAGE_COUNT);
        struct msg_event_stage start = {.head.time_s = (double)epoch, .launch = 1 + epoch / 10};
        struct msg_trainer_evaluation evaluated = {.epoch = epoch, .loss = (double)epoch};
        struct msg_event_task end = {.epoch = epoch, .rows = 1, .seconds = 1, .loss = 1};
        MSG_STR(start.what, "start");
        MSG_STR(evaluated.task, "A");
        MSG_STR(evaluated.after, "A");
        MSG_STR(end.what, "epoch-end");
        MSG_STR(end.task, "A");
        CHECK_OK(journal_append(&journals[1], MSG_trainer_evaluation, &evaluated, &e), e);
        CHECK_OK(history_read_on(&turns, &e), e);
        CHECK_OK(journal_append(&journals[stage], MSG_event_stage, &start, &e), e);
        CHECK_OK(history_read_on(&turns, &e), e);
        CHECK_OK(journal_append(&journals[1], MSG_event_task, &end, &e), e);
        if (test_random() % 2)
            CHECK_OK(history_read_on(&turns, &e), e);
    }
    CHECK_OK(history_read_on(&turns, &e), e);
    CHECK_OK(history_read(&whole, &options, &e), e);
    CHECK_EQ(whole.epoch_count, 40);
    CHECK(turns.epoch_count == 40 && turns.epoch_rows == 40);
    for (int i = 0; i < STAGE_COUNT; i++) {
        CHECK(whole.starts[i] == turns.starts[i] && whole.restarts[i] == turns.restarts[i]);
        journal_close(&journals[i]);
    }
    for (uint32_t i = 0; i < 40; i++) {
        double a = whole.epochs[i].validation_loss, b = turns.epochs[i].validation_loss;
        CHECK(a == b || (isnan(a) && isnan(b)));
    }
    CHECK(history_wall_s(&whole) == history_wall_s(&turns));
}

TEST(history_lists_each_epoch_once)
{
    static struct history h;
    history_open(&h, &options);
    history_journal(&h, 1);
    started(&h, 0, 1);
    epoch_ended(&h, 1, "A", 1, 0.5);
    started(&h, 2, 1); /* killed before the checkpoint */
    epoch_ended(&h, 3, "A", 1, 0.5);
    epoch_ended(&h, 4, "A", 2, 0.25);
    epoch_ended(&h, 5, "B", 1, 0.75);
    CHECK_EQ(h.epoch_count, 3);
    CHECK_STR(h.epochs[2].task, "B");
    CHECK(h.epochs[1].loss == 0.25);
    CHECK_EQ(h.epoch_rows, 400);
    CHECK(h.epoch_seconds == 2 && h.epoch_wait_seconds == 0.5);
    CHECK(history_wall_s(&h) == 5);
}

static void evaluated(struct history *h, const char *task, const char *after, uint64_t epoch,
                      double value, int final)
{
    union msg m = {.trainer_evaluation = {.head = {.time_s = 7},
                                          .epoch = epoch,
                                          .metric = "accuracy",
                                          .value = value,
                                          .loss = 1 - value,
                                          .final = final}};
    MSG_STR(m.trainer_evaluation.task, task);
    MSG_STR(m.trainer_evaluation.after, after);
    history_add(h, MSG_trainer_evaluation, &m);
}

/* An epoch has what its task's own data gave behind it: as it came last, and with its own weights
 * where the task ends with others. */
TEST(history_keeps_what_each_epoch_came_to)
{
    static struct history h;
    options_make(&options);
    history_open(&h, &options);
    history_journal(&h, 1);
    started(&h, 0, 1);
    evaluated(&h, "A", "start", 0, 0.125, 0);
    evaluated(&h, "A", "A", 1, 0.25, 0);
    started(&h, 2, 1); /* killed before the checkpoint */
    evaluated(&h, "A", "A", 1, 0.375, 0);
    epoch_ended(&h, 3, "A", 1, 0.5);
    evaluated(&h, "A", "A", 2, 0.5, 0); /* it ends with those of the first epoch */
    evaluated(&h, "A", "A", 2, 0.375, 1);
    epoch_ended(&h, 3, "A", 2, 0.5);
    evaluated(&h, "A", "B", 1, 0.625, 1);
    evaluated(&h, "B", "B", 1, 0.75, 1);
    epoch_ended(&h, 3, "B", 1, 0.5);
    evaluated(&h, "A", "B-plain", 1, 0.625, 1);
    evaluated(&h, "B", "B-plain", 1, 0.875, 1);
    epoch_ended(&h, 3, "B-plain", 1, 0.5);
    epoch_ended(&h, 3, "B-plain", 2, 0.5);
    const double values[] = {0.375, 0.5, 0.75, 0.875};
    CHECK_EQ(h.epoch_count, 5);
    for (int i = 0; i < 4; i++) {
        CHECK(h.epochs[i].value == values[i] && h.epochs[i].validation_loss == 1 - values[i]);
        CHECK_STR(h.epochs[i].metric, "accuracy");
    }
    CHECK(isnan(h.epochs[4].value) && isnan(h.epochs[4].validation_loss) && !h.epochs[4].metric[0]);
    options_free(&options);
}

TEST(curve_is_drawn)
{
    static struct history h;
    struct err e = {0};
    char head[8] = "";
    if (system("command -v gnuplot >/dev/null") != 0)
        test_skip("gnuplot is not installed");
    CHECK(mkdir("report", 0700) == 0);
    options_make(&options);
    history_open(&h, &options);
    evaluated(&h, "A", "A", 1, 0.375, 0);
    epoch_ended(&h, 3, "A", 1, 0.5);
    epoch_ended(&h, 3, "A", 2, NAN);
    CHECK_EQ(curve_draw(&h, &e), 0); /* nothing to see */
    evaluated(&h, "B", "B", 1, 0.75, 1);
    epoch_ended(&h, 3, "B", 1, 0.25);
    if (curve_draw(&h, &e) != 1)
        test_fail(__FILE__, __LINE__, "%s", e.text);
    FILE *f = fopen("report/curve.png", "r");
    CHECK(f && fread(head, 1, 8, f) == 8 && memcmp(head, "\x89PNG\r\n\x1a\n", 8) == 0);
    fclose(f);
    CHECK(access("report/curve.gnuplot", F_OK) < 0);
    options_free(&options);
}

static void decided(struct history *h, const char *what, uint64_t step, const char *sentence)
{
    union msg m = {.event_training = {.step = step, .value = 0.5}};
    MSG_STR(m.event_training.what, what);
    MSG_STR(m.event_training.task, "A");
    MSG_STR(m.event_training.sentence, sentence);
    history_add(h, MSG_event_training, &m);
}

TEST(history_lists_each_decision_once_and_the_newest)
{
    static struct history h;
    history_open(&h, &options);
    history_journal(&h, 1);
    started(&h, 0, 1);
    decided(&h, "plateau", 10, "less");
    decided(&h, "early-stop", 20, "ends");
    decided(&h, "plateau", 10, "less"); /* a death, and again */
    CHECK_EQ(h.decision_count, 2);
    CHECK_STR(h.decisions[1].what, "plateau");
    CHECK_EQ(h.option_changes, 0);
    decided(&h, "options", 30, "other ones");
    CHECK_EQ(h.option_changes, 1);
    for (uint64_t step = 100; step < 100 + HISTORY_DECISIONS_MAX; step++)
        decided(&h, "plateau", step, "less");
    CHECK_EQ(h.decision_count, HISTORY_DECISIONS_MAX);
    CHECK_EQ(h.decisions[0].step, 100);
}

TEST(history_survives_more_launches_than_it_has_room_for)
{
    static struct history h;
    history_open(&h, &options);
    history_journal(&h, 3);
    for (int i = 1; i <= HISTORY_LAUNCHES_MAX + 10; i++)
        started(&h, i, (uint64_t)i);
    CHECK_EQ(h.launch_count, HISTORY_LAUNCHES_MAX);
}

/* The newest are listed, and the time of all is known. */
TEST(history_of_more_epochs_than_it_has_room_for)
{
    static struct history h;
    enum { OF_A = HISTORY_EPOCHS_MAX + 100, OF_B = 50 };
    history_open(&h, &options);
    for (uint64_t i = 1; i <= OF_A; i++)
        epoch_ended(&h, 1e6, "A", i, 1);
    epoch_ended(&h, 1e6, "A", OF_A, 1); /* once more after a kill */
    for (uint64_t i = 1; i <= OF_B; i++)
        epoch_ended(&h, 1e6, "B", i, 1);
    CHECK_EQ(h.epochs_left + h.epoch_count, OF_A + OF_B);
    CHECK(h.epoch_count <= HISTORY_EPOCHS_MAX && h.epoch_count > HISTORY_EPOCHS_MAX / 2);
    CHECK_EQ(h.epochs[0].epoch, h.epochs_left + 1);
    CHECK_STR(h.epochs[h.epoch_count - 1].task, "B");
    CHECK(history_task_s(&h, "A") == 0.5 * OF_A && history_task_s(&h, "B") == 0.5 * OF_B);
    CHECK(history_task_s(&h, "C") == 0);
}

static void delivered(struct history *h, const char *consumer, uint64_t epoch, int whole,
                      uint64_t rows)
{
    union msg m = {.loader_receipt = {.head = {.time_s = 9},
                                      .epoch = epoch,
                                      .whole = whole,
                                      .rows = rows,
                                      .read_s = 0.5,
                                      .decode_s = 1,
                                      .credit_s = 0.5}};
    MSG_STR(m.loader_receipt.consumer, consumer);
    MSG_STR(m.loader_receipt.split, "train");
    MSG_STR(m.loader_receipt.digest, "0123456789abcdef");
    history_add(h, MSG_loader_receipt, &m);
}

TEST(history_keeps_a_receipt_of_each_epoch)
{
    static struct history h;
    history_open(&h, &options);
    delivered(&h, "trainer.train", 0, 0, 40); /* a part, then the whole, then a part of it again */
    delivered(&h, "trainer.train", 0, 1, 100);
    delivered(&h, "trainer.train", 1, 0, 20);
    delivered(&h, "trainer.train", 0, 0, 60);
    delivered(&h, "fisher", 0, 1, 100);
    delivered(&h, "trainer.train", 1, 0, 30);
    CHECK_EQ(h.receipt_count, 3);
    CHECK(h.receipts[0].whole && h.receipts[0].rows == 100);
    CHECK_STR(h.receipts[1].consumer, "fisher");
    CHECK_EQ(h.receipts[2].epoch, 1);
    CHECK_EQ(h.receipts[2].rows, 30);
    for (uint64_t i = 0; i < HISTORY_RECEIPTS_MAX; i++)
        delivered(&h, "trainer.train", 2 + i, 1, 100);
    CHECK_EQ(h.receipt_count, HISTORY_RECEIPTS_MAX);
    CHECK_EQ(h.receipts[0].epoch, 2);
    CHECK_EQ(h.receipts[HISTORY_RECEIPTS_MAX - 1].epoch, HISTORY_RECEIPTS_MAX + 1);
}

/* ---- report ---- */

static void result_add(struct checkpoint_meta *m, const char *task, const char *after, double value,
                       const char *digest)
{
    struct checkpoint_result *r = &m->results[m->result_count++];
    snprintf(r->task, sizeof r->task, "%s", task);
    snprintf(r->after, sizeof r->after, "%s", after);
    snprintf(r->metric, sizeof r->metric, "accuracy");
    snprintf(r->weights_sha256, sizeof r->weights_sha256, "%s", digest);
    r->value = value;
}

static struct checkpoint_meta meta;
static struct history history;
static struct highwater_page pages[STAGE_COUNT];
static struct report report;

/* A plan of two lines for `stage` and one of 7 bytes for fisherd. */
static void plan_journaled(struct history *h, const char *stage, uint64_t one, uint64_t two)
{
    union msg m = {.event_plan = {.head = {.time_s = 9}, .rows_count = 3}};
    struct msg_plan_row *rows = m.event_plan.rows;
    const uint64_t bytes[] = {one, two, 7};
    for (int i = 0; i < 3; i++) {
        MSG_STR(rows[i].stage, i < 2 ? stage : "fisherd");
        MSG_STR(rows[i].what, i < 2 ? "weights" : "arena");
        rows[i].bytes = bytes[i];
    }
    m.event_plan.totals_count = 2;
    m.event_plan.totals[0] = rows[0];
    m.event_plan.totals[0].bytes = one + two;
    m.event_plan.totals[1] = rows[2];
    history_add(h, MSG_event_plan, &m);
}

static void run_make_finished(void)
{
    options_make(&options);
    meta.version = 1;
    meta.task = 3;
    meta.step = 13282;
    meta.steps_skipped = 10000;
    result_add(&meta, "A", "A", 0.873, "aa");
    result_add(&meta, "A", "B", 0.825, "bb");
    result_add(&meta, "B", "B", 0.846, "bb");
    result_add(&meta, "A", "B-plain", 0.605, "cc");
    result_add(&meta, "B", "B-plain", 0.863, "cc");
    history_open(&history, &options);
    history_journal(&history, 1);
    started(&history, 5, 1);
    evaluated(&history, "A", "A", 1, 0.875, 0);
    epoch_ended(&history, 9, "A", 1, 0.5);
    epoch_ended(&history, 9, "A", 2, 0.5);
    delivered(&history, "trainer.train", epochs_key(1, 2), 0, 30);
    delivered(&history, "fisher", 5, 1, 100);
    pages[1] = (struct highwater_page){
        .rss_peak_bytes = 100, .helpers_peak_bytes = 11, .arena_peak_bytes = 7, .cpu_us = 2500000};
    pages[2].arena_peak_bytes = 5;
    plan_journaled(&history, "trainerd", 90, 10);
    plan_journaled(&history, "trainerd", 60, 30); /* a later start's: this one counts */
    report_make(&report, &options, &meta, &history, pages);
}

TEST(report_of_a_finished_run)
{
    run_make_finished();
    CHECK(report.finished && report.compared);
    CHECK_EQ(report.task_count, 2); /* the comparison is a column, no row */
    CHECK_STR(report.tasks[0].name, "A");
    CHECK(report.tasks[0].after_own_training == 0.873);
    CHECK(report.tasks[0].final == 0.825);
    CHECK(report.tasks[0].final_without_ewc == 0.605);
    CHECK(report.tasks[1].after_own_training == 0.846);
    CHECK(report.tasks[1].final == 0.846);
    CHECK(report.tasks[1].final_without_ewc == 0.863);
    CHECK_STR(report.weights_sha256, "bb"); /* of the last task with EWC, not of the comparison */
    CHECK(report.samples_per_second == 200 && report.data_wait_share == 0.25);
    CHECK(report.wall_seconds == 4 && report.cpu_seconds == 2.5);
    CHECK_EQ(report.arena_bytes, 12);
    options_free(&options);
}

TEST(report_files_say_it)
{
    char *text = NULL;
    size_t bytes;
    run_make_finished();
    FILE *out = open_memstream(&text, &bytes);
    report_print_json(&report, out);
    fflush(out);
    CHECK_HAS(text, "{\"name\": \"A\", \"metric\": \"accuracy\", \"after_own_training\": 0.873, "
                    "\"final\": 0.825, \"final_without_ewc\": 0.605}");
    CHECK_HAS(text, "\"steps\": 3282,");
    CHECK_HAS(text, "\"weights_sha256\": \"bb\"");
    CHECK_HAS(text,
              "\"restarts\": {\"loaderd\": 0, \"trainerd\": 0, \"fisherd\": 0, \"monitord\": 0}");
    CHECK_HAS(text, "\"trainerd\": 111");
    CHECK_HAS(text, "\"arena_bytes\": 12");
    CHECK_HAS(text, "\"plan\": {\"trainerd\": 90, \"fisherd\": 7}"); /* no row, no stage */
    CHECK_HAS(text, "{\"stage\": \"trainerd\", \"what\": \"weights\", \"bytes\": 60}");
    CHECK_HAS(text, "{\"stage\": \"fisherd\", \"what\": \"arena\", \"bytes\": 7}");
    CHECK_HAS(text, "\"reproducible\": true");
    CHECK_HAS(text, "{\"task\": \"A\", \"epoch\": 1, \"loss\": 0.5, \"validation_loss\": 0.125, "
                    "\"metric\": \"accuracy\", \"value\": 0.875}");
    CHECK_HAS(text, "\"epoch\": 2, \"loss\": 0.5, \"validation_loss\": null, \"metric\": null, "
                    "\"value\": null}");
    CHECK_HAS(text, "{\"consumer\": \"trainer.train\", \"split\": \"train\", \"task\": \"B\", "
                    "\"epoch\": 3, \"of\": \"part\", \"first_span\": 0,");
    CHECK_HAS(text, "\"read_share\": 0.2500, \"decode_share\": 0.5000, \"credit_share\": 0.2500}");
    CHECK_HAS(text, "\"task\": null, \"epoch\": 5, \"of\": \"whole\"");
    report_print_markdown(&report, out);
    report_print_table(&report, out);
    fclose(out);
    CHECK_HAS(text, "| trainer.train | train | B | 3 | part | 30 | `0123456789abcdef` |");
    CHECK_HAS(text, "(the arena) in each of them.\n");
    CHECK_HAS(text, "| 0.500 (25 %) | 1.000 (50 %) | 0.500 (25 %) |");
    CHECK_HAS(text, "| A | 1 | 0.500000 | 0.125000 | accuracy | 87.50 % |\n"
                    "| A | 2 | 0.500000 | - | - | - |\n");
    CHECK_HAS(text, "| A | accuracy | 87.30 % | 82.50 % | 60.50 % |");
    CHECK_HAS(text, "3,282 steps, 4.0 s, 2.5 CPU s, 200 samples/s while training, "
                    "25.0 % of that time waiting for data");
    free(text);
    options_free(&options);
}

TEST(report_tells_how_the_gpu_did)
{
    char *text = NULL;
    size_t bytes;
    run_make_finished();
    FILE *out = open_memstream(&text, &bytes);
    report_print_json(&report, out);
    report_print_markdown(&report, out);
    fflush(out);
    CHECK_HAS(text, "\"gpu\": null,");
    CHECK(!strstr(text, "| the GPU while trainerd ran |"));
    report.pages[3].gpu_utilisation = (struct highwater_mean){.count = 4, .sum = 3, .most = 1};
    report.pages[3].gpu_used_bytes = (struct highwater_mean){1, 3 << 20, 3 << 20};
    report_print_json(&report, out);
    report_print_markdown(&report, out);
    fclose(out);
    CHECK_HAS(text, "\"utilisation\": {\"mean\": 0.75, \"most\": 1}");
    CHECK_HAS(text, "\"used_bytes\": {\"mean\": 3145728, \"most\": 3145728}");
    CHECK_HAS(text, "\"power_w\": {\"mean\": null, \"most\": null}");
    CHECK_HAS(text, "| the GPU while trainerd ran | mean | most |\n|---|---:|---:|\n"
                    "| time in which a kernel ran (%) | 75.0 | 100.0 |\n"
                    "| its memory in use, by whatever process (MiB) | 3.0 | 3.0 |\n\n");
    free(text);
    options_free(&options);
}

static void deaths_write(const char *path, int first, int count, const char *end)
{
    FILE *out = fopen(path, "w");
    CHECK(out);
    for (int i = first; i < first + count; i++)
        fprintf(out, "2026-01-02T03:04:05Z fisherd 256 it was death %d\n", i);
    fputs(end, out);
    CHECK(fclose(out) == 0);
}

TEST(report_tells_the_newest_deaths)
{
    char *text = NULL, first[64];
    size_t bytes;
    run_make_finished();
    report_deaths_read(&report);
    CHECK_EQ(report.death_count, 0);
    CHECK(mkdir("logs", 0700) == 0);
    deaths_write("logs/deaths.old", 0, 3, "");
    deaths_write("logs/deaths", 3, REPORT_DEATHS_MAX - 1, "2026-01-02T03:04:05Z trainerd 1");
    report_deaths_read(&report);
    CHECK_EQ(report.death_count, REPORT_DEATHS_MAX);
    FILE *out = open_memstream(&text, &bytes);
    report_print_json(&report, out);
    report_print_markdown(&report, out);
    fclose(out);
    snprintf(first, sizeof first, "it was death %d\n", 2);
    CHECK_HAS(text, first);
    CHECK(!strstr(text, "it was death 1\n"));
    CHECK_HAS(text, "{\"time\": \"2026-01-02T03:04:05Z\", \"stage\": \"fisherd\", \"code\": 256, "
                    "\"sentence\": \"it was death 65\"}");
    CHECK_HAS(text, "- death of fisherd, 2026-01-02T03:04:05Z: it was death 65\n");
    free(text);
    options_free(&options);
}

static void marked(struct history *h, double time_s, const char *text)
{
    union msg m = {.event_mark = {.head = {.time_s = time_s}, .stage = "fisherd"}};
    MSG_STR(m.event_mark.text, text);
    history_add(h, MSG_event_mark, &m);
}

TEST(report_tells_the_newest_advice)
{
    char *text = NULL;
    size_t bytes;
    union msg m = {.memory_advice = {.what = "wait",
                                     .task = "A",
                                     .value = 0.5,
                                     .limit = 0.3,
                                     .option = "loader.num_workers"}};
    run_make_finished();
    for (int i = 0; i <= HISTORY_ADVICE_MAX; i++) {
        m.head.time_s = 1000 * i;
        snprintf(m.memory_advice.sentence, sizeof m.memory_advice.sentence, "advice %d.", i);
        history_add(&history, MSG_memory_advice, &m);
    }
    CHECK_EQ(history.advice_count, HISTORY_ADVICE_MAX);
    FILE *out = open_memstream(&text, &bytes);
    report_print_json(&report, out);
    report_print_markdown(&report, out);
    report_print_table(&report, out);
    fclose(out);
    CHECK(!strstr(text, "advice 0."));
    CHECK_HAS(text, "\"what\": \"wait\",\n");
    CHECK_HAS(text, "\"option\": \"loader.num_workers\",\n");
    CHECK_HAS(text, "\"sentence\": \"advice 64.\"\n");
    CHECK_HAS(text, "- advice, 1970-01-01T00:16:40Z: advice 1.\n");
    CHECK_HAS(text, "  Advice was given 64 times; the report has it.\n");
    free(text);
    options_free(&options);
}

/* Each stage's come in the order of its own journal. */
TEST(report_tells_the_newest_marks_of_all_stages)
{
    char *text = NULL, name[32];
    size_t bytes;
    run_make_finished();
    for (int i = 1; i <= HISTORY_MARKS_MAX; i++) {
        snprintf(name, sizeof name, "mark %d", i);
        marked(&history, 1000 * i, name);
    }
    marked(&history, 500, "too old");
    marked(&history, 2500, "between");
    CHECK_EQ(history.mark_count, HISTORY_MARKS_MAX);
    CHECK_STR(history.marks[0].text, "mark 2");
    CHECK_STR(history.marks[1].text, "between");
    CHECK_STR(history.marks[2].text, "mark 3");
    CHECK_STR(history.marks[HISTORY_MARKS_MAX - 1].text, "mark 64");
    FILE *out = open_memstream(&text, &bytes);
    report_print_json(&report, out);
    report_print_markdown(&report, out);
    fclose(out);
    CHECK_HAS(text, "{\"time\": \"1970-01-01T00:41:40Z\", \"stage\": \"fisherd\", "
                    "\"text\": \"between\"}");
    CHECK_HAS(text, "- mark, 1970-01-01T00:41:40Z: between\n");
    free(text);
    options_free(&options);
}

TEST(report_of_a_run_that_has_just_begun)
{
    char *text = NULL;
    size_t bytes;
    options_make(&options);
    history_open(&history, &options);
    report_make(&report, &options, &meta, &history, pages);
    CHECK(!report.finished);
    CHECK_STR(report.weights_sha256, "");
    FILE *out = open_memstream(&text, &bytes);
    report_print_json(&report, out);
    report_print_table(&report, out);
    fclose(out);
    CHECK_HAS(text,
              "{\"name\": \"A\", \"metric\": null, \"after_own_training\": null, \"final\": null, "
              "\"final_without_ewc\": null}");
    CHECK_HAS(text, "\"samples_per_second\": null");
    CHECK_HAS(text, "\"data_wait_share\": null");
    CHECK_HAS(text, "\"weights_sha256\": null");
    CHECK_HAS(text, "not finished");
    free(text);
    options_free(&options);
}

TEST(report_without_ewc_takes_the_last_task)
{
    static const char *const set[] = {"tasks.B.ewc="};
    struct err e;
    run_make_finished();
    options_free(&options);
    CHECK_OK(options_read(&options, "pipeline.yaml", set, 1, &e), e);
    options.task_count = 2; /* A and B only */
    report_make(&report, &options, &meta, &history, pages);
    CHECK_STR(report.weights_sha256, "bb");
    CHECK(!report.compared && isnan(report.tasks[0].final_without_ewc));
    options_free(&options);
}
