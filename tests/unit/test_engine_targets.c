/* test_engine_targets.c - targets that are missing or weigh: one mean over the whole batch however
 * it is cut, what counts nothing, metrics, and what is refused. Gradients and squares against
 * PyTorch are in tests/reference/test_targets_torch.py. */
#include <math.h>
#include <string.h>

#include "engine/device.h"
#include "engine/scores.h"
#include "proto/weighing.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

enum { OUTPUTS = 6 };
static const char *const layers[] = {"linear out=7", "tanh", "linear out=6"};

/* A fixture whose rows have weights, and the loss that it is opened with. */
struct weighed {
    struct fixture f;
    float weights[FIXTURE_ROWS][OUTPUTS];
    const void *rows[FIXTURE_ROWS];
};

/* The fixture's stepper is exchanged for one with `weights` values a row. */
static void weighed_open(struct weighed *w, const char *loss, uint64_t weights, int threads,
                         uint64_t batch, const char *metric)
{
    struct err e;
    fixture_open(&w->f, &(struct fixture_config){.layers = layers, .count = 3, .loss = loss});
    struct step_config c = {.batch_rows_max = batch,
                            .slice_rows = 5,
                            .threads = threads,
                            .with_optimizer = 1,
                            .weights = weights,
                            .seed = 1,
                            .metric = metric,
                            .accumulates = 1};
    stepper_close(&w->f.s);
    CHECK_OK(stepper_open(&w->f.s, &w->f.m, &c, &e), e);
    model_initialise(&w->f.m, 3, stepper_parameters(w->f.s));
    for (int r = 0; r < FIXTURE_ROWS; r++) {
        for (int k = 0; k < OUTPUTS; k++) {
            w->weights[r][k] = (float)((r * 7 + k) % 5) / 2;
            if (w->f.m.targets_missing && (r + 3 * k) % 4 == 0)
                w->f.values[r][k] = NAN;
        }
        w->rows[r] = w->weights[r];
    }
    w->f.gather.weights = weights;
    w->f.gather.weight_rows = w->rows;
    strcpy(w->f.gather.weight_type, "f32");
}

static int rows_gather(struct weighed *w, uint64_t first, uint64_t count, uint64_t *bad,
                       struct err *e)
{
    struct gather_config g = w->f.gather;
    g.weight_rows += first;
    return stepper_gather(w->f.s, &g, 0, count, w->f.feature_rows + first, w->f.target_rows + first,
                          bad, e);
}

/* A step over all rows in micro-batches of `micro`. */
static struct step_result step_make(struct weighed *w, uint64_t micro, uint64_t t)
{
    struct step_result r;
    struct err e;
    uint64_t bad;
    stepper_batch(w->f.s, FIXTURE_ROWS, t, NULL, 0);
    for (uint64_t at = 0; at < FIXTURE_ROWS; at += micro) {
        CHECK_OK(rows_gather(w, at, micro, &bad, &e), e);
        stepper_accumulate(w->f.s, micro);
    }
    CHECK_OK(stepper_update(w->f.s, t, &fixture_adamw, &r, &e), e);
    return r;
}

TEST(a_weighted_batch_has_the_same_bits_however_it_is_cut)
{
    static const struct {
        uint64_t micro;
        int threads;
    } cuts[] = {{FIXTURE_ROWS, 1}, {FIXTURE_ROWS, 2}, {25, 2}, {10, 2}, {5, 1}};
    static const char *const losses[] = {"mean_squared_error missing weights=1,2,0,1,0.5,4",
                                         "cosine missing",
                                         "softmax_cross_entropy weights=1,2,0,1,3,1"};
    static const uint64_t weights[] = {1, OUTPUTS, 1};
    for (int l = 0; l < 3; l++) {
        float kept[512];
        struct step_result first = {0};
        for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
            struct weighed w;
            weighed_open(&w, losses[l], weights[l], cuts[i].threads, cuts[i].micro, NULL);
            size_t bytes = w.f.m.parameter_count * sizeof(float);
            struct step_result r = {0};
            CHECK(bytes <= sizeof kept);
            for (uint64_t t = 1; t <= 4; t++)
                r = step_make(&w, cuts[i].micro, t);
            if (i == 0)
                memcpy(kept, stepper_parameters(w.f.s), bytes);
            first = i ? first : r;
            CHECK(memcmp(kept, stepper_parameters(w.f.s), bytes) == 0);
            CHECK(r.loss == first.loss && r.gradient_norm == first.gradient_norm);
            fixture_close(&w.f);
        }
    }
}

