/* trials_layers.c - trials of the operations of one layer each: LSTM, graphs, tables, squared
 * gradients, 8 bits. */
#include <stdlib.h>

#include "tests/unit/cuda_trial.h"

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static struct matrix input(struct trial *t, uint64_t rows, uint64_t columns)
{
    return trial_matrix(t, TRIAL_INPUT, TRIAL_SAME, rows, columns);
}

/* ---- LSTM ---- */

void trial_lstm_forward(struct trial *t, struct trial_shape s)
{
    uint64_t cells = s.rows * s.columns;
    const float *ih = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, 4 * s.columns);
    const float *hh = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, 4 * s.columns);
    const float *before = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, cells);
    struct matrix gates = trial_matrix(t, TRIAL_CHANGED, TRIAL_SAME, s.rows, 4 * s.columns);
    float *c = trial_floats(t, TRIAL_OUTPUT, TRIAL_SAME, cells);
    op_lstm_forward(trial_backend(t), ih, hh, before, gates, c,
                    trial_matrix(t, TRIAL_OUTPUT, TRIAL_SAME, s.rows, s.columns));
}

/* A layer's steps in one of four ways and one of three types, which are drawn. The rows of h and dh
 * have those of the step before and behind on either side. */
struct steps_trial {
    struct lstm_steps s;
    enum half half;
    enum trial_bar bar;
    struct matrix w, around;
};

/* A matrix of numbers that the type holds. */
static struct matrix held(struct trial *t, enum half half, enum trial_bar bar, uint64_t rows,
                          uint64_t columns)
{
    struct matrix m = trial_matrix(t, TRIAL_CHANGED, bar, rows, columns);
    if (half)
        op_round_half(trial_backend(t), half, m);
    return m;
}

static struct matrix inner_rows(const struct steps_trial *k, struct matrix m)
{
    return (struct matrix){m.at + k->s.rows * m.stride, k->s.steps * k->s.rows, m.columns,
                           m.stride};
}

static void steps_forward(struct trial *t, struct trial_shape s, struct steps_trial *k)
{
    uint64_t steps = 3, rows = least(s.rows, 9), hidden = least(s.columns, 130);
    uint64_t ways = trial_random(t), cells = rows * hidden;
    k->half = (enum half)(trial_random(t) % HALF_COUNT);
    k->bar = k->half ? TRIAL_HALF : TRIAL_FLOAT;
    k->s = (struct lstm_steps){steps, rows, hidden, ways & 1, ways >> 1 & 1, NULL, NULL, NULL};
    const float *ih = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, 4 * hidden);
    const float *hh = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, 4 * hidden);
    k->s.c_before = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, cells);
    k->s.gates = trial_floats(t, TRIAL_CHANGED, k->bar, 4 * steps * cells);
    k->s.c = trial_floats(t, TRIAL_OUTPUT, k->bar, steps * cells);
    k->w = held(t, k->half, TRIAL_SAME, 4 * hidden, hidden);
    k->around = held(t, k->half, k->bar, (steps + 2) * rows, hidden);
    op_lstm_steps_forward(trial_backend(t), k->s, ih, hh, k->w, k->half, inner_rows(k, k->around));
}

void trial_lstm_steps_forward(struct trial *t, struct trial_shape s)
{
    struct steps_trial k;
    steps_forward(t, s, &k);
}

/* Behind the forward; of dh only what is left beside the steps' rows is a result. */
void trial_lstm_steps_backward(struct trial *t, struct trial_shape s)
{
    struct steps_trial k;
    steps_forward(t, s, &k);
    struct matrix dh = trial_matrix(t, TRIAL_CHANGED, k.bar, k.around.rows, k.around.columns);
    struct matrix inner = inner_rows(&k, dh);
    float *dc = trial_floats(t, TRIAL_CHANGED, k.bar, k.s.rows * k.s.hidden);
    op_lstm_steps_backward(trial_backend(t), k.s, k.w, k.half, inner, dc);
    for (uint64_t r = 0; r < inner.rows; r++)
        op_zero(trial_backend(t), inner.at + r * inner.stride, inner.columns);
}

/* Operands of a narrow layer, which are aligned, whatever the shape says. */
struct narrow_trial {
    struct lstm_narrow s;
    uint16_t *packed;
};

static void *aligned(void *at)
{
    return (char *)at + (16 - (uintptr_t)at % 16) % 16;
}

