/* trials_losses.c - trials of losses, right answers and likelihoods. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "tests/unit/cuda_trial.h"

/* Values that exponentials of are far apart, some of them equal, signed zeros among them. */
static struct matrix outputs(struct trial *t, struct trial_shape s)
{
    struct matrix z = {NULL, s.rows, s.columns, s.columns};
    float *values = malloc(s.rows * s.columns * sizeof *values);
    for (uint64_t i = 0; i < s.rows * s.columns; i++)
        values[i] =
            (float)(trial_random(t) % 3 ? 20 * trial_uniform(t) : round(3 * trial_uniform(t)));
    z.at = trial_given(t, TRIAL_INPUT, TRIAL_F32, values, s.rows * s.columns);
    free(values);
    return z;
}

static uint32_t *targets(struct trial *t, struct trial_shape s)
{
    uint32_t *classes = malloc(s.rows * sizeof *classes);
    for (uint64_t r = 0; r < s.rows; r++)
        classes[r] = (uint32_t)(trial_random(t) % s.columns);
    uint32_t *given = trial_given(t, TRIAL_INPUT, TRIAL_U32, classes, s.rows);
    free(classes);
    return given;
}

static double *row_numbers(struct trial *t, struct trial_shape s)
{
    return trial_numbers(t, TRIAL_OUTPUT, TRIAL_DOUBLE, TRIAL_F64, s.rows);
}

static double *sum_of(struct trial *t)
{
    return trial_numbers(t, TRIAL_CHANGED, TRIAL_DOUBLE, TRIAL_F64, 1);
}

/* Weights of the shape's rows and columns, some of them 0; `kind` 0: none are given. */
static struct weighting weights(struct trial *t, struct trial_shape s, int kind)
{
    static const enum weight_use uses[] = {WEIGHT_ITSELF, WEIGHT_ITSELF, WEIGHT_COUNTED,
                                           WEIGHT_ROOT};
    float *values = malloc(s.rows * s.columns * sizeof *values);
    for (uint64_t i = 0; i < s.rows * s.columns; i++)
        values[i] = trial_random(t) % 3 ? (float)(1 + trial_uniform(t)) : 0;
    const float *at = trial_given(t, TRIAL_INPUT, TRIAL_F32, values, s.rows * s.columns);
    free(values);
    return (struct weighting){kind ? at : NULL, s.columns, uses[kind]};
}

enum { WEIGHT_KINDS = 4 };

/* Where a gradient is wanted in 16 bits. */
static struct matrix rounded(struct trial *t, struct trial_shape s)
{
    return trial_matrix(t, TRIAL_OUTPUT, TRIAL_HALF, s.rows, s.columns);
}

void trial_softmax_cross_entropy(struct trial *t, struct trial_shape s)
{
    const struct backend *b = trial_backend(t);
    const uint32_t *wanted = targets(t, s);
    struct matrix z = outputs(t, s), none = {0};
    struct matrix both = trial_matrix(t, TRIAL_CHANGED, TRIAL_FLOAT, s.rows, s.columns);
    struct matrix dz = trial_matrix(t, TRIAL_OUTPUT, TRIAL_FLOAT, s.rows, s.columns);
    struct weighting w = {0};
    for (int kind = 1; kind < WEIGHT_KINDS; kind++)
        op_softmax_cross_entropy(b, z, wanted, weights(t, s, kind), 7, row_numbers(t, s), NULL,
                                 trial_matrix(t, TRIAL_OUTPUT, TRIAL_FLOAT, s.rows, s.columns),
                                 HALF_NONE);
    op_softmax_cross_entropy(b, z, wanted, w, 7, row_numbers(t, s), NULL, dz, HALF_NONE);
    op_softmax_cross_entropy(b, z, wanted, w, 7, row_numbers(t, s), sum_of(t), none, HALF_F16);
    op_softmax_cross_entropy(b, both, wanted, w, 7, row_numbers(t, s), NULL, both, HALF_NONE);
    for (int half = HALF_F16; half < HALF_COUNT; half++)
        op_softmax_cross_entropy(b, z, wanted, w, 7, row_numbers(t, s), sum_of(t), rounded(t, s),
                                 half);
}

