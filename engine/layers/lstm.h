/* lstm.h - what lstm.c and lstm_narrow.c share: shapes and tensors of an LSTM, and its way on a
 * device apart that computes with numbers of 16 bits (KEEP_NARROW).
 */
#ifndef ENGINE_LAYERS_LSTM_H
#define ENGINE_LAYERS_LSTM_H

#include "engine/layer.h"

enum { KEY_OUT, KEY_LAYERS, KEY_BIDIRECTIONAL, KEY_DROPOUT };
enum { WEIGHT_IH, WEIGHT_HH, BIAS_IH, BIAS_HH, TENSORS };
enum { LSTM_LAYERS_MAX = 8 };

/* Sizes of all layers. */
struct lstm_shape {
    uint64_t hidden, layers, directions, steps;
};

/* One direction of one layer: its tensors in the parameters or in a gradient. */
struct lstm_part {
    uint64_t in;          /* values of its x */
    uint64_t at[TENSORS]; /* offset in the layer's range */
    uint64_t count[TENSORS];
};

struct lstm_shape lstm_shape_of(const struct layer_instance *l);
uint64_t lstm_in(const struct layer_instance *l, uint64_t layer);
struct lstm_part lstm_part_of(const struct layer_instance *l, uint64_t layer, uint64_t direction);

/* Those of layer_type, where keep is KEEP_NARROW. */
int lstm_narrows(const struct layer_instance *l);
uint64_t lstm_narrow_saved(const struct layer_instance *l, uint64_t rows);
uint64_t lstm_narrow_scratch(const struct layer_instance *l, uint64_t rows);
void lstm_narrow_forward(const struct layer_instance *l, const struct layer_pass *p);
void lstm_narrow_backward(const struct layer_instance *l, const struct layer_pass *p);

#endif
