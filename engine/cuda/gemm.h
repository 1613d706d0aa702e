/* gemm.h - products by our own kernel, with what follows them in the same launch. */
#ifndef ENGINE_CUDA_GEMM_H
#define ENGINE_CUDA_GEMM_H

#include "engine/cuda/cuda.h"

/* What becomes of a sum: + beta c, + bias of its column, rounded to `half`, the activation
 * (ACTIVATION_COUNT: none), rounded again, and kept in 16 bits where `kept` is not NULL. */
struct gemm_finish {
    float beta;
    const float *bias;
    enum activation activation;
    enum half half;
    uint16_t *kept; /* [M, N] */
    float *sums;    /* [M]: sum of each row of op(a), or NULL */
};

/* c[M, N] = op(a)[M, K] op(b)[K, N], finished so. `exact`: the operands hold numbers of 16 bits. */
void gemm_run(struct matrix a, int a_t, struct matrix b, int b_t, struct matrix c, int exact,
              const struct gemm_finish *f);

/* Can this device do it, and is it the faster way? */
int gemm_takes(uint64_t m, uint64_t n, uint64_t k, int exact);
/* What is taken else: cuBLAS; in the emulated build there is none. */
void cuda_blas_product(struct matrix a, int a_t, struct matrix b, int b_t, float beta,
                       struct matrix c);

/* The same with what follows, where cuBLAS does it in the same launch; 0: it cannot, and nothing
 * was done. y = x w^T + bias, relu of that; dw = dy^T x, db = the column sums of dy. */
int cuda_blas_linear(struct matrix x, struct matrix w, const float *bias, int relu,
                     struct matrix y);
int cuda_blas_gradient(struct matrix dy, struct matrix x, struct matrix dw, float *db);

extern int cuda_products_rounded; /* operands hold numbers of 16 bits */

#endif