/* Of few outputs, which are one launch, and of more: their sums are exact, so that z is the same.
 */
static void linear_losses(struct trial *t, struct trial_shape s, uint64_t classes, int half)
{
    enum trial_bar bar = half ? TRIAL_HALF : TRIAL_FLOAT;
    uint64_t inputs = s.columns < 2051 ? s.columns : 2051, count = s.rows * classes;
    struct trial_shape of_z = {s.rows, classes, s.pad, s.skew};
    struct matrix x = trial_coarse(t, TRIAL_INPUT, s.rows, inputs);
    struct matrix w = trial_coarse(t, TRIAL_INPUT, classes, inputs);
    const float *bias = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, classes);
    uint16_t *kept = half ? trial_numbers(t, TRIAL_SCRATCH, TRIAL_SAME, TRIAL_U16, count) : NULL;
    struct matrix z = matrix_of(trial_floats(t, TRIAL_OUTPUT, bar, count), s.rows, classes);
    struct matrix dz = trial_matrix(t, TRIAL_OUTPUT, bar, s.rows, classes);
    op_linear_loss(trial_backend(t), x, w, bias, (enum half)half, kept, z, targets(t, of_z),
                   weights(t, of_z, classes % WEIGHT_KINDS), 7, row_numbers(t, of_z),
                   half == HALF_F16 ? NULL : sum_of(t), dz);
    if (kept)
        op_load_half(trial_backend(t), (enum half)half, kept,
                     trial_floats(t, TRIAL_OUTPUT, bar, count), count);
}

/* Rows of one input, which is infinite, none or nearly infinite, and so are the outputs: each with
 * a target of every class, some of them without weight. */
static void linear_losses_beyond(struct trial *t)
{
    enum { ROWS = 30, CLASSES = 5 };
    static const float beyond[] = {INFINITY, -INFINITY, NAN, FLT_MAX, -FLT_MAX, 1};
    float x[ROWS], w[CLASSES] = {1, 0.5f, -1, 2, 0.25f};
    uint32_t classes[ROWS];
    for (uint32_t r = 0; r < ROWS; r++)
        x[r] = beyond[r / CLASSES], classes[r] = r % CLASSES;
    const float *inputs = trial_given(t, TRIAL_INPUT, TRIAL_F32, x, ROWS);
    const float *weight = trial_given(t, TRIAL_INPUT, TRIAL_F32, w, CLASSES);
    const struct trial_shape of_z = {ROWS, CLASSES, 0, 0};
    op_linear_loss(trial_backend(t), matrix_of(inputs, ROWS, 1), matrix_of(weight, CLASSES, 1),
                   trial_floats(t, TRIAL_INPUT, TRIAL_SAME, CLASSES), HALF_NONE, NULL,
                   trial_matrix(t, TRIAL_OUTPUT, TRIAL_FLOAT, ROWS, CLASSES),
                   trial_given(t, TRIAL_INPUT, TRIAL_U32, classes, ROWS), weights(t, of_z, 1), 7,
                   row_numbers(t, of_z), NULL,
                   trial_matrix(t, TRIAL_OUTPUT, TRIAL_FLOAT, ROWS, CLASSES));
}

void trial_linear_loss(struct trial *t, struct trial_shape s)
{
    if (s.rows == 33)
        linear_losses_beyond(t);
    for (int half = HALF_NONE; half < HALF_COUNT; half++) {
        linear_losses(t, s, 1 + (uint64_t)half, half);
        linear_losses(t, s, 10, half);
        linear_losses(t, s, 17, half);
    }
    linear_losses(t, s, 16, HALF_NONE); /* the most that are one launch; without weights */
}

