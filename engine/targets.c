/* targets.c - the targets of a batch's rows, and what they weigh, into the batch: from the host's
 * rows in the gathering threads, or from rows on the device by its operations.
 *
 * Three things make the weight of a target: the row's or its own, of a data set; that of the output
 * or class it is one of (model.target_weights); and whether it is there at all. They are multiplied
 * once, here, so that losses and metrics know one number for each target.
 */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/stepper.h"

int weighs(const struct model *m, const struct step_config *c)
{
    return m->targets_missing || m->target_weight_count || c->weights;
}

/* Where the weights that the data give go: one a row has a place of its own. */
static struct matrix given_of(const struct stepper *s, const struct batch_arrays *b, uint64_t at,
                              uint64_t rows)
{
    uint64_t width = model_row_targets(s->model);
    if (!s->config.weights)
        return (struct matrix){0};
    return s->config.weights == 1 && width > 1 ? matrix_of(b->row_given + at, rows, 1)
                                               : matrix_of(b->weights + at * width, rows, width);
}

/* Those are gathered, and so are the targets. */
static void targets_weigh(const struct stepper *s, const struct backend *backend,
                          const struct batch_arrays *b, uint64_t at, uint64_t rows)
{
    uint64_t width = model_row_targets(s->model);
    const float *of_targets = s->model->target_weight_count ? b->of_targets : NULL;
    struct matrix w = matrix_of(b->weights + at * width, rows, width),
                  given = given_of(s, b, at, rows);
    if (s->loss->values) {
        op_weigh_values(backend, given, of_targets, matrix_of(b->values + at * width, rows, width),
                        w);
        return;
    }
    if (b->class_given) {
        struct matrix alone = matrix_of(b->class_given + at * width, rows, width);
        op_weigh_classes(backend, given, NULL, b->classes + at * width, alone);
        given = alone;
    }
    op_weigh_classes(backend, given, of_targets, b->classes + at * width, w);
}

static void targets_read(const struct stepper *s, const struct backend *backend,
                         const struct batch_arrays *b, enum element type, uint64_t at,
                         uint64_t rows, const void *const *targets, uint64_t *bad)
{
    uint64_t outputs = s->model->outputs, steps = s->model->target_steps;
    int missing = s->model->targets_missing;
    if (s->loss->values)
        op_gather_values(backend, type, targets, s->loss->low, s->loss->high, missing,
                         matrix_of(b->values + at * outputs, rows, outputs), bad);
    else
        op_gather_classes(backend, type, targets, rows, steps, outputs / steps, missing,
                          b->classes + at * steps, bad);
}

static void weights_read(const struct stepper *s, const struct backend *backend,
                         const struct batch_arrays *b, const char *type, uint64_t at, uint64_t rows,
                         const void *const *weights, uint64_t *bad)
{
    *bad = rows;
    if (s->config.weights)
        op_gather_values(backend, element_named(type), weights, 0, FLT_MAX, 0,
                         given_of(s, b, at, rows), bad);
}

int targets_config_check(const struct stepper *s, const struct gather_config *c, struct err *e)
{
    ensure(c->weights == s->config.weights);
    ensure(!c->weights || (c->weight_rows && element_named(c->weight_type) < ELEMENT_COUNT));
    ensure(c->weights <= 1 || c->weights == model_row_targets(s->model));
    return model_targets_check(s->model, c->target_type, c->targets, e);
}

void targets_gather(struct stepper *s, const struct gather_config *c, uint64_t first, uint64_t at,
                    uint64_t rows, const void *const *targets, uint64_t *bad)
{
    uint64_t bad_weight = rows;
    targets_read(s, &backend_cpu, &s->host, element_named(c->target_type), at, rows,
                 targets + first, bad);
    if (!s->weighted || *bad < rows)
        return;
    weights_read(s, &backend_cpu, &s->host, c->weight_type, at, rows, c->weight_rows + first,
                 &bad_weight);
    if (bad_weight < rows)
        *bad = bad_weight;
    else
        targets_weigh(s, &backend_cpu, &s->host, at, rows);
}

void targets_gather_there(struct stepper *s, const struct gather_config *c, uint64_t at,
                          uint64_t rows, uint64_t *bad, uint64_t *bad_weight)
{
    uint64_t most = s->config.batch_rows_max;
    const void *const *places = s->at.rows + at;
    targets_read(s, s->backend, &s->at, element_named(c->target_type), at, rows, places + most,
                 bad);
    if (!s->weighted)
        return;
    if (s->config.weights)
        weights_read(s, s->backend, &s->at, c->weight_type, at, rows, places + 2 * most,
                     bad_weight);
    targets_weigh(s, s->backend, &s->at, at, rows);
}

