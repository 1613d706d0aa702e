/* test_continual.c - the list of tasks made whole, and the figures of the report by hand. */
#include <math.h>
#include <sys/stat.h>

#include "monitord/continual.h"
#include "proto/options.h"
#include "tests/test.h"
#include "trainerd/schedule.h"

#define BASE                                                                                       \
    "data: {file: x.h5}\nmodel:\n  layers:\n    - {type: relu}\ncontinual_learning:\n"             \
    "  compare_without_ewc: true\n  forward_transfer: true\ntasks:\n"
#define THREE                                                                                      \
    BASE "- {name: A, epochs: 2}\n- {name: B, from: previous, ewc: [all], permute_features: 7}\n"  \
         "- {name: C, from: previous, ewc: [all], epochs: 3}\n"

static struct options o;
static struct err e;

static int read_text(const char *text)
{
    FILE *f = fopen("p.yaml", "w");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
    options_free(&o);
    return options_read(&o, "p.yaml", NULL, 0, &e);
}

/* ---- the list of tasks ---- */

TEST(tasks_are_named_and_compared)
{
    CHECK_OK(read_text(THREE), e);
    CHECK_EQ(o.task_count, 5);
    CHECK_STR(o.tasks[1].from, "A");
    CHECK_STR(o.tasks[2].from, "B");
    CHECK_EQ(o.tasks[2].ewc.count, 2);
    CHECK_STR(o.tasks[2].ewc.name[0], "A");
    CHECK_STR(o.tasks[2].ewc.name[1], "B");
    CHECK_STR(o.tasks[3].name, "B-without-ewc");
    CHECK_STR(o.tasks[3].from, "A");
    CHECK_STR(o.tasks[3].comparison_of, "B");
    CHECK_EQ(o.tasks[3].permute_features, 7);
    CHECK_STR(o.tasks[4].from, "B-without-ewc");
    CHECK_EQ(o.tasks[4].epochs, 3);
    CHECK_EQ(o.tasks[4].ewc.count, 0);
    CHECK_EQ(options_comparison(&o, 0), -1);
    CHECK_EQ(options_comparison(&o, 2), 4);
    CHECK_OK(schedule_check(&o, &e), e);
}

TEST(tasks_of_the_effective_file_are_the_same)
{
    static struct options again;
    CHECK_OK(read_text(THREE), e);
    FILE *f = fopen("effective.yaml", "w");
    CHECK(f);
    CHECK_OK(options_write(&o, f, &e), e);
    CHECK(fclose(f) == 0);
    CHECK_OK(options_read(&again, "effective.yaml", NULL, 0, &e), e);
    CHECK(!options_difference(&o, &again));
}

TEST(tasks_that_ewc_changes_are_compared_and_no_others)
{
    CHECK_OK(read_text(BASE "- {name: A}\n- {name: B, from: previous}\n"), e);
    CHECK_EQ(o.task_count, 2); /* nothing is protected */
    CHECK_OK(read_text(BASE "- {name: A}\n- {name: B, from: A, ewc: [A]}\n"
                            "- {name: C, from: B}\n- {name: D}\n"),
             e);
    CHECK_EQ(o.task_count, 6); /* C begins with what EWC made, D does not */
    CHECK_STR(o.tasks[5].comparison_of, "C");
    CHECK_OK(read_text(BASE "- {name: A}\n- {name: B, from: A, ewc: [A]}\n"
                            "- {name: plain, from: A, comparison_of: B}\n"
                            "- {name: C, from: previous, ewc: [all]}\n"),
             e);
    CHECK_EQ(o.task_count, 5); /* B has one already, which C's goes on from */
    CHECK_STR(o.tasks[3].from, "B");
    CHECK_STR(o.tasks[4].from, "plain");
    CHECK_OK(read_text(BASE "- {name: A}\n- {name: B, from: A, ewc: all}\n"), e); /* a word */
    CHECK_EQ(o.tasks[1].ewc.count, 1);
    CHECK_STR(o.tasks[1].ewc.name[0], "A");
    CHECK_OK(read_text(BASE "- {name: A, from: previous, ewc: [all]}\n"), e);
    CHECK_STR(o.tasks[0].from, "start");
    CHECK_EQ(o.tasks[0].ewc.count, 0);
}

