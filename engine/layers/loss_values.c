/* loss_values.c - losses of outputs against values: squared and absolute error, Huber's loss,
 * binary cross-entropy of logits, and the cosine between the row's outputs and its target
 * (spectra).
 *
 * As torch.nn.MSELoss, L1Loss, HuberLoss, BCEWithLogitsLoss, and 1 - cosine_similarity.
 */
#include <float.h>

#include "engine/loss.h"

extern const struct loss_type loss_mean_squared_error, loss_l1, loss_huber, loss_cosine,
    loss_binary_cross_entropy;

static void element_slice(const struct loss_slice *s, enum element_loss kind)
{
    op_element_loss(s->backend, kind, s->delta, s->outputs, s->values, s->weights, s->divisor,
                    s->result, s->sum, s->d, s->half);
}

static void squared_slice(const struct loss_slice *s)
{
    element_slice(s, ELEMENT_LOSS_SQUARED);
}

static void absolute_slice(const struct loss_slice *s)
{
    element_slice(s, ELEMENT_LOSS_ABSOLUTE);
}

static void huber_slice(const struct loss_slice *s)
{
    element_slice(s, ELEMENT_LOSS_HUBER);
}

static void binary_slice(const struct loss_slice *s)
{
    element_slice(s, ELEMENT_LOSS_BINARY_CROSS_ENTROPY);
}

static void squared_draw(const struct loss_slice *s, uint64_t key, uint64_t first)
{
    op_values_draw(s->backend, ELEMENT_LOSS_SQUARED, s->outputs, key, first, s->values);
}

static void squared_root(const struct loss_slice *s, uint32_t output)
{
    op_value_root(s->backend, ELEMENT_LOSS_SQUARED, s->outputs, output, s->weights, s->d);
}

static void binary_draw(const struct loss_slice *s, uint64_t key, uint64_t first)
{
    op_values_draw(s->backend, ELEMENT_LOSS_BINARY_CROSS_ENTROPY, s->outputs, key, first,
                   s->values);
}

static void binary_root(const struct loss_slice *s, uint32_t output)
{
    op_value_root(s->backend, ELEMENT_LOSS_BINARY_CROSS_ENTROPY, s->outputs, output, s->weights,
                  s->d);
}

static void cosine_slice(const struct loss_slice *s)
{
    op_cosine_loss(s->backend, s->outputs, s->values, s->weights, s->divisor, s->result, s->sum,
                   s->d, s->half);
}

static void similarity_slice(const struct loss_slice *s)
{
    op_cosine_similarity(s->backend, s->outputs, s->values, s->weights, s->result);
}

static void signs_slice(const struct loss_slice *s)
{
    op_correct_signs(s->backend, s->outputs, s->values, s->weights, s->result);
}

static const struct metric_type mae = {"mae", absolute_slice, METRIC_ABOUT_NOTHING},
                                r2 = {"r2", squared_slice, METRIC_ABOUT_MEAN},
                                r2_zero = {"r2_zero", squared_slice, METRIC_ABOUT_ZERO},
                                cosine = {"cosine", similarity_slice, .whole_rows = 1},
                                accuracy = {"accuracy", signs_slice, METRIC_ABOUT_NOTHING};

#define NUMBERS .values = 1, .low = -FLT_MAX, .high = FLT_MAX

const struct loss_type loss_mean_squared_error = {
    .name = "mean_squared_error",
    NUMBERS,
    .metrics = {&r2, &r2_zero, &mae, &cosine},
    .slice = squared_slice,
    .draw = squared_draw,
    .root = squared_root,
    .exact = FISHER_GAUSSIAN,
};

const struct loss_type loss_l1 = {
    .name = "l1",
    NUMBERS,
    .metrics = {&mae, &r2, &r2_zero, &cosine},
    .slice = absolute_slice,
};

const struct loss_type loss_huber = {
    .name = "huber",
    NUMBERS,
    .has_delta = 1,
    .metrics = {&mae, &r2, &r2_zero, &cosine},
    .slice = huber_slice,
};

const struct loss_type loss_cosine = {
    .name = "cosine",
    NUMBERS,
    .whole_rows = 1,
    .metrics = {&cosine, &mae, &r2, &r2_zero},
    .slice = cosine_slice,
};

/* The target is a probability; outside 0 to 1 the loss has no least value. */
const struct loss_type loss_binary_cross_entropy = {
    .name = "binary_cross_entropy",
    .values = 1,
    .low = 0,
    .high = 1,
    .metrics = {&accuracy},
    .slice = binary_slice,
    .draw = binary_draw,
    .root = binary_root,
    .exact = FISHER_ALL,
};
