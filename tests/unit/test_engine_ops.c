/* test_engine_ops.c - every operation of ops.def against a plain loop in double, over odd sizes. */
#include <math.h>
#include <stddef.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/patch.h"
#include "engine/ops.h"
#include "tests/test.h"

static const struct backend *const cpu = &backend_cpu;
static const struct weighting alike = {0};

static float random_float(void)
{
    return (float)((double)(test_random() >> 11) * 0x1p-52 - 1.0);
}

static float *floats_random(uint64_t count)
{
    float *x = malloc((count + 1) * sizeof *x);
    for (uint64_t i = 0; i < count; i++)
        x[i] = random_float();
    return x;
}

static void near(double got, double wanted, double scale, const char *what)
{
    if (!(fabs(got - wanted) <= 2e-6 * scale))
        test_fail(__FILE__, __LINE__, "%s: %.9g instead of %.9g", what, got, wanted);
}

static void product_case(uint64_t m, uint64_t n, uint64_t k, int a_t, int b_t, float beta)
{
    uint64_t pad = test_random() % 3;
    struct matrix a = {NULL, a_t ? k : m, a_t ? m : k, (a_t ? m : k) + pad};
    struct matrix b = {NULL, b_t ? n : k, b_t ? k : n, (b_t ? k : n) + pad};
    struct matrix c = {NULL, m, n, n + pad};
    a.at = floats_random(a.rows * a.stride);
    b.at = floats_random(b.rows * b.stride);
    c.at = floats_random(c.rows * c.stride);
    float *before = malloc(c.rows * c.stride * sizeof *before);
    memcpy(before, c.at, c.rows * c.stride * sizeof *before);
    op_product(cpu, a, a_t, b, b_t, beta, c);
    for (uint64_t i = 0; i < m; i++)
        for (uint64_t j = 0; j < c.stride; j++) {
            double sum = (double)beta * (double)before[i * c.stride + j];
            if (j >= n) {
                CHECK(c.at[i * c.stride + j] == before[i * c.stride + j]);
                continue;
            }
            for (uint64_t x = 0; x < k; x++)
                sum += (double)a.at[a_t ? x * a.stride + i : i * a.stride + x] *
                       (double)b.at[b_t ? j * b.stride + x : x * b.stride + j];
            near(c.at[i * c.stride + j], sum, sqrt((double)k) + 1, "product");
        }
    free(a.at), free(b.at), free(c.at), free(before);
}

TEST(product_equals_a_plain_loop)
{
    static const uint64_t sizes[][3] = {{1, 1, 1},   {3, 5, 7},   {64, 10, 31},
                                        {17, 1, 65}, {1, 33, 64}, {37, 64, 129}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int t = 0; t < 4; t++) {
            product_case(sizes[i][0], sizes[i][1], sizes[i][2], t & 1, t >> 1, 0);
            product_case(sizes[i][0], sizes[i][1], sizes[i][2], t & 1, t >> 1, 1);
        }
}

TEST(product_with_beta_zero_does_not_read_c)
{
    float a[4] = {1, 2, 3, 4}, c[4] = {NAN, NAN, NAN, NAN};
    op_product(cpu, matrix_of(a, 2, 2), 0, matrix_of(a, 2, 2), 0, 0, matrix_of(c, 2, 2));
    CHECK(c[0] == 7 && c[1] == 10 && c[2] == 15 && c[3] == 22);
}

/* y += the squared product, of one sample, or the product of the squares. */
static void squares_add(int square, struct matrix d, struct matrix x, struct squares_work work,
                        struct matrix y)
{
    if (square)
        op_products_square_add(cpu, (struct samples){d, 1, 0, NULL},
                               (struct samples){x, 1, 0, NULL}, work, y);
    else
        op_squares_product_add(cpu, d, x, work, y);
}

/* Sums of squared products into y[m, n], in one piece and cut into `cuts` pieces by rows. `square`:
 * of the products, else of the factors. */