static const char *refused(const char *text)
{
    if (read_text(text) == 0)
        test_fail(__FILE__, __LINE__, "accepted: %.200s", text);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    return e.text;
}

TEST(tasks_that_cannot_be_are_refused)
{
    char text[4096] = BASE;
    CHECK_HAS(refused(BASE "- {name: previous}\n"), "none of the words start, previous and all");
    CHECK_HAS(refused(BASE "- {name: A}\n- {name: all}\n"), "none of the words");
    CHECK_HAS(refused(BASE "- {name: A}\n- {name: B, ewc: [A, all]}\n"), "\"all\"");
    CHECK_HAS(refused(BASE "- {name: B-without-ewc}\n- {name: B, ewc: [all], from: previous}\n"),
              "names are unique");
    CHECK_HAS(refused(BASE "- {name: A}\n- {from: A, ewc: [A], name: "
                           "a123456789b123456789c123456789d123456789e123456789f123}\n"),
              "longer than 63 bytes");
    CHECK_OK(read_text(BASE "- {name: A}\n- {from: A, ewc: [A], name: "
                            "a123456789b123456789c123456789d123456789e123456789f}\n"),
             e);
    CHECK_STR(o.tasks[2].name, "a123456789b123456789c123456789d123456789e123456789f-without-ewc");
    for (int i = 0; i < 18; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "- {name: t%d%s}\n", i,
                 i == 17 ? ", ewc: [all]" : "");
    CHECK_HAS(refused(text), "tasks.t17 protects all 17 tasks before it; at most 16");
    snprintf(text, sizeof text, "%s", BASE);
    for (int i = 0; i < 34; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "- {name: t%d, ewc: [%s]}\n", i,
                 i ? "t0" : "");
    CHECK_HAS(refused(text), "adds more tasks than the 64");
}

TEST(tasks_are_evaluated_before_their_own_training_too)
{
    uint32_t list[OPTION_TASKS_MAX];
    CHECK_OK(read_text(THREE), e);
    CHECK_EQ(schedule_first_evaluations(&o, list), 3);
    CHECK_EQ(list[2], 2);
    CHECK_EQ(schedule_evaluations(&o, 0, list), 2); /* A, and B to come */
    CHECK_EQ(list[1], 1);
    CHECK_EQ(schedule_evaluations(&o, 2, list), 3); /* nothing comes */
    CHECK_EQ(schedule_evaluations(&o, 3, list), 3); /* as B: A, B, and C to come */
    CHECK_EQ(schedule_evaluations(&o, 4, list), 3);
    o.forward_transfer = 0;
    CHECK_EQ(schedule_first_evaluations(&o, list), 0);
    CHECK_EQ(schedule_evaluations(&o, 3, list), 2);
}

TEST(a_comparison_goes_on_from_a_comparison)
{
    CHECK_OK(read_text(THREE), e);
    CHECK(!options_comparison_differs(&o, 4));
    free(o.tasks[4].from);
    o.tasks[4].from = strdup("A");
    CHECK_STR(options_comparison_differs(&o, 4), "from");
    CHECK_EQ(schedule_check(&o, &e), -1);
    CHECK_HAS(e.text, "another value of from");
    CHECK_OK(read_text(BASE "- {name: A}\n- {name: B, from: A, ewc: [A], lambda: 5}\n"
                            "- {name: plain, from: A, comparison_of: B}\n"),
             e);
    CHECK(!options_comparison_differs(&o, 2)); /* without EWC it has no strength */
}

