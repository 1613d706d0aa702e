/* loss.h - what a loss is: its targets, its mathematics on one slice of rows, and the metrics that
 * go with it.
 *
 * One file in engine/layers/loss_*.c a family; engine/loss.c lists them. A loss of a batch is the
 * mean over its rows of the rows' losses. A row's loss over several outputs is their mean, so that
 * a batch's equals PyTorch's reduction "mean" over all elements. Where a row has several steps, a
 * loss of classes has one for each of them, and the row's is their mean.
 *
 * Where targets weigh (they may be missing, rows or targets have weights), the loss of a batch is
 * the sum of the numbers' losses times their weights by the sum of those weights, over all of the
 * batch: as PyTorch's with weight= or ignore_index, or (w * loss).sum() / w.sum(). A slice makes
 * the sums; the stepper divides. A metric counts what weighs anything, and that once.
 */
#ifndef ENGINE_LOSS_H
#define ENGINE_LOSS_H

#include <stdint.h>

#include "engine/labels.h"
#include "engine/ops.h"

/* A slice's outputs and targets on their way through a loss or a metric. A slice does not know the
 * batch's size: it is given the divisor, so that the slices' gradients add up to the gradient of
 * the batch's mean. Divisor 1 gives each sample's own gradient, which the Fisher information
 * needs. */
struct loss_slice {
    const struct backend *backend;
    struct matrix outputs;
    uint32_t *classes;        /* [rows], where the loss takes classes: one for each step */
    struct matrix values;     /* [rows, outputs], where it takes values; only draw writes either */
    struct weighting weights; /* of values, or of the rows' classes; at NULL: all alike */
    double delta;             /* Huber's */
    double divisor;
    double *result;  /* [rows]: the rows' losses, or their metric */
    double *sum;     /* the rows' losses are added to it; NULL: not wanted */
    struct matrix d; /* d(loss)/d(outputs) / divisor; at NULL: not wanted */
    enum half half;  /* d is rounded to it, HALF_NONE: not */
};

/* What a metric measures the error against: how far the targets are from each output's own mean, or
 * from zero, which is the error of a forecast of zero (of returns: that nothing changes). */
enum metric_about { METRIC_ABOUT_NOTHING, METRIC_ABOUT_MEAN, METRIC_ABOUT_ZERO };

/* What an evaluation can tell beside the loss: a number a row, whose mean over the rows it is. */
struct metric_type {
    const char *name; /* of proto/metric.h */
    void (*slice)(const struct loss_slice *s);
    enum metric_about about; /* the metric is 1 - mean / (mean square of the targets about that,
                                averaged over the outputs) */
    int whole_rows;          /* a row has one number, however many of its targets are there */
    int of_classes; /* the numbers are the rows' predicted classes, the metric is their macro F1
                       (counts.h) */
};

enum { LOSS_METRICS_MAX = 4 };

struct loss_type {
    const char *name;
    int values;       /* targets: a float32 an output; else one class a row */
    double low, high; /* of values */
    int has_delta;
    int whole_rows; /* a row has one loss: it weighs as much as its largest weight */
    const struct metric_type *metrics[LOSS_METRICS_MAX + 1]; /* the first is the usual one */
    void (*slice)(const struct loss_slice *s);
    /* The same, with the linear layer whose outputs these are: x [rows, inputs], its weights and
     * bias, and where they are kept in 16 bits, or NULL. NULL: it has no operation for both. */
    void (*linear)(const struct loss_slice *s, struct matrix x, struct matrix w, const float *bias,
                   uint16_t *kept);
    /* Where exp(-loss) is a likelihood of the target, for the Fisher information; else NULL. draw:
     * targets from it, a function of (key, first + row) and the outputs. root: into d, for one
     * output, a gradient whose squares over all outputs add up to the expectation over the targets;
     * `exact` says which labels that is. */
    void (*draw)(const struct loss_slice *s, uint64_t key, uint64_t first);
    void (*root)(const struct loss_slice *s, uint32_t output);
    enum fisher_labels exact;
};

extern const struct loss_type *const loss_types[]; /* NULL ends the list */
extern const struct metric_type metric_loss;       /* the loss itself: goes with every loss */

/* NULL for a name that is not in the list. */
const struct loss_type *loss_type_named(const char *name);

/* Of that loss; "auto": its usual one. NULL where it does not go with it. */
const struct metric_type *loss_metric_named(const struct loss_type *l, const char *name);

#endif
