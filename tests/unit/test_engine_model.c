/* test_engine_model.c - models from text: shapes, names, errors that name place and key; fresh
 * weights; the plan. */
#include <math.h>

#include "engine/layer.h"
#include "engine/layer_reference.h"
#include "engine/model.h"
#include "engine/plan.h"
#include "tests/test.h"

static const char *const layers[] = {"linear out=256", "relu", "dropout p=0.15", "linear  out=10 "};
static const char *const loss = "softmax_cross_entropy";

TEST(model_infers_shapes_and_names)
{
    struct model m;
    struct err e;
    CHECK_OK(model_open(&m, layers, 4, 784, loss, &e), e);
    CHECK_EQ(m.outputs, 10);
    CHECK_EQ(m.tensor_count, 4);
    CHECK_EQ(m.parameter_count, 784 * 256 + 256 + 2560 + 10);
    CHECK_STR(m.tensors[0].name, "0.weight");
    CHECK_STR(m.tensors[3].name, "3.bias");
    CHECK(m.tensors[0].rank == 2 && m.tensors[0].dims[0] == 256 && m.tensors[0].dims[1] == 784);
    CHECK(m.tensors[3].rank == 1 && m.tensors[3].dims[0] == 10);
    CHECK_EQ(m.tensors[2].first, 784 * 256 + 256);
    CHECK_EQ(m.tensors[2].count, 2560);
    model_close(&m);
    model_close(&m);
}

TEST(model_text_reads_back)
{
    struct model m, again;
    struct err e;
    char text[512], second[512];
    CHECK_OK(model_open(&m, layers, 4, 784, loss, &e), e);
    CHECK_OK(model_text(&m, text, sizeof text, &e), e);
    CHECK_STR(text, "inputs=784 loss=softmax_cross_entropy\n"
                    "linear out=256\nrelu\ndropout p=0.15\nlinear out=10\n");
    CHECK_OK(model_from_text(&again, text, &e), e);
    CHECK_OK(model_text(&again, second, sizeof second, &e), e);
    CHECK_STR(second, text);
    for (size_t bytes = 0; bytes <= strlen(text); bytes++)
        CHECK(model_text(&m, second, bytes, &e) < 0);
    CHECK_HAS(e.text, "model as text");
    model_close(&m);
    model_close(&again);
}

