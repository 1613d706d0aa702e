/* test_cuda_step.c - whole models on a device against the CPU: steps, evaluations, Fisher
 * information, protected tasks, faults. Batches of several micro-batches are in
 * test_cuda_micro_batches.c.
 *
 * The device is the emulated one, or what FINETUNED_CUDA_LIBRARY names: `make gpu-check` runs the
 * same cases on a GPU. The CPU takes the batch as one slice, so that both add up the same way.
 */
#include <math.h>

#include "engine/device.h"
#include "engine/importance.h"
#include "engine/stepper.h"
#include "tests/test.h"
#include "tests/unit/cuda_fixture.h"
#include "tests/unit/cuda_models.h"

static struct err error;

static void steps_case(int number, enum half half)
{
    struct fixture on, cpu;
    struct fixture_config c = cuda_models[number];
    c.half = half;
    c.checkpointing &= !half;
    pair_open(&on, &cpu, c);
    double bar = half ? 2e-2 : 2e-5;
    for (uint64_t step = 0; step < CUDA_STEPS; step++) {
        for (int i = 0; c.carries && i < 2; i++) {
            fixture_begins(i ? &cpu : &on, step, 0);
            fixture_gather(i ? &cpu : &on, FIXTURE_ROWS);
        }
        struct step_result a =
            fixture_train(&on, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0);
        struct step_result b =
            fixture_train(&cpu, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0);
        number_near(a.loss, b.loss, half ? 1e-2 : 1e-5, "the loss", number);
        number_near(a.gradient_norm, b.gradient_norm, half ? 3e-2 : 2e-5, "the norm", number);
        CHECK(a.skipped == b.skipped);
        if (!c.frozen_layers)
            gradients_near(&on, &cpu, half ? 1e-1 : 1e-4, number);
    }
    vectors_near(&on, &cpu, bar, number);
    struct evaluation_result a = fixture_evaluate(&on, FIXTURE_ROWS),
                             b = fixture_evaluate(&cpu, FIXTURE_ROWS);
    number_near(a.loss, b.loss, bar, "the evaluation's loss", number);
    number_near(a.metric, b.metric, half ? 5e-2 : 1e-3, "the metric", number);
    fixture_close(&on);
    fixture_close(&cpu);
}

TEST(cuda_steps_equal_those_of_the_cpu)
{
    for (int i = 0; i < CUDA_MODELS; i++)
        steps_case(i, HALF_NONE);
}

TEST_LIMIT(cuda_steps_in_16_bits_are_near_those_of_the_cpu, 60)
{
    static const enum cuda_model numbers[] = {CUDA_MODEL_DENSE,        CUDA_MODEL_DENSE_BINARY,
                                              CUDA_MODEL_RECURRENT,    CUDA_MODEL_CHAINED,
                                              CUDA_MODEL_CHAINED_LONG, CUDA_MODEL_CARRIED,
                                              CUDA_MODEL_NARROW,       CUDA_MODEL_NARROW_BEHIND};
    for (int half = HALF_F16; half <= HALF_BF16; half++)
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
            steps_case((int)numbers[i], (enum half)half);
}

/* The last gradient of some steps; before: the first layer of the second segment, 0: there is one.
 */
static void cut_train(const struct fixture_config *c, uint32_t before, float *to)
{
    struct fixture f;
    fixture_open(&f, c);
    struct region *r = &f.s->region[KIND_ACTIVATIONS];
    if (before) {
        segments_cut(&f.s->layout, &f.m, &f.s->config, before);
        r->bytes = f.s->layout.lane_activations * sizeof(float);
        f.s->device->release(r->at);
        CHECK_OK(f.s->device->allocate(r->bytes, "a test", &r->at, &error), error);
    }
    for (uint64_t step = 0; step < CUDA_STEPS; step++)
        fixture_train(&f, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0);
    memcpy(to, stepper_gradient(f.s), f.m.parameter_count * sizeof *to);
    fixture_close(&f);
}

