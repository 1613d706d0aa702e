/* test_engine_step.c - the stepper: gradients by finite differences, independence of threads,
 * clipping, EWC, bad numbers, and that it allocates what it planned. PyTorch comparisons are in
 * tests/reference. */
#include <dirent.h>
#include <math.h>

#include "engine/model.h"
#include "engine/step.h"
#include "tests/test.h"

enum { INPUTS = 13, CLASSES = 5, ROWS = 50 };

static const char *const small_layers[] = {"linear out=17", "relu", "dropout p=0.3",
                                           "linear out=9",  "relu", "linear out=5"};

struct fixture {
    struct model m;
    struct stepper *s;
    struct gather_config gather;
    float features[ROWS][INPUTS];
    uint8_t classes[ROWS];
    const void *feature_rows[ROWS], *class_rows[ROWS];
};

static const struct adamw_config adamw = {1e-3, 1e-2, 0.9, 0.999, 1e-8, 0};

static void fixture_fill(struct fixture *f)
{
    uint64_t state = 12345; /* the same numbers for every stepper that is compared */
    for (int r = 0; r < ROWS; r++) {
        for (int j = 0; j < INPUTS; j++) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            f->features[r][j] = (float)((double)(state >> 11) * 0x1p-52 - 1);
        }
        f->classes[r] = (uint8_t)(state >> 60) % CLASSES;
        f->feature_rows[r] = f->features[r];
        f->class_rows[r] = &f->classes[r];
    }
}

static void fixture_gather(struct fixture *f, uint64_t rows)
{
    uint64_t bad;
    struct err e;
    CHECK_OK(stepper_gather(f->s, &f->gather, 0, rows, f->feature_rows, f->class_rows, &bad, &e),
             e);
}

static void fixture_open(struct fixture *f, const char *const *list, uint32_t count, int threads,
                         uint64_t slice, int with_optimizer)
{
    struct step_config c = {ROWS, slice, threads, with_optimizer, 3};
    struct err e;
    CHECK_OK(model_open(&f->m, list, count, INPUTS, "softmax_cross_entropy", &e), e);
    CHECK_OK(stepper_open(&f->s, &f->m, &c, &e), e);
    model_initialise(&f->m, 12, stepper_parameters(f->s));
    f->gather = (struct gather_config){"f32", "u8", INPUTS, 1.0, NULL};
    fixture_fill(f);
    fixture_gather(f, ROWS);
}

static void fixture_close(struct fixture *f)
{
    stepper_close(&f->s);
    stepper_close(&f->s);
    model_close(&f->m);
}

static struct step_result train(struct fixture *f, uint64_t rows, uint64_t step, uint64_t t,
                                const struct adamw_config *a, const struct ewc_term *terms, int n)
{
    struct step_result r;
    struct err e;
    CHECK_OK(stepper_train(f->s, rows, step, t, a, terms, n, &r, &e), e);
    return r;
}

/* d(loss + penalty)/d(theta_i) by central differences, with a learning rate of 0 so that nothing
 * moves. */
static double difference(struct fixture *f, uint64_t i, const struct ewc_term *terms, int n)
{
    const struct adamw_config still = {0, 0, 0.9, 0.999, 1e-8, 0};
    const float h = 1.0f / 8192;
    float *p = stepper_parameters(f->s), before = p[i];
    p[i] = before + h;
    struct step_result up = train(f, ROWS, 0, 1, &still, terms, n);
    double width = (double)p[i];
    p[i] = before - h;
    struct step_result down = train(f, ROWS, 0, 1, &still, terms, n);
    width -= (double)p[i];
    p[i] = before;
    return (up.loss + up.penalty - down.loss - down.penalty) / width;
}

static void differences_check(const struct ewc_term *terms, int n, float *theta_star)
{
    const struct adamw_config still = {0, 0, 0.9, 0.999, 1e-8, 0};
    struct fixture f;
    fixture_open(&f, small_layers, 6, 2, 16, 1);
    uint64_t count = f.m.parameter_count;
    for (uint64_t i = 0; theta_star && i < count; i++)
        theta_star[i] = stepper_parameters(f.s)[i] + 0.1f * (float)(i % 3) - 0.1f;
    struct step_result r = train(&f, ROWS, 0, 1, &still, terms, n);
    float *g = malloc(count * sizeof *g);
    double norm2 = 0;
    memcpy(g, stepper_gradient(f.s), count * sizeof *g);
    for (uint64_t i = 0; i < count; i++)
        norm2 += (double)g[i] * (double)g[i];
    CHECK(fabs(r.gradient_norm - sqrt(norm2)) < 1e-9 + 1e-6 * r.gradient_norm);
    /* with the fixture's seed no relu changes sides within a difference */
    double off2 = 0;
    for (uint64_t i = 0; i < count; i++) {
        double off = difference(&f, i, terms, n) - (double)g[i];
        off2 += off * off;
    }
    if (off2 > 1e-6 * norm2)
        test_fail(__FILE__, __LINE__, "off by %g of the norm", sqrt(off2 / norm2));
    free(g);
    fixture_close(&f);
}

