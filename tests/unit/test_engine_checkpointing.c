/* test_engine_checkpointing.c - activation checkpointing: on and off give the same bits for every
 * kind of layer and every cut, it takes less memory, and the plan is what is allocated. */
#include <math.h>

#include "engine/stepper.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

struct chain {
    const char *lines[16];
    uint64_t inputs;
    int graphs;
    uint64_t slice; /* 0: 8, of which parts have too few vectors */
    uint64_t parts; /* of a slice; 0: 1 */
    int stepwise;   /* none in 16 bits */
};

/* Pairs that span several segments, layers in place before and behind a border, dropout, steps. */
static const struct chain chains[] = {
    {{"linear out=31", "relu", "dropout p=0.3", "linear out=29", "tanh", "layernorm",
      "linear out=23", "gelu", "dropout p=0.2", "linear out=21", "silu", "linear out=3"},
     13},
    {{"linear out=16", "residual_begin", "layernorm", "linear out=32", "gelu", "residual_begin",
      "linear out=32", "sigmoid", "dropout p=0.5", "residual_end", "linear out=16", "residual_end",
      "relu", "linear out=8", "relu", "linear out=3"},
     13},
    {{"sequence steps=4", "linear out=16", "relu", "layernorm", "linear out=16", "relu",
      "layernorm", "residual_begin", "linear out=16", "tanh", "residual_end", "dropout p=0.1",
      "pool kind=max", "linear out=9", "sigmoid", "linear out=3"},
     12},
    {{"sequence steps=7", "linear out=6", "relu", "lstm out=5 layers=3 dropout=0.4", "tanh",
      "lstm out=4 layers=2 bidirectional=true dropout=0.2", "layernorm", "pool kind=mean",
      "linear out=12", "relu", "linear out=3"},
     14},
    {{"sequence steps=13", "lstm out=6 layers=2 bidirectional=true", "residual_begin",
      "lstm out=12", "residual_end", "pool kind=last", "linear out=3"},
     26},
    {{"dropout p=0.2", "sequence steps=1", "lstm out=6", "relu", "linear out=3"}, 12},
    {{"residual_begin", "linear out=12", "residual_end", "residual_begin", "dropout p=0.3",
      "linear out=12", "tanh", "residual_end"},
     12},
    {{"linear out=16", "batchnorm", "relu", "linear out=16", "relu", "batchnorm", "dropout p=0.2",
      "linear out=12", "gelu", "linear out=9", "batchnorm", "linear out=3"},
     13},
    {{"sequence steps=4", "residual_begin", "batchnorm", "linear out=3", "residual_end",
      "residual_begin", "linear out=9", "gelu", "batchnorm", "linear out=3", "residual_end",
      "lstm out=5", "batchnorm", "linear out=3", "pool kind=sum"},
     12},
    {{"linear out=16", "residual_begin", "gcn out=16 edges=true", "layernorm", "relu",
      "dropout p=0.3", "residual_end", "gcn out=16 residual=true", "gelu", "pool kind=mean_sum",
      "layernorm", "linear out=3"},
     13,
     .graphs = 1,
     .slice = 32,
     .parts = 4},
    {{"sequence steps=16", "linear out=16", "relu", "layernorm", "residual_begin", "linear out=16",
      "tanh", "residual_end", "dropout p=0.1", "pool kind=max", "linear out=9", "sigmoid",
      "linear out=3"},
     64,
     .slice = 64,
     .parts = 8},
    {{"sequence steps=16", "linear out=16", "lstm out=6 layers=2 bidirectional=true dropout=0.3",
      "tanh", "lstm out=5 layers=2", "pool kind=mean", "linear out=3"},
     64,
     .slice = 64,
     .parts = 4,
     .stepwise = 1},
    {{"embedding count=7 out=6", "dropout p=0.2", "lstm out=5", "layernorm", "linear out=3"},
     16,
     .slice = 64,
     .parts = 4,
     .stepwise = 1},
};

enum { CHAINS = sizeof chains / sizeof chains[0], STEPS = 3 };

static struct fixture_config config_of(const struct chain *c)
{
    struct fixture_config f = {.layers = c->lines,
                               .inputs = c->inputs,
                               .loss = "mean_squared_error",
                               .slice = c->slice ? c->slice : 8,
                               .graphs = c->graphs,
                               .edge_values = c->graphs ? 2 : 0};
    while (f.count < 16 && c->lines[f.count])
        f.count++;
    return f;
}