TEST(a_task_has_options_of_its_own)
{
    static struct options view;
    CHECK_OK(read_text(BASE "- {name: A}\n- {name: B, file: b.h5, batch_size: 32, lambda: 5}\n"
                            "- {name: C, file: x.h5, learning_rate: 1e-2, source: s}\n"),
             e);
    options_of_task(&o, 0, &view);
    CHECK_STR(view.data_file, "x.h5");
    CHECK(view.batch_size == 128 && view.learning_rate == 1e-3 && view.ewc_lambda == 2000);
    options_of_task(&o, 1, &view);
    CHECK_STR(view.data_file, "b.h5");
    CHECK(view.batch_size == 32 && view.learning_rate == 1e-3 && view.ewc_lambda == 5);
    options_of_task(&o, 2, &view);
    CHECK(view.learning_rate == 1e-2);
    CHECK_STR(view.data_source, "s");
    CHECK_EQ(options_data_task(&o, 1), 1);
    CHECK_EQ(options_data_task(&o, 2), 0); /* the same file, in batches of the same size */
    CHECK_EQ(options_batch_size_max(&o), 128);
}

TEST(classes_have_a_file_beside_the_runs)
{
    CHECK_OK(
        read_text("data: {file: d/x.h5, prepare: idx, source: s}\nmodel: {layers: [{type: relu}]}\n"
                  "tasks:\n- {name: A, classes: [3, 1]}\n"
                  "- {name: B, classes: [2], file: own.h5}\n"),
        e);
    CHECK_STR(o.tasks[0].file, "d/x-classes-3-1.h5");
    CHECK_STR(o.tasks[1].file, "own.h5");
    CHECK_HAS(refused("data: {file: x.h5, prepare: idx, source: s}\n"
                      "model: {layers: [{type: relu}]}\ntasks:\n- {name: A, classes: [256]}\n"),
              "holds \"256\"; accepted are whole numbers from 0 to 255");
    CHECK_HAS(refused(BASE "- {name: A, classes: [1]}\n"), "goes with data.prepare: idx");
    CHECK_HAS(refused("data: {file: x.h5, prepare: text, source: s}\n"
                      "model: {layers: [{type: relu}]}\ntasks:\n- {name: A}\n"
                      "- {name: B, source: other}\n"),
              "tasks.B has the file x.h5, as has tasks.A, but another source");
    CHECK_HAS(refused("data: {file: x.h5, prepare: molecules, source: s}\n"
                      "model: {layers: [{type: relu}]}\ntasks:\n- {name: A}\n"
                      "- {name: B, rows_max: 10}\n"),
              "tasks.B has the file x.h5, as has tasks.A, but another source, other classes, "
              "columns or rows_max");
}

/* ---- the figures ---- */

static struct continual c;
static struct history h;
static struct checkpoint_meta meta;

static int is(double value, double wanted)
{
    return fabs(value - wanted) < 1e-12;
}

static void results_set(struct continual_results *r, const double *rows, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t j = 0; j < count; j++)
            r->result[i][j] = rows[i * count + j];
}

TEST(figures_are_those_computed_by_hand)
{
    static const double rows[] = {0.9, 0.2, NAN, /* T1: the third task is still far */
                                  0.7, 0.8, 0.4, /* */
                                  0.8, 0.5, 0.9};
    static const double fresh[] = {0.1, 0.1, 0.3};
    struct continual_results *r = &c.own;
    results_set(r, rows, 3);
    continual_figures(r, "accuracy", fresh, 3);
    CHECK(is(r->average, (0.8 + 0.5 + 0.9) / 3));
    CHECK(is(r->backward_transfer, ((0.8 - 0.9) + (0.5 - 0.8)) / 2));
    CHECK(is(r->forgetting, ((0.9 - 0.8) + (0.8 - 0.5)) / 2));
    CHECK(is(r->forward_transfer, ((0.2 - 0.1) + (0.4 - 0.3)) / 2));
    r->result[1][0] =
        0.95; /* better after the second task than after its own: more was forgotten */
    continual_figures(r, "accuracy", fresh, 3);
    CHECK(is(r->forgetting, ((0.95 - 0.8) + (0.8 - 0.5)) / 2));
    CHECK(is(r->backward_transfer, ((0.8 - 0.9) + (0.5 - 0.8)) / 2));
}