void trial_correct_classes(struct trial *t, struct trial_shape s)
{
    static const float few[] = {NAN, 1, 2, /**/ -0.0f, 0, -1, /**/ -INFINITY, NAN, -INFINITY};
    static const uint32_t firsts[] = {0, 0, 0};
    const uint32_t *wanted = targets(t, s);
    struct matrix z = outputs(t, s);
    for (int kind = 0; kind < WEIGHT_KINDS; kind++)
        op_correct_classes(trial_backend(t), z, wanted, weights(t, s, kind), row_numbers(t, s));
    z = matrix_of(trial_given(t, TRIAL_INPUT, TRIAL_F32, few, 9), 3, 3);
    wanted = trial_given(t, TRIAL_INPUT, TRIAL_U32, firsts, 3);
    op_correct_classes(trial_backend(t), z, wanted, (struct weighting){0},
                       trial_numbers(t, TRIAL_OUTPUT, TRIAL_SAME, TRIAL_F64, 3));
}

void trial_predicted_classes(struct trial *t, struct trial_shape s)
{
    struct matrix z = outputs(t, s);
    op_predicted_classes(trial_backend(t), z, row_numbers(t, s));
}

void trial_correct_signs(struct trial *t, struct trial_shape s)
{
    struct matrix z = outputs(t, s);
    struct matrix y = trial_matrix(t, TRIAL_INPUT, TRIAL_SAME, s.rows, s.columns);
    for (int kind = 0; kind < WEIGHT_KINDS; kind++)
        op_correct_signs(trial_backend(t), z, y, weights(t, s, kind),
                         trial_numbers(t, TRIAL_OUTPUT, TRIAL_DOUBLE, TRIAL_F64, s.rows));
}

void trial_element_loss(struct trial *t, struct trial_shape s)
{
    const struct backend *b = trial_backend(t);
    struct matrix none = {0};
    for (int kind = 0; kind < ELEMENT_LOSS_COUNT; kind++) {
        struct matrix z = trial_matrix(t, TRIAL_INPUT, TRIAL_SAME, s.rows, s.columns);
        struct matrix y = trial_matrix(t, TRIAL_INPUT, TRIAL_SAME, s.rows, s.columns);
        struct matrix dz = trial_matrix(t, TRIAL_OUTPUT, TRIAL_SAME, s.rows, s.columns);
        struct weighting w = {0};
        op_element_loss(b, kind, 0.4, z, y, weights(t, s, 1 + kind % (WEIGHT_KINDS - 1)), 7,
                        row_numbers(t, s), NULL,
                        trial_matrix(t, TRIAL_OUTPUT, TRIAL_SAME, s.rows, s.columns), HALF_NONE);
        op_element_loss(b, kind, 0.4, z, y, w, 7, row_numbers(t, s), NULL, dz, HALF_NONE);
        op_element_loss(b, kind, 0.4, z, y, w, 7, row_numbers(t, s), sum_of(t), none, HALF_F16);
        for (int half = HALF_F16; half < HALF_COUNT; half++)
            op_element_loss(b, kind, 0.4, z, y, w, 7, row_numbers(t, s), sum_of(t), rounded(t, s),
                            half);
    }
}

