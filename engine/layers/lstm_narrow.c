/* lstm_narrow.c - an LSTM on a device apart that computes with numbers of 16 bits: see lstm.c for
 * the mathematics.
 *
 * All that is kept is so: x (padded to whole groups of PAD values), h, c and the gates, whose place
 * their gradients take, rounded; products read it as it is and add up in float32. A unit's four
 * gates lie together, in the weights' rows as well.
 *
 * The recurrence of one layer takes few of a device's processors and much time. So steps go in
 * segments, a layer's beside the one before it of the layer above, and the products beside both, in
 * lanes (engine/ops.h). Which reads what:
 *
 *   forward
 *     main      x to 16 bits; sums of a segment   awaits the steps whose h they read, and those
 *               into one of two places            that read what had the place before
 *     layer's   steps of the segment              awaits its sums
 *   backward
 *     layer's   steps of a segment                awaits its dh, but the last layer, whose dh is
 *                                                 there from the start
 *     main      dh of the layer below             awaits the steps, over whose dh it is written
 *     products  gradients of the weights          awaits the steps
 *     main      those of the biases, at last      awaits the steps of the first segment
 *
 * Layers alternate between two lanes. A mark stands for the steps, another for the products, of an
 * even or odd segment of an even or odd layer: of what one of them is set for again, all was asked
 * of one lane, and the later is behind the earlier.
 */
#include "engine/layers/lstm.h"

#include "engine/memory.h"
#include "proto/err.h"

/* Values that products read best; slots: places of sums, and marks. */
enum { PAD = 8, SLOTS = 4, SEGMENTS = 8 };
enum { MARK_FORK, MARK_JOIN, MARK_STEPS = MARK_JOIN + LANES, MARK_PRODUCT = MARK_STEPS + SLOTS };
_Static_assert((int)MARK_PRODUCT + (int)SLOTS <= (int)LANE_MARKS, "a mark each");

/* What is kept of one layer: [steps, rows, ..]. */
struct kept {
    uint16_t *weights; /* w_ih [hidden, 4, in padded] */
    uint16_t *packed;  /* w_hh */
    uint16_t *x;       /* padded */
    uint16_t *gates, *c, *h;
};

/* Scratch of one layer: forward c; backward the gradients at c and h, the sums of the gates'
 * gradients [rows, 4 hidden], and those of the weights in the order of the gates. */
struct state {
    float *dc, *dr, *sums, *d_ih, *d_hh;
};

struct wave {
    const struct layer_instance *l;
    const struct layer_pass *p;
    struct lstm_shape s;
    uint64_t segment_steps, segments;
    struct kept kept[LSTM_LAYERS_MAX];
    struct state state[LSTM_LAYERS_MAX];
    float *sums[SLOTS]; /* [segment_steps, rows, hidden, 4] */
    int used[SLOTS];    /* steps have read them */
    float *dh;          /* of all layers but the last [steps, rows, hidden] */
    float *dx;          /* of the input [steps, rows, in] */
};

int lstm_narrows(const struct layer_instance *l)
{
    struct lstm_shape s = lstm_shape_of(l);
    return s.hidden <= LSTM_NARROW_HIDDEN_MAX && s.hidden % LSTM_NARROW_UNITS == 0 &&
           s.directions == 1 && l->keys[KEY_DROPOUT] == 0 && !l->carried_count;
}

static uint64_t padded_in(const struct layer_instance *l, uint64_t layer)
{
    return (lstm_in(l, layer) + PAD - 1) / PAD * PAD;
}

/* Steps of a segment: with fewer of them launches cost more, with more the lanes wait longer for
 * one another. (On an H200 5 to 12 segments of 360 steps were within 2 %.) */
static uint64_t segment_steps(const struct layer_instance *l)
{
    return (l->steps + SEGMENTS - 1) / SEGMENTS;
}

static uint64_t slots_of(const struct layer_instance *l)
{
    return lstm_shape_of(l).layers > 1 ? SLOTS : SLOTS / 2;
}

