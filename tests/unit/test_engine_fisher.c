/* test_engine_fisher.c - labels of the Fisher information, and what becomes of gradients that are
 * not finite. The values are compared in engine_fixture.c and tests/reference. */
#include <math.h>

#include "engine/factors.h"
#include "engine/labels.h"
#include "engine/ops.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

enum { DRAWS = 20000 };

static const struct backend *const cpu = &backend_cpu;

TEST(drawn_classes_have_the_probabilities_of_softmax)
{
    static float z[DRAWS][3];
    static uint32_t classes[DRAWS], again[DRAWS];
    const double logits[3] = {0.3, -1.2, 1.1};
    double sum = 0;
    uint64_t counts[3] = {0};
    for (int i = 0; i < DRAWS; i++)
        for (int c = 0; c < 3; c++)
            z[i][c] = (float)logits[c];
    op_classes_draw(cpu, matrix_of(z[0], DRAWS, 3), 7, 100, classes);
    op_classes_draw(cpu, matrix_of(z[0], DRAWS - 50, 3), 7, 150, again);
    CHECK(memcmp(classes + 50, again, (DRAWS - 50) * sizeof *again) == 0); /* of the place alone */
    for (int i = 0; i < DRAWS; i++)
        counts[classes[i]]++;
    for (int c = 0; c < 3; c++)
        sum += exp(logits[c]);
    for (int c = 0; c < 3; c++) {
        double p = exp(logits[c]) / sum;
        CHECK(fabs((double)counts[c] / DRAWS - p) < 5 * sqrt(p * (1 - p) / DRAWS));
    }
}

TEST(drawn_values_have_the_variance_of_their_loss)
{
    static float z[DRAWS][2], y[DRAWS][2];
    double mean = 0, squares = 0, ones = 0, n = DRAWS;
    for (int i = 0; i < DRAWS; i++)
        z[i][0] = z[i][1] = 0.7f;
    op_values_draw(cpu, ELEMENT_LOSS_SQUARED, matrix_of(z[0], DRAWS, 2), 3, 0,
                   matrix_of(y[0], DRAWS, 2));
    for (int i = 0; i < DRAWS; i++) {
        mean += (double)y[i][1] / n;
        squares += pow((double)y[i][1] - 0.7, 2) / n;
    }
    CHECK(fabs(mean - 0.7) < 5 / sqrt(n) && fabs(squares - 1) < 5 * sqrt(2 / n)); /* 2 / 2 */
    op_values_draw(cpu, ELEMENT_LOSS_BINARY_CROSS_ENTROPY, matrix_of(z[0], DRAWS, 2), 3, 0,
                   matrix_of(y[0], DRAWS, 2));
    for (int i = 0; i < DRAWS; i++) {
        CHECK(y[i][0] == 0 || y[i][0] == 1);
        ones += (double)y[i][0] / n;
    }
    CHECK(fabs(ones - 1 / (1 + exp(-0.7))) < 2.5 / sqrt(n));
}

struct released {
    uint64_t end, most, calls;
};

static void release(void *argument, uint64_t first, uint64_t count)
{
    struct released *r = argument;
    CHECK(first == r->end || first == 0); /* in order, wave after wave */
    r->end = first + count;
    r->most = count > r->most ? count : r->most;
    r->calls++;
}

TEST(sums_are_released_in_order_and_keep_their_bits)
{
    static const char *const layers[] = {"linear out=600", "tanh", "linear out=700",
                                         "linear out=4"};
    struct fixture_config c = {
        .layers = layers, .count = 4, .loss = "mean_squared_error", .evaluate_only = 1};
    struct fixture f;
    struct err e;
    struct released r = {0};
    fixture_open(&f, &c);
    uint64_t count = f.m.parameter_count;
    float *whole = calloc(count, sizeof *whole), *pieces = calloc(count, sizeof *pieces);
    struct fisher_sums to = {.count = count, .at = whole};
    CHECK_OK(stepper_fisher(f.s, FIXTURE_ROWS, &to, &e), e);
    to.at = pieces;
    to.release = release;
    to.argument = &r;
    to.resident = 100000;
    CHECK_OK(stepper_fisher(f.s, FIXTURE_ROWS, &to, &e), e);
    CHECK(memcmp(whole, pieces, count * sizeof *whole) == 0);
    CHECK(r.end == count && r.calls > 4 && r.most < 100000 + 65536);
    free(whole), free(pieces);
    fixture_close(&f);
}

/* The sums of a model, which the caller frees. */
static float *sums_of(const char *const *layers, uint32_t count)
{
    struct fixture_config c = {
        .layers = layers, .count = count, .loss = "mean_squared_error", .evaluate_only = 1};
    struct fixture f;
    struct err e;
    fixture_open(&f, &c);
    float *sums = calloc(f.m.parameter_count, sizeof *sums);
    struct fisher_sums to = {.count = f.m.parameter_count, .at = sums};
    CHECK_OK(stepper_fisher(f.s, FIXTURE_ROWS, &to, &e), e);
    fixture_close(&f);
    return sums;
}

