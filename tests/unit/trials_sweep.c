/* trials_sweep.c - trials of the operations over all parameters, of codes and of products. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "tests/unit/cuda_trial.h"

static uint64_t count_of(struct trial_shape s)
{
    return s.rows * s.columns;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static float *changed(struct trial *t, struct trial_shape s)
{
    return trial_floats(t, TRIAL_CHANGED, TRIAL_SAME, count_of(s));
}

static const float *input(struct trial *t, struct trial_shape s)
{
    return trial_floats(t, TRIAL_INPUT, TRIAL_SAME, count_of(s));
}

static double *number(struct trial *t, enum trial_role role)
{
    return trial_numbers(t, role, TRIAL_DOUBLE, TRIAL_F64, 1);
}

/* Long sums, which libraries cut in ways of their own, are of numbers whose sums are exact. */
static struct matrix factor(struct trial *t, uint64_t rows, uint64_t columns, uint64_t sums)
{
    return sums > 3000 ? trial_coarse(t, TRIAL_INPUT, rows, columns)
                       : trial_matrix(t, TRIAL_INPUT, TRIAL_SAME, rows, columns);
}

/* A sum in double of numbers that were rounded to float32. */
static double *terms(struct trial *t)
{
    return trial_numbers(t, TRIAL_CHANGED, TRIAL_TERMS, TRIAL_F64, 1);
}

/* Every fourth number of columns is one that kernels read by fours. */
static uint64_t columns_of(struct trial_shape s)
{
    return s.rows % 2 ? s.columns % 37 + 1 : s.columns % 37 / 4 * 4 + 4;
}

static void products(struct trial *t, uint64_t m, uint64_t n, uint64_t k)
{
    for (int turned = 0; turned < 4; turned++)
        for (int beta = 0; beta < 2; beta++) {
            int a_t = turned & 1, b_t = turned >> 1;
            struct matrix a = factor(t, a_t ? k : m, a_t ? m : k, k);
            struct matrix b = factor(t, b_t ? n : k, b_t ? k : n, k);
            op_product(trial_backend(t), a, a_t, b, b_t, (float)beta,
                       trial_matrix(t, beta ? TRIAL_CHANGED : TRIAL_OUTPUT, TRIAL_FLOAT, m, n));
        }
}

/* Numbers that are infinite, none or nearly infinite. */
static const float beyond[] = {INFINITY, -INFINITY, NAN, FLT_MAX, -0x1.ffp127f, 0x1p100f};

/* One of them to a row, and one product that is too large. */
static void products_beyond(struct trial *t, int a_t, int b_t, uint64_t m, uint64_t n, uint64_t k)
{
    const uint64_t count = sizeof beyond / sizeof *beyond, last = count - 1;
    float *a = malloc(m * k * sizeof *a), *b = malloc(k * n * sizeof *b);
    for (uint64_t i = 0; i < m * k; i++) /* as trial_coarse's */
        a[i] = (float)floor(64 * trial_uniform(t)) / 64;
    for (uint64_t i = 0; i < k * n; i++)
        b[i] = (float)floor(64 * trial_uniform(t)) / 64;
    for (uint64_t i = 0; i < count; i++)
        a[a_t ? i * m + 9 * i : 9 * i * k + i] = beyond[i];
    b[b_t ? 2 * k + last : last * n + 2] = beyond[last];
    op_product(
        trial_backend(t),
        matrix_of(trial_given(t, TRIAL_INPUT, TRIAL_F32, a, m * k), a_t ? k : m, a_t ? m : k), a_t,
        matrix_of(trial_given(t, TRIAL_INPUT, TRIAL_F32, b, k * n), b_t ? n : k, b_t ? k : n), b_t,
        0, trial_matrix(t, TRIAL_OUTPUT, TRIAL_FLOAT, m, n));
    free(a);
    free(b);
}

/* Those of many rows, and of long sums, which a GPU takes its own way, and an emulated one from
 * fewer on. */