/* Numbers of 16 bits are even in number. */
uint64_t lstm_narrow_saved(const struct layer_instance *l, uint64_t rows)
{
    struct lstm_shape s = lstm_shape_of(l);
    uint64_t weights = 0, row = s.steps * (padded_in(l, 0) + s.layers * 6 * s.hidden);
    for (uint64_t i = 0; i < s.layers; i++)
        weights += lstm_narrow_weights_count(s.hidden) + 4 * s.hidden * padded_in(l, i);
    return size_plus(weights / 2, size_times(rows, row / 2));
}

uint64_t lstm_narrow_scratch(const struct layer_instance *l, uint64_t rows)
{
    struct lstm_shape s = lstm_shape_of(l);
    uint64_t forward = slots_of(l) * segment_steps(l) * 4 * s.hidden + s.layers * s.hidden;
    uint64_t backward = s.layers * 6 * s.hidden + (s.layers > 1 ? s.steps * s.hidden : 0);
    uint64_t weights = 0;
    backward += l->first ? s.steps * l->values : 0;
    for (uint64_t i = 0; i < s.layers; i++)
        weights += 4 * s.hidden * (padded_in(l, i) + s.hidden);
    forward = size_times(rows, forward);
    backward = size_plus(size_times(rows, backward), weights);
    return forward > backward ? forward : backward;
}

static void kept_place(struct wave *w)
{
    uint16_t *at = (uint16_t *)w->p->saved;
    uint64_t cells = w->s.steps * w->p->rows * w->s.hidden;
    for (uint64_t i = 0; i < w->s.layers; i++) {
        w->kept[i].packed = at;
        w->kept[i].weights = at + lstm_narrow_weights_count(w->s.hidden);
        at = w->kept[i].weights + 4 * w->s.hidden * padded_in(w->l, i);
    }
    for (uint64_t i = 0; i < w->s.layers; i++) {
        struct kept *k = &w->kept[i];
        k->x = i ? w->kept[i - 1].h : at;
        at += i ? 0 : w->s.steps * w->p->rows * padded_in(w->l, 0);
        k->gates = at;
        k->c = at + 4 * cells;
        k->h = at + 5 * cells;
        at += 6 * cells;
    }
}

static struct wave wave_of(const struct layer_instance *l, const struct layer_pass *p)
{
    struct wave w = {.l = l, .p = p, .s = lstm_shape_of(l), .segment_steps = segment_steps(l)};
    w.segments = (w.s.steps + w.segment_steps - 1) / w.segment_steps;
    kept_place(&w);
    return w;
}

/* ---- lanes ---- */

static void lane_take(const struct wave *w, unsigned lane)
{
    if (w->p->backend->lane_take)
        w->p->backend->lane_take(lane);
}

static void lane_mark(const struct wave *w, unsigned mark)
{
    if (w->p->backend->lane_mark)
        w->p->backend->lane_mark(mark);
}

static void lane_await(const struct wave *w, unsigned mark)
{
    if (w->p->backend->lane_await)
        w->p->backend->lane_await(mark);
}

/* The lane of a layer's steps. */
static unsigned lane_of(uint64_t layer)
{
    return layer % 2 ? LANE_SECOND : LANE_FIRST;
}

static unsigned slot_of(uint64_t layer, uint64_t segment)
{
    return (unsigned)(layer % 2 * 2 + segment % 2);
}

/* All lanes go on behind what main has done until here, */
static void lanes_fork(const struct wave *w)
{
    lane_mark(w, MARK_FORK);
    for (unsigned lane = LANE_MAIN + 1; lane < LANES; lane++) {
        lane_take(w, lane);
        lane_await(w, MARK_FORK);
    }
    lane_take(w, LANE_MAIN);
}

