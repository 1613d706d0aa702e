/* test_engine_batchnorm.c - statistics over a whole micro-batch: gradients by finite differences,
 * the same bits for every number of threads, running statistics, and a plan that says what is
 * resident. PyTorch comparisons are in tests/reference. */
#include <math.h>

#include "engine/stepper.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

static const char *const rows_of[] = {"linear out=17", "batchnorm", "tanh",
                                      "batchnorm momentum=0.5", "linear out=5"};
static const char *const steps_of[] = {
    "sequence steps=4", "batchnorm",      "linear out=6",  "gelu",
    "batchnorm",        "residual_begin", "linear out=6",  "tanh",
    "batchnorm",        "residual_end",   "pool kind=mean"};
static const struct fixture_config rows_config = {.layers = rows_of, .count = 5, .slice = 8};
static const struct fixture_config steps_config = {
    .layers = steps_of, .count = 11, .inputs = 12, .slice = 8, .loss = "mean_squared_error"};

TEST_LIMIT(gradients_through_batchnorm_equal_finite_differences, 60)
{
    fixture_check_gradient(&rows_config, NULL, 0, NULL);
    fixture_check_gradient(&steps_config, NULL, 0, NULL);
}

TEST(batchnorm_gives_the_same_bits_for_every_number_of_threads)
{
    struct fixture_config c = steps_config;
    float *kept = NULL, *kept_buffers = NULL;
    for (c.threads = 1; c.threads <= 9; c.threads += 2) {
        struct fixture f;
        fixture_open(&f, &c);
        uint64_t bytes = f.m.parameter_count * sizeof(float);
        uint64_t buffer_bytes = f.m.buffer_values * sizeof(float);
        for (uint64_t step = 0; step < 4; step++)
            fixture_train(&f, step % 2 ? FIXTURE_ROWS : 19, step, step + 1, &fixture_adamw, NULL,
                          0);
        if (!kept) {
            memcpy(kept = malloc(bytes), stepper_parameters(f.s), bytes);
            memcpy(kept_buffers = malloc(buffer_bytes), stepper_module_buffers(f.s), buffer_bytes);
        }
        CHECK(memcmp(kept, stepper_parameters(f.s), bytes) == 0);
        CHECK(memcmp(kept_buffers, stepper_module_buffers(f.s), buffer_bytes) == 0);
        fixture_close(&f);
    }
    free(kept);
    free(kept_buffers);
}

/* The statistics are those of all rows, however they are cut into slices. */
TEST(batchnorm_does_not_depend_on_slices_but_for_rounding)
{
    struct fixture_config c = rows_config;
    struct step_result first = {0};
    for (c.slice = 7; c.slice <= FIXTURE_ROWS; c.slice += 43) {
        struct fixture f;
        fixture_open(&f, &c);
        struct step_result r = fixture_train(&f, FIXTURE_ROWS, 0, 1, &fixture_still, NULL, 0);
        first = c.slice == 7 ? r : first;
        CHECK(fabs(r.loss / first.loss - 1) < 1e-6);
        CHECK(fabs(r.gradient_norm / first.gradient_norm - 1) < 1e-5);
        fixture_close(&f);
    }
}

/* Input columns straight into a batchnorm: the numbers can be computed here. */
TEST(running_statistics_take_in_each_batch)
{
    static const char *const lines[] = {"batchnorm momentum=0.25", "linear out=5"};
    struct fixture f;
    double mean = 0, squares = 0;
    fixture_open(&f, &(struct fixture_config){.layers = lines, .count = 2, .slice = 8});
    CHECK_EQ(f.m.buffer_count, 2);
    CHECK_STR(f.m.buffers[0].name, "0.running_mean");
    CHECK_STR(f.m.buffers[1].name, "0.running_var");
    const float *running = stepper_module_buffers(f.s);
    CHECK(running[3] == 0 && running[FIXTURE_INPUTS + 3] == 1);
    for (int r = 0; r < FIXTURE_ROWS; r++)
        mean += (double)f.features[r][3] / FIXTURE_ROWS;
    for (int r = 0; r < FIXTURE_ROWS; r++)
        squares += ((double)f.features[r][3] - mean) * ((double)f.features[r][3] - mean);
    double variance = squares / (FIXTURE_ROWS - 1),
           before = fixture_evaluate(&f, FIXTURE_ROWS).loss;
    fixture_train(&f, FIXTURE_ROWS, 0, 1, &fixture_still, NULL, 0);
    CHECK(fabs((double)running[3] - 0.25 * mean) < 1e-7);
    CHECK(fabs((double)running[FIXTURE_INPUTS + 3] - (0.75 + 0.25 * variance)) < 1e-6);
    CHECK(fixture_evaluate(&f, FIXTURE_ROWS).loss != before);
    fixture_train(&f, FIXTURE_ROWS, 0, 1, &fixture_still, NULL, 0);
    CHECK(fabs((double)running[3] - (0.75 * 0.25 + 0.25) * mean) < 1e-7);
    struct err e;
    stepper_renew_begin(f.s);
    CHECK(running[3] == 0);
    for (int i = 0; i < 3; i++)
        CHECK_OK(stepper_renew(f.s, FIXTURE_ROWS, 0, &e), e);
    CHECK(fabs((double)running[3] - mean) < 1e-7);
    CHECK(fabs((double)running[FIXTURE_INPUTS + 3] - variance) < 1e-6);
    fixture_close(&f);
}