void trial_product(struct trial *t, struct trial_shape s)
{
    products(t, s.rows, columns_of(s), s.columns);
    if (s.rows == 560)
        products(t, 132, 60, 560);
    for (int turned = 0; s.rows == 560 && turned < 3; turned++)
        products_beyond(t, turned & 1, turned >> 1, 132, 60, 288);
    if (s.rows == TRIAL_ROWS_LARGE) {
        products(t, 6200, 256, 72);
        products(t, 68, 132, 6200);
        products_beyond(t, 0, 0, 6200, 256, 72);
        products_beyond(t, 0, 1, 6200, 256, 72);
        products_beyond(t, 1, 0, 68, 132, 6200);
    }
}

/* Either way to have a factor: in 16 bits, or in float32. */
static struct mixed mixed_factor(struct trial *t, int halves, enum half half, uint64_t rows,
                                 uint64_t columns, uint64_t sums)
{
    struct matrix m = factor(t, rows, columns, sums);
    if (!halves)
        return mixed_of(m);
    /* dense, and as far from an aligned address as the shape says */
    float *x = trial_floats(t, TRIAL_SCRATCH, TRIAL_SAME, rows * columns);
    uint16_t *h = trial_numbers(t, TRIAL_SCRATCH, TRIAL_SAME, TRIAL_U16, rows * columns);
    for (uint64_t r = 0; r < rows; r++)
        op_copy(trial_backend(t), m.at + r * m.stride, x + r * columns, columns);
    op_store_half(trial_backend(t), half, x, h, rows * columns);
    return mixed_at(h, NULL, rows, columns);
}

/* Operands in float32 of more numbers than a device narrows at a time: long sums, and many results
 * in 16 bits. */
static void mixed_large(struct trial *t)
{
    enum { MANY = 400000, WIDE = 8, FEW = 1 };
    for (int turned = 0; turned < 2; turned++) {
        struct mixed few =
            mixed_factor(t, turned, HALF_BF16, turned ? MANY : FEW, turned ? FEW : MANY, MANY);
        struct mixed wide =
            mixed_factor(t, 0, HALF_BF16, turned ? MANY : WIDE, turned ? WIDE : MANY, MANY);
        op_product_mixed(trial_backend(t), HALF_BF16, few, turned, wide, !turned, (float)turned,
                         mixed_of(trial_matrix(t, TRIAL_CHANGED, TRIAL_FLOAT, FEW, WIDE)));
    }
    struct mixed rows = mixed_factor(t, 0, HALF_F16, MANY, WIDE, WIDE);
    struct mixed by = mixed_factor(t, 1, HALF_F16, FEW, WIDE, WIDE);
    for (int turned = 0; turned < 2; turned++) {
        uint16_t *h = trial_numbers(t, TRIAL_SCRATCH, TRIAL_SAME, TRIAL_U16, MANY * FEW);
        op_product_mixed(trial_backend(t), HALF_F16, turned ? by : rows, 0, turned ? rows : by, 1,
                         0, mixed_at(h, NULL, turned ? FEW : MANY, turned ? MANY : FEW));
        op_load_half(trial_backend(t), HALF_F16, h,
                     trial_floats(t, TRIAL_OUTPUT, TRIAL_HALF, MANY * FEW), MANY * FEW);
    }
}

/* One product of each order of operands. */
void trial_product_mixed(struct trial *t, struct trial_shape s)
{
    uint64_t n = columns_of(s);
    for (int turned = 0; turned < 4; turned++) {
        uint64_t ways = trial_random(t);
        enum half half = ways & 1 ? HALF_F16 : HALF_BF16;
        int a_t = turned & 1, b_t = turned >> 1, halves = ways >> 1 & 1, beta = ways >> 2 & 1;
        uint64_t m = a_t ? 2 * n : s.rows, k = least(a_t ? s.rows : s.columns, 2000);
        struct mixed a = mixed_factor(t, ways >> 3 & 1, half, a_t ? k : m, a_t ? m : k, k);
        struct mixed b = mixed_factor(t, ways >> 4 & 1, half, b_t ? n : k, b_t ? k : n, k);
        struct matrix c = trial_matrix(t, TRIAL_CHANGED, halves ? TRIAL_HALF : TRIAL_FLOAT, m, n);
        uint16_t *h = trial_numbers(t, TRIAL_SCRATCH, TRIAL_SAME, TRIAL_U16, m * n);
        struct mixed narrow = mixed_at(h, NULL, m, n);
        op_product_mixed(trial_backend(t), half, a, a_t, b, b_t, halves ? 0 : (float)beta,
                         halves ? narrow : mixed_of(c));
        for (uint64_t r = 0; halves && r < m; r++)
            op_load_half(trial_backend(t), half, h + r * n, c.at + r * c.stride, n);
    }
    if (s.rows == 33 && s.columns == 64)
        mixed_large(t);
}

