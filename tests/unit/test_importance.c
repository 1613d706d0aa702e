/* test_importance.c - the Fisher information as training holds it: every value from its code, how
 * far off it is, zeroes, and a step that gives the bits of the expanded values. */
#include "engine/importance.h"

#include <float.h>
#include <math.h>

#include "engine/cpu/cpu.h"
#include "engine/scalar.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

/* A matrix of odd sizes in codes, with outliers in several tiles, and a bias. */
static const char *const one_layer[] = {"linear out=161"};
enum { IN = 197, OUT = 161, MATRIX = IN * OUT, ALL = MATRIX + OUT };

static struct model model;

static void model_make(const char *const *layers, uint32_t count, uint64_t inputs)
{
    struct err e;
    CHECK_OK(model_open(&model, layers, count, inputs, "softmax_cross_entropy", &e), e);
}

/* In pieces of `piece` values. */
static struct importance made_of(const float *values, uint64_t piece)
{
    struct importance f;
    struct err e;
    CHECK_OK(importance_open(&f, &model, 0, &e), e);
    while (importance_next(&f)) {
        for (uint64_t at = 0; at < model.parameter_count; at += piece) {
            uint64_t left = model.parameter_count - at;
            CHECK_OK(importance_take(&f, values + at, piece < left ? piece : left, &e), e);
        }
        CHECK_EQ(importance_taken(&f), model.parameter_count);
    }
    CHECK(!f.build);
    return f;
}

/* Uniform in 0 .. 1, by number. */
static double uniform(uint64_t i)
{
    return scalar_unit_bits(scalar_key(7, i, 0), 0) * 0x1p-32;
}

/* What rows, columns and `spread` in ln F leave of a matrix; a fifth is zero, and so are row 3 and
 * column 5. */
static float *values_make(double spread)
{
    float *values = malloc(ALL * sizeof *values);
    for (uint64_t i = 0; i < ALL; i++) {
        uint64_t r = i / IN, c = i % IN;
        double sum = uniform(4 * i) + uniform(4 * i + 1) + uniform(4 * i + 2) - 1.5;
        values[i] = (float)(1e-4 * exp(3 * uniform(1000000 + r) + 5 * uniform(2000000 + c) +
                                       2 * spread * sum));
        if (i < MATRIX && (uniform(4 * i + 3) < 0.2 || r == 3 || c == 5))
            values[i] = 0;
    }
    return values;
}

/* The word of outlier number i of the matrix; 0: it is none. */
static uint32_t outlier_at(const struct importance_tensor *t, uint64_t i)
{
    uint64_t tile = i / CODED_TILE;
    for (uint32_t k = t->outlier_first[tile]; k < t->outlier_first[tile + 1]; k++)
        if (t->outlier[k] >> OUTLIER_BITS == i % CODED_TILE)
            return t->outlier[k];
    return 0;
}

static unsigned code_at(const struct importance_tensor *t, uint64_t i)
{
    uint8_t both = t->codes[i / 32 * 16 + i % 16];
    return i % 32 < 16 ? both & 15 : both >> 4;
}

static const float *levels_at(const struct importance_tensor *t, uint64_t i)
{
    return t->level + CODED_LEVELS * coded_table(t->row[i / t->columns], t->tables);
}

static float shares_at(const struct importance_tensor *t, uint64_t i)
{
    return scalar_share(t->row[i / t->columns]) * scalar_share(t->column[i % t->columns]);
}

static double error_of(const float *values, const float *kept, uint64_t count)
{
    double off = 0, all = 0;
    for (uint64_t i = 0; i < count; i++) {
        off += ((double)kept[i] - (double)values[i]) * ((double)kept[i] - (double)values[i]);
        all += (double)values[i] * (double)values[i];
    }
    return sqrt(off / all);
}