static void squares_case(uint64_t m, uint64_t n, uint64_t k, int square, uint64_t cuts)
{
    struct matrix d = {floats_random(k * (m + 2)), k, m, m + 2};
    struct matrix x = {floats_random(k * (n + 1)), k, n, n + 1};
    struct matrix y = {floats_random(m * (n + 3)), m, n, n + 3};
    float *before = malloc(m * y.stride * sizeof *before), *again = malloc(m * n * sizeof *again);
    struct squares_work work = {malloc(SQUARES_PACKED * sizeof(float)), floats_random(m * n)};
    memcpy(before, y.at, m * y.stride * sizeof *before);
    for (uint64_t i = 0; i < m * n; i++)
        again[i] = before[i / n * y.stride + i % n];
    squares_add(square, d, x, work, y);
    for (uint64_t i = 0; i < m; i++)
        for (uint64_t j = 0; j < y.stride; j++) {
            double sum = 0, was = (double)before[i * y.stride + j];
            for (uint64_t s = 0; j < n && s < k; s++) {
                double factor = (double)d.at[s * d.stride + i] * (double)x.at[s * x.stride + j];
                sum += square ? factor : factor * factor;
            }
            near(y.at[i * y.stride + j], was + (square ? sum * sum : sum), (double)k + 1,
                 "squares");
        }
    for (uint64_t first = 0; first < m; first += (m - 1) / cuts + 1) {
        uint64_t rows = m - first < (m - 1) / cuts + 1 ? m - first : (m - 1) / cuts + 1;
        squares_add(square, matrix_columns(d, first, rows), x, work,
                    matrix_of(again + first * n, rows, n));
    }
    for (uint64_t i = 0; i < m * n; i++)
        CHECK(again[i] == y.at[i / n * y.stride + i % n]);
    free(d.at), free(x.at), free(y.at), free(before), free(again), free(work.packed),
        free(work.tile);
}

TEST(sums_of_squared_products_equal_a_plain_loop_however_they_are_cut)
{
    static const uint64_t sizes[][3] = {{1, 1, 1},      {6, 16, 24},  {7, 17, 3},    {64, 10, 1},
                                        {1, 300, 9},    {13, 129, 5}, {9, 131, 600}, {50, 150, 256},
                                        {190, 20, 200}, {40, 50, 64}};
    for (int kind = PATCHES_BEST; kind <= PATCHES_WIDE; kind++) {
        patches_force((enum patches_kind)kind);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (int square = 0; square < 2; square++)
                squares_case(sizes[i][0], sizes[i][1], sizes[i][2], square, 3);
    }
    patches_force(PATCHES_BEST);
}

TEST(bias_and_column_sums)
{
    for (uint64_t columns = 1; columns < 40; columns += 6)
        for (uint64_t rows = 1; rows < 20; rows += 5) {
            uint64_t stride = columns + 3;
            struct matrix y = {floats_random(rows * stride), rows, columns, stride};
            float *bias = floats_random(columns), *sums = floats_random(columns);
            op_column_sums(cpu, y, 0, sums);
            for (uint64_t c = 0; c < columns; c++) {
                double sum = 0;
                for (uint64_t r = 0; r < rows; r++)
                    sum += (double)y.at[r * stride + c];
                near(sums[c], sum, (double)rows, "column_sums");
            }
            float *dots = calloc(columns, sizeof *dots);
            op_column_dots(cpu, y, y, dots);
            for (uint64_t c = 0; c < columns; c++) {
                double sum = 0;
                for (uint64_t r = 0; r < rows; r++)
                    sum += pow((double)y.at[r * stride + c], 2);
                near(dots[c], sum, (double)rows, "column_dots");
            }
            free(dots);
            float first = y.at[0], outside = y.at[columns];
            op_bias_add(cpu, y, bias);
            CHECK(y.at[0] == first + bias[0]);
            CHECK(rows == 1 || y.at[columns] == outside);
            free(y.at), free(bias), free(sums);
        }
}