/* and main behind what all of them have. */
static void lanes_join(const struct wave *w)
{
    for (unsigned lane = LANE_MAIN + 1; lane < LANES; lane++) {
        lane_take(w, lane);
        lane_mark(w, MARK_JOIN + lane);
    }
    lane_take(w, LANE_MAIN);
    for (unsigned lane = LANE_MAIN + 1; lane < LANES; lane++)
        lane_await(w, MARK_JOIN + lane);
}

/* ---- a segment of a layer ---- */

static struct lstm_narrow steps_of(const struct wave *w, uint64_t layer, uint64_t segment)
{
    uint64_t first = segment * w->segment_steps, left = w->s.steps - first;
    uint64_t cells = first * w->p->rows * w->s.hidden;
    const struct kept *k = &w->kept[layer];
    return (struct lstm_narrow){.steps = left < w->segment_steps ? left : w->segment_steps,
                                .rows = w->p->rows,
                                .hidden = w->s.hidden,
                                .half = w->p->half,
                                .begins = segment == 0,
                                .gates = k->gates + 4 * cells,
                                .c = k->c + cells,
                                .h = k->h + cells};
}

/* The x of its steps. */
static struct halves x_of(const struct wave *w, uint64_t layer, uint64_t segment)
{
    struct lstm_narrow n = steps_of(w, layer, segment);
    uint64_t width = padded_in(w->l, layer);
    return half_matrix_of(w->kept[layer].x + segment * w->segment_steps * n.rows * width,
                          n.steps * n.rows, width);
}

static struct halves weights_ih(const struct wave *w, uint64_t layer)
{
    return half_matrix_of(w->kept[layer].weights, 4 * w->s.hidden, padded_in(w->l, layer));
}

/* ---- forward ---- */

static void forward_place(struct wave *w)
{
    float *at = w->p->scratch;
    for (uint64_t i = 0; i < slots_of(w->l);
         i++, at += w->segment_steps * w->p->rows * 4 * w->s.hidden)
        w->sums[i] = at;
    for (uint64_t i = 0; i < w->s.layers; i++, at += w->p->rows * w->s.hidden)
        w->state[i].dc = at;
}

/* Rows of w_ih by unit; w_hh is packed where it is read. */
static void weights_narrow(const struct wave *w, uint64_t from, uint64_t end)
{
    for (uint64_t i = from; i < end; i++) {
        struct lstm_part part = lstm_part_of(w->l, i, 0);
        lane_take(w, lane_of(i));
        op_lstm_narrow_weights(
            w->p->backend, w->p->half,
            matrix_of(w->p->weights + part.at[WEIGHT_HH], 4 * w->s.hidden, w->s.hidden),
            w->kept[i].packed);
        lane_take(w, LANE_MAIN);
        op_steps_narrow(w->p->backend, w->p->half, w->p->weights + part.at[WEIGHT_IH],
                        w->s.hidden * part.in, 4, w->s.hidden, part.in, weights_ih(w, i));
    }
}

static void sums_make(struct wave *w, uint64_t layer, uint64_t segment)
{
    const struct layer_pass *p = w->p;
    unsigned slot = slot_of(layer, segment);
    struct halves x = x_of(w, layer, segment);
    lane_take(w, LANE_MAIN);
    if (w->used[slot])
        lane_await(w, MARK_STEPS + slot);
    if (layer)
        lane_await(w, MARK_STEPS + slot_of(layer - 1, segment));
    else
        op_steps_narrow(p->backend, p->half, p->input + segment * w->segment_steps * w->l->values,
                        w->l->inputs, p->rows, x.rows / p->rows, w->l->values, x);
    op_product_half(p->backend, p->half, x, 0, weights_ih(w, layer), 1, 0,
                    matrix_of(w->sums[slot], x.rows, 4 * w->s.hidden));
    lane_mark(w, MARK_PRODUCT + slot);
}

