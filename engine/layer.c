/* layer.c - the list of layer types, and what several of them share. A new one is a file in
 * engine/layers/ and a line here. */
#include "engine/layer.h"

#include <string.h>

#include "engine/squares.h"

extern const struct layer_type layer_linear, layer_relu, layer_gelu, layer_silu, layer_tanh,
    layer_sigmoid, layer_dropout, layer_layernorm, layer_residual_begin, layer_residual_end,
    layer_sequence, layer_lstm, layer_pool, layer_batchnorm, layer_gcn, layer_embedding;

const struct layer_type *const layer_types[] = {&layer_linear,
                                                &layer_relu,
                                                &layer_gelu,
                                                &layer_silu,
                                                &layer_tanh,
                                                &layer_sigmoid,
                                                &layer_dropout,
                                                &layer_layernorm,
                                                &layer_residual_begin,
                                                &layer_residual_end,
                                                &layer_sequence,
                                                &layer_lstm,
                                                &layer_pool,
                                                &layer_batchnorm,
                                                &layer_gcn,
                                                &layer_embedding,
                                                NULL};

/* Values of a tile: 256 KiB stay in a core's second-level cache between product and sum. */
enum { TILE_FLOATS = 65536 };

const struct layer_type *layer_type_named(const char *name)
{
    for (int i = 0; layer_types[i]; i++)
        if (strcmp(layer_types[i]->name, name) == 0)
            return layer_types[i];
    return NULL;
}

int layer_infer_same(struct layer_instance *l, struct tensor_info *tensors, struct err *e)
{
    (void)tensors, (void)e;
    l->steps_out = l->steps;
    l->values_out = l->values;
    return 0;
}

void layer_initialise_uniform(const struct layer_instance *l, const uint64_t *counts, double bound,
                              uint64_t seed, float *parameters)
{
    for (uint32_t t = 0; t < l->tensor_count; t++)
        for (uint64_t i = 0; i < counts[t]; i++)
            *parameters++ = scalar_uniform(scalar_key(seed, l->tensor_first + t, i), bound);
}

void layer_initialise_scale(const struct layer_instance *l, uint64_t seed, float *parameters)
{
    (void)seed;
    for (uint64_t c = 0; c < l->values; c++) {
        parameters[c] = 1;
        parameters[l->values + c] = 0;
    }
}

void layer_tile_squares_scale(const struct layer_instance *l, const struct layer_pass *p,
                              const struct tile *tile, const struct tile_work *w, float *sums)
{
    const float *of = tile->tensor == 0 ? p->squares_input : p->d_output;
    squares_of_sums(p->backend, samples_of(of, p->samples, l->values), w, sums);
}

/* Rows of the tensor in a tile: even shares, whole rows, at least one. */
static uint64_t tile_rows(uint64_t rows, uint64_t columns)
{
    uint64_t most = TILE_FLOATS / columns;
    most = most ? most : 1;
    uint64_t tiles = (rows + most - 1) / most;
    return (rows + tiles - 1) / tiles;
}

struct tile layer_tile(const struct model *m, const struct layer_instance *l, uint64_t tile)
{
    uint64_t first = 0;
    for (uint32_t i = 0; i < l->tensor_count; i++) {
        const struct tensor_info *t = &m->tensors[l->tensor_first + i];
        uint64_t all = t->rank == 2 ? t->dims[0] : 1, columns = t->dims[t->rank - 1];
        uint64_t rows = tile_rows(all, columns), tiles = (all + rows - 1) / rows;
        if (tile < tiles) {
            struct tile found = {.tensor = i, .row_first = tile * rows, .columns = columns};
            found.rows = all - found.row_first < rows ? all - found.row_first : rows;
            found.first = first + found.row_first * columns;
            found.count = found.rows * columns;
            return found;
        }
        tile -= tiles;
        first += all * columns;
    }
    return (struct tile){0};
}

uint64_t layer_tiles(const struct model *m, const struct layer_instance *l)
{
    uint64_t tiles = 0;
    for (uint32_t i = 0; i < l->tensor_count; i++) {
        const struct tensor_info *t = &m->tensors[l->tensor_first + i];
        uint64_t all = t->rank == 2 ? t->dims[0] : 1;
        tiles += (all - 1) / tile_rows(all, t->dims[t->rank - 1]) + 1;
    }
    return tiles;
}

uint64_t layer_tile_floats_max(const struct model *m, const struct layer_instance *l)
{
    uint64_t max = 0;
    for (uint64_t tile = 0, count; (count = layer_tile(m, l, tile).count) > 0; tile++)
        max = count > max ? count : max;
    return max;
}