void trial_sum_squares(struct trial *t, struct trial_shape s)
{
    const float *x = input(t, s);
    op_sum_squares(trial_backend(t), x, count_of(s), number(t, TRIAL_OUTPUT));
}

void trial_sum_add(struct trial *t, struct trial_shape s)
{
    double *x = malloc(count_of(s) * sizeof *x);
    for (uint64_t i = 0; i < count_of(s); i++)
        x[i] = 1 + trial_uniform(t); /* as losses are, not below 0 */
    const double *given = trial_given(t, TRIAL_INPUT, TRIAL_F64, x, count_of(s));
    op_sum_add(trial_backend(t), given, count_of(s), number(t, TRIAL_CHANGED));
    op_sum_add(trial_backend(t), NULL, 0, number(t, TRIAL_CHANGED));
    free(x);
}

/* ---- Fisher information and penalty ---- */

void trial_ewc_add(struct trial *t, struct trial_shape s)
{
    const float *theta = input(t, s), *star = input(t, s), *fisher = input(t, s);
    float *g = changed(t, s);
    op_ewc_add(trial_backend(t), theta, star, fisher, 1.25, 20, g, count_of(s), terms(t));
}

/* Numbers in bfloat16, finite. */
static const uint16_t *brains(struct trial *t, uint64_t count)
{
    uint16_t *h = malloc(count * sizeof *h);
    for (uint64_t i = 0; i < count; i++)
        h[i] = scalar_to_brain((float)trial_uniform(t));
    const uint16_t *given = trial_given(t, TRIAL_INPUT, TRIAL_U16, h, count);
    free(h);
    return given;
}

void trial_ewc_half_add(struct trial *t, struct trial_shape s)
{
    const float *theta = input(t, s), *star = input(t, s);
    const uint16_t *fisher = brains(t, count_of(s));
    float *g = changed(t, s);
    op_ewc_half_add(trial_backend(t), theta, star, fisher, 1.25, 20, g, count_of(s), terms(t));
}

/* Random levels, but for those of code 0. */
static const float *levels(struct trial *t)
{
    float level[CODED_TABLES * CODED_LEVELS];
    for (int i = 0; i < CODED_TABLES * CODED_LEVELS; i++)
        level[i] = i % CODED_LEVELS ? (float)trial_uniform(t) : 0;
    return trial_given(t, TRIAL_INPUT, TRIAL_F32, level, CODED_TABLES * CODED_LEVELS);
}

/* Random codes and outliers: of four tiles the second has nothing else and the last one none, of
 * the others about every sixteenth value is one. The first value of each is zero where there are
 * none, else an outlier: a zero must not be taken for the outlier of the next tile. */
static void codes_given(struct trial *t, struct coded_matrix *m, uint64_t count)
{
    uint64_t bytes = (count + CODED_GROUP - 1) / CODED_GROUP * (CODED_GROUP / 2), all = 0;
    uint8_t *codes = malloc(bytes);
    uint32_t *outlier = malloc(count * sizeof *outlier);
    uint32_t *first = calloc(coded_tiles(count) + 1, sizeof *first);
    for (uint64_t i = 0; i < bytes; i++)
        codes[i] = (uint8_t)trial_random(t);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t tile = i / CODED_TILE, in_group = i % CODED_GROUP, half = CODED_GROUP / 2;
        int begins = i % CODED_TILE == 0;
        int apart = tile % 4 == 1 || (tile % 4 != 3 && (begins || trial_random(t) % 16 == 0));
        if (apart || begins)
            codes[i / CODED_GROUP * half + in_group % half] &= in_group < half ? 0xf0 : 0x0f;
        if (apart)
            outlier[all++] = (uint32_t)(i % CODED_TILE) << OUTLIER_BITS |
                             scalar_to_outlier((float)fabs(trial_uniform(t)));
        first[tile + 1] = (uint32_t)all;
    }
    m->codes = trial_given(t, TRIAL_INPUT, TRIAL_U8, codes, bytes);
    m->outlier = trial_given(t, TRIAL_INPUT, TRIAL_U32, outlier, all);
    m->outlier_first = trial_given(t, TRIAL_INPUT, TRIAL_U32, first, coded_tiles(count) + 1);
    free(codes);
    free(outlier);
    free(first);
}

