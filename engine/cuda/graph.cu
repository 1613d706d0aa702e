/* graph.cu - pools over the rows of a segment, and products with a sparse matrix.
 *
 * A thread has one column of a segment or of a sparse row and takes its rows in their order, so
 * that a warp reads whole lines and nothing is added up by chance. Graphs are small: what several
 * rows read of x is in the cache.
 */
#include <stdlib.h>

#include "engine/cuda/finish.h"

enum { THREADS = 256 };

/* Rows are on their way BATCH at a time, the last one again where there are fewer. */
static __device__ __forceinline__ double column_sum(const float *x, uint64_t stride, uint64_t rows)
{
    enum { BATCH = 12 };
    double sum = 0;
    for (uint64_t first = 0; first < rows; first += BATCH) {
        float in[BATCH];
        UNROLL(12)
        for (uint64_t i = 0; i < BATCH; i++)
            in[i] = x[(first + i < rows ? first + i : rows - 1) * stride];
        UNROLL(12)
        for (uint64_t i = 0; i < BATCH; i++)
            if (first + i < rows)
                sum += (double)in[i];
    }
    return sum;
}

/* Row of the first largest value of a column. */
static __device__ __forceinline__ uint64_t column_largest(const float *x, uint64_t stride,
                                                          uint64_t rows)
{
    uint64_t best = 0;
    float most = x[0];
    UNROLL(8)
    for (uint64_t r = 1; r < rows; r++) {
        float value = x[r * stride];
        if (scalar_larger(value, most)) {
            best = r;
            most = value;
        }
    }
    return best;
}

__global__ void pool_columns(enum pooling kind, struct matrix x, struct segments s, struct matrix y)
{
    FOR_ITEMS(i, s.count * x.columns)
    {
        uint64_t n = i / x.columns, c = i % x.columns, rows = segment_rows(s, n);
        const float *in = x.at + segment_first(s, n) * x.stride + c;
        float *out = y.at + n * y.stride + c;
        if (kind == POOL_LAST || kind == POOL_MAX) {
            uint64_t r = kind == POOL_LAST ? rows - 1 : column_largest(in, x.stride, rows);
            *out = in[r * x.stride];
        } else {
            double sum = column_sum(in, x.stride, rows);
            *out = (float)(kind == POOL_SUM ? sum : sum / (double)rows);
            if (kind == POOL_MEAN_SUM)
                out[x.columns] = (float)sum;
        }
    }
}

__global__ void pool_columns_backward(enum pooling kind, struct matrix x, struct matrix dy,
                                      struct segments s, struct matrix dx)
{
    FOR_ITEMS(i, s.count * x.columns)
    {
        uint64_t n = i / x.columns, c = i % x.columns, rows = segment_rows(s, n);
        uint64_t first = segment_first(s, n), one = rows - 1;
        const float *d = dy.at + n * dy.stride + c;
        float mean = (float)((double)*d / (double)rows), each = kind == POOL_SUM ? *d : mean;
        int all = kind != POOL_LAST && kind != POOL_MAX;
        if (kind == POOL_MEAN_SUM)
            each = mean + d[x.columns];
        if (kind == POOL_MAX)
            one = column_largest(x.at + first * x.stride + c, x.stride, rows);
        for (uint64_t r = 0; r < rows; r++)
            dx.at[(first + r) * dx.stride + c] = all ? each : r == one ? *d : 0;
    }
}

void cuda_pool_forward(enum pooling kind, struct matrix x, struct segments s, struct matrix y)
{
    LAUNCH(pool_columns, cuda_blocks(s.count * x.columns, THREADS), THREADS, kind, x, s, y);
}

void cuda_pool_backward(enum pooling kind, struct matrix x, struct matrix dy, struct segments s,
                        struct matrix dx)
{
    LAUNCH(pool_columns_backward, cuda_blocks(s.count * x.columns, THREADS), THREADS, kind, x, dy,
           s, dx);
}

/* ---- sparse matrices ---- */

/* Numbers of one row that a thread has: four, where they lie on whole 16 bytes (8 of those in 16
 * bits), or one. */
