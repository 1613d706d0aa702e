/* test_engine_carried.c - states that layers carry from batch to batch: the same bits whatever cuts
 * a batch, a pass's own state, what an update that is refused leaves. PyTorch's numbers are in
 * tests/reference. */
#include "engine/layer.h"
#include "engine/memory.h"
#include "engine/plan.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

enum { STEPS = 4 };

static const char *const layers[] = {"sequence steps=6", "lstm out=7 layers=2 dropout=0.3",
                                     "lstm out=5", "pool kind=last", "linear out=3"};
static const struct fixture_config usual = {
    .layers = layers, .count = 5, .inputs = 24, .loss = "mean_squared_error", .carries = 1};

static uint64_t carried_bytes_of(const struct fixture *f)
{
    return FIXTURE_ROWS * f->m.carried_values * sizeof(float);
}

/* A step over all rows in micro-batches of so many. */
static void step_make(struct fixture *f, uint64_t step, uint64_t micro)
{
    struct step_result r;
    struct err e;
    stepper_batch(f->s, FIXTURE_ROWS, step, NULL, 0);
    for (uint64_t done = 0; done < FIXTURE_ROWS; done += micro) {
        uint64_t rows = FIXTURE_ROWS - done < micro ? FIXTURE_ROWS - done : micro;
        if (step != 2) /* there is a file that does not say it */
            fixture_begins(f, step, done);
        else
            f->gather.begin_rows = NULL;
        fixture_gather_rows(f, done, rows);
        stepper_accumulate(f->s, rows);
    }
    CHECK_OK(stepper_update(f->s, step + 1, &fixture_adamw, &r, &e), e);
}

/* Parameters and states after some steps: those of `kept`, or what that becomes. */
static void steps_compare(struct fixture_config c, uint64_t micro, float **kept)
{
    struct fixture f;
    c.accumulates = 1;
    fixture_open(&f, &c);
    uint64_t parameters = f.m.parameter_count * sizeof(float),
             bytes = parameters + carried_bytes_of(&f);
    for (uint64_t step = 0; step < STEPS; step++)
        step_make(&f, step, micro);
    char *now = malloc(bytes);
    memcpy(now, stepper_parameters(f.s), parameters);
    memcpy(now + parameters, stepper_carried(f.s), bytes - parameters);
    if (*kept && memcmp(*kept, now, bytes) != 0)
        test_fail(__FILE__, __LINE__, "half %d, %d threads, micro-batches of %d, checkpointing %d",
                  (int)c.half, c.threads, (int)micro, c.checkpointing);
    if (*kept)
        free(now);
    else
        *kept = (float *)now;
    fixture_close(&f);
}

TEST(threads_micro_batches_and_segments_change_no_bit_of_a_carried_state)
{
    for (int half = HALF_NONE; half < HALF_COUNT; half++) {
        struct fixture_config c = usual;
        float *kept = NULL;
        c.half = (enum half)half;
        for (c.checkpointing = 0; c.checkpointing < 2; c.checkpointing++)
            for (c.threads = 1; c.threads <= 3; c.threads += 2)
                for (uint64_t micro = 16; micro <= 64;
                     micro += 24) /* 16, 40 is no whole slices, 64 */
                    steps_compare(c,
                                  micro == 40            ? 32
                                  : micro > FIXTURE_ROWS ? FIXTURE_ROWS
                                                         : micro,
                                  &kept);
        free(kept);
    }
}

/* As if their states had been set to 0 before the step; the others go on. */
TEST(rows_that_begin_begin_at_0)
{
    struct fixture a, b;
    fixture_open(&a, &usual);
    fixture_open(&b, &usual);
    for (uint64_t step = 0; step < 3; step++) {
        fixture_begins(&a, step, 0);
        fixture_gather(&a, FIXTURE_ROWS);
        for (uint32_t k = 0; k < b.m.carried_count; k++) {
            const struct tensor_info *t = &b.m.carried[k];
            float *at = stepper_carried(b.s) + t->first * FIXTURE_ROWS;
            for (uint64_t r = 0; r < FIXTURE_ROWS; r++)
                if (a.begins[r])
                    memset(at + r * t->dims[0], 0, t->dims[0] * sizeof *at);
        }
        double loss = fixture_train(&a, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0).loss;
        CHECK(loss ==
              fixture_train(&b, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0).loss);
        CHECK(memcmp(stepper_carried(a.s), stepper_carried(b.s), carried_bytes_of(&a)) == 0);
    }
    CHECK(memcmp(stepper_parameters(a.s), stepper_parameters(b.s),
                 a.m.parameter_count * sizeof(float)) == 0);
    fixture_close(&a);
    fixture_close(&b);
}

