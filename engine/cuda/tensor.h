/* tensor.h - float32 products on the tensor cores by a kernel of our own (tensor.cu), for matrices
 * of many rows. */
#ifndef ENGINE_CUDA_TENSOR_H
#define ENGINE_CUDA_TENSOR_H

#include "engine/cuda/cuda.h"

/* c = op(a) op(b) + beta c as op_product. 0: it has no way to do that, and nothing was done. */
int tensor_product(struct matrix a, int a_t, struct matrix b, int b_t, float beta, struct matrix c);

#endif
