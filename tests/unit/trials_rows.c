/* trials_rows.c - trials of the operations on matrices: rows, columns, halves, normalisation. */
#include <stdlib.h>

#include "tests/unit/cuda_trial.h"

static struct matrix input(struct trial *t, struct trial_shape s)
{
    return trial_matrix(t, TRIAL_INPUT, TRIAL_SAME, s.rows, s.columns);
}

static struct matrix output(struct trial *t, enum trial_bar bar, struct trial_shape s)
{
    return trial_matrix(t, TRIAL_OUTPUT, bar, s.rows, s.columns);
}

static struct matrix changed(struct trial *t, enum trial_bar bar, struct trial_shape s)
{
    return trial_matrix(t, TRIAL_CHANGED, bar, s.rows, s.columns);
}

static const enum half kinds[] = {HALF_F16, HALF_BF16};

static float *weights(struct trial *t, struct trial_shape s)
{
    return trial_floats(t, TRIAL_INPUT, TRIAL_SAME, s.columns);
}

/* One a column, in double. */
static double *channels(struct trial *t, enum trial_role role, struct trial_shape s)
{
    return trial_numbers(t, role, TRIAL_DOUBLE, TRIAL_F64, s.columns);
}

void trial_bias_add(struct trial *t, struct trial_shape s)
{
    struct matrix y = changed(t, TRIAL_SAME, s);
    op_bias_add(trial_backend(t), y, weights(t, s));
}

/* In row order on the CPU, which after 20,000 rows is further from the sum than the device: numbers
 * whose sums are exact. */
void trial_column_sums(struct trial *t, struct trial_shape s)
{
    struct matrix x = trial_coarse(t, TRIAL_INPUT, s.rows, s.columns);
    op_column_sums(trial_backend(t), x, 0, trial_floats(t, TRIAL_OUTPUT, TRIAL_SAME, s.columns));
    op_column_sums(trial_backend(t), x, 1, trial_floats(t, TRIAL_CHANGED, TRIAL_ROWS, s.columns));
}

void trial_column_dots(struct trial *t, struct trial_shape s)
{
    struct matrix a = trial_coarse(t, TRIAL_INPUT, s.rows, s.columns);
    struct matrix b = trial_coarse(t, TRIAL_INPUT, s.rows, s.columns);
    op_column_dots(trial_backend(t), a, b, trial_coarse(t, TRIAL_CHANGED, 1, s.columns).at);
}

void trial_column_moments(struct trial *t, struct trial_shape s)
{
    struct matrix y = input(t, s);
    struct matrix some = input(t, s);
    struct weighting w = {NULL, 0, WEIGHT_ITSELF};
    for (int i = 0; i < 2; i++, w = (struct weighting){some.at, some.stride, WEIGHT_COUNTED}) {
        double *sums = channels(t, TRIAL_CHANGED, s), *squares = channels(t, TRIAL_CHANGED, s);
        op_column_moments(trial_backend(t), y, w, sums, squares, channels(t, TRIAL_CHANGED, s));
    }
}

void trial_dropout(struct trial *t, struct trial_shape s)
{
    static const double shares[] = {0, 0.3, 0.999};
    for (int i = 0; i < 3; i++) {
        struct dropout_mask mask = {trial_random(t), 100, shares[i], {.seed = 3, .inner = i}};
        uint64_t step = trial_random(t); /* all masks but the first read it where the numbers are */
        if (i > 0)
            mask.late.step = trial_given(t, TRIAL_INPUT, TRIAL_U64, &step, 1);
        struct matrix x = input(t, s), both = changed(t, TRIAL_SAME, s);
        op_dropout(trial_backend(t), x, output(t, TRIAL_SAME, s), &mask);
        op_dropout(trial_backend(t), both, both, &mask);
    }
}

