/* test_cuda_core.c - the CUDA backend's kernels for sequences, graphs, tables, squares and 8 bits
 * against the CPU backend's functions, over odd sizes: emulated, see engine/cuda/emulate.h.
 */
#include <math.h>

#include "engine/device.h"
#include "engine/ops.h"
#include "tests/test.h"
#include "tests/unit/cuda_fixture.h"

static const struct backend *const cpu = &backend_cpu;
static const struct device *gpu;

static void cuda_open(void)
{
    gpu = cuda_fixture_device();
}

/* The same bytes here and there. */
struct both {
    void *here, *there;
    uint64_t bytes;
};

static struct both both_of(const void *from, uint64_t bytes)
{
    struct both b = {malloc(bytes), NULL, bytes};
    struct err e;
    memcpy(b.here, from, bytes);
    CHECK(gpu->allocate(bytes, "a test", &b.there, &e) == 0);
    gpu->upload(b.there, from, bytes);
    return b;
}

static struct both floats_random(uint64_t count)
{
    float *x = malloc(count * sizeof *x);
    for (uint64_t i = 0; i < count; i++)
        x[i] = (float)((double)(test_random() >> 11) * 0x1p-52 - 1.0);
    struct both b = both_of(x, count * sizeof *x);
    free(x);
    return b;
}

static void both_close(struct both *b)
{
    free(b->here);
    gpu->release(b->there);
}

/* Every number there is the one here, `scale` being how large they may be before rounding. */
static void both_near(const struct both *b, double scale, const char *what)
{
    float *got = malloc(b->bytes);
    const float *wanted = b->here;
    gpu->download(got, b->there, b->bytes);
    for (uint64_t i = 0; i < b->bytes / sizeof *got; i++) {
        int same = got[i] == wanted[i] || (isnan(got[i]) && isnan(wanted[i]));
        if (!same && !(fabs((double)got[i] - (double)wanted[i]) <= 2e-6 * scale))
            test_fail(__FILE__, __LINE__, "%s[%llu]: %.9g instead of %.9g", what,
                      (unsigned long long)i, (double)got[i], (double)wanted[i]);
    }
    free(got);
}

/* A matrix of it; rows behind `stride` numbers. */
static struct matrix here(struct both b, uint64_t rows, uint64_t columns, uint64_t stride)
{
    return (struct matrix){b.here, rows, columns, stride};
}

static struct matrix there(struct both b, uint64_t rows, uint64_t columns, uint64_t stride)
{
    return (struct matrix){b.there, rows, columns, stride};
}

static void lstm_case(uint64_t rows, uint64_t hidden)
{
    uint64_t pad = test_random() % 3, n = rows * hidden, width = 4 * hidden;
    struct both ih = floats_random(width), hh = floats_random(width), before = floats_random(n);
    struct both gates = floats_random(rows * (width + pad)), c = floats_random(n);
    struct both h = floats_random(rows * (hidden + pad));
    op_lstm_forward(cpu, ih.here, hh.here, before.here, here(gates, rows, width, width + pad),
                    c.here, here(h, rows, hidden, hidden + pad));
    op_lstm_forward(gpu->backend, ih.there, hh.there, before.there,
                    there(gates, rows, width, width + pad), c.there,
                    there(h, rows, hidden, hidden + pad));
    both_near(&gates, 2, "gates"), both_near(&c, 2, "c"), both_near(&h, 2, "h");
    both_close(&ih), both_close(&hh), both_close(&before), both_close(&gates);
    both_close(&c), both_close(&h);
}

TEST(cuda_lstm_cells_equal_the_cpu)
{
    cuda_open();
    lstm_case(1, 1), lstm_case(3, 7), lstm_case(17, 40);
}

/* Numbers of the kind, of about the size of weights. */
static struct both weights_random(enum half kind, uint64_t rows, uint64_t columns)
{
    struct both w = floats_random(rows * columns);
    op_scale(cpu, 1 / sqrtf((float)columns), w.here, rows * columns);
    if (kind)
        op_round_half(cpu, kind, here(w, rows, columns, columns));
    gpu->upload(w.there, w.here, w.bytes);
    return w;
}

