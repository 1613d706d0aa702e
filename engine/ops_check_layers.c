/* ops_check_layers.c - see ops_check.h: products, and the operations that layers are made of. */
#include "engine/ops_check.h"

void check_product(struct matrix a, int a_t, struct matrix b, int b_t, float beta, struct matrix c)
{
    (void)beta;
    ensure(matrix_valid(a) && matrix_valid(b) && matrix_valid(c));
    ensure(c.rows == (a_t ? a.columns : a.rows));
    ensure(c.columns == (b_t ? b.rows : b.columns));
    ensure((a_t ? a.rows : a.columns) == (b_t ? b.columns : b.rows));
    ensure(matrix_disjoint(a, c) && matrix_disjoint(b, c));
}

void check_product_mixed(enum half half, struct mixed a, int a_t, struct mixed b, int b_t,
                         float beta, struct mixed c)
{
    ensure(half_valid(half) && (beta == 0 || !c.halves));
    ensure(mixed_valid(a, half) && mixed_valid(b, half) && mixed_valid(c, half));
    ensure(c.rows == (a_t ? a.columns : a.rows));
    ensure(c.columns == (b_t ? b.rows : b.columns));
    ensure((a_t ? a.rows : a.columns) == (b_t ? b.columns : b.rows));
    ensure(mixed_disjoint(a, c) && mixed_disjoint(b, c));
}

void check_linear_forward(struct matrix x, struct matrix w, const float *bias, enum activation kind,
                          enum half half, uint16_t *kept, struct matrix y)
{
    check_product(x, 0, w, 1, 0, y);
    ensure(bias && kind <= ACTIVATION_COUNT && half < HALF_COUNT && (half || !kept));
    ensure(!kept || y.stride == y.columns);
    ensure(!kept || mixed_disjoint(mixed_at(kept, NULL, y.rows, y.columns), mixed_of(x)));
}

/* Its derivative, by its output. */
static int activation_told(enum activation kind)
{
    return kind == ACTIVATION_RELU || kind == ACTIVATION_TANH || kind == ACTIVATION_SIGMOID;
}

void check_linear_backward(struct matrix dy, struct matrix x, const uint16_t *x_half,
                           struct matrix w, int adds, struct matrix dw, float *db,
                           enum activation kind, enum half half, int rounds, struct matrix dx)
{
    int dense = x.stride == x.columns && (!dx.at || dx.stride == dx.columns);
    ensure(matrix_valid(x) && half < HALF_COUNT && (half || (!x_half && !rounds)));
    ensure((kind == ACTIVATION_COUNT || activation_told(kind)) &&
           (dense || (!x_half && kind == ACTIVATION_COUNT)));
    if (dw.at) {
        check_product(dy, 1, x, 0, (float)adds, dw);
        ensure(db && ranges_disjoint(dw.at, matrix_bytes(dw), db, dy.columns * sizeof *db));
    }
    if (dx.at) {
        check_product(dy, 0, w, 0, 0, dx);
        ensure(matrix_same_shape(x, dx) && matrix_disjoint(x, dx));
        ensure(!x_half || mixed_disjoint(mixed_at(x_half, NULL, x.rows, x.columns), mixed_of(dx)));
    }
    ensure(!dw.at || !dx.at || matrix_disjoint(dw, dx)); /* both may be written in one launch */
}

static int int8_valid(struct int8_matrix m)
{
    return m.at && m.scales && m.rows > 0 && m.columns > 0 && m.stride >= m.columns &&
           m.stride % INT8_COLUMNS == 0;
}

void check_quantise(struct matrix w, struct int8_matrix q)
{
    ensure(matrix_valid(w) && int8_valid(q) && w.rows == q.rows && w.columns == q.columns);
}

void check_product_int8(struct matrix x, struct int8_matrix w, struct int8_work work, float beta,
                        struct matrix y)
{
    (void)beta;
    ensure(matrix_valid(x) && int8_valid(w) && matrix_valid(y) && work.rows && work.scales);
    ensure(x.columns == w.columns && y.columns == w.rows && y.rows == x.rows);
    ensure(matrix_disjoint(x, y));
}

void check_bias_add(struct matrix y, const float *bias)
{
    ensure(matrix_valid(y) && bias);
    ensure(ranges_disjoint(y.at, matrix_bytes(y), bias, y.columns * sizeof *bias));
}

void check_column_sums(struct matrix x, int adds, float *sums)
{
    (void)adds;
    ensure(matrix_valid(x) && sums);
    ensure(ranges_disjoint(x.at, matrix_bytes(x), sums, x.columns * sizeof *sums));
}

