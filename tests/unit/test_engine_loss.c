/* test_engine_loss.c - losses of values and what evaluations tell: each operation against its
 * formula in long double, gradients by finite differences, metrics over batches and slices, targets
 * that no loss takes. */
#include <float.h>
#include <math.h>

#include "engine/loss.h"
#include "engine/ops.h"
#include "proto/metric.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

static const struct backend *const cpu = &backend_cpu;

enum { ROWS = 7, WIDTH = 19 };

static const char *const layers[] = {"linear out=17", "relu", "linear out=6"};
static const char *const losses[] = {"mean_squared_error", "l1", "huber delta=0.4", "cosine",
                                     "binary_cross_entropy"};

static float random_float(double scale)
{
    return (float)(scale * ((double)(test_random() >> 11) * 0x1p-52 - 1.0));
}

/* A row's loss by its definition, of targets that weigh w (NULL: 1 each); delta 0.4. What weighs
 * nothing is not looked at. */
static long double row_loss(int loss, const long double *z, const float *targets, const float *w)
{
    long double sum = 0, zz = 0, yy = 0, zy = 0, largest = w ? 0 : 1;
    for (int c = 0; c < WIDTH; c++) {
        long double u = w ? w[c] : 1;
        largest = fmaxl(largest, u);
        if (u == 0)
            continue;
        long double y = targets[c], size = fabsl(z[c] - y), p = 1 / (1 + expl(-z[c]));
        const long double each[] = {size * size, size,
                                    size <= 0.4L ? size * size / 2 : 0.4L * (size - 0.2L), 0,
                                    -y * logl(p) - (1 - y) * logl(1 - p)};
        sum += u * each[loss];
        zz += u * z[c] * z[c], yy += u * y * y, zy += u * z[c] * y;
    }
    if (loss == 3)
        return largest > 0 ? largest * (1 - zy / sqrtl(zz) / sqrtl(yy)) : 0;
    return sum / WIDTH;
}

static void weighted_run(int loss, struct matrix z, struct matrix y, const float *w, double *result,
                         struct matrix dz)
{
    const struct loss_type *type = loss_type_named(losses[loss][0] == 'h' ? "huber" : losses[loss]);
    struct loss_slice s = {.backend = cpu,
                           .outputs = z,
                           .values = y,
                           .weights = {w, z.columns, WEIGHT_ITSELF},
                           .delta = 0.4,
                           .divisor = 3,
                           .result = result,
                           .d = dz};
    type->slice(&s);
}

static void loss_run(int loss, struct matrix z, struct matrix y, double *result, struct matrix dz)
{
    weighted_run(loss, z, y, NULL, result, dz);
}

/* Of each row loss and, by central differences in long double, derivatives. */
static void rows_check(int loss, const float *z, const float *y, const float *w,
                       const double *result, const float *dz)
{
    for (int r = 0; r < ROWS; r++, z += WIDTH, y += WIDTH, dz += WIDTH) {
        long double at[WIDTH], h = 1e-7L;
        for (int c = 0; c < WIDTH; c++)
            at[c] = z[c];
        CHECK(fabsl(row_loss(loss, at, y, w) - result[r]) < 1e-12);
        for (int c = 0; c < WIDTH; c++) {
            at[c] += h;
            long double up = row_loss(loss, at, y, w);
            at[c] -= 2 * h;
            long double d = (up - row_loss(loss, at, y, w)) / (2 * h) / 3;
            at[c] += h;
            if (!(fabsl(d - (long double)dz[c]) < 1e-8 + 6e-8 * fabsl(d)))
                test_fail(__FILE__, __LINE__, "%s: d %.9g instead of %.9Lg", losses[loss],
                          (double)dz[c], d);
        }
        w = w ? w + WIDTH : NULL;
    }
}