TEST(dropout_is_off)
{
    static const char *const with[] = {"linear out=9", "tanh", "dropout p=0.5", "linear out=4"};
    static const char *const without[] = {"linear out=9", "tanh", "linear out=4"};
    float *a = sums_of(with, 4), *b = sums_of(without, 3);
    CHECK(a[0] > 0 && memcmp(a, b, (9 * (FIXTURE_INPUTS + 1) + 4 * 10) * sizeof *a) == 0);
    free(a), free(b);
}

static void refused(const char *loss, const char *lines, enum fisher_labels labels,
                    const char *words)
{
    struct model m;
    struct err e;
    char text[256];
    snprintf(text, sizeof text, "inputs=6 loss=%s\n%s", loss, lines);
    CHECK_OK(model_from_text(&m, text, &e), e);
    CHECK(fisher_labels_check(&m, labels, &e) < 0 && e.code == EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, words);
    CHECK_OK(fisher_labels_check(&m, FISHER_TRUE, &e), e);
    model_close(&m);
}

TEST(labels_that_a_loss_has_not_are_refused)
{
    refused("l1", "linear out=2", FISHER_SAMPLED, "the loss l1 is no likelihood");
    refused("huber delta=1", "linear out=2", FISHER_GAUSSIAN, "accepted: true");
    refused("cosine", "linear out=2", FISHER_ALL, "fisher_labels is all");
    refused("softmax_cross_entropy", "linear out=2", FISHER_GAUSSIAN,
            "accepted: true, sampled, all");
    refused("mean_squared_error", "linear out=2", FISHER_ALL, "accepted: true, sampled, gaussian");
    refused("softmax_cross_entropy", "embedding count=9 out=3\nlinear out=9", FISHER_ALL,
            "a class at each of 6 steps");
}

/* Sums of products, of which rounding leaves something below zero where a row's gradients cancel.
 */
TEST(factors_below_zero_are_nothing)
{
    float factors[] = {-1e-9f, 2, /* columns: */ 1, -1e-12f, 1, /* bias: */ 3, 4}, values[8];
    struct model m;
    struct err e;
    CHECK_OK(model_from_text(&m, "inputs=3 loss=mean_squared_error\nlinear out=2", &e), e);
    CHECK_EQ(factors_count(&m), 7);
    factors_expand(&m, factors, 0.5, 0, 8, values);
    CHECK(memcmp(values, (const float[]){0, 0, 0, 0.5f, 0, 0.5f, 1.5f, 2}, sizeof values) == 0);
    factors[1] = -1;
    factors_expand(&m, factors, 0.5, 2, 3, values);
    CHECK(values[0] == 0 && values[1] == 0 && values[2] == 0);
    model_close(&m);
}

/* Multiply the six tensors, and see what the Fisher information is refused with. */
static void broken(const float *factors, const char *words, int layer, uint64_t rows)
{
    static const char *const layers[] = {"linear out=7", "tanh", "linear out=5", "linear out=4"};
    struct fixture_config c = {
        .layers = layers, .count = 4, .loss = "mean_squared_error", .evaluate_only = 1};
    struct fixture f;
    struct err e;
    fixture_open(&f, &c);
    float *sums = calloc(f.m.parameter_count, sizeof *sums), *w = stepper_parameters(f.s);
    for (uint32_t t = 0; t < f.m.tensor_count; t++)
        for (uint64_t i = 0; i < f.m.tensors[t].count; i++)
            *w++ *= factors[t];
    struct fisher_sums to = {.count = f.m.parameter_count, .at = sums, .position = 1000};
    CHECK(stepper_fisher(f.s, FIXTURE_ROWS, &to, &e) < 0 && e.code == EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, words);
    CHECK(stepper_fault(f.s)->layer == layer && stepper_fault(f.s)->rows == rows);
    free(sums);
    fixture_close(&f);
}

TEST(gradients_that_are_not_finite_are_named)
{
    broken((const float[]){1, 1, 1, 1, INFINITY, 1},
           "the output of layer 3 (linear) is not finite at sample 1000", 3, 1);
    /* layer 2 sees zeroes, so that its weights meet the gradient alone */
    broken((const float[]){0, 0, 1e38f, 1, 1, 1e6f},
           "the gradient of layer 0 (linear) is not finite at sample 1000", 0, 1);
    broken((const float[]){1, 1, 1, 1, 1, 1e25f}, "the squared gradients of layer 3 (linear)", 3,
           FIXTURE_ROWS);
}
