/* tensor.h - products on the tensor cores by a kernel of our own (tensor.cu), for matrices of many
 * rows. */
#ifndef ENGINE_CUDA_TENSOR_H
#define ENGINE_CUDA_TENSOR_H

#include "engine/cuda/cuda.h"

/* c = op(a) op(b) + beta c as product_half has it, or with HALF_NONE as product. 0: it has no way
 * to do that, and nothing was done. */
int tensor_product(enum half kind, struct mixed a, int a_t, struct mixed b, int b_t, float beta,
                   struct mixed c);

#endif