TEST(weights_of_one_are_no_weights)
{
    struct weighed w, plain;
    weighed_open(&w, "mean_squared_error weights=1,1,1,1,1,1", 1, 2, FIXTURE_ROWS, NULL);
    weighed_open(&plain, "mean_squared_error", 0, 2, FIXTURE_ROWS, NULL);
    for (int r = 0; r < FIXTURE_ROWS; r++)
        w.weights[r][0] = 1;
    for (uint64_t t = 1; t <= 3; t++)
        CHECK(step_make(&w, FIXTURE_ROWS, t).loss == step_make(&plain, FIXTURE_ROWS, t).loss);
    CHECK(memcmp(stepper_parameters(w.f.s), stepper_parameters(plain.f.s),
                 w.f.m.parameter_count * sizeof(float)) == 0);
    fixture_close(&w.f);
    fixture_close(&plain.f);
}

TEST(a_batch_in_which_nothing_counts_has_no_gradient)
{
    struct weighed w;
    struct step_result r;
    struct err e;
    uint64_t bad;
    weighed_open(&w, "l1 missing", 0, 2, FIXTURE_ROWS, NULL);
    for (int i = 0; i < FIXTURE_ROWS; i++)
        for (int k = 0; k < OUTPUTS; k++)
            w.f.values[i][k] = NAN;
    CHECK_OK(rows_gather(&w, 0, FIXTURE_ROWS, &bad, &e), e);
    CHECK_OK(stepper_train(w.f.s, FIXTURE_ROWS, 1, 1, &fixture_still, NULL, 0, &r, &e), e);
    CHECK(r.loss == 0 && r.gradient_norm == 0 && r.empty);
    stepper_evaluate_begin(w.f.s);
    CHECK_OK(stepper_evaluate(w.f.s, FIXTURE_ROWS, &e), e);
    CHECK(isnan(stepper_evaluate_end(w.f.s).loss));
    fixture_close(&w.f);
}

/* Squares weigh what their targets do, and so does what they are divided by: the same quotient for
 * weights of another size (by a power of 2: the same bits), and the same sums for every batch. */
TEST(squares_and_what_divides_them_grow_with_the_weights)
{
    static const float sizes[] = {1, 1, 4};
    static const uint64_t batches[] = {FIXTURE_ROWS, 10, 25};
    float sums[3][256] = {0};
    double weight[3] = {0};
    for (int i = 0; i < 3; i++) {
        struct weighed w;
        struct err e;
        uint64_t bad;
        struct step_config c = {
            .batch_rows_max = FIXTURE_ROWS, .slice_rows = 5, .threads = 2, .weights = 1};
        weighed_open(&w, "mean_squared_error missing weights=1,2,0,1,0.5,4", 1, 2, FIXTURE_ROWS,
                     NULL);
        stepper_close(&w.f.s);
        CHECK_OK(stepper_open(&w.f.s, &w.f.m, &c, &e), e);
        model_initialise(&w.f.m, 3, stepper_parameters(w.f.s));
        CHECK(w.f.m.parameter_count <= 256);
        for (int r = 0; r < FIXTURE_ROWS; r++)
            w.weights[r][0] *= sizes[i];
        for (uint64_t at = 0; at < FIXTURE_ROWS; at += batches[i]) {
            struct fisher_sums to = {
                .count = w.f.m.parameter_count, .at = sums[i], .weight = &weight[i]};
            CHECK_OK(rows_gather(&w, at, batches[i], &bad, &e), e);
            CHECK_OK(stepper_fisher(w.f.s, batches[i], &to, &e), e);
        }
        CHECK(weight[i] > 0 && weight[i] == weight[0] * (double)sizes[i]);
        for (uint64_t k = 0; k < w.f.m.parameter_count; k++)
            CHECK(sums[i][k] == sums[0][k] * sizes[i]);
        fixture_close(&w.f);
    }
}

/* The mean absolute error over what is there and weighs, and R2 with each target's own mean. */
static void metrics_by_hand(const struct weighed *w, const float *z, double *mae, double *r2)
{
    double errors = 0, squares = 0, spread = 0, all = 0;
    for (int k = 0; k < OUTPUTS; k++) {
        double sum = 0, square = 0, count = 0;
        for (int r = 0; r < FIXTURE_ROWS; r++) {
            double y = (double)w->f.values[r][k], off = (double)z[r * OUTPUTS + k] - y;
            if (isnan(y) || !(w->weights[r][k] > 0))
                continue;
            errors += fabs(off), squares += off * off;
            sum += y, square += y * y, count++;
        }
        spread += square - sum * sum / count;
        all += count;
    }
    *mae = errors / all;
    *r2 = 1 - squares / spread;
}