/* ---- what is wrong with one ---- */

/* The first class of the row that is none: every 64-bit pattern of its type, printed as what it is.
 */
static int class_tell(const struct stepper *s, const char *type, const char *target, struct err *e)
{
    uint64_t width = element_bytes(element_named(type)), value = 0, bad = 1, step = 0;
    uint64_t steps = s->model->target_steps, classes = s->model->outputs / steps;
    char which[40] = "";
    for (uint32_t any; step < steps && bad; step += bad) {
        const void *at = target + step * width;
        op_gather_classes(&backend_cpu, element_named(type), &at, 1, 1, classes,
                          s->model->targets_missing, &any, &bad);
    }
    memcpy(&value, target + step * width, width); /* little-endian, as stored in the slot */
    int negative = *type == 'i' && value >> (8 * width - 1) & 1;
    if (negative && width < 8)
        value |= ~0ull << (8 * width);
    if (steps > 1)
        snprintf(which, sizeof which, " of step %" PRIu64, step);
    return err_set(e, EXIT_CODE_PERMANENT,
                   negative ? "its class%s is %" PRIi64 "; accepted: 0 to %" PRIu64
                            : "its class%s is %" PRIu64 "; accepted: 0 to %" PRIu64,
                   which, value, classes - 1);
}

/* The row's first value that the loss does not take. */
static int value_tell(const struct stepper *s, uint64_t at, struct err *e)
{
    const struct loss_type *l = s->loss;
    uint64_t outputs = s->model->outputs, k = 0;
    const float *y = s->host.values + at * outputs;
    while (k + 1 < outputs && (((double)y[k] >= l->low && (double)y[k] <= l->high) ||
                               (s->model->targets_missing && isnan(y[k]))))
        k++;
    if (isfinite(y[k]))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "its target %" PRIu64 " is %g; the loss %s takes %g to %g", k, (double)y[k],
                       l->name, l->low, l->high);
    return err_set(
        e, EXIT_CODE_PERMANENT,
        "its target %" PRIu64 " as float32 is %g; accepted: finite numbers%s", k, (double)y[k],
        isnan(y[k]) ? ", or with model.missing_targets a NaN for one that is missing" : "");
}

static int weight_tell(const struct stepper *s, uint64_t at, struct err *e)
{
    struct matrix given = given_of(s, &s->host, at, 1);
    uint64_t k = 0;
    while (k + 1 < given.columns && given.at[k] >= 0 && given.at[k] <= FLT_MAX)
        k++;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "its weight %" PRIu64 " as float32 is %g; accepted: finite numbers from 0 on", k,
                   (double)given.at[k]);
}

int target_tell(struct stepper *s, const struct gather_config *c, uint64_t first, uint64_t at,
                const void *const *targets, struct err *e)
{
    uint64_t bad;
    targets_read(s, &backend_cpu, &s->host, element_named(c->target_type), at, 1, targets + first,
                 &bad);
    if (bad)
        return weight_tell(s, at, e);
    return s->loss->values ? value_tell(s, at, e)
                           : class_tell(s, c->target_type, targets[first], e);
}

/* ---- what they weigh together ---- */

struct weighting targets_weights(const struct stepper *s, const struct batch_arrays *b,
                                 uint64_t row, enum weight_use use)
{
    uint64_t width = model_row_targets(s->model);
    if (!s->weighted)
        return (struct weighting){0};
    return (struct weighting){b->weights + row * width, s->loss->values ? width : 1, use};
}

void labels_weigh(const struct stepper *s, const struct loss_slice *l, uint64_t row,
                  enum fisher_labels labels)
{
    uint64_t width = model_row_targets(s->model), numbers = l->outputs.rows;
    float *given = s->at.class_given + row * width, *weights = s->at.weights + row * width;
    if (labels == FISHER_SAMPLED)
        op_weigh_classes(s->backend, matrix_of(given, numbers, 1), s->at.of_targets, l->classes,
                         matrix_of(weights, numbers, 1));
    else
        op_expect_weights(s->backend, l->outputs, s->at.of_targets, given, weights);
}

double evaluation_weights(struct stepper *s, double sum, uint64_t rows, enum weight_use use,
                          int whole_rows)
{
    uint64_t numbers = rows * s->model->target_steps;
    op_row_weights(&backend_cpu, targets_weights(s, &s->host, 0, use), numbers,
                   s->loss->values ? s->model->outputs : 1, whole_rows, s->host.row_weights);
    return rows_sum(sum, s->host.row_weights, numbers);
}