/* A model that reads a row of 12 steps says at its end what one says that reads them in two
 * batches. */
TEST(two_rows_that_follow_one_another_are_one_long_row)
{
    static const char *const longer[] = {"sequence steps=12", "lstm out=9 layers=2",
                                         "pool kind=last", "linear out=3"};
    static const char *const shorter[] = {"sequence steps=6", "lstm out=9 layers=2",
                                          "pool kind=last", "linear out=3"};
    static float whole[FIXTURE_ROWS][3], part[FIXTURE_ROWS][3];
    struct fixture a, b;
    struct err e;
    uint64_t bad;
    fixture_open(&a,
                 &(struct fixture_config){
                     .layers = longer, .count = 4, .inputs = 48, .loss = "l1", .evaluate_only = 1});
    fixture_open(&b, &(struct fixture_config){.layers = shorter,
                                              .count = 4,
                                              .inputs = 24,
                                              .loss = "l1",
                                              .evaluate_only = 1,
                                              .carries = 1});
    stepper_evaluate_begin(a.s);
    CHECK_OK(stepper_predict(a.s, FIXTURE_ROWS, whole[0], &e), e);
    const void *rows[FIXTURE_ROWS];
    for (int pass = 0; pass < 2; pass++) { /* the second begins at 0 like the first */
        stepper_evaluate_begin(b.s);
        stepper_pass_streams(b.s, 32); /* the last rows are left out */
        for (int half = 0; half < 2; half++)
            for (uint64_t first = 0; first < 32; first += 16) {
                for (uint64_t r = 0; r < 16; r++)
                    rows[r] = a.features[first + r] + 24 * half;
                CHECK_OK(stepper_gather(b.s, &b.gather, 0, 16, rows, b.target_rows, &bad, &e), e);
                CHECK_OK(stepper_predict(b.s, 16, part[first], &e), e);
            }
        for (int r = 0; r < 32; r++)
            for (int k = 0; k < 3; k++)
                CHECK(fabs((double)(whole[r][k] - part[r][k])) < 1e-6);
    }
    fixture_close(&a);
    fixture_close(&b);
}

/* Evaluations in between leave training as it was, and a step that is refused leaves the states. */
TEST(passes_and_refused_steps_leave_the_state_of_training)
{
    struct fixture a, b;
    struct optimizer_config refuses = fixture_adamw;
    struct step_result r;
    struct err e;
    refuses.loss_max = 1e-9;
    fixture_open(&a, &usual);
    fixture_open(&b, &usual);
    for (uint64_t step = 0; step < 3; step++) {
        struct step_result one =
            fixture_train(&a, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0);
        double first = fixture_evaluate(&b, FIXTURE_ROWS).loss;
        CHECK_EQ(stepper_train(b.s, FIXTURE_ROWS, step, step + 1, &refuses, NULL, 0, &r, &e), -1);
        CHECK(first == fixture_evaluate(&b, FIXTURE_ROWS).loss);
        CHECK(one.loss ==
              fixture_train(&b, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0).loss);
        CHECK(memcmp(stepper_carried(a.s), stepper_carried(b.s), carried_bytes_of(&a)) == 0);
    }
    double going_on = fixture_train(&a, FIXTURE_ROWS, 3, 4, &fixture_still, NULL, 0).loss;
    stepper_carried_clear(b.s);
    CHECK(going_on != fixture_train(&b, FIXTURE_ROWS, 3, 4, &fixture_still, NULL, 0).loss);
    fixture_close(&a);
    fixture_close(&b);
}

