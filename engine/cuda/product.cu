/* product.cu - matrix products by cuBLAS, whose matrices are column-major: a row-major matrix is
 * its own transposed there, so c^T = b^T a^T is asked for. */
#include "engine/cuda/cuda.h"
#include "engine/cuda/handle.h"

void cuda_product(struct matrix a, int a_t, struct matrix b, int b_t, float beta, struct matrix c)
{
    const float one = 1;
    uint64_t inner = a_t ? a.rows : a.columns;
    cuda_blas(cublasSgemm_64(cuda_handle, b_t ? CUBLAS_OP_T : CUBLAS_OP_N,
                             a_t ? CUBLAS_OP_T : CUBLAS_OP_N, (int64_t)c.columns, (int64_t)c.rows,
                             (int64_t)inner, &one, b.at, (int64_t)b.stride, a.at, (int64_t)a.stride,
                             &beta, c.at, (int64_t)c.stride),
              "cublasSgemm");
}
