/* test_cuda_micro_batches.c - whole models on a device, their batches a micro-batch at a time,
 * their rows on the device or the host's: against the CPU, and against each other where a step is
 * asked for before the one before is known; what the host does meanwhile, and rows that cannot be
 * used.
 *
 * The device is the emulated one, or what FINETUNED_CUDA_LIBRARY names: `make gpu-check` runs the
 * same cases on a GPU. The CPU takes the batch as one slice, so that both add up the same way.
 */
#include "engine/device.h"
#include "engine/stepper.h"
#include "tests/test.h"
#include "tests/unit/cuda_fixture.h"
#include "tests/unit/cuda_models.h"

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
    struct fixture_config c = cuda_models[model];
    struct rows_there there;
    struct step_result a, b;
    struct err e;
    c.accumulates = 1;
    pair_open(&on, &cpu, c);
    for (int i = 0; c.carries && i < 2; i++)
        fixture_begins(i ? &cpu : &on, 0, 0);
    rows_send(&there, &on);
    for (uint64_t step = 0; step < CUDA_STEPS; step++) {
        CHECK_OK(micro_batches_train(&on, on_device ? &there : NULL, step, &a, &e), e);
        CHECK_OK(micro_batches_train(&cpu, NULL, step, &b, &e), e);
        number_near(a.loss, b.loss, 1e-5, "the loss", model);
        number_near(a.gradient_norm, b.gradient_norm, 2e-5, "the norm", model);
    }
    vectors_near(&on, &cpu, 2e-5, model);
    rows_release(&there);
    fixture_close(&on);
    fixture_close(&cpu);
}

TEST(cuda_micro_batches_equal_those_of_the_cpu)
{
    static const enum cuda_model numbers[] = {
        CUDA_MODEL_DENSE, CUDA_MODEL_WEIGHED, /* one recorded sequence divides by other sums */
        CUDA_MODEL_NARROW_BEHIND, CUDA_MODEL_TOKENS, CUDA_MODEL_CARRIED};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        for (int on_device = 0; on_device < 2; on_device++)
            micro_batches_case((int)numbers[i], on_device);
    micro_batches_case(CUDA_MODEL_GRAPHS, 0); /* which the host gathers */
    micro_batches_case(CUDA_MODEL_GRAPHS_DRAWN, 0);
    micro_batches_case(CUDA_MODEL_CHAINED, 0);
}

static uint64_t batch_nodes(const struct fixture *f, uint64_t first, uint64_t rows)
{
    uint64_t nodes = 0;
    for (uint64_t r = first; r < first + rows; r++)
        nodes += f->graph_rows[r].node_count;
    return nodes;
}

static int recordings_made(const struct stepper *s)
{
    int made = 0;
    for (int i = 0; i < RECORDINGS_MAX; i++)
        made += s->recordings[i].graph != NULL;
    return made;
}

/* Batches of as many graphs, of which no two have as many nodes: in few shapes, each recorded once.
 */
static void shapes_case(int model, int recorded_least, int recorded_most)
{
    enum { ROWS = 20, BATCHES = 5, EPOCHS = 3 };
    struct fixture on, cpu;
    pair_open(&on, &cpu, cuda_models[model]);
    for (uint64_t step = 0; step < BATCHES * EPOCHS; step++) {
        uint64_t first = 3 * (step % BATCHES);
        struct step_result r[2];
        struct err e;
        for (int i = 0; i < 2; i++) {
            struct fixture *f = i ? &cpu : &on;
            fixture_gather_rows(f, first, ROWS);
            CHECK_OK(stepper_train(f->s, ROWS, step, step + 1, &fixture_adamw, NULL, 0, &r[i], &e),
                     e);
        }
        CHECK(!first || batch_nodes(&on, first, ROWS) != batch_nodes(&on, 0, ROWS));
        number_near(r[0].loss, r[1].loss, 1e-5, "the loss", model);
        number_near(r[0].gradient_norm, r[1].gradient_norm, 2e-5, "the norm", model);
    }
    int made = recordings_made(on.s);
    CHECK(made >= recorded_least && made <= recorded_most);
    vectors_near(&on, &cpu, 2e-5, model);
    fixture_close(&on);
    fixture_close(&cpu);
}

