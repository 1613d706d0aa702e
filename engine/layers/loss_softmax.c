/* loss_softmax.c - softmax cross-entropy: -log softmax(z)[target], one class a row. */
#include "engine/loss.h"

extern const struct loss_type loss_softmax_cross_entropy;

static void softmax_slice(const struct loss_slice *s)
{
    op_softmax_cross_entropy(s->backend, s->outputs, s->classes, s->weights, s->divisor, s->result,
                             s->sum, s->d, s->half);
}

static void softmax_linear(const struct loss_slice *s, struct matrix x, struct matrix w,
                           const float *bias, uint16_t *kept)
{
    op_linear_loss(s->backend, x, w, bias, s->half, kept, s->outputs, s->classes, s->weights,
                   s->divisor, s->result, s->sum, s->d);
}

static void accuracy_slice(const struct loss_slice *s)
{
    op_correct_classes(s->backend, s->outputs, s->classes, s->weights, s->result);
}

static void classes_slice(const struct loss_slice *s)
{
    op_predicted_classes(s->backend, s->outputs, s->result);
}

static void softmax_draw(const struct loss_slice *s, uint64_t key, uint64_t first)
{
    op_classes_draw(s->backend, s->outputs, key, first, s->classes);
}

static void softmax_root(const struct loss_slice *s, uint32_t output)
{
    op_class_root(s->backend, s->outputs, output, s->weights, s->d);
}

static const struct metric_type accuracy = {"accuracy", accuracy_slice, 0},
                                f1_macro = {"f1_macro", classes_slice, .of_classes = 1};

const struct loss_type loss_softmax_cross_entropy = {
    .name = "softmax_cross_entropy",
    .metrics = {&accuracy, &f1_macro},
    .slice = softmax_slice,
    .linear = softmax_linear,
    .draw = softmax_draw,
    .root = softmax_root,
    .exact = FISHER_ALL,
};