/* In 8 bits and in float32 in turn, each has its own. */
TEST(a_pass_in_8_bits_carries_its_own_state)
{
    static float alone[2][FIXTURE_ROWS * 3], both[FIXTURE_ROWS * 3];
    struct fixture_config c = usual;
    struct fixture f;
    struct int8_size size;
    struct err e;
    c.evaluate_only = 1;
    fixture_open(&f, &c);
    CHECK_OK(stepper_quantise(f.s, &size, &e), e);
    for (int int8 = 0; int8 < 2; int8++) {
        stepper_int8(f.s, int8);
        stepper_evaluate_begin(f.s);
        for (int batch = 0; batch < 3; batch++)
            CHECK_OK(stepper_predict(f.s, FIXTURE_ROWS, alone[int8], &e), e);
    }
    stepper_evaluate_begin(f.s);
    for (int batch = 0; batch < 6; batch++) {
        stepper_int8(f.s, batch % 2);
        CHECK_OK(stepper_predict(f.s, FIXTURE_ROWS, both, &e), e);
        CHECK(batch < 4 || memcmp(both, alone[batch % 2], sizeof both) == 0);
    }
    CHECK(memcmp(alone[0], alone[1], sizeof both) != 0);
    fixture_close(&f);
}

TEST(the_squares_of_samples_begin_every_row_at_0)
{
    struct fixture_config c = usual;
    static const char *const list[] = {"sequence steps=6", "lstm out=4", "pool kind=last",
                                       "linear out=3"};
    c.layers = list;
    c.count = 4;
    struct fixture a, b;
    struct err e;
    static float with[2000], without[2000];
    c.evaluate_only = 1;
    fixture_open(&a, &c);
    c.carries = 0;
    fixture_open(&b, &c);
    fixture_evaluate(&a, FIXTURE_ROWS);
    uint64_t count = a.m.parameter_count;
    CHECK(count <= 2000);
    for (int i = 0; i < 2; i++)
        CHECK_OK(stepper_fisher(i ? b.s : a.s, FIXTURE_ROWS,
                                &(struct fisher_sums){.count = count, .at = i ? without : with},
                                &e),
                 e);
    for (uint64_t i = 0; i < count; i++)
        CHECK(fabs((double)(with[i] - without[i])) <= 1e-5 * (double)without[i]);
    fixture_close(&a);
    fixture_close(&b);
}

TEST(carried_states_are_planned_and_two_directions_refused)
{
    static const char *const both[] = {"sequence steps=6", "lstm out=4 bidirectional=true",
                                       "linear out=3"};
    struct step_config c = {.batch_rows_max = 16,
                            .slice_rows = 16,
                            .threads = 1,
                            .with_optimizer = 1,
                            .carried_rows = 64};
    struct plan p = {.count = 0};
    struct model m;
    struct stepper *s;
    struct err e;
    CHECK_OK(model_open(&m, layers, 5, 24, "mean_squared_error", &e), e);
    CHECK_OK(model_carry(&m, &e), e);
    CHECK_EQ(m.carried_count, 6);
    CHECK_STR(m.carried[3].name, "1.c_l1");
    CHECK_EQ(m.carried_values, 2 * (7 + 7 + 5));
    CHECK_OK(stepper_open(&s, &m, &c, &e), e);
    stepper_plan(&m, &c, "trainerd", &p);
    CHECK_EQ(memory_used(), plan_total(&p, NULL));
    int found = 0;
    for (int i = 0; i < p.count; i++)
        if (strcmp(p.rows[i].what, "states carried from batch to batch") == 0)
            found = p.rows[i].bytes == region_bytes(3 * 64 * m.carried_values * sizeof(float));
    CHECK(found);
    stepper_close(&s);
    model_close(&m);
    CHECK_OK(model_open(&m, both, 3, 24, "mean_squared_error", &e), e);
    CHECK_EQ(model_carry(&m, &e), -1);
    CHECK_HAS(e.text, "layer 1 (lstm) has bidirectional=true and cannot carry its state");
    model_close(&m);
}