static struct coded_matrix coded(struct trial *t, struct trial_shape s)
{
    struct coded_matrix m = {
        .row = trial_numbers(t, TRIAL_INPUT, TRIAL_SAME, TRIAL_U8, s.rows),
        .column = trial_numbers(t, TRIAL_INPUT, TRIAL_SAME, TRIAL_U8, s.columns),
        .level = levels(t),
        .rows = s.rows,
        .columns = s.columns,
        .tables = CODED_TABLES,
    };
    codes_given(t, &m, count_of(s));
    return m;
}

/* All of a matrix, and a part that begins and ends within a row. */
void trial_expand_codes(struct trial *t, struct trial_shape s)
{
    uint64_t from = count_of(s) / 3, count = (count_of(s) - from) / 2 + 1;
    struct coded_matrix m = coded(t, s);
    op_expand_codes(trial_backend(t), m, 0, count_of(s),
                    trial_floats(t, TRIAL_OUTPUT, TRIAL_SAME, count_of(s)));
    op_expand_codes(trial_backend(t), m, from, count,
                    trial_floats(t, TRIAL_OUTPUT, TRIAL_SAME, count));
}

void trial_ewc_coded_add(struct trial *t, struct trial_shape s)
{
    uint64_t from = count_of(s) / 3, count = (count_of(s) - from) / 2 + 1;
    struct coded_matrix m = coded(t, s);
    const float *theta = input(t, s), *star = input(t, s);
    float *g = trial_floats(t, TRIAL_CHANGED, TRIAL_SAME, count);
    op_ewc_coded_add(trial_backend(t), theta, star, m, from, 1.25, 20, g, count, terms(t));
}

/* ---- the optimizer ---- */

/* A gradient whose squares add up to the same double in any order; bad: one number is infinite. */
static const float *gradient_of(struct trial *t, struct trial_shape s, int bad)
{
    float *g = malloc(count_of(s) * sizeof *g);
    for (uint64_t i = 0; i < count_of(s); i++)
        g[i] = (float)floor(64 * trial_uniform(t)) / 64;
    if (bad)
        g[count_of(s) / 2] = -INFINITY;
    const float *given = trial_given(t, TRIAL_INPUT, TRIAL_F32, g, count_of(s));
    free(g);
    return given;
}

/* Good numbers and rows, then one thing after the other that is not. What stands for the sum of
 * squares before is not read. */
void trial_step_verdict(struct trial *t, struct trial_shape s)
{
    enum { GOOD, NORM, PENALTY, LOSS, LARGE, ROW, TARGET, BEFORE, CASES };
    for (int bad = GOOD; bad < CASES; bad++) {
        double sums[4] = {NAN, 0.25, 3 * (double)s.rows, 2};
        uint64_t first[2 * STEP_BADS] = {s.rows, s.rows, 7, 0, s.rows, s.rows, 0, 0};
        struct step_verdict verdict = {0, bad == BEFORE};
        struct step_limits limits = {.loss_max = 4,
                                     .max_grad_norm = bad % 2 ? 0.5 : 0,
                                     .target_steps = 1,
                                     .batch_rows = (double)s.rows,
                                     .pieces = 2,
                                     .rows = {{s.rows, s.rows}, {s.rows, s.rows}}};
        sums[1] = bad == PENALTY ? NAN : sums[1];
        sums[2] = bad == LOSS ? NAN : bad == LARGE ? 5 * (double)s.rows : sums[2];
        first[0] = bad == ROW ? s.rows - 1 : first[0];
        first[STEP_BADS + 1] = bad == TARGET ? 0 : first[STEP_BADS + 1];
        const void *rows = trial_given(t, TRIAL_INPUT, TRIAL_U64, first, 2 * STEP_BADS);
        op_step_verdict(trial_backend(t), gradient_of(t, s, bad == NORM), count_of(s),
                        trial_given(t, TRIAL_CHANGED, TRIAL_F64, sums, 4), rows, &limits,
                        trial_given(t, TRIAL_CHANGED, TRIAL_U32, &verdict, 2),
                        trial_numbers(t, TRIAL_OUTPUT, TRIAL_SAME, TRIAL_U64, 5));
    }
}

