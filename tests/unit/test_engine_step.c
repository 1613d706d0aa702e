/* test_engine_step.c - the stepper: gradients by finite differences, independence of threads,
 * clipping, EWC, bad numbers, and that it allocates what it planned. PyTorch comparisons are in
 * tests/reference. */
#include <dirent.h>
#include <math.h>

#include "engine/cpu/patch.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

enum { INPUTS = FIXTURE_INPUTS, CLASSES = 5, ROWS = FIXTURE_ROWS };

static const char *const small_layers[] = {"linear out=17", "relu", "dropout p=0.3",
                                           "linear out=9",  "relu", "linear out=5"};
static const struct fixture_config small = {.layers = small_layers, .count = 6};

TEST_LIMIT(gradient_equals_finite_differences, 60)
{
    fixture_check_gradient(&small, NULL, 0, NULL);
}

TEST_LIMIT(ewc_gradient_equals_finite_differences, 60)
{
    static float star[1000], fisher[1000];
    for (int i = 0; i < 1000; i++)
        fisher[i] = (float)(i % 7) * 0.01f;
    const struct ewc_term terms[2] = {{fisher, star, 10}, {fisher + 1, star, 3}};
    fixture_check_gradient(&small, terms, 2, star);
}

TEST(result_does_not_depend_on_the_number_of_threads)
{
    static float star[1000], fisher[1000], first[1000], first_m[1000];
    struct optimizer_config a = fixture_adamw;
    struct step_result r, first_r;
    a.max_grad_norm = 0.5;
    for (int i = 0; i < 1000; i++)
        fisher[i] = (float)(i % 5) * 0.01f;
    for (int threads = 1; threads <= 5; threads++) {
        struct fixture f;
        struct ewc_term term = {fisher, star, 20};
        fixture_open(&f, &(struct fixture_config){
                             .layers = small_layers, .count = 6, .threads = threads, .slice = 8});
        for (uint64_t step = 0; step < 20; step++)
            r = fixture_train(&f, step % 3 ? ROWS : 19, step, step + 1, &a, &term, 1);
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

/* theta* in pieces that lie anywhere, as a mapped checkpoint has them. */
TEST(theta_star_of_single_tensors_gives_the_bits_of_the_flat_one)
{
    static const char *const large[] = {"linear out=300", "relu", "linear out=70", "linear out=5"};
    float *flat = calloc(30000, sizeof *flat), *kept = NULL, *apart[6];
    for (int pieces = 0; pieces < 2; pieces++) {
        struct fixture f;
        fixture_open(&f, &(struct fixture_config){.layers = large, .count = 4});
        struct ewc_term term = {.fisher = flat,
                                .theta_star = pieces ? NULL : flat,
                                .lambda = 20,
                                .theta_stars = (const float *const *)apart};
        uint64_t bytes = f.m.parameter_count * sizeof *flat;
        CHECK(f.m.parameter_count <= 30000 && f.m.tensor_count == 6);
        for (uint64_t i = 0; i < f.m.parameter_count; i++) {
            stepper_parameters(f.s)[i] = (float)(i % 11) * 0.01f;
            flat[i] = (float)(i % 7) * 0.01f;
        }
        for (uint32_t i = 0; i < 6; i++) {
            const struct tensor_info *t = &f.m.tensors[i];
            apart[i] = malloc(t->count * sizeof *flat);
            memcpy(apart[i], flat + t->first, t->count * sizeof *flat);
        }
        CHECK(fixture_train(&f, ROWS, 0, 1, &fixture_adamw, &term, 1).penalty > 0);
        if (!pieces)
            memcpy(kept = malloc(bytes), stepper_parameters(f.s), bytes);
        CHECK(memcmp(kept, stepper_parameters(f.s), bytes) == 0);
        for (int i = 0; i < 6; i++)
            free(apart[i]);
        fixture_close(&f);
    }
    free(flat);
    free(kept);
}

TEST(a_large_model_gives_the_same_bits_with_two_threads)
{
    static const char *const large[] = {"linear out=300", "relu", "linear out=200", "relu",
                                        "linear out=5"};
    float *kept = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        struct fixture f;
        fixture_open(&f, &(struct fixture_config){.layers = large, .count = 5, .threads = threads});
        uint64_t bytes = f.m.parameter_count * sizeof(float);
        for (uint64_t step = 0; step < 5; step++)
            fixture_train(&f, ROWS, step, step + 1, &fixture_adamw, NULL, 0);
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
    fixture_open(&whole, &(struct fixture_config){
                             .layers = small_layers, .count = 6, .threads = 1, .slice = ROWS});
    fixture_open(&sliced, &(struct fixture_config){.layers = small_layers, .count = 6, .slice = 7});
    fixture_train(&whole, ROWS, 0, 1, &fixture_adamw, NULL, 0);
    fixture_train(&sliced, ROWS, 0, 1, &fixture_adamw, NULL, 0);
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
    fixture_open(&f, &small);
    for (uint64_t i = 0; i < 3; i++)
        loss[i] =
            fixture_train(&f, ROWS, i % 2, 1, &fixture_still, NULL, 0).loss; /* steps 0, 1, 0 */
    CHECK(loss[0] == loss[2] && loss[0] != loss[1]);
    fixture_close(&f);
}

TEST(clipping_scales_the_gradient_not_the_reported_norm)
{
    struct fixture f;
    struct optimizer_config a = fixture_adamw;
    fixture_open(&f, &(struct fixture_config){.layers = small_layers, .count = 6, .threads = 1});
    double norm = fixture_train(&f, ROWS, 0, 1, &a, NULL, 0).gradient_norm;
    double free_m = (double)stepper_moment_m(f.s)[3];
    fixture_close(&f);
    a.max_grad_norm = norm / 4;
    fixture_open(&f, &(struct fixture_config){.layers = small_layers, .count = 6, .threads = 1});
    CHECK(fixture_train(&f, ROWS, 0, 1, &a, NULL, 0).gradient_norm == norm);
    CHECK(fabs((double)stepper_moment_m(f.s)[3] / free_m - 0.25) < 1e-5);
    fixture_close(&f);
    a.max_grad_norm = norm * 4;
    fixture_open(&f, &(struct fixture_config){.layers = small_layers, .count = 6, .threads = 1});
    fixture_train(&f, ROWS, 0, 1, &a, NULL, 0);
    CHECK((double)stepper_moment_m(f.s)[3] == free_m);
    fixture_close(&f);
}

TEST(training_learns_and_evaluation_sees_it)
{
    struct fixture f;
    struct optimizer_config a = fixture_adamw;
    a.learning_rate = 1e-2;
    fixture_open(&f, &small);
    struct evaluation_result before = fixture_evaluate(&f, ROWS);
    for (uint64_t step = 0; step < 300; step++)
        fixture_train(&f, ROWS, step, step + 1, &a, NULL, 0);
    struct evaluation_result after = fixture_evaluate(&f, ROWS);
    CHECK(after.loss < before.loss / 2 && after.metric > 0.7 && after.rows == ROWS);
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
    fixture_open(&f, &small);
    float *p = stepper_parameters(f.s);
    fisher[7] = INFINITY, star[7] = 5;
    float kept = p[0];
    CHECK(stepper_train(f.s, ROWS, 4, 1, &fixture_adamw, &term, 1, &r, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "take the step: the gradient's norm is");
    CHECK(p[0] == kept && stepper_moment_m(f.s)[0] == 0);
    p[f.m.parameter_count - 1] = NAN;
    CHECK(stepper_train(f.s, ROWS, 5, 1, &fixture_adamw, NULL, 0, &r, &e) < 0);
    CHECK_HAS(e.text, "take the step: the batch's loss is");
    CHECK_EQ(bits_of(p[0]), bits_of(kept));
    stepper_evaluate_begin(f.s);
    CHECK(stepper_evaluate(f.s, ROWS, &e) < 0);
    CHECK_HAS(e.text, "cannot evaluate 50 rows");
    fixture_close(&f);
}

TEST(gather_names_the_bad_row)
{
    struct fixture f;
    struct err e;
    uint64_t bad = 99;
    fixture_open(&f, &small);
    f.features[41][5] = NAN;
    f.classes[44][0] = CLASSES;
    CHECK(stepper_gather(f.s, &f.gather, 0, ROWS, f.feature_rows, f.target_rows, &bad, &e) < 0);
    CHECK_EQ(bad, 41);
    CHECK_HAS(e.text, "feature 5 times the scale 1 is nan");
    f.classes[3][0] = CLASSES;
    CHECK(stepper_gather(f.s, &f.gather, 0, ROWS, f.feature_rows, f.target_rows, &bad, &e) < 0);
    CHECK_EQ(bad, 3);
    CHECK_HAS(e.text, "accepted: 0 to 4");
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    struct gather_config wrong = f.gather;
    strcpy(wrong.feature_type, "f128");
    CHECK(stepper_gather(f.s, &wrong, 0, 1, f.feature_rows, f.target_rows, &bad, &e) < 0);
    CHECK_HAS(e.text, "type 'f128'");
    wrong = f.gather;
    strcpy(wrong.target_type, "f32");
    CHECK(stepper_gather(f.s, &wrong, 0, 1, f.feature_rows, f.target_rows, &bad, &e) < 0);
    CHECK_HAS(e.text, "values of type f32 a row, and the loss softmax_cross_entropy takes one");
    wrong = f.gather;
    wrong.features = 14;
    CHECK(stepper_gather(f.s, &wrong, 0, 1, f.feature_rows, f.target_rows, &bad, &e) < 0);
    CHECK_HAS(e.text, "rows of 14 features into a model of 13 inputs");
    wrong.features = 7;
    wrong.column = 7;
    CHECK(stepper_gather(f.s, &wrong, 0, 1, f.feature_rows, f.target_rows, &bad, &e) < 0);
    CHECK_HAS(e.text, "rows of 14 features into a model of 13 inputs");
    wrong.column = 6;
    wrong.permutation = (uint32_t[7]){0};
    CHECK(stepper_gather(f.s, &wrong, 0, 1, f.feature_rows, f.target_rows, &bad, &e) < 0);
    CHECK_HAS(e.text, "permuted: they come in parts");
    fixture_close(&f);
}

TEST(gather_in_pieces_equals_gather_at_once)
{
    struct fixture f;
    uint64_t bad;
    struct err e;
    fixture_open(&f,
                 &(struct fixture_config){.layers = small_layers, .count = 6, .evaluate_only = 1});
    double whole = fixture_evaluate(&f, ROWS).loss;
    for (uint64_t at = 0; at < ROWS; at += 9) {
        uint64_t count = ROWS - at < 9 ? ROWS - at : 9;
        CHECK_OK(stepper_gather(f.s, &f.gather, at, count, f.feature_rows + at, f.target_rows + at,
                                &bad, &e),
                 e);
    }
    CHECK(fixture_evaluate(&f, ROWS).loss == whole);
    fixture_close(&f);
}

TEST(gather_of_parts_equals_gather_of_the_whole)
{
    enum { FIRST = 4 };
    struct fixture f;
    uint64_t bad;
    struct err e;
    const void *second[ROWS];
    fixture_open(&f,
                 &(struct fixture_config){.layers = small_layers, .count = 6, .evaluate_only = 1});
    double whole = fixture_evaluate(&f, ROWS).loss;
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
    CHECK_OK(stepper_gather(f.s, &part, 0, ROWS, f.feature_rows, f.target_rows, &bad, &e), e);
    CHECK(fixture_evaluate(&f, ROWS).loss == whole);
    f.features[9][FIRST + 2] = NAN;
    part.features = INPUTS - FIRST;
    part.column = FIRST;
    CHECK(stepper_gather(f.s, &part, 0, ROWS, second, NULL, &bad, &e) < 0);
    CHECK_EQ(bad, 9);
    CHECK_HAS(e.text, "its feature 6 ");
    fixture_close(&f);
}

TEST(fisher_equals_single_rows_and_ignores_blocks_and_threads)
{
    static const char *const list[] = {"relu",        "linear out=17", "relu",
                                       "dropout p=0", "linear out=9",  "linear out=5"};
    fixture_check_squares(&(struct fixture_config){.layers = list, .count = 6});
}

/* Of all mappings but the heap, whose growth and trimming malloc decides from what ran before. */
static uint64_t mapped_bytes(void)
{
    char line[4096];
    uint64_t sum = 0;
    FILE *f = fopen("/proc/self/maps", "r");
    CHECK(f);
    while (fgets(line, sizeof line, f)) {
        unsigned long long from, to;
        CHECK(sscanf(line, "%llx-%llx", &from, &to) == 2);
        if (!strstr(line, "[heap]"))
            sum += to - from;
    }
    fclose(f);
    return sum;
}

static void plan_check(const char *const *layers, uint32_t count, const struct model_input *input,
                       const struct step_config *c)
{
    struct plan p = {.count = 0};
    struct model m;
    struct stepper *s;
    struct err e;
    CHECK_OK(model_open_input(&m, layers, count, input, "mean_squared_error", &e), e);
    CHECK_OK(stepper_open(&s, &m, c, &e), e);
    stepper_close(&s);
    uint64_t before = mapped_bytes();
    stepper_plan(&m, c, "trainerd", &p);
    CHECK_OK(stepper_open(&s, &m, c, &e), e);
    CHECK_EQ(mapped_bytes() - before, plan_total(&p, NULL));
    stepper_close(&s);
    CHECK_EQ(mapped_bytes(), before);
    model_close(&m);
}

TEST(plan_equals_what_is_allocated)
{
    static const char *const list[] = {
        "linear out=900",   "relu",         "dropout p=0.1",    "residual_begin",
        "sequence steps=9", "lstm out=100", "sequence steps=1", "residual_end",
        "layernorm",        "linear out=5"};
    static const char *const graphs[] = {"gcn out=90 edges=true", "relu", "gcn out=90",
                                         "pool kind=mean_sum", "linear out=5"};
    for (int with_optimizer = 0; with_optimizer < 2; with_optimizer++)
        for (uint64_t slice = 8; slice <= 64; slice *= 8) {
            struct step_config c = {4096, slice, 1, with_optimizer, 3};
            c.backbone_layers = 3;
            c.freeze_backbone = with_optimizer && slice > 8;
            c.optimizer = c.freeze_backbone ? OPTIMIZER_SGD_MOMENTUM : OPTIMIZER_ADAMW;
            plan_check(list, 10, &(struct model_input){784, 0, 0}, &c);
            c.batch_nodes_max = 100000;
            c.batch_edges_max = 123457;
            c.slice_nodes_max = 40 * slice;
            plan_check(graphs, 5, &(struct model_input){33, 1, 7}, &c);
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

TEST(a_stepper_has_no_threads_but_its_own)
{
    static const char *const large[] = {"linear out=700", "relu", "linear out=500", "linear out=5"};
    struct fixture f;
    fixture_open(
        &f, &(struct fixture_config){.layers = large,
                                     .count = 4,
                                     .threads = 3}); /* whatever a first thread brings with it */
    fixture_close(&f);
    int before = threads_count();
    fixture_open(&f, &(struct fixture_config){
                         .layers = large, .count = 4, .threads = 3}); /* large products, too */
    for (uint64_t step = 0; step < 5; step++)
        fixture_train(&f, ROWS, step, step + 1, &fixture_adamw, NULL, 0);
    CHECK_EQ(threads_count(), before + 2);
    fixture_close(&f);
    CHECK_EQ(threads_count(), before);
}

TEST(cpu_name_is_a_sentence_of_three_words)
{
    patches_force(PATCHES_PLAIN);
    const struct patches *plain = patches_choose();
    patches_force(PATCHES_BEST);
    char name[64];
    int words = 1;
    engine_cpu_name(name, sizeof name);
    for (const char *c = name; *c; c++)
        words += *c == ' ';
    CHECK(words == 3 || strcmp(name, "generic") == 0);
    engine_cpu_arithmetic(name, sizeof name);
    CHECK_EQ(strstr(name, "fma") != NULL, patches_choose() != plain);
    CHECK(engine_cpu_same("x86-64 fma 1 (GenuineIntel 6/85 avx512)", "x86-64 fma 1 (A 25/1 avx2)"));
    CHECK(!engine_cpu_same("x86-64 fma 1 (A 25/1 avx2)", "x86-64 fma 12 (A 25/1 avx2)"));
    CHECK(!engine_cpu_same("x86-64 fma 1 (A 25/1 avx2)", "A 25/1 avx2")); /* as it once was */
}