TEST(cuda_graphs_are_padded_by_little)
{
    static const uint64_t largest[] = {1, 7, 300, 30000, 1000000};
    struct fixture f;
    struct fixture_config c = cuda_models[CUDA_MODEL_CHAINED];
    c.device = cuda_fixture_device();
    fixture_open(&f, &c);
    uint64_t own = f.s->config.slice_nodes_max;
    for (size_t i = 0; i < sizeof largest / sizeof *largest; i++) {
        uint64_t most = f.s->config.slice_nodes_max = largest[i], shapes = 0, before = 0;
        for (uint64_t nodes = 1; nodes <= most; nodes++) {
            uint64_t padded = graphs_nodes(f.s, nodes);
            CHECK(padded >= nodes && padded <= most);
            CHECK(padded - nodes < 8 || padded - nodes < nodes / 8);
            shapes += 2 * nodes > most && padded != before;
            before = padded;
        }
        CHECK(shapes <= 17); /* of batches half as large as the largest one, or larger */
    }
    f.s->config.slice_nodes_max = own;
    fixture_close(&f);
}

static uint64_t numbers_bytes(uint64_t count, uint64_t each)
{
    return size_padded(count * each, MEMORY_ALIGNMENT);
}

/* What comes to the device of a batch of graphs has two places there: the nodes' features and the
 * edges' sums, classes, where graphs begin, and two matrices. */
TEST(cuda_of_graphs_what_is_sent_alone_has_two_places)
{
    struct fixture f;
    struct fixture_config c = cuda_models[CUDA_MODEL_GRAPHS_DRAWN];
    c.device = cuda_fixture_device();
    fixture_open(&f, &c);
    const struct step_config *s = &f.s->config;
    uint64_t nodes = s->batch_nodes_max, entries = nodes + s->batch_edges_max;
    uint64_t sent = numbers_bytes(nodes * f.m.inputs, sizeof(float)) +
                    numbers_bytes(nodes * f.m.edge_inputs, sizeof(float)) +
                    numbers_bytes(s->batch_rows_max, sizeof(uint32_t)) +
                    numbers_bytes(s->batch_rows_max + 1, sizeof(uint64_t)) +
                    2 * numbers_bytes(nodes + 1, sizeof(uint32_t)) +
                    4 * numbers_bytes(entries, sizeof(uint32_t));
    CHECK_EQ(f.s->layout.bytes[KIND_ARRIVAL], region_bytes(sent));
    CHECK(f.s->layout.bytes[KIND_BATCH] < f.s->layout.bytes[KIND_STAGE]);
    fixture_close(&f);
}

/* How many recordings there are of steps of two micro-batches, whose sizes are others each time. */
static int micro_batches_recorded(const struct fixture_config *of)
{
    struct fixture f;
    struct fixture_config c = *of;
    struct step_result r;
    struct err e;
    c.device = cuda_fixture_device();
    c.accumulates = 1;
    fixture_open(&f, &c);
    for (uint64_t step = 0; step < 12; step++) {
        stepper_batch(f.s, 20, step, NULL, 0);
        for (uint64_t half = 0; half < 2; half++) {
            fixture_gather_rows(&f, 3 * (step % 4) + 10 * half, 10);
            stepper_accumulate(f.s, 10);
        }
        CHECK_OK(stepper_update(f.s, step + 1, &fixture_adamw, &r, &e), e);
    }
    int made = recordings_made(f.s);
    fixture_close(&f);
    return made;
}

TEST(cuda_draws_behind_the_pool_do_not_keep_steps_from_being_recorded)
{
    static const char *const plain[] = {"gcn out=9", "relu", "pool kind=sum", "linear out=5"};
    static const char *const behind[] = {"gcn out=9", "relu", "pool kind=sum", "dropout p=0.25",
                                         "linear out=5"};
    static const char *const before[] = {"gcn out=9", "dropout p=0.25", "relu", "pool kind=sum",
                                         "linear out=5"};
    struct fixture_config c = {.layers = plain, .count = 4, .graphs = 1, .inputs = 9};
    int wanted = micro_batches_recorded(&c);
    CHECK(wanted >= 2);
    c.layers = behind, c.count = 5;
    CHECK_EQ(micro_batches_recorded(&c), wanted);
    c.layers = before; /* of the second micro-batch there are none */
    int first = micro_batches_recorded(&c);
    CHECK(first >= 1 && first < wanted);
}

TEST(cuda_graphs_of_other_sizes_have_few_shapes)
{
    shapes_case(CUDA_MODEL_GRAPHS_DRAWN, 1, 2);
    shapes_case(CUDA_MODEL_CHAINED, 1, 2);
    shapes_case(CUDA_MODEL_GRAPHS, 0, 0); /* statistics are over all nodes */
}