/* [steps + 1, rows, hidden] of the kind, from the second step on. */
static uint16_t *cells_made(struct trial *t, struct lstm_narrow s)
{
    uint64_t step = s.rows * s.hidden, count = (s.steps + 1) * step;
    float *x = trial_floats(t, TRIAL_CHANGED, TRIAL_SAME, count);
    uint16_t *h = aligned(trial_numbers(t, TRIAL_SCRATCH, TRIAL_SAME, TRIAL_U16, count + 8));
    op_store_half(trial_backend(t), s.half, x, h, count);
    return h + step;
}

/* What is there, as a result. */
static void halves_compare(struct trial *t, enum half kind, const uint16_t *h, uint64_t count)
{
    op_load_half(trial_backend(t), kind, h, trial_floats(t, TRIAL_OUTPUT, TRIAL_HALF, count),
                 count);
}

static void narrow_forward(struct trial *t, struct trial_shape s, struct narrow_trial *k)
{
    uint64_t steps = 6, rows = least(s.rows, 6), hidden = 8 * least((s.columns + 7) / 8, 16);
    uint64_t ways = trial_random(t), cells = rows * hidden, count = 4 * steps * cells;
    enum half half = ways >> 1 & 1 ? HALF_F16 : HALF_BF16;
    k->s = (struct lstm_narrow){steps, rows, hidden, half, ways & 1, NULL, NULL, NULL};
    const float *ih = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, 4 * hidden);
    const float *hh = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, 4 * hidden);
    const float *given = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, count);
    float *sums = aligned(trial_floats(t, TRIAL_SCRATCH, TRIAL_SAME, count + 4));
    float *c = trial_floats(t, TRIAL_CHANGED, TRIAL_HALF, cells);
    k->s.gates = aligned(trial_numbers(t, TRIAL_SCRATCH, TRIAL_SAME, TRIAL_U16, count + 8));
    k->s.c = cells_made(t, k->s);
    k->s.h = cells_made(t, k->s);
    k->packed = aligned(trial_numbers(t, TRIAL_SCRATCH, TRIAL_SAME, TRIAL_U16,
                                      lstm_narrow_weights_count(hidden) + 8));
    op_lstm_narrow_weights(trial_backend(t), half, held(t, half, TRIAL_SAME, 4 * hidden, hidden),
                           k->packed);
    float *out = aligned(trial_floats(t, TRIAL_SCRATCH, TRIAL_SAME, steps * cells + 4));
    op_copy(trial_backend(t), given, sums, count);
    op_lstm_narrow_forward(trial_backend(t), k->s, sums, ih, hh, k->packed, c,
                           (struct lstm_cells){out, hidden, steps * hidden});
    op_copy(trial_backend(t), out, trial_floats(t, TRIAL_OUTPUT, TRIAL_HALF, steps * cells),
            steps * cells);
}

/* By what the forward makes of them: their order is the backend's. */
void trial_lstm_narrow_weights(struct trial *t, struct trial_shape s)
{
    struct narrow_trial k;
    s.rows = 1;
    narrow_forward(t, s, &k);
    halves_compare(t, k.s.half, k.s.h, k.s.steps * k.s.rows * k.s.hidden);
}

void trial_lstm_narrow_forward(struct trial *t, struct trial_shape s)
{
    struct narrow_trial k;
    narrow_forward(t, s, &k);
    uint64_t count = k.s.steps * k.s.rows * k.s.hidden;
    halves_compare(t, k.s.half, k.s.gates, 4 * count);
    halves_compare(t, k.s.half, k.s.c, count);
    halves_compare(t, k.s.half, k.s.h, count);
}

/* Behind the forward. */
void trial_lstm_narrow_backward(struct trial *t, struct trial_shape s)
{
    struct narrow_trial k;
    narrow_forward(t, s, &k);
    uint64_t cells = k.s.rows * k.s.hidden;
    uint64_t all = k.s.steps * cells;
    float *dh = aligned(trial_floats(t, TRIAL_SCRATCH, TRIAL_SAME, all + 4));
    op_copy(trial_backend(t), trial_floats(t, TRIAL_INPUT, TRIAL_SAME, all), dh, all);
    float *dc = trial_floats(t, TRIAL_CHANGED, TRIAL_HALF, cells);
    float *dr = trial_floats(t, TRIAL_CHANGED, TRIAL_HALF, cells);
    op_lstm_narrow_backward(trial_backend(t), k.s, k.packed,
                            (struct lstm_cells){dh, k.s.hidden, k.s.steps * k.s.hidden}, dc, dr,
                            trial_floats(t, TRIAL_CHANGED, TRIAL_HALF, 4 * cells));
    halves_compare(t, k.s.half, k.s.gates, 4 * k.s.steps * cells);
}