void trial_steps_swap(struct trial *t, struct trial_shape s)
{
    for (uint64_t steps = 1; steps <= 5 && steps <= s.columns; steps += 2) {
        uint64_t values = s.columns / steps;
        struct matrix x = input(t, s);
        float *y = trial_floats(t, TRIAL_OUTPUT, TRIAL_SAME, s.rows * steps * values);
        op_steps_swap(trial_backend(t), x.at, x.stride, s.rows, steps, values, y);
    }
}

/* A matrix of the kind. */
static struct halves halves_made(struct trial *t, enum half kind, uint64_t rows, uint64_t columns)
{
    float *x = trial_floats(t, TRIAL_CHANGED, TRIAL_SAME, rows * columns);
    uint16_t *h = trial_numbers(t, TRIAL_SCRATCH, TRIAL_SAME, TRIAL_U16, rows * columns);
    op_store_half(trial_backend(t), kind, x, h, rows * columns);
    return half_matrix_of(h, rows, columns);
}

/* Rows of any length, and of whole 16 bytes. */
void trial_steps_narrow(struct trial *t, struct trial_shape s)
{
    for (int k = 0; k < 4; k++) {
        uint64_t steps = s.columns > 1 ? 2 : 1, values = s.columns / steps, rows = s.rows * steps;
        uint64_t width = k < 2 ? values + 3 : (values + 7) / 8 * 8;
        struct matrix x = input(t, s);
        uint16_t *h = trial_numbers(t, TRIAL_OUTPUT, TRIAL_SAME, TRIAL_U16, rows * width);
        op_steps_narrow(trial_backend(t), kinds[k % 2], x.at, x.stride, s.rows, steps, values,
                        half_matrix_of(h, rows, width));
    }
}

void trial_rows_regroup(struct trial *t, struct trial_shape s)
{
    for (uint64_t groups = 1; groups <= 3; groups += 2) {
        struct trial_shape whole = s;
        whole.rows = s.rows * groups;
        op_rows_regroup(trial_backend(t), input(t, whole), groups, output(t, TRIAL_SAME, whole));
    }
}

void trial_product_half(struct trial *t, struct trial_shape s)
{
    for (int ways = 0; ways < 8; ways++) {
        enum half kind = kinds[ways / 4];
        uint64_t rows = s.rows < 70 ? s.rows : 70, inner = s.columns < 90 ? s.columns : 90;
        int a_t = ways & 1, b_t = ways >> 1 & 1;
        struct halves a = halves_made(t, kind, a_t ? inner : rows, a_t ? rows : inner);
        struct halves b = halves_made(t, kind, b_t ? 33 : inner, b_t ? inner : 33);
        struct matrix c = trial_matrix(t, TRIAL_CHANGED, TRIAL_FLOAT, rows, 33);
        op_product_half(trial_backend(t), kind, a, a_t, b, b_t, (float)(ways % 3), c);
    }
}

void trial_begin_rows(struct trial *t, struct trial_shape s)
{
    float *begins = malloc(s.rows * sizeof *begins);
    for (uint64_t r = 0; r < s.rows; r++)
        begins[r] = trial_random(t) % 2 ? (float)r + 1 : 0;
    const float *given = trial_given(t, TRIAL_INPUT, TRIAL_F32, begins, s.rows);
    op_begin_rows(trial_backend(t), given, input(t, s), output(t, TRIAL_SAME, s));
    free(begins);
}

/* ---- halves ---- */

void trial_round_half(struct trial *t, struct trial_shape s)
{
    for (int k = 0; k < 2; k++)
        op_round_half(trial_backend(t), kinds[k], changed(t, TRIAL_SAME, s));
}

void trial_store_half(struct trial *t, struct trial_shape s)
{
    uint64_t count = s.rows * s.columns;
    for (int k = 0; k < 2; k++) {
        float *x = trial_floats(t, TRIAL_CHANGED, TRIAL_SAME, count);
        uint16_t *h = trial_numbers(t, TRIAL_OUTPUT, TRIAL_SAME, TRIAL_U16, count);
        op_store_half(trial_backend(t), kinds[k], x, h, count);
    }
}

