/* test_engine_optimizer.c - what comes after the gradient of a micro-batch: accumulation. Steps
 * against PyTorch are in tests/reference. */
#include <math.h>

#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

enum { ROWS = FIXTURE_ROWS, PARAMETERS_MAX = 1000 };

static const char *const layers[] = {"linear out=17", "relu", "dropout p=0.3",
                                     "linear out=9",  "relu", "linear out=5"};

/* One step over `rows` rows, `micro` of them at a time, all of which are gathered anew. */
static struct step_result step_in_parts(struct fixture *f, uint64_t rows, uint64_t micro,
                                        uint64_t step, const struct ewc_term *term)
{
    struct adamw_config a = fixture_adamw;
    struct step_result r;
    struct err e;
    uint64_t bad;
    a.max_grad_norm = 0.5;
    stepper_batch(f->s, rows, step, term, 1);
    for (uint64_t at = 0; at < rows; at += micro) {
        uint64_t count = rows - at < micro ? rows - at : micro;
        CHECK_OK(stepper_gather(f->s, &f->gather, 0, count, f->feature_rows + at,
                                f->target_rows + at, &bad, &e),
                 e);
        stepper_accumulate(f->s, count);
    }
    CHECK_OK(stepper_update(f->s, step + 1, &a, &r, &e), e);
    return r;
}

/* Batches of all rows, and of 19: the last micro-batch is a short one. */
TEST(micro_batches_of_whole_slices_give_the_bits_of_the_whole_batch)
{
    static const uint64_t micro[] = {ROWS, 8, 16, 24, 48};
    static float first[PARAMETERS_MAX], star[PARAMETERS_MAX], fisher[PARAMETERS_MAX];
    struct step_result first_r, r;
    struct ewc_term term = {fisher, star, 20};
    for (int i = 0; i < PARAMETERS_MAX; i++)
        fisher[i] = (float)(i % 5) * 0.01f;
    for (size_t k = 0; k < sizeof micro / sizeof micro[0]; k++)
        for (int threads = 1; threads <= 3; threads++) {
            struct fixture f;
            fixture_open(&f, &(struct fixture_config){.layers = layers,
                                                      .count = 6,
                                                      .threads = threads,
                                                      .slice = 8,
                                                      .accumulates = 1});
            uint64_t bytes = f.m.parameter_count * sizeof *first;
            CHECK(bytes <= sizeof first);
            for (uint64_t step = 0; step < 10; step++)
                r = step_in_parts(&f, step % 3 ? ROWS : 19, micro[k], step, &term);
            if (k == 0 && threads == 1) {
                memcpy(first, stepper_parameters(f.s), bytes);
                first_r = r;
            }
            CHECK(memcmp(first, stepper_parameters(f.s), bytes) == 0);
            CHECK(memcmp(&first_r, &r, sizeof r) == 0);
            fixture_close(&f);
        }
}

TEST(a_batch_begun_anew_forgets_what_was_accumulated)
{
    struct fixture f;
    struct ewc_term none = {0};
    struct step_result r[2];
    fixture_open(
        &f, &(struct fixture_config){.layers = layers, .count = 6, .slice = 8, .accumulates = 1});
    for (int i = 0; i < 2; i++) {
        model_initialise(&f.m, 12, stepper_parameters(f.s));
        memset(stepper_moment_m(f.s), 0, f.m.parameter_count * sizeof(float));
        memset(stepper_moment_v(f.s), 0, f.m.parameter_count * sizeof(float));
        if (i) {
            stepper_batch(f.s, ROWS, 9, &none, 0);
            stepper_accumulate(f.s, 16);
        }
        static float star[PARAMETERS_MAX], fisher[PARAMETERS_MAX];
        struct ewc_term term = {fisher, star, 1};
        r[i] = step_in_parts(&f, ROWS, 16, 0, &term);
    }
    CHECK(memcmp(&r[0], &r[1], sizeof r[0]) == 0);
    fixture_close(&f);
}