TEST(losses_and_their_derivatives_equal_the_formulas)
{
    float z[ROWS * WIDTH], y[ROWS * WIDTH], dz[ROWS * WIDTH];
    double result[ROWS], only[ROWS];
    for (int i = 0; i < ROWS * WIDTH; i++)
        z[i] = random_float(3), y[i] = 0.5f + random_float(0.5);
    for (int loss = 0; loss < 5; loss++) {
        struct matrix zm = matrix_of(z, ROWS, WIDTH), ym = matrix_of(y, ROWS, WIDTH);
        loss_run(loss, zm, ym, result, matrix_of(dz, ROWS, WIDTH));
        loss_run(loss, zm, ym, only, matrix_of(NULL, ROWS, WIDTH));
        CHECK(memcmp(result, only, sizeof result) == 0);
        rows_check(loss, z, y, NULL, result, dz);
        float in_place[ROWS * WIDTH];
        memcpy(in_place, z, sizeof z);
        zm.at = in_place;
        loss_run(loss, zm, ym, result, zm);
        CHECK(memcmp(in_place, dz, sizeof dz) == 0);
    }
}

/* Weights up to 8; what weighs nothing is a NaN among the targets, and the second row is all that.
 */
TEST(weighted_losses_and_their_derivatives_equal_the_formulas)
{
    float z[ROWS * WIDTH], y[ROWS * WIDTH], w[ROWS * WIDTH], dz[ROWS * WIDTH];
    double result[ROWS];
    for (int i = 0; i < ROWS * WIDTH; i++) {
        z[i] = random_float(3), y[i] = 0.5f + random_float(0.5);
        w[i] = i / WIDTH == 1 || i % 4 == 1 ? 0 : 4 + random_float(3.9);
        y[i] = w[i] > 0 ? y[i] : NAN;
    }
    for (int loss = 0; loss < 5; loss++) {
        float there[ROWS * WIDTH]; /* a loss is given 0 for a NaN that weighs nothing (targets.c) */
        for (int i = 0; i < ROWS * WIDTH; i++)
            there[i] = w[i] > 0 ? y[i] : 0;
        weighted_run(loss, matrix_of(z, ROWS, WIDTH), matrix_of(there, ROWS, WIDTH), w, result,
                     matrix_of(dz, ROWS, WIDTH));
        rows_check(loss, z, y, w, result, dz);
        CHECK(result[1] == 0);
    }
}

/* -w log softmax(z)[class], differences in long double. */
static long double class_loss(const long double *z, uint32_t class, float w)
{
    long double sum = 0;
    for (int c = 0; c < WIDTH; c++)
        sum += expl(z[c]);
    return w * (logl(sum) - z[class]);
}

TEST(weighted_classes_and_their_derivatives_equal_the_formula)
{
    float z[ROWS * WIDTH], w[ROWS], dz[ROWS * WIDTH];
    uint32_t classes[ROWS];
    double result[ROWS];
    for (int i = 0; i < ROWS * WIDTH; i++)
        z[i] = random_float(3);
    for (int r = 0; r < ROWS; r++)
        w[r] = r == 1 ? 0 : 4 + random_float(3.9), classes[r] = (uint32_t)test_random() % WIDTH;
    op_softmax_cross_entropy(cpu, matrix_of(z, ROWS, WIDTH), classes,
                             (struct weighting){w, 1, WEIGHT_ITSELF}, 3, result, NULL,
                             matrix_of(dz, ROWS, WIDTH), HALF_NONE);
    for (int r = 0; r < ROWS; r++) {
        long double at[WIDTH], h = 1e-7L;
        for (int c = 0; c < WIDTH; c++)
            at[c] = z[r * WIDTH + c];
        CHECK(fabsl(class_loss(at, classes[r], w[r]) - result[r]) < 1e-12);
        for (int c = 0; c < WIDTH; c++) {
            at[c] += h;
            long double up = class_loss(at, classes[r], w[r]);
            at[c] -= 2 * h;
            long double d = (up - class_loss(at, classes[r], w[r])) / (2 * h) / 3;
            at[c] += h;
            CHECK(fabsl(d - (long double)dz[r * WIDTH + c]) < 1e-8 + 6e-8 * fabsl(d));
        }
    }
}

