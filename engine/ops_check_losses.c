/* ops_check_losses.c - see ops_check.h: losses, targets and what they weigh, gathers. */
#include "engine/ops_check.h"

/* Of [rows, columns] numbers. */
static int weights_valid(struct weighting w, uint64_t columns)
{
    return w.use <= WEIGHT_ROOT && (!w.at || w.stride >= columns);
}

/* dz of a loss: not wanted, or z's shape and either z itself or apart from it. */
static void check_loss(struct matrix z, double divisor, const double *losses, struct matrix dz)
{
    ensure(matrix_valid(z) && losses && divisor > 0);
    ensure(!dz.at || (matrix_valid(dz) && matrix_same_shape(z, dz)));
    ensure(!dz.at || matrix_same_or_disjoint(z, dz));
}

void check_softmax_cross_entropy(struct matrix z, const uint32_t *targets, struct weighting w,
                                 double divisor, double *losses, double *sum, struct matrix dz,
                                 enum half half)
{
    check_loss(z, divisor, losses, dz);
    ensure(targets && weights_valid(w, 1) && half < HALF_COUNT && sum != losses);
}

void check_linear_loss(struct matrix x, struct matrix w, const float *bias, enum half half,
                       uint16_t *kept, struct matrix z, const uint32_t *targets,
                       struct weighting weights, double divisor, double *losses, double *sum,
                       struct matrix dz)
{
    check_linear_forward(x, w, bias, ACTIVATION_COUNT, half, kept, z);
    check_softmax_cross_entropy(z, targets, weights, divisor, losses, sum, dz, half);
    ensure(!dz.at || (matrix_disjoint(z, dz) && matrix_disjoint(x, dz)));
}

void check_cosine_loss(struct matrix z, struct matrix y, struct weighting w, double divisor,
                       double *losses, double *sum, struct matrix dz, enum half half)
{
    check_loss(z, divisor, losses, dz);
    ensure(weights_valid(w, z.columns) && half < HALF_COUNT && sum != losses);
    ensure(matrix_valid(y) && matrix_same_shape(z, y) && (!dz.at || matrix_disjoint(y, dz)));
}

void check_cosine_similarity(struct matrix z, struct matrix y, struct weighting w, double *cosines)
{
    check_cosine_loss(z, y, w, 1, cosines, NULL, (struct matrix){0}, HALF_NONE);
}

void check_element_loss(enum element_loss kind, double delta, struct matrix z, struct matrix y,
                        struct weighting w, double divisor, double *losses, double *sum,
                        struct matrix dz, enum half half)
{
    check_cosine_loss(z, y, w, divisor, losses, sum, dz, half);
    ensure(kind < ELEMENT_LOSS_COUNT && (kind != ELEMENT_LOSS_HUBER || delta > 0));
}

void check_classes_draw(struct matrix z, uint64_t key, uint64_t first, uint32_t *classes)
{
    (void)key, (void)first;
    ensure(matrix_valid(z) && classes);
}

static int is_likelihood(enum element_loss kind)
{
    return kind == ELEMENT_LOSS_SQUARED || kind == ELEMENT_LOSS_BINARY_CROSS_ENTROPY;
}

void check_values_draw(enum element_loss kind, struct matrix z, uint64_t key, uint64_t first,
                       struct matrix y)
{
    (void)key, (void)first;
    ensure(is_likelihood(kind) && matrix_valid(z) && matrix_valid(y) && matrix_same_shape(z, y));
    ensure(matrix_disjoint(z, y));
}

void check_class_root(struct matrix z, uint32_t which, struct weighting w, struct matrix dz)
{
    ensure(weights_valid(w, 1));
    ensure(matrix_valid(z) && matrix_valid(dz) && matrix_same_shape(z, dz));
    ensure(which < z.columns && matrix_disjoint(z, dz));
}

void check_value_root(enum element_loss kind, struct matrix z, uint32_t column, struct weighting w,
                      struct matrix dz)
{
    ensure(is_likelihood(kind) && weights_valid(w, z.columns));
    check_class_root(z, column, w, dz);
}

void check_expect_weights(struct matrix z, const float *of_classes, const float *given, float *w)
{
    ensure(matrix_valid(z) && of_classes && given && w && floats_disjoint(w, of_classes, z.rows));
}

void check_correct_classes(struct matrix z, const uint32_t *targets, struct weighting w,
                           double *correct)
{
    ensure(weights_valid(w, 1) && matrix_valid(z) && targets && correct);
}

void check_predicted_classes(struct matrix z, double *classes)
{
    ensure(matrix_valid(z) && classes);
}

void check_correct_signs(struct matrix z, struct matrix y, struct weighting w, double *correct)
{
    ensure(matrix_valid(z) && matrix_valid(y) && matrix_same_shape(z, y) && correct);
    ensure(weights_valid(w, z.columns));
}

void check_column_moments(struct matrix y, struct weighting w, double *sums, double *squares,
                          double *counts)
{
    ensure(matrix_valid(y) && sums && squares && sums != squares && weights_valid(w, y.columns));
    ensure(counts && counts != sums && counts != squares);
}

void check_row_weights(struct weighting w, uint64_t rows, uint64_t columns, int largest,
                       double *sums)
{
    (void)largest;
    ensure(w.at && rows > 0 && columns > 0 && weights_valid(w, columns) && sums);
}

/* given: a weight a row, or each its own, maybe in place. */
static void check_given(struct matrix given, struct matrix w)
{
    ensure(matrix_valid(w));
    ensure(!given.at || (matrix_valid(given) && given.rows == w.rows &&
                         (given.columns == 1 || given.columns == w.columns)));
    ensure(!given.at || given.at == w.at
               ? !given.at || (given.columns == w.columns && given.stride == w.stride)
               : matrix_disjoint(given, w));
}

void check_weigh_values(struct matrix given, const float *of_columns, struct matrix y,
                        struct matrix w)
{
    (void)of_columns;
    check_given(given, w);
    ensure(matrix_valid(y) && matrix_same_shape(y, w) && matrix_disjoint(y, w));
}

void check_weigh_classes(struct matrix given, const float *of_classes, uint32_t *classes,
                         struct matrix w)
{
    (void)of_classes;
    check_given(given, w);
    ensure(classes);
}

void check_divide_weight(const double *weight, double rows, float factor, float *x, uint64_t count)
{
    (void)factor, (void)count;
    ensure(weight && rows > 0 && x);
}

void check_gather_features(enum element type, const void *const *rows, const uint32_t *permutation,
                           double scale, struct matrix x, enum half half, uint64_t *bad_row)
{
    (void)permutation, (void)scale;
    ensure(half < HALF_COUNT && type < ELEMENT_COUNT && rows && matrix_valid(x) && bad_row);
}

void check_gather_classes(enum element type, const void *const *rows, uint64_t count,
                          uint64_t steps, uint64_t classes, int missing, uint32_t *targets,
                          uint64_t *bad_row)
{
    (void)missing;
    ensure(element_is_whole(type) && rows && count > 0 && steps > 0 && targets && bad_row);
    ensure(classes > 0 && classes <= UINT32_MAX); /* the last number is CLASS_MISSING */
}

void check_gather_values(enum element type, const void *const *rows, double low, double high,
                         int missing, struct matrix y, uint64_t *bad_row)
{
    (void)missing;
    ensure(type < ELEMENT_COUNT && rows && low <= high && matrix_valid(y) && bad_row);
}