/* Any 16 bits, infinities and NaNs too. */
void trial_load_half(struct trial *t, struct trial_shape s)
{
    uint64_t count = s.rows * s.columns;
    for (int k = 0; k < 2; k++) {
        const uint16_t *h = trial_numbers(t, TRIAL_INPUT, TRIAL_SAME, TRIAL_U16, count);
        float *x = trial_floats(t, TRIAL_OUTPUT, TRIAL_SAME, count);
        op_load_half(trial_backend(t), kinds[k], h, x, count);
    }
}

void trial_add_half(struct trial *t, struct trial_shape s)
{
    uint64_t count = s.rows * s.columns;
    for (int k = 0; k < 2; k++) {
        const uint16_t *h = trial_numbers(t, TRIAL_INPUT, TRIAL_SAME, TRIAL_U16, count);
        float *y = trial_floats(t, TRIAL_CHANGED, TRIAL_SAME, count);
        op_add_half(trial_backend(t), kinds[k], h, y, count);
    }
}

/* ---- normalisation ---- */

void trial_layernorm_forward(struct trial *t, struct trial_shape s)
{
    const float *weight = weights(t, s), *bias = weights(t, s);
    struct matrix x = input(t, s), both = changed(t, TRIAL_FLOAT, s);
    op_layernorm_forward(trial_backend(t), x, weight, bias, 1e-5, output(t, TRIAL_FLOAT, s));
    op_layernorm_forward(trial_backend(t), x, NULL, NULL, 1e-5, output(t, TRIAL_FLOAT, s));
    op_layernorm_forward(trial_backend(t), both, weight, bias, 1e-5, both);
}

void trial_layernorm_backward(struct trial *t, struct trial_shape s)
{
    const struct backend *b = trial_backend(t);
    const float *weight = weights(t, s);
    struct matrix x = input(t, s), dy = trial_coarse(t, TRIAL_INPUT, s.rows, s.columns), none = {0};
    struct matrix both = changed(t, TRIAL_FLOAT, s);
    for (int way = 0; way < 2; way++)
        op_layernorm_backward(b, x, weight, 1e-5, dy, way ? none : output(t, TRIAL_FLOAT, s), 0,
                              trial_floats(t, TRIAL_OUTPUT, TRIAL_ROWS, s.columns),
                              trial_floats(t, TRIAL_OUTPUT, TRIAL_SAME, s.columns));
    op_layernorm_backward(b, x, weight, 1e-5, dy, none, 1,
                          trial_floats(t, TRIAL_CHANGED, TRIAL_ROWS, s.columns),
                          trial_floats(t, TRIAL_CHANGED, TRIAL_ROWS, s.columns));
    op_layernorm_backward(b, x, weight, 1e-5, dy, output(t, TRIAL_FLOAT, s), 0, NULL, NULL);
    op_layernorm_backward(b, x, weight, 1e-5, both, both, 0,
                          trial_floats(t, TRIAL_OUTPUT, TRIAL_ROWS, s.columns),
                          trial_floats(t, TRIAL_OUTPUT, TRIAL_ROWS, s.columns));
}

void trial_batchnorm_moments(struct trial *t, struct trial_shape s)
{
    struct matrix x = input(t, s);
    double *mean = channels(t, TRIAL_OUTPUT, s);
    op_batchnorm_moments(trial_backend(t), x, mean, channels(t, TRIAL_OUTPUT, s));
}

void trial_batchnorm_forward(struct trial *t, struct trial_shape s)
{
    const struct backend *b = trial_backend(t);
    const double *mean = channels(t, TRIAL_INPUT, s), *scale = channels(t, TRIAL_INPUT, s);
    const float *weight = weights(t, s), *bias = weights(t, s);
    struct matrix x = input(t, s), both = changed(t, TRIAL_SAME, s);
    op_batchnorm_forward(b, x, mean, scale, weight, bias, output(t, TRIAL_SAME, s));
    op_batchnorm_forward(b, x, mean, scale, NULL, NULL, output(t, TRIAL_SAME, s));
    op_batchnorm_forward(b, both, mean, scale, weight, bias, both);
}

