/* test_engine_optimizer.c - what comes after the gradient of a micro-batch: accumulation,
 * parameters that are frozen, what an optimizer keeps. Steps against PyTorch are in
 * tests/reference. */
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
    struct optimizer_config a = fixture_adamw;
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
        stepper_moments_clear(f.s);
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

/* Everything that a frozen layer may be: in place, keeping something for its backward, a residual
 * pair, no parameters. */
static const char *const deep[] = {"linear out=24",
                                   "relu",
                                   "layernorm",
                                   "linear out=24",
                                   "gelu",
                                   "residual_begin",
                                   "linear out=24",
                                   "tanh",
                                   "residual_end",
                                   "dropout p=0.2",
                                   "sequence steps=4",
                                   "lstm out=7",
                                   "sequence steps=1",
                                   "linear out=11",
                                   "relu",
                                   "linear out=5"};
enum { DEEP = sizeof deep / sizeof deep[0] };

static struct plan plan_of(const struct model *m, const struct step_config *c)
{
    struct plan p = {.count = 0};
    stepper_plan(m, c, "trainerd", &p);
    return p;
}

/* One step in which nothing moves: the gradient of what is trained is the same, wherever the model
 * is cut; memory becomes less. */
TEST(a_frozen_backbone_leaves_the_gradient_of_the_rest)
{
    struct fixture whole;
    struct fixture_config c = {.layers = deep, .count = DEEP, .slice = 8};
    uint64_t before = UINT64_MAX;
    fixture_open(&whole, &c);
    fixture_train(&whole, ROWS, 3, 1, &fixture_still, NULL, 0);
    for (c.frozen_layers = 1; c.frozen_layers < DEEP; c.frozen_layers++) {
        struct fixture f;
        struct step_config s = {.batch_rows_max = ROWS,
                                .slice_rows = 8,
                                .threads = 2,
                                .with_optimizer = 1,
                                .backbone_layers = c.frozen_layers,
                                .freeze_backbone = 1};
        fixture_open(&f, &c);
        uint64_t frozen = step_frozen(&f.m, &s);
        CHECK(frozen > 0);
        fixture_train(&f, ROWS, 3, 1, &fixture_still, NULL, 0);
        CHECK(memcmp(stepper_gradient(whole.s) + frozen, stepper_gradient(f.s),
                     (f.m.parameter_count - frozen) * sizeof(float)) == 0);
        struct plan p = plan_of(&f.m, &s);
        CHECK(plan_total(&p, NULL) <= before);
        before = plan_total(&p, NULL);
        fixture_close(&f);
    }
    fixture_close(&whole);
}

TEST(frozen_weights_stay_and_the_others_move)
{
    struct fixture f;
    fixture_open(&f, &(struct fixture_config){.layers = deep, .count = DEEP, .frozen_layers = 5});
    float *p = stepper_parameters(f.s), *kept = malloc(f.m.parameter_count * sizeof *kept);
    uint64_t frozen = 13 * 24 + 24 + 2 * 24 + 24 * 24 + 24, same = 0;
    memcpy(kept, p, f.m.parameter_count * sizeof *kept);
    for (uint64_t step = 0; step < 3; step++)
        fixture_train(&f, ROWS, step, step + 1, &fixture_adamw, NULL, 0);
    CHECK(memcmp(kept, p, frozen * sizeof *kept) == 0);
    for (uint64_t i = frozen; i < f.m.parameter_count; i++)
        same += memcmp(&kept[i], &p[i], sizeof *p) == 0;
    CHECK(same * 50 < f.m.parameter_count - frozen);
    free(kept);
    fixture_close(&f);
}

/* What is frozen neither pulls nor counts. */
TEST(the_penalty_is_that_of_what_is_trained)
{
    static float star[10000], fisher[10000];
    struct fixture f;
    struct ewc_term term = {fisher, star, 1};
    fixture_open(&f, &(struct fixture_config){.layers = deep, .count = DEEP, .frozen_layers = 1});
    CHECK(f.m.parameter_count <= 10000);
    memcpy(star, stepper_parameters(f.s), f.m.parameter_count * sizeof *star);
    fisher[3] = fisher[13 * 24 + 24] = 2; /* a frozen weight, and the first that is trained */
    star[3] += 1;
    CHECK(fixture_train(&f, ROWS, 0, 1, &fixture_still, &term, 1).penalty == 0);
    star[13 * 24 + 24] += 1;
    CHECK(fixture_train(&f, ROWS, 0, 1, &fixture_still, &term, 1).penalty == 1);
    fixture_close(&f);
}

