/* fisher.c - exact per-sample squared gradients, summed over the batch's rows, for a range of the
 * flat vector.
 *
 * A wave of slices goes forward and backward, keeping every layer's input and the gradient at its
 * output, which a layer may turn into its squares in place. Then the tiles of the layers that the
 * range touches are shared out: a tile takes the wave's slices in order, so that each element of
 * the sums has one writer and a fixed order of additions. A layer's tiles do not depend on the
 * range: blocks may cut a tensor anywhere and the bits stay the same. FORMULAS "Exact per-sample
 * Fisher" 1, 2 and 6.
 */
#include "engine/factors.h"
#include "engine/stepper.h"

#include <string.h>

struct fisher_work {
    struct batch_work batch;
    uint64_t slices;                  /* of the wave */
    uint64_t tiles[MODEL_LAYERS_MAX]; /* of each layer that the range touches, else 0 */
    uint64_t tile_first;              /* what item 0 is */
    int last;                         /* the batch's last wave and pass: sums are looked at */
    uint32_t bad[POOL_THREADS_MAX];   /* layers with a sum that is not finite, by thread: the last
                                         one's place and 1; 0: none */
};

static int layer_touched(const struct fisher_work *f, const struct layer_instance *l)
{
    const struct fisher_sums *to = f->batch.fisher;
    return l->count > 0 && l->first < to->first + to->count && to->first < l->first + l->count;
}

/* What squares_begin makes of what a slice left behind. No two layers with parameters share an
 * input or an output buffer. */
static void square_item(void *argument, uint64_t lane, int thread)
{
    const struct fisher_work *f = argument;
    const struct stepper *s = f->batch.s;
    uint64_t slice = f->batch.wave_first + lane;
    (void)thread;
    for (uint32_t i = 0; i < s->model->layer_count; i++) {
        const struct layer_instance *l = &s->model->layers[i];
        struct layer_pass p = slice_pass(&f->batch, slice, i);
        if (layer_touched(f, l) && l->type->squares_begin)
            l->type->squares_begin(l, &p);
    }
}

/* On a device apart a tile is summed there and then added to what the host has; the range of the
 * tile that is wanted. */
static int tile_fetch(const struct fisher_work *f, uint32_t layer, const struct tile *tile,
                      uint64_t from, uint64_t count, const struct tile_work *w, float *whole,
                      float *sums)
{
    const struct stepper *s = f->batch.s;
    const struct layer_instance *l = &s->model->layers[layer];
    struct layer_pass p = slice_pass(&f->batch, f->batch.wave_first, layer);
    double sum = 0;
    op_zero(s->backend, whole, tile->count);
    l->type->tile_squares(l, &p, tile, w, whole);
    s->device->download(s->mirror.tile, whole + from, count * sizeof *sums);
    op_add(&backend_cpu, s->mirror.tile, sums, count);
    op_sum_squares(&backend_cpu, sums, count, &sum);
    return __builtin_isfinite(sum);
}

/* The tile's part of the sums, slice after slice. A tile that the range cuts is summed whole, in
 * `whole`: each slice's sums are added as they are to a tile that is not cut. 0: one of them is not
 * finite. */
static int tile_accumulate(const struct fisher_work *f, uint32_t layer, uint64_t number,
                           const struct tile_work *w, float *whole)
{
    const struct stepper *s = f->batch.s;
    const struct fisher_sums *to = f->batch.fisher;
    const struct layer_instance *l = &s->model->layers[layer];
    struct tile tile = layer_tile(s->model, l, number);
    uint64_t first = tile.first + l->first, end = first + tile.count;
    uint64_t begin = first > to->first ? first : to->first;
    end = end < to->first + to->count ? end : to->first + to->count;
    int cut = end - begin < tile.count;
    double sum = 0;
    if (begin >= end)
        return 1;
    float *sums = to->at + (begin - to->first);
    if (s->device->apart)
        return tile_fetch(f, layer, &tile, begin - first, end - begin, w, whole, sums);
    for (uint64_t i = 0; i < f->slices; i++) {
        struct layer_pass p = slice_pass(&f->batch, f->batch.wave_first + i, layer);
        if (cut)
            op_zero(s->backend, whole, tile.count);
        l->type->tile_squares(l, &p, &tile, w, cut ? whole : sums);
        if (cut)
            op_add(s->backend, whole + (begin - first), sums, end - begin);
    }
    if (f->last)
        op_sum_squares(s->backend, sums, end - begin, &sum);
    return __builtin_isfinite(sum);
}