TEST(values_follow_from_their_codes_in_every_range)
{
    model_make(one_layer, 1, IN);
    float *values = values_make(0.4), whole[MATRIX], part[MATRIX];
    struct importance f = made_of(values, ALL);
    const struct importance_tensor *t = &f.tensors[0];
    CHECK(t->codes && !t->values && f.tensors[1].values && !f.tensors[1].codes);
    for (int plain = 0; plain < 2; plain++) {
        cpu_plain(plain);
        importance_expand(&f, &backend_cpu, 0, 0, MATRIX, whole);
        for (uint64_t i = 0; i < MATRIX; i++) {
            uint32_t apart = outlier_at(t, i);
            unsigned code = code_at(t, i);
            CHECK(!(apart && code) && levels_at(t, i)[0] == 0);
            CHECK(whole[i] ==
                  (apart ? scalar_outlier(apart) : levels_at(t, i)[code] * shares_at(t, i)));
        }
        for (uint64_t from = CODED_TILE - 300; from < CODED_TILE + 300; from += 7)
            for (uint64_t count = 0; count < 300; count += 11) {
                part[count] = -1;
                importance_expand(&f, &backend_cpu, 0, from, count, part);
                CHECK(memcmp(part, whole + from, count * sizeof *part) == 0 && part[count] == -1);
            }
        importance_expand(&f, &backend_cpu, 0, MATRIX - 1, 1, part);
        CHECK(part[0] == whole[MATRIX - 1]);
        importance_expand(&f, &backend_cpu, 1, 3, OUT - 3, part);
        for (uint64_t i = 3; i < OUT; i++)
            CHECK(part[i - 3] == scalar_brain(scalar_to_brain(values[MATRIX + i])));
    }
    importance_close(&f);
    importance_close(&f);
    model_close(&model);
    free(values);
}

TEST(the_error_is_small_and_zero_stays_zero)
{
    model_make(one_layer, 1, IN);
    for (int k = 0; k < 3; k++) {
        static const double spreads[] = {0, 0.3, 0.6}, most[] = {0.02, 0.04, 0.06};
        float *values = values_make(spreads[k]), kept[MATRIX];
        values[IN] = 1e-38f;
        values[IN + 1] = FLT_MIN / 8;
        struct importance f = made_of(values, ALL);
        double sum = 0;
        importance_expand(&f, &backend_cpu, 0, 0, MATRIX, kept);
        double error = error_of(values, kept, MATRIX);
        if (!(error < most[k] && error > 0))
            test_fail(__FILE__, __LINE__, "spread %g: error %g", spreads[k], error);
        for (uint64_t i = 0; i < MATRIX; i++)
            CHECK((values[i] > 0) == (kept[i] > 0) && kept[i] < 1);
        for (uint64_t i = 0; i < ALL; i++)
            sum += (double)values[i];
        CHECK(fabs(f.mean - sum / ALL) < 1e-12 * f.mean && f.error > 0 && f.error < most[k]);
        importance_close(&f);
        free(values);
    }
    model_close(&model);
}

/* What it would be off by at the nearest of the levels, as a share of the root of F. */
static double off_at(const struct importance_tensor *t, uint64_t i, float value)
{
    double least = INFINITY;
    for (int k = 1; k < CODED_LEVELS; k++) {
        double off = fabs((double)(levels_at(t, i)[k] * shares_at(t, i)) - (double)value);
        least = off < least ? off : least;
    }
    return least / sqrt((double)value);
}

/* Of a matrix: its outliers are its values; how far the one that is off the least would be, and how
 * far the one of the others that is off the most is. Returns how many there are. */
static uint64_t outliers_check(const struct importance *f, uint32_t tensor, const float *values,
                               double *least, double *most)
{
    const struct importance_tensor *t = &f->tensors[tensor];
    float *kept = malloc(t->count * sizeof *kept);
    uint64_t count = 0;
    importance_expand(f, &backend_cpu, tensor, 0, t->count, kept);
    for (uint64_t i = 0; i < t->count; i++) {
        double value = (double)values[t->first + i];
        double off = value > 0 ? off_at(t, i, values[t->first + i]) : 0;
        if (outlier_at(t, i)) {
            CHECK(value > 0 && fabs((double)kept[i] - value) <= 0x1p-13 * value);
            *least = fmin(off, *least);
            count++;
        } else {
            *most = fmax(off, *most);
        }
    }
    free(kept);
    return count;
}

