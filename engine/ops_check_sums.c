/* ops_check_sums.c - see ops_check.h: sums of squares, penalties and the optimizer's step. */
#include "engine/ops_check.h"

void check_add(const float *x, float *y, uint64_t count)
{
    ensure(x && y && floats_disjoint(x, y, count));
}

void check_squares_product_add(struct matrix d, struct matrix x, struct squares_work work,
                               struct matrix y)
{
    ensure(matrix_valid(d) && matrix_valid(x) && matrix_valid(y) && work.packed && work.tile);
    ensure(d.rows == x.rows && y.rows == d.columns && y.columns == x.columns);
    ensure(matrix_disjoint(d, y) && matrix_disjoint(x, y));
    ensure(matrix_disjoint(y, matrix_of(work.tile, y.rows, y.columns)));
}

void check_products_square_add(struct samples d, struct samples x, struct squares_work work,
                               struct matrix y)
{
    ensure(d.count == x.count && d.begin == x.begin);
    check_squares_product_add(d.first, x.first, work, y);
}

void check_sums_square_add(struct samples d, struct squares_work work, float *y)
{
    ensure(matrix_valid(d.first) && work.tile && y);
    ensure(floats_disjoint(y, work.tile, d.first.columns));
}

void check_sum_squares(const float *x, uint64_t count, double *sum)
{
    ensure(x && sum && count > 0);
}

void check_sum_add(const double *x, uint64_t count, double *sum)
{
    ensure(sum && (x || !count));
}

void check_ewc_add(const float *theta, const float *theta_star, const float *fisher, double damping,
                   double lambda, float *g, uint64_t count, double *penalty)
{
    (void)damping, (void)lambda;
    ensure(theta && theta_star && fisher && g && penalty);
    ensure(floats_disjoint(theta, g, count) && floats_disjoint(theta_star, g, count));
    ensure(floats_disjoint(fisher, g, count));
}

void check_ewc_coded_add(const float *theta, const float *theta_star, struct coded_matrix f,
                         uint64_t from, double damping, double lambda, float *g, uint64_t count,
                         double *penalty)
{
    (void)damping, (void)lambda;
    check_expand_codes(f, from, count, g);
    ensure(theta && theta_star && penalty && floats_disjoint(theta, g, count));
    ensure(floats_disjoint(theta_star, g, count));
}

void check_ewc_half_add(const float *theta, const float *theta_star, const uint16_t *fisher,
                        double damping, double lambda, float *g, uint64_t count, double *penalty)
{
    (void)damping, (void)lambda;
    check_load_half(HALF_BF16, fisher, g, count);
    ensure(theta && theta_star && penalty && floats_disjoint(theta, g, count));
    ensure(floats_disjoint(theta_star, g, count));
}

static void check_weights(const float *p, uint64_t count, enum half half, const float *weights)
{
    ensure(!half || (half_valid(half) && weights && floats_disjoint(p, weights, count)));
}

void check_step_verdict(const float *g, uint64_t count, double *sums,
                        const uint64_t (*bad)[STEP_BADS], const struct step_limits *limits,
                        struct step_verdict *verdict, struct step_told *told)
{
    ensure(g && count && sums && bad && limits && verdict && told &&
           limits->pieces <= STEP_PIECES_MAX);
    ensure(limits->target_steps > 0 && limits->batch_rows > 0);
}

void check_commit(const struct step_verdict *verdict, const float *x, float *y, uint64_t count)
{
    ensure(verdict);
    check_copy(x, y, count);
}

void check_adamw(float *p, float *m, float *v, const float *g, uint64_t count,
                 const struct adamw_scalars *a, enum half half, float *weights)
{
    ensure(p && m && v && g && a);
    check_weights(p, count, half, weights);
    ensure(floats_disjoint(p, m, count) && floats_disjoint(p, v, count));
    ensure(floats_disjoint(m, v, count) && floats_disjoint(p, g, count));
    ensure(floats_disjoint(m, g, count) && floats_disjoint(v, g, count));
}

void check_sgd_momentum(float *p, float *m, const float *g, uint64_t count,
                        const struct sgd_scalars *a, enum half half, float *weights)
{
    check_weights(p, count, half, weights);
    ensure(p && m && g && a && floats_disjoint(p, m, count));
    ensure(floats_disjoint(p, g, count) && floats_disjoint(m, g, count));
}

void check_sgd(float *p, const float *g, uint64_t count, const struct sgd_scalars *a,
               enum half half, float *weights)
{
    check_weights(p, count, half, weights);
    ensure(p && g && a && floats_disjoint(p, g, count));
}