static void steps_forward(struct wave *w, uint64_t layer, uint64_t segment)
{
    unsigned slot = slot_of(layer, segment);
    struct lstm_part part = lstm_part_of(w->l, layer, 0);
    struct lstm_cells out = {NULL, w->s.hidden, w->l->outputs};
    if (layer + 1 == w->s.layers)
        out.at = w->p->output + segment * w->segment_steps * w->s.hidden;
    lane_take(w, lane_of(layer));
    lane_await(w, MARK_PRODUCT + slot);
    op_lstm_narrow_forward(w->p->backend, steps_of(w, layer, segment), w->sums[slot],
                           w->p->parameters + part.at[BIAS_IH], w->p->parameters + part.at[BIAS_HH],
                           w->kept[layer].packed, w->state[layer].dc, out);
    lane_mark(w, MARK_STEPS + slot);
    w->used[slot] = 1;
}

void lstm_narrow_forward(const struct layer_instance *l, const struct layer_pass *p)
{
    struct wave w = wave_of(l, p);
    forward_place(&w);
    lanes_fork(&w);
    weights_narrow(&w, 0, 1);
    sums_make(&w, 0, 0);
    weights_narrow(&w, 1, w.s.layers);
    for (uint64_t time = 0; time < w.segments + w.s.layers - 1; time++) {
        for (uint64_t layer = 0; layer < w.s.layers && layer <= time; layer++) {
            if (time - layer >= w.segments)
                continue;
            if (layer)
                sums_make(&w, layer, time - layer);
            steps_forward(&w, layer, time - layer);
        }
        if (time + 1 < w.segments)
            sums_make(&w, 0, time + 1);
    }
    lanes_join(&w);
}

/* ---- backward ---- */

static void backward_place(struct wave *w)
{
    float *at = w->p->scratch;
    uint64_t step = w->p->rows * w->s.hidden;
    for (uint64_t i = 0; i < w->s.layers; i++, at += 6 * step) {
        w->state[i].dc = at;
        w->state[i].dr = at + step;
        w->state[i].sums = at + 2 * step;
    }
    for (uint64_t i = 0; i < w->s.layers; i++) {
        w->state[i].d_ih = at;
        at += 4 * w->s.hidden * padded_in(w->l, i);
        w->state[i].d_hh = at;
        at += 4 * w->s.hidden * w->s.hidden;
    }
    w->dh = at;
    w->dx = w->s.layers > 1 ? at + w->s.steps * step : at;
}

static void steps_backward(const struct wave *w, uint64_t layer, uint64_t segment)
{
    const struct state *to = &w->state[layer];
    uint64_t first = segment * w->segment_steps, step = w->p->rows * w->s.hidden;
    struct lstm_cells dh = {w->dh + first * step, step, w->s.hidden};
    lane_take(w, lane_of(layer));
    if (layer + 1 == w->s.layers)
        dh = (struct lstm_cells){w->p->d_output + first * w->s.hidden, w->s.hidden, w->l->outputs};
    else
        lane_await(w, MARK_PRODUCT + slot_of(layer + 1, segment));
    op_lstm_narrow_backward(w->p->backend, steps_of(w, layer, segment), w->kept[layer].packed, dh,
                            to->dc, to->dr, to->sums);
    lane_mark(w, MARK_STEPS + slot_of(layer, segment));
}

/* The gradients at the gates' sums of a segment, from its step `from` on. */
static struct halves gradients_of(const struct wave *w, uint64_t layer, uint64_t segment,
                                  uint64_t from)
{
    struct lstm_narrow n = steps_of(w, layer, segment);
    return half_matrix_of(n.gates + from * n.rows * 4 * n.hidden, (n.steps - from) * n.rows,
                          4 * n.hidden);
}

/* dh of the layer below, or dx. */
static void below_make(const struct wave *w, uint64_t layer, uint64_t segment)
{
    struct halves d = gradients_of(w, layer, segment, 0), weights = weights_ih(w, layer);
    uint64_t row = segment * w->segment_steps * w->p->rows;
    weights.columns = lstm_in(w->l, layer);
    lane_take(w, LANE_MAIN);
    lane_await(w, MARK_STEPS + slot_of(layer, segment));
    op_product_half(
        w->p->backend, w->p->half, d, 0, weights, 0, 0,
        matrix_of((layer ? w->dh : w->dx) + row * weights.columns, d.rows, weights.columns));
    lane_mark(w, MARK_PRODUCT + slot_of(layer, segment));
}

