/* quantised.h - a model's weights in 8 bits, for inference: dynamic quantisation.
 *
 * Every row of a weight matrix [out, in] (an output, or a gate of an lstm) has a scale of its own,
 * and so has every row of numbers that it is multiplied with, found when it comes:
 *
 *   s(v) = max |v| / 127, q(v) = round(v / s(v)) to even, -127 .. 127; a row of zeroes has s 0
 *   y[r, o] = s(x[r]) s(W[o]) sum over k of q(x[r])[k] q(W[o])[k]      then the bias, in float32
 *
 * The sum is exact in whole numbers, so every instruction set gives the same bits, and a row's
 * result does not depend on the rows beside it. torch.ao.quantization.quantize_dynamic differs: one
 * scale and offset for all numbers of a call, in 7 bits, and one scale a matrix. Biases, layer
 * norms and all that is not a product with weights stay float32.
 */
#ifndef ENGINE_QUANTISED_H
#define ENGINE_QUANTISED_H

#include "engine/layer.h"
#include "engine/memory.h"

struct quantised_tensor {
    uint64_t first; /* of its parameters in the flat vector */
    struct int8_matrix weights;
};

struct quantised {
    uint32_t count;
    struct quantised_tensor *tensors; /* by `first` */
    struct region region;             /* their numbers and scales */
    struct region work;               /* of the lanes */
    uint64_t lanes, work_bytes;       /* of one */
    uint64_t float_bytes, bytes;      /* of those weights before, and with their scales now */
};

/* Quantise the weights of all products of the model, and make room for `lanes` slices at a time.
 * 0, or -1 and *e (temporary). */
int quantised_open(struct quantised *q, const struct model *m, const float *parameters,
                   uint64_t lanes, struct err *e);
void quantised_close(struct quantised *q); /* harmless twice, and on zeroed storage */

/* The weights at `first` of the flat vector, or NULL: those are not quantised. */
const struct int8_matrix *quantised_find(const struct quantised *q, uint64_t first);

/* Scratch of one lane. */
struct int8_work quantised_work(const struct quantised *q, uint64_t lane);

#endif