/* Parameters, moments and the last result of some steps; the number of segments and of parts. */
struct outcome {
    struct step_result result;
    float *numbers;
    uint64_t bytes, parts;
    uint32_t segments;
};

static struct outcome outcome_of(const struct fixture_config *c)
{
    struct outcome o = {.bytes = 0};
    struct fixture f;
    fixture_open(&f, c);
    for (uint64_t step = 0; step < STEPS; step++)
        o.result = fixture_train(&f, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0);
    uint64_t bytes = f.m.parameter_count * sizeof *o.numbers;
    uint64_t moments = bytes - step_frozen(&f.m, &f.s->config) * sizeof *o.numbers;
    o.bytes = bytes + 2 * moments;
    o.numbers = malloc(o.bytes);
    memcpy(o.numbers, stepper_parameters(f.s), bytes);
    memcpy((char *)o.numbers + bytes, stepper_moment_m(f.s), moments);
    memcpy((char *)o.numbers + bytes + moments, stepper_moment_v(f.s), moments);
    o.segments = f.s->layout.segments;
    o.parts = f.s->layout.parts;
    fixture_close(&f);
    return o;
}

static void on_and_off_compare(struct fixture_config c, int number)
{
    const struct chain *chain = &chains[number];
    uint64_t parts = chain->parts && !(chain->stepwise && c.half) ? chain->parts : 1;
    struct outcome off = outcome_of(&c);
    uint32_t most = 0;
    CHECK_EQ(off.segments, 1);
    c.checkpointing = 1;
    for (c.segments_max = 0; c.segments_max <= 7; c.segments_max += TEST_ROUNDS(1, 3))
        for (c.threads = 1; c.threads <= 3; c.threads += 2) {
            struct outcome on = outcome_of(&c);
            if (memcmp(off.numbers, on.numbers, off.bytes) != 0)
                test_fail(__FILE__, __LINE__,
                          "chain %d, %d frozen, half %d, at most %d segments: other bits", number,
                          (int)c.frozen_layers, (int)c.half, (int)c.segments_max);
            CHECK(memcmp(&off.result, &on.result, sizeof on.result) == 0);
            CHECK_EQ(on.parts, parts);
            most = on.segments > most ? on.segments : most;
            free(on.numbers);
        }
    CHECK(most > 1 || c.half); /* 16 bits and a small model: a cut may not save anything */
    free(off.numbers);
}

TEST_LIMIT(checkpointing_gives_the_same_bits, 60)
{
    for (int i = 0; i < CHAINS; i++) {
        struct fixture_config c = config_of(&chains[i]);
        for (c.half = 0; c.half < HALF_COUNT; c.half++)
            on_and_off_compare(c, i);
    }
}

/* The row whose loss is not finite is found in its part. */
TEST(a_bad_row_is_found_with_checkpointing_too)
{
    enum { BAD = 37 };
    struct fixture_config c = config_of(&chains[CHAINS - 4]);
    struct step_fault faults[2];
    for (c.checkpointing = 0; c.checkpointing < 2; c.checkpointing++) {
        struct fixture f;
        struct step_result r;
        struct err e;
        fixture_open(&f, &c);
        fixture_gather(&f, FIXTURE_ROWS);
        f.s->host.inputs[f.s->host.graphs.node_ptr[BAD] * c.inputs] = NAN;
        CHECK_EQ(stepper_train(f.s, FIXTURE_ROWS, 0, 1, &fixture_adamw, NULL, 0, &r, &e), -1);
        faults[c.checkpointing] = *stepper_fault(f.s);
        fixture_close(&f);
    }
    CHECK_EQ(faults[0].row, BAD);
    CHECK_EQ(faults[0].rows, 1);
    CHECK(faults[1].layer == faults[0].layer && faults[1].row == BAD && faults[1].rows == 1);
}

/* What is frozen is not recomputed, and its buffers do not stay. */
TEST_LIMIT(checkpointing_behind_a_frozen_backbone_gives_the_same_bits, 60)
{
    for (int i = 0; i < CHAINS; i++) {
        struct fixture_config c = config_of(&chains[i]);
        for (c.frozen_layers = 3; c.frozen_layers + 3 < c.count; c.frozen_layers += 3)
            for (c.half = 0; c.half <= HALF_F16; c.half++)
                on_and_off_compare(c, i);
    }
}