/* Gradients of weights are made beside the layers before, but not beside what runs again. */
TEST(cuda_chains_may_be_cut_anywhere)
{
    enum { MOST = 1 << 14 };
    static float whole[MOST], cut[MOST];
    struct fixture_config c = cuda_models[CUDA_MODEL_CHAINED_LONG];
    c.device = cuda_fixture_device();
    c.slice = FIXTURE_ROWS;
    c.threads = 1;
    c.half = HALF_BF16;
    cut_train(&c, 0, whole);
    for (uint32_t before = 1; before < c.count; before++) {
        cut_train(&c, before, cut);
        double off = vectors_distance(cut, whole, MOST);
        if (!(off <= 1e-2)) /* before an activation sums are made elsewhere */
            test_fail(__FILE__, __LINE__, "cut before layer %u: the gradient is off by %g", before,
                      off);
    }
}

/* What leaves a gradient at an activation's output that its derivative makes smaller: a layer
 * apart, products of few rows, of few outputs and of many rows, and what graphs have of these. */
static const char *const normed[] = {"linear out=24", "sigmoid", "layernorm", "linear out=5"};
static const char *const joined[] = {"linear out=24", "sigmoid", "linear out=40", "layernorm",
                                     "linear out=5"};
static const char *const joined_few[] = {"linear out=24", "sigmoid", "linear out=12", "layernorm",
                                         "linear out=5"};
static const char *const joined_many[] = {"sequence steps=12", "linear out=24", "sigmoid",
                                          "linear out=40",     "layernorm",     "pool kind=last",
                                          "linear out=5"};
static const char *const graphs_normed[] = {"gcn out=16", "sigmoid", "layernorm", "pool kind=mean",
                                            "linear out=5"};
static const char *const graphs_joined[] = {"gcn out=16", "sigmoid",        "gcn out=24",
                                            "layernorm",  "pool kind=mean", "linear out=5"};
static const struct fixture_config steep[] = {
    {.layers = normed, .count = 4},
    {.layers = joined, .count = 5},
    {.layers = joined_few, .count = 5},
    {.layers = joined_many, .count = 7, .inputs = 24},
    {.layers = graphs_normed, .count = 5, .graphs = 1, .inputs = 16},
    {.layers = graphs_joined, .count = 6, .graphs = 1, .inputs = 16},
};

/* Does a step that changes nothing overflow with that scale? */
static int skips(struct fixture *f, float scale)
{
    static const struct optimizer_config still = {0, 0, 0.9, 0.999, 1e-8, 0};
    stepper_scaler(f->s)->scale = scale;
    return fixture_train(f, FIXTURE_ROWS, 0, 1, &still, NULL, 0).skipped;
}

/* Large, so that gradients grow backwards. */
static void weights_grow(struct fixture *f)
{
    CHECK_OK(stepper_fetch(f->s, &error), error);
    for (uint64_t i = 0; i < f->m.parameter_count; i++)
        stepper_parameters(f->s)[i] *= 8;
    stepper_send(f->s);
}

/* A gradient too large for 16 bits is infinite there, though the next derivative would make it
 * small enough. */
TEST(cuda_skips_the_steps_in_float16_that_the_cpu_skips)
{
    struct fixture on, cpu;
    for (size_t i = 0; i < sizeof steep / sizeof *steep; i++) {
        struct fixture_config c = steep[i];
        int skipped = 0, steps = 0;
        c.half = HALF_F16;
        pair_open(&on, &cpu, c);
        weights_grow(&on);
        weights_grow(&cpu);
        for (float scale = 0x1p12f; scale <= 0x1p22f; scale *= 2, steps++) {
            int wanted = skips(&cpu, scale);
            if (skips(&on, scale) != wanted)
                test_fail(__FILE__, __LINE__, "model %zu, scale %g: the CPU %s", i, (double)scale,
                          wanted ? "alone skips it" : "alone does not skip it");
            skipped += wanted;
        }
        CHECK(skipped > 0 && skipped < steps);
        fixture_close(&on);
        fixture_close(&cpu);
    }
}