TEST(losses_at_their_corners)
{
    float z[2] = {0.5f, 0.5f}, y[2] = {0.5f, 0.5f}, dz[2];
    double loss;
    struct matrix zm = matrix_of(z, 1, 2), ym = matrix_of(y, 1, 2), d = matrix_of(dz, 1, 2);
    for (int i = 0; i < 3; i++) {
        loss_run(i, zm, ym, &loss, d);
        CHECK(loss == 0 && dz[0] == 0 && dz[1] == 0);
    }
    z[0] = 700, z[1] = -700, y[0] = 0, y[1] = 1; /* far beyond what exp can hold */
    loss_run(4, zm, ym, &loss, d);
    CHECK(loss == 700 && fabs((double)dz[0] * 6 - 1) < 1e-6 && fabs((double)dz[1] * 6 + 1) < 1e-6);
    y[0] = y[1] = 0; /* a target without a direction */
    loss_run(3, zm, ym, &loss, d);
    CHECK(loss == 1 && dz[0] == 0 && dz[1] == 0);
    z[0] = z[1] = 0, y[0] = 1; /* outputs without one: torch's eps of 1e-8 */
    loss_run(3, zm, ym, &loss, d);
    CHECK(loss == 1 && fabs((double)dz[0] * 3e-8 + 1) < 1e-6 && dz[1] == 0);
    z[0] = NAN;
    for (int i = 0; i < 5; i++) {
        loss_run(i, zm, ym, &loss, d);
        CHECK(isnan(loss) && isnan(dz[0]));
    }
}

TEST_LIMIT(gradients_of_value_losses_equal_finite_differences, 100)
{
    for (int loss = 0; loss < 5; loss++)
        fixture_check_gradient(
            &(struct fixture_config){.layers = layers, .count = 3, .loss = losses[loss]}, NULL, 0,
            NULL);
}

/* The sum of what the outputs weigh divides, and a class's weight goes with the row. */
TEST_LIMIT(gradients_of_weighted_losses_equal_finite_differences, 100)
{
    static const char *const weighted[] = {
        "mean_squared_error weights=1,2,0,1,0.5,4", "huber delta=0.4 weights=3,2,1,0,0.25,1",
        "cosine weights=1,2,0,1,0.5,4", "binary_cross_entropy weights=1,0,7,1,0.5,4",
        "softmax_cross_entropy weights=1,2,0.5,0,3,1"};
    for (size_t i = 0; i < sizeof weighted / sizeof *weighted; i++)
        fixture_check_gradient(
            &(struct fixture_config){.layers = layers, .count = 3, .loss = weighted[i]}, NULL, 0,
            NULL);
}

TEST(squares_of_value_losses_equal_single_rows)
{
    for (int loss = 0; loss < 5; loss++)
        fixture_check_squares(
            &(struct fixture_config){.layers = layers, .count = 3, .loss = losses[loss]});
}

/* Outputs of the model for the fixture's rows, from its weights. */
static void outputs_compute(const struct fixture *f, double out[FIXTURE_ROWS][6])
{
    const float *w = stepper_parameters(f->s), *b = w + 17 * 13, *v = b + 17, *c = v + 6 * 17;
    for (int r = 0; r < FIXTURE_ROWS; r++) {
        double hidden[17];
        for (int i = 0; i < 17; i++) {
            hidden[i] = (double)b[i];
            for (int j = 0; j < 13; j++)
                hidden[i] += (double)w[i * 13 + j] * (double)f->features[r][j];
            hidden[i] = hidden[i] > 0 ? hidden[i] : 0;
        }
        for (int k = 0; k < 6; k++) {
            out[r][k] = (double)c[k];
            for (int i = 0; i < 17; i++)
                out[r][k] += (double)v[k * 17 + i] * hidden[i];
        }
    }
}

