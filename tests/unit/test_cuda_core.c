/* test_cuda_core.c - kernels that the trials (cuda_trial.h) draw some cases of: the steps of an
 * LSTM in each type, direction and way to be kept, products in 8 bits of numbers that have none;
 * and lanes.
 */
#include <math.h>
#include <string.h>

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
    struct both sums = floats_random(4 * cells);
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
                           .c_after = after.here,
                           .sums = sums.here};
    struct lstm_steps t = s;
    t.c_before = before.there, t.gates = gates.there, t.c = c.there, t.c_after = after.there;
    t.sums = sums.there;
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
    both_near(&sums, 2 * off, "sums of steps");
    for (uint64_t i = 0; i < all; i++) /* used up */
        memset((float *)dh.here + (k->rows + i) * stride, 0, k->hidden * sizeof(float)),
            gpu->clear((float *)dh.there + (k->rows + i) * stride, k->hidden * sizeof(float));
    both_near(&dh, off, "dh before the steps");
    both_close(&w), both_close(&ih), both_close(&hh), both_close(&before), both_close(&c);
    both_close(&gates), both_close(&dc), both_close(&h), both_close(&dh);
    both_close(&gates_half), both_close(&c_half), both_close(&after), both_close(&sums);
}

/* One row a block and two (more rows than the largest GPU has multiprocessors), part of a warp to
 * all of them, and what fits no multiprocessor. */
TEST_LIMIT(cuda_steps_of_an_lstm_equal_the_cpu, 200)
{
    static const uint64_t sizes[][3] = {{1, 1, 1},   {5, 3, 7},   {4, 9, 40}, {3, 2, 100},
                                        {3, 5, 128}, {3, 4, 130}, {2, 140, 9}};
    cuda_open();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int ways = 0; ways < 4; ways++)
            for (int half = 0; half < HALF_COUNT; half++)
                steps_run(&(struct steps_case){sizes[i][0], sizes[i][1], sizes[i][2], ways % 2,
                                               ways / 2, (enum half)half,
                                               half && (ways + half) % 2});
}

/* (1 * 2 + 1) * 3, the sum in another lane than the products; waits: each for the one before. */
static float lanes_run(int waits)
{
    const struct backend *b = gpu->backend;
    float one = 1, result;
    struct both x = both_of(&one, sizeof one), y = both_of(&one, sizeof one);
    b->lane_mark(0);
    b->lane_take(LANE_FIRST); /* behind what has come there */
    b->lane_await(0);
    b->lane_take(LANE_MAIN);
    op_scale(b, 2, x.there, 1);
    b->lane_mark(1);
    b->lane_take(LANE_FIRST);
    if (waits)
        b->lane_await(1);
    op_add(b, y.there, x.there, 1);
    b->lane_mark(2);
    b->lane_take(LANE_MAIN);
    if (waits)
        b->lane_await(2);
    op_scale(b, 3, x.there, 1);
    b->lane_await(2);
    gpu->download(&result, x.there, sizeof result);
    both_close(&x), both_close(&y);
    return result;
}

/* On the emulated device those that do not wait are found by that: the sum first, or last. */
TEST(cuda_lanes_wait_where_they_are_told_to)
{
    struct device_facts facts;
    int found[16] = {0};
    cuda_open();
    gpu->facts(&facts);
    for (int i = 0; i < 50; i++) {
        CHECK(lanes_run(1) == 9);
        if (strcmp(facts.name, "emulated") == 0)
            found[(int)lanes_run(0)] = 1;
    }
    if (strcmp(facts.name, "emulated") == 0)
        CHECK(found[7] && found[9] && found[12]);
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

TEST(cuda_products_in_8_bits_of_what_has_none_equal_the_cpu)
{
    cuda_open();
    int8_case(3, 6, 400, 0.5f, 1e-42f);
    int8_case(3, 6, 40, 0, NAN);
    int8_case(3, 6, 40, 1, INFINITY);
}
