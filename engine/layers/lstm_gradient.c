/* lstm_gradient.c - the gradients of an LSTM's parameters, block by block, once the gates are the
 * gradients at their sums; of all rows of a slice, or of part after part of them. */
#include "engine/layers/lstm_memory.h"
#include "proto/err.h"

/* Of `steps` steps from `first` on those that have an h before them, *count of them from the
 * *skip-th on: all but the first that the direction takes, unless that has one, too. Returns the
 * step whose h is before the first of them. */
static uint64_t recurrent_steps(const struct layer_instance *l, uint64_t direction, uint64_t first,
                                uint64_t steps, uint64_t *skip, uint64_t *count)
{
    int begins = !l->carried_count && (direction ? first + steps == l->steps : first == 0);
    *skip = begins && !direction;
    *count = steps - (uint64_t)begins;
    return direction ? first + *skip + 1 : first + *skip - 1;
}

void lstm_recurrence_of(const struct layer_instance *l, const struct layer_pass *p,
                        const float *gates, const float *h, uint64_t direction, uint64_t first,
                        uint64_t steps, struct matrix *d, struct matrix *before)
{
    struct lstm_shape s = lstm_shape_of(l);
    uint64_t width = s.directions * s.hidden, skip, left;
    uint64_t from = recurrent_steps(l, direction, first, steps, &skip, &left);
    const float *h_before = left ? h + from * p->rows * width : h;
    *d = matrix_of(gates + skip * p->rows * 4 * s.hidden, left * p->rows, 4 * s.hidden);
    *before =
        matrix_columns(matrix_of(h_before, left * p->rows, width), direction * s.hidden, s.hidden);
}

/* The gradient of both biases, of a block whose sum is at ih if it is the first one, else at hh; on
 * a device apart that of all blocks, when they are done. */
static void biases_add(const struct layer_instance *l, const struct layer_pass *p,
                       const struct lstm_part *w, const struct lstm_block *b, int later)
{
    float *ih = p->gradient + w->at[BIAS_IH], *hh = p->gradient + w->at[BIAS_HH];
    uint64_t hidden = lstm_shape_of(l).hidden;
    if (lstm_is_apart(p) && b->number == 0)
        op_column_sums(p->backend, matrix_of(lstm_scratch_sums(l, p), p->rows, 4 * hidden), 0, ih);
    if (!lstm_is_apart(p) && later)
        op_add(p->backend, hh, ih, w->count[BIAS_IH]);
    if (b->number == 0)
        op_copy(p->backend, ih, hh, w->count[BIAS_HH]);
}

/* Where a block's sum for both biases goes. */
static float *bias_sum(const struct layer_pass *p, const struct lstm_part *w, int later)
{
    return p->gradient + w->at[later ? BIAS_HH : BIAS_IH];
}

void lstm_gradient_add(const struct layer_instance *l, const struct layer_pass *p,
                       const struct lstm_place *at, uint64_t layer, uint64_t direction,
                       const struct lstm_block *b)
{
    struct lstm_shape s = lstm_shape_of(l);
    struct lstm_part w = lstm_part_of(l, layer, direction);
    struct matrix sums = matrix_of(b->gates, b->steps * p->rows, 4 * s.hidden), d, h;
    float *g = p->gradient;
    int later = p->adds || b->number + 1 < lstm_blocks(l, p);
    op_product(p->backend, sums, 1, matrix_of(b->x, b->steps * p->rows, w.in), 0, (float)later,
               matrix_of(g + w.at[WEIGHT_IH], 4 * s.hidden, w.in));
    lstm_recurrence_of(l, p, b->gates, at->h, direction, b->first, b->steps, &d, &h);
    if (d.rows)
        op_product(p->backend, d, 1, h, 0, (float)later,
                   matrix_of(g + w.at[WEIGHT_HH], 4 * s.hidden, s.hidden));
    else if (!later) /* one step in all */
        op_zero(p->backend, g + w.at[WEIGHT_HH], w.count[WEIGHT_HH]);
    if (!lstm_is_apart(p))
        op_column_sums(p->backend, sums, 0, bias_sum(p, &w, later));
    biases_add(l, p, &w, b, later);
}