struct four_numbers {
    enum { COUNT = FOUR };
    float at[COUNT];
    static __device__ __forceinline__ struct four_numbers load(const float *from)
    {
        float4 x = *(const float4 *)from;
        return {{x.x, x.y, x.z, x.w}};
    }
    template <typename half>
    static __device__ __forceinline__ struct four_numbers load(const uint16_t *from)
    {
        float4 x = halves_widen<half>(*(const struct four_halves *)from);
        return {{x.x, x.y, x.z, x.w}};
    }
    __device__ __forceinline__ void store(float *to) const
    {
        *(float4 *)to = make_float4(at[0], at[1], at[2], at[3]);
    }
    template <typename half> __device__ __forceinline__ void store(uint16_t *to) const
    {
        *(struct four_halves *)to = halves_narrow<half>(make_float4(at[0], at[1], at[2], at[3]));
    }
};

struct one_number {
    enum { COUNT = 1 };
    float at[COUNT];
    static __device__ __forceinline__ struct one_number load(const float *from)
    {
        return {{*from}};
    }
    template <typename half>
    static __device__ __forceinline__ struct one_number load(const uint16_t *from)
    {
        return {{half::widen(*from)}};
    }
    __device__ __forceinline__ void store(float *to) const
    {
        *to = at[0];
    }
    template <typename half> __device__ __forceinline__ void store(uint16_t *to) const
    {
        *to = half::narrow(at[0]);
    }
};

/* A kind as a type; of HALF_NONE, which no numbers are stored in, it is not called. */
template <int kind> struct halves_of {
    static __device__ __forceinline__ float widen(uint16_t h)
    {
        return half_value<kind>(h);
    }
    static __device__ __forceinline__ uint16_t narrow(float x)
    {
        return half_bits<kind>(x);
    }
};

template <int half, class numbers>
static __device__ __forceinline__ numbers mixed_load(const struct mixed &m, uint64_t place)
{
    if (half != HALF_NONE && m.halves)
        return numbers::template load<halves_of<half>>(m.halves + place);
    return numbers::load(m.at + place);
}

template <int half, class numbers>
static __device__ __forceinline__ void mixed_store(const struct mixed &m, uint64_t place,
                                                   const numbers &x)
{
    if (half != HALF_NONE && m.halves)
        x.template store<halves_of<half>>(m.halves + place);
    else
        x.store(m.at + place);
}

template <class numbers> static __device__ __forceinline__ void numbers_zero(numbers &x)
{
    UNROLL(4)
    for (int i = 0; i < numbers::COUNT; i++)
        x.at[i] = 0;
}

template <class numbers>
static __device__ __forceinline__ void numbers_add(numbers &sum, float factor, const numbers &x)
{
    UNROLL(4)
    for (int i = 0; i < numbers::COUNT; i++)
        sum.at[i] += factor * x.at[i];
}

/* sum += row r of a times the rows that `from` reads, at column c. Rows are short: BATCH values are
 * on their way together, the last one again where there are fewer. */
template <class source, class numbers>
static __device__ __forceinline__ void row_sum(const struct sparse &a, uint64_t r, uint64_t c,
                                               const source &from, numbers &sum)
{
    enum { BATCH = 4 };
    uint32_t end = a.begin[r + 1];
    for (uint32_t k = a.begin[r]; k < end; k += BATCH) {
        uint32_t column[BATCH];
        float value[BATCH];
        typename source::taken x[BATCH];
        UNROLL(4)
        for (uint32_t i = 0; i < BATCH; i++) {
            uint32_t at = k + i < end ? k + i : end - 1;
            column[i] = a.column[at];
            value[i] = a.value[at];
        }
        UNROLL(4)
        for (uint32_t i = 0; i < BATCH; i++)
            x[i] = from.take(column[i], c);
        UNROLL(4)
        for (uint32_t i = 0; i < BATCH; i++)
            if (k + i < end)
                numbers_add(sum, value[i], from.value(x[i]));
    }
}

/* ---- forward ---- */

