/* test_cuda_step.c - whole models on a device against the CPU: steps, evaluations, Fisher
 * information, protected tasks, faults.
 *
 * The device is the emulated one, or what FINETUNED_CUDA_LIBRARY names: `make gpu-check` runs the
 * same cases on a GPU. The CPU takes the batch as one slice, so that both add up the same way.
 */
#include <math.h>
#include <stdlib.h>

#include "engine/device.h"
#include "engine/importance.h"
#include "tests/test.h"
#include "tests/unit/cuda_fixture.h"
#include "tests/unit/engine_fixture.h"

enum { STEPS = 4 };

static struct err error;

static const char *const dense[] = {"linear out=33", "relu", "dropout p=0.25",
                                    "linear out=20", "gelu", "linear out=5"};
static const char *const normed[] = {"linear out=17", "batchnorm", "tanh",
                                     "linear out=9",  "layernorm", "linear out=5"};
static const char *const residual[] = {"linear out=16", "residual_begin", "linear out=16",
                                       "silu",          "residual_end",   "linear out=5"};
static const char *const recurrent[] = {"sequence steps=6",
                                        "lstm out=8 layers=2 bidirectional=true dropout=0.25",
                                        "pool kind=last", "linear out=5"};
static const char *const carried[] = {"sequence steps=6", "lstm out=8 layers=2 dropout=0.25",
                                      "pool kind=last", "linear out=5"};
static const char *const graphs[] = {"gcn out=9 residual=true edges=true",
                                     "relu",
                                     "gcn out=10",
                                     "batchnorm",
                                     "sigmoid",
                                     "pool kind=mean_sum",
                                     "linear out=5"};
/* Those that chain: with 16 bits or without, behind an activation or another one of them. */
static const char *const chained[] = {"gcn out=16", "relu",           "gcn out=24",
                                      "gcn out=8",  "sigmoid",        "gcn out=10",
                                      "relu",       "pool kind=mean", "linear out=5"};
static const char *const tokens[] = {"embedding count=11 out=6", "lstm out=7", "linear out=5"};

/* With half all of their numbers are narrow, in several lanes. */
static const char *const narrow[] = {"sequence steps=4", "lstm out=8 layers=3", "pool kind=mean",
                                     "linear out=5"};
static const char *const narrow_behind[] = {
    "sequence steps=2", "linear out=11", "lstm out=16 layers=2", "pool kind=last", "linear out=5"};

#define LIST(lines) .layers = lines, .count = sizeof lines / sizeof *lines

static const struct fixture_config models[] = {
    {LIST(dense)},
    {LIST(dense), .loss = "mean_squared_error", .optimizer = OPTIMIZER_SGD_MOMENTUM},
    {LIST(dense), .loss = "cosine", .optimizer = OPTIMIZER_SGD},
    {LIST(dense), .loss = "huber delta=0.4", .frozen_layers = 3},
    {LIST(dense), .loss = "binary_cross_entropy", .checkpointing = 1},
    {LIST(normed),
     .optimizer = OPTIMIZER_SGD}, /* in front of batchnorm a bias has no gradient but rounding */
    {LIST(normed), .loss = "l1", .optimizer = OPTIMIZER_SGD_MOMENTUM},
    {LIST(residual)},
    {LIST(recurrent), .inputs = 24},
    {LIST(recurrent), .inputs = 24, .checkpointing = 1},
    {LIST(graphs), .graphs = 1, .inputs = 9, .edge_values = 3, .optimizer = OPTIMIZER_SGD},
    {LIST(chained), .graphs = 1, .inputs = 16, .optimizer = OPTIMIZER_SGD},
    {LIST(carried), .inputs = 24, .carries = 1, .checkpointing = 1},
    {LIST(carried), .inputs = 24, .carries = 1},
    {LIST(dense), .loss = "mean_squared_error missing weights=1,0.5,2,0,3"},
    {LIST(dense), .loss = "softmax_cross_entropy missing weights=1,0.5,2,0,3"},
    {LIST(narrow), .inputs = 12},
    {LIST(narrow_behind), .inputs = 16},
    {LIST(tokens), .inputs = 6},
};
enum { MODELS = sizeof models / sizeof *models, CHAINED = 11 };

