/* test_predictions.c - files of predictions: every number comes back, a failing disk leaves the old
 * file; and scores against numbers worked out by hand. */
#include "trainerd/predictions.h"

#include <math.h>
#include <unistd.h>

#include "engine/scores.h"
#include "proto/durable.h"
#include "proto/h5file.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

enum { BATCH = 64, ROWS = 150 };

static struct err e;
static struct predictions_known known; /* of the files that are written */

static void model_of(struct model *m, const char *layer, const char *loss)
{
    CHECK_OK(model_open(m, &layer, 1, 3, loss, &e), e);
}

static float number_at(uint64_t row, uint64_t k)
{
    return (float)(row * 7 + k) / 3.0f - 11;
}

static int64_t time_at(uint64_t row)
{
    return 1660557960 + 90 * (int64_t)row;
}

static int rows_write(const char *path, const struct model *m, uint64_t rows)
{
    struct predictions *p;
    int64_t times[BATCH];
    float *outputs = calloc(BATCH, m->outputs * sizeof *outputs);
    int result = predictions_open(&p, path, m, &known, rows, BATCH, &e);
    for (uint64_t at = 0; result == 0 && at < rows; at += BATCH) {
        uint64_t count = rows - at < BATCH ? rows - at : BATCH;
        for (uint64_t i = 0; i < count * m->outputs; i++)
            outputs[i] = number_at(at + i / m->outputs, i % m->outputs);
        for (uint64_t i = 0; i < count; i++)
            times[i] = time_at(at + i);
        result = predictions_add(p, outputs, known.has_times ? times : NULL, count, &e);
    }
    if (result == 0)
        result = predictions_number(p, "loss", 0.5, &e);
    if (result == 0)
        result = predictions_commit(&p, &e);
    predictions_abandon(&p);
    free(outputs);
    return result;
}

/* More than a buffer of text: 150 rows of 3,000 numbers. */
TEST(every_number_of_a_csv_file_reads_back)
{
    struct model m;
    uint64_t row = 0, k = 0;
    float number;
    model_of(&m, "linear out=3000", "mean_squared_error");
    CHECK_OK(rows_write("x.csv", &m, ROWS), e);
    FILE *f = fopen("x.csv", "r");
    CHECK(f);
    CHECK_EQ(fscanf(f, "row,y_%lu", &k), 1);
    while (fscanf(f, ",y_%lu", &k) == 1)
        ;
    CHECK_EQ(k, 2999);
    for (uint64_t r = 0; r < ROWS; r++) {
        CHECK_EQ(fscanf(f, " %lu", &row), 1);
        CHECK_EQ(row, r);
        for (k = 0; k < m.outputs; k++) {
            CHECK_EQ(fscanf(f, ",%f", &number), 1);
            CHECK(number == number_at(r, k));
        }
    }
    CHECK_EQ(fgetc(f), '\n');
    CHECK_EQ(fgetc(f), EOF);
    fclose(f);
    model_close(&m);
}

TEST(an_hdf5_file_has_outputs_probabilities_and_classes)
{
    struct model m;
    struct h5reader *r;
    struct h5array a;
    float outputs[ROWS * 5], p[ROWS * 5];
    uint32_t classes[ROWS];
    double loss;
    model_of(&m, "linear out=5", "softmax_cross_entropy");
    CHECK_OK(rows_write("x.h5", &m, ROWS), e);
    CHECK_OK(h5reader_open(&r, "x.h5", &e), e);
    CHECK_OK(h5reader_array(r, "outputs", &a, &e), e);
    CHECK(a.type == H5TYPE_F32 && a.rank == 2 && a.dims[0] == ROWS && a.dims[1] == 5);
    CHECK_OK(h5reader_read(r, &a, outputs, &e), e);
    CHECK_OK(h5reader_array(r, "probabilities", &a, &e), e);
    CHECK_OK(h5reader_read(r, &a, p, &e), e);
    CHECK_OK(h5reader_array(r, "classes", &a, &e), e);
    CHECK(a.type == H5TYPE_U32 && a.rank == 1);
    CHECK_OK(h5reader_read(r, &a, classes, &e), e);
    CHECK_OK(h5reader_f64(r, "", "loss", &loss, &e), e);
    CHECK(loss == 0.5);
    for (int row = 0; row < ROWS; row++) {
        double sum = 0;
        for (int k = 0; k < 5; k++) {
            CHECK(outputs[row * 5 + k] == number_at((uint64_t)row, (uint64_t)k));
            sum += (double)p[row * 5 + k];
        }
        CHECK(fabs(sum - 1) < 1e-6);
        CHECK_EQ(classes[row], 4);
    }
    h5reader_close(&r);
    model_close(&m);
}