TEST_LIMIT(gradient_equals_finite_differences, 60)
{
    differences_check(NULL, 0, NULL);
}

TEST_LIMIT(ewc_gradient_equals_finite_differences, 60)
{
    static float star[1000], fisher[1000];
    for (int i = 0; i < 1000; i++)
        fisher[i] = (float)(i % 7) * 0.01f;
    const struct ewc_term terms[2] = {{fisher, star, 10}, {fisher + 1, star, 3}};
    differences_check(terms, 2, star);
}

TEST(result_does_not_depend_on_the_number_of_threads)
{
    static float star[1000], fisher[1000], first[1000], first_m[1000];
    struct adamw_config a = adamw;
    struct step_result r, first_r;
    a.max_grad_norm = 0.5;
    for (int i = 0; i < 1000; i++)
        fisher[i] = (float)(i % 5) * 0.01f;
    for (int threads = 1; threads <= 5; threads++) {
        struct fixture f;
        struct ewc_term term = {fisher, star, 20};
        fixture_open(&f, small_layers, 6, threads, 8, 1);
        for (uint64_t step = 0; step < 20; step++)
            r = train(&f, step % 3 ? ROWS : 19, step, step + 1, &a, &term, 1);
        CHECK(f.m.parameter_count <= 1000);
        if (threads == 1) {
            memcpy(first, stepper_parameters(f.s), f.m.parameter_count * sizeof *first);
            memcpy(first_m, stepper_moment_m(f.s), f.m.parameter_count * sizeof *first);
            first_r = r;
        }
        CHECK(memcmp(first, stepper_parameters(f.s), f.m.parameter_count * sizeof *first) == 0);
        CHECK(memcmp(first_m, stepper_moment_m(f.s), f.m.parameter_count * sizeof *first) == 0);
        CHECK(memcmp(&first_r, &r, sizeof r) == 0);
        fixture_close(&f);
    }
}

TEST(a_large_model_gives_the_same_bits_with_two_threads)
{
    static const char *const large[] = {"linear out=300", "relu", "linear out=200", "relu",
                                        "linear out=5"};
    float *kept = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        struct fixture f;
        fixture_open(&f, large, 5, threads, 16, 1);
        uint64_t bytes = f.m.parameter_count * sizeof(float);
        for (uint64_t step = 0; step < 5; step++)
            train(&f, ROWS, step, step + 1, &adamw, NULL, 0);
        if (!kept)
            memcpy(kept = malloc(bytes), stepper_parameters(f.s), bytes);
        CHECK(memcmp(kept, stepper_parameters(f.s), bytes) == 0);
        fixture_close(&f);
    }
    free(kept);
}

/* With dropout: the mask belongs to the row of the batch, whichever slice it is in. */
TEST(slices_give_the_gradient_of_the_whole)
{
    struct fixture whole, sliced;
    fixture_open(&whole, small_layers, 6, 1, ROWS, 1);
    fixture_open(&sliced, small_layers, 6, 2, 7, 1);
    train(&whole, ROWS, 0, 1, &adamw, NULL, 0);
    train(&sliced, ROWS, 0, 1, &adamw, NULL, 0);
    const float *a = stepper_gradient(whole.s), *b = stepper_gradient(sliced.s);
    double off = 0, all = 0;
    for (uint64_t i = 0; i < whole.m.parameter_count; i++) {
        off += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        all += (double)a[i] * (double)a[i];
    }
    CHECK(all > 0 && sqrt(off / all) < 1e-6);
    fixture_close(&whole);
    fixture_close(&sliced);
}