/* A vector of zeros has no direction; the gradient of one column is rounding only. */
void trial_cosine_loss(struct trial *t, struct trial_shape s)
{
    const struct backend *b = trial_backend(t);
    float zeros[3] = {0};
    struct matrix z = outputs(t, s), none = {0};
    struct matrix y = trial_matrix(t, TRIAL_INPUT, TRIAL_SAME, s.rows, s.columns);
    struct weighting w = {0};
    op_cosine_loss(b, z, y, w, 7, row_numbers(t, s), sum_of(t), none, HALF_F16);
    if (s.columns > 1) {
        for (int kind = 1; kind < WEIGHT_KINDS; kind++)
            op_cosine_loss(b, z, y, weights(t, s, kind), 7, row_numbers(t, s), NULL,
                           trial_matrix(t, TRIAL_OUTPUT, TRIAL_FLOAT, s.rows, s.columns),
                           HALF_NONE);
        struct matrix both = trial_matrix(t, TRIAL_CHANGED, TRIAL_FLOAT, s.rows, s.columns);
        struct matrix dz = trial_matrix(t, TRIAL_OUTPUT, TRIAL_FLOAT, s.rows, s.columns);
        op_cosine_loss(b, z, y, w, 7, row_numbers(t, s), NULL, dz, HALF_NONE);
        op_cosine_loss(b, both, y, w, 7, row_numbers(t, s), NULL, both, HALF_NONE);
        for (int half = HALF_F16; half < HALF_COUNT; half++)
            op_cosine_loss(b, z, y, w, 7, row_numbers(t, s), sum_of(t), rounded(t, s), half);
    }
    z = matrix_of(trial_given(t, TRIAL_INPUT, TRIAL_F32, zeros, 3), 1, 3);
    y = matrix_of(trial_floats(t, TRIAL_INPUT, TRIAL_SAME, 3), 1, 3);
    struct matrix dz = matrix_of(trial_floats(t, TRIAL_OUTPUT, TRIAL_FLOAT, 3), 1, 3);
    op_cosine_loss(b, z, y, w, 7, trial_numbers(t, TRIAL_OUTPUT, TRIAL_SAME, TRIAL_F64, 1), NULL,
                   dz, HALF_NONE);
}

void trial_cosine_similarity(struct trial *t, struct trial_shape s)
{
    struct matrix y = trial_matrix(t, TRIAL_INPUT, TRIAL_SAME, s.rows, s.columns);
    struct matrix z = outputs(t, s);
    for (int kind = 0; kind < WEIGHT_KINDS; kind++)
        op_cosine_similarity(trial_backend(t), z, y, weights(t, s, kind), row_numbers(t, s));
}

void trial_classes_draw(struct trial *t, struct trial_shape s)
{
    struct matrix z = outputs(t, s);
    struct matrix near = trial_matrix(t, TRIAL_INPUT, TRIAL_SAME, s.rows, s.columns);
    uint64_t key = trial_random(t);
    op_classes_draw(trial_backend(t), z, key, 5,
                    trial_numbers(t, TRIAL_OUTPUT, TRIAL_SAME, TRIAL_U32, s.rows));
    op_classes_draw(trial_backend(t), near, key, 5,
                    trial_numbers(t, TRIAL_OUTPUT, TRIAL_SAME, TRIAL_U32, s.rows));
}

static const enum element_loss likelihoods[] = {ELEMENT_LOSS_SQUARED,
                                                ELEMENT_LOSS_BINARY_CROSS_ENTROPY};

void trial_values_draw(struct trial *t, struct trial_shape s)
{
    for (int i = 0; i < 2; i++) {
        uint64_t key = trial_random(t);
        struct matrix z = trial_matrix(t, TRIAL_INPUT, TRIAL_SAME, s.rows, s.columns);
        struct matrix y = trial_matrix(t, TRIAL_OUTPUT, TRIAL_SAME, s.rows, s.columns);
        op_values_draw(trial_backend(t), likelihoods[i], z, key, 5, y);
    }
}

void trial_class_root(struct trial *t, struct trial_shape s)
{
    struct matrix z = outputs(t, s);
    struct matrix near = trial_matrix(t, TRIAL_INPUT, TRIAL_SAME, s.rows, s.columns);
    uint32_t which = (uint32_t)(trial_random(t) % s.columns);
    op_class_root(trial_backend(t), z, which, (struct weighting){0},
                  trial_matrix(t, TRIAL_OUTPUT, TRIAL_FLOAT, s.rows, s.columns));
    op_class_root(trial_backend(t), near, which, weights(t, s, 3),
                  trial_matrix(t, TRIAL_OUTPUT, TRIAL_FLOAT, s.rows, s.columns));
}