void trial_commit(struct trial *t, struct trial_shape s)
{
    for (uint32_t refused = 0; refused < 2; refused++) {
        struct step_verdict verdict = {1, refused};
        op_commit(trial_backend(t), trial_given(t, TRIAL_INPUT, TRIAL_U32, &verdict, 2),
                  input(t, s), changed(t, s), count_of(s));
    }
}

/* Weights for products, of parameters that may differ in their last digit. */
static float *weights(struct trial *t, struct trial_shape s)
{
    return trial_floats(t, TRIAL_OUTPUT, TRIAL_HALF, count_of(s));
}

void trial_adamw(struct trial *t, struct trial_shape s)
{
    const struct adamw_scalars a = {.clip = 0.7f,
                                    .decay = 1e-4f,
                                    .beta1 = 0.9f,
                                    .one_beta1 = 0.1f,
                                    .beta2 = 0.999f,
                                    .one_beta2 = 0.001f,
                                    .rate = 3e-3f,
                                    .root = 1.7f,
                                    .eps = 1e-8f};
    float *v = malloc(count_of(s) * sizeof *v);
    for (uint64_t i = 0; i < count_of(s); i++)
        v[i] = (float)(1 + trial_uniform(t)); /* a mean of squares */
    for (int half = HALF_NONE; half < HALF_COUNT; half++) {
        float *p = changed(t, s), *m = changed(t, s);
        float *squares = trial_given(t, TRIAL_CHANGED, TRIAL_F32, v, count_of(s));
        op_adamw(trial_backend(t), p, m, squares, input(t, s), count_of(s), &a, half,
                 half ? weights(t, s) : NULL);
    }
    free(v);
}

static const struct sgd_scalars sgd = {.clip = 0.7f,
                                       .decay = 1e-3f,
                                       .momentum = 0.9f,
                                       .of_moment = 0.9f,
                                       .of_gradient = 1,
                                       .rate = 1e-2f};

void trial_sgd_momentum(struct trial *t, struct trial_shape s)
{
    for (int half = HALF_NONE; half < HALF_COUNT; half++) {
        float *p = changed(t, s), *m = changed(t, s);
        op_sgd_momentum(trial_backend(t), p, m, input(t, s), count_of(s), &sgd, half,
                        half ? weights(t, s) : NULL);
    }
}

void trial_sgd(struct trial *t, struct trial_shape s)
{
    for (int half = HALF_NONE; half < HALF_COUNT; half++) {
        float *p = changed(t, s);
        op_sgd(trial_backend(t), p, input(t, s), count_of(s), &sgd, half,
               half ? weights(t, s) : NULL);
    }
}

void trial_linear_forward(struct trial *t, struct trial_shape s)
{
    uint64_t m = s.rows, n = s.columns % 4 || s.columns > 128 ? s.columns % 37 + 1 : 68,
             k = s.columns;
    for (int half = HALF_NONE; half < HALF_COUNT; half++)
        for (int kind = half ? ACTIVATION_COUNT - half : 0; kind <= ACTIVATION_COUNT; kind += 2) {
            enum trial_bar bar = half ? TRIAL_HALF : TRIAL_FLOAT;
            struct matrix x = trial_matrix(t, TRIAL_INPUT, TRIAL_SAME, m, k);
            struct matrix w = trial_matrix(t, TRIAL_INPUT, TRIAL_SAME, n, k);
            float *y = trial_floats(t, TRIAL_OUTPUT, bar, m * n);
            uint16_t *kept =
                half ? trial_numbers(t, TRIAL_SCRATCH, TRIAL_SAME, TRIAL_U16, m * n) : NULL;
            op_linear_forward(trial_backend(t), x, w, trial_floats(t, TRIAL_INPUT, TRIAL_SAME, n),
                              (enum activation)kind, (enum half)half, kept, matrix_of(y, m, n));
            if (kept) /* what was kept is what y has */
                op_load_half(trial_backend(t), (enum half)half, kept,
                             trial_floats(t, TRIAL_OUTPUT, bar, m * n), m * n);
        }
}

