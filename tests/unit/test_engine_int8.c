/* test_engine_int8.c - products in 8 bits: exact, whatever the instruction set, the slices and the
 * threads; and near to float32. */
#include <float.h>
#include <math.h>

#include "engine/cpu/cpu.h"
#include "engine/quantised.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

static const struct backend *const cpu = &backend_cpu;

static float number(void)
{
    return (float)((double)(test_random() >> 11) * 0x1p-52 - 1.0);
}

static float *numbers(uint64_t count)
{
    float *x = malloc(count * sizeof *x);
    for (uint64_t i = 0; i < count; i++)
        x[i] = number() * (test_random() % 16 ? 1 : 30);
    return x;
}

static struct int8_matrix int8_new(uint64_t rows, uint64_t columns)
{
    struct int8_matrix m = {.rows = rows, .columns = columns};
    m.stride = (columns + INT8_COLUMNS - 1) / INT8_COLUMNS * INT8_COLUMNS;
    m.at = calloc(rows + INT8_OUTPUTS, m.stride);
    m.scales = calloc(rows, sizeof *m.scales);
    return m;
}

/* What the header says, by hand: the row's numbers and its scale. */
static float row_by_hand(const float *x, uint64_t count, int *q)
{
    float largest = 0;
    for (uint64_t k = 0; k < count; k++)
        largest = fmaxf(largest, fabsf(x[k]));
    for (uint64_t k = 0; k < count; k++)
        q[k] = largest > 0 ? (int)nearbyint((double)(x[k] * (127.0f / largest))) : 0;
    return largest / 127.0f;
}

static void product_case(uint64_t rows, uint64_t outputs, uint64_t columns, float beta)
{
    uint64_t pad = test_random() % 3;
    struct matrix x = {numbers(rows * (columns + pad)), rows, columns, columns + pad};
    struct matrix w = {numbers(outputs * columns), outputs, columns, columns};
    struct matrix y = {numbers(rows * (outputs + pad)), rows, outputs, outputs + pad};
    struct int8_matrix q = int8_new(outputs, columns);
    struct int8_work work = {malloc(INT8_ROWS * q.stride * sizeof(int16_t)),
                             malloc(INT8_ROWS * sizeof(float))};
    size_t bytes = rows * y.stride * sizeof *y.at;
    float *before = malloc(bytes), *plain = malloc(bytes);
    int *a = malloc(columns * sizeof *a), *b = malloc(columns * sizeof *b);
    memset(x.at, 0, columns * sizeof *x.at); /* a row of zeroes */
    memcpy(before, y.at, bytes);
    memcpy(plain, y.at, bytes);
    op_quantise(cpu, w, q);
    op_product_int8(cpu, x, q, work, beta, y);
    cpu_plain(1);
    op_product_int8(cpu, x, q, work, beta, (struct matrix){plain, rows, outputs, y.stride});
    cpu_plain(0);
    CHECK(memcmp(plain, y.at, bytes) == 0);
    for (uint64_t r = 0; r < rows; r++) {
        double sx = (double)row_by_hand(x.at + r * x.stride, columns, a);
        for (uint64_t o = 0; o < y.stride; o++) {
            const float *was = before + r * y.stride + o, *is = y.at + r * y.stride + o;
            if (o >= outputs) {
                CHECK(*is == *was);
                continue;
            }
            int64_t sum = 0;
            double sw = (double)row_by_hand(w.at + o * columns, columns, b);
            CHECK((double)q.scales[o] == sw);
            for (uint64_t k = 0; k < columns; k++)
                sum += a[k] * b[k];
            float value = (float)((double)sum * (sx * sw));
            CHECK(*is == (beta != 0 ? beta * *was + value : value));
        }
    }
    free(x.at), free(w.at), free(y.at), free(q.at), free(q.scales), free(before), free(plain);
    free(work.rows), free(work.scales), free(a), free(b);
}

TEST(a_product_is_exact)
{
    static const uint64_t sizes[][3] = {{1, 1, 1},   {2, 3, 15},   {3, 4, 16},    {63, 5, 17},
                                        {64, 9, 31}, {65, 33, 64}, {130, 12, 129}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int beta = 0; beta < 2; beta++)
            product_case(sizes[i][0], sizes[i][1], sizes[i][2], (float)beta);
}