/* What is added to a row's sum, and what becomes of it. */
struct sparse_finish {
    const float *bias;
    float beta;
    const float *skip;
    enum activation kind;
    uint16_t *kept;
};

template <class numbers, int half> struct rows_of {
    typedef numbers taken;
    struct mixed x;
    __device__ __forceinline__ numbers take(uint64_t r, uint64_t c) const
    {
        return mixed_load<half, numbers>(x, r * x.stride + c);
    }
    __device__ __forceinline__ numbers value(const numbers &x) const
    {
        return x;
    }
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
    UNROLL(4)
    for (int i = 0; i < numbers::COUNT; i++)
        sum.at[i] = finished(f.kind, (enum half)half, NULL, 0, sum.at[i]);
    if (half != HALF_NONE && f.kept)
        sum.template store<halves_of<half>>(f.kept + place);
    if (y)
        sum.store(y);
}

template <class numbers, int half>
__global__ void sparse_rows(struct sparse a, struct mixed x, struct sparse_finish f,
                            struct matrix y)
{
    struct rows_of<numbers, half> from = {
        x
    };
    uint64_t width = y.columns / numbers::COUNT;
    FOR_ITEMS(i, a.rows * width)
    {
        uint64_t r = i / width, c = (i - r * width) * numbers::COUNT;
        float *out = y.at ? y.at + r * y.stride + c : NULL;
        numbers sum = sparse_begin<numbers>(f, c, out);
        row_sum(a, r, c, from, sum);
        sparse_end<half>(f, r * y.columns + c, out, sum);
    }
}

static int by_four(const void *at, uint64_t bytes, uint64_t stride, uint64_t columns)
{
    return (uintptr_t)at % bytes == 0 && stride % FOUR == 0 && columns % FOUR == 0;
}

static int by_four(const struct mixed &m)
{
    return m.halves ? by_four(m.halves, sizeof(struct four_halves), m.stride, m.columns)
                    : by_four(m.at, sizeof(float4), m.stride, m.columns);
}

/* LAUNCH of the kernel, a template of numbers and half. */
#define LAUNCH_HALF(kernel, numbers, half, blocks, threads, ...)                                   \
    do {                                                                                           \
        if ((half) == HALF_F16)                                                                    \
            LAUNCH((kernel<numbers, HALF_F16>), blocks, threads, __VA_ARGS__);                     \
        else if ((half) == HALF_BF16)                                                              \
            LAUNCH((kernel<numbers, HALF_BF16>), blocks, threads, __VA_ARGS__);                    \
        else                                                                                       \
            LAUNCH((kernel<numbers, HALF_NONE>), blocks, threads, __VA_ARGS__);                    \
    } while (0)

void cuda_sparse_forward(struct sparse a, struct mixed x, const float *bias, float beta,
                         const float *skip, enum activation kind, enum half half, uint16_t *kept,
                         struct matrix y)
{
    struct sparse_finish f = {bias, beta, skip, kind, kept};
    uintptr_t vectors = (uintptr_t)bias | (uintptr_t)skip;
    if (by_four(x) && by_four(mixed_of(y)) && vectors % sizeof(float4) == 0 &&
        (uintptr_t)kept % sizeof(struct four_halves) == 0)
        LAUNCH_HALF(sparse_rows, four_numbers, half,
                    cuda_blocks(a.rows * (y.columns / FOUR), THREADS), THREADS, a, x, f, y);
    else
        LAUNCH_HALF(sparse_rows, one_number, half, cuda_blocks(a.rows * y.columns, THREADS),
                    THREADS, a, x, f, y);
}

void cuda_sparse_product(struct sparse a, struct matrix x, const float *bias, float beta,
                         struct matrix y)
{
    cuda_sparse_forward(a, mixed_of(x), bias, beta, NULL, ACTIVATION_COUNT, HALF_NONE, NULL, y);
}

/* ---- backward ---- */