/* A matrix of coarse numbers, some rows of which have one of those beyond. */
static struct matrix matrix_beyond(struct trial *t, uint64_t rows, uint64_t columns)
{
    float *at = malloc(rows * columns * sizeof *at);
    for (uint64_t i = 0; i < rows * columns; i++) /* as trial_coarse's */
        at[i] = (float)floor(64 * trial_uniform(t)) / 64;
    for (uint64_t i = 0; i < sizeof beyond / sizeof *beyond; i++)
        at[5 * i * columns + i] = beyond[i];
    const float *given = trial_given(t, TRIAL_INPUT, TRIAL_F32, at, rows * columns);
    free(at);
    return matrix_of(given, rows, columns);
}

/* A layer of few rows, there and back, in float32. */
static void linear_beyond(struct trial *t)
{
    enum { M = 33, N = 68, K = 64 };
    struct matrix x = matrix_beyond(t, M, K), dy = matrix_beyond(t, M, N);
    struct matrix w = trial_coarse(t, TRIAL_INPUT, N, K);
    struct matrix coarse = trial_coarse(t, TRIAL_INPUT, M, K);
    op_linear_forward(trial_backend(t), x, w, trial_floats(t, TRIAL_INPUT, TRIAL_SAME, N),
                      ACTIVATION_COUNT, HALF_NONE, NULL,
                      trial_matrix(t, TRIAL_OUTPUT, TRIAL_FLOAT, M, N));
    op_linear_backward(trial_backend(t), dy, coarse, NULL, w, 0,
                       trial_matrix(t, TRIAL_OUTPUT, TRIAL_FLOAT, N, K),
                       trial_floats(t, TRIAL_OUTPUT, TRIAL_FLOAT, N), ACTIVATION_COUNT, HALF_NONE,
                       0, trial_matrix(t, TRIAL_OUTPUT, TRIAL_FLOAT, M, K));
}

/* Long sums of few results: several blocks make a tile of them together, two where it is one of two
 * and four where it is alone, on an emulated GPU. There and back, in float32 and in 16 bits. */
static void linear_shared(struct trial *t, uint64_t few, enum half half)
{
    enum { ROWS = 5, LONG = 520 };
    enum trial_bar bar = half ? TRIAL_HALF : TRIAL_FLOAT;
    struct matrix x = trial_coarse(t, TRIAL_INPUT, ROWS, LONG);
    op_linear_forward(trial_backend(t), x, trial_coarse(t, TRIAL_INPUT, few, LONG),
                      trial_floats(t, TRIAL_INPUT, TRIAL_SAME, few), ACTIVATION_RELU, half, NULL,
                      trial_matrix(t, TRIAL_OUTPUT, bar, ROWS, few));
    struct matrix dy = x, input = trial_coarse(t, TRIAL_INPUT, ROWS, few);
    op_linear_backward(trial_backend(t), dy, input, NULL, trial_coarse(t, TRIAL_INPUT, LONG, few),
                       0, trial_matrix(t, TRIAL_OUTPUT, bar, LONG, few),
                       trial_floats(t, TRIAL_OUTPUT, bar, LONG), ACTIVATION_COUNT, half, 0,
                       trial_matrix(t, TRIAL_OUTPUT, bar, ROWS, few));
}

/* A few outputs, and so many that vectors of four fit. */
static const uint64_t back_outputs[] = {5, 76};

/* x in 16 bits that both backends take as the same: what store_half leaves of it. */
static uint16_t *kept_of(struct trial *t, enum half half, struct matrix x)
{
    uint64_t count = x.rows * x.columns;
    uint16_t *h = trial_numbers(t, TRIAL_SCRATCH, TRIAL_SAME, TRIAL_U16, count);
    op_store_half(trial_backend(t), half, x.at, h, count);
    return h;
}