TEST(elementwise_operations)
{
    for (uint64_t n = 1; n < 70; n += 4) {
        float *x = floats_random(n), *dy = floats_random(n), *y = floats_random(n),
              *dx = floats_random(n);
        double sum = 0, squares = 0;
        x[0] = 0;
        op_activation_forward(cpu, ACTIVATION_RELU, x, y, n);
        op_activation_backward(cpu, ACTIVATION_RELU, y, dy, dx, n);
        for (uint64_t i = 0; i < n; i++)
            CHECK(y[i] == (x[i] > 0 ? x[i] : 0) && dx[i] == (x[i] > 0 ? dy[i] : 0));
        op_add(cpu, x, dx, n);
        for (uint64_t i = 0; i < n; i++)
            CHECK(dx[i] == (x[i] > 0 ? dy[i] : 0) + x[i]);
        op_sum_squares(cpu, x, n, &sum);
        for (uint64_t i = 0; i < n; i++)
            squares += (double)x[i] * (double)x[i];
        near(sum, squares, (double)n, "sum_squares");
        free(x), free(dy), free(y), free(dx);
    }
}

TEST(relu_keeps_a_nan)
{
    float x[3] = {NAN, -1, 2}, y[3];
    op_activation_forward(cpu, ACTIVATION_RELU, x, y, 3);
    CHECK(isnan(y[0]) && y[1] == 0 && y[2] == 2);
}

TEST(dropout_keeps_the_mean_and_repeats_itself)
{
    enum { ROWS = 200, UNITS = 501 };
    static float x[ROWS * UNITS], y[ROWS * UNITS], z[ROWS * UNITS];
    for (int i = 0; i < ROWS * UNITS; i++)
        x[i] = 1;
    for (double p = 0.1; p < 0.95; p += 0.2) {
        struct dropout_mask mask = {scalar_key(7, 3, 1), 0, p}, part = {mask.key, 50, p};
        double sum = 0, both = 0, n = ROWS * UNITS;
        op_dropout(cpu, matrix_of(x, ROWS, UNITS), matrix_of(y, ROWS, UNITS), &mask);
        for (int i = 0; i < ROWS * UNITS; i++) {
            CHECK(y[i] == 0 || y[i] == (float)(1 / (1 - p)));
            sum += y[i] == 0;
            both += i + 1 < ROWS * UNITS && y[i] == 0 && y[i + 1] == 0;
        }
        CHECK(fabs(sum / n - p) < 5 * sqrt(p * (1 - p) / n));
        CHECK(fabs(both / n - p * p) < 8 * sqrt(p * p / n)); /* neighbours are independent */
        op_dropout(cpu, matrix_of(x, ROWS - 50, UNITS), matrix_of(z, ROWS - 50, UNITS), &part);
        CHECK(memcmp(z, y + 50 * UNITS, (ROWS - 50) * UNITS * sizeof *z) == 0);
        mask.key++;
        op_dropout(cpu, matrix_of(x, ROWS, UNITS), matrix_of(z, ROWS, UNITS), &mask);
        CHECK(memcmp(z, y, sizeof z) != 0);
    }
}

