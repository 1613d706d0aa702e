/* trials_gather.c - trials of the operations that read stored rows and look for bad numbers. */
#include <math.h>
#include <stdlib.h>

#include "tests/unit/cuda_trial.h"

/* Rows of stored numbers, each at an address of its own, odd ones at odd addresses: pointers to
 * them in the backend's memory. Floating-point numbers are finite, classes below 100. */
static const void *const *rows_given(struct trial *t, enum element type, uint64_t rows,
                                     uint64_t columns, int classes)
{
    uint64_t bytes = element_bytes(type), stride = columns * bytes + 13;
    uint8_t *stored = malloc(rows * stride);
    const uint8_t **at = malloc(rows * sizeof *at);
    for (uint64_t i = 0; i < rows * stride; i++)
        stored[i] = (uint8_t)trial_random(t);
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < columns; c++) {
            char *place = (char *)stored + r * stride + c * bytes;
            float narrow = (float)trial_uniform(t);
            double wide = trial_uniform(t);
            uint16_t half = scalar_to_half(narrow);
            uint64_t number = trial_random(t) % 100;
            if (type == ELEMENT_F16)
                memcpy(place, &half, sizeof half);
            else if (type == ELEMENT_F32)
                memcpy(place, &narrow, sizeof narrow);
            else if (type == ELEMENT_F64)
                memcpy(place, &wide, sizeof wide);
            else if (classes)
                memcpy(place, &number, bytes);
        }
    const uint8_t *given = trial_given(t, TRIAL_INPUT, TRIAL_U8, stored, rows * stride);
    for (uint64_t r = 0; r < rows; r++)
        at[r] = given + r * stride;
    const void *const *pointers = trial_given(t, TRIAL_INPUT, TRIAL_U64, at, rows);
    free(stored), free(at);
    return pointers;
}

static uint64_t *row_found(struct trial *t)
{
    return trial_numbers(t, TRIAL_OUTPUT, TRIAL_SAME, TRIAL_U64, 1);
}

/* Bytes and float32, rounded; and what is then infinite in float16, of which the CPU converts no
 * more than the first bad row. */
static void rounded_gather(struct trial *t, struct trial_shape s, enum half half,
                           const uint32_t *permutation)
{
    const void *const *bytes = rows_given(t, ELEMENT_U8, s.rows, s.columns, 0);
    const void *const *floats = rows_given(t, ELEMENT_F32, s.rows, s.columns, 0);
    struct matrix x = trial_matrix(t, TRIAL_OUTPUT, TRIAL_SAME, s.rows, s.columns);
    op_gather_features(trial_backend(t), ELEMENT_U8, bytes, permutation, 1.0 / 255, x, half,
                       row_found(t));
    x = trial_matrix(t, TRIAL_OUTPUT, TRIAL_SAME, s.rows, s.columns);
    op_gather_features(trial_backend(t), ELEMENT_F32, floats, NULL, 1, x, half, row_found(t));
    x = trial_matrix(t, TRIAL_SCRATCH, TRIAL_SAME, s.rows, s.columns);
    op_gather_features(trial_backend(t), ELEMENT_F32, floats, NULL, 7e4, x, half, row_found(t));
    x = trial_matrix(t, TRIAL_SCRATCH, TRIAL_SAME, s.rows, s.columns);
    op_gather_features(trial_backend(t), ELEMENT_U8, bytes, permutation, 300, x, half,
                       row_found(t));
}

void trial_gather_features(struct trial *t, struct trial_shape s)
{
    uint32_t *order = malloc(s.columns * sizeof *order);
    for (uint64_t c = 0; c < s.columns; c++)
        order[c] = (uint32_t)(c * 7 % s.columns);
    const uint32_t *permutation = trial_given(t, TRIAL_INPUT, TRIAL_U32, order, s.columns);
    for (int type = 0; type < ELEMENT_COUNT; type++)
        for (int permuted = 0; permuted < 2; permuted++) {
            const void *const *rows = rows_given(t, type, s.rows, s.columns, 0);
            struct matrix x = trial_matrix(t, TRIAL_OUTPUT, TRIAL_SAME, s.rows, s.columns);
            op_gather_features(trial_backend(t), type, rows, permuted ? permutation : NULL,
                               1.0 / 255, x, HALF_NONE, row_found(t));
        }
    for (int half = HALF_F16; half < HALF_COUNT; half++)
        rounded_gather(t, s, half, permutation);
    free(order);
}

void trial_gather_values(struct trial *t, struct trial_shape s)
{
    for (int type = 0; type < ELEMENT_COUNT; type++) {
        const void *const *rows = rows_given(t, type, s.rows, s.columns, 0);
        for (int missing = 0; missing < 2; missing++) {
            struct matrix y = trial_matrix(t, TRIAL_OUTPUT, TRIAL_SAME, s.rows, s.columns);
            op_gather_values(trial_backend(t), type, rows, -INFINITY, INFINITY, missing, y,
                             row_found(t));
        }
    }
}

void trial_gather_classes(struct trial *t, struct trial_shape s)
{
    for (int type = 0; element_is_whole(type); type++) {
        const void *const *rows = rows_given(t, type, s.rows, s.columns, 1);
        for (int missing = 0; missing < 2; missing++)
            op_gather_classes(
                trial_backend(t), type, rows, s.rows, s.columns, 100, missing,
                trial_numbers(t, TRIAL_OUTPUT, TRIAL_SAME, TRIAL_U32, s.rows * s.columns),
                row_found(t));
    }
}
