/* layer.h - what a layer type is: its keys, its shapes, its tensors, and its mathematics on one
 * slice of rows.
 *
 * One file in engine/layers/ a type; engine/layer.c lists them. The stepper owns all memory and
 * tells a layer where to read and write; a layer keeps nothing between calls. Widths are values a
 * row.
 */
#ifndef ENGINE_LAYER_H
#define ENGINE_LAYER_H

#include <stdint.h>

#include "engine/model.h"
#include "engine/ops.h"

enum { LAYER_KEYS_MAX = 4, LAYER_TENSORS_MAX = 4, LAYER_WIDTH_MAX = 1 << 24 };

/* One key of a layer's line. The accepted numbers are low .. high, without high itself if
 * below_high. */
struct layer_key {
    const char *name; /* NULL ends the list */
    int whole, required, below_high;
    double low, high, normal; /* normal: where it is not given */
};

struct layer_instance {
    const struct layer_type *type;
    uint32_t place;                      /* in the list, from 0 */
    uint64_t inputs, outputs;            /* values a row */
    double values[LAYER_KEYS_MAX];       /* of type->keys, in their order */
    uint64_t first, count;               /* its parameters' range in the flat vector */
    uint32_t tensor_first, tensor_count; /* in the model's tensors */
};

/* One slice of a batch on its way through one layer. */
struct layer_pass {
    const struct backend *backend;
    uint64_t rows, row_first; /* of the slice, and its place in the batch */
    uint64_t seed, step;      /* key randomness */
    int training;             /* 0: evaluation and Fisher, dropout off */
    const float *parameters;  /* this layer's range */
    float *gradient;       /* the same range of the slice's gradient; backward writes all of it */
    float *input, *output; /* [rows, inputs], [rows, outputs]; the same memory where in_place */
    float *d_input, *d_output; /* d_input NULL: nobody needs it; the same memory where in_place */
};

struct layer_type {
    const char *name, *purpose;
    struct layer_key keys[LAYER_KEYS_MAX + 1];
    int in_place;     /* forward may overwrite its input and backward its d_output */
    int needs_output; /* backward reads the output, so the next layer must not overwrite it */

    /* From inputs and values: outputs, tensor_count and tensors[] (name's last part, rank, dims).
     */
    void (*infer)(struct layer_instance *l, struct tensor_info *tensors);
    /* Fresh weights into the layer's range. NULL where there are none. */
    void (*initialise)(const struct layer_instance *l, uint64_t seed, float *parameters);

    void (*forward)(const struct layer_instance *l, const struct layer_pass *p);
    void (*backward)(const struct layer_instance *l, const struct layer_pass *p);

    /* Per-sample squared gradients, in tiles whose partition depends on the layer alone.
     * tile_range: the tile's place in the layer's range, count 0 behind the last. tile_squares: sum
     * over the slice's samples of the squared gradient, into squares[count], from x2 [rows, inputs]
     * and d2 [rows, outputs], the squares of the layer's input and of the gradient at its output.
     * NULL where there are no parameters. */
    void (*tile_range)(const struct layer_instance *l, uint64_t tile, uint64_t *first,
                       uint64_t *count);
    void (*tile_squares)(const struct layer_instance *l, const struct backend *b, uint64_t tile,
                         struct matrix x2, struct matrix d2, float *squares);
};

extern const struct layer_type *const layer_types[]; /* NULL ends the list */

/* NULL for a name that is not in the list. */
const struct layer_type *layer_type_named(const char *name);

/* Largest tile of a layer of that many inputs: what the stepper reserves. */
uint64_t layer_tile_floats_max(const struct layer_instance *l);

#endif