/* A matrix without pad, rounded. */
static struct matrix rounded(struct trial *t, enum half half, uint64_t rows, uint64_t columns)
{
    float *at = trial_floats(t, TRIAL_CHANGED, TRIAL_SAME, rows * columns);
    if (half)
        op_round_half(trial_backend(t), half, matrix_of(at, rows, columns));
    return matrix_of(at, rows, columns);
}

static void back_once(struct trial *t, uint64_t r, uint64_t n, uint64_t k, enum half half, int adds)
{
    static const enum activation kinds[] = {ACTIVATION_RELU, ACTIVATION_TANH, ACTIVATION_COUNT};
    enum trial_bar bar = half ? TRIAL_HALF : TRIAL_FLOAT;
    enum trial_role use = adds ? TRIAL_CHANGED : TRIAL_OUTPUT;
    struct matrix none = {NULL, 0, 0, 0}, x = rounded(t, half, r, k), dy = rounded(t, half, r, n);
    struct matrix w = rounded(t, half, n, k);
    const uint16_t *x_half = half == HALF_BF16 || (half && adds) ? kept_of(t, half, x) : NULL;
    int dx = adds || half;
    op_linear_backward(trial_backend(t), dy, x, x_half, w, adds,
                       trial_matrix(t, use, TRIAL_ROWS, n, k), trial_floats(t, use, TRIAL_ROWS, n),
                       dx ? kinds[(unsigned)half] : ACTIVATION_COUNT, half, half && adds,
                       dx ? matrix_of(trial_floats(t, TRIAL_OUTPUT, bar, r * k), r, k) : none);
}

/* A matrix of multiples of 1/64 times `most`, in [-most, most). */
static struct matrix matrix_steep(struct trial *t, float most, uint64_t rows, uint64_t columns)
{
    float *at = malloc(rows * columns * sizeof *at);
    for (uint64_t i = 0; i < rows * columns; i++)
        at[i] = most * (float)floor(64 * trial_uniform(t)) / 64;
    const float *given = trial_given(t, TRIAL_INPUT, TRIAL_F32, at, rows * columns);
    free(at);
    return matrix_of(given, rows, columns);
}

/* Sums that are too large for float16, and others, in front of an activation. */
static void back_beyond(struct trial *t, uint64_t rows, uint64_t outputs)
{
    enum { K = 24 };
    struct matrix dy = matrix_steep(t, 0x1p15f, rows, outputs);
    struct matrix x = rounded(t, HALF_F16, rows, K), w = matrix_steep(t, 2, outputs, K);
    op_linear_backward(trial_backend(t), dy, x, rows % 2 ? kept_of(t, HALF_F16, x) : NULL, w, 0,
                       trial_matrix(t, TRIAL_OUTPUT, TRIAL_ROWS, outputs, K),
                       trial_floats(t, TRIAL_OUTPUT, TRIAL_ROWS, outputs), ACTIVATION_TANH,
                       HALF_F16, 1,
                       matrix_of(trial_floats(t, TRIAL_OUTPUT, TRIAL_HALF, rows * K), rows, K));
}

void trial_linear_backward(struct trial *t, struct trial_shape s)
{
    uint64_t k = s.columns < 4000 ? s.columns : 1028;
    for (size_t i = 0; i < sizeof back_outputs / sizeof *back_outputs; i++) {
        back_once(t, s.rows, back_outputs[i], k, HALF_NONE, 0);
        back_once(t, s.rows, back_outputs[i], k, HALF_NONE, 1);
        back_once(t, s.rows, back_outputs[i], k, HALF_F16, 1);
        back_once(t, s.rows, back_outputs[i], k, HALF_BF16, 0);
    }
    if (s.rows == 33 && s.columns == 64) {
        linear_beyond(t);
        for (uint64_t rows = 32; rows < 34; rows++)
            back_beyond(t, rows, 12), back_beyond(t, rows, 20), back_beyond(t, 600 + rows, 20);
    }
    for (int half = HALF_NONE; half < HALF_COUNT && s.rows == 33; half++) {
        linear_shared(t, 20, (enum half)half);
        linear_shared(t, 68, (enum half)half);
    }
}
