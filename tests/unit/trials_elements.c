/* trials_elements.c - trials of the operations that visit every number once. */
#include <float.h>
#include <math.h>

#include "tests/unit/cuda_trial.h"

static uint64_t count_of(struct trial_shape s)
{
    return s.rows * s.columns;
}

void trial_zero(struct trial *t, struct trial_shape s)
{
    op_zero(trial_backend(t), trial_floats(t, TRIAL_OUTPUT, TRIAL_SAME, count_of(s)), count_of(s));
    op_zero(trial_backend(t), NULL, 0);
}

void trial_copy(struct trial *t, struct trial_shape s)
{
    const float *x = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, count_of(s));
    op_copy(trial_backend(t), x, trial_floats(t, TRIAL_OUTPUT, TRIAL_SAME, count_of(s)),
            count_of(s));
}

void trial_narrow(struct trial *t, struct trial_shape s)
{
    const double *x = trial_numbers(t, TRIAL_INPUT, TRIAL_SAME, TRIAL_F64, count_of(s));
    op_narrow(trial_backend(t), x, trial_floats(t, TRIAL_OUTPUT, TRIAL_SAME, count_of(s)),
              count_of(s));
}

void trial_scale(struct trial *t, struct trial_shape s)
{
    op_scale(trial_backend(t), 0.7f, trial_floats(t, TRIAL_CHANGED, TRIAL_SAME, count_of(s)),
             count_of(s));
}

void trial_multiply(struct trial *t, struct trial_shape s)
{
    const float *x = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, count_of(s));
    op_multiply(trial_backend(t), x, trial_floats(t, TRIAL_CHANGED, TRIAL_SAME, count_of(s)),
                count_of(s));
}

void trial_add(struct trial *t, struct trial_shape s)
{
    const float *x = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, count_of(s));
    op_add(trial_backend(t), x, trial_floats(t, TRIAL_CHANGED, TRIAL_SAME, count_of(s)),
           count_of(s));
}

void trial_activation_forward(struct trial *t, struct trial_shape s)
{
    for (int kind = 0; kind < ACTIVATION_COUNT; kind++) {
        const float *x = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, count_of(s));
        float *in_place = trial_floats(t, TRIAL_CHANGED, TRIAL_SAME, count_of(s));
        op_activation_forward(trial_backend(t), kind, x,
                              trial_floats(t, TRIAL_OUTPUT, TRIAL_SAME, count_of(s)), count_of(s));
        op_activation_forward(trial_backend(t), kind, in_place, in_place, count_of(s));
    }
}

void trial_activation_backward(struct trial *t, struct trial_shape s)
{
    for (int kind = 0; kind < ACTIVATION_COUNT; kind++) {
        const float *kept = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, count_of(s));
        const float *dy = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, count_of(s));
        float *in_place = trial_floats(t, TRIAL_CHANGED, TRIAL_SAME, count_of(s));
        op_activation_backward(trial_backend(t), kind, kept, dy,
                               trial_floats(t, TRIAL_OUTPUT, TRIAL_SAME, count_of(s)), count_of(s));
        op_activation_backward(trial_backend(t), kind, kept, in_place, in_place, count_of(s));
    }
}

/* What was kept is looked at widened: a GPU's functions may fall on the other side of a border. */
void trial_activation_forward_half(struct trial *t, struct trial_shape s)
{
    const struct backend *b = trial_backend(t);
    for (int kind = 0; kind < ACTIVATION_COUNT; kind++)
        for (int half = HALF_F16; half < HALF_COUNT; half++) {
            const float *x = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, count_of(s));
            float *y = trial_floats(t, TRIAL_OUTPUT, TRIAL_HALF, count_of(s));
            float *both = trial_floats(t, TRIAL_CHANGED, TRIAL_HALF, count_of(s));
            float *wide = trial_floats(t, TRIAL_OUTPUT, TRIAL_HALF, count_of(s));
            uint16_t *h = trial_numbers(t, TRIAL_SCRATCH, TRIAL_SAME, TRIAL_U16, count_of(s));
            op_activation_forward_half(b, kind, half, x, y, h, count_of(s));
            op_load_half(b, half, h, wide, count_of(s));
            op_activation_forward_half(b, kind, half, both, both, NULL, count_of(s));
        }
}

/* Gradients around the largest number of float16, and beyond. */
static void activation_beyond(struct trial *t)
{
    static const float beyond[] = {INFINITY, 65520, -70000, FLT_MAX,  65519,
                                   -65519,   NAN,   1,      -0x1p-20f};
    enum { COUNT = sizeof beyond / sizeof *beyond };
    for (int kind = 0; kind < ACTIVATION_COUNT; kind++)
        for (int half = HALF_F16; half < HALF_COUNT; half++) {
            float *y = trial_floats(t, TRIAL_CHANGED, TRIAL_SAME, COUNT);
            uint16_t *kept = trial_numbers(t, TRIAL_OUTPUT, TRIAL_SAME, TRIAL_U16, COUNT);
            op_store_half(trial_backend(t), half, y, kept, COUNT);
            op_activation_backward_half(trial_backend(t), kind, half, kept,
                                        trial_given(t, TRIAL_INPUT, TRIAL_F32, beyond, COUNT),
                                        trial_floats(t, TRIAL_OUTPUT, TRIAL_HALF, COUNT), COUNT);
        }
}

void trial_activation_backward_half(struct trial *t, struct trial_shape s)
{
    const struct backend *b = trial_backend(t);
    if (s.rows == 33)
        activation_beyond(t);
    for (int kind = 0; kind < ACTIVATION_COUNT; kind++)
        for (int half = HALF_F16; half < HALF_COUNT; half++) {
            float *y = trial_floats(t, TRIAL_CHANGED, TRIAL_SAME, count_of(s));
            uint16_t *kept = trial_numbers(t, TRIAL_OUTPUT, TRIAL_SAME, TRIAL_U16, count_of(s));
            const float *dy = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, count_of(s));
            float *dx = trial_floats(t, TRIAL_OUTPUT, TRIAL_HALF, count_of(s));
            float *both = trial_floats(t, TRIAL_CHANGED, TRIAL_HALF, count_of(s));
            op_store_half(b, half, y, kept, count_of(s));
            op_activation_backward_half(b, kind, half, kept, dy, dx, count_of(s));
            op_activation_backward_half(b, kind, half, kept, both, both, count_of(s));
        }
}