/* ---- graphs ---- */

/* Where `count` runs of 1 .. 2 * mean - 1 rows begin; *rows: all of them. */
static const uint64_t *begin_drawn(struct trial *t, uint64_t count, uint64_t mean, uint64_t *rows)
{
    uint64_t *begin = malloc((count + 1) * sizeof *begin);
    begin[0] = 5; /* only differences count */
    for (uint64_t n = 0; n < count; n++)
        begin[n + 1] = begin[n] + 1 + trial_random(t) % (2 * mean - 1);
    *rows = begin[count] - begin[0];
    const uint64_t *given = trial_given(t, TRIAL_INPUT, TRIAL_U64, begin, count + 1);
    free(begin);
    return given;
}

/* Segments of one length, and of any, in the latter case with rows of no segment behind them. */
static struct segments segments_drawn(struct trial *t, uint64_t count, int ragged, uint64_t *rows)
{
    *rows = 3 * count;
    if (!ragged)
        return (struct segments){count, 3, NULL};
    struct segments of = {count, 1, begin_drawn(t, count, 4, rows)};
    *rows += trial_random(t) % 4;
    return of;
}

void trial_pool_forward(struct trial *t, struct trial_shape s)
{
    for (int kind = 0; kind < POOL_COUNT; kind++)
        for (int ragged = 0; ragged < 2; ragged++) {
            uint64_t rows, columns = s.columns * (kind == POOL_MEAN_SUM ? 2 : 1);
            struct segments of = segments_drawn(t, s.rows, ragged, &rows);
            struct matrix x = input(t, rows, s.columns);
            op_pool_forward(trial_backend(t), kind, x, of,
                            trial_matrix(t, TRIAL_OUTPUT, TRIAL_SAME, s.rows, columns));
        }
}

void trial_pool_backward(struct trial *t, struct trial_shape s)
{
    for (int kind = 0; kind < POOL_COUNT; kind++)
        for (int ragged = 0; ragged < 2; ragged++) {
            uint64_t rows, columns = s.columns * (kind == POOL_MEAN_SUM ? 2 : 1);
            struct segments of = segments_drawn(t, s.rows, ragged, &rows);
            struct matrix x = trial_coarse(t, TRIAL_INPUT, rows, s.columns); /* some are equal */
            struct matrix dy = input(t, s.rows, columns);
            op_pool_backward(trial_backend(t), kind, x, dy, of,
                             trial_matrix(t, TRIAL_OUTPUT, TRIAL_SAME, rows, s.columns));
        }
}

/* Rows of 0 .. most values, some of them of the same column. */
static struct sparse sparse_filled(struct trial *t, uint64_t rows, uint64_t most)
{
    uint64_t room = (most + 1) * rows;
    uint32_t *begin = calloc(rows + 1, sizeof *begin);
    uint32_t *column = malloc(room * sizeof *column);
    for (uint64_t r = 0; r < rows; r++)
        begin[r + 1] = begin[r] + (uint32_t)(trial_random(t) % (most + 1));
    for (uint64_t k = 0; k < room; k++)
        column[k] = (uint32_t)(trial_random(t) % rows);
    struct sparse a = {.begin = trial_given(t, TRIAL_INPUT, TRIAL_U32, begin, rows + 1),
                       .column = trial_given(t, TRIAL_INPUT, TRIAL_U32, column, room),
                       .value = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, room),
                       .rows = rows,
                       .columns = rows};
    free(begin), free(column);
    return a;
}

static struct sparse sparse_drawn(struct trial *t, uint64_t rows)
{
    return sparse_filled(t, rows, 4);
}

void trial_sparse_product(struct trial *t, struct trial_shape s)
{
    struct sparse a = sparse_drawn(t, s.rows);
    struct matrix x = input(t, s.rows, s.columns);
    const float *bias = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, s.columns);
    for (int way = 0; way < 4; way++)
        op_sparse_product(trial_backend(t), a, x, way & 1 ? bias : NULL, 0.5f * (float)(way >> 1),
                          trial_matrix(t, way >> 1 ? TRIAL_CHANGED : TRIAL_OUTPUT, TRIAL_SAME,
                                       s.rows, s.columns));
}