/* mae, r2, cosine, accuracy, r2_zero of them by the definitions. */
static void metrics_compute(const struct fixture *f, double m[5])
{
    double out[FIXTURE_ROWS][6], squared = 0, spread = 0, length = 0, n = FIXTURE_ROWS;
    outputs_compute(f, out);
    m[0] = m[2] = m[3] = 0;
    for (int r = 0; r < FIXTURE_ROWS; r++) {
        double zz = 0, yy = 0, zy = 0;
        for (int k = 0; k < 6; k++) {
            double y = (double)f->values[r][k], z = out[r][k];
            m[0] += fabs(z - y) / 6 / n;
            m[3] += ((z > 0) == (y > 0.5)) / 6.0 / n;
            squared += (z - y) * (z - y);
            zz += z * z, yy += y * y, zy += z * y;
        }
        m[2] += zy / sqrt(zz * yy) / n;
        length += yy;
    }
    for (int k = 0; k < 6; k++) {
        double mean = 0;
        for (int r = 0; r < FIXTURE_ROWS; r++)
            mean += (double)f->values[r][k] / n;
        for (int r = 0; r < FIXTURE_ROWS; r++)
            spread += ((double)f->values[r][k] - mean) * ((double)f->values[r][k] - mean);
    }
    m[1] = 1 - squared / spread;
    m[4] = 1 - squared / length;
}

static struct evaluation_result evaluate_in_batches(struct fixture *f, uint64_t batch)
{
    struct err e;
    uint64_t bad;
    stepper_evaluate_begin(f->s);
    for (uint64_t at = 0; at < FIXTURE_ROWS; at += batch) {
        uint64_t rows = FIXTURE_ROWS - at < batch ? FIXTURE_ROWS - at : batch;
        CHECK_OK(stepper_gather(f->s, &f->gather, 0, rows, f->feature_rows + at,
                                f->target_rows + at, &bad, &e),
                 e);
        CHECK_OK(stepper_evaluate(f->s, rows, &e), e);
    }
    return stepper_evaluate_end(f->s);
}

TEST(metrics_equal_their_definitions)
{
    static const char *const names[] = {"mae", "r2", "cosine", "accuracy", "r2_zero"};
    for (int i = 0; i < 5; i++)
        for (int threads = 1; threads <= 3; threads += 2) {
            struct fixture f;
            double wanted[5];
            fixture_open(&f, &(struct fixture_config){.layers = layers,
                                                      .count = 3,
                                                      .loss = i == 3 ? losses[4] : losses[0],
                                                      .threads = threads,
                                                      .metric = names[i]});
            metrics_compute(&f, wanted);
            struct evaluation_result whole = evaluate_in_batches(&f, FIXTURE_ROWS),
                                     parts = evaluate_in_batches(&f, 16);
            CHECK(fabs(whole.metric - wanted[i]) < 1e-6 && parts.rows == FIXTURE_ROWS);
            CHECK(fabs(parts.metric - whole.metric) < 1e-12);
            fixture_close(&f);
        }
}

TEST(a_metric_goes_with_its_losses)
{
    static const char *const usual[] = {"r2", "mae", "mae", "cosine", "accuracy"};
    for (int i = 0; i < 5; i++) {
        const struct loss_type *l = loss_type_named(i == 2 ? "huber" : losses[i]);
        CHECK_STR(loss_metric_named(l, "auto")->name, usual[i]);
        CHECK(loss_metric_named(l, "loss") == &metric_loss);
        CHECK(!loss_metric_named(l, "accuracy") == (i != 4) && !loss_metric_named(l, "f1"));
        for (int k = 0; l->metrics[k]; k++) { /* each is one that others can show */
            CHECK(!metric_better(l->metrics[k]->name, NAN, 1));
            CHECK(metric_better(l->metrics[k]->name, 0.2, 0.1) !=
                  (strcmp(l->metrics[k]->name, "mae") == 0));
        }
    }
}

TEST(the_loss_is_a_metric_and_constant_targets_have_an_r2)
{
    struct fixture f;
    struct fixture_config c = {.layers = layers, .count = 3, .loss = "huber", .metric = "loss"};
    fixture_open(&f, &c);
    struct evaluation_result r = fixture_evaluate(&f, FIXTURE_ROWS);
    CHECK(r.metric == r.loss && r.loss > 0);
    fixture_close(&f);
    c.loss = "l1", c.metric = "r2";
    fixture_open(&f, &c);
    for (int r2 = 0; r2 < FIXTURE_ROWS; r2++)
        for (int k = 0; k < 6; k++)
            f.values[r2][k] = 0.25f;
    fixture_gather(&f, FIXTURE_ROWS);
    CHECK(fixture_evaluate(&f, FIXTURE_ROWS).metric == 0);
    memset(stepper_parameters(f.s), 0, f.m.parameter_count * sizeof(float));
    for (int k = 0; k < 6; k++)
        stepper_parameters(f.s)[f.m.parameter_count - 1 - (uint64_t)k] = 0.25f;
    CHECK(fixture_evaluate(&f, FIXTURE_ROWS).metric == 1);
    fixture_close(&f);
}