void check_column_dots(struct matrix a, struct matrix b, float *sums)
{
    ensure(matrix_valid(a) && matrix_valid(b) && matrix_same_shape(a, b) && sums);
}

void check_activation_forward(enum activation kind, const float *x, float *y, uint64_t count)
{
    ensure(kind < ACTIVATION_COUNT && x && y && (x == y || floats_disjoint(x, y, count)));
}

void check_activation_backward(enum activation kind, const float *kept, const float *dy, float *dx,
                               uint64_t count)
{
    ensure(kind < ACTIVATION_COUNT && kept && dy && dx && floats_disjoint(kept, dx, count));
    ensure(dy == dx || floats_disjoint(dy, dx, count));
}

void check_activation_forward_half(enum activation kind, enum half half, const float *x, float *y,
                                   uint16_t *h, uint64_t count)
{
    check_activation_forward(kind, x, y, count);
    ensure(half_valid(half) && ranges_disjoint(h, count * sizeof *h, x, count * sizeof *x));
    ensure(ranges_disjoint(h, count * sizeof *h, y, count * sizeof *y));
}

void check_activation_backward_half(enum activation kind, enum half half, const uint16_t *kept,
                                    const float *dy, float *dx, uint64_t count)
{
    ensure(kind < ACTIVATION_COUNT && half_valid(half) && kept && dy && dx);
    ensure(ranges_disjoint(kept, count * sizeof *kept, dx, count * sizeof *dx));
    ensure(dy == dx || floats_disjoint(dy, dx, count));
}

void check_layernorm_forward(struct matrix x, const float *weight, const float *bias, double eps,
                             struct matrix y)
{
    ensure(matrix_valid(x) && matrix_valid(y) && matrix_same_shape(x, y) && eps >= 0);
    ensure(matrix_same_or_disjoint(x, y) && !weight == !bias);
}

void check_layernorm_backward(struct matrix x, const float *weight, double eps, struct matrix dy,
                              struct matrix dx, int adds, float *dweight, float *dbias)
{
    (void)adds;
    ensure(matrix_valid(x) && matrix_valid(dy) && matrix_same_shape(x, dy) && weight && eps >= 0);
    ensure(!dweight == !dbias && (dx.at || dweight));
    if (dx.at)
        ensure(matrix_valid(dx) && matrix_same_shape(x, dx) && matrix_disjoint(x, dx) &&
               matrix_same_or_disjoint(dy, dx));
}

void check_batchnorm_moments(struct matrix x, double *mean, double *squares)
{
    ensure(matrix_valid(x) && mean && squares && mean != squares);
}

void check_batchnorm_forward(struct matrix x, const double *mean, const double *scale,
                             const float *weight, const float *bias, struct matrix y)
{
    ensure(matrix_valid(x) && matrix_valid(y) && matrix_same_shape(x, y) && mean && scale);
    ensure(matrix_same_or_disjoint(x, y) && !weight == !bias);
}

void check_batchnorm_sums(struct matrix x, const double *mean, const double *scale,
                          struct matrix dy, double *d, double *dn)
{
    ensure(matrix_valid(x) && matrix_valid(dy) && matrix_same_shape(x, dy) && mean && scale);
    ensure(d && dn && d != dn);
}

void check_batchnorm_backward(struct matrix x, const double *mean, const double *scale,
                              const float *weight, const double *d, const double *dn,
                              struct matrix dy, struct matrix dx)
{
    ensure(matrix_valid(x) && matrix_valid(dy) && matrix_valid(dx) && matrix_same_shape(x, dy));
    ensure(matrix_same_shape(x, dx) && mean && scale && weight && d && dn);
    ensure(matrix_disjoint(x, dx) && matrix_same_or_disjoint(dy, dx));
}

void check_batchnorm_merge(const double *first, const double *second, double before, double count,
                           double *mean, double *variance, uint64_t channels)
{
    ensure(first && second && mean && variance && before >= 0 && count > 0 && channels > 0);
}

void check_batchnorm_finish(double *variance, double count, double eps, double *scale,
                            uint64_t channels)
{
    ensure(variance && scale && variance != scale && count > 0 && eps >= 0 && channels > 0);
}

void check_batchnorm_means_add(const double *first, const double *second, double divisor,
                               int begins, double *d, double *dn, uint64_t channels)
{
    (void)begins;
    ensure(first && second && d && dn && divisor > 0 && channels > 0);
}

void check_batchnorm_running(const double *mean, const double *variance, double momentum,
                             float *running_mean, float *running_variance, uint64_t channels)
{
    ensure(mean && variance && running_mean && running_variance && channels > 0);
    ensure(momentum >= 0 && momentum <= 1);
}