/* sqrt(sum (a - b)^2 / sum b^2) */
static double distance(const float *a, const float *b, uint64_t count)
{
    double off = 0, all = 0;
    for (uint64_t i = 0; i < count; i++) {
        off += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        all += (double)b[i] * (double)b[i];
    }
    return sqrt(off / (all > 0 ? all : 1));
}

static void near(double got, double wanted, double bar, const char *what, int model)
{
    if (!(fabs(got - wanted) <= bar * (fabs(wanted) + 1e-3)))
        test_fail(__FILE__, __LINE__, "model %d: %s is %.9g instead of %.9g", model, what, got,
                  wanted);
}

static void vectors_near(struct fixture *on, struct fixture *cpu, double bar, int model)
{
    uint64_t count = on->m.parameter_count;
    CHECK_OK(stepper_fetch(on->s, &error), error);
    double off = distance(stepper_parameters(on->s), stepper_parameters(cpu->s), count);
    if (!(off <= bar))
        test_fail(__FILE__, __LINE__, "model %d: parameters are off by %g", model, off);
    const float *buffers = stepper_module_buffers(on->s);
    if (buffers)
        CHECK(distance(buffers, stepper_module_buffers(cpu->s), on->m.buffer_values) <= bar);
}

static void pair_open(struct fixture *on, struct fixture *cpu, struct fixture_config c)
{
    c.slice = FIXTURE_ROWS;
    c.threads = 1;
    fixture_open(cpu, &c);
    c.device = cuda_fixture_device();
    fixture_open(on, &c);
}

static void steps_case(int number, enum half half)
{
    struct fixture on, cpu;
    struct fixture_config c = models[number];
    c.half = half;
    c.checkpointing &= !half;
    pair_open(&on, &cpu, c);
    double bar = half ? 2e-2 : 2e-5;
    for (uint64_t step = 0; step < STEPS; step++) {
        for (int i = 0; c.carries && i < 2; i++) {
            fixture_begins(i ? &cpu : &on, step, 0);
            fixture_gather(i ? &cpu : &on, FIXTURE_ROWS);
        }
        struct step_result a =
            fixture_train(&on, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0);
        struct step_result b =
            fixture_train(&cpu, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0);
        near(a.loss, b.loss, half ? 1e-2 : 1e-5, "the loss", number);
        near(a.gradient_norm, b.gradient_norm, half ? 3e-2 : 2e-5, "the norm", number);
        CHECK(a.skipped == b.skipped);
    }
    vectors_near(&on, &cpu, bar, number);
    struct evaluation_result a = fixture_evaluate(&on, FIXTURE_ROWS),
                             b = fixture_evaluate(&cpu, FIXTURE_ROWS);
    near(a.loss, b.loss, bar, "the evaluation's loss", number);
    near(a.metric, b.metric, half ? 5e-2 : 1e-3, "the metric", number);
    fixture_close(&on);
    fixture_close(&cpu);
}

TEST(cuda_steps_equal_those_of_the_cpu)
{
    for (int i = 0; i < MODELS; i++)
        steps_case(i, HALF_NONE);
}

TEST(cuda_steps_in_16_bits_are_near_those_of_the_cpu)
{
    for (int half = HALF_F16; half <= HALF_BF16; half++) {
        for (int i = 0; i < MODELS; i += 4)
            steps_case(i, (enum half)half);
        steps_case(CHAINED, (enum half)half);
    }
}