/* The update leaves the weights that products read: not those of parameters that the host sends. */
TEST(cuda_steps_in_16_bits_follow_parameters_that_are_sent)
{
    struct fixture on, cpu;
    struct fixture_config c = cuda_models[CUDA_MODEL_DENSE];
    c.half = HALF_BF16;
    pair_open(&on, &cpu, c);
    for (uint64_t step = 0; step < 2 * CUDA_STEPS; step++) {
        struct step_result a =
            fixture_train(&on, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0);
        struct step_result b =
            fixture_train(&cpu, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0);
        number_near(a.loss, b.loss, 1e-2, "the loss", (int)step);
        if (step != CUDA_STEPS)
            continue;
        CHECK_OK(stepper_fetch(on.s, &error), error);
        for (uint64_t i = 0; i < on.m.parameter_count; i++) {
            stepper_parameters(on.s)[i] *= 3;
            stepper_parameters(cpu.s)[i] *= 3;
        }
        stepper_send(on.s);
    }
    vectors_near(&on, &cpu, 2e-2, 0);
    fixture_close(&on);
    fixture_close(&cpu);
}

/* Whether the device was warmed up before or not; the narrow one with half in another of the orders
 * that lanes may go in. */
TEST_LIMIT(cuda_steps_have_the_same_bits_each_time, 60)
{
    static const struct {
        enum cuda_model model;
        enum half half;
    } cases[] = {{CUDA_MODEL_DENSE, HALF_NONE},
                 {CUDA_MODEL_NORMED, HALF_F16},
                 {CUDA_MODEL_GRAPHS, HALF_NONE},
                 {CUDA_MODEL_WEIGHED, HALF_F16},
                 {CUDA_MODEL_NARROW, HALF_BF16}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float *kept = NULL;
        for (int time = 0; time < 2; time++) {
            struct fixture f;
            struct fixture_config c = cuda_models[cases[i].model];
            c.half = cases[i].half;
            c.device = cuda_fixture_device();
            fixture_open(&f, &c);
            if (time)
                stepper_warm(f.s, FIXTURE_ROWS);
            for (uint64_t step = 0; step < CUDA_STEPS; step++)
                fixture_train(&f, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0);
            CHECK_OK(stepper_fetch(f.s, &error), error);
            uint64_t bytes = f.m.parameter_count * sizeof(float);
            if (!kept)
                memcpy(kept = malloc(bytes), stepper_parameters(f.s), bytes);
            CHECK(memcmp(kept, stepper_parameters(f.s), bytes) == 0);
            fixture_close(&f);
        }
        free(kept);
    }
}

static void fisher_compare(struct fixture *on, struct fixture *cpu, enum fisher_labels labels,
                           int model)
{
    struct err e;
    uint64_t count = on->m.parameter_count;
    double weight[2] = {0};
    float *a = calloc(count, sizeof *a), *b = calloc(count, sizeof *b);
    struct fisher_sums to = {.count = count, .labels = labels, .key = 5};
    to.at = a, to.weight = &weight[0];
    CHECK_OK(stepper_fisher(on->s, FIXTURE_ROWS, &to, &e), e);
    to.at = b, to.weight = &weight[1];
    CHECK_OK(stepper_fisher(cpu->s, FIXTURE_ROWS, &to, &e), e);
    double off = vectors_distance(a, b, count);
    if (!(off <= 1e-5) || fabs(weight[0] / weight[1] - 1) > 1e-6)
        test_fail(__FILE__, __LINE__, "model %d: Fisher information with labels %s is off by %g",
                  model, fisher_labels_name(labels), off);
    free(a), free(b);
}

