/* convolution_tiles.h - both products of a graph convolution, the sparse one and that with the
 * weights, in one launch (convolution_tiles.cu): where they are in 16 bits, in multiples of eight.
 */
#ifndef ENGINE_CUDA_CONVOLUTION_TILES_H
#define ENGINE_CUDA_CONVOLUTION_TILES_H

#include "engine/cuda/cuda.h"

/* op_convolution_forward, a x being made first and rounded. 0: it has no way to do that, and
 * nothing was done. */
int convolution_tiles_forward(struct sparse a, struct mixed x, struct mixed w, const float *bias,
                              enum activation kind, enum half half, uint16_t *kept,
                              struct matrix y);

/* g and dx of op_convolution_backward where nothing is behind, and at `parts`, which has room for
 * so many numbers, sums of e's columns as parts [rows, C], whose sum they are. Returns rows; 0: it
 * has no way to do that, and nothing was done. */
uint64_t convolution_tiles_backward(const struct convolution_back &b, float *parts, uint64_t room);

#endif