TEST(an_optimizer_keeps_only_its_moments)
{
    static const char *const list[] = {"linear out=900", "relu", "linear out=5"};
    struct model m;
    struct err e;
    CHECK_OK(model_open(&m, list, 3, 784, "softmax_cross_entropy", &e), e);
    uint64_t vector = m.parameter_count * sizeof(float), total[3];
    for (int kind = 0; kind < 3; kind++) {
        struct step_config c = {.batch_rows_max = 64,
                                .slice_rows = 64,
                                .threads = 1,
                                .with_optimizer = 1,
                                .optimizer = kind};
        struct plan p = plan_of(&m, &c);
        struct stepper *s;
        total[kind] = plan_total(&p, NULL);
        CHECK_OK(stepper_open(&s, &m, &c, &e), e);
        CHECK((stepper_moment_m(s) != NULL) == (kind != OPTIMIZER_SGD));
        CHECK((stepper_moment_v(s) != NULL) == (kind == OPTIMIZER_ADAMW));
        stepper_moments_clear(s);
        stepper_close(&s);
    }
    CHECK(total[0] - total[1] > vector - 8192 && total[0] - total[1] < vector + 8192);
    CHECK(total[1] - total[2] > vector - 8192 && total[1] - total[2] < vector + 8192);
    model_close(&m);
}

static void fault_provoke(struct fixture *f, uint64_t micro)
{
    struct err e;
    struct step_result r;
    uint64_t bad;
    stepper_batch(f->s, ROWS, 0, NULL, 0);
    for (uint64_t at = 0; at < ROWS; at += micro) {
        uint64_t count = ROWS - at < micro ? ROWS - at : micro;
        CHECK_OK(stepper_gather(f->s, &f->gather, 0, count, f->feature_rows + at,
                                f->target_rows + at, &bad, &e),
                 e);
        stepper_accumulate(f->s, count);
    }
    CHECK(stepper_update(f->s, 1, &fixture_still, &r, &e) < 0);
}

/* A row whose features overflow in the first layer, found whichever way the batch is taken. */
TEST(a_bad_loss_is_traced_to_layer_and_row)
{
    for (uint64_t micro = 8; micro <= 64; micro += 8) {
        struct fixture f;
        fixture_open(&f, &(struct fixture_config){
                             .layers = layers, .count = 6, .slice = 8, .accumulates = 1});
        for (int j = 0; j < FIXTURE_INPUTS; j++)
            f.features[29][j] = f.features[41][j] = 3e38f;
        fault_provoke(&f, micro < ROWS ? micro : ROWS);
        const struct step_fault *fault = stepper_fault(f.s);
        CHECK_EQ(fault->layer, 0);
        CHECK(!fault->backward);
        CHECK_EQ(fault->row, 29);
        CHECK_EQ(fault->rows, 1);
        fixture_close(&f);
    }
}

/* Weights of 0 make the outputs small, features of 3e38 the weights' gradient infinite. */
TEST(a_bad_gradient_is_traced_to_layer_and_slice)
{
    static const char *const list[] = {"linear out=5"};
    for (uint64_t micro = 25; micro <= ROWS; micro += 25) {
        struct fixture f;
        fixture_open(&f, &(struct fixture_config){.layers = list,
                                                  .count = 1,
                                                  .loss = "mean_squared_error",
                                                  .slice = 8,
                                                  .accumulates = 1});
        float *p = stepper_parameters(f.s);
        memset(p, 0, f.m.parameter_count * sizeof *p);
        for (int k = 0; k < 5; k++)
            p[5 * FIXTURE_INPUTS + k] = 90; /* the biases */
        for (int r = 16; r < 24; r++)
            for (int j = 0; j < FIXTURE_INPUTS; j++)
                f.features[r][j] = 3e38f;
        fault_provoke(&f, micro);
        const struct step_fault *fault = stepper_fault(f.s);
        CHECK_EQ(fault->layer, 0);
        CHECK(fault->backward);
        CHECK_EQ(fault->row, micro == ROWS ? 16 : 0);
        CHECK_EQ(fault->rows, micro == ROWS ? 8 : ROWS);
        fixture_close(&f);
    }
}