/* Of the plain models with all labels that their loss has. */
TEST(cuda_fisher_information_equals_that_of_the_cpu)
{
    for (int i = 0; i < CUDA_MODELS; i++) {
        struct fixture on, cpu;
        struct fixture_config c = cuda_models[i];
        struct err e;
        c.evaluate_only = 1;
        c.frozen_layers = 0;
        c.checkpointing = 0;
        pair_open(&on, &cpu, c);
        for (enum fisher_labels labels = 0; labels < FISHER_LABELS; labels++)
            if (labels == FISHER_TRUE || (c.layers == cuda_models[CUDA_MODEL_DENSE].layers &&
                                          fisher_labels_check(&on.m, labels, &e) == 0))
                fisher_compare(&on, &cpu, labels, i);
        fixture_close(&on);
        fixture_close(&cpu);
    }
}

static struct importance importance_of(const struct model *m, const float *fisher, int exact)
{
    struct importance f;
    struct err e;
    CHECK_OK(importance_open(&f, m, exact, &e), e);
    while (importance_next(&f))
        CHECK_OK(importance_take(&f, fisher, m->parameter_count, &e), e);
    return f;
}

/* Whichever way a protected task is held. What the device was sent is its own: an emulated one can
 * read the host's memory, too, so the host's is overwritten. */
TEST(cuda_penalty_equals_that_of_the_cpu)
{
    for (int exact = 0; exact < 3; exact++) {
        struct fixture on, cpu;
        struct importance there, here;
        pair_open(&on, &cpu, cuda_models[CUDA_MODEL_DENSE]);
        uint64_t count = on.m.parameter_count;
        float *star = malloc(count * sizeof *star), *fisher = malloc(count * sizeof *fisher);
        for (uint64_t i = 0; i < count; i++) {
            star[i] = stepper_parameters(cpu.s)[i] + 0.01f * (float)(i % 7);
            fisher[i] = 0.001f * (float)(1 + i % 13);
        }
        there = importance_of(&on.m, fisher, exact == 1);
        here = importance_of(&cpu.m, fisher, exact == 1);
        struct ewc_term term = {.theta_star = star, .lambda = 100, .damping = 0.001};
        for (uint64_t step = 0; step < CUDA_STEPS; step++) {
            term.lambda = step < 2 ? 100 : 50;
            term.fisher = exact == 2 ? fisher : NULL;
            term.importance = exact == 2 ? NULL : &there;
            struct step_result a =
                fixture_train(&on, FIXTURE_ROWS, step, step + 1, &fixture_adamw, &term, 1);
            memset(there.region.at, 0xff, there.region.bytes);
            term.importance = exact == 2 ? NULL : &here;
            struct step_result b =
                fixture_train(&cpu, FIXTURE_ROWS, step, step + 1, &fixture_adamw, &term, 1);
            number_near(a.penalty, b.penalty, 1e-5, "the penalty", exact);
            number_near(a.gradient_norm, b.gradient_norm, 1e-5, "the norm", exact);
        }
        vectors_near(&on, &cpu, 2e-5, exact);
        importance_close(&there);
        importance_close(&here);
        free(star), free(fisher);
        fixture_close(&on);
        fixture_close(&cpu);
    }
}

/* Another task's numbers at the same addresses. */
TEST(cuda_a_protected_task_is_sent_again_when_it_is_another)
{
    struct fixture f;
    struct fixture_config c = cuda_models[CUDA_MODEL_DENSE];
    c.device = cuda_fixture_device();
    fixture_open(&f, &c);
    uint64_t count = f.m.parameter_count;
    float *star = malloc(count * sizeof *star), *fisher = malloc(count * sizeof *fisher);
    struct ewc_term term = {.theta_star = star, .fisher = fisher, .lambda = 2, .version = 1};
    for (uint64_t i = 0; i < count; i++) {
        star[i] = stepper_parameters(f.s)[i];
        fisher[i] = 1;
    }
    CHECK(fixture_train(&f, FIXTURE_ROWS, 0, 1, &fixture_still, &term, 1).penalty == 0);
    for (uint64_t i = 0; i < count; i++)
        star[i] += 1;
    CHECK(fixture_train(&f, FIXTURE_ROWS, 1, 2, &fixture_still, &term, 1).penalty == 0);
    term.version = 2;
    number_near(fixture_train(&f, FIXTURE_ROWS, 2, 3, &fixture_still, &term, 1).penalty,
                (double)count, 1e-6, "the penalty", 0);
    free(star), free(fisher);
    fixture_close(&f);
}