void check_batchnorm_use(const float *running_mean, const float *running_variance, double eps,
                         double *mean, double *scale, double *d, double *dn, uint64_t channels)
{
    ensure(running_mean && running_variance && mean && scale && d && dn && eps >= 0);
    ensure(channels > 0);
}

void check_round_half(enum half kind, struct matrix x)
{
    ensure(half_valid(kind) && matrix_valid(x));
}

void check_load_half(enum half kind, const uint16_t *h, float *x, uint64_t count)
{
    ensure(half_valid(kind) && h && x);
    ensure(ranges_disjoint(h, count * sizeof *h, x, count * sizeof *x));
}

void check_store_half(enum half kind, float *x, uint16_t *h, uint64_t count)
{
    check_load_half(kind, h, x, count);
}

void check_add_half(enum half kind, const uint16_t *h, float *y, uint64_t count)
{
    check_load_half(kind, h, y, count);
}

void check_expand_codes(struct coded_matrix m, uint64_t from, uint64_t count, float *x)
{
    ensure(m.codes && m.row && m.column && m.level && x && m.rows && m.columns);
    ensure(m.outlier && m.outlier_first);
    ensure(m.tables >= 1 && m.tables <= CODED_TABLES);
    ensure(from <= m.rows * m.columns && count <= m.rows * m.columns - from);
}

void check_zero(float *x, uint64_t count)
{
    ensure(x || !count);
}

void check_copy(const float *x, float *y, uint64_t count)
{
    ensure(x && y && floats_disjoint(x, y, count));
}

void check_narrow(const double *x, float *y, uint64_t count)
{
    ensure(x && y && ranges_disjoint(x, count * sizeof *x, y, count * sizeof *y));
}

void check_scale(float factor, float *x, uint64_t count)
{
    (void)factor, (void)count;
    ensure(x != NULL);
}

void check_multiply(const float *x, float *y, uint64_t count)
{
    ensure(x && y && floats_disjoint(x, y, count));
}

void check_begin_rows(const float *begins, struct matrix x, struct matrix y)
{
    ensure(begins && matrix_valid(x) && matrix_valid(y) && matrix_same_shape(x, y));
    ensure(matrix_disjoint(x, y));
}

void check_steps_swap(const float *x, uint64_t stride, uint64_t rows, uint64_t steps,
                      uint64_t values, float *y)
{
    ensure(x && y && rows > 0 && stride >= steps * values);
    ensure(ranges_disjoint(x, ((rows - 1) * stride + steps * values) * sizeof *x, y,
                           rows * steps * values * sizeof *y));
}

static int halves_valid(struct halves m)
{
    return m.at != NULL && m.rows > 0 && m.columns > 0 && m.stride >= m.columns;
}

void check_steps_narrow(enum half kind, const float *x, uint64_t stride, uint64_t rows,
                        uint64_t steps, uint64_t values, struct halves y)
{
    ensure(half_valid(kind) && x && rows > 0 && stride >= steps * values);
    ensure(halves_valid(y) && y.rows == steps * rows && y.columns >= values);
}

void check_rows_regroup(struct matrix x, uint64_t groups, struct matrix y)
{
    ensure(matrix_valid(x) && matrix_valid(y) && matrix_same_shape(x, y) && matrix_disjoint(x, y));
    ensure(groups > 0 && x.rows % groups == 0);
}

void check_product_half(enum half kind, struct halves a, int a_t, struct halves b, int b_t,
                        float beta, struct matrix c)
{
    (void)beta;
    ensure(half_valid(kind) && halves_valid(a) && halves_valid(b) && matrix_valid(c));
    ensure(c.rows == (a_t ? a.columns : a.rows) && c.columns == (b_t ? b.rows : b.columns));
    ensure((a_t ? a.rows : a.columns) == (b_t ? b.columns : b.rows));
}

static void check_pool(enum pooling kind, struct matrix x, struct segments s, struct matrix y)
{
    ensure(kind < POOL_COUNT && matrix_valid(x) && matrix_valid(y) && y.rows == s.count);
    ensure(s.begin || x.rows == s.count * s.steps); /* begin is the backend's to read */
    ensure(y.columns == x.columns * (kind == POOL_MEAN_SUM ? 2 : 1));
}

void check_pool_forward(enum pooling kind, struct matrix x, struct segments s, struct matrix y)
{
    check_pool(kind, x, s, y);
    ensure(matrix_disjoint(x, y));
}

