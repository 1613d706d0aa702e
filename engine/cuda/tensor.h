/* tensor.h - float32 products on the tensor cores by a kernel of our own (tensor.cu), for matrices
 * of many rows. */
#ifndef ENGINE_CUDA_TENSOR_H
#define ENGINE_CUDA_TENSOR_H

#include "engine/cuda/cuda.h"

/* c = op(a) op(b) + beta c as op_product. 0: it has no way to do that, and nothing was done. */
int tensor_product(struct matrix a, int a_t, struct matrix b, int b_t, float beta, struct matrix c);

/* dw = g^T x of g[R, C] and x[R, I] as parts [count, C, I] at `parts`, which has room for so many
 * numbers and begins at a multiple of 16 bytes, their sum being the product; and dx[R, I] = g w of
 * w[C, I], unless dx.at is NULL, in the same launch. Returns count; 0: it has no way to do all of
 * that, and nothing was done. */
unsigned tensor_gradients(struct matrix g, struct matrix x, struct matrix w, struct matrix dx,
                          float *parts, uint64_t room);

#endif
