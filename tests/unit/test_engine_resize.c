/* test_engine_resize.c - micro-batches of another size while a run goes on: the same bits, exact
 * memory, and what happens when there is no room. */
#include "engine/memory.h"
#include "engine/plan.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

enum { STEPS = 6 };

static const char *const layers[] = {"linear out=40", "relu", "dropout p=0.2", "linear out=5"};

static void rows_gather(struct fixture *f, uint64_t first, uint64_t count)
{
    uint64_t bad;
    struct err e;
    CHECK_OK(stepper_gather(f->s, &f->gather, 0, count, f->feature_rows + first,
                            f->target_rows + first, &bad, &e),
             e);
}

/* A step over all rows in micro-batches of sizes[0], sizes[1] .. (0 ends), resized before each. */
static void step_make(struct fixture *f, uint64_t step, const uint64_t *sizes)
{
    struct step_result r;
    struct err e;
    uint64_t done = 0;
    for (int i = 0; sizes[i]; i++) {
        CHECK_OK(stepper_resize(f->s, sizes[i], 16, 1, &e), e);
        rows_gather(f, done, sizes[i]);
        if (!done)
            stepper_batch(f->s, FIXTURE_ROWS, step, NULL, 0);
        stepper_accumulate(f->s, sizes[i]);
        done += sizes[i];
    }
    CHECK_EQ(done, FIXTURE_ROWS);
    CHECK_OK(stepper_update(f->s, step + 1, &fixture_adamw, &r, &e), e);
}

TEST(resized_micro_batches_give_the_same_bits)
{
    static const uint64_t sizes[STEPS][6] = {{48, 2},        {16, 32, 2}, {16, 16, 16, 2},
                                             {FIXTURE_ROWS}, {32, 16, 2}, {48, 2}};
    for (int threads = 1; threads <= 3; threads++) {
        struct fixture a, b;
        struct fixture_config c = {
            .layers = layers, .count = 4, .threads = threads, .accumulates = 1};
        fixture_open(&a, &c);
        fixture_open(&b, &c);
        for (uint64_t step = 0; step < STEPS; step++) {
            fixture_train(&a, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0);
            step_make(&b, step, sizes[step]);
        }
        CHECK(memcmp(stepper_parameters(a.s), stepper_parameters(b.s),
                     a.m.parameter_count * sizeof(float)) == 0);
        CHECK(memcmp(stepper_moment_v(a.s), stepper_moment_v(b.s),
                     a.m.parameter_count * sizeof(float)) == 0);
        fixture_close(&a);
        fixture_close(&b);
    }
}

TEST(a_resized_stepper_takes_what_its_plan_says)
{
    static const char *const list[] = {"linear out=40", "batchnorm", "relu", "linear out=5"};
    struct fixture f;
    struct err e;
    fixture_open(&f, &(struct fixture_config){.layers = list, .count = 4, .accumulates = 1});
    for (uint64_t rows = 8; rows <= 512; rows *= 4) {
        struct plan p = {.count = 0};
        struct step_config c = {.batch_rows_max = rows,
                                .slice_rows = rows < 16 ? rows : 16,
                                .threads = 2,
                                .with_optimizer = 1,
                                .accumulates = 1};
        CHECK_OK(stepper_resize(f.s, rows, c.slice_rows, 1, &e), e);
        stepper_plan(&f.m, &c, "trainerd", &p);
        CHECK_EQ(memory_used(), plan_total(&p, NULL));
    }
    rows_gather(&f, 0, FIXTURE_ROWS);
    fixture_train(&f, FIXTURE_ROWS, 0, 1, &fixture_adamw, NULL, 0);
    fixture_close(&f);
    CHECK_EQ(memory_used(), 0);
}

TEST(the_limit_refuses_and_leaves_all_as_it_was)
{
    struct fixture f;
    struct err e;
    fixture_open(&f, &(struct fixture_config){.layers = layers, .count = 4, .accumulates = 1});
    uint64_t before = memory_used();
    memory_limit_set(before + 4096);
    CHECK_EQ(stepper_resize(f.s, 4096, 16, 1, &e), -1);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    CHECK_HAS(e.text, "that the limit leaves for it");
    CHECK_EQ(memory_used(), before);
    memory_limit_set(UINT64_MAX);
    rows_gather(&f, 0, FIXTURE_ROWS);
    fixture_train(&f, FIXTURE_ROWS, 0, 1, &fixture_adamw, NULL, 0);
    fixture_close(&f);
}

/* Every region in turn has no room, once, and for good. */
TEST(a_region_without_room_is_survived)
{
    struct fixture whole;
    int refused = 0;
    fixture_open(&whole, &(struct fixture_config){.layers = layers, .count = 4, .accumulates = 1});
    fixture_train(&whole, FIXTURE_ROWS, 0, 1, &fixture_adamw, NULL, 0);
    for (uint64_t n = 1; n <= 4; n++) {
        struct fixture f;
        struct err e;
        fixture_open(&f, &(struct fixture_config){.layers = layers, .count = 4, .accumulates = 1});
        memory_fail(n, 1);
        int result = stepper_resize(f.s, 16, 16, 1, &e);
        memory_fail(0, 0);
        CHECK(result == 0 || result == -1);
        refused += result == -1;
        CHECK(result == 0 || (e.code == EXIT_CODE_TEMPORARY && strstr(e.text, "cannot reserve")));
        CHECK_OK(stepper_resize(f.s, FIXTURE_ROWS, 16, 1, &e), e);
        rows_gather(&f, 0, FIXTURE_ROWS);
        fixture_train(&f, FIXTURE_ROWS, 0, 1, &fixture_adamw, NULL, 0);
        CHECK(memcmp(stepper_parameters(f.s), stepper_parameters(whole.s),
                     f.m.parameter_count * sizeof(float)) == 0);
        memory_fail(1, 100);
        CHECK_EQ(stepper_resize(f.s, 16, 16, 1, &e), -2);
        memory_fail(0, 0);
        fixture_close(&f);
    }
    CHECK_EQ(refused, 3); /* gradients of slices, activations, batch */
    fixture_close(&whole);
}