void check_pool_backward(enum pooling kind, struct matrix x, struct matrix dy, struct segments s,
                         struct matrix dx)
{
    check_pool(kind, x, s, dy);
    ensure(matrix_valid(dx) && matrix_same_shape(x, dx) && matrix_disjoint(dy, dx));
    ensure(kind != POOL_MAX || (matrix_disjoint(x, dy) && matrix_disjoint(x, dx)));
}

static void check_sparse(struct sparse a, uint64_t rows, uint64_t columns)
{
    ensure(a.begin && a.column && a.value && a.rows == rows && a.columns == columns);
}

void check_sparse_product(struct sparse a, struct matrix x, const float *bias, float beta,
                          struct matrix y)
{
    (void)bias, (void)beta;
    ensure(matrix_valid(x) && matrix_valid(y) && x.columns == y.columns && matrix_disjoint(x, y));
    check_sparse(a, y.rows, x.rows);
}

void check_sparse_forward(struct sparse a, struct mixed x, const float *bias, float beta,
                          const float *skip, enum activation kind, enum half half, uint16_t *kept,
                          struct matrix y)
{
    (void)bias;
    ensure(kind <= ACTIVATION_COUNT && half < HALF_COUNT && (half || !kept));
    ensure(mixed_valid(x, half) && x.columns == y.columns && y.stride == y.columns);
    check_sparse(a, y.rows, x.rows);
    ensure(y.at || (kept && beta == 0));
    ensure(!y.at || mixed_disjoint(x, mixed_of(y)));
    ensure(!y.at || !skip || floats_disjoint(skip, y.at, y.rows * y.columns));
    ensure(!kept || mixed_disjoint(x, mixed_at(kept, NULL, y.rows, y.columns)));
}

void check_convolution_forward(struct sparse a, struct mixed x, struct mixed w, const float *bias,
                               enum activation kind, enum half half, uint16_t *kept,
                               struct mixed sums, struct matrix y)
{
    check_sparse_forward(a, sums, bias, 0, NULL, kind, half, kept, y);
    check_product_mixed(half, x, 0, w, 1, 0, sums);
    ensure(bias && w.halves && sums.halves);
    ensure(!y.at || (mixed_disjoint(x, mixed_of(y)) && mixed_disjoint(w, mixed_of(y))));
    ensure(!kept || mixed_disjoint(x, mixed_at(kept, NULL, y.rows, y.columns)));
}

static int mixed_dense(struct mixed m, enum half half)
{
    return mixed_valid(m, half) && m.stride == m.columns;
}

/* What its products read and leave, of g. */
static void check_convolution_products(const struct convolution_back *b)
{
    int has_dx = b->dx.at || b->dx.halves;
    struct mixed g = b->g, x = b->x, w = b->w, dx = b->dx;
    ensure(mixed_dense(x, b->half) && x.rows == g.rows && mixed_disjoint(x, g));
    ensure(!b->dw.at ||
           (matrix_valid(b->dw) && b->dw.rows == g.columns && b->dw.columns == x.columns));
    ensure(!has_dx || (mixed_dense(w, b->half) && w.rows == g.columns && w.columns == x.columns));
    ensure(!has_dx || (mixed_dense(dx, b->half) && dx.rows == g.rows && dx.columns == x.columns));
    ensure(!has_dx || (mixed_disjoint(dx, g) && mixed_disjoint(dx, x) && mixed_disjoint(dx, w)));
    ensure(g.halves || !(x.halves || dx.halves || (has_dx && w.halves)));
    ensure(b->before == ACTIVATION_COUNT ||
           (activation_told(b->before) && has_dx && !x.halves == !b->half));
}

void check_convolution_backward(struct convolution_back b)
{
    struct mixed kept = b.kept, d = b.d;
    check_sparse(b.a, b.g.rows, d.rows);
    check_convolution_products(&b);
    ensure(!b.db == !b.dw.at);
    ensure(b.behind <= ACTIVATION_COUNT && b.half < HALF_COUNT && d.columns == b.g.columns);
    ensure(mixed_dense(d, b.half) && mixed_dense(b.g, b.half) && mixed_disjoint(d, b.g));
    ensure(b.behind == ACTIVATION_COUNT ||
           (mixed_dense(kept, b.half) && !kept.halves == !b.half && kept.rows == d.rows &&
            kept.columns == d.columns && mixed_disjoint(kept, d) && mixed_disjoint(kept, b.g)));
}

void check_embedding_forward(const float *tokens, struct matrix w, struct matrix y)
{
    ensure(tokens && matrix_valid(w) && matrix_valid(y) && w.columns == y.columns);
    ensure(matrix_disjoint(w, y));
}

void check_embedding_add(const float *tokens, uint64_t first, struct matrix dy, struct matrix dw)
{
    (void)first;
    check_embedding_forward(tokens, dw, dy);
}