/* All of the room for them is taken, by those of any matrix that are off the most, to a 32nd of an
 * octave. */
TEST(what_codes_would_hold_worst_is_kept_apart)
{
    static const char *const layers[] = {"linear out=161", "relu", "linear out=150"};
    model_make(layers, 3, IN);
    float *values = calloc(model.parameter_count, sizeof *values);
    float *begin = values_make(0.5), *end = values_make(0.4);
    memcpy(values, begin, MATRIX * sizeof *values);
    memcpy(values + ALL, end, model.tensors[2].count * sizeof *values);
    values[0] = 1e-30f;
    values[MATRIX - 1] = 0.5f;
    struct importance f = made_of(values, 1000);
    const struct importance_tensor *t = f.tensors;
    double least = INFINITY, most = 0;
    CHECK(t[0].codes && t[2].codes && model.tensors[2].first == ALL);
    uint64_t first = outliers_check(&f, 0, values, &least, &most);
    uint64_t second = outliers_check(&f, 2, values, &least, &most);
    CHECK(first > 20 && second > 20 && first + second == f.outliers_max);
    CHECK(t[0].outlier == f.outliers && t[2].outlier == f.outliers + first);
    CHECK((char *)(f.outliers + f.outliers_max) <= (char *)f.region.at + f.region.bytes);
    CHECK(outlier_at(&t[0], MATRIX - 1) && least * 1.04 > most && most > 0);
    importance_close(&f);
    model_close(&model);
    free(values), free(begin), free(end);
}

TEST(an_outlier_has_12_bits_of_mantissa)
{
    static const float values[] = {0x1p-149f, FLT_MIN / 3, 1e-20f, 1, 1.0001f, 3e20f, FLT_MAX};
    CHECK(scalar_to_outlier(0) == 0 && scalar_outlier(0) == 0);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        uint32_t word = scalar_to_outlier(values[i]);
        double kept = (double)scalar_outlier(0xabcu << OUTLIER_BITS | word),
               value = (double)values[i];
        CHECK(word > 0 && word < 1u << OUTLIER_BITS && kept > 0 && isfinite(kept));
        CHECK(fabs(kept - value) <= 0x1p-12 * value || value < 0x1p-126);
    }
}

/* Rows of four octaves, and in each 15 values of its own: 0.026 off with one table of levels. */
TEST(rows_of_an_octave_have_levels_of_their_own)
{
    enum { SIDE = 256 };
    static const char *const square[] = {"linear out=256"};
    model_make(square, 1, SIDE);
    float *values = calloc(model.parameter_count, sizeof *values);
    for (int i = 0; i < SIDE * SIDE; i++) {
        int row = i / SIDE, octave = row % 4, n = (row + i % SIDE) % 15;
        values[i] = (float)(exp2(-octave) * exp(0.1 * n * (1 + octave)));
    }
    struct importance f = made_of(values, 1000);
    CHECK(f.tensors[0].tables == 4 && f.error < 0.015);
    importance_close(&f);
    model_close(&model);
    free(values);
}

TEST(it_does_not_depend_on_the_blocks_that_bring_it)
{
    static const uint64_t pieces[] = {1, 7, IN, 1000};
    model_make(one_layer, 1, IN);
    float *values = values_make(0.5);
    struct importance whole = made_of(values, ALL);
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        struct importance f = made_of(values, pieces[i]);
        CHECK(memcmp(f.region.at, whole.region.at, f.region.bytes) == 0);
        CHECK(f.mean == whole.mean && f.error == whole.error);
        importance_close(&f);
    }
    importance_close(&whole);
    model_close(&model);
    free(values);
}