/* What was kept in 16 bits there, as float32. */
static void halves_take(enum half kind, struct both *whole, struct both halves)
{
    float *wide = malloc(whole->bytes);
    uint16_t *narrow = malloc(halves.bytes);
    gpu->download(narrow, halves.there, halves.bytes);
    op_load_half(cpu, kind, narrow, wide, whole->bytes / sizeof *wide);
    gpu->upload(whole->there, wide, whole->bytes);
    free(wide), free(narrow);
}

struct steps_case {
    uint64_t steps, rows, hidden;
    int reverse, begins;
    enum half half;
    int keeps; /* gates and c in 16 bits */
};

/* The steps lie in the middle of an array of h of two directions. */
static void steps_run(const struct steps_case *k)
{
    uint64_t cells = k->rows * k->hidden, all = k->steps * k->rows, stride = 2 * k->hidden + 1;
    struct both w = weights_random(k->half, 4 * k->hidden, k->hidden);
    struct both ih = floats_random(4 * k->hidden), hh = floats_random(4 * k->hidden);
    struct both before = floats_random(cells), c = floats_random(k->steps * cells);
    struct both gates = floats_random(4 * k->steps * cells), dc = floats_random(cells);
    struct both h = weights_random(k->half, all + 2 * k->rows, stride);
    struct both dh = floats_random((all + 2 * k->rows) * stride);
    struct both gates_half = floats_random(2 * k->steps * cells + 1);
    struct both c_half = floats_random(k->steps * cells), after = floats_random(cells);
    struct lstm_steps s = {.steps = k->steps,
                           .rows = k->rows,
                           .hidden = k->hidden,
                           .reverse = k->reverse,
                           .begins = k->begins,
                           .c_before = before.here,
                           .gates = gates.here,
                           .c = c.here,
                           .gates_half = k->keeps ? gates_half.here : NULL,
                           .c_half = k->keeps ? c_half.here : NULL,
                           .c_after = after.here};
    struct lstm_steps t = s;
    t.c_before = before.there, t.gates = gates.there, t.c = c.there, t.c_after = after.there;
    t.gates_half = k->keeps ? gates_half.there : NULL;
    t.c_half = k->keeps ? c_half.there : NULL;
    struct matrix w_here = here(w, 4 * k->hidden, k->hidden, k->hidden), w_there = w_here;
    struct matrix h_here = here(h, all, k->hidden, stride), h_there = h_here;
    w_there.at = w.there;
    h_here.at = (float *)h.here + k->rows * stride;
    h_there.at = (float *)h.there + k->rows * stride;
    /* h in 16 bits may fall on the other side of a border, once in a while */
    double off = k->half == HALF_BF16 ? 2000 : k->half == HALF_F16 ? 300 : 2;
    op_lstm_steps_forward(cpu, s, ih.here, hh.here, w_here, k->half, h_here);
    op_lstm_steps_forward(gpu->backend, t, ih.there, hh.there, w_there, k->half, h_there);
    if (k->keeps) {
        halves_take(k->half, &gates, gates_half), halves_take(k->half, &c, c_half);
    }
    both_near(&gates, off, "gates of steps"), both_near(&c, 3 * off, "c of steps");
    both_near(&h, off, "h of steps"), both_near(&after, 3 * off, "c after steps");
    gpu->upload(gates.there, gates.here, gates.bytes), gpu->upload(c.there, c.here, c.bytes);
    gpu->upload(gates_half.there, gates_half.here, gates_half.bytes);
    gpu->upload(c_half.there, c_half.here, c_half.bytes);
    h_here.at = (float *)dh.here + k->rows * stride;
    h_there.at = (float *)dh.there + k->rows * stride;
    op_lstm_steps_backward(cpu, s, w_here, k->half, h_here, dc.here);
    op_lstm_steps_backward(gpu->backend, t, w_there, k->half, h_there, dc.there);
    both_near(&gates, off, "gradients of steps"), both_near(&dc, 2 * off, "dc of steps");
    for (uint64_t i = 0; i < all; i++) /* used up */
        memset((float *)dh.here + (k->rows + i) * stride, 0, k->hidden * sizeof(float)),
            gpu->clear((float *)dh.there + (k->rows + i) * stride, k->hidden * sizeof(float));
    both_near(&dh, off, "dh before the steps");
    both_close(&w), both_close(&ih), both_close(&hh), both_close(&before), both_close(&c);
    both_close(&gates), both_close(&dc), both_close(&h), both_close(&dh);
    both_close(&gates_half), both_close(&c_half), both_close(&after);
}