/* Row and column sums of one slice's squares that are formed, a tile at a time, in `whole`: of a
 * tensor whose gradient is no product, or whose samples have more steps than there is room for. */
static void tiles_factor(const struct fisher_work *f, const struct layer_instance *l,
                         const struct layer_pass *p, uint32_t tensor, const struct tile_work *w,
                         float *whole, float *rows)
{
    const struct model *m = f->batch.s->model;
    uint64_t all = m->tensors[l->tensor_first + tensor].dims[0];
    for (uint64_t number = 0; number < layer_tiles(m, l); number++) {
        struct tile tile = layer_tile(m, l, number);
        if (tile.tensor != tensor)
            continue;
        memset(whole, 0, tile.count * sizeof *whole);
        l->type->tile_squares(l, p, &tile, w, whole);
        factors_of_squares(matrix_of(whole, tile.rows, tile.columns), rows + tile.row_first,
                           rows + all);
    }
}

/* As tile_accumulate, of the factors of a tensor of the layer; a vector is its own only tile. */
static int tensor_accumulate(const struct fisher_work *f, uint32_t layer, uint64_t tensor,
                             const struct tile_work *w, float *whole)
{
    const struct stepper *s = f->batch.s;
    const struct layer_instance *l = &s->model->layers[layer];
    const struct tensor_info *t = &s->model->tensors[l->tensor_first + tensor];
    float *at = f->batch.fisher->at + factors_first(s->model, l->tensor_first + (uint32_t)tensor);
    struct tile vector = {.tensor = (uint32_t)tensor,
                          .rows = 1,
                          .columns = t->count,
                          .first = t->first - l->first,
                          .count = t->count};
    double sum = 0;
    for (uint64_t i = 0; i < f->slices; i++) {
        struct layer_pass p = slice_pass(&f->batch, f->batch.wave_first + i, layer);
        struct samples d, x;
        if (t->rank == 2 && l->type->operands)
            l->type->operands(l, &p, (uint32_t)tensor, &d, &x);
        if (t->rank != 2)
            l->type->tile_squares(l, &p, &vector, w, at);
        else if (l->type->operands && factors_fit(d, s->layout.tile))
            factors_of_products(s->backend, d, x, w, s->layout.tile, at, at + t->dims[0]);
        else
            tiles_factor(f, l, &p, (uint32_t)tensor, w, whole, at);
    }
    if (f->last)
        op_sum_squares(s->backend, at, t->rank == 2 ? t->dims[0] + t->dims[1] : t->count, &sum);
    return __builtin_isfinite(sum);
}

/* Tiles are numbered over all touched layers, one layer after the other; instead of them, where
 * sums are factored, the layers' tensors. The layer of one, and *number, which of the layer's it
 * is. */
static uint32_t tile_layer(const struct fisher_work *f, uint64_t tile, uint64_t *number)
{
    uint32_t layer = 0;
    while (tile >= f->tiles[layer])
        tile -= f->tiles[layer++];
    *number = tile;
    return layer;
}

static void tile_item(void *argument, uint64_t item, int thread)
{
    struct fisher_work *f = argument;
    const struct stepper *s = f->batch.s;
    uint64_t tile = s->layout.tile, number;
    float *at = s->tiles + (uint64_t)thread * s->layout.squares;
    struct tile_work w = {at, {at + 3 * tile, at + tile}};
    uint32_t layer = tile_layer(f, f->tile_first + item, &number);
    int good = f->batch.fisher->factored ? tensor_accumulate(f, layer, number, &w, at + 2 * tile)
                                         : tile_accumulate(f, layer, number, &w, at + 2 * tile);
    if (!good && f->bad[thread] < layer + 1)
        f->bad[thread] = layer + 1;
}

/* Tiles from tile_first on that have about `resident` parameters together; *end is the one behind
 * them, in the flat vector. */
static uint64_t tiles_resident(const struct fisher_work *f, uint64_t tiles, uint64_t *end)
{
    const struct model *m = f->batch.s->model;
    uint64_t count = 0, parameters = 0, number;
    do {
        const struct layer_instance *l = &m->layers[tile_layer(f, f->tile_first + count, &number)];
        struct tile tile = layer_tile(m, l, number);
        parameters += tile.count;
        *end = l->first + tile.first + tile.count;
        count++;
    } while (f->tile_first + count < tiles && parameters < f->batch.fisher->resident);
    return count;
}