/* Every cut of every chain, not only those that save memory. */
static void cuts_compare(struct fixture_config c, int number)
{
    struct outcome off = outcome_of(&c);
    c.checkpointing = 1;
    c.segments_max = 2;
    for (uint32_t cut = 1; cut < c.count; cut++) {
        struct fixture f;
        struct err e;
        fixture_open(&f, &c);
        struct layout *y = &f.s->layout;
        segments_cut(y, &f.m, &f.s->config, cut);
        region_close(&f.s->region[KIND_ACTIVATIONS]);
        CHECK_OK(region_open(&f.s->region[KIND_ACTIVATIONS],
                             y->lanes * y->lane_activations * sizeof(float), "test", &e),
                 e);
        for (uint64_t step = 0; step < STEPS; step++)
            fixture_train(&f, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0);
        if (memcmp(off.numbers, stepper_parameters(f.s), off.bytes / 3) != 0)
            test_fail(__FILE__, __LINE__, "chain %d cut before layer %d, half %d: other bits",
                      number, (int)cut, (int)c.half);
        fixture_close(&f);
    }
    free(off.numbers);
}

TEST_LIMIT(every_cut_gives_the_same_bits, 60)
{
    for (int i = 0; i < CHAINS; i++) {
        struct fixture_config c = config_of(&chains[i]);
        for (c.half = 0; c.half < HALF_COUNT; c.half++)
            cuts_compare(c, i);
    }
}

/* What an lstm's backward reads is its own: another layer's backward has used the scratch in
 * between. Where that lands depends on the size of a slice, so the gradient would, too. */
TEST(an_lstm_keeps_nothing_in_the_scratch)
{
    static const char *const lines[] = {"sequence steps=3", "lstm out=3",   "linear out=64",
                                        "layernorm",        "linear out=3", "pool kind=mean"};
    float *first = NULL;
    double norm2 = 0, off2 = 0;
    for (uint64_t slice = 8; slice <= FIXTURE_ROWS; slice += 42) {
        struct fixture f;
        fixture_open(&f, &(struct fixture_config){.layers = lines,
                                                  .count = 6,
                                                  .inputs = 12,
                                                  .loss = "mean_squared_error",
                                                  .slice = slice});
        for (uint64_t i = 0; i < f.m.parameter_count; i++)
            stepper_parameters(f.s)[i] *= 30; /* a large gradient in the scratch */
        fixture_train(&f, FIXTURE_ROWS, 0, 1, &fixture_still, NULL, 0);
        uint64_t bytes = f.m.layers[1].count * sizeof *first;
        if (!first)
            memcpy(first = malloc(bytes), stepper_gradient(f.s), bytes);
        for (uint64_t i = 0; i < bytes / sizeof *first; i++) {
            double g = (double)first[i], off = (double)stepper_gradient(f.s)[i] - g;
            norm2 += g * g;
            off2 += off * off;
        }
        fixture_close(&f);
    }
    CHECK(norm2 > 0 && off2 < 1e-10 * norm2);
    free(first);
}

static uint64_t lane_floats(const char *const *lines, uint32_t count, uint64_t inputs,
                            struct step_config *c)
{
    struct model_input input = {inputs, c->slice_nodes_max > 0, 0};
    struct plan p = {.count = 0};
    struct model m;
    struct err e;
    CHECK_OK(model_open_input(&m, lines, count, &input, "mean_squared_error", &e), e);
    stepper_plan(&m, c, "trainerd", &p);
    uint64_t bytes = 0;
    for (int i = 0; i < p.count; i++)
        if (strcmp(p.rows[i].what, "activations and their gradients") == 0)
            bytes = p.rows[i].bytes;
    model_close(&m);
    return bytes / sizeof(float);
}