/* Dense, in 16 bits of the half or in float32 of numbers that it has; changed by an operation that
 * uses it up. */
static struct mixed mixed_drawn(struct trial *t, enum half half, int halves, struct trial_shape s)
{
    uint64_t count = s.rows * s.columns;
    float *x = trial_floats(t, TRIAL_CHANGED, TRIAL_SAME, count);
    uint16_t *h = halves ? trial_numbers(t, TRIAL_SCRATCH, TRIAL_SAME, TRIAL_U16, count) : NULL;
    if (halves)
        op_store_half(trial_backend(t), half, x, h, count);
    return mixed_at(h, x, s.rows, s.columns);
}

void trial_sparse_forward(struct trial *t, struct trial_shape s)
{
    uint64_t count = s.rows * s.columns;
    struct sparse a = sparse_drawn(t, s.rows);
    struct mixed wide = mixed_of(input(t, s.rows, s.columns));
    const float *bias = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, s.columns);
    const float *skip = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, count);
    for (int half = HALF_NONE; half < HALF_COUNT; half++)
        for (int kind = half ? ACTIVATION_COUNT - half : 0; kind <= ACTIVATION_COUNT; kind += 2) {
            enum trial_bar bar = half ? TRIAL_HALF : TRIAL_FLOAT;
            struct mixed x = half && kind < 3 ? mixed_drawn(t, (enum half)half, 1, s) : wide;
            float *y = trial_floats(t, TRIAL_CHANGED, bar, count);
            uint16_t *kept =
                half ? trial_numbers(t, TRIAL_SCRATCH, TRIAL_SAME, TRIAL_U16, count) : NULL;
            op_sparse_forward(trial_backend(t), a, x, bias, (float)(kind % 4 > 1),
                              kind % 3 ? skip : NULL, (enum activation)kind, (enum half)half, kept,
                              matrix_of(y, s.rows, s.columns));
            if (kept && kind % 2) /* alone, or what y has */
                op_sparse_forward(trial_backend(t), a, x, bias, 0, kind % 3 ? skip : NULL,
                                  (enum activation)kind, (enum half)half, kept,
                                  matrix_of(NULL, s.rows, s.columns));
            if (kept)
                op_load_half(trial_backend(t), (enum half)half, kept,
                             trial_floats(t, TRIAL_OUTPUT, bar, count), count);
        }
}

/* Dense of a half, as a result: what is there in 16 bits is told in float32. */
struct dense_result {
    struct mixed m;
    float *wide;
};

static struct dense_result result_made(struct trial *t, int half, int halves, uint64_t rows,
                                       uint64_t columns)
{
    uint64_t count = rows * columns;
    float *wide = trial_floats(t, TRIAL_OUTPUT, half ? TRIAL_HALF : TRIAL_FLOAT, count);
    uint16_t *h = trial_numbers(t, TRIAL_SCRATCH, TRIAL_SAME, TRIAL_U16, count);
    return (struct dense_result){mixed_at(halves ? h : NULL, wide, rows, columns), wide};
}

static void result_tell(struct trial *t, int half, const struct dense_result *r)
{
    if (r->m.halves)
        op_load_half(trial_backend(t), (enum half)half, r->m.halves, r->wide,
                     r->m.rows * r->m.columns);
}

typedef void convolution_trial(struct trial *t, struct trial_shape s, struct sparse a, int kind,
                               int half, uint64_t inputs, uint64_t ways);

/* In 16 bits and multiples of eight a GPU makes both products of one direction in one launch, some
 * columns and some of what is added up at a time: more than those, fewer, and whole ones; so with
 * the entries of a row, and of some rows. */
static void convolution_tiles(struct trial *t, struct trial_shape s, convolution_trial *tried,
                              uint64_t ways)
{
    static const struct {
        uint64_t rows, columns, inputs, entries;
    } sizes[] = {
        {66, 136, 152, 25}, {67, 8, 8, 4}, {131, 264, 272, 4}, {64, 280, 40, 9}, {70, 512, 256, 3}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && s.rows == 9; i++) {
        struct sparse a = sparse_filled(t, s.rows = sizes[i].rows, sizes[i].entries);
        s.columns = sizes[i].columns;
        for (int half = HALF_F16; half < HALF_COUNT; half++) {
            int kind = (i + (uint64_t)half) % 3 ? ACTIVATION_RELU : ACTIVATION_COUNT;
            tried(t, s, a, kind, half, sizes[i].inputs, trial_random(t) | ways);
        }
        s.rows = 9;
    }
}