void check_embedding_square_add(const float *tokens, struct samples dy, uint64_t first,
                                struct squares_work work, struct matrix y)
{
    (void)first;
    ensure(tokens && matrix_valid(dy.first) && !dy.begin && dy.first.columns == y.columns);
    ensure(matrix_valid(y) && work.tile);
    ensure(matrix_disjoint(y, matrix_of(work.tile, y.rows, y.columns)));
}

void check_lstm_forward(const float *bias_ih, const float *bias_hh, const float *c_before,
                        struct matrix gates, float *c, struct matrix h)
{
    ensure(bias_ih && bias_hh && c_before && c && matrix_valid(gates) && matrix_valid(h));
    ensure(gates.rows == h.rows && gates.columns == 4 * h.columns && matrix_disjoint(gates, h));
    ensure(floats_disjoint(c_before, c, h.rows * h.columns));
}

/* h: or the gradient there. */
static void check_lstm_steps(struct lstm_steps s, struct matrix w_hh, enum half half,
                             struct matrix h)
{
    ensure(s.steps > 0 && s.rows > 0 && s.hidden > 0 && s.c_before && s.gates && s.c);
    ensure(matrix_valid(w_hh) && w_hh.rows == 4 * s.hidden && w_hh.columns == s.hidden);
    ensure(matrix_valid(h) && h.rows == s.steps * s.rows && h.columns == s.hidden);
    ensure(half < HALF_COUNT && !s.gates_half == !s.c_half && (half || !s.gates_half));
    ensure(matrix_disjoint(h, matrix_of(s.gates, s.steps * s.rows, 4 * s.hidden)));
}

void check_lstm_steps_forward(struct lstm_steps s, const float *bias_ih, const float *bias_hh,
                              struct matrix w_hh, enum half half, struct matrix h)
{
    check_lstm_steps(s, w_hh, half, h);
    ensure(bias_ih && bias_hh);
}

void check_lstm_steps_backward(struct lstm_steps s, struct matrix w_hh, enum half half,
                               struct matrix dh, float *dc)
{
    check_lstm_steps(s, w_hh, half, dh);
    ensure(dc && floats_disjoint(s.c, dc, s.rows * s.hidden));
    ensure(floats_disjoint(s.c_before, dc, s.rows * s.hidden));
}

/* As the numbers of a narrow layer are. */
static int aligned(const void *at)
{
    return at && (uintptr_t)at % 16 == 0;
}

/* Cells of [steps, rows, hidden]. */
static int cells_valid(struct lstm_cells x, struct lstm_narrow s)
{
    return x.row >= s.hidden && x.step >= s.hidden && (x.row | x.step) % 4 == 0 && aligned(x.at);
}

void check_lstm_narrow_weights(enum half kind, struct matrix w_hh, uint16_t *packed)
{
    ensure(half_valid(kind) && matrix_valid(w_hh) && w_hh.rows == 4 * w_hh.columns);
    ensure(w_hh.columns <= LSTM_NARROW_HIDDEN_MAX && aligned(packed));
}

static void check_lstm_narrow(struct lstm_narrow s, const uint16_t *packed)
{
    ensure(s.steps > 0 && s.rows > 0 && s.hidden > 0 && s.hidden <= LSTM_NARROW_HIDDEN_MAX);
    ensure(s.hidden % LSTM_NARROW_UNITS == 0 && half_valid(s.half));
    ensure(aligned(s.gates) && aligned(s.c) && aligned(s.h) && aligned(packed));
}

void check_lstm_narrow_forward(struct lstm_narrow s, const float *sums, const float *bias_ih,
                               const float *bias_hh, const uint16_t *packed, float *c,
                               struct lstm_cells out)
{
    check_lstm_narrow(s, packed);
    ensure(aligned(sums) && bias_ih && bias_hh && c);
    ensure(!out.at || cells_valid(out, s));
}

void check_lstm_narrow_backward(struct lstm_narrow s, const uint16_t *packed, struct lstm_cells dh,
                                float *dc, float *dr, float *sums)
{
    check_lstm_narrow(s, packed);
    ensure(cells_valid(dh, s) && dc && dr && sums);
    ensure(floats_disjoint(dc, dr, s.rows * s.hidden));
}

void check_dropout(struct matrix x, struct matrix y, const struct dropout_mask *mask)
{
    ensure(matrix_valid(x) && matrix_valid(y) && matrix_same_shape(x, y));
    ensure(matrix_same_or_disjoint(x, y) && mask->p >= 0 && mask->p < 1);
    ensure(x.columns <= UINT32_MAX);
}
