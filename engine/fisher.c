/* fisher.c - exact per-sample squared gradients, summed over the batch's rows, for a range of the
 * flat vector.
 *
 * A wave of slices goes forward and backward, keeping every layer's input and the gradient at its
 * output, and both are squared in place. Then the tiles of the layers that the range touches are
 * shared out: a tile takes the wave's slices in order, so that each element of the sums has one
 * writer and a fixed order of additions. A layer's tiles do not depend on the range: blocks may cut
 * a tensor anywhere and the bits stay the same. FORMULAS "Exact per-sample Fisher" 1.
 */
#include "engine/stepper.h"

struct fisher_work {
    struct batch_work batch;
    uint64_t slices;       /* of the wave */
    uint64_t first, count; /* range of the flat vector */
    float *sums;
};

static int layer_touched(const struct fisher_work *f, const struct layer_instance *l)
{
    return l->count > 0 && l->first < f->first + f->count && f->first < l->first + l->count;
}

/* Squared input of a layer: the batch's own must stay as it is, so it is squared into another
 * place. */
static float *squared_input(const struct stepper *s, uint64_t slice, uint32_t layer)
{
    uint64_t floats = s->config.slice_rows * s->model->inputs;
    floats =
        (floats + MEMORY_ALIGNMENT_FLOATS - 1) / MEMORY_ALIGNMENT_FLOATS * MEMORY_ALIGNMENT_FLOATS;
    if (s->layout.route[layer].in == 0)
        return s->input_squares + slice % s->layout.lanes * floats;
    return lane_activation(s, slice, s->layout.route[layer].in);
}

/* Squares of what a slice left behind. No two layers with parameters share an input or an output
 * buffer. */
static void square_item(void *argument, uint64_t lane, int thread)
{
    const struct fisher_work *f = argument;
    const struct stepper *s = f->batch.s;
    uint64_t slice = f->batch.wave_first + lane, rows = slice_rows(s, f->batch.rows, slice);
    (void)thread;
    for (uint32_t i = 0; i < s->model->layer_count; i++) {
        const struct layer_instance *l = &s->model->layers[i];
        float *d = lane_delta(s, slice, s->layout.route[i].out);
        if (!layer_touched(f, l))
            continue;
        op_square(s->backend, lane_activation(s, slice, s->layout.route[i].in),
                  squared_input(s, slice, i), rows * l->inputs);
        op_square(s->backend, d, d, rows * l->outputs);
    }
}

/* The tile's part of the sums, slice after slice. */
static void tile_accumulate(const struct fisher_work *f, uint32_t layer, uint64_t tile,
                            float *squares)
{
    const struct stepper *s = f->batch.s;
    const struct layer_instance *l = &s->model->layers[layer];
    uint64_t first, count;
    l->type->tile_range(l, tile, &first, &count);
    first += l->first;
    uint64_t begin = first > f->first ? first : f->first;
    uint64_t end = first + count < f->first + f->count ? first + count : f->first + f->count;
    if (begin >= end)
        return;
    for (uint64_t i = 0; i < f->slices; i++) {
        uint64_t slice = f->batch.wave_first + i, rows = slice_rows(s, f->batch.rows, slice);
        struct matrix x2 = matrix_of(squared_input(s, slice, layer), rows, l->inputs);
        struct matrix d2 =
            matrix_of(lane_delta(s, slice, s->layout.route[layer].out), rows, l->outputs);
        l->type->tile_squares(l, s->backend, tile, x2, d2, squares);
        op_add(s->backend, squares + (begin - first), f->sums + (begin - f->first), end - begin);
    }
}

static uint64_t layer_tiles(const struct layer_instance *l)
{
    uint64_t tiles = 0;
    for (uint64_t first, count = 1; l->type->tile_range && count > 0; tiles += count > 0)
        l->type->tile_range(l, tiles, &first, &count);
    return tiles;
}

/* Items number the tiles of all touched layers, one layer after the other. */
static void tile_item(void *argument, uint64_t item, int thread)
{
    const struct fisher_work *f = argument;
    const struct stepper *s = f->batch.s;
    float *squares = s->tiles + (uint64_t)thread * s->layout.tile;
    for (uint32_t i = 0; i < s->model->layer_count; i++) {
        const struct layer_instance *l = &s->model->layers[i];
        uint64_t tiles = layer_touched(f, l) ? layer_tiles(l) : 0;
        if (item < tiles) {
            tile_accumulate(f, i, item, squares);
            return;
        }
        item -= tiles;
    }
}

int stepper_fisher(struct stepper *s, uint64_t rows, uint64_t first, uint64_t count, float *sums,
                   struct err *e)
{
    struct fisher_work f = {.batch = {.s = s, .work = SLICE_FISHER, .rows = rows},
                            .first = first,
                            .count = count,
                            .sums = sums};
    uint64_t tiles = 0, total = s->model->parameter_count;
    ensure(!s->config.with_optimizer && rows > 0 && rows <= s->config.batch_rows_max);
    ensure(first < total && count > 0 && count <= total - first);
    for (uint32_t i = 0; i < s->model->layer_count; i++)
        tiles += layer_touched(&f, &s->model->layers[i]) ? layer_tiles(&s->model->layers[i]) : 0;
    while (f.batch.wave_first < batch_slices(s, rows)) {
        f.slices = wave_run(&f.batch);
        pool_run(s->pool, square_item, &f, f.slices);
        pool_run(s->pool, tile_item, &f, tiles);
        f.batch.wave_first += f.slices;
    }
    double loss = rows_sum(s->losses, rows);
    if (!__builtin_isfinite(loss))
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "cannot estimate the Fisher information of %llu rows: the sum of their losses "
            "is %g: the parameters or the features are not usable",
            (unsigned long long)rows, loss);
    return 0;
}

uint64_t stepper_fisher_rows(const struct step_config *c)
{
    uint64_t slices = (c->batch_rows_max - 1) / c->slice_rows + 1, threads = (uint64_t)c->threads;
    return c->slice_rows * (slices > threads ? slices : threads);
}