TEST(dropout_follows_step_and_seed_only)
{
    struct fixture f;
    double loss[3];
    const struct adamw_config still = {0, 0, 0.9, 0.999, 1e-8, 0};
    fixture_open(&f, small_layers, 6, 2, 16, 1);
    for (uint64_t i = 0; i < 3; i++)
        loss[i] = train(&f, ROWS, i % 2, 1, &still, NULL, 0).loss; /* steps 0, 1, 0 */
    CHECK(loss[0] == loss[2] && loss[0] != loss[1]);
    fixture_close(&f);
}

TEST(clipping_scales_the_gradient_not_the_reported_norm)
{
    struct fixture f;
    struct adamw_config a = adamw;
    fixture_open(&f, small_layers, 6, 1, 16, 1);
    double norm = train(&f, ROWS, 0, 1, &a, NULL, 0).gradient_norm;
    double free_m = (double)stepper_moment_m(f.s)[3];
    fixture_close(&f);
    a.max_grad_norm = norm / 4;
    fixture_open(&f, small_layers, 6, 1, 16, 1);
    CHECK(train(&f, ROWS, 0, 1, &a, NULL, 0).gradient_norm == norm);
    CHECK(fabs((double)stepper_moment_m(f.s)[3] / free_m - 0.25) < 1e-5);
    fixture_close(&f);
    a.max_grad_norm = norm * 4;
    fixture_open(&f, small_layers, 6, 1, 16, 1);
    train(&f, ROWS, 0, 1, &a, NULL, 0);
    CHECK((double)stepper_moment_m(f.s)[3] == free_m);
    fixture_close(&f);
}

TEST(training_learns_and_evaluation_sees_it)
{
    struct fixture f;
    struct adamw_config a = adamw;
    double before, after;
    uint64_t correct;
    struct err e;
    a.learning_rate = 1e-2;
    fixture_open(&f, small_layers, 6, 2, 16, 1);
    CHECK_OK(stepper_evaluate(f.s, ROWS, &before, &correct, &e), e);
    for (uint64_t step = 0; step < 300; step++)
        train(&f, ROWS, step, step + 1, &a, NULL, 0);
    CHECK_OK(stepper_evaluate(f.s, ROWS, &after, &correct, &e), e);
    CHECK(after < before / 2 && correct > ROWS * 7 / 10);
    fixture_close(&f);
}