#ifdef CUDA_EMULATED
enum { BACK_THREADS = 64 };
#else
enum { BACK_THREADS = 1024 };
#endif
/* Threads across a row at most, columns of blocks of a launch, blocks for a multiprocessor. */
enum { BACK_WIDTH = 64, BACK_TILES = 256, BACK_BLOCKS = 2 };

static __device__ __forceinline__ float undone(enum activation kind, float kept, float dy)
{
    switch (kind) {
#define UNDONE(NAME, name)                                                                         \
    case ACTIVATION_##NAME:                                                                        \
        return scalar_##name##_backward(kept, dy);
        ACTIVATIONS(UNDONE)
#undef UNDONE
    case ACTIVATION_COUNT:
        break;
    }
    return dy;
}

/* e of sparse_backward takes d's place. */
template <class numbers, int half>
__global__ void gradients_take(enum activation kind, struct mixed kept, struct mixed d)
{
    FOR_ITEMS(i, d.rows * d.columns / numbers::COUNT)
    {
        uint64_t place = i * numbers::COUNT;
        numbers x = mixed_load<half, numbers>(d, place), y = mixed_load<half, numbers>(kept, place);
        UNROLL(4)
        for (int n = 0; n < numbers::COUNT; n++)
            x.at[n] = half_rounded((enum half)half, undone(kind, y.at[n], x.at[n]));
        mixed_store<half>(d, place, x);
    }
}

/* The rows of e, which is d, or where the kind is relu, whose derivative costs nothing, made from
 * it. */
template <class numbers, int half> struct gradient_rows {
    struct taken {
        numbers d, kept;
    };
    int relu;
    struct mixed kept, d;
    __device__ __forceinline__ struct taken take(uint64_t r, uint64_t c) const
    {
        struct taken t;
        t.d = mixed_load<half, numbers>(d, r * d.columns + c);
        t.kept = relu ? mixed_load<half, numbers>(kept, r * d.columns + c) : t.d;
        return t;
    }
    __device__ __forceinline__ numbers value(const struct taken &t) const
    {
        numbers e;
        UNROLL(4)
        for (int i = 0; i < numbers::COUNT; i++)
            e.at[i] = half_rounded(
                (enum half)half, relu ? scalar_relu_backward(t.kept.at[i], t.d.at[i]) : t.d.at[i]);
        return e;
    }
};

/* Sums over a block's threads of one column, in those of its first row. All threads call it. */
template <class numbers>
static __device__ __forceinline__ numbers rows_reduce(numbers sum, numbers *shared)
{
    unsigned me = threadIdx.y * blockDim.x + threadIdx.x;
    shared[me] = sum;
    for (unsigned left = blockDim.y / 2; left > 0; left /= 2) {
        __syncthreads();
        if (threadIdx.y < left)
            numbers_add(shared[me], 1, shared[me + left * blockDim.x]);
    }
    sum = shared[me];
    __syncthreads();
    return sum;
}

static __device__ unsigned back_tickets[BACK_TILES];

/* sums[columns], where they are wanted: a block's rows, which are part_rows, have a part of them in
 * `parts`, and the last block of a tile of columns adds those. */
struct back_sums {
    float *sums, *parts; /* parts: [gridDim.y, columns] */
    int adds;
};

