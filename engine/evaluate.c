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
    if (s->values)
        memset(s->target_sums, 0, 2 * s->model->outputs * sizeof *s->target_sums);
}

int stepper_evaluate(struct stepper *s, uint64_t rows, struct err *e)
{
    struct batch_work b = {.s = s, .work = SLICE_EVALUATE, .rows = rows};
    ensure(rows > 0 && rows <= s->config.batch_rows_max);
    statistics_use(s);
    while (b.wave_first < batch_slices(s, rows))
        b.wave_first += wave_run(&b);
    s->sums.loss = rows_sum(s, s->sums.loss, s->losses, rows);
    if (!isfinite(s->sums.loss))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot evaluate %llu rows: the sum of their losses is %g: the parameters "
                       "or the features are not usable",
                       (unsigned long long)rows, s->sums.loss);
    s->sums.rows += rows;
    if (s->metric->slice)
        s->sums.metric = rows_sum(s, s->sums.metric, s->metrics, rows);
    if (s->metric->about)
        op_column_moments(s->backend, matrix_of(s->values, rows, s->model->outputs), s->target_sums,
                          s->target_squares);
    return 0;
}

/* Mean square of the targets about what the metric says, averaged over the outputs. */
static double targets_spread(const struct stepper *s)
{
    double rows = (double)s->sums.rows, sum = 0;
    for (uint64_t k = 0; k < s->model->outputs; k++) {
        double mean = s->metric->about == METRIC_ABOUT_MEAN ? s->target_sums[k] / rows : 0;
        sum += fmax(s->target_squares[k] / rows - mean * mean, 0);
    }
    return sum / (double)s->model->outputs;
}

struct evaluation_result stepper_evaluate_end(const struct stepper *s)
{
    double rows = (double)s->sums.rows;
    double numbers = rows * (double)s->model->target_steps;
    struct evaluation_result r = {s->sums.loss / numbers, s->sums.metric / numbers, s->sums.rows};
    if (!s->metric->slice)
        r.metric = r.loss;
    if (!s->metric->about)
        return r;
    double spread = targets_spread(s);
    if (spread > 0)
        r.metric = 1 - r.metric / spread;
    else /* targets that are all that */
        r.metric = r.metric == 0;
    return r;
}