/* One row a block and two, part of a warp to all of them, and what fits no multiprocessor. */
TEST_LIMIT(cuda_steps_of_an_lstm_equal_the_cpu, 200)
{
    static const uint64_t sizes[][3] = {{1, 1, 1},   {5, 3, 7},   {4, 9, 40},
                                        {3, 2, 100}, {3, 5, 128}, {3, 4, 130}};
    cuda_open();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int ways = 0; ways < 4; ways++)
            for (int half = 0; half < HALF_COUNT; half++)
                steps_run(&(struct steps_case){sizes[i][0], sizes[i][1], sizes[i][2], ways % 2,
                                               ways / 2, (enum half)half,
                                               half && (ways + half) % 2});
}

/* Where `segments` segments of 1 .. 2 * mean - 1 rows begin. */
static struct both begin_random(uint64_t segments, uint64_t mean)
{
    uint64_t begin[segments + 1];
    begin[0] = 5; /* only differences count */
    for (uint64_t n = 0; n < segments; n++)
        begin[n + 1] = begin[n] + 1 + test_random() % (2 * mean - 1);
    return both_of(begin, sizeof begin);
}

static uint64_t begin_rows(struct both begin, uint64_t segments)
{
    const uint64_t *at = begin.here;
    return at[segments] - at[0];
}

static void pool_case(enum pooling kind, uint64_t segments, uint64_t columns, int ragged)
{
    struct both begin = begin_random(segments, 4);
    uint64_t rows = ragged ? begin_rows(begin, segments) : 3 * segments;
    uint64_t out = columns * (kind == POOL_MEAN_SUM ? 2 : 1);
    struct segments s = {segments, ragged ? 1 : 3, ragged ? begin.here : NULL}, t = s;
    struct both x = floats_random(rows * (columns + 1)), y = floats_random(segments * (out + 2));
    struct both dx = floats_random(rows * (columns + 2));
    t.begin = ragged ? begin.there : NULL;
    op_pool_forward(cpu, kind, here(x, rows, columns, columns + 1), s,
                    here(y, segments, out, out + 2));
    op_pool_forward(gpu->backend, kind, there(x, rows, columns, columns + 1), t,
                    there(y, segments, out, out + 2));
    both_near(&y, 1, "pool");
    op_pool_backward(cpu, kind, here(x, rows, columns, columns + 1),
                     here(y, segments, out, out + 2), s, here(dx, rows, columns, columns + 2));
    op_pool_backward(gpu->backend, kind, there(x, rows, columns, columns + 1),
                     there(y, segments, out, out + 2), t, there(dx, rows, columns, columns + 2));
    both_near(&dx, 1, "dx of a pool");
    both_close(&begin), both_close(&x), both_close(&y), both_close(&dx);
}

TEST(cuda_pools_equal_the_cpu)
{
    cuda_open();
    for (int kind = 0; kind < POOL_COUNT; kind++)
        for (int ragged = 0; ragged < 2; ragged++) {
            pool_case(kind, 1, 1, ragged);
            pool_case(kind, 9, 37, ragged);
        }
}

/* Rows of 0 .. 4 values, all of which may be the same column. */
static void sparse_case(uint64_t rows, uint64_t inner, uint64_t columns, uint64_t pad, float beta)
{
    uint32_t begin[rows + 1], column[5 * rows];
    begin[0] = 0;
    for (uint64_t r = 0; r < rows; r++)
        begin[r + 1] = begin[r] + (uint32_t)(test_random() % 5);
    for (uint64_t k = 0; k < 5 * rows; k++)
        column[k] = (uint32_t)(test_random() % inner);
    struct both b = both_of(begin, sizeof begin), c = both_of(column, sizeof column);
    struct both v = floats_random(5 * rows), bias = floats_random(columns);
    struct both x = floats_random(inner * (columns + pad)), y = floats_random(rows * columns);
    struct sparse s = {b.here, c.here, v.here, rows, inner};
    struct sparse t = {b.there, c.there, v.there, rows, inner};
    for (int with = 0; with < 2; with++) {
        op_sparse_product(cpu, s, here(x, inner, columns, columns + pad), with ? bias.here : NULL,
                          beta, here(y, rows, columns, columns));
        op_sparse_product(gpu->backend, t, there(x, inner, columns, columns + pad),
                          with ? bias.there : NULL, beta, there(y, rows, columns, columns));
        both_near(&y, 6, "sparse product");
    }
    both_close(&b), both_close(&c), both_close(&v), both_close(&bias);
    both_close(&x), both_close(&y);
}

