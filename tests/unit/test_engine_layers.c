/* test_engine_layers.c - activations, layer normalisation, residual pairs and sequences: functions
 * against long double, gradients by finite differences, per-sample squares against single rows,
 * shapes that do not go together. PyTorch comparisons are in tests/reference. */
#include <math.h>

#include "engine/layer.h"
#include "engine/ops.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

static const struct backend *const cpu = &backend_cpu;
static const char *const value_loss = "mean_squared_error";

static long double sigmoid(long double x)
{
    return 1 / (1 + expl(-x));
}

/* A kind's function by its definition. */
static long double wanted(enum activation kind, long double x)
{
    switch (kind) {
    case ACTIVATION_RELU:
        return x > 0 ? x : 0;
    case ACTIVATION_GELU:
        return x * erfcl(-x / sqrtl(2)) / 2;
    case ACTIVATION_SILU:
        return x * sigmoid(x);
    case ACTIVATION_TANH:
        return tanhl(x);
    default:
        return sigmoid(x);
    }
}

static int from_output(enum activation kind)
{
    return kind != ACTIVATION_GELU && kind != ACTIVATION_SILU;
}

/* Some units in the last place, more where the exponent
 * multiplies the rounding of its argument. */
TEST(activations_equal_their_functions)
{
    enum { COUNT = 60001 };
    static float x[COUNT], y[COUNT], one[COUNT], dx[COUNT];
    for (int i = 0; i < COUNT; i++)
        x[i] = (float)(i - COUNT / 2) / (i % 7 ? 3000.0f : 100000.0f), one[i] = 1;
    for (enum activation kind = 0; kind < ACTIVATION_COUNT; kind++) {
        op_activation_forward(cpu, kind, x, y, COUNT);
        op_activation_backward(cpu, kind, from_output(kind) ? y : x, one, dx, COUNT);
        for (int i = 0; i < COUNT; i++) {
            long double v = (long double)x[i], h = 1e-6L, exact = wanted(kind, v);
            long double slope = (wanted(kind, v + h) - wanted(kind, v - h)) / (2 * h);
            if (kind == ACTIVATION_RELU)
                slope = x[i] > 0;
            double bar = 6e-7 * (1 + (double)(v * v) / 8);
            if (!(fabsl((long double)y[i] - exact) <= bar * fabsl(exact) + 1e-37L))
                test_fail(__FILE__, __LINE__, "kind %d at %g: %.9g instead of %.9Lg", kind,
                          (double)x[i], (double)y[i], exact);
            if (!(fabsl((long double)dx[i] - slope) <= 1e-6L))
                test_fail(__FILE__, __LINE__, "kind %d at %g: slope %.9g instead of %.9Lg", kind,
                          (double)x[i], (double)dx[i], slope);
        }
    }
}

TEST(activations_at_the_ends)
{
    float x[] = {-INFINITY, -200, -1e-20f, 0, 1e-20f, 200, INFINITY, NAN}, y[8];
    for (enum activation kind = 0; kind < ACTIVATION_COUNT; kind++) {
        op_activation_forward(cpu, kind, x, y, 8);
        CHECK(isnan(y[7]));
        for (int i = 1; i < 6; i++)
            CHECK(isfinite(y[i]) && fabsl((long double)y[i] - wanted(kind, (long double)x[i])) <=
                                        2e-7L * fabsl(wanted(kind, (long double)x[i])) + 1e-34L);
        CHECK(kind == ACTIVATION_TANH || kind == ACTIVATION_SIGMOID ? y[6] == 1 : y[6] == INFINITY);
    }
}

struct chain {
    const char *lines[10];
    uint64_t inputs;
};