/* There is no room for it: the step says so, and nothing moves. */
TEST(cuda_a_protected_task_without_room_ends_the_step)
{
    struct fixture f;
    struct fixture_config c = cuda_models[CUDA_MODEL_DENSE];
    struct device_memory m;
    struct device_facts facts;
    struct step_result r;
    struct err e;
    void *rest;
    c.device = cuda_fixture_device();
    c.device->facts(&facts);
    if (strcmp(facts.name, "emulated") != 0)
        test_skip("a GPU's memory cannot be used up to the last byte");
    fixture_open(&f, &c);
    float *star = calloc(f.m.parameter_count, sizeof *star);
    struct ewc_term term = {.theta_star = star, .fisher = star, .lambda = 2};
    c.device->memory(&m);
    CHECK_OK(c.device->allocate(m.free_bytes, "the rest", &rest, &e), e);
    float before = stepper_parameters(f.s)[0];
    CHECK(stepper_train(f.s, FIXTURE_ROWS, 0, 1, &fixture_adamw, &term, 1, &r, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    CHECK(strstr(e.text, "no device memory for parameters of a protected task"));
    c.device->release(rest);
    CHECK_OK(stepper_fetch(f.s, &e), e);
    CHECK(stepper_parameters(f.s)[0] == before);
    CHECK_OK(stepper_train(f.s, FIXTURE_ROWS, 0, 1, &fixture_adamw, &term, 1, &r, &e), e);
    free(star);
    fixture_close(&f);
}

TEST(cuda_names_the_row_and_layer_of_a_bad_number)
{
    struct fixture on, cpu;
    struct step_result r;
    struct err e;
    pair_open(&on, &cpu, cuda_models[CUDA_MODEL_DENSE]);
    stepper_parameters(on.s)[on.m.tensors[2].first] = NAN;
    memcpy(stepper_parameters(cpu.s), stepper_parameters(on.s), 4 * on.m.parameter_count);
    stepper_send(on.s);
    CHECK(stepper_train(on.s, FIXTURE_ROWS, 0, 1, &fixture_adamw, NULL, 0, &r, &e) < 0);
    CHECK(stepper_train(cpu.s, FIXTURE_ROWS, 0, 1, &fixture_adamw, NULL, 0, &r, &e) < 0);
    const struct step_fault *a = stepper_fault(on.s), *b = stepper_fault(cpu.s);
    CHECK_EQ(a->layer, b->layer);
    CHECK_EQ(a->row, b->row);
    CHECK_EQ(a->rows, b->rows);
    fixture_close(&on);
    fixture_close(&cpu);
}

/* What is fetched while rows are evaluated is what the last step left; a step behind it counts. */
TEST(cuda_vectors_are_fetched_beside_an_evaluation)
{
    struct fixture on, plain;
    struct fixture_config c = cuda_models[CUDA_MODEL_DENSE];
    struct err e;
    c.device = cuda_fixture_device();
    fixture_open(&on, &c);
    fixture_open(&plain, &c);
    uint64_t bytes = on.m.parameter_count * sizeof(float);
    for (uint64_t step = 0; step < CUDA_STEPS; step++) {
        fixture_train(&on, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0);
        fixture_train(&plain, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0);
        stepper_fetch_begin(on.s);
        if (step == 1)
            continue;
        fixture_evaluate(&on, FIXTURE_ROWS);
        CHECK_OK(stepper_fetch(on.s, &e), e);
        CHECK_OK(stepper_fetch(plain.s, &e), e);
        CHECK(memcmp(stepper_parameters(on.s), stepper_parameters(plain.s), bytes) == 0);
        CHECK(memcmp(stepper_moment_v(on.s), stepper_moment_v(plain.s), bytes) == 0);
    }
    fixture_close(&on);
    fixture_close(&plain);
}