TEST(figures_of_a_loss_have_the_sign_of_a_gain)
{
    static const double rows[] = {1.0, 3.0, /* */
                                  1.5, 0.5};
    static const double fresh[] = {4.0, 3.5};
    struct continual_results *r = &c.own;
    results_set(r, rows, 2);
    continual_figures(r, "loss", fresh, 2);
    CHECK(is(r->average, 1.0));
    CHECK(is(r->backward_transfer, -0.5));
    CHECK(is(r->forgetting, 0.5));
    CHECK(is(r->forward_transfer, 0.5));
}

TEST(figures_that_need_what_is_not_known_are_not_known)
{
    static const double rows[] = {0.9, NAN, /* */
                                  0.7, 0.8};
    static const double fresh[] = {NAN, NAN};
    struct continual_results *r = &c.own;
    results_set(r, rows, 2);
    continual_figures(r, "accuracy", fresh, 2);
    CHECK(is(r->average, 0.75) && is(r->forgetting, 0.2) && isnan(r->forward_transfer));
    r->result[1][1] = NAN; /* the run is not finished */
    continual_figures(r, "accuracy", fresh, 2);
    CHECK(isnan(r->average) && is(r->forgetting, 0.2));
}

static void result_add(const char *task, const char *after, double value)
{
    struct checkpoint_result *r = &meta.results[meta.result_count++];
    snprintf(r->task, sizeof r->task, "%s", task);
    snprintf(r->after, sizeof r->after, "%s", after);
    snprintf(r->metric, sizeof r->metric, "accuracy");
    r->value = value;
}

TEST(matrix_with_and_without_ewc)
{
    CHECK_OK(read_text(THREE), e);
    result_add("A", "start", 0.1);
    result_add("B", "start", 0.2);
    result_add("A", "A", 0.9);
    result_add("B", "B", 0.8);
    result_add("A", "C", 0.7);
    result_add("A", "B-without-ewc", 0.4);
    result_add("C", "C-without-ewc", 0.95);
    continual_make(&c, &o, &meta, &h);
    CHECK_EQ(c.count, 3);
    CHECK(c.compared);
    CHECK_STR(c.metric, "accuracy");
    CHECK_STR(c.names[2], "C");
    CHECK(c.fresh[1] == 0.2 && isnan(c.fresh[2]));
    CHECK(c.own.result[0][0] == 0.9 && c.own.result[2][0] == 0.7 && isnan(c.own.result[1][0]));
    CHECK(c.without_ewc.result[0][0] == 0.9); /* before EWC the way is shared */
    CHECK(c.without_ewc.result[1][0] == 0.4 && c.without_ewc.result[2][2] == 0.95);
    CHECK(isnan(c.without_ewc.result[1][1]));
}

TEST(comparisons_that_are_no_sequence_have_no_matrix)
{
    CHECK_OK(read_text(BASE "- {name: A}\n- {name: B, from: A, ewc: [A]}\n"
                            "- {name: C, from: B, ewc: [A]}\n"
                            "- {name: B-plain, from: A, comparison_of: B}\n"
                            "- {name: C-plain, from: B, comparison_of: C}\n"),
             e);
    CHECK_OK(schedule_check(&o, &e), e); /* C-plain compares the step from B on */
    continual_make(&c, &o, &meta, &h);
    CHECK(c.count == 3 && !c.compared);
}