/* From column `first` on; a block of its rows' threads has blockDim.x times a few columns. */
template <class numbers, int half>
__global__ void __launch_bounds__(BACK_THREADS)
    sparse_rows_back(struct sparse a, struct gradient_rows<numbers, half> e, struct back_sums s,
                     uint64_t part_rows, uint64_t first, struct mixed g)
{
    __shared__ numbers shared[BACK_THREADS];
    uint64_t c = first + ((uint64_t)blockIdx.x * blockDim.x + threadIdx.x) * numbers::COUNT;
    uint64_t begin = blockIdx.y * part_rows, end = begin + part_rows, most = g.rows;
    numbers sum;
    numbers_zero(sum);
    if (e.d.rows > most)
        most = e.d.rows;
    end = end < most ? end : most;
    for (uint64_t r = begin + threadIdx.y; c < g.columns && r < end; r += blockDim.y) {
        numbers row;
        numbers_zero(row);
        if (s.sums && r < e.d.rows)
            numbers_add(sum, 1, e.value(e.take(r, c)));
        if (r >= g.rows)
            continue;
        row_sum(a, r, c, e, row);
        mixed_store<half>(g, r * g.columns + c, row);
    }
    if (!s.sums)
        return;
    sum = rows_reduce(sum, shared);
    if (threadIdx.y == 0 && c < g.columns)
        sum.store(s.parts + blockIdx.y * g.columns + c);
    if (!block_is_last(&back_tickets[blockIdx.x], gridDim.y))
        return;
    numbers_zero(sum);
    if (c < g.columns) {
        UNROLL(8)
        for (unsigned part = threadIdx.y; part < gridDim.y; part += blockDim.y)
            numbers_add(sum, 1, numbers::load(s.parts + part * g.columns + c));
    }
    sum = rows_reduce(sum, shared);
    if (threadIdx.y != 0 || c >= g.columns)
        return;
    if (s.adds)
        numbers_add(sum, 1, numbers::load(s.sums + c));
    sum.store(s.sums + c);
}

template <class numbers, int half>
static void back_run(struct sparse a, enum activation kind, struct mixed kept, struct mixed d,
                     struct back_sums s, struct mixed g)
{
    struct gradient_rows<numbers, half> e = {
        kind == ACTIVATION_RELU, kept, d
    };
    uint64_t rows = d.rows > g.rows ? d.rows : g.rows, width = g.columns / numbers::COUNT;
    unsigned across = 1;
    while (across < width && across < BACK_WIDTH)
        across *= 2;
    dim3 threads(across, BACK_THREADS / across);
    uint64_t tiles = (width + across - 1) / across, room = CUDA_SCRATCH_FLOATS / 2 / g.columns;
    static const int busy = getenv("FT_BACK") ? atoi(getenv("FT_BACK")) : BACK_BLOCKS; /* VARIANT */
    uint64_t wanted = (uint64_t)busy * (uint64_t)cuda_processors / tiles;
    wanted = wanted < room ? wanted : room;
    wanted = wanted ? wanted : 1;
    uint64_t part_rows = (rows + wanted - 1) / wanted;
    part_rows = (part_rows + threads.y - 1) / threads.y * threads.y;
    if (kind != ACTIVATION_RELU && kind != ACTIVATION_COUNT)
        LAUNCH((gradients_take<numbers, half>), cuda_blocks(d.rows * width, THREADS), THREADS, kind,
               kept, d);
    for (uint64_t tile = 0; tile < tiles; tile += BACK_TILES) {
        uint64_t left = tiles - tile, most = BACK_TILES;
        dim3 blocks((unsigned)(left < most ? left : most),
                    (unsigned)((rows + part_rows - 1) / part_rows));
        LAUNCH((sparse_rows_back<numbers, half>), blocks, threads, a, e, s, part_rows,
               tile * across * numbers::COUNT, g);
    }
}

template <class numbers>
static void back_halves(struct sparse a, enum activation kind, enum half half, struct mixed kept,
                        struct mixed d, struct back_sums s, struct mixed g)
{
    if (half == HALF_F16)
        back_run<numbers, HALF_F16>(a, kind, kept, d, s, g);
    else if (half == HALF_BF16)
        back_run<numbers, HALF_BF16>(a, kind, kept, d, s, g);
    else
        back_run<numbers, HALF_NONE>(a, kind, kept, d, s, g);
}

void cuda_sparse_backward(struct sparse a, enum activation kind, enum half half, struct mixed kept,
                          struct mixed d, int adds, float *sums, struct mixed g)
{
    struct back_sums s = {sums, cuda_scratch, adds};
    int fours = by_four(d) && by_four(g) && (uintptr_t)sums % sizeof(float4) == 0 &&
                (kind == ACTIVATION_COUNT || by_four(kept));
    if (fours)
        back_halves<four_numbers>(a, kind, half, kept, d, s, g);
    else
        back_halves<one_number>(a, kind, half, kept, d, s, g);
}
