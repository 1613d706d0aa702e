/* scores.c - see scores.h. The losses and metrics are those of engine/loss.h, run on outputs that
 * somebody has, whichever arithmetic made them. */
#include "engine/scores.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/counts.h"
#include "engine/stepper.h"

struct scores {
    const struct model *model;
    const struct loss_type *loss;
    uint64_t width;          /* outputs of one loss: of a row, or of each of its steps */
    uint64_t rows_max, rows; /* times steps: losses */
    double loss_sum, metric_sums[LOSS_METRICS_MAX];
    double loss_weight, counted[LOSS_METRICS_MAX];        /* what those are sums of */
    double *numbers;                                      /* [rows_max], of one batch */
    double *target_sums, *target_squares, *target_counts; /* [outputs] */
    struct class_counts *counts;                          /* [outputs]; NULL: no F1 */
};

int scores_open(struct scores **s_p, const struct model *m, uint64_t rows_max, struct err *e)
{
    struct scores *s = *s_p = calloc(1, sizeof *s);
    if (s) {
        s->model = m;
        s->loss = loss_type_named(m->loss);
        s->width = m->outputs / m->target_steps;
        s->rows_max = rows_max * m->target_steps;
        s->numbers = calloc(s->rows_max, sizeof *s->numbers);
        s->target_sums = calloc(3 * m->outputs, sizeof *s->target_sums);
        if (scores_has_probabilities(m))
            s->counts = calloc(m->outputs, sizeof *s->counts);
    }
    if (s && s->numbers && s->target_sums && !s->counts == !scores_has_probabilities(m)) {
        s->target_squares = s->target_sums + m->outputs;
        s->target_counts = s->target_squares + m->outputs;
        return 0;
    }
    scores_close(s_p);
    return err_set(e, EXIT_CODE_TEMPORARY, "no memory for the scores of %llu outputs",
                   (unsigned long long)m->outputs);
}

void scores_close(struct scores **s_p)
{
    struct scores *s = *s_p;
    if (!s)
        return;
    free(s->numbers);
    free(s->target_sums);
    free(s->counts);
    free(s);
    *s_p = NULL;
}

/* What weighs nothing is not there. */
static void classes_count(struct scores *s, const struct stepper *of, const float *outputs,
                          uint64_t rows)
{
    uint64_t width = s->width;
    struct weighting w = targets_weights(of, &of->host, 0, WEIGHT_COUNTED);
    for (uint64_t r = 0; r < rows; r++) {
        const float *z = outputs + r * width;
        const float *y = s->loss->values ? of->host.values + r * width : NULL;
        if (!y && weight_at(w, r, 0) > 0)
            counts_add(s->counts, scores_class(z, width), of->host.classes[r]);
        for (uint64_t k = 0; y && k < width; k++) {
            if (!(weight_at(w, r, k) > 0))
                continue;
            s->counts[k].predicted += z[k] > 0;
            s->counts[k].actual += y[k] > 0.5f;
            s->counts[k].right += z[k] > 0 && y[k] > 0.5f;
        }
    }
}

void scores_add(struct scores *s, struct stepper *of, const float *outputs, uint64_t rows)
{
    uint64_t of_batch = rows;
    rows *= s->model->target_steps;
    uint64_t width = s->width;
    struct loss_slice l = {.backend = &backend_cpu,
                           .outputs = matrix_of(outputs, rows, width),
                           .classes = of->host.classes,
                           .values = matrix_of(of->host.values, rows, width),
                           .weights = targets_weights(of, &of->host, 0, WEIGHT_ITSELF),
                           .delta = s->model->loss_delta,
                           .divisor = 1,
                           .result = s->numbers};
    ensure(rows > 0 && rows <= s->rows_max && of->model->outputs == s->model->outputs);
    s->loss->slice(&l);
    s->loss_sum = rows_sum(s->loss_sum, s->numbers, rows);
    s->loss_weight = of->weighted ? evaluation_weights(of, s->loss_weight, of_batch, WEIGHT_ITSELF,
                                                       s->loss->whole_rows)
                                  : s->loss_weight + (double)rows;
    l.weights.use = WEIGHT_COUNTED;
    for (int i = 0; s->loss->metrics[i]; i++) {
        const struct metric_type *m = s->loss->metrics[i];
        m->slice(&l);
        s->metric_sums[i] = rows_sum(s->metric_sums[i], s->numbers, rows);
        s->counted[i] = of->weighted ? evaluation_weights(of, s->counted[i], of_batch,
                                                          WEIGHT_COUNTED, m->whole_rows)
                                     : s->counted[i] + (double)rows;
    }
    if (s->loss->values)
        op_column_moments(&backend_cpu, l.values, l.weights, s->target_sums, s->target_squares,
                          s->target_counts);
    if (s->counts)
        classes_count(s, of, outputs, rows);
    s->rows += rows;
}

int scores_counted(const struct scores *s)
{
    return s->loss_weight > 0;
}

uint32_t scores_read(const struct scores *s, struct score list[SCORES_MAX])
{
    uint32_t n = 0;
    _Static_assert(LOSS_METRICS_MAX + 2 <= SCORES_MAX, "loss, metrics and F1");
    ensure(s->rows > 0);
    list[n++] = (struct score){"loss", s->loss_sum / s->loss_weight};
    for (int i = 0; s->loss->metrics[i]; i++) {
        const struct metric_type *m = s->loss->metrics[i];
        if (m->of_classes) /* below, for every loss that has counts */
            continue;
        double mean = s->metric_sums[i] / s->counted[i];
        if (m->about)
            mean = metric_of_spread(m, mean, s->target_sums, s->target_squares, s->target_counts,
                                    s->model->outputs);
        list[n++] = (struct score){m->name, mean};
    }
    if (s->counts)
        list[n++] = (struct score){"f1_macro", counts_f1_macro(s->counts, s->width)};
    return n;
}

uint32_t scores_class(const float *outputs, uint64_t count_outputs)
{
    uint64_t best = 0;
    for (uint64_t k = 1; k < count_outputs; k++)
        best = outputs[k] > outputs[best] ? k : best;
    return (uint32_t)best;
}

int scores_has_probabilities(const struct model *m)
{
    return !loss_type_named(m->loss)->values || strcmp(m->loss, "binary_cross_entropy") == 0;
}

void scores_probabilities(const struct model *m, const float *z, float *p)
{
    uint64_t width = m->outputs / m->target_steps;
    double sum = 0, max = z[scores_class(z, width)];
    if (loss_type_named(m->loss)->values) {
        for (uint64_t k = 0; k < width; k++)
            p[k] = scalar_sigmoid(z[k]);
        return;
    }
    for (uint64_t k = 0; k < width; k++)
        sum += exp((double)z[k] - max);
    for (uint64_t k = 0; k < width; k++)
        p[k] = (float)(exp((double)z[k] - max) / sum);
}