void trial_expect_weights(struct trial *t, struct trial_shape s)
{
    struct matrix z = outputs(t, s);
    const float *of = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, s.columns);
    const float *given = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, s.rows);
    op_expect_weights(trial_backend(t), z, of, given,
                      trial_floats(t, TRIAL_OUTPUT, TRIAL_FLOAT, s.rows));
}

void trial_value_root(struct trial *t, struct trial_shape s)
{
    uint32_t which = (uint32_t)(trial_random(t) % s.columns);
    for (int i = 0; i < 2; i++) {
        struct matrix z = trial_matrix(t, TRIAL_INPUT, TRIAL_SAME, s.rows, s.columns);
        struct matrix dz = trial_matrix(t, TRIAL_OUTPUT, TRIAL_SAME, s.rows, s.columns);
        op_value_root(trial_backend(t), likelihoods[i], z, which, weights(t, s, 3 * i), dz);
    }
}

void trial_row_weights(struct trial *t, struct trial_shape s)
{
    for (int kind = 1; kind < WEIGHT_KINDS; kind++)
        for (int largest = 0; largest < 2; largest++)
            op_row_weights(trial_backend(t), weights(t, s, kind), s.rows, s.columns, largest,
                           row_numbers(t, s));
}

/* Given for nobody, for each row, for each number in another place and in the same. */
static struct matrix weights_given(struct trial *t, struct trial_shape s, int kind,
                                   struct matrix *w)
{
    *w = trial_matrix(t, kind == 3 ? TRIAL_CHANGED : TRIAL_OUTPUT, TRIAL_SAME, s.rows, s.columns);
    return kind == 0 ? (struct matrix){0}
           : kind == 3
               ? *w
               : trial_matrix(t, TRIAL_INPUT, TRIAL_SAME, s.rows, kind == 1 ? 1 : s.columns);
}

void trial_weigh_values(struct trial *t, struct trial_shape s)
{
    for (int kind = 0; kind < 4; kind++) {
        struct matrix w, given = weights_given(t, s, kind, &w),
                         y = {NULL, s.rows, s.columns, s.columns};
        const float *of = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, s.columns);
        float *values = malloc(s.rows * s.columns * sizeof *values);
        for (uint64_t i = 0; i < s.rows * s.columns; i++)
            values[i] = trial_random(t) % 4 ? (float)trial_uniform(t) : NAN;
        y.at = trial_given(t, TRIAL_CHANGED, TRIAL_F32, values, s.rows * s.columns);
        free(values);
        op_weigh_values(trial_backend(t), given, kind % 2 ? of : NULL, y, w);
    }
}

void trial_weigh_classes(struct trial *t, struct trial_shape s)
{
    enum { CLASSES = 5 };
    for (int kind = 0; kind < 4; kind++) {
        struct matrix w, given = weights_given(t, s, kind, &w);
        const float *of = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, CLASSES);
        uint32_t *classes = malloc(s.rows * s.columns * sizeof *classes);
        for (uint64_t i = 0; i < s.rows * s.columns; i++)
            classes[i] =
                trial_random(t) % 4 ? (uint32_t)(trial_random(t) % CLASSES) : CLASS_MISSING;
        uint32_t *at = trial_given(t, TRIAL_CHANGED, TRIAL_U32, classes, s.rows * s.columns);
        free(classes);
        op_weigh_classes(trial_backend(t), given, kind % 2 ? of : NULL, at, w);
    }
}

void trial_divide_weight(struct trial *t, struct trial_shape s)
{
    static const double sums[] = {0, 3.7};
    uint64_t count = s.rows * s.columns;
    for (int i = 0; i < 2; i++) {
        const double *weight = trial_given(t, TRIAL_INPUT, TRIAL_F64, &sums[i], 1);
        op_divide_weight(trial_backend(t), weight, 7, 0.25f,
                         trial_floats(t, TRIAL_CHANGED, TRIAL_SAME, count), count);
    }
}