void trial_batchnorm_sums(struct trial *t, struct trial_shape s)
{
    const double *mean = channels(t, TRIAL_INPUT, s), *scale = channels(t, TRIAL_INPUT, s);
    struct matrix x = input(t, s), dy = input(t, s);
    double *d = channels(t, TRIAL_OUTPUT, s);
    op_batchnorm_sums(trial_backend(t), x, mean, scale, dy, d, channels(t, TRIAL_OUTPUT, s));
}

void trial_batchnorm_backward(struct trial *t, struct trial_shape s)
{
    const double *mean = channels(t, TRIAL_INPUT, s), *scale = channels(t, TRIAL_INPUT, s);
    const double *d = channels(t, TRIAL_INPUT, s), *dn = channels(t, TRIAL_INPUT, s);
    const float *weight = weights(t, s);
    struct matrix x = input(t, s), dy = input(t, s), both = changed(t, TRIAL_SAME, s);
    op_batchnorm_backward(trial_backend(t), x, mean, scale, weight, d, dn, dy,
                          output(t, TRIAL_SAME, s));
    op_batchnorm_backward(trial_backend(t), x, mean, scale, weight, d, dn, both, both);
}

/* Numbers that the operation does not read may be NaNs. */
void trial_batchnorm_merge(struct trial *t, struct trial_shape s)
{
    for (int before = 0; before < 2; before++) {
        const double *first = channels(t, TRIAL_INPUT, s), *second = channels(t, TRIAL_INPUT, s);
        double *mean = channels(t, before ? TRIAL_CHANGED : TRIAL_OUTPUT, s);
        op_batchnorm_merge(trial_backend(t), first, second, before * 33.0, 57, mean,
                           channels(t, before ? TRIAL_CHANGED : TRIAL_OUTPUT, s), s.columns);
    }
}

void trial_batchnorm_finish(struct trial *t, struct trial_shape s)
{
    for (int count = 1; count < 3; count++) {
        double *variance = malloc(s.columns * sizeof *variance);
        for (uint64_t c = 0; c < s.columns; c++)
            variance[c] = 1 + trial_uniform(t);
        double *given = trial_given(t, TRIAL_CHANGED, TRIAL_F64, variance, s.columns);
        op_batchnorm_finish(trial_backend(t), given, count, 1e-5, channels(t, TRIAL_OUTPUT, s),
                            s.columns);
        free(variance);
    }
}

void trial_batchnorm_means_add(struct trial *t, struct trial_shape s)
{
    for (int begins = 0; begins < 2; begins++) {
        const double *first = channels(t, TRIAL_INPUT, s), *second = channels(t, TRIAL_INPUT, s);
        double *d = channels(t, begins ? TRIAL_OUTPUT : TRIAL_CHANGED, s);
        op_batchnorm_means_add(trial_backend(t), first, second, 9, begins, d,
                               channels(t, begins ? TRIAL_OUTPUT : TRIAL_CHANGED, s), s.columns);
    }
}

void trial_batchnorm_running(struct trial *t, struct trial_shape s)
{
    const double *mean = channels(t, TRIAL_INPUT, s), *variance = channels(t, TRIAL_INPUT, s);
    float *running = trial_floats(t, TRIAL_CHANGED, TRIAL_SAME, s.columns);
    op_batchnorm_running(trial_backend(t), mean, variance, 0.1, running,
                         trial_floats(t, TRIAL_CHANGED, TRIAL_SAME, s.columns), s.columns);
}

void trial_batchnorm_use(struct trial *t, struct trial_shape s)
{
    const float *mean = weights(t, s), *variance = weights(t, s);
    double *out[4];
    for (int i = 0; i < 4; i++)
        out[i] = channels(t, TRIAL_OUTPUT, s);
    op_batchnorm_use(trial_backend(t), mean, variance, 1.5, out[0], out[1], out[2], out[3],
                     s.columns);
}