TEST(classes_are_named_in_both_files)
{
    struct model m;
    struct h5reader *r;
    char text[64], *csv;
    size_t bytes;
    model_of(&m, "linear out=3", "softmax_cross_entropy");
    known.class_names = "a\nb\nc \"d\", e"; /* the last output is always the largest */
    CHECK_OK(rows_write("x.h5", &m, 1), e);
    CHECK_OK(rows_write("x.csv", &m, 1), e);
    CHECK_OK(h5reader_open(&r, "x.h5", &e), e);
    CHECK_OK(h5reader_text(r, "", "class_names", text, sizeof text, &e), e);
    CHECK_STR(text, known.class_names);
    h5reader_close(&r);
    CHECK_OK(durable_read("x.csv", 4096, &csv, &bytes, &e), e);
    CHECK_HAS(csv, "row,class,name,p_0,p_1,p_2\n0,2,\"c \"\"d\"\", e\",0.");
    free(csv);
    known.class_names = "a\nb";
    CHECK_OK(rows_write("x.csv", &m, 1), e);
    CHECK_OK(durable_read("x.csv", 4096, &csv, &bytes, &e), e);
    CHECK_HAS(csv, "\n0,2,,0.");
    free(csv);
    known = (struct predictions_known){0};
    model_close(&m);
}

static void csv_begins(const struct model *m, const char *begin)
{
    char *csv;
    size_t bytes;
    CHECK_OK(rows_write("x.csv", m, 2), e);
    CHECK_OK(durable_read("x.csv", 4096, &csv, &bytes, &e), e);
    csv[strlen(begin)] = 0;
    CHECK_STR(csv, begin);
    free(csv);
}

/* A name that is empty, or that of a column before, is none. */
TEST(targets_name_the_columns_of_values)
{
    struct model m;
    struct h5reader *r;
    char text[64];
    model_of(&m, "linear out=4", "mean_squared_error");
    csv_begins(&m, "row,y_0,y_1,y_2,y_3\n0,-11,");
    known.target_names = "a\nb \"c\", d\nrow\ntime";
    csv_begins(&m, "row,a,\"b \"\"c\"\", d\",y_2,time\n0,-11,");
    CHECK_OK(rows_write("x.h5", &m, 1), e);
    CHECK_OK(h5reader_open(&r, "x.h5", &e), e);
    CHECK_OK(h5reader_text(r, "", "target_names", text, sizeof text, &e), e);
    CHECK_STR(text, known.target_names);
    CHECK(h5reader_text(r, "", "class_names", text, sizeof text, &e) < 0);
    h5reader_close(&r);
    known.target_names = "\nb\nc\nd";
    csv_begins(&m, "row,y_0,b,c,d\n");
    known.target_names = "a\nb\nc"; /* not these targets' */
    csv_begins(&m, "row,y_0,y_1,y_2,y_3\n");
    model_close(&m);
    known.target_names = "a\nb";
    model_of(&m, "linear out=2", "binary_cross_entropy");
    csv_begins(&m, "row,a,b\n0,");
    model_close(&m);
    model_of(&m, "linear out=2", "softmax_cross_entropy");
    csv_begins(&m, "row,class,p_0,p_1\n0,1,");
    model_close(&m);
    known = (struct predictions_known){0};
}

TEST(rows_of_a_moment_say_which)
{
    struct model m;
    struct h5reader *r;
    struct h5array a;
    int64_t times[ROWS];
    model_of(&m, "linear out=2", "mean_squared_error");
    known = (struct predictions_known){.has_times = 1, .target_names = "time\nb"};
    csv_begins(&m, "row,time,y_0,b\n0,2022-08-15 10:06:00,-11,-10.666667\n1,2022-08-15 10:07:30,");
    CHECK_OK(rows_write("x.h5", &m, ROWS), e);
    CHECK_OK(h5reader_open(&r, "x.h5", &e), e);
    CHECK_OK(h5reader_array(r, "times", &a, &e), e);
    CHECK(a.type == H5TYPE_I64 && a.rank == 1 && a.dims[0] == ROWS);
    CHECK_OK(h5reader_read(r, &a, times, &e), e);
    for (uint64_t row = 0; row < ROWS; row++)
        CHECK(times[row] == time_at(row));
    h5reader_close(&r);
    known = (struct predictions_known){0};
    model_close(&m);
}