TEST(exact_values_come_back_as_they_were)
{
    model_make(one_layer, 1, IN);
    float *values = values_make(0.5), kept[MATRIX];
    struct importance f;
    struct err e;
    CHECK_OK(importance_open(&f, &model, 1, &e), e);
    CHECK_EQ(f.region.bytes, importance_bytes(&model, 1));
    CHECK(f.region.bytes >= 4 * ALL);
    int passes = 0;
    for (; importance_next(&f); passes++) {
        CHECK_OK(importance_take(&f, values, 1000, &e), e);
        CHECK_OK(importance_take(&f, values + 1000, ALL - 1000, &e), e);
    }
    CHECK(passes == 1 && f.error == 0 && f.mean > 0);
    importance_expand(&f, &backend_cpu, 0, 5, MATRIX - 5, kept);
    CHECK(memcmp(kept, values + 5, (MATRIX - 5) * sizeof *kept) == 0);
    importance_expand(&f, &backend_cpu, 1, 0, OUT, kept);
    CHECK(memcmp(kept, values + MATRIX, OUT * sizeof *kept) == 0);
    importance_close(&f);
    model_close(&model);
    free(values);
}

/* Nothing at all, one value alone, one value everywhere. */
TEST(matrices_without_anything_to_fit)
{
    model_make(one_layer, 1, IN);
    float *values = calloc(ALL, sizeof *values), kept[MATRIX];
    struct importance f = made_of(values, 1000);
    importance_expand(&f, &backend_cpu, 0, 0, MATRIX, kept);
    CHECK(memcmp(kept, values, sizeof kept) == 0 && f.mean == 0 && f.error == 0);
    importance_close(&f);
    values[500] = 3e-7f;
    f = made_of(values, 1000);
    importance_expand(&f, &backend_cpu, 0, 0, MATRIX, kept);
    CHECK(error_of(values, kept, MATRIX) < 1e-6);
    importance_close(&f);
    for (int i = 0; i < MATRIX; i++)
        values[i] = 2;
    f = made_of(values, 1000);
    importance_expand(&f, &backend_cpu, 0, 0, MATRIX, kept);
    CHECK(error_of(values, kept, MATRIX) < 1e-6);
    importance_close(&f);
    model_close(&model);
    free(values);
}

TEST(what_is_no_fisher_information_is_refused)
{
    static const float bad[] = {-1e-30f, NAN, INFINITY};
    struct importance f;
    struct err e;
    model_make(one_layer, 1, IN);
    float *values = values_make(0.5);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_OK(importance_open(&f, &model, 0, &e), e);
        CHECK(importance_next(&f));
        CHECK_OK(importance_take(&f, values, 100, &e), e);
        float before = values[110];
        values[110] = bad[i];
        CHECK(importance_take(&f, values + 100, 100, &e) < 0);
        CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
        CHECK_HAS(e.text, "of parameter 110 is");
        values[110] = before;
        importance_close(&f);
    }
    CHECK_OK(importance_open(&f, &model, 0, &e), e);
    CHECK(importance_next(&f));
    CHECK_OK(importance_take(&f, values, ALL, &e), e);
    CHECK(importance_take(&f, values, 1, &e) < 0);
    CHECK_HAS(e.text, "more than the 31878 parameters");
    importance_close(&f);
    model_close(&model);
    free(values);
}

/* Two files, one after the other: what was found out in four passes does not suit the values of the
 * fifth, which all would be outliers. */