TEST(softmax_cross_entropy_equals_its_formula)
{
    enum { ROWS = 9, CLASSES = 11 };
    float z[ROWS * CLASSES], dz[ROWS * CLASSES];
    uint32_t targets[ROWS];
    double losses[ROWS], only[ROWS];
    for (int i = 0; i < ROWS * CLASSES; i++)
        z[i] = 30 * random_float();
    for (int r = 0; r < ROWS; r++)
        targets[r] = (uint32_t)(test_random() % CLASSES);
    z[0] = 500, z[1] = -500; /* far beyond what exp can hold */
    op_softmax_cross_entropy(cpu, matrix_of(z, ROWS, CLASSES), targets, alike, 9, losses, NULL,
                             matrix_of(dz, ROWS, CLASSES), HALF_NONE);
    op_softmax_cross_entropy(cpu, matrix_of(z, ROWS, CLASSES), targets, alike, 9, only, NULL,
                             matrix_of(NULL, ROWS, CLASSES), HALF_NONE);
    for (int r = 0; r < ROWS; r++) {
        long double max = -1e30L, sum = 0;
        for (int c = 0; c < CLASSES; c++)
            max = z[r * CLASSES + c] > max ? z[r * CLASSES + c] : max;
        for (int c = 0; c < CLASSES; c++)
            sum += expl(z[r * CLASSES + c] - max);
        near(losses[r], (double)(logl(sum) + max - z[r * CLASSES + (int)targets[r]]), 1, "loss");
        CHECK(losses[r] == only[r]);
        for (int c = 0; c < CLASSES; c++) {
            long double p = expl(z[r * CLASSES + c] - max) / sum;
            near(dz[r * CLASSES + c], (double)((p - (c == (int)targets[r])) / 9), 0.1, "dz");
        }
    }
}

TEST(softmax_of_a_nan_or_infinity_is_a_nan)
{
    float z[3] = {1, NAN, 2}, w[3] = {1, INFINITY, 2};
    uint32_t target = 0;
    double loss;
    op_softmax_cross_entropy(cpu, matrix_of(z, 1, 3), &target, alike, 1, &loss, NULL,
                             matrix_of(NULL, 1, 3), HALF_NONE);
    CHECK(isnan(loss));
    op_softmax_cross_entropy(cpu, matrix_of(w, 1, 3), &target, alike, 1, &loss, NULL,
                             matrix_of(NULL, 1, 3), HALF_NONE);
    CHECK(isnan(loss));
}

TEST(correct_classes_take_the_first_largest)
{
    float z[12] = {1, 2, 0, /**/ 3, 3, 1, /**/ 0, 0, 9, /**/ 5, 1, 1};
    uint32_t targets[4] = {1, 1, 2, 0};
    double correct[4];
    op_correct_classes(cpu, matrix_of(z, 4, 3), targets, alike, correct);
    CHECK(correct[0] == 1 && correct[1] == 0 && correct[2] == 1 && correct[3] == 1);
}

#define GATHER_TYPE(TYPE, WORD, HIGH)                                                              \
    do {                                                                                           \
        char bytes[2 * 7 * sizeof(TYPE) + 1];                                                      \
        TYPE values[2][7];                                                                         \
        float x[14];                                                                               \
        uint64_t bad;                                                                              \
        for (int i = 0; i < 14; i++)                                                               \
            values[i / 7][i % 7] = (TYPE)((double)(test_random() % 100) * (HIGH) / 100);           \
        memcpy(bytes + 1, values, sizeof values); /* at an odd address */                          \
        const void *rows[2] = {bytes + 1, bytes + 1 + sizeof values[0]};                           \
        op_gather_features(cpu, element_named(WORD), rows, NULL, 0.37, matrix_of(x, 2, 7),         \
                           HALF_NONE, &bad);                                                       \
        CHECK_EQ(bad, 2);                                                                          \
        for (int i = 0; i < 14; i++)                                                               \
            CHECK(x[i] == (float)((double)values[i / 7][i % 7] * 0.37));                           \
        op_gather_features(cpu, element_named(WORD), rows, turned, 0.37, matrix_of(x, 2, 7),       \
                           HALF_NONE, &bad);                                                       \
        for (int i = 0; i < 14; i++)                                                               \
            CHECK(x[i] == (float)((double)values[i / 7][6 - i % 7] * 0.37));                       \
    } while (0)