/* The last segment writes what the others add to. */
static void weights_add(const struct wave *w, uint64_t layer, uint64_t segment)
{
    const struct layer_pass *p = w->p;
    const struct state *to = &w->state[layer];
    struct lstm_narrow n = steps_of(w, layer, segment);
    uint64_t skip = (uint64_t)n.begins, width = w->s.hidden;
    struct halves d = gradients_of(w, layer, segment, 0);
    float adds = segment + 1 < w->segments;
    lane_take(w, LANE_PRODUCTS);
    lane_await(w, MARK_STEPS + slot_of(layer, segment));
    op_product_half(p->backend, p->half, d, 1, x_of(w, layer, segment), 0, adds,
                    matrix_of(to->d_ih, 4 * width, padded_in(w->l, layer)));
    d = gradients_of(w, layer, segment, skip);
    if (d.rows)
        op_product_half(p->backend, p->half, d, 1,
                        half_matrix_of(skip ? n.h : n.h - n.rows * width, d.rows, width), 0, adds,
                        matrix_of(to->d_hh, 4 * width, width));
    else if (!adds) /* one step in all */
        op_zero(p->backend, to->d_hh, 4 * width * width);
}

/* When the first segment has gone back: to the order of the tensors. */
static void gradient_finish(const struct wave *w, uint64_t layer)
{
    const struct layer_pass *p = w->p;
    const struct state *from = &w->state[layer];
    struct lstm_part part = lstm_part_of(w->l, layer, 0);
    uint64_t rows = 4 * w->s.hidden;
    struct matrix ih = matrix_of(from->d_ih, rows, padded_in(w->l, layer));
    float *g = p->gradient;
    lane_take(w, LANE_PRODUCTS);
    op_rows_regroup(p->backend, matrix_columns(ih, 0, part.in), 4,
                    matrix_of(g + part.at[WEIGHT_IH], rows, part.in));
    op_rows_regroup(p->backend, matrix_of(from->d_hh, rows, w->s.hidden), 4,
                    matrix_of(g + part.at[WEIGHT_HH], rows, w->s.hidden));
    lane_take(w, LANE_MAIN);
    lane_await(w, MARK_STEPS + slot_of(layer, 0));
    op_column_sums(p->backend, matrix_of(from->sums, p->rows, rows), 0, g + part.at[BIAS_IH]);
    op_copy(p->backend, g + part.at[BIAS_IH], g + part.at[BIAS_HH], rows);
}

static void segment_backward(const struct wave *w, uint64_t layer, uint64_t segment)
{
    steps_backward(w, layer, segment);
    if (layer || w->p->d_input)
        below_make(w, layer, segment);
    if (w->p->gradient)
        weights_add(w, layer, segment);
    if (w->p->gradient && segment == 0)
        gradient_finish(w, layer);
}

void lstm_narrow_backward(const struct layer_instance *l, const struct layer_pass *p)
{
    struct wave w = wave_of(l, p);
    uint64_t last = w.s.layers - 1;
    ensure(!p->adds && (l->first || !p->d_input)); /* the scratch relies on it */
    backward_place(&w);
    op_zero(p->backend, w.state[0].dc, w.s.layers * 6 * p->rows * w.s.hidden);
    lanes_fork(&w);
    for (uint64_t time = 0; time < w.segments + last; time++)
        for (uint64_t i = 0; i <= last && i <= time; i++)
            if (time - i < w.segments)
                segment_backward(&w, last - i, w.segments - 1 - (time - i));
    lanes_join(&w);
    if (p->d_input)
        op_steps_swap(p->backend, w.dx, p->rows * l->values, w.s.steps, p->rows, l->values,
                      p->d_input);
}