TEST(values_that_change_between_passes_are_refused)
{
    struct importance f;
    struct err e;
    model_make(one_layer, 1, IN);
    float *values = values_make(0.5);
    CHECK_OK(importance_open(&f, &model, 0, &e), e);
    for (int pass = 0; pass < 4; pass++) {
        CHECK(importance_next(&f));
        CHECK_OK(importance_take(&f, values, ALL, &e), e);
    }
    for (uint64_t i = 0; i < MATRIX; i++)
        values[i] *= 1000;
    CHECK(importance_next(&f));
    CHECK(importance_take(&f, values, ALL, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "has changed while it was read");
    CHECK_EQ(f.tensors[0].outlier_first[coded_tiles(MATRIX)], f.outliers_max);
    importance_close(&f);
    model_close(&model);
    free(values);
}

/* The layers of the fashion run: codes, but for biases and the last matrix. */
TEST(it_takes_about_half_a_byte_a_parameter)
{
    static const char *const layers[] = {"linear out=256", "relu", "linear out=256", "relu",
                                         "linear out=10"};
    struct importance f;
    struct err e;
    model_make(layers, 5, 784);
    CHECK_OK(importance_open(&f, &model, 0, &e), e);
    CHECK_EQ(f.region.bytes, importance_bytes(&model, 0));
    CHECK((double)f.region.bytes <= IMPORTANCE_BYTES * (double)model.parameter_count);
    CHECK(f.tensors[0].codes && f.tensors[2].codes && f.tensors[4].values && f.tensors[5].values);
    importance_close(&f);
    model_close(&model);
}

/* An LSTM of bars: so small that whole pages would be 0.588 of it. */
TEST(it_takes_about_half_a_byte_a_parameter_of_a_small_model)
{
    static const char *const layers[] = {"sequence steps=38", "lstm out=128", "pool kind=last",
                                         "linear out=4"};
    struct importance f;
    struct err e;
    model_make(layers, 4, 190);
    CHECK_OK(importance_open(&f, &model, 0, &e), e);
    CHECK_EQ(model.parameter_count, 69636);
    CHECK_EQ(f.region.bytes, importance_bytes(&model, 0));
    CHECK((double)f.region.bytes <= IMPORTANCE_BYTES * (double)model.parameter_count);
    CHECK_EQ((uintptr_t)f.region.at % MEMORY_ALIGNMENT, 0);
    importance_close(&f);
    CHECK_EQ(memory_used(), 0);
    model_close(&model);
}

TEST(a_step_with_codes_has_the_bits_of_one_with_their_values)
{
    static const char *const layers[] = {"linear out=300", "relu", "linear out=70", "linear out=5"};
    float *values = malloc(30000 * sizeof *values), *star = calloc(30000, sizeof *star);
    float *kept = NULL;
    struct step_result r, first;
    for (int run = 0; run < 6; run++) {
        struct fixture f;
        fixture_open(
            &f, &(struct fixture_config){.layers = layers, .count = 4, .threads = 1 + run % 3});
        model = f.m;
        CHECK(model.parameter_count <= 30000);
        for (uint64_t i = 0; i < model.parameter_count; i++)
            values[i] = (float)exp(-4 * uniform(i));
        struct importance importance = made_of(values, 4000);
        CHECK(importance.tensors[2].codes);
        for (uint32_t i = 0; i < model.tensor_count; i++)
            importance_expand(&importance, &backend_cpu, i, 0, model.tensors[i].count,
                              values + model.tensors[i].first);
        struct ewc_term terms[2] = {{run < 3 ? values : NULL, star, 20, &importance, NULL, 0.25},
                                    {NULL, star, 3, &importance, NULL, 0}};
        uint64_t bytes = model.parameter_count * sizeof *kept;
        for (uint64_t step = 0; step < 3; step++)
            r = fixture_train(&f, FIXTURE_ROWS, step, step + 1, &fixture_adamw, terms, 2);
        if (!run) {
            memcpy(kept = malloc(bytes), stepper_parameters(f.s), bytes);
            first = r;
        }
        CHECK(r.penalty > 0 && memcmp(&r, &first, sizeof r) == 0);
        CHECK(memcmp(kept, stepper_parameters(f.s), bytes) == 0);
        importance_close(&importance);
        fixture_close(&f);
    }
    free(values);
    free(star);
    free(kept);
}

/* Damping pulls where there is no Fisher information. */
TEST(damping_is_added_to_every_value)
{
    static const char *const layers[] = {"linear out=5"};
    float *values = calloc(1000, sizeof *values), *star = calloc(1000, sizeof *star);
    struct fixture f;
    fixture_open(&f, &(struct fixture_config){.layers = layers, .count = 1});
    double square = 0;
    for (uint64_t i = 0; i < f.m.parameter_count; i++)
        square += (double)stepper_parameters(f.s)[i] * (double)stepper_parameters(f.s)[i];
    struct ewc_term term = {.fisher = values, .theta_star = star, .lambda = 4, .damping = 0.5};
    double penalty = fixture_train(&f, FIXTURE_ROWS, 0, 1, &fixture_still, &term, 1).penalty;
    CHECK(fabs(penalty - square) < 1e-6 * square);
    fixture_close(&f);
    free(values);
    free(star);
}