static const struct chain chains[] = {
    {{"linear out=17", "gelu", "linear out=9", "silu", "linear out=3"}, 13},
    {{"linear out=17", "tanh", "linear out=9", "sigmoid", "dropout p=0", "linear out=3"}, 13},
    {{"tanh", "linear out=8", "tanh", "layernorm", "linear out=3", "sigmoid"}, 13},
    {{"layernorm", "linear out=7", "layernorm", "gelu", "linear out=3", "layernorm"}, 13},
    {{"residual_begin", "linear out=13", "tanh", "residual_end", "linear out=3"}, 13},
    {{"linear out=9", "tanh", "residual_begin", "linear out=8", "silu", "residual_begin",
      "linear out=8", "residual_end", "linear out=9", "residual_end"},
     13},
    {{"linear out=5", "residual_begin", "residual_end", "sigmoid", "linear out=3"}, 13},
    {{"linear out=9", "residual_begin", "layernorm", "linear out=9", "dropout p=0", "residual_end",
      "relu", "linear out=2"},
     13},
    {{"sequence steps=4", "linear out=6", "gelu", "layernorm", "linear out=2"}, 12},
    {{"sequence steps=4", "linear out=6", "tanh", "pool kind=mean", "linear out=2"}, 12},
    {{"linear out=12", "sequence steps=3", "residual_begin", "linear out=4", "sigmoid",
      "residual_end", "pool kind=max", "linear out=2"},
     12},
    {{"sequence steps=4", "linear out=5", "pool kind=sum"}, 12},
    {{"linear out=8", "tanh", "sequence steps=2", "dropout p=0", "sequence steps=1",
      "linear out=2"},
     12},
    {{"sequence steps=5", "lstm out=4", "pool kind=last", "linear out=2"}, 10},
    {{"sequence steps=4", "linear out=5", "lstm out=3 layers=2 bidirectional=true dropout=0.4",
      "pool kind=mean", "linear out=2"},
     12},
    {{"sequence steps=1", "lstm out=4", "linear out=2"}, 10},
    {{"sequence steps=3", "lstm out=3 layers=3", "tanh", "lstm out=2 bidirectional=true"}, 12},
};

static struct fixture_config config_of(const struct chain *c)
{
    struct fixture_config f = {.layers = c->lines, .inputs = c->inputs, .loss = value_loss};
    while (f.count < 10 && c->lines[f.count])
        f.count++;
    return f;
}

enum { CHAINS = sizeof chains / sizeof chains[0] };

TEST_LIMIT(gradients_of_layers_equal_finite_differences, 200)
{
    for (int i = 0; i < CHAINS; i++) {
        struct fixture_config c = config_of(&chains[i]);
        fixture_check_gradient(&c, NULL, 0, NULL);
    }
}

/* Dropout inside an lstm is for training: one row's gradient there is not the Fisher's. */
static int has_dropout(const struct fixture_config *c)
{
    int found = 0;
    for (uint32_t i = 0; i < c->count; i++)
        found += strstr(c->layers[i], "dropout=") != NULL;
    return found;
}

TEST_LIMIT(squares_of_layers_equal_single_rows, 120)
{
    int checked = 0;
    for (int i = 0; i < CHAINS; i++) {
        struct fixture_config c = config_of(&chains[i]);
        if (has_dropout(&c))
            continue;
        fixture_check_squares(&c);
        checked++;
    }
    CHECK(checked == CHAINS - 1);
}

TEST(layers_give_the_same_bits_for_every_number_of_threads)
{
    for (int i = 0; i < CHAINS; i++) {
        struct fixture_config c = config_of(&chains[i]);
        float *kept = NULL;
        for (c.threads = 1; c.threads <= 4; c.threads++) {
            struct fixture f;
            fixture_open(&f, &c);
            fixture_check_bits(&f, &kept);
            fixture_close(&f);
        }
        free(kept);
    }
}

