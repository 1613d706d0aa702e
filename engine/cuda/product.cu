/* product.cu - matrix products: our own kernel where it is the faster one (gemm.h), else cuBLAS,
 * whose matrices are column-major: a row-major matrix is its own transposed there, so
 * c^T = b^T a^T is asked for. */
#include "engine/cuda/gemm.h"
#include "engine/cuda/handle.h"

/* Multiplications up to which our kernel is taken: for float32, whose products cuBLAS makes without
 * tensor cores; and for operands of 16 bits. */
static const double FLOATS_MOST = 0x1p32, HALVES_MOST = 0x1p29;

int gemm_takes(uint64_t m, uint64_t n, uint64_t k, int exact)
{
    enum { TENSOR_CORES = 80 };
    double work = (double)m * (double)n * (double)k;
    return cuda_capability >= TENSOR_CORES && work <= (exact ? HALVES_MOST : FLOATS_MOST);
}

void cuda_blas_product(struct matrix a, int a_t, struct matrix b, int b_t, float beta,
                       struct matrix c)
{
    const float one = 1;
    uint64_t inner = a_t ? a.rows : a.columns;
    cuda_blas(cublasSgemm_64(cuda_handle, b_t ? CUBLAS_OP_T : CUBLAS_OP_N,
                             a_t ? CUBLAS_OP_T : CUBLAS_OP_N, (int64_t)c.columns, (int64_t)c.rows,
                             (int64_t)inner, &one, b.at, (int64_t)b.stride, a.at, (int64_t)a.stride,
                             &beta, c.at, (int64_t)c.stride),
              "cublasSgemm");
}