/* The update leaves the weights that products read: not those of parameters that the host sends. */
TEST(cuda_steps_in_16_bits_follow_parameters_that_are_sent)
{
    struct fixture on, cpu;
    struct fixture_config c = models[0];
    c.half = HALF_BF16;
    pair_open(&on, &cpu, c);
    for (uint64_t step = 0; step < 2 * STEPS; step++) {
        struct step_result a =
            fixture_train(&on, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0);
        struct step_result b =
            fixture_train(&cpu, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0);
        near(a.loss, b.loss, 1e-2, "the loss", (int)step);
        if (step != STEPS)
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
    for (int i = 0; i < MODELS; i += 5) {
        float *kept = NULL;
        for (int time = 0; time < 2; time++) {
            struct fixture f;
            struct fixture_config c = models[i];
            c.half = c.layers == narrow ? HALF_BF16 : i % 2 ? HALF_F16 : HALF_NONE;
            c.device = cuda_fixture_device();
            fixture_open(&f, &c);
            if (time)
                stepper_warm(f.s, FIXTURE_ROWS);
            for (uint64_t step = 0; step < STEPS; step++)
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
    double off = distance(a, b, count);
    if (!(off <= 1e-5) || fabs(weight[0] / weight[1] - 1) > 1e-6)
        test_fail(__FILE__, __LINE__, "model %d: Fisher information with labels %s is off by %g",
                  model, fisher_labels_name(labels), off);
    free(a), free(b);
}

/* Of the plain models with all labels that their loss has. */
TEST(cuda_fisher_information_equals_that_of_the_cpu)
{
    for (int i = 0; i < MODELS; i++) {
        struct fixture on, cpu;
        struct fixture_config c = models[i];
        struct err e;
        c.evaluate_only = 1;
        c.frozen_layers = 0;
        c.checkpointing = 0;
        pair_open(&on, &cpu, c);
        for (enum fisher_labels labels = 0; labels < FISHER_LABELS; labels++)
            if (labels == FISHER_TRUE ||
                (c.layers == dense && fisher_labels_check(&on.m, labels, &e) == 0))
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
        pair_open(&on, &cpu, models[0]);
        uint64_t count = on.m.parameter_count;
        float *star = malloc(count * sizeof *star), *fisher = malloc(count * sizeof *fisher);
        for (uint64_t i = 0; i < count; i++) {
            star[i] = stepper_parameters(cpu.s)[i] + 0.01f * (float)(i % 7);
            fisher[i] = 0.001f * (float)(1 + i % 13);
        }
        there = importance_of(&on.m, fisher, exact == 1);
        here = importance_of(&cpu.m, fisher, exact == 1);
        struct ewc_term term = {.theta_star = star, .lambda = 100, .damping = 0.001};
        for (uint64_t step = 0; step < STEPS; step++) {
            term.lambda = step < 2 ? 100 : 50;
            term.fisher = exact == 2 ? fisher : NULL;
            term.importance = exact == 2 ? NULL : &there;
            struct step_result a =
                fixture_train(&on, FIXTURE_ROWS, step, step + 1, &fixture_adamw, &term, 1);
            memset(there.region.at, 0xff, there.region.bytes);
            term.importance = exact == 2 ? NULL : &here;
            struct step_result b =
                fixture_train(&cpu, FIXTURE_ROWS, step, step + 1, &fixture_adamw, &term, 1);
            near(a.penalty, b.penalty, 1e-5, "the penalty", exact);
            near(a.gradient_norm, b.gradient_norm, 1e-5, "the norm", exact);
        }
        vectors_near(&on, &cpu, 2e-5, exact);
        importance_close(&there);
        importance_close(&here);
        free(star), free(fisher);
        fixture_close(&on);
        fixture_close(&cpu);
    }
}

TEST(cuda_names_the_row_and_layer_of_a_bad_number)
{
    struct fixture on, cpu;
    struct step_result r;
    struct err e;
    pair_open(&on, &cpu, models[0]);
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

/* ---- several micro-batches, rows on the device ---- */

/* The fixture's rows in the device's memory. */
struct rows_there {
    const struct device *device;
    void *features, *targets, *begins;
};

static void rows_send(struct rows_there *r, const struct fixture *f)
{
    struct err e;
    r->device = cuda_fixture_device();
    CHECK_OK(r->device->allocate(sizeof f->features, "rows", &r->features, &e), e);
    CHECK_OK(r->device->allocate(sizeof f->classes, "targets", &r->targets, &e), e);
    r->device->upload(r->features, f->m.token_count ? (void *)f->tokens : (void *)f->features,
                      f->m.token_count ? sizeof f->tokens : sizeof f->features);
    r->device->upload(r->targets, f->classes, sizeof f->classes);
    CHECK_OK(r->device->allocate(sizeof f->begins, "begins", &r->begins, &e), e);
    r->device->upload(r->begins, f->begins, sizeof f->begins);
    r->device->wait();
}

static void rows_release(struct rows_there *r)
{
    r->device->release(r->features);
    r->device->release(r->targets);
    r->device->release(r->begins);
}

/* Rows first .. first + count - 1 from there into the micro-batch's places from `at` on. */
static void piece_gather(struct fixture *f, const struct rows_there *r, uint64_t at, uint64_t first,
                         uint64_t count)
{
    const void *features[FIXTURE_ROWS], *targets[FIXTURE_ROWS], *begins[FIXTURE_ROWS];
    uint64_t row = f->m.token_count ? sizeof f->tokens[0] : sizeof f->features[0], bad;
    struct gather_config g = f->gather;
    struct err e;
    g.on_device = 1;
    g.begin_rows = g.begin_rows ? begins : NULL;
    for (uint64_t i = 0; i < count; i++) {
        features[i] = (char *)r->features + (first + i) * row;
        targets[i] = (char *)r->targets + (first + i) * sizeof f->classes[0];
        begins[i] = (char *)r->begins + (first + i) * sizeof f->begins[0];
    }
    CHECK_OK(stepper_gather(f->s, &g, at, count, features, targets, &bad, &e), e);
}

/* In two pieces, as rows come. */
static void rows_gather(struct fixture *f, const struct rows_there *r, uint64_t first,
                        uint64_t count)
{
    piece_gather(f, r, 0, first, count / 3);
    piece_gather(f, r, count / 3, first + count / 3, count - count / 3);
}

static void micro_batch_gather(struct fixture *f, uint64_t first, uint64_t rows)
{
    if (f->gather.begin_rows)
        f->gather.begin_rows = f->begin_rows + first;
    fixture_gather_rows(f, first, rows);
}

enum { MICRO_ROWS = 20 };

/* A batch of all rows, a micro-batch at a time, whose rows are there or, NULL, the host's. */
static void micro_batches_accumulate(struct fixture *f, const struct rows_there *there,
                                     uint64_t step)
{
    stepper_batch(f->s, FIXTURE_ROWS, step, NULL, 0);
    for (uint64_t first = 0, rows; first < FIXTURE_ROWS; first += rows) {
        rows = FIXTURE_ROWS - first < MICRO_ROWS ? FIXTURE_ROWS - first : MICRO_ROWS;
        if (there)
            rows_gather(f, there, first, rows);
        else
            micro_batch_gather(f, first, rows);
        stepper_accumulate(f->s, rows);
    }
}

static int micro_batches_train(struct fixture *f, const struct rows_there *there, uint64_t step,
                               struct step_result *r, struct err *e)
{
    micro_batches_accumulate(f, there, step);
    return stepper_update(f->s, step + 1, &fixture_adamw, r, e);
}

static void micro_batches_case(int model, int on_device)
{
    struct fixture on, cpu;
    struct fixture_config c = models[model];
    struct rows_there there;
    struct step_result a, b;
    struct err e;
    c.accumulates = 1;
    pair_open(&on, &cpu, c);
    for (int i = 0; c.carries && i < 2; i++)
        fixture_begins(i ? &cpu : &on, 0, 0);
    rows_send(&there, &on);
    for (uint64_t step = 0; step < STEPS; step++) {
        CHECK_OK(micro_batches_train(&on, on_device ? &there : NULL, step, &a, &e), e);
        CHECK_OK(micro_batches_train(&cpu, NULL, step, &b, &e), e);
        near(a.loss, b.loss, 1e-5, "the loss", model);
        near(a.gradient_norm, b.gradient_norm, 2e-5, "the norm", model);
    }
    vectors_near(&on, &cpu, 2e-5, model);
    rows_release(&there);
    fixture_close(&on);
    fixture_close(&cpu);
}

TEST(cuda_micro_batches_equal_those_of_the_cpu)
{
    enum { DENSE = 0, CARRIED = MODELS - 4, WEIGHED = MODELS - 2, TOKENS = MODELS - 1 };
    for (int on_device = 0; on_device < 2; on_device++) {
        micro_batches_case(DENSE, on_device);
        micro_batches_case(WEIGHED, on_device); /* one recorded sequence divides by other sums */
        micro_batches_case(TOKENS, on_device);
        micro_batches_case(CARRIED, on_device);
    }
    micro_batches_case(10, 0); /* graphs, which the host gathers */
}

/* What is fetched while rows are evaluated is what the last step left; a step behind it counts. */
TEST(cuda_vectors_are_fetched_beside_an_evaluation)
{
    struct fixture on, plain;
    struct fixture_config c = models[0];
    struct err e;
    c.device = cuda_fixture_device();
    fixture_open(&on, &c);
    fixture_open(&plain, &c);
    uint64_t bytes = on.m.parameter_count * sizeof(float);
    for (uint64_t step = 0; step < STEPS; step++) {
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

/* ---- steps that are asked for before the one before is known ---- */

/* Steps of all rows, an optimizer's step and what it told each; the vectors afterwards. Rows that
 * are not there are the host's, as below. */
static void steps_ask(struct fixture *f, const struct rows_there *there,
                      const struct step_result told[STEPS])
{
    struct step_result r;
    struct err e;
    for (uint64_t step = 0; step <= STEPS; step++) {
        if (step < STEPS) {
            micro_batches_accumulate(f, there, step);
            CHECK(stepper_asks(f->s));
            stepper_update_ask(f->s, step + 1, &fixture_adamw);
        }
        if (step == 0)
            continue;
        CHECK_EQ(stepper_update_take(f->s, &r, &e), 1);
        CHECK_EQ(stepper_asked(f->s), step < STEPS);
        CHECK(memcmp(&r, &told[step - 1], sizeof r) == 0);
    }
}

/* One whose loss is more than is accepted, another asked for behind it: neither changes anything,
 * and the first says why when it is made again. */
static void refused_ask(struct fixture *f, const struct rows_there *there)
{
    struct optimizer_config strict = fixture_adamw;
    struct step_result r;
    struct err e;
    strict.loss_max = 1e-9;
    for (uint64_t step = 0; step < 2; step++) {
        micro_batches_accumulate(f, there, step);
        stepper_update_ask(f->s, step + 1, step ? &fixture_adamw : &strict);
    }
    CHECK_EQ(stepper_update_take(f->s, &r, &e), 0);
    CHECK_EQ(stepper_asked(f->s), 0);
    micro_batches_accumulate(f, there, 0);
    CHECK(stepper_update(f->s, 1, &strict, &r, &e) < 0 && strstr(e.text, "more than the 1e-09"));
    CHECK(r.refused && stepper_bad_number(f->s));
}

/* Beside steps that are waited for: the same bits of everything. */
static void ahead_case(struct fixture_config c, int on_device)
{
    struct fixture asked, waited;
    struct rows_there there;
    struct step_result told[STEPS];
    struct err e;
    c.device = cuda_fixture_device();
    c.accumulates = 1;
    fixture_open(&asked, &c);
    fixture_open(&waited, &c);
    for (int i = 0; c.carries && i < 2; i++)
        fixture_begins(i ? &asked : &waited, 0, 0);
    rows_send(&there, &waited);
    const struct rows_there *rows = on_device ? &there : NULL;
    memset(told, 0, sizeof told);
    for (uint64_t step = 0; step < STEPS; step++)
        CHECK_OK(micro_batches_train(&waited, rows, step, &told[step], &e), e);
    refused_ask(&asked, rows);
    steps_ask(&asked, rows, told);
    CHECK_OK(stepper_fetch(asked.s, &e), e);
    CHECK_OK(stepper_fetch(waited.s, &e), e);
    uint64_t bytes = asked.m.parameter_count * sizeof(float);
    CHECK(memcmp(stepper_parameters(asked.s), stepper_parameters(waited.s), bytes) == 0);
    if (c.optimizer != OPTIMIZER_SGD)
        CHECK(memcmp(stepper_moment_m(asked.s), stepper_moment_m(waited.s), bytes) == 0);
    bytes = asked.m.buffer_values * sizeof(float);
    if (bytes)
        CHECK(memcmp(stepper_module_buffers(asked.s), stepper_module_buffers(waited.s), bytes) ==
              0);
    bytes = asked.m.carried_values * FIXTURE_ROWS * sizeof(float);
    if (c.carries)
        CHECK(memcmp(stepper_carried(asked.s), stepper_carried(waited.s), bytes) == 0);
    rows_release(&there);
    fixture_close(&asked);
    fixture_close(&waited);
}

TEST(cuda_steps_asked_for_ahead_are_those_that_are_waited_for)
{
    enum { DENSE = 0, NORMED = 5, CARRIED = MODELS - 4, WEIGHED = MODELS - 2, TOKENS = MODELS - 1 };
    struct fixture_config half = models[DENSE], momentum = half, plain = half;
    half.half = HALF_BF16;
    momentum.optimizer = OPTIMIZER_SGD_MOMENTUM;
    plain.optimizer = OPTIMIZER_SGD;
    const struct fixture_config cases[] = {models[DENSE],   half,           momentum,
                                           models[WEIGHED], plain,          models[TOKENS],
                                           models[NORMED],  models[CARRIED]};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ahead_case(cases[i], 1);
    ahead_case(models[DENSE], 0); /* with dropout */
    ahead_case(models[CARRIED], 0);
    ahead_case(models[CHAINED], 0);
    ahead_case(models[CHAINED - 1], 0); /* with batchnorm */
}

/* Somebody who has something to do for `left` calls. */
struct other_work {
    uint64_t left, calls;
};

static int other_work_go_on(void *self)
{
    struct other_work *w = self;
    w->calls++;
    return w->left && w->left--;
}

/* Each wait for the device asks until it is done, or once where nothing is to be done; the numbers
 * are those without. */
TEST(cuda_the_host_goes_on_with_other_things_while_it_waits)
{
    double loss[3];
    for (int i = 0; i < 3; i++) {
        struct other_work work = {.left = i == 2 ? UINT64_MAX : 0};
        struct fixture f;
        struct fixture_config c = models[0];
        struct step_result r;
        struct rows_there there;
        struct err e;
        c.device = cuda_fixture_device();
        c.accumulates = 1;
        c.meanwhile = i ? other_work_go_on : NULL;
        c.self = &work;
        fixture_open(&f, &c);
        rows_send(&there, &f);
        for (uint64_t step = 0; step < STEPS; step++)
            CHECK_OK(micro_batches_train(&f, &there, step, &r, &e), e);
        loss[i] = r.loss;
        /* the places of each micro-batch but the first are waited for, and the results */
        uint64_t waits = STEPS * ((FIXTURE_ROWS + MICRO_ROWS - 1) / MICRO_ROWS);
        CHECK(i == 0 ? work.calls == 0 : i == 1 ? work.calls == waits : work.calls > waits);
        rows_release(&there);
        fixture_close(&f);
    }
    CHECK(loss[0] == loss[1] && loss[0] == loss[2]);
}

/* Row `row` of a batch whose rows are on the device cannot be used: the step says which;
 * overwrites: another row lies in its place since. */
static void bad_row_case(int model, uint64_t row, int overwrites, const char *sentence)
{
    struct fixture f;
    struct fixture_config c = models[model];
    struct rows_there there;
    struct step_result r;
    struct err e;
    c.device = cuda_fixture_device();
    c.accumulates = 1;
    fixture_open(&f, &c);
    if (f.m.token_count)
        f.tokens[row][1] = 60000;
    else
        f.classes[row][0] = 200;
    rows_send(&there, &f);
    float before = stepper_parameters(f.s)[0];
    micro_batches_accumulate(&f, &there, 0);
    if (overwrites)
        there.device->upload((char *)there.targets + row * sizeof f.classes[0], f.classes[0],
                             sizeof f.classes[0]);
    CHECK(stepper_update(f.s, 1, &fixture_adamw, &r, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    if (!strstr(e.text, sentence))
        test_fail(__FILE__, __LINE__, "'%s' instead of '%s'", e.text, sentence);
    CHECK_EQ(stepper_fault(f.s)->row, row);
    CHECK(!stepper_bad_number(f.s));
    CHECK_OK(stepper_fetch(f.s, &e), e);
    CHECK(stepper_parameters(f.s)[0] == before);
    rows_release(&there);
    fixture_close(&f);
}

TEST(cuda_a_row_on_the_device_that_cannot_be_used_is_named)
{
    bad_row_case(0, 45, 0, "its class is 200");
    bad_row_case(0, 45, 1, "a target that the loss does not take");
    /* of a micro-batch before the last */
    bad_row_case(0, 3, 0, "a target that the loss does not take");
    bad_row_case(MODELS - 1, 45, 0, "its token 1 is 60000");
    bad_row_case(MODELS - 1, 21, 0, "a feature that is not finite");
}

/* Another task's numbers at the same addresses. */
TEST(cuda_a_protected_task_is_sent_again_when_it_is_another)
{
    struct fixture f;
    struct fixture_config c = models[0];
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
    near(fixture_train(&f, FIXTURE_ROWS, 2, 3, &fixture_still, &term, 1).penalty, (double)count,
         1e-6, "the penalty", 0);
    free(star), free(fisher);
    fixture_close(&f);
}

/* There is no room for it: the step says so, and nothing moves. */
TEST(cuda_a_protected_task_without_room_ends_the_step)
{
    struct fixture f;
    struct fixture_config c = models[0];
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