TEST(cuda_sparse_products_equal_the_cpu)
{
    cuda_open();
    for (int beta = 0; beta < 2; beta++) {
        sparse_case(1, 1, 1, 0, (float)beta);
        sparse_case(50, 30, 37, 2, (float)beta);
        sparse_case(50, 30, 36, 4, 0.5f * (float)beta);
    }
}

/* `samples` samples of `steps` tokens below `count`, of which `rows` from `first` on are taken. */
static void embedding_case(uint64_t samples, uint64_t steps, uint64_t count, uint64_t first,
                           uint64_t rows, uint64_t columns)
{
    uint64_t all = samples * steps;
    float tokens[all];
    for (uint64_t i = 0; i < all; i++)
        tokens[i] = (float)(test_random() % count);
    struct both t = both_of(tokens, sizeof tokens), w = floats_random(count * columns);
    struct both y = floats_random(all * columns), dw = floats_random(rows * (columns + 1));
    struct both tile = floats_random(rows * columns);
    op_embedding_forward(cpu, t.here, here(w, count, columns, columns),
                         here(y, all, columns, columns));
    op_embedding_forward(gpu->backend, t.there, there(w, count, columns, columns),
                         there(y, all, columns, columns));
    both_near(&y, 0, "embedding");
    op_embedding_add(cpu, t.here, first, here(y, all, columns, columns),
                     here(dw, rows, columns, columns + 1));
    op_embedding_add(gpu->backend, t.there, first, there(y, all, columns, columns),
                     there(dw, rows, columns, columns + 1));
    both_near(&dw, 0, "dw of an embedding");
    struct samples s = {here(y, steps, columns, columns), samples, steps * columns, NULL}, d = s;
    d.first.at = y.there;
    op_embedding_square_add(cpu, t.here, s, first, (struct squares_work){.tile = tile.here},
                            here(dw, rows, columns, columns + 1));
    op_embedding_square_add(gpu->backend, t.there, d, first,
                            (struct squares_work){.tile = tile.there},
                            there(dw, rows, columns, columns + 1));
    both_near(&dw, (double)all, "squares of an embedding");
    both_close(&t), both_close(&w), both_close(&y), both_close(&dw), both_close(&tile);
}

TEST(cuda_embeddings_equal_the_cpu)
{
    cuda_open();
    embedding_case(1, 1, 1, 0, 1, 1);
    embedding_case(3, 300, 9, 2, 5, 13);
    embedding_case(2, 700, 90, 0, 90, 3);
    embedding_case(2, 5, 70, 60, 10, 300);
}

static struct squares_work work_there(struct both tile)
{
    return (struct squares_work){tile.there, tile.there};
}