/* From `inputs` columns. */
static void convolution_there(struct trial *t, struct trial_shape s, struct sparse a, int kind,
                              int half, uint64_t inputs, uint64_t ways)
{
    struct trial_shape of_x = s, of_w = s;
    of_x.columns = of_w.columns = inputs, of_w.rows = s.columns;
    struct mixed x = mixed_drawn(t, (enum half)half, ways & 1, of_x);
    struct mixed w = mixed_drawn(t, (enum half)half, 1, of_w);
    const float *bias = trial_floats(t, TRIAL_INPUT, TRIAL_SAME, s.columns);
    struct dense_result sums = result_made(t, half, 1, s.rows, s.columns);
    struct dense_result kept = result_made(t, half, 1, s.rows, s.columns);
    float *y = trial_floats(t, TRIAL_OUTPUT, TRIAL_HALF, s.rows * s.columns);
    int wanted = ways & 2 || kind % 2;
    op_convolution_forward(trial_backend(t), a, x, w, bias, (enum activation)kind, (enum half)half,
                           wanted && ways & 4 ? NULL : kept.m.halves, sums.m,
                           matrix_of(wanted ? y : NULL, s.rows, s.columns));
    if (wanted && ways & 4)
        op_zero(trial_backend(t), kept.wide, s.rows * s.columns);
    else
        result_tell(t, half, &kept);
    if (!wanted)
        op_zero(trial_backend(t), y, s.rows * s.columns);
    op_zero(trial_backend(t), sums.wide, s.rows * s.columns);
}

void trial_convolution_forward(struct trial *t, struct trial_shape s)
{
    struct sparse a = sparse_drawn(t, s.rows);
    for (int half = HALF_F16; half < HALF_COUNT; half++)
        for (int kind = half; kind <= ACTIVATION_COUNT; kind += ACTIVATION_COUNT - half)
            convolution_there(t, s, a, kind, half, s.columns % 4 ? 7 : 12, trial_random(t));
    convolution_tiles(t, s, convolution_there, 0);
}

enum { WAYS_NARROW = 2 + 4 + 8 + 16 + 32 + 64 };

/* With `inputs` columns of x; half, ways: which operands are in 16 bits. */
static void convolution_back(struct trial *t, struct trial_shape s, struct sparse a, int kind,
                             int half, uint64_t inputs, uint64_t ways)
{
    struct trial_shape of_x = s, of_w = s;
    enum trial_bar bar = half ? TRIAL_HALF : TRIAL_ROWS;
    int adds = ways & 1, narrow = half && ways & 2, dx = ways >> 2 & 1;
    enum trial_role use = adds ? TRIAL_CHANGED : TRIAL_OUTPUT;
    of_x.columns = of_w.columns = inputs, of_w.rows = s.columns;
    struct mixed kept = mixed_drawn(t, (enum half)half, half, s);
    struct mixed d = mixed_drawn(t, (enum half)half, half && ways & 8, s);
    struct mixed x = mixed_drawn(t, (enum half)half, narrow && ways & 16, of_x);
    struct mixed w = mixed_drawn(t, (enum half)half, narrow && ways & 32, of_w);
    struct dense_result g = result_made(t, half, narrow, s.rows, s.columns);
    struct dense_result of_dx = result_made(t, half, narrow && ways & 64, s.rows, inputs);
    struct matrix dw = trial_matrix(t, use, bar, s.columns, inputs);
    if (!dx)
        of_dx.m.at = NULL, of_dx.m.halves = NULL;
    struct convolution_back b = {.a = a,
                                 .half = (enum half)half,
                                 .behind = (enum activation)kind,
                                 .kept = kept,
                                 .d = d,
                                 .g = g.m,
                                 .x = x,
                                 .w = w,
                                 .turn = {0, 1},
                                 .adds = adds,
                                 .dw = dw,
                                 .db = trial_floats(t, use, bar, s.columns),
                                 .before = ACTIVATION_COUNT,
                                 .dx = of_dx.m};
    if (x.halves && of_dx.m.halves && ways >> 7 & 1)
        b.before = ways >> 8 & 1 ? ACTIVATION_RELU : ACTIVATION_TANH;
    op_convolution_backward(trial_backend(t), b);
    result_tell(t, half, &g);
    result_tell(t, half, &of_dx);
    if (d.at) /* used up, by the backends in ways of their own */
        op_zero(trial_backend(t), d.at, s.rows * s.columns);
    if (!dx)
        op_zero(trial_backend(t), of_dx.wide, s.rows * inputs);
}