TEST(metrics_are_compared_and_shown)
{
    char text[METRIC_TEXT_MAX];
    CHECK(metric_better("accuracy", 0.2, 0.1) && !metric_better("accuracy", 0.1, 0.1));
    CHECK(metric_better("mae", 0.1, 0.2) && !metric_better("loss", 0.2, 0.1));
    CHECK(metric_better("r2", -5, NAN) && !metric_better("r2", NAN, -5));
    CHECK(!metric_better("mae", NAN, NAN) && metric_better("f1", 2, 1));
    CHECK_STR(metric_format(text, "accuracy", 0.86164), "86.16 %");
    CHECK_STR(metric_format(text, "mae", 0.0123456), "0.01235");
    CHECK_STR(metric_format(text, "r2", NAN), "-");
}

TEST(targets_that_the_loss_does_not_take_are_named)
{
    struct fixture f;
    struct err e;
    uint64_t bad;
    fixture_open(&f, &(struct fixture_config){.layers = layers, .count = 3, .loss = losses[4]});
    f.values[21][3] = 1.5f;
    CHECK(stepper_gather(f.s, &f.gather, 0, FIXTURE_ROWS, f.feature_rows, f.target_rows, &bad, &e) <
          0);
    CHECK_EQ(bad, 21);
    CHECK_HAS(e.text, "its target 3 is 1.5; the loss binary_cross_entropy takes 0 to 1");
    fixture_close(&f);
    fixture_open(&f, &(struct fixture_config){.layers = layers, .count = 3, .loss = "l1"});
    f.values[21][3] = 1.5f;
    fixture_gather(&f, FIXTURE_ROWS);
    f.values[40][5] = NAN;
    CHECK(stepper_gather(f.s, &f.gather, 0, FIXTURE_ROWS, f.feature_rows, f.target_rows, &bad, &e) <
          0);
    CHECK_EQ(bad, 40);
    CHECK_HAS(e.text, "its target 5 as float32 is nan; accepted: finite numbers");
    CHECK(model_targets_check(&f.m, "f32", 5, &e) < 0);
    CHECK_HAS(e.text, "5 values a row and the model has 6 outputs; the loss l1 takes a value an");
    CHECK(model_targets_check(&f.m, "f80", 6, &e) < 0);
    CHECK_HAS(e.text, "type 'f80'; accepted: u8");
    CHECK_OK(model_targets_check(&f.m, "i16", 6, &e), e);
    fixture_close(&f);
}

TEST(gather_values_reads_types_and_checks_the_range)
{
    int16_t whole[3] = {1, 2, -3};
    double wide[3] = {1, -0.5, 1e300};
    float y[6];
    uint64_t bad;
    const void *rows[2] = {whole, whole};
    op_gather_values(cpu, ELEMENT_I16, rows, -3, 2, 0, matrix_of(y, 2, 3), &bad);
    CHECK(bad == 2 && y[0] == 1 && y[5] == -3);
    op_gather_values(cpu, ELEMENT_I16, rows, -2, 2, 0, matrix_of(y, 2, 3), &bad);
    CHECK_EQ(bad, 0);
    rows[0] = wide;
    op_gather_values(cpu, ELEMENT_F64, rows, -FLT_MAX, FLT_MAX, 0, matrix_of(y, 1, 2), &bad);
    CHECK(bad == 1 && y[1] == -0.5f);
    op_gather_values(cpu, ELEMENT_F64, rows, -FLT_MAX, FLT_MAX, 0, matrix_of(y, 1, 3), &bad);
    CHECK_EQ(bad, 0);
}