static void squares_case(uint64_t samples, uint64_t rows, uint64_t columns, uint64_t steps,
                         int ragged)
{
    static float packed[SQUARES_PACKED];
    struct both begin = begin_random(samples, steps);
    uint64_t all = ragged ? begin_rows(begin, samples) : samples * steps;
    uint64_t d_width = rows + 3, x_width = columns + 1;
    struct both d = floats_random(all * d_width), x = floats_random(all * x_width);
    struct both y = floats_random(rows * (columns + 2)), tile = floats_random(rows * columns);
    struct both sums = floats_random(rows);
    struct squares_work work = {packed, tile.here};
    /* steps of all samples side by side, as an LSTM has them, or one sample behind the other */
    struct samples ds = {here(d, steps, rows, ragged ? d_width : samples * d_width), samples,
                         d_width, ragged ? begin.here : NULL};
    struct samples xs = {here(x, steps, columns, ragged ? x_width : samples * x_width), samples,
                         x_width, ragged ? begin.here : NULL};
    struct samples dt = ds, xt = xs;
    dt.first.at = d.there, xt.first.at = x.there;
    dt.begin = xt.begin = ragged ? begin.there : NULL;
    double size = (double)(samples * steps * steps + 1);
    op_products_square_add(cpu, ds, xs, work, here(y, rows, columns, columns + 2));
    op_products_square_add(gpu->backend, dt, xt, work_there(tile),
                           there(y, rows, columns, columns + 2));
    both_near(&y, size, "squares of products");
    op_sums_square_add(cpu, ds, work, sums.here);
    op_sums_square_add(gpu->backend, dt, work_there(tile), sums.there);
    both_near(&sums, size, "squares of sums");
    op_squares_product_add(cpu, here(d, all, rows, d_width), here(x, all, columns, x_width), work,
                           here(y, rows, columns, columns + 2));
    op_squares_product_add(gpu->backend, there(d, all, rows, d_width),
                           there(x, all, columns, x_width), work_there(tile),
                           there(y, rows, columns, columns + 2));
    both_near(&y, size, "products of squares");
    both_close(&begin), both_close(&d), both_close(&x), both_close(&y), both_close(&tile);
    both_close(&sums);
}

TEST_LIMIT(cuda_squares_equal_the_cpu, 100)
{
    cuda_open();
    for (int ragged = 0; ragged < 2; ragged++) {
        squares_case(1, 1, 1, 1, ragged);
        squares_case(5, 7, 3, 40, ragged);
        squares_case(3, 130, 67, 17, ragged);
        squares_case(400, 9, 5, 2, ragged);
    }
}

static void int8_case(uint64_t rows, uint64_t outputs, uint64_t columns, float beta, float worst)
{
    uint64_t stride = (columns + INT8_COLUMNS - 1) / INT8_COLUMNS * INT8_COLUMNS;
    uint64_t whole = (outputs + INT8_OUTPUTS - 1) / INT8_OUTPUTS * INT8_OUTPUTS;
    struct both w = floats_random(outputs * columns), x = floats_random(rows * (columns + 1));
    struct both q = floats_random(whole * stride / sizeof(float)), scales = floats_random(whole);
    struct both lines = floats_random(INT8_ROWS * stride / 2), line = floats_random(INT8_ROWS);
    struct both y = floats_random(rows * (outputs + 1));
    struct int8_matrix m = {q.here, scales.here, outputs, columns, stride};
    struct int8_matrix n = {q.there, scales.there, outputs, columns, stride};
    memset(q.here, 0, q.bytes);
    gpu->clear(q.there, q.bytes);
    ((float *)x.here)[(rows / 2) * (columns + 1)] = worst;
    gpu->upload(x.there, x.here, x.bytes);
    op_quantise(cpu, here(w, outputs, columns, columns), m);
    op_quantise(gpu->backend, there(w, outputs, columns, columns), n);
    int8_t *got = malloc(q.bytes);
    gpu->download(got, q.there, q.bytes);
    CHECK(memcmp(got, q.here, q.bytes) == 0);
    free(got);
    op_product_int8(cpu, here(x, rows, columns, columns + 1), m,
                    (struct int8_work){lines.here, line.here}, beta,
                    here(y, rows, outputs, outputs + 1));
    op_product_int8(gpu->backend, there(x, rows, columns, columns + 1), n,
                    (struct int8_work){lines.there, line.there}, beta,
                    there(y, rows, outputs, outputs + 1));
    both_near(&y, 0.1, "product in 8 bits");
    both_close(&w), both_close(&x), both_close(&q), both_close(&scales);
    both_close(&lines), both_close(&line), both_close(&y);
}

TEST(cuda_products_in_8_bits_equal_the_cpu)
{
    cuda_open();
    int8_case(1, 1, 1, 0, 1);
    int8_case(70, 9, 33, 0, 0);
    int8_case(3, 6, 400, 0.5f, 1e-42f);
    int8_case(3, 6, 40, 0, NAN);
    int8_case(3, 6, 40, 1, INFINITY);
}