/* Products of many rows are a GPU's own way, and an emulated one's from fewer on: one launch makes
 * both gradients, or dw of a few inputs alone. */
static void convolution_back_large(struct trial *t, struct trial_shape s)
{
    s.rows = s.rows == TRIAL_ROWS_LARGE ? 6200 : 132;
    s.columns = 128;
    struct sparse a = sparse_drawn(t, s.rows);
    for (uint64_t dx = 0; dx < 2; dx++) {
        convolution_back(t, s, a, ACTIVATION_RELU, HALF_NONE, 64, 1 | dx << 2);
        convolution_back(t, s, a, ACTIVATION_TANH, HALF_NONE, dx ? 132 : 32, dx << 2);
    }
}

void trial_convolution_backward(struct trial *t, struct trial_shape s)
{
    struct sparse a = sparse_drawn(t, s.rows);
    for (int half = HALF_NONE; half < HALF_COUNT; half++)
        for (int kind = half; kind <= ACTIVATION_COUNT; kind += ACTIVATION_COUNT - half)
            convolution_back(t, s, a, kind, half, s.columns % 4 ? 7 : 12, trial_random(t));
    if (s.rows == 560 || s.rows == TRIAL_ROWS_LARGE)
        convolution_back_large(t, s);
    convolution_tiles(t, s, convolution_back, WAYS_NARROW);
}

/* ---- tables ---- */

enum { TOKENS = 40, TOKEN_FIRST = 11, TOKEN_ROWS = 23 };

static const float *tokens_drawn(struct trial *t, uint64_t count)
{
    float *tokens = malloc(count * sizeof *tokens);
    for (uint64_t i = 0; i < count; i++)
        tokens[i] = (float)(trial_random(t) % TOKENS);
    const float *given = trial_given(t, TRIAL_INPUT, TRIAL_F32, tokens, count);
    free(tokens);
    return given;
}

void trial_embedding_forward(struct trial *t, struct trial_shape s)
{
    const float *tokens = tokens_drawn(t, s.rows);
    struct matrix w = input(t, TOKENS, s.columns);
    op_embedding_forward(trial_backend(t), tokens, w,
                         trial_matrix(t, TRIAL_OUTPUT, TRIAL_SAME, s.rows, s.columns));
}

void trial_embedding_add(struct trial *t, struct trial_shape s)
{
    const float *tokens = tokens_drawn(t, s.rows);
    struct matrix dy = input(t, s.rows, s.columns);
    op_embedding_add(trial_backend(t), tokens, TOKEN_FIRST, dy,
                     trial_matrix(t, TRIAL_CHANGED, TRIAL_SAME, TOKEN_ROWS, s.columns));
}

/* Scratch of the squares of y[rows, columns]. */
static struct squares_work work_of(struct trial *t, uint64_t rows, uint64_t columns)
{
    return (struct squares_work){
        trial_floats(t, TRIAL_SCRATCH, TRIAL_SAME, SQUARES_PACKED),
        trial_floats(t, TRIAL_SCRATCH, TRIAL_SAME, rows * columns),
    };
}

void trial_embedding_square_add(struct trial *t, struct trial_shape s)
{
    enum { SAMPLES = 3 };
    const float *tokens = tokens_drawn(t, SAMPLES * s.rows);
    struct matrix dy = input(t, SAMPLES * s.rows, s.columns);
    struct samples of = {dy, SAMPLES, s.rows * dy.stride, NULL};
    of.first.rows = s.rows;
    struct squares_work work = work_of(t, TOKEN_ROWS, s.columns);
    op_embedding_square_add(trial_backend(t), tokens, of, TOKEN_FIRST, work,
                            trial_matrix(t, TRIAL_CHANGED, TRIAL_FLOAT, TOKEN_ROWS, s.columns));
}

