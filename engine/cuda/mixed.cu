/* mixed.cu - products whose operands may lie in 16 bits: by cuBLAS, for which those in float32 are
 * narrowed first. */
#include "engine/cuda/blas.h"
#include "engine/cuda/early.h"
#include "engine/cuda/half.h"

enum { THREADS = 256 };

/* A number as a product takes it. */
static __device__ __forceinline__ float mixed_number(enum half half, const struct mixed &m,
                                                     uint64_t i)
{
    if (m.halves)
        return half == HALF_F16 ? half_F16::widen(m.halves[i]) : half_BF16::widen(m.halves[i]);
    return half_rounded(half, m.at[i]);
}

/* What cuBLAS does not do: a number a thread. */
__global__ void product_numbers(enum half half, struct mixed a, int a_t, struct mixed b, int b_t,
                                float beta, struct mixed c)
{
    uint64_t inner = a_t ? a.rows : a.columns;
    FOR_ITEMS(i, c.rows * c.columns)
    {
        uint64_t row = i / c.columns, column = i - row * c.columns;
        uint64_t place = row * c.stride + column;
        float sum = 0;
        for (uint64_t k = 0; k < inner; k++)
            sum += mixed_number(half, a, a_t ? k * a.stride + row : row * a.stride + k) *
                   mixed_number(half, b, b_t ? column * b.stride + k : k * b.stride + column);
        if (c.halves)
            c.halves[place] = half == HALF_F16 ? half_F16::narrow(sum) : half_BF16::narrow(sum);
        else
            c.at[place] = beta == 0 ? sum : sum + beta * c.at[place];
    }
}

__global__ void numbers_narrow(enum half half, struct matrix x, uint16_t *h)
{
    launch_wait();
    FOR_ITEMS(i, x.rows * x.columns)
    {
        uint64_t row = i / x.columns;
        float number = x.at[row * x.stride + (i - row * x.columns)];
        h[i] = half == HALF_F16 ? half_F16::narrow(number) : half_BF16::narrow(number);
    }
}

int cuda_operand_narrow(enum half half, struct mixed *m, uint16_t *to, uint64_t room)
{
    struct matrix x = {m->at, m->rows, m->columns, m->stride};
    if (m->halves)
        return 1;
    if (m->rows * m->columns > room)
        return 0;
    LAUNCH_EARLY(numbers_narrow, cuda_blocks(m->rows * m->columns, THREADS), THREADS, half, x, to);
    *m = mixed_at(to, NULL, m->rows, m->columns);
    return 1;
}

/* In one half of the scratch. */
static int operand_narrow(enum half half, struct mixed *m, unsigned place)
{
    if (m->halves)
        return 1;
    CUDA_MAIN_LANE();
    return cuda_operand_narrow(half, m, (uint16_t *)cuda_scratch + place * CUDA_SCRATCH_FLOATS,
                               CUDA_SCRATCH_FLOATS);
}

static int blas_product_mixed(enum half half, struct mixed a, int a_t, struct mixed b, int b_t,
                              float beta, struct mixed c)
{
    return operand_narrow(half, &a, 0) && operand_narrow(half, &b, 1) &&
           cuda_blas_product_mixed(half, a, a_t, b, b_t, beta, c);
}

void cuda_product_mixed(enum half half, struct mixed a, int a_t, struct mixed b, int b_t,
                        float beta, struct mixed c)
{
    if (!blas_product_mixed(half, a, a_t, b, b_t, beta, c))
        LAUNCH(product_numbers, cuda_blocks(c.rows * c.columns, THREADS), THREADS, half, a, a_t, b,
               b_t, beta, c);
}