/* ---- steps that are asked for before the one before is known ---- */

/* Steps of all rows, an optimizer's step and what it told each; the vectors afterwards. Rows that
 * are not there are the host's, as below. */
static void steps_ask(struct fixture *f, const struct rows_there *there,
                      const struct step_result told[CUDA_STEPS])
{
    struct step_result r;
    struct err e;
    for (uint64_t step = 0; step <= CUDA_STEPS; step++) {
        if (step < CUDA_STEPS) {
            micro_batches_accumulate(f, there, step);
            CHECK(stepper_asks(f->s));
            stepper_update_ask(f->s, step + 1, &fixture_adamw);
        }
        if (step == 0)
            continue;
        CHECK_EQ(stepper_update_take(f->s, &r, &e), 1);
        CHECK_EQ(stepper_asked(f->s), step < CUDA_STEPS);
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
    struct step_result told[CUDA_STEPS];
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
    for (uint64_t step = 0; step < CUDA_STEPS; step++)
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
    static const enum cuda_model there[] = {CUDA_MODEL_DENSE,         CUDA_MODEL_WEIGHED,
                                            CUDA_MODEL_NARROW_BEHIND, CUDA_MODEL_TOKENS,
                                            CUDA_MODEL_NORMED,        CUDA_MODEL_CARRIED};
    static const enum cuda_model gathered[] = {CUDA_MODEL_DENSE, /* with dropout */
                                               CUDA_MODEL_WEIGHED, CUDA_MODEL_CARRIED,
                                               CUDA_MODEL_CHAINED, CUDA_MODEL_GRAPHS_DRAWN,
                                               CUDA_MODEL_GRAPHS}; /* with batchnorm */
    struct fixture_config half = cuda_models[CUDA_MODEL_DENSE], momentum = half, plain = half;
    half.half = HALF_BF16;
    momentum.optimizer = OPTIMIZER_SGD_MOMENTUM;
    plain.optimizer = OPTIMIZER_SGD;
    for (size_t i = 0; i < sizeof there / sizeof *there; i++)
        ahead_case(cuda_models[there[i]], 1);
    for (size_t i = 0; i < sizeof gathered / sizeof *gathered; i++)
        ahead_case(cuda_models[gathered[i]], 0);
    ahead_case(half, 1);
    ahead_case(momentum, 1);
    ahead_case(plain, 1);
}

/* ---- while the device computes ---- */

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
        struct fixture_config c = cuda_models[CUDA_MODEL_DENSE];
        struct step_result r;
        struct rows_there there;
        struct err e;
        c.device = cuda_fixture_device();
        c.accumulates = 1;
        c.meanwhile = i ? other_work_go_on : NULL;
        c.self = &work;
        fixture_open(&f, &c);
        rows_send(&there, &f);
        for (uint64_t step = 0; step < CUDA_STEPS; step++)
            CHECK_OK(micro_batches_train(&f, &there, step, &r, &e), e);
        loss[i] = r.loss;
        /* the places of each micro-batch but the first are waited for, and the results */
        uint64_t waits = CUDA_STEPS * ((FIXTURE_ROWS + MICRO_ROWS - 1) / MICRO_ROWS);
        CHECK(i == 0 ? work.calls == 0 : i == 1 ? work.calls == waits : work.calls > waits);
        rows_release(&there);
        fixture_close(&f);
    }
    CHECK(loss[0] == loss[1] && loss[0] == loss[2]);
}

/* ---- rows that cannot be used ---- */

/* Row `row` of a batch whose rows are on the device cannot be used: the step says which;
 * overwrites: another row lies in its place since. */
static void bad_row_case(int model, uint64_t row, int overwrites, const char *sentence)
{
    struct fixture f;
    struct fixture_config c = cuda_models[model];
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
    bad_row_case(CUDA_MODEL_DENSE, 45, 0, "its class is 200");
    bad_row_case(CUDA_MODEL_DENSE, 45, 1, "a target that the loss does not take");
    /* of a micro-batch before the last */
    bad_row_case(CUDA_MODEL_DENSE, 3, 0, "a target that the loss does not take");
    bad_row_case(CUDA_MODEL_TOKENS, 45, 0, "its token 1 is 60000");
    bad_row_case(CUDA_MODEL_TOKENS, 21, 0, "a feature that is not finite");
}