/* ---- squared gradients ---- */

enum { SAMPLES = 5, STEPS = 4 };

/* Samples of a matrix [columns]: one behind the other, their steps side by side, or of any number
 * of steps. */
static struct samples samples_drawn(struct trial *t, int way, const uint64_t *begin, uint64_t rows,
                                    uint64_t columns)
{
    struct matrix all = input(t, rows, columns);
    struct samples of = {all, SAMPLES, way == 1 ? all.stride : STEPS * all.stride, begin};
    of.first.rows = STEPS;
    of.first.stride *= way == 1 ? SAMPLES : 1;
    return of;
}

void trial_products_square_add(struct trial *t, struct trial_shape s)
{
    uint64_t d = least(s.rows, 67), x = least(s.columns, 300);
    for (int way = 0; way < 3; way++) {
        uint64_t rows = SAMPLES * STEPS;
        const uint64_t *begin = way == 2 ? begin_drawn(t, SAMPLES, STEPS, &rows) : NULL;
        struct samples ds = samples_drawn(t, way, begin, rows, d);
        struct samples xs = samples_drawn(t, way, begin, rows, x);
        struct squares_work work = work_of(t, d, x);
        op_products_square_add(trial_backend(t), ds, xs, work,
                               trial_matrix(t, TRIAL_CHANGED, TRIAL_FLOAT, d, x));
    }
}

void trial_sums_square_add(struct trial *t, struct trial_shape s)
{
    uint64_t d = least(s.columns, 3000);
    for (int way = 0; way < 3; way++) {
        uint64_t rows = SAMPLES * STEPS;
        const uint64_t *begin = way == 2 ? begin_drawn(t, SAMPLES, STEPS, &rows) : NULL;
        struct samples ds = samples_drawn(t, way, begin, rows, d);
        struct squares_work work = work_of(t, d, 1);
        op_sums_square_add(trial_backend(t), ds, work,
                           trial_floats(t, TRIAL_CHANGED, TRIAL_FLOAT, d));
    }
}

void trial_squares_product_add(struct trial *t, struct trial_shape s)
{
    uint64_t rows = least(s.rows, 300), columns = least(s.columns, 300);
    struct matrix d = input(t, rows, 37), x = input(t, rows, columns);
    struct squares_work work = work_of(t, 37, columns);
    op_squares_product_add(trial_backend(t), d, x, work,
                           trial_matrix(t, TRIAL_CHANGED, TRIAL_FLOAT, 37, columns));
}

/* ---- 8 bits ---- */

static struct int8_matrix quantised(struct trial *t, uint64_t rows, uint64_t columns)
{
    uint64_t stride = (columns + INT8_COLUMNS - 1) / INT8_COLUMNS * INT8_COLUMNS;
    uint64_t count = (rows + INT8_OUTPUTS - 1) / INT8_OUTPUTS * INT8_OUTPUTS * stride;
    uint8_t *zeros = calloc(count, 1);
    struct int8_matrix q = {trial_given(t, TRIAL_CHANGED, TRIAL_U32, zeros, count / 4),
                            trial_floats(t, TRIAL_OUTPUT, TRIAL_SAME, rows), rows, columns, stride};
    struct matrix w = input(t, rows, columns);
    op_quantise(trial_backend(t), w, q);
    free(zeros);
    return q;
}

void trial_quantise(struct trial *t, struct trial_shape s)
{
    quantised(t, s.rows, s.columns);
}

void trial_product_int8(struct trial *t, struct trial_shape s)
{
    uint64_t outputs = least(s.rows, 37), rows = least(s.rows, 2 * INT8_ROWS + 2);
    struct int8_matrix w = quantised(t, outputs, s.columns);
    struct matrix x = input(t, rows, s.columns);
    struct int8_work work = {
        trial_numbers(t, TRIAL_SCRATCH, TRIAL_SAME, TRIAL_U32, INT8_ROWS * w.stride / 2),
        trial_floats(t, TRIAL_SCRATCH, TRIAL_SAME, INT8_ROWS)};
    for (int beta = 0; beta < 2; beta++)
        op_product_int8(
            trial_backend(t), x, w, work, (float)beta,
            trial_matrix(t, beta ? TRIAL_CHANGED : TRIAL_OUTPUT, TRIAL_SAME, rows, outputs));
}
