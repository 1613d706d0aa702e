/* mixed.cu - products whose operands may lie in 16 bits: by cuBLAS, for which those in float32 are
 * narrowed first, in the scratch. What it has no room for is multiplied in pieces, one after the
 * other: of the sums where the result is float32, so that they are added up in one order, else of
 * the result. */
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
static void operand_narrow(enum half half, struct mixed *m, unsigned place)
{
    uint16_t *to = (uint16_t *)cuda_scratch + place * CUDA_SCRATCH_FLOATS;
    if (m->halves)
        return;
    CUDA_MAIN_LANE();
    ensure(cuda_operand_narrow(half, m, to, CUDA_SCRATCH_FLOATS));
}

static void product_launch(enum half half, struct mixed a, int a_t, struct mixed b, int b_t,
                           float beta, struct mixed c)
{
    LAUNCH(product_numbers, cuda_blocks(c.rows * c.columns, THREADS), THREADS, half, a, a_t, b, b_t,
           beta, c);
}

/* A product of operands that there is room for. */
static void piece_take(enum half half, struct mixed a, int a_t, struct mixed b, int b_t, float beta,
                       struct mixed c)
{
    operand_narrow(half, &a, 0);
    operand_narrow(half, &b, 1);
    if (!cuda_blas_product_mixed(half, a, a_t, b, b_t, beta, c))
        product_launch(half, a, a_t, b, b_t, beta, c);
}

/* Rows and columns of op(m). */
static struct mixed part_of(struct mixed m, int turned, uint64_t row, uint64_t rows,
                            uint64_t column, uint64_t columns)
{
    uint64_t place = turned ? column * m.stride + row : row * m.stride + column;
    if (m.halves)
        m.halves += place;
    else
        m.at += place;
    m.rows = turned ? columns : rows;
    m.columns = turned ? rows : columns;
    return m;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* How many of `all` to take at a time where each is so many numbers that are to be narrowed: all,
 * or as many as there is room for, so that what is left of a row begins where vectors may. 0: there
 * is room for none. */
static uint64_t step_of(uint64_t all, uint64_t numbers)
{
    const uint64_t room = CUDA_SCRATCH_FLOATS, unit = 8;
    uint64_t most = numbers ? room / numbers : all;
    return most >= all ? all : most > unit ? most / unit * unit : most;
}

/* Of a product, or of a piece of one. */
struct extents {
    uint64_t rows, columns, inner;
};

/* Sums in float32 can be gone on with; of those in 16 bits some are taken whole. */
static struct extents piece_of(struct extents all, struct mixed a, struct mixed b, struct mixed c)
{
    uint64_t of_a = a.halves ? 0 : all.rows, of_b = b.halves ? 0 : all.columns;
    if (!c.halves)
        return {all.rows, all.columns, step_of(all.inner, of_a > of_b ? of_a : of_b)};
    return {step_of(all.rows, a.halves ? 0 : all.inner),
            step_of(all.columns, b.halves ? 0 : all.inner), all.inner};
}

void cuda_product_mixed(enum half half, struct mixed a, int a_t, struct mixed b, int b_t,
                        float beta, struct mixed c)
{
    struct extents all = {c.rows, c.columns, a_t ? a.rows : a.columns};
    struct extents piece = piece_of(all, a, b, c);
    if (!piece.rows || !piece.columns || !piece.inner) {
        product_launch(half, a, a_t, b, b_t, beta, c);
        return;
    }
    for (uint64_t r = 0; r < all.rows; r += piece.rows)
        for (uint64_t n = 0; n < all.columns; n += piece.columns)
            for (uint64_t k = 0; k < all.inner; k += piece.inner) {
                uint64_t rows = least(piece.rows, all.rows - r);
                uint64_t columns = least(piece.columns, all.columns - n);
                uint64_t inner = least(piece.inner, all.inner - k);
                piece_take(half, part_of(a, a_t, r, rows, k, inner), a_t,
                           part_of(b, b_t, k, inner, n, columns), b_t, k ? 1 : beta,
                           part_of(c, 0, r, rows, n, columns));
            }
}