TEST(tasks_that_are_no_sequence_have_no_matrix)
{
    CHECK_OK(read_text("data: {file: x.h5}\nmodel: {layers: [{type: relu}]}\ntasks:\n"
                       "- {name: A}\n- {name: B}\n- {name: C, from: B}\n"),
             e);
    continual_make(&c, &o, &meta, &h);
    CHECK_EQ(c.count, 0);
    CHECK_OK(read_text("data: {file: x.h5}\nmodel: {layers: [{type: relu}]}\ntasks:\n"
                       "- {name: A}\n"),
             e);
    continual_make(&c, &o, &meta, &h);
    CHECK_EQ(c.count, 0);
}

/* Width of a PNG picture. */
static unsigned picture_width(const char *path)
{
    unsigned char head[20] = "";
    FILE *f = fopen(path, "r");
    CHECK(f && fread(head, 1, sizeof head, f) == sizeof head &&
          memcmp(head, "\x89PNG\r\n\x1a\n", 8) == 0);
    fclose(f);
    return (unsigned)(head[16] << 24 | head[17] << 16 | head[18] << 8 | head[19]);
}

TEST(pictures_are_drawn)
{
    static const double rows[] = {0.9, 0.2, NAN, 0.7, 0.8, 0.4, 0.8, 0.5, 0.9};
    if (system("command -v gnuplot >/dev/null") != 0)
        test_skip("gnuplot is not installed");
    CHECK(mkdir("report", 0700) == 0);
    c.count = c.compared = 3;
    snprintf(c.metric, sizeof c.metric, "accuracy");
    for (uint32_t i = 0; i < 3; i++)
        snprintf(c.names[i], sizeof c.names[i], "task-%u", i);
    results_set(&c.own, rows, 3);
    results_set(&c.without_ewc, rows, 3);
    if (continual_draw(&c, &e) != 1)
        test_fail(__FILE__, __LINE__, "%s", e.text);
    CHECK(picture_width("report/sequence.png") > 0);
    CHECK_EQ(picture_width("report/results.png"), 1300);
    c.count = 2; /* nothing to see */
    CHECK_EQ(continual_draw(&c, &e), 0);
}

/* The script, kept by a gnuplot of our own. */
static char *script_drawn(const char *name)
{
    static char text[65536];
    char path[64];
    snprintf(path, sizeof path, "report/%s.gnuplot.kept", name);
    FILE *f = fopen(path, "r");
    CHECK(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    return text;
}

/* Ten tasks: room for the number in each cell, and no two curves alike. */
TEST(pictures_of_many_tasks_can_be_read)
{
    static double rows[100];
    CHECK(mkdir("report", 0700) == 0 && mkdir("bin", 0700) == 0);
    FILE *f = fopen("bin/gnuplot", "w");
    CHECK(f && fputs("#!/bin/sh\ncp \"$1\" \"$1.kept\"\n: >${1%gnuplot}png.tmp\n", f) >= 0);
    CHECK(fclose(f) == 0 && chmod("bin/gnuplot", 0700) == 0 &&
          setenv("PATH", "bin:/usr/bin:/bin", 1) == 0);
    c.count = 10;
    c.compared = 1;
    snprintf(c.metric, sizeof c.metric, "accuracy");
    for (uint32_t i = 0; i < 10; i++)
        snprintf(c.names[i], sizeof c.names[i], "task-%u", i);
    for (int i = 0; i < 100; i++)
        rows[i] = 1;
    results_set(&c.own, rows, 10);
    results_set(&c.without_ewc, rows, 10);
    if (continual_draw(&c, &e) != 1)
        test_fail(__FILE__, __LINE__, "%s", e.text);
    CHECK_HAS(script_drawn("results"), "size 2000,560");
    CHECK_HAS(script_drawn("sequence"),
              "$own using 1:2 with linespoints pt 7 lw 2 lc rgb '#0072b2'");
    CHECK_HAS(script_drawn("sequence"),
              "$own using 1:9 with linespoints pt 5 lw 2 lc rgb '#0072b2'");
    CHECK_HAS(script_drawn("sequence"), "$without using 1:9 with linespoints pt 4 ");
}