/* 140,000 products of 127 x 127 are more than 31 bits hold. */
TEST(a_long_sum_does_not_overflow)
{
    enum { COLUMNS = 140000 };
    struct int8_matrix q = int8_new(1, COLUMNS);
    struct int8_work work = {malloc(INT8_ROWS * q.stride * sizeof(int16_t)),
                             malloc(INT8_ROWS * sizeof(float))};
    float *ones = malloc(COLUMNS * sizeof *ones), y;
    for (int k = 0; k < COLUMNS; k++)
        ones[k] = 1;
    op_quantise(cpu, matrix_of(ones, 1, COLUMNS), q);
    for (int on = 0; on < 2; on++) {
        cpu_plain(on);
        op_product_int8(cpu, matrix_of(ones, 1, COLUMNS), q, work, 0, matrix_of(&y, 1, 1));
        CHECK(fabs((double)y - COLUMNS) < 0.1);
    }
    free(q.at), free(q.scales), free(work.rows), free(work.scales), free(ones);
}

TEST(odd_rows_are_quantised_as_they_are)
{
    float rows[4][3] = {{0.5f, -2, 1},
                        {0, -0.0f, 0},
                        {1, NAN, -INFINITY},
                        {FLT_MIN / 8, -FLT_MIN / 4, FLT_MAX / FLT_MAX * 0}};
    struct int8_matrix q = int8_new(4, 3);
    op_quantise(cpu, matrix_of(rows[0], 4, 3), q);
    CHECK(q.at[0] == 32 && q.at[1] == -127 && q.at[2] == 64); /* 31.75, 63.5: to even */
    CHECK(q.scales[0] == 2 / 127.0f);
    CHECK(q.scales[1] == 0 && q.at[q.stride] == 0);
    CHECK(isnan(q.scales[2])); /* nothing that is computed with it looks like a number */
    CHECK(q.at[3 * q.stride + 1] <= q.at[3 * q.stride]);
    free(q.at), free(q.scales);
}

static void outputs_of(struct fixture *f, float *outputs, int int8)
{
    struct err e;
    stepper_int8(f->s, int8);
    stepper_evaluate_begin(f->s);
    CHECK_OK(stepper_predict(f->s, FIXTURE_ROWS, outputs, &e), e);
}

/* Each row is quantised by itself and summed exactly: neither slices nor threads are in the bits.
 */
TEST(a_models_outputs_are_near_to_float32_and_the_same_for_all_slices)
{
    static const char *const dense[] = {"linear out=40", "gelu", "layernorm", "linear out=6"};
    static const char *const recurrent[] = {"sequence steps=6",
                                            "lstm out=9 layers=2 bidirectional=true",
                                            "pool kind=last", "linear out=6"};
    static const char *const graphs[] = {"gcn out=12 edges=true", "relu", "pool kind=mean_sum",
                                         "linear out=6"};
    static const char *const *const models[] = {dense, recurrent, graphs};
    static struct fixture f;
    static float near[FIXTURE_ROWS * 6], first[FIXTURE_ROWS * 6], out[FIXTURE_ROWS * 6];
    const struct {
        int threads;
        uint64_t slice;
    } ways[] = {{1, 16}, {2, 7}, {3, 64}, {2, 1}};
    struct int8_size size;
    struct err e;
    for (int model = 0; model < 3; model++)
        for (int way = 0; way < 4; way++) {
            struct fixture_config c = {.layers = models[model],
                                       .count = 4,
                                       .inputs = model == 2 ? 4 : 30,
                                       .graphs = model == 2,
                                       .edge_values = 3,
                                       .evaluate_only = 1,
                                       .loss = "mean_squared_error",
                                       .threads = ways[way].threads,
                                       .slice = ways[way].slice};
            fixture_open(&f, &c);
            outputs_of(&f, near, 0);
            CHECK_OK(stepper_quantise(f.s, &size, &e), e);
            CHECK_OK(stepper_quantise(f.s, &size, &e), e);
            CHECK(size.bytes < size.float_bytes);
            outputs_of(&f, way ? out : first, 1);
            CHECK(!way || memcmp(out, first, sizeof first) == 0);
            double apart = 0, large = 0;
            for (int i = 0; i < FIXTURE_ROWS * 6; i++) {
                apart = fmax(apart, fabs((double)(first[i] - near[i])));
                large = fmax(large, fabs((double)near[i]));
            }
            CHECK(apart > 0 && apart < 0.02 * large);
            outputs_of(&f, out, 0);
            CHECK(memcmp(out, near, sizeof near) == 0);
            fixture_close(&f);
        }
}
