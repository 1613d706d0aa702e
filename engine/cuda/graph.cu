/* graph.cu - products with a sparse matrix, and what follows them in a layer's forward (sparse.h).
 */
#include "engine/cuda/convolution_tiles.h"
#include "engine/cuda/early.h"
#include "engine/cuda/finish.h"
#include "engine/cuda/sparse.h"

enum { THREADS = 256 };

/* What is added to a row's sum, and what becomes of it. */
struct sparse_finish {
    const float *bias;
    float beta;
    const float *skip;
    enum activation kind;
    uint16_t *kept;
};

/* What column c of a row begins with. */
template <class numbers>
static __device__ __forceinline__ numbers sparse_begin(const struct sparse_finish &f, uint64_t c,
                                                       const float *was)
{
    numbers sum;
    numbers_zero(sum);
    if (f.beta != 0)
        numbers_add(sum, f.beta, numbers::load(was));
    if (f.bias)
        numbers_add(sum, 1, numbers::load(f.bias + c));
    return sum;
}

/* y NULL: only what is kept is wanted. place: of the sum in y, which is dense where there is more
 * to do than to add up. */
template <int half, class numbers>
static __device__ __forceinline__ void sparse_end(const struct sparse_finish &f, uint64_t place,
                                                  float *y, numbers &sum)
{
    if (f.skip)
        numbers_add(sum, 1, numbers::load(f.skip + place));
    UNROLL(8)
    for (int i = 0; i < numbers::COUNT; i++)
        sum.at[i] = finished(f.kind, (enum half)half, NULL, 0, sum.at[i]);
    if (half != HALF_NONE && f.kept)
        sum.template store<half_kind<half>>(f.kept + place);
    if (y)
        sum.store(y);
}

template <class numbers, int half, int halves>
__global__ void sparse_rows(struct sparse a, struct mixed x, struct sparse_finish f,
                            struct matrix y)
{
    struct rows_of<numbers, half, halves> from = {
        x
    };
    uint64_t width = y.columns / numbers::COUNT;
    launch_wait();
    FOR_ITEMS(i, a.rows * width)
    {
        uint64_t r = i / width, c = (i - r * width) * numbers::COUNT;
        float *out = y.at ? y.at + r * y.stride + c : NULL;
        numbers sum = sparse_begin<numbers>(f, c, out);
        row_sum(a, r, c, from, sum);
        sparse_end<half>(f, r * y.columns + c, out, sum);
    }
}

static int goes_by(unsigned count, const void *kept, const float *bias, const float *skip)
{
    return ((uintptr_t)bias | (uintptr_t)skip) % sizeof(float4) == 0 &&
           (uintptr_t)kept % (count * sizeof(uint16_t)) == 0;
}

template <class numbers, int half, int halves>
static void rows_forward(struct sparse a, struct mixed x, const struct sparse_finish &f,
                         struct matrix y)
{
    LAUNCH_EARLY((sparse_rows<numbers, half, halves>),
                 cuda_blocks(a.rows * (y.columns / numbers::COUNT), THREADS), THREADS, a, x, f, y);
}

void cuda_sparse_forward(struct sparse a, struct mixed x, const float *bias, float beta,
                         const float *skip, enum activation kind, enum half half, uint16_t *kept,
                         struct matrix y)
{
    struct sparse_finish f = {bias, beta, skip, kind, kept};
    unsigned by = half ? EIGHT : EIGHT / 2;
    while (by > 1 && !(goes_by(by, x) && goes_by(by, mixed_of(y)) && goes_by(by, kept, bias, skip)))
        by = by == EIGHT ? EIGHT / 2 : 1;
    if (by == EIGHT)
        BY_HALF(rows_forward, eight_numbers, half, x.halves, a, x, f, y);
    else if (by == FOUR)
        BY_HALF(rows_forward, four_numbers, half, x.halves, a, x, f, y);
    else
        BY_HALF(rows_forward, one_number, half, x.halves, a, x, f, y);
}

void cuda_sparse_product(struct sparse a, struct matrix x, const float *bias, float beta,
                         struct matrix y)
{
    cuda_sparse_forward(a, mixed_of(x), bias, beta, NULL, ACTIVATION_COUNT, HALF_NONE, NULL, y);
}

void cuda_convolution_forward(struct sparse a, struct mixed x, struct mixed w, const float *bias,
                              enum activation kind, enum half half, uint16_t *kept,
                              struct mixed sums, struct matrix y)
{
    if (convolution_tiles_forward(a, x, w, bias, kind, half, kept, y))
        return;
    cuda_product_mixed(half, x, 0, w, 1, 0, sums);
    cuda_sparse_forward(a, sums, bias, 0, NULL, kind, half, kept, y);
}