TEST(checkpointing_takes_less_memory)
{
    static const char *deep[60];
    static const char *const recurrent[] = {"sequence steps=100", "lstm out=32 layers=2",
                                            "pool kind=last", "linear out=1"};
    struct step_config c = {
        .batch_rows_max = 64, .slice_rows = 64, .threads = 1, .with_optimizer = 1};
    for (int i = 0; i < 60; i++)
        deep[i] = i % 3 == 0 ? "linear out=64" : i % 3 == 1 ? "relu" : "layernorm";
    uint64_t off = lane_floats(deep, 60, 64, &c), off_lstm = lane_floats(recurrent, 4, 800, &c);
    c.checkpointing = 1;
    uint64_t on = lane_floats(deep, 60, 64, &c), on_lstm = lane_floats(recurrent, 4, 800, &c);
    /* 20 x 2 activations of 64 x 64, two gradients; then 5 borders and the largest rest
     */
    CHECK_EQ(off, (40 + 2) * 4096);
    CHECK(on <= 14 * 4096);
    CHECK(on_lstm < off_lstm / 2);
    c.segments_max = 2;
    CHECK(lane_floats(deep, 60, 64, &c) > on && lane_floats(deep, 60, 64, &c) < off * 2 / 3);
    c.with_optimizer = 0;
    c.checkpointing = 0;
    uint64_t fisher = lane_floats(recurrent, 4, 800, &c);
    c.checkpointing = 1; /* the Fisher information needs all */
    CHECK_EQ(lane_floats(recurrent, 4, 800, &c), fisher);
}

static uint64_t parts_of(const char *const *lines, uint32_t count, const struct step_config *c)
{
    struct model m;
    struct err e;
    CHECK_OK(model_open_input(&m, lines, count, &(struct model_input){.values = 33, .graphs = 1},
                              "cosine", &e),
             e);
    uint64_t parts = config_on(&m, c).slice_parts;
    model_close(&m);
    return parts;
}

/* Each part reads the weights behind the pool anew: a wide head has larger parts, a wider one none.
 * Parts that are twice as large have at most twice the nodes. */
TEST(slices_are_cut_as_far_as_that_pays)
{
    const char *lines[] = {"gcn out=128",    "relu",          "gcn out=128",
                           "pool kind=mean", "linear out=20", "linear out=20"};
    static const struct {
        const char *first, *second;
        uint64_t parts;
    } heads[] = {{"linear out=20", "linear out=20", 4},
                 {"linear out=512", "linear out=1000", 2},
                 {"linear out=1000", "linear out=4000", 1}};
    struct step_config c = {.batch_rows_max = 64,
                            .slice_rows = 32,
                            .threads = 1,
                            .with_optimizer = 1,
                            .checkpointing = 1,
                            .slice_parts = step_slice_parts(1, 32),
                            .batch_nodes_max = 64 * 100,
                            .slice_nodes_max = 8 * 100};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        lines[4] = heads[i].first;
        lines[5] = heads[i].second;
        CHECK_EQ(parts_of(lines, 6, &c), heads[i].parts);
    }
    struct model m;
    struct err e;
    lines[4] = "linear out=256";
    CHECK_OK(model_open_input(&m, lines, 5, &(struct model_input){.values = 33, .graphs = 1},
                              "cosine", &e),
             e);
    struct step_config on = config_on(&m, &c);
    CHECK_EQ(on.slice_rows * on.slice_parts, 32);
    CHECK_EQ(on.slice_nodes_max * on.slice_parts, 32 * 100);
    model_close(&m);
}

/* Five blocks of a graph network, slices of 64 graphs of 24 nodes: a part is an eighth. */
TEST(checkpointing_leaves_a_fifth_of_a_graph_networks_activations)
{
    const char *lines[33] = {"linear out=256"};
    static const char *const block[] = {"residual_begin", "gcn out=256",    "layernorm",
                                        "relu",           "dropout p=0.15", "residual_end"};
    struct step_config c = {.batch_rows_max = 64,
                            .slice_rows = 64,
                            .threads = 1,
                            .with_optimizer = 1,
                            .batch_nodes_max = 64 * 24,
                            .batch_edges_max = 64 * 60,
                            .slice_nodes_max = 64 * 24};
    for (int i = 0; i < 30; i++)
        lines[1 + i] = block[i % 6];
    lines[31] = "pool kind=mean";
    lines[32] = "linear out=1000";
    uint64_t off = lane_floats(lines, 33, 32, &c);
    c.checkpointing = 1;
    c.slice_parts = step_slice_parts(1, c.slice_rows);
    c.slice_nodes_max /= c.slice_parts;
    CHECK(5 * lane_floats(lines, 33, 32, &c) <= off);
    c.threads = 2; /* one slice: one lane */
    CHECK(5 * lane_floats(lines, 33, 32, &c) <= off);
}