/* All tiles, so many at a time that their sums may be resident together. */
static void tiles_run(struct fisher_work *f, uint64_t tiles)
{
    const struct fisher_sums *to = f->batch.fisher;
    uint64_t done = to->first, end, count;
    f->tile_first = 0;
    if (!to->release) {
        stepper_run(f->batch.s, tile_item, f, tiles);
        return;
    }
    for (; f->tile_first < tiles; f->tile_first += count) {
        count = tiles_resident(f, tiles, &end);
        end = end < to->first + to->count ? end : to->first + to->count;
        stepper_run(f->batch.s, tile_item, f, count);
        to->release(to->argument, done - to->first, end - done);
        done = end;
    }
}

/* Does another backward need forward again? */
static int model_spends(const struct model *m)
{
    for (uint32_t i = 0; i < m->layer_count; i++)
        if (m->layers[i].type->spends)
            return 1;
    return 0;
}

/* The wave from wave_first on: backward once a pass, the sums after each. */
static void wave_accumulate(struct fisher_work *f, uint64_t tiles)
{
    struct stepper *s = f->batch.s;
    uint64_t passes = fisher_labels_passes(s->model, f->batch.fisher->labels), slices = 0;
    for (f->batch.pass = 0; f->batch.pass < passes; f->batch.pass++) {
        f->batch.backward_only = f->batch.pass > 0 && !model_spends(s->model);
        slices = f->slices = wave_run(&f->batch);
        f->last = f->batch.pass + 1 == passes &&
                  f->batch.wave_first + slices == batch_slices(s, f->batch.rows);
        stepper_run(s, square_item, f, slices);
        tiles_run(f, tiles);
    }
    f->batch.wave_first += slices;
}

/* What the rows weigh together, the model's own labels included. The root of each target's weight
 * is in its gradient already, which was squared. */
static void fisher_weigh(struct stepper *s, uint64_t rows, enum fisher_labels labels,
                         double *weight)
{
    if (!s->weighted) {
        *weight += (double)(rows * s->model->target_steps);
        return;
    }
    if (s->piece_count || labels != FISHER_TRUE) {
        targets_fetch(s, rows);
        s->device->wait();
    }
    *weight = evaluation_weights(s, *weight, rows, WEIGHT_ITSELF, s->loss->whole_rows);
}

int stepper_fisher(struct stepper *s, uint64_t rows, const struct fisher_sums *to, struct err *e)
{
    struct fisher_work f = {.batch = {.s = s, .work = SLICE_FISHER, .rows = rows, .fisher = to}};
    uint64_t tiles = 0, total = s->model->parameter_count;
    uint32_t bad = 0;
    ensure(!s->config.with_optimizer && rows > 0 && rows <= s->config.batch_rows_max);
    ensure(!to->factored || (to->count == total && !to->release));
    ensure(to->first < total && to->count > 0 && to->count <= total - to->first);
    for (uint32_t i = 0; i < s->model->layer_count; i++) {
        if (layer_touched(&f, &s->model->layers[i]))
            f.tiles[i] = to->factored ? s->model->layers[i].tensor_count
                                      : layer_tiles(s->model, &s->model->layers[i]);
        tiles += f.tiles[i];
    }
    if (s->device->apart && to->factored)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot sum factored squares on device %s: that is done on the CPU",
                       s->device->kind);
    batch_send(s, rows);
    statistics_use(s);
    while (f.batch.wave_first < batch_slices(s, rows))
        wave_accumulate(&f, tiles);
    for (int i = 0; i < s->config.threads; i++)
        bad = f.bad[i] > bad ? f.bad[i] : bad;
    batch_fetch(s, s->at.losses, rows * s->model->target_steps * sizeof *s->at.losses);
    struct batch_results results;
    if (s->device->apart && results_fetch(s, &results, e) < 0)
        return -1;
    double loss = rows_sum(0, s->host.losses, rows * s->model->target_steps);
    if (bad || !__builtin_isfinite(loss))
        return fault_of_fisher(&f.batch, bad, e);
    if (to->weight)
        fisher_weigh(s, rows, to->labels, to->weight);
    return 0;
}

uint64_t stepper_fisher_rows(const struct step_config *c, uint64_t samples)
{
    uint64_t slices = (c->batch_rows_max - 1) / c->slice_rows + 1, threads = (uint64_t)c->threads;
    slices = slices < 4 * threads ? slices : 4 * threads; /* more are only memory */
    uint64_t rows = c->slice_rows * (slices > threads ? slices : threads);
    return rows < samples ? rows : samples;
}