/* Rows of a part in `steps` steps of an array [steps, p->rows, width], one behind the other. */
static struct matrix part_gather(const struct layer_pass *p, const struct layer_pass *part,
                                 const float *from, uint64_t width, uint64_t steps, float *to)
{
    uint64_t row = part->row_first - p->row_first;
    for (uint64_t t = 0; t < steps; t++)
        op_copy(p->backend, from + (t * p->rows + row) * width, to + t * part->rows * width,
                part->rows * width);
    return matrix_of(to, steps * part->rows, width);
}

/* gradient_add of some of the rows, to the bits that they have as a slice of their own: products
 * and sums go on where those of the steps before ended. */
static void part_gradient_add(const struct layer_instance *l, const struct layer_pass *p,
                              const struct layer_pass *part, const struct lstm_place *at,
                              uint64_t layer, uint64_t direction, const struct lstm_block *b)
{
    struct lstm_shape s = lstm_shape_of(l);
    struct lstm_part w = lstm_part_of(l, layer, direction);
    uint64_t most = lstm_part_steps(l, part->rows), width = s.directions * s.hidden, step, skip,
             left;
    float *gates = lstm_scratch_part(l, p), *x = gates + most * part->rows * 4 * s.hidden;
    float *h = x + most * part->rows * w.in, *g = p->gradient;
    int later = part->adds || b->number + 1 < lstm_blocks(l, p), recurred = later;
    for (uint64_t t = 0; t < b->steps; t += most) {
        uint64_t n = b->steps - t < most ? b->steps - t : most;
        struct matrix sums =
            part_gather(p, part, b->gates + t * p->rows * 4 * s.hidden, 4 * s.hidden, n, gates);
        op_product(p->backend, sums, 1, part_gather(p, part, b->x + t * p->rows * w.in, w.in, n, x),
                   0, (float)(later || t > 0), matrix_of(g + w.at[WEIGHT_IH], 4 * s.hidden, w.in));
        op_column_sums(p->backend, sums, t > 0, bias_sum(p, &w, later));
        step = recurrent_steps(l, direction, b->first + t, n, &skip, &left);
        if (!left)
            continue;
        struct matrix before = part_gather(p, part, at->h + step * p->rows * width, width, left, h);
        sums.at += skip * part->rows * 4 * s.hidden;
        sums.rows = left * part->rows;
        op_product(p->backend, sums, 1, matrix_columns(before, direction * s.hidden, s.hidden), 0,
                   (float)recurred, matrix_of(g + w.at[WEIGHT_HH], 4 * s.hidden, s.hidden));
        recurred = 1;
    }
    if (!recurred) /* one step in all */
        op_zero(p->backend, g + w.at[WEIGHT_HH], w.count[WEIGHT_HH]);
    biases_add(l, p, &w, b, later);
}

int lstm_is_parted(const struct layer_pass *p)
{
    return p->part_rows && p->rows > p->part_rows;
}

void lstm_parts_gradient(const struct layer_instance *l, const struct layer_pass *p,
                         const struct lstm_place *at, uint64_t layer, uint64_t direction)
{
    struct layer_pass part = *p;
    ensure(p->keep == KEEP_ALL && !p->adds && !lstm_is_apart(p));
    for (uint64_t row = 0; row < p->rows; row += p->part_rows) {
        part.row_first = p->row_first + row;
        part.rows = p->rows - row < p->part_rows ? p->rows - row : p->part_rows;
        part.adds = row > 0;
        for (uint64_t number = lstm_blocks(l, p); number-- > 0;) {
            struct lstm_block b = lstm_block_of(l, p, at, layer, direction, number);
            part_gradient_add(l, p, &part, at, layer, direction, &b);
        }
    }
}