TEST(a_failing_disk_leaves_the_old_predictions)
{
    const char *const faults[] = {"write:1:ENOSPC", "write:2:EIO", "fsync:1:EIO", "rename:1:EIO"};
    const char *const paths[] = {"x.csv", "x.h5"};
    struct model m;
    char *before, *after;
    size_t bytes_before, bytes_after;
    model_of(&m, "linear out=3000", "mean_squared_error");
    for (int k = 0; k < 2; k++) {
        CHECK_OK(rows_write(paths[k], &m, 3), e);
        CHECK_OK(durable_read(paths[k], 1 << 24, &before, &bytes_before, &e), e);
        for (int i = 0; i < 4; i++) {
            CHECK_OK(durable_fail_after(faults[i], &e), e);
            CHECK_EQ(rows_write(paths[k], &m, ROWS), -1);
            CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
            durable_fail_after("", &e);
            CHECK_OK(durable_read(paths[k], 1 << 24, &after, &bytes_after, &e), e);
            CHECK(bytes_after == bytes_before && memcmp(before, after, bytes_after) == 0);
            free(after);
        }
        free(before);
    }
    CHECK(system("test $(ls | wc -l) = 2") == 0);
    CHECK_EQ(predictions_name_check("csv", &e), -1);
    CHECK_EQ(predictions_name_check(".csv", &e), -1);
    model_close(&m);
}

static double score_named(const struct scores *s, const char *name)
{
    struct score list[SCORES_MAX];
    uint32_t count = scores_read(s, list);
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(list[i].name, name) == 0)
            return list[i].value;
    return NAN;
}

/* The fixture's classes are 0 to 4. Predicted is class 0 of every row but the first, which says 5
 * of 6: classes 0 to 5 count, and only class 0 has any right. */
TEST(f1_is_the_mean_over_classes_that_occur)
{
    static struct fixture f;
    const char *const layers[] = {"linear out=7"};
    struct fixture_config c = {.layers = layers, .count = 1, .evaluate_only = 1};
    static float outputs[FIXTURE_ROWS * 7];
    struct scores *s;
    double right = 0, actual = 0;
    fixture_open(&f, &c);
    for (int r = 0; r < FIXTURE_ROWS; r++) {
        outputs[r * 7 + (r ? 0 : 5)] = 3;
        right += r && f.classes[r][0] == 0;
        actual += f.classes[r][0] == 0;
    }
    CHECK_OK(scores_open(&s, &f.m, FIXTURE_ROWS, &e), e);
    scores_add(s, f.s, outputs, FIXTURE_ROWS);
    CHECK(fabs(score_named(s, "f1_macro") - 2 * right / (FIXTURE_ROWS - 1 + actual) / 6) < 1e-12);
    CHECK(score_named(s, "accuracy") == right / FIXTURE_ROWS);
    scores_close(&s);
    scores_close(&s);
    fixture_close(&f);
}

/* As a metric of evaluations, over batches: what the scores say of the same rows. */
TEST(f1_is_a_metric_too)
{
    static struct fixture f;
    const char *const layers[] = {"linear out=6"};
    struct fixture_config c = {
        .layers = layers, .count = 1, .evaluate_only = 1, .metric = "f1_macro"};
    static float outputs[FIXTURE_ROWS * 6];
    struct scores *s;
    fixture_open(&f, &c);
    CHECK_OK(scores_open(&s, &f.m, FIXTURE_ROWS, &e), e);
    for (int pass = 0; pass < 2; pass++) { /* a second one begins anew */
        stepper_evaluate_begin(f.s);
        for (uint64_t rows = 20; rows <= FIXTURE_ROWS; rows += 15) {
            CHECK_OK(stepper_predict(f.s, rows, outputs, &e), e);
            if (pass)
                scores_add(s, f.s, outputs, rows);
        }
    }
    double f1 = stepper_evaluate_end(f.s).metric;
    CHECK(f1 > 0 && f1 < 1);
    CHECK(f1 == score_named(s, "f1_macro"));
    scores_close(&s);
    fixture_close(&f);
}

/* The same rows in several pieces and at once, and what the stepper's own evaluation says. */
TEST(scores_agree_with_the_evaluation)
{
    static struct fixture f;
    const char *const layers[] = {"linear out=6"};
    const char *const losses[] = {"mean_squared_error",   "l1",
                                  "huber delta=0.3",      "cosine",
                                  "binary_cross_entropy", "softmax_cross_entropy"};
    static float outputs[FIXTURE_ROWS * 6];
    for (int i = 0; i < 6; i++) {
        struct fixture_config c = {
            .layers = layers, .count = 1, .loss = losses[i], .evaluate_only = 1};
        struct scores *s;
        struct score list[SCORES_MAX];
        fixture_open(&f, &c);
        CHECK_OK(scores_open(&s, &f.m, FIXTURE_ROWS, &e), e);
        stepper_evaluate_begin(f.s);
        CHECK_OK(stepper_predict(f.s, FIXTURE_ROWS, outputs, &e), e);
        scores_add(s, f.s, outputs, FIXTURE_ROWS);
        struct evaluation_result r = stepper_evaluate_end(f.s);
        CHECK(scores_read(s, list) >= 2);
        CHECK_STR(list[0].name, "loss");
        CHECK(list[0].value == r.loss);
        CHECK(list[1].value == r.metric); /* the loss's usual one comes first */
        scores_close(&s);
        fixture_close(&f);
    }
}
