/* gather.c - stored rows of any element type become the model's float32 input.
 *
 * Rows lie anywhere (spans of shared memory), so elements are read without assuming alignment. One
 * pair of loops a type: in order, which vectorises, and through a permutation, which does not;
 * there bytes, the common case (images), go through a table of their 256 converted values.
 */
#include "engine/cpu/cpu.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define ROW_FUNCTIONS(NAME, TYPE, VALUE)                                                           \
    typedef TYPE __attribute__((aligned(1), may_alias)) stored_##NAME;                             \
    CPU_CLONES static void row_plain_##NAME(const void *row, double scale, float *restrict x,      \
                                            uint64_t count)                                        \
    {                                                                                              \
        const stored_##NAME *in = row;                                                             \
        for (uint64_t j = 0; j < count; j++)                                                       \
            x[j] = scalar_convert(VALUE(in[j]), scale);                                            \
    }                                                                                              \
    static void row_permuted_##NAME(const void *row, const uint32_t *restrict permutation,         \
                                    double scale, float *restrict x, uint64_t count)               \
    {                                                                                              \
        const stored_##NAME *in = row;                                                             \
        for (uint64_t j = 0; j < count; j++)                                                       \
            x[j] = scalar_convert(VALUE(in[permutation[j]]), scale);                               \
    }
ELEMENTS(ROW_FUNCTIONS)

static void row_convert(enum element type, const void *row, const uint32_t *permutation,
                        double scale, float *x, uint64_t count)
{
    if (type == ELEMENT_F32 && !permutation && scale == 1) { /* they are what they become */
        memcpy(x, row, count * sizeof *x);
        return;
    }
    switch (type) {
#define ROW_CASE(NAME, TYPE, VALUE)                                                                \
    case ELEMENT_##NAME:                                                                           \
        if (permutation)                                                                           \
            row_permuted_##NAME(row, permutation, scale, x, count);                                \
        else                                                                                       \
            row_plain_##NAME(row, scale, x, count);                                                \
        return;
        ELEMENTS(ROW_CASE)
    case ELEMENT_COUNT:
        return;
    }
}

/* Permuted bytes: x[j] = table[in[permutation[j]]], the same values as row_permuted_U8. */
static void rows_permuted_bytes(const void *const *rows, const uint32_t *permutation, double scale,
                                struct matrix x)
{
    float table[256];
    for (int value = 0; value < 256; value++)
        table[value] = scalar_convert(value, scale);
    for (uint64_t i = 0; i < x.rows; i++) {
        const uint8_t *in = rows[i];
        float *restrict out = x.at + i * x.stride;
        for (uint64_t j = 0; j < x.columns; j++)
            out[j] = table[in[permutation[j]]];
    }
}

/* The comparison is false for a NaN too. */
CPU_CLONES static int row_finite(const float *x, uint64_t count)
{
    int bad = 0;
    for (uint64_t j = 0; j < count; j++)
        bad |= !(fabsf(x[j]) <= FLT_MAX);
    return !bad;
}

/* Rounds them; the first row that has become infinite, or x.rows. */
static uint64_t rounded_bad_row(enum half half, struct matrix x)
{
    uint64_t row = 0;
    cpu_round_half(half, x);
    while (row < x.rows && row_finite(x.at + row * x.stride, x.columns))
        row++;
    return row;
}

void cpu_gather_features(enum element type, const void *const *rows, const uint32_t *permutation,
                         double scale, struct matrix x, enum half half, uint64_t *bad_row)
{
    /* Whole numbers times a scale below FLT_MAX / 2^64 are finite: nothing to look for, unless they
     * are rounded. */
    int finite = element_is_whole(type) && fabs(scale) < 1e19;
    if (type == ELEMENT_U8 && permutation && finite) {
        rows_permuted_bytes(rows, permutation, scale, x);
        *bad_row = half ? rounded_bad_row(half, x) : x.rows;
        return;
    }
    for (*bad_row = 0; *bad_row < x.rows; ++*bad_row) {
        float *out = x.at + *bad_row * x.stride;
        row_convert(type, rows[*bad_row], permutation, scale, out, x.columns);
        if (half)
            cpu_round_half(half, matrix_of(out, 1, x.columns));
        if ((!finite || half) && !row_finite(out, x.columns))
            return;
    }
}

/* missing: a NaN is good, too. */
CPU_CLONES static int row_within(const float *y, float low, float high, int missing, uint64_t count)
{
    int bad = 0;
    for (uint64_t j = 0; j < count; j++)
        bad |= !(y[j] >= low && y[j] <= high) & !(missing & (y[j] != y[j]));
    return !bad;
}