static void refused(const char *const *list, uint32_t count, uint64_t inputs, const char *loss_name,
                    const char *part)
{
    struct model m;
    struct err e;
    CHECK(model_open(&m, list, count, inputs, loss_name, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, part);
    model_close(&m);
}

TEST(model_refuses_bad_lines)
{
    static const struct {
        const char *line, *part;
    } cases[] = {
        {"lineer out=3",
         "layer 1: unknown type 'lineer'; accepted: linear, relu, gelu, silu, tanh"},
        {"", "layer 1: unknown type ''"},
        {"linear", "layer 1 (linear): key 'out' is missing"},
        {"linear width=3", "layer 1 (linear): unknown key 'width'; accepted: out"},
        {"linear out=3 out=4", "layer 1 (linear): key 'out' is given twice"},
        {"linear out", "'out' is not of the form key=value"},
        {"linear out=0", "key 'out' is '0'; accepted: a whole number from 1 to"},
        {"linear out=2.5", "key 'out' is '2.5'"},
        {"linear out=3x", "key 'out' is '3x'"},
        {"linear out=", "key 'out' is ''"},
        {"linear out=nan", "key 'out' is 'nan'"},
        {"linear out=99999999", "key 'out' is '99999999'"},
        {"dropout p=1", "layer 1 (dropout): key 'p' is '1'; accepted: a number from 0 to below 1"},
        {"dropout p=-0.1", "key 'p' is '-0.1'"},
        {"relu p=1", "layer 1 (relu): unknown key 'p'; it has no keys"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const list[] = {"linear out=4", cases[i].line};
        refused(list, 2, 8, loss, cases[i].part);
    }
}

TEST(model_refuses_bad_sizes)
{
    const char *const relu[] = {"relu"};
    const char *many[MODEL_LAYERS_MAX + 1];
    char line[600];
    for (int i = 0; i <= MODEL_LAYERS_MAX; i++)
        many[i] = "linear out=2";
    memset(line, 'x', sizeof line - 1);
    line[sizeof line - 1] = '\0';
    const char *const wide[] = {line};
    struct model m;
    struct err e;
    refused(layers, 0, 784, loss, "it has 0 layers");
    refused(many, MODEL_LAYERS_MAX + 1, 784, loss, "it has 257 layers");
    refused(layers, 4, 0, loss, "its input has 0 values");
    refused(layers, 4, 784, "mse", "unknown loss 'mse'; accepted: softmax_cross_entropy, mean");
    refused(layers, 4, 784, "l1 delta=1",
            "loss l1 is followed by ' delta=1'; accepted: missing, weights=");
    refused(layers, 4, 784, "huber delta=0", "accepted: delta=NUMBER above 0");
    refused(relu, 1, 784, loss, "none of its 1 layers has parameters");
    refused(wide, 1, 784, loss, "its text has 599 bytes");
    CHECK_OK(model_open(&m, many, MODEL_LAYERS_MAX, 784, loss, &e), e); /* the limit itself */
    CHECK_EQ(m.tensor_count, 2 * MODEL_LAYERS_MAX);
    model_close(&m);
}

TEST(model_refuses_bad_texts)
{
    static const char *const texts[] = {"",
                                        "\n",
                                        "loss=softmax_cross_entropy\nrelu\n",
                                        "inputs=7 loss=softmax_cross_entropy more\nlinear out=2\n",
                                        "inputs=x loss=softmax_cross_entropy\nlinear out=2\n",
                                        "inputs=7 loss=softmax_cross_entropy\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct model m;
        struct err e;
        CHECK(model_from_text(&m, texts[i], &e) < 0);
        CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    }
}

TEST(fresh_weights_are_pytorchs_and_repeat)
{
    struct model m;
    struct err e;
    CHECK_OK(model_open(&m, layers, 4, 784, loss, &e), e);
    float *a = malloc(m.parameter_count * sizeof *a), *b = malloc(m.parameter_count * sizeof *b);
    model_initialise(&m, 5, a);
    model_initialise(&m, 5, b);
    CHECK(memcmp(a, b, m.parameter_count * sizeof *a) == 0);
    model_initialise(&m, 6, b);
    CHECK(memcmp(a, b, m.parameter_count * sizeof *a) != 0);
    for (uint32_t t = 0; t < m.tensor_count; t++) {
        double bound = 1 / sqrt(t < 2 ? 784 : 256), largest = 0, squares = 0;
        for (uint64_t i = 0; i < m.tensors[t].count; i++) {
            double x = (double)a[m.tensors[t].first + i];
            largest = fabs(x) > largest ? fabs(x) : largest;
            squares += x * x;
        }
        CHECK(largest <= bound && largest > 0.7 * bound);
        if (m.tensors[t].count > 1000)
            CHECK(fabs(squares / (double)m.tensors[t].count / (bound * bound / 3) - 1) < 0.05);
    }
    free(a), free(b);
    model_close(&m);
}

/* One takes most early on the host, the other late, and of the device always. */
TEST(plan_is_the_most_of_two_at_each_time)
{
    struct plan p = {.count = 0}, other = {.count = 0};
    for (int i = 0; i < 2; i++) {
        plan_add(i ? &other : &p, "trainerd", "parameters", 3);
        plan_add_in(i ? &other : &p, PLAN_TRAINING_ARRIVES, "loaderd", "reader", 5);
        plan_add(i ? &other : &p, PLAN_DEVICE, "protected", i ? 20 : 10);
        plan_add_in(i ? &other : &p, PLAN_TRAINING_ARRIVES, "trainerd", "arena", i ? 4 : 8);
        plan_add_in(i ? &other : &p, PLAN_ALWAYS - PLAN_TRAINING_ARRIVES, "trainerd", "rows",
                    i ? 9 : 2);
    }
    plan_most(&p, &other);
    CHECK_EQ(plan_total(&p, NULL), 3 + 5 + 8);
    CHECK_EQ(plan_total(&p, "trainerd"), 3 + 9);
    CHECK_EQ(plan_total(&p, PLAN_DEVICE), 20);
    CHECK_EQ(p.count, 5);
    CHECK_EQ(p.rows[0].phases, PLAN_ALWAYS); /* what they share is there once */
    struct plan same = p;
    plan_most(&p, &other);
    CHECK(memcmp(&p, &same, sizeof p) == 0);
}

TEST(plan_adds_up_and_prints)
{
    struct plan p = {.count = 0};
    char text[2048];
    plan_add(&p, "trainerd", "parameters", 3 << 20);
    plan_add(&p, "fisherd", "block", 1 << 20);
    plan_add(&p, "trainerd", "moments", 6 << 20);
    CHECK_EQ(plan_total(&p, "trainerd"), 9 << 20);
    CHECK_EQ(plan_total(&p, NULL), 10 << 20);
    plan_add_in(&p, PLAN_TRAINING_ARRIVES, "trainerd", "arena", 2 << 20);
    plan_add_in(&p, PLAN_ALL_ARRIVED, "fisherd", "arena", 3 << 20);
    CHECK_EQ(plan_total(&p, "trainerd"), 11 << 20);
    CHECK_EQ(plan_total(&p, "fisherd"), 4 << 20);
    CHECK_EQ(plan_total(&p, NULL), 13 << 20); /* not at the same time: 9 + 4 */
    p.count = 3;
    FILE *f = fmemopen(text, sizeof text, "w");
    plan_print(&p, f);
    fclose(f);
    CHECK_HAS(text, "9.00");
    CHECK_HAS(text, "10.00");
    CHECK(strstr(text, "moments") < strstr(text, "block")); /* stages stay together */
}

TEST(the_reference_tells_every_layer_and_loss)
{
    static char text[16384];
    FILE *f = fmemopen(text, sizeof text, "w");
    layer_reference_print(f);
    fclose(f);
    for (int i = 0; layer_types[i]; i++) {
        char row[64];
        snprintf(row, sizeof row, "\n| `%s` | %.20s", layer_types[i]->name,
                 layer_types[i]->purpose);
        CHECK_HAS(text, row);
    }
    CHECK_HAS(text, "`p` (number from 0 to below 1)");
    CHECK_HAS(text, "`layers` (whole number from 1 to 8; without it 1)");
    CHECK_HAS(text, "`bidirectional` (false or true; without it false)");
    CHECK_HAS(text, "| `huber` | a number for each output | mae, r2, r2_zero, cosine, loss |");
}
