/* linear.cu - a linear layer: the product and what follows it (bias, rounding to 16 bits,
 * activation), and back.
 *
 * On few rows that is one launch (dense.h). On many cuBLAS multiplies: bias and relu are done by
 * the product's own launch where it can; the rest is one more, over the outputs.
 */
#include "engine/cuda/blas.h"
#include "engine/cuda/dense.h"
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
    if (narrow_forward(x, w, bias, kind, half, kept, y) ||
        dense_forward(x, w, bias, kind, half, kept, y))
        return;
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

static void weight_gradient(struct matrix dy, struct matrix x, int adds, struct matrix dw,
                            float *db)
{
    if (!adds && cuda_blas_gradient(dy, x, dw, db))
        return;
    cuda_product(dy, 1, x, 0, (float)adds, dw);
    cuda_column_sums(dy, adds, db);
}

/* dx of what is behind the kind, whose output is x, or in 16 bits. */
static void activation_gradient(enum activation kind, const float *x, const uint16_t *x_half,
                                enum half half, int rounds, struct matrix dx)
{
    uint64_t count = dx.rows * dx.columns;
    if (kind != ACTIVATION_COUNT && x_half && rounds) {
        cuda_activation_backward_half(kind, half, x_half, dx.at, dx.at, count);
        return;
    }
    if (rounds)
        cuda_round_half(half, dx);
    if (kind == ACTIVATION_COUNT)
        return;
    cuda_activation_backward(kind, x, dx.at, dx.at, count);
    if (rounds)
        cuda_round_half(half, dx);
}

void cuda_linear_backward(struct matrix dy, struct matrix x, const uint16_t *x_half,
                          struct matrix w, int adds, struct matrix dw, float *db,
                          enum activation kind, enum half half, int rounds, struct matrix dx)
{
    if ((narrow_backward(dy, x, x_half, w, adds, dw, db, kind, half, rounds, dx) ||
         dense_backward(dy, x, x_half, w, adds, dw, db, kind, half, rounds, dx)))
        return;
    if (x_half)
        cuda_load_half(half, x_half, x.at, x.rows * x.columns);
    if (dw.at)
        weight_gradient(dy, x, adds, dw, db);
    if (!dx.at)
        return;
    cuda_product(dy, 0, w, 0, 0, dx);
    activation_gradient(kind, x.at, x_half, half, rounds, dx);
}