TEST(metrics_count_what_is_there_once)
{
    static const char *const metrics[] = {"mae", "r2"};
    for (int m = 0; m < 2; m++) {
        struct weighed w;
        struct err e;
        uint64_t bad;
        double by_hand[2];
        float z[FIXTURE_ROWS * OUTPUTS];
        struct scores *scores;
        struct score list[SCORES_MAX];
        weighed_open(&w, "mean_squared_error missing weights=1,2,3,1,0.5,4", OUTPUTS, 2,
                     FIXTURE_ROWS, metrics[m]);
        CHECK_OK(rows_gather(&w, 0, FIXTURE_ROWS, &bad, &e), e);
        stepper_evaluate_begin(w.f.s);
        CHECK_OK(stepper_predict(w.f.s, FIXTURE_ROWS, z, &e), e);
        struct evaluation_result r = stepper_evaluate_end(w.f.s);
        metrics_by_hand(&w, z, &by_hand[0], &by_hand[1]);
        CHECK(fabs(r.metric - by_hand[m]) < 1e-9);
        CHECK_OK(scores_open(&scores, &w.f.m, FIXTURE_ROWS, &e), e);
        scores_add(scores, w.f.s, z, FIXTURE_ROWS);
        uint32_t count = scores_read(scores, list);
        CHECK(list[0].value == r.loss);
        for (uint32_t i = 0; i < count; i++)
            if (strcmp(list[i].name, metrics[m]) == 0)
                CHECK(list[i].value == r.metric);
        scores_close(&scores);
        fixture_close(&w.f);
    }
}

static void loss_refused(const char *loss, const char *part)
{
    struct model m;
    struct err e;
    CHECK(model_open(&m, layers, 3, 4, loss, &e) < 0);
    CHECK_HAS(e.text, part);
}

TEST(weights_that_cannot_be_are_named)
{
    struct weighed w;
    struct model m, again;
    struct err e;
    uint64_t bad;
    char text[MODEL_TEXT_MAX], other[MODEL_TEXT_MAX];
    weighed_open(&w, "l1", OUTPUTS, 2, FIXTURE_ROWS, NULL);
    w.weights[31][4] = -1;
    CHECK(rows_gather(&w, 0, FIXTURE_ROWS, &bad, &e) < 0);
    CHECK_EQ(bad, 31);
    CHECK_HAS(e.text, "its weight 4 as float32 is -1; accepted: finite numbers from 0 on");
    fixture_close(&w.f);
    loss_refused("l1 weights=1,2",
                 "its targets have 2 weights; the loss l1 takes 6, one an output");
    loss_refused("l1 weights=1,2,-1,1,1,1", "accepted: numbers from 0 to");
    loss_refused("l1 weights=0,0,0,0,0,0", "not all of them 0");
    loss_refused("l1 missingly", "loss l1 is followed by ' missingly'");
    CHECK_OK(model_open(&m, layers, 3, 4, "huber delta=0.5 weights=1,0.1,0,2,3,1e30 missing", &e),
             e);
    CHECK_OK(model_text(&m, text, sizeof text, &e), e);
    CHECK_HAS(text, "loss=huber delta=0.5 missing weights=1,0.1,0,2,3,1e+30\n");
    CHECK_OK(model_from_text(&again, text, &e), e);
    CHECK_OK(model_text(&again, other, sizeof other, &e), e);
    CHECK_STR(other, text);
    CHECK_EQ(model_row_targets(&m), 6);
    CHECK_OK(weighing_width_check(1, 6, &e), e);
    CHECK_OK(weighing_width_check(6, 6, &e), e);
    CHECK(weighing_width_check(2, 6, &e) < 0);
    CHECK_HAS(e.text, "its weights are 2 values a row; accepted: one for the row, or one for each");
    model_close(&m);
    model_close(&again);
}

TEST(a_thousand_outputs_have_weights)
{
    enum { MANY = 2500 };
    static const char *const wide[] = {"linear out=2500"};
    struct model m, again;
    struct err e;
    char *loss = malloc(1 << 16), *text = malloc(MODEL_TEXT_MAX);
    size_t used = (size_t)sprintf(loss, "l1 weights=");
    for (int i = 0; i < MANY; i++)
        used += (size_t)sprintf(loss + used, "%s%.9g", i ? "," : "", (double)(float)(i + 1) / 7);
    CHECK_OK(model_open(&m, wide, 1, 4, loss, &e), e);
    CHECK_OK(model_text(&m, text, MODEL_TEXT_MAX, &e), e);
    CHECK_OK(model_from_text(&again, text, &e), e);
    CHECK_EQ(again.target_weight_count, MANY);
    CHECK(memcmp(again.target_weights, m.target_weights, MANY * sizeof *m.target_weights) == 0);
    model_close(&m);
    model_close(&again);
    free(loss), free(text);
}
