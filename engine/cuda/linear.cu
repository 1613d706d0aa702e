/* linear.cu - a linear layer's product and what follows it: bias, rounding to 16 bits, activation.
 *
 * Bias and relu are done by the product's own launch where cuBLAS can; the rest is one more, over
 * the outputs. (A kernel of our own on the tensor cores, three products of TF32 for one of float32,
 * with all of it in its epilogue, was slower than cuBLAS's everywhere: 149 us for 127, 732 for 573
 * a step of the dense and the graph model on an H200.)
 */
#include "engine/cuda/blas.h"
#include "engine/cuda/finish.h"

enum { THREADS = 256 };

__global__ void sums_finish(struct matrix y, const float *bias, enum activation kind,
                            enum half half, uint16_t *kept)
{
    FOR_ITEMS(i, y.rows * y.columns)
    {
        uint64_t row = i / y.columns, column = i - row * y.columns;
        float *at = y.at + row * y.stride + column;
        *at = finished(kind, half, kept, i, bias ? *at + bias[column] : *at);
    }
}

void cuda_linear_forward(struct matrix x, struct matrix w, const float *bias, enum activation kind,
                         enum half half, uint16_t *kept, struct matrix y)
{
    if (cuda_blas_linear(x, w, bias, kind == ACTIVATION_RELU, y)) {
        bias = NULL;
        if (kind == ACTIVATION_RELU) /* of a rounded number is that of the number, rounded */
            kind = ACTIVATION_COUNT;
    } else {
        cuda_product(x, 0, w, 1, 0, y);
    }
    if (bias || half || kind != ACTIVATION_COUNT)
        LAUNCH(sums_finish, cuda_blocks(y.rows * y.columns, THREADS), THREADS, y, bias, kind, half,
               kept);
}

void cuda_weight_gradient(struct matrix dy, struct matrix x, int adds, struct matrix dw, float *db)
{
    if (!adds && cuda_blas_gradient(dy, x, dw, db))
        return;
    cuda_product(dy, 1, x, 0, (float)adds, dw);
    cuda_column_sums(dy, adds, db);
}