/* The mask belongs to the row of the batch and the step of the row, whichever slice it is in. */
TEST(dropout_inside_an_lstm_does_not_depend_on_slices)
{
    struct fixture_config c = config_of(&chains[14]);
    struct step_result first = {0}, r;
    struct fixture f;
    CHECK(has_dropout(&c));
    for (c.slice = 7; c.slice <= FIXTURE_ROWS; c.slice += 43) {
        fixture_open(&f, &c);
        r = fixture_train(&f, FIXTURE_ROWS, 3, 1, &fixture_still, NULL, 0);
        if (c.slice == 7)
            first = r;
        CHECK(fabs(r.loss / first.loss - 1) < 1e-6);
        CHECK(fabs(r.gradient_norm / first.gradient_norm - 1) < 1e-5);
        double other = fixture_train(&f, FIXTURE_ROWS, 4, 1, &fixture_still, NULL, 0).loss;
        CHECK(other != r.loss && fixture_evaluate(&f, FIXTURE_ROWS).loss != r.loss);
        fixture_close(&f);
    }
}

TEST(models_of_steps_read_back)
{
    static const char *const lines[] = {
        "sequence steps=6", "lstm out=8 layers=2 bidirectional=true dropout=0.1",
        "residual_begin",   "linear out=16",
        "residual_end",     "pool kind=max"};
    struct model m, again;
    struct err e;
    char text[512], second[512];
    CHECK_OK(model_open(&m, lines, 6, 12, "huber delta=0.25", &e), e);
    CHECK_EQ(m.outputs, 16);
    CHECK_EQ(m.tensor_count, 4 * 4 + 2);
    CHECK_STR(m.tensors[0].name, "1.weight_ih_l0");
    CHECK_STR(m.tensors[7].name, "1.bias_hh_l0_reverse");
    CHECK_STR(m.tensors[8].name, "1.weight_ih_l1");
    CHECK(m.tensors[0].dims[0] == 32 && m.tensors[0].dims[1] == 2);
    CHECK(m.tensors[8].dims[1] == 16 && m.tensors[9].dims[1] == 8 && m.tensors[10].rank == 1);
    CHECK_OK(model_text(&m, text, sizeof text, &e), e);
    CHECK_STR(text, "inputs=12 loss=huber delta=0.25\nsequence steps=6\n"
                    "lstm out=8 layers=2 bidirectional=true dropout=0.1\nresidual_begin\n"
                    "linear out=16\nresidual_end\npool kind=max\n");
    CHECK_OK(model_from_text(&again, text, &e), e);
    CHECK_OK(model_text(&again, second, sizeof second, &e), e);
    CHECK_STR(second, text);
    model_close(&m);
    model_close(&again);
}

TEST(shapes_that_do_not_go_together_are_refused)
{
    static const struct {
        const char *lines[4], *part;
    } cases[] = {
        {{"sequence steps=5", "linear out=2"},
         "layer 0 (sequence): 12 values a row (1 x 12) are not 5 equal steps"},
        {{"residual_begin", "linear out=11", "residual_end"},
         "layer 2 (residual_end): its input is 1 x 11, that of its residual_begin (layer 0) 1 x "
         "12"},
        {{"linear out=2", "residual_end"}, "layer 1 (residual_end) has no residual_begin"},
        {{"residual_begin", "linear out=2"}, "layer 0 (residual_begin) has no residual_end"},
        {{"sequence steps=4", "linear out=8388608", "pool kind=last"},
         "layer 1 (linear) makes 4 x 8388608 values of a row; accepted: up to 16777216"},
        {{"pool kind=first", "linear out=2"},
         "layer 0 (pool): key 'kind' is 'first'; accepted: last, mean, sum, max"},
        {{"pool", "linear out=2"}, "layer 0 (pool): key 'kind' is missing"},
        {{"lstm out=4 layers=9", "linear out=2"}, "key 'layers' is '9'; accepted: a whole number"},
        {{"lstm out=4 bidirectional=1", "linear out=2"}, "accepted: false, true"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model m;
        struct err e;
        uint32_t count = 0;
        while (cases[i].lines[count])
            count++;
        CHECK(model_open(&m, cases[i].lines, count, 12, "softmax_cross_entropy", &e) < 0);
        CHECK_HAS(e.text, cases[i].part);
        model_close(&m);
    }
}