TEST(gather_reads_every_type_at_any_address)
{
    static const uint32_t turned[7] = {6, 5, 4, 3, 2, 1, 0};
    GATHER_TYPE(uint8_t, "u8", 255);
    GATHER_TYPE(int8_t, "i8", -128);
    GATHER_TYPE(uint16_t, "u16", 65535);
    GATHER_TYPE(int16_t, "i16", -32768);
    GATHER_TYPE(uint32_t, "u32", 4e9);
    GATHER_TYPE(int32_t, "i32", -2e9);
    GATHER_TYPE(uint64_t, "u64", 1.8e19);
    GATHER_TYPE(int64_t, "i64", -9e18);
    GATHER_TYPE(float, "f32", 1.5);
    GATHER_TYPE(double, "f64", -1.5);
    CHECK_EQ(element_named("f128"), ELEMENT_COUNT);
}

/* By the definition of IEEE 754 binary16. */
static double half_value(uint32_t bits)
{
    double sign = bits & 0x8000 ? -1 : 1, fraction = bits & 0x3ff;
    int exponent = (int)(bits >> 10 & 31);
    if (exponent == 31)
        return bits & 0x3ff ? NAN : sign * INFINITY;
    return exponent ? sign * ldexp(1024 + fraction, exponent - 25) : sign * ldexp(fraction, -24);
}

TEST(gather_reads_every_half)
{
    enum { WIDTH = 1024, ROWS = 64 }; /* all 65,536 */
    static uint16_t halves[ROWS * WIDTH];
    static float x[ROWS * WIDTH];
    static uint32_t turned[WIDTH];
    for (uint32_t j = 0; j < WIDTH; j++)
        turned[j] = WIDTH - 1 - j;
    for (uint32_t bits = 0; bits < ROWS * WIDTH; bits++)
        halves[bits] = (uint16_t)bits;
    for (uint32_t row = 0; row < ROWS; row++)
        for (int permuted = 0; permuted < 2; permuted++) {
            const void *at = halves + row * WIDTH;
            float *out = x + row * WIDTH;
            uint64_t bad;
            op_gather_features(cpu, element_named("f16"), &at, permuted ? turned : NULL, 1,
                               matrix_of(out, 1, WIDTH), HALF_NONE, &bad);
            CHECK_EQ(bad, row % 32 != 31); /* infinities and NaNs stand in row 31 and 63 */
            for (uint32_t j = 0; j < WIDTH; j++) {
                double value = half_value(row * WIDTH + (permuted ? turned[j] : j));
                CHECK(isnan(value) ? isnan(out[j])
                                   : out[j] == value && !signbit(out[j]) == !signbit(value));
            }
        }
}

TEST(gather_finds_the_first_row_that_is_not_finite)
{
    double good[3] = {1, 2, 3}, nan[3] = {1, NAN, 3}, wide[3] = {1, 2, 1e300};
    float x[9];
    uint64_t bad;
    const void *rows[3] = {good, nan, wide};
    op_gather_features(cpu, ELEMENT_F64, rows, NULL, 1, matrix_of(x, 3, 3), HALF_NONE, &bad);
    CHECK_EQ(bad, 1);
    rows[1] = good;
    op_gather_features(cpu, ELEMENT_F64, rows, NULL, 1, matrix_of(x, 3, 3), HALF_NONE, &bad);
    CHECK_EQ(bad, 2); /* 1e300 is no float32 */
}

