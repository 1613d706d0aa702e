/* linear.cu - a linear layer's product and what follows it: bias, rounding to 16 bits, activation.
 *
 * Bias and relu are done by the product's own launch where cuBLAS can; the rest is one more, over
 * the outputs. (A kernel of our own on the tensor cores, three products of TF32 for one of float32,
 * with all of it in its epilogue, was slower than cuBLAS's everywhere: 148 us for 128, 732 for 573
 * a step of the dense and the graph model on an H200.)
 */
#include "engine/cuda/blas.h"

enum { THREADS = 256 };

static __device__ __forceinline__ float activated(enum activation kind, float x)
{
    switch (kind) {
#define ACTIVATED(NAME, name)                                                                      \
    case ACTIVATION_##NAME:                                                                        \
        return scalar_##name(x);
        ACTIVATIONS(ACTIVATED)
#undef ACTIVATED
    case ACTIVATION_COUNT:
        break;
    }
    return x;
}

static __device__ __forceinline__ float rounded(enum half half, float x)
{
    return half == HALF_NONE  ? x
           : half == HALF_F16 ? scalar_half(scalar_to_half(x))
                              : scalar_brain(scalar_to_brain(x));
}

/* What becomes of a sum: + bias of its column, rounded to the half, the activation
 * (ACTIVATION_COUNT: none), rounded again, and kept in 16 bits where `kept` is not NULL. */
struct finish {
    const float *bias;
    enum activation activation;
    enum half half;
    uint16_t *kept; /* [rows, columns] */
};

__global__ void sums_finish(struct matrix y, struct finish f)
{
    FOR_ITEMS(i, y.rows * y.columns)
    {
        uint64_t row = i / y.columns, column = i - row * y.columns;
        float *at = y.at + row * y.stride + column;
        float x = f.bias ? *at + f.bias[column] : *at;
        x = rounded(f.half, x);
        if (f.activation != ACTIVATION_COUNT)
            x = rounded(f.half, activated(f.activation, x));
        *at = x;
        if (f.kept)
            f.kept[i] = f.half == HALF_F16 ? scalar_to_half(x) : scalar_to_brain(x);
    }
}

void cuda_linear_forward(struct matrix x, struct matrix w, const float *bias, enum activation kind,
                         enum half half, uint16_t *kept, struct matrix y)
{
    struct finish f = {bias, kind, half, kept};
    if (cuda_blas_linear(x, w, bias, kind == ACTIVATION_RELU, y)) {
        f.bias = NULL;
        if (kind == ACTIVATION_RELU) /* of a rounded number is that of the number, rounded */
            f.activation = ACTIVATION_COUNT;
    } else {
        cuda_product(x, 0, w, 1, 0, y);
    }
    if (f.bias || f.half || f.activation != ACTIVATION_COUNT)
        LAUNCH(sums_finish, cuda_blocks(y.rows * y.columns, THREADS), THREADS, y, f);
}

void cuda_weight_gradient(struct matrix dy, struct matrix x, struct matrix dw, float *db)
{
    if (cuda_blas_gradient(dy, x, dw, db))
        return;
    cuda_product(dy, 1, x, 0, 0, dw);
    cuda_column_sums(dy, db);
}