void cpu_gather_values(enum element type, const void *const *rows, double low, double high,
                       int missing, struct matrix y, uint64_t *bad_row)
{
    for (*bad_row = 0; *bad_row < y.rows; ++*bad_row) {
        float *out = y.at + *bad_row * y.stride;
        row_convert(type, rows[*bad_row], NULL, 1, out, y.columns);
        if (!row_within(out, (float)low, (float)high, missing, y.columns))
            return;
    }
}

/* A row's classes; 0: one is none of them. A negative one is above every class as a number without
 * sign. */
#define CLASSES_FUNCTION(NAME, TYPE)                                                               \
    CPU_CLONES static int row_classes_##NAME(const void *row, uint64_t steps, uint64_t classes,    \
                                             int missing, uint32_t *restrict targets)              \
    {                                                                                              \
        const stored_##NAME *in = row;                                                             \
        int bad = 0;                                                                               \
        for (uint64_t j = 0; j < steps; j++) {                                                     \
            uint64_t number = (uint64_t)(int64_t)in[j];                                            \
            int none = missing & ((int64_t)number < 0);                                            \
            bad |= (number >= classes) & !none;                                                    \
            targets[j] = none ? CLASS_MISSING : (uint32_t)number;                                  \
        }                                                                                          \
        return !bad;                                                                               \
    }
#define WHOLE_ELEMENTS(X)                                                                          \
    X(U8, ) X(I8, ) X(U16, ) X(I16, ) X(U32, ) X(I32, ) X(U64, ) X(I64, ) /* element_is_whole */
WHOLE_ELEMENTS(CLASSES_FUNCTION)

static int row_classes(enum element type, const void *row, uint64_t steps, uint64_t classes,
                       int missing, uint32_t *targets)
{
    switch (type) {
#define CLASSES_CASE(NAME, TYPE)                                                                   \
    case ELEMENT_##NAME:                                                                           \
        return row_classes_##NAME(row, steps, classes, missing, targets);
        WHOLE_ELEMENTS(CLASSES_CASE)
    default:
        return 0;
    }
}

void cpu_gather_classes(enum element type, const void *const *rows, uint64_t count, uint64_t steps,
                        uint64_t classes, int missing, uint32_t *targets, uint64_t *bad_row)
{
    missing = missing && element_is_signed(type);
    for (*bad_row = 0; *bad_row < count; ++*bad_row)
        if (!row_classes(type, rows[*bad_row], steps, classes, missing, targets + *bad_row * steps))
            return;
}

/* ---- what targets weigh ---- */

/* Of a row, or each its own; read before w, where it may be, is written. */
static float weight_given(struct matrix given, uint64_t r, uint64_t c)
{
    return given.at ? given.at[r * given.stride + (given.columns == 1 ? 0 : c)] : 1;
}

void cpu_weigh_values(struct matrix given, const float *of_columns, struct matrix y,
                      struct matrix w)
{
    for (uint64_t r = 0; r < w.rows; r++)
        for (uint64_t c = 0; c < w.columns; c++) {
            float *value = &y.at[r * y.stride + c];
            int missing = *value != *value;
            w.at[r * w.stride + c] =
                missing ? 0 : weight_given(given, r, c) * (of_columns ? of_columns[c] : 1);
            *value = missing ? 0 : *value;
        }
}

void cpu_weigh_classes(struct matrix given, const float *of_classes, uint32_t *classes,
                       struct matrix w)
{
    for (uint64_t r = 0; r < w.rows; r++)
        for (uint64_t c = 0; c < w.columns; c++) {
            uint32_t *class = &classes[r * w.columns + c];
            int missing = *class == CLASS_MISSING;
            *class = missing ? 0 : *class;
            w.at[r * w.stride + c] =
                missing ? 0 : weight_given(given, r, c) * (of_classes ? of_classes[*class] : 1);
        }
}

void cpu_row_weights(struct weighting w, uint64_t rows, uint64_t columns, int largest, double *sums)
{
    for (uint64_t r = 0; r < rows; r++) {
        double sum = 0, most = 0;
        for (uint64_t c = 0; c < columns; c++) {
            double weight = weight_at(w, r, c);
            sum += weight;
            most = weight > most ? weight : most;
        }
        sums[r] = largest ? most : sum / (double)columns;
    }
}

void cpu_divide_weight(const double *weight, double rows, float factor, float *x, uint64_t count)
{
    cpu_scale(scalar_mean_factor(*weight, rows, factor), x, count);
}