TEST(gather_classes_checks_the_range)
{
    int64_t classes[4] = {0, 9, -1, 10};
    uint8_t small[2] = {3, 250};
    uint64_t huge = UINT64_MAX, bad;
    uint32_t targets[4];
    const void *rows[4] = {&classes[0], &classes[1], &classes[2], &classes[3]};
    op_gather_classes(cpu, ELEMENT_I64, rows, 4, 1, 10, 0, targets, &bad);
    CHECK(bad == 2 && targets[0] == 0 && targets[1] == 9);
    op_gather_classes(cpu, ELEMENT_I64, rows + 3, 1, 1, 10, 0, targets, &bad);
    CHECK_EQ(bad, 0);
    rows[0] = &huge;
    op_gather_classes(cpu, ELEMENT_U64, rows, 1, 1, 10, 0, targets, &bad);
    CHECK_EQ(bad, 0);
    rows[0] = &small[0], rows[1] = &small[1];
    op_gather_classes(cpu, ELEMENT_U8, rows, 2, 1, 251, 0, targets, &bad);
    CHECK(bad == 2 && targets[1] == 250);
}

TEST(ewc_add_equals_its_formula)
{
    for (uint64_t n = 1; n < 60; n += 7) {
        float *theta = floats_random(n), *star = floats_random(n), *fisher = floats_random(n),
              *g = floats_random(n), *before = floats_random(n);
        double penalty = 0, wanted = 0;
        memcpy(before, g, n * sizeof *g);
        op_ewc_add(cpu, theta, star, fisher, 0.25, 2000, g, n, &penalty);
        for (uint64_t i = 0; i < n; i++) {
            double distance = (double)theta[i] - (double)star[i];
            double damped = (double)fisher[i] + 0.25;
            wanted += 1000 * damped * distance * distance;
            near(g[i], before[i] + 2000 * damped * distance, 4000, "ewc gradient");
        }
        near(penalty, wanted, 4000 * (double)n, "ewc penalty");
        free(theta), free(star), free(fisher), free(g), free(before);
    }
}

TEST(adamw_equals_its_formula)
{
    const double lr = 1e-2, wd = 0.1, b1 = 0.9, b2 = 0.999, eps = 1e-8;
    for (uint64_t n = 1; n < 60; n += 7) {
        float *p = floats_random(n), *m = floats_random(n), *v = floats_random(n),
              *g = floats_random(n);
        const struct adamw_scalars a = {0.5f,
                                        (float)(lr * wd),
                                        0.9f,
                                        0.1f,
                                        0.999f,
                                        0.001f,
                                        (float)(lr / (1 - pow(b1, 3))),
                                        (float)(1 / sqrt(1 - pow(b2, 3))),
                                        (float)eps};
        for (uint64_t i = 0; i < n; i++)
            v[i] = v[i] * v[i];
        float *q = malloc(3 * n * sizeof *q);
        memcpy(q, p, n * sizeof *q), memcpy(q + n, m, n * sizeof *q);
        memcpy(q + 2 * n, v, n * sizeof *q);
        op_adamw(cpu, p, m, v, g, n, &a, HALF_NONE, NULL);
        for (uint64_t i = 0; i < n; i++) {
            double gi = 0.5 * (double)g[i], mi = b1 * (double)q[n + i] + (1 - b1) * gi;
            double vi = b2 * (double)q[2 * n + i] + (1 - b2) * gi * gi;
            double pi = (double)q[i] * (1 - lr * wd) -
                        lr / (1 - pow(b1, 3)) * mi / (sqrt(vi) / sqrt(1 - pow(b2, 3)) + eps);
            near(m[i], mi, 1, "m"), near(v[i], vi, 1, "v"), near(p[i], pi, 2, "p");
        }
        free(p), free(m), free(v), free(g), free(q);
    }
}

TEST(uniform_numbers_fill_their_interval)
{
    double low = 1, high = -1, sum = 0, squares = 0;
    for (uint64_t i = 0; i < 100000; i++) {
        double x = (double)scalar_uniform(scalar_key(1, 2, i), 0.5);
        low = x < low ? x : low, high = x > high ? x : high;
        sum += x, squares += x * x;
    }
    CHECK(low >= -0.5 && low < -0.499 && high < 0.5 && high > 0.499);
    CHECK(fabs(sum / 1e5) < 0.005 && fabs(squares / 1e5 - 1.0 / 12) < 0.001);
}