static int32_t bits_of(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

TEST(numbers_that_are_not_finite_stop_the_step_untouched)
{
    struct fixture f;
    struct step_result r;
    struct err e;
    static float star[1000], fisher[1000];
    struct ewc_term term = {fisher, star, 1};
    fixture_open(&f, small_layers, 6, 2, 16, 1);
    float *p = stepper_parameters(f.s);
    fisher[7] = INFINITY, star[7] = 5;
    float kept = p[0];
    CHECK(stepper_train(f.s, ROWS, 4, 1, &adamw, &term, 1, &r, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "step 4: the gradient's norm is");
    CHECK(p[0] == kept && stepper_moment_m(f.s)[0] == 0);
    p[f.m.parameter_count - 1] = NAN;
    CHECK(stepper_train(f.s, ROWS, 5, 1, &adamw, NULL, 0, &r, &e) < 0);
    CHECK_HAS(e.text, "step 5: the batch's loss is");
    CHECK_EQ(bits_of(p[0]), bits_of(kept));
    double loss;
    uint64_t correct;
    CHECK(stepper_evaluate(f.s, ROWS, &loss, &correct, &e) < 0);
    CHECK_HAS(e.text, "cannot evaluate 50 rows");
    fixture_close(&f);
}

TEST(gather_names_the_bad_row)
{
    struct fixture f;
    struct err e;
    uint64_t bad = 99;
    fixture_open(&f, small_layers, 6, 2, 16, 1);
    f.features[41][5] = NAN;
    f.classes[44] = CLASSES;
    CHECK(stepper_gather(f.s, &f.gather, 0, ROWS, f.feature_rows, f.class_rows, &bad, &e) < 0);
    CHECK_EQ(bad, 41);
    CHECK_HAS(e.text, "feature 5 times the scale 1 is nan");
    f.classes[3] = CLASSES;
    CHECK(stepper_gather(f.s, &f.gather, 0, ROWS, f.feature_rows, f.class_rows, &bad, &e) < 0);
    CHECK_EQ(bad, 3);
    CHECK_HAS(e.text, "accepted: 0 to 4");
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    struct gather_config wrong = f.gather;
    strcpy(wrong.feature_type, "f128");
    CHECK(stepper_gather(f.s, &wrong, 0, 1, f.feature_rows, f.class_rows, &bad, &e) < 0);
    CHECK_HAS(e.text, "type 'f128'");
    wrong = f.gather;
    strcpy(wrong.target_type, "f32");
    CHECK(stepper_gather(f.s, &wrong, 0, 1, f.feature_rows, f.class_rows, &bad, &e) < 0);
    CHECK_HAS(e.text, "classes of type 'f32'");
    wrong = f.gather;
    wrong.features = 14;
    CHECK(stepper_gather(f.s, &wrong, 0, 1, f.feature_rows, f.class_rows, &bad, &e) < 0);
    CHECK_HAS(e.text, "rows of 14 features into a model of 13 inputs");
    wrong.features = 7;
    wrong.column = 7;
    CHECK(stepper_gather(f.s, &wrong, 0, 1, f.feature_rows, f.class_rows, &bad, &e) < 0);
    CHECK_HAS(e.text, "rows of 14 features into a model of 13 inputs");
    wrong.column = 6;
    wrong.permutation = (uint32_t[7]){0};
    CHECK(stepper_gather(f.s, &wrong, 0, 1, f.feature_rows, f.class_rows, &bad, &e) < 0);
    CHECK_HAS(e.text, "permuted: they come in parts");
    fixture_close(&f);
}

TEST(gather_in_pieces_equals_gather_at_once)
{
    struct fixture f;
    double whole, pieces;
    uint64_t correct, bad;
    struct err e;
    fixture_open(&f, small_layers, 6, 2, 16, 0);
    CHECK_OK(stepper_evaluate(f.s, ROWS, &whole, &correct, &e), e);
    for (uint64_t at = 0; at < ROWS; at += 9) {
        uint64_t count = ROWS - at < 9 ? ROWS - at : 9;
        CHECK_OK(stepper_gather(f.s, &f.gather, at, count, f.feature_rows + at, f.class_rows + at,
                                &bad, &e),
                 e);
    }
    CHECK_OK(stepper_evaluate(f.s, ROWS, &pieces, &correct, &e), e);
    CHECK(whole == pieces);
    fixture_close(&f);
}

TEST(gather_of_parts_equals_gather_of_the_whole)
{
    enum { FIRST = 4 };
    struct fixture f;
    double whole, parts;
    uint64_t correct, bad;
    struct err e;
    const void *second[ROWS];
    fixture_open(&f, small_layers, 6, 2, 16, 0);
    CHECK_OK(stepper_evaluate(f.s, ROWS, &whole, &correct, &e), e);
    struct gather_config part = f.gather;
    for (int i = 0; i < ROWS; i++)
        second[i] = (const float *)f.feature_rows[i] + FIRST;
    memset(f.features, 0, sizeof f.features); /* so that nothing of the first gather is left */
    fixture_gather(&f, ROWS);
    fixture_fill(&f);
    part.features = INPUTS - FIRST;
    part.column = FIRST;
    CHECK_OK(stepper_gather(f.s, &part, 0, ROWS, second, NULL, &bad, &e), e);
    part.features = FIRST;
    part.column = 0;
    CHECK_OK(stepper_gather(f.s, &part, 0, ROWS, f.feature_rows, f.class_rows, &bad, &e), e);
    CHECK_OK(stepper_evaluate(f.s, ROWS, &parts, &correct, &e), e);
    CHECK(whole == parts);
    f.features[9][FIRST + 2] = NAN;
    part.features = INPUTS - FIRST;
    part.column = FIRST;
    CHECK(stepper_gather(f.s, &part, 0, ROWS, second, NULL, &bad, &e) < 0);
    CHECK_EQ(bad, 9);
    CHECK_HAS(e.text, "its feature 6 ");
    fixture_close(&f);
}

/* The sum of squares of one-row gradients, each from the stepper's own training pass. */
static void squares_by_single_rows(const char *const *list, uint32_t count, double *sums)
{
    struct fixture f;
    const struct adamw_config still = {0, 0, 0.9, 0.999, 1e-8, 0};
    struct err e;
    uint64_t bad;
    fixture_open(&f, list, count, 1, 16, 1);
    for (int r = 0; r < ROWS; r++) {
        CHECK_OK(
            stepper_gather(f.s, &f.gather, 0, 1, f.feature_rows + r, f.class_rows + r, &bad, &e),
            e);
        train(&f, 1, 0, 1, &still, NULL, 0);
        for (uint64_t i = 0; i < f.m.parameter_count; i++)
            sums[i] += (double)stepper_gradient(f.s)[i] * (double)stepper_gradient(f.s)[i];
    }
    fixture_close(&f);
}

TEST(fisher_equals_single_rows_and_ignores_blocks_and_threads)
{
    static const char *const list[] = {"relu",        "linear out=17", "relu",
                                       "dropout p=0", "linear out=9",  "linear out=5"};
    static double wanted[1000];
    static float first[1000], sums[1000];
    struct err e;
    squares_by_single_rows(list, 6, wanted);
    for (int threads = 1; threads <= 3; threads++)
        for (uint64_t block = 1000; block > 10; block /= 3) {
            struct fixture f;
            fixture_open(&f, list, 6, threads, 16, 0);
            uint64_t total = f.m.parameter_count;
            memset(sums, 0, sizeof sums);
            for (uint64_t at = 0; at < total; at += block)
                CHECK_OK(stepper_fisher(f.s, ROWS, at, total - at < block ? total - at : block,
                                        sums + at, &e),
                         e);
            if (threads == 1 && block == 1000)
                memcpy(first, sums, sizeof sums);
            CHECK(memcmp(first, sums, sizeof sums) == 0);
            for (uint64_t i = 0; i < total; i++)
                CHECK(fabs((double)sums[i] - wanted[i]) <= 1e-5 * wanted[i] + 1e-10);
            fixture_close(&f);
        }
}

static uint64_t mapped_bytes(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    CHECK(f && fscanf(f, "%lu", &pages) == 1);
    fclose(f);
    return (uint64_t)pages * 4096;
}

TEST(plan_equals_what_is_allocated)
{
    static const char *const list[] = {"linear out=900", "relu", "dropout p=0.1", "linear out=5"};
    for (int with_optimizer = 0; with_optimizer < 2; with_optimizer++)
        for (uint64_t slice = 8; slice <= 64; slice *= 8) {
            struct step_config c = {4096, slice, 1, with_optimizer, 3};
            struct plan p = {.count = 0};
            struct model m;
            struct stepper *s;
            struct err e;
            CHECK_OK(model_open(&m, list, 4, 784, "softmax_cross_entropy", &e), e);
            free(malloc(65536)); /* the heap has room for the stepper itself */
            uint64_t before = mapped_bytes();
            stepper_plan(&m, &c, "trainerd", &p);
            CHECK_OK(stepper_open(&s, &m, &c, &e), e);
            CHECK_EQ(mapped_bytes() - before, plan_total(&p, NULL));
            stepper_close(&s);
            CHECK_EQ(mapped_bytes(), before);
            model_close(&m);
        }
}

TEST(a_model_that_does_not_fit_is_refused)
{
    static const char *const list[] = {"linear out=16777216", "linear out=16777216",
                                       "linear out=5"};
    struct step_config c = {1u << 20, 65536, 2, 1, 3};
    struct model m;
    struct stepper *s = NULL;
    struct err e;
    CHECK_OK(model_open(&m, list, 3, 16777216, "softmax_cross_entropy", &e), e);
    CHECK(stepper_open(&s, &m, &c, &e) < 0);
    CHECK(s == NULL);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    CHECK_HAS(e.text, "MiB for parameters");
    model_close(&m);
}

static int threads_count(void)
{
    int count = 0;
    DIR *d = opendir("/proc/self/task");
    for (struct dirent *entry; (entry = readdir(d));)
        count += entry->d_name[0] != '.';
    closedir(d);
    return count;
}

TEST(matrix_library_starts_no_threads)
{
    static const char *const large[] = {"linear out=700", "relu", "linear out=500", "linear out=5"};
    struct fixture f;
    fixture_open(&f, large, 4, 3, 16, 1); /* whatever a first thread brings with it */
    fixture_close(&f);
    int before = threads_count();
    fixture_open(&f, large, 4, 3, 16, 1); /* large enough for the library to want more */
    for (uint64_t step = 0; step < 5; step++)
        train(&f, ROWS, step, step + 1, &adamw, NULL, 0);
    CHECK_EQ(threads_count(), before + 2);
    fixture_close(&f);
    CHECK_EQ(threads_count(), before);
}

TEST(cpu_name_is_a_sentence_of_three_words)
{
    char name[64];
    int words = 1;
    engine_cpu_name(name, sizeof name);
    for (const char *c = name; *c; c++)
        words += *c == ' ';
    CHECK(words == 3 || strcmp(name, "generic") == 0);
}
