/* blas.h - what the files of the backend ask of cuBLAS; in the emulated build the CPU's product
 * answers, without epilogues. */
#ifndef ENGINE_CUDA_BLAS_H
#define ENGINE_CUDA_BLAS_H

#include "engine/cuda/cuda.h"

/* op_product. */
void cuda_blas_product(struct matrix a, int a_t, struct matrix b, int b_t, float beta,
                       struct matrix c);

/* op_product_mixed of operands that are both in 16 bits. 0: it cannot, and nothing was done. */
int cuda_blas_product_mixed(enum half half, struct mixed a, int a_t, struct mixed b, int b_t,
                            float beta, struct mixed c);

/* A product with what follows it, where cuBLAS does that in the same launch; 0: it cannot, and
 * nothing was done. y = x w^T + bias, relu of that; dw = dy^T x, db = the column sums of dy. */
int cuda_blas_linear(struct matrix x, struct matrix w, const float *bias, int relu,
                     struct matrix y);
int cuda_blas_gradient(struct matrix dy, struct matrix x, struct matrix dw, float *db);

/* An operand in float32 becomes one in 16 bits, at `to`, which has room for so many numbers. 0: for
 * too few. */
int cuda_operand_narrow(enum half half, struct mixed *m, uint16_t *to, uint64_t room);

#endif
