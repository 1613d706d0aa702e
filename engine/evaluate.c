/* evaluate.c - a pass over rows without training: their mean loss and metric.
 *
 * Sums are taken over the rows in their order, so they depend on neither threads nor batches.
 */
#include <math.h>
#include <string.h>

#include "engine/stepper.h"

void stepper_evaluate_begin(struct stepper *s)
{
    s->sums = (struct evaluation_sums){0};
    s->bad_number = 0;
    carried_pass_begin(s);
    weights_round(s);
    weights_narrow(s);
    if (s->host.values)
        memset(s->host.target_sums, 0, 3 * s->model->outputs * sizeof *s->host.target_sums);
    else
        memset(s->host.counts, 0, s->model->outputs * sizeof *s->host.counts);
}

int stepper_predict(struct stepper *s, uint64_t rows, float *outputs, struct err *e)
{
    struct batch_work b = {.s = s, .work = SLICE_EVALUATE, .rows = rows, .outputs = outputs};
    ensure(rows > 0 && rows <= s->config.batch_rows_max);
    batch_send(s, rows);
    statistics_use(s);
    while (b.wave_first < batch_slices(s, rows))
        b.wave_first += wave_run(&b);
    carried_pass_advance(s, rows);
    uint64_t bytes = rows * s->model->target_steps * sizeof *s->at.losses;
    batch_fetch(s, s->at.losses, bytes);
    if (s->metric->slice)
        batch_fetch(s, s->at.metrics, bytes);
    if (s->piece_count)
        targets_fetch(s, rows);
    struct batch_results results;
    if (s->device->apart && results_fetch(s, &results, e) < 0)
        return -1;
    s->sums.loss = rows_sum(s->sums.loss, s->host.losses, rows * s->model->target_steps);
    s->bad_number = !isfinite(s->sums.loss);
    if (s->bad_number)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot evaluate %llu rows: the sum of their losses is %g: the parameters "
                       "or the features are not usable",
                       (unsigned long long)rows, s->sums.loss);
    s->sums.rows += rows;
    if (s->weighted) {
        s->sums.weight =
            evaluation_weights(s, s->sums.weight, rows, WEIGHT_ITSELF, s->loss->whole_rows);
        s->sums.counted =
            evaluation_weights(s, s->sums.counted, rows, WEIGHT_COUNTED, s->metric->whole_rows);
    }
    for (uint64_t r = 0; s->metric->of_classes && r < rows * s->model->target_steps; r++)
        if (!s->weighted || s->host.weights[r] > 0)
            counts_add(s->host.counts, (uint32_t)s->host.metrics[r], s->host.classes[r]);
    if (s->metric->slice)
        s->sums.metric = rows_sum(s->sums.metric, s->host.metrics, rows * s->model->target_steps);
    if (s->metric->about)
        op_column_moments(&backend_cpu, matrix_of(s->host.values, rows, s->model->outputs),
                          targets_weights(s, &s->host, 0, WEIGHT_COUNTED), s->host.target_sums,
                          s->host.target_squares, s->host.target_counts);
    return 0;
}

int stepper_evaluate(struct stepper *s, uint64_t rows, struct err *e)
{
    return stepper_predict(s, rows, NULL, e);
}

double metric_of_spread(const struct metric_type *m, double mean, const double *sums,
                        const double *squares, const double *counts, uint64_t outputs)
{
    double spread = 0, all = 0; /* mean square of the targets about what the metric says */
    for (uint64_t k = 0; k < outputs; k++)
        all += counts[k];
    for (uint64_t k = 0; k < outputs; k++) {
        double about = m->about == METRIC_ABOUT_MEAN ? sums[k] / counts[k] : 0;
        if (counts[k] > 0)
            spread += fmax(squares[k] / counts[k] - about * about, 0) * (counts[k] / all);
    }
    if (spread > 0)
        return 1 - mean / spread;
    return mean == 0; /* targets that are all that */
}

struct evaluation_result stepper_evaluate_end(const struct stepper *s)
{
    double numbers = (double)s->sums.rows * (double)s->model->target_steps;
    struct evaluation_result r = {s->sums.loss / (s->weighted ? s->sums.weight : numbers),
                                  s->sums.metric / (s->weighted ? s->sums.counted : numbers),
                                  s->sums.rows};
    if (!s->metric->slice)
        r.metric = r.loss;
    if (s->metric->of_classes)
        r.metric = counts_f1_macro(s->host.counts, s->model->outputs / s->model->target_steps);
    if (s->metric->about)
        r.metric =
            metric_of_spread(s->metric, r.metric, s->host.target_sums, s->host.target_squares,
                             s->host.target_counts, s->model->outputs);
    return r;
}

int stepper_quantise(struct stepper *s, struct int8_size *size, struct err *e)
{
    if (s->device->apart)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot quantise on device %s: products in 8 bits are computed on the CPU",
                       s->device->kind);
    quantised_close(&s->quantised);
    s->int8 = 0;
    if (quantised_open(&s->quantised, s->model, s->parameters, s->layout.lanes, e) < 0)
        return -1;
    *size = (struct int8_size){s->quantised.float_bytes, s->quantised.bytes};
    return 0;
}

void stepper_int8(struct stepper *s, int on)
{
    ensure(!on || s->quantised.tensors);
    s->int8 = on;
}
