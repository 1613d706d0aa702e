/* trials_rows.c - trials of the operations on matrices: rows, columns, halves, normalisation. */
#include "tests/unit/cuda_trial.h"

#include <math.h>

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
    op_column_sums(trial_backend(t), x, trial_floats(t, TRIAL_OUTPUT, TRIAL_SAME, s.columns));
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
    double *sums = channels(t, TRIAL_CHANGED, s);
    op_column_moments(trial_backend(t), y, sums, channels(t, TRIAL_CHANGED, s));
}

void trial_dropout(struct trial *t, struct trial_shape s)
{
    static const double shares[] = {0, 0.3, 0.999};
    for (int i = 0; i < 3; i++) {
        struct dropout_mask mask = {trial_random(t), 100, shares[i]};
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