TEST(one_row_has_no_variance)
{
    struct fixture f;
    struct step_result r;
    struct err e;
    fixture_open(&f, &rows_config);
    CHECK(stepper_train(f.s, 1, 0, 1, &fixture_adamw, NULL, 0, &r, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "layer 1 (batchnorm) needs more than one row");
    fixture_evaluate(&f, 1); /* with running statistics it is well defined */
    fixture_close(&f);
    fixture_open(&f, &steps_config);
    CHECK(stepper_train(f.s, 1, 0, 1, &fixture_adamw, NULL, 0, &r, &e) == 0); /* 4 steps */
    fixture_close(&f);
}

/* A loss that is not finite changes no running statistic either. */
TEST(a_refused_step_leaves_the_running_statistics)
{
    struct fixture f;
    struct step_result r;
    struct err e;
    fixture_open(&f, &rows_config);
    uint64_t bytes = f.m.buffer_values * sizeof(float);
    float *before = malloc(bytes);
    memcpy(before, stepper_module_buffers(f.s), bytes);
    stepper_parameters(f.s)[f.m.parameter_count - 1] = NAN;
    CHECK(stepper_train(f.s, FIXTURE_ROWS, 0, 1, &fixture_adamw, NULL, 0, &r, &e) < 0);
    CHECK(memcmp(before, stepper_module_buffers(f.s), bytes) == 0);
    free(before);
    fixture_close(&f);
}

/* Micro-batches take part one by one, and a batch that is begun anew forgets them. */
TEST(running_statistics_count_with_the_update)
{
    struct fixture_config c = rows_config;
    struct fixture f;
    struct step_result r;
    struct err e;
    c.accumulates = 1;
    fixture_open(&f, &c);
    uint64_t bytes = f.m.buffer_values * sizeof(float);
    float *fresh = malloc(bytes), *after = malloc(bytes);
    const float *now = stepper_module_buffers(f.s);
    memcpy(fresh, now, bytes);
    for (int again = 0; again < 2; again++) {
        stepper_batch(f.s, 3 * FIXTURE_ROWS, 0, NULL, 0);
        for (int i = 0; i < 3 - !again; i++)
            stepper_accumulate(f.s, FIXTURE_ROWS);
        CHECK(memcmp(now, fresh, bytes) == 0);
    }
    CHECK_OK(stepper_update(f.s, 1, &fixture_still, &r, &e), e);
    memcpy(after, now, bytes);
    CHECK(memcmp(after, fresh, bytes) != 0);
    memcpy(stepper_module_buffers(f.s), fresh, bytes);
    for (int i = 0; i < 3; i++) /* the same rows: as three batches */
        fixture_train(&f, FIXTURE_ROWS, 0, 1, &fixture_still, NULL, 0);
    CHECK(memcmp(after, now, bytes) == 0);
    free(fresh);
    free(after);
    fixture_close(&f);
}

/* All slices of the micro-batch are resident in training, and only there. */
TEST(the_plan_has_a_lane_for_every_slice)
{
    static const char *const without[] = {"linear out=17", "layernorm", "tanh", "layernorm",
                                          "linear out=5"};
    for (int with_optimizer = 0; with_optimizer < 2; with_optimizer++) {
        struct step_config c = {.batch_rows_max = 1024,
                                .slice_rows = 64,
                                .threads = 2,
                                .with_optimizer = with_optimizer};
        uint64_t lanes[2] = {0};
        for (int i = 0; i < 2; i++) {
            struct model m;
            struct stepper *s;
            struct plan p = {.count = 0};
            struct err e;
            uint64_t bytes = 0;
            CHECK_OK(model_open(&m, i ? rows_of : without, 5, 13, "softmax_cross_entropy", &e), e);
            CHECK_OK(stepper_open(&s, &m, &c, &e), e);
            stepper_plan(&m, &c, "trainerd", &p);
            for (int k = 0; k < KIND_COUNT; k++)
                bytes += s->region[k].bytes;
            CHECK_EQ(bytes, plan_total(&p, NULL));
            lanes[i] = s->layout.lanes;
            CHECK_EQ(s->layout.gradient_lanes, 2);
            stepper_close(&s);
            model_close(&m);
        }
        CHECK_EQ(lanes[0], 2);
        CHECK_EQ(lanes[1], with_optimizer ? 16 : 2);
    }
}
