/* graph.cu - pools over the rows of a segment, and products with a sparse matrix.
 *
 * A thread has one column of a segment, or one, four or eight of a sparse row, and takes its rows
 * in their order, so that a warp reads whole lines and nothing is added up by chance. Graphs are
 * small: what several rows read of x is in the cache.
 */
#include "engine/cuda/early.h"
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
    launch_wait();
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
    launch_wait();
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
    LAUNCH_EARLY(pool_columns, cuda_blocks(s.count * x.columns, THREADS), THREADS, kind, x, s, y);
}

void cuda_pool_backward(enum pooling kind, struct matrix x, struct matrix dy, struct segments s,
                        struct matrix dx)
{
    LAUNCH_EARLY(pool_columns_backward, cuda_blocks(s.count * x.columns, THREADS), THREADS, kind, x,
                 dy, s, dx);
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
    typedef struct four_halves narrow;
    template <typename half>
    static __device__ __forceinline__ struct four_numbers widen(const narrow &from)
    {
        float4 x = halves_widen<half>(from);
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

/* Eight, on whole 16 bytes of numbers in 16 bits. */
static const unsigned EIGHT = 2 * FOUR;
struct eight_numbers {
    enum { COUNT = 8 };
    float at[COUNT];
    static __device__ __forceinline__ struct eight_numbers load(const float *from)
    {
        float4 x = ((const float4 *)from)[0], y = ((const float4 *)from)[1];
        return {{x.x, x.y, x.z, x.w, y.x, y.y, y.z, y.w}};
    }
    typedef uint4 narrow;
    template <typename half>
    static __device__ __forceinline__ struct eight_numbers widen(const narrow &x)
    {
        return {{half::widen((uint16_t)x.x), half::widen((uint16_t)(x.x >> 16)),
                 half::widen((uint16_t)x.y), half::widen((uint16_t)(x.y >> 16)),
                 half::widen((uint16_t)x.z), half::widen((uint16_t)(x.z >> 16)),
                 half::widen((uint16_t)x.w), half::widen((uint16_t)(x.w >> 16))}};
    }
    __device__ __forceinline__ void store(float *to) const
    {
        ((float4 *)to)[0] = make_float4(at[0], at[1], at[2], at[3]);
        ((float4 *)to)[1] = make_float4(at[4], at[5], at[6], at[7]);
    }
    template <typename half> static __device__ __forceinline__ uint32_t pair(float low, float high)
    {
        return half::narrow(low) | (uint32_t)half::narrow(high) << 16;
    }
    template <typename half> __device__ __forceinline__ void store(uint16_t *to) const
    {
        *(uint4 *)to = uint4{pair<half>(at[0], at[1]), pair<half>(at[2], at[3]),
                             pair<half>(at[4], at[5]), pair<half>(at[6], at[7])};
    }
};

struct one_number {
    enum { COUNT = 1 };
    float at[COUNT];
    static __device__ __forceinline__ struct one_number load(const float *from)
    {
        return {{*from}};
    }
    typedef uint16_t narrow;
    template <typename half>
    static __device__ __forceinline__ struct one_number widen(const narrow &from)
    {
        return {{half::widen(from)}};
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
template <int kind> struct half_kind {
    static __device__ __forceinline__ float widen(uint16_t h)
    {
        return half_value<kind>(h);
    }
    static __device__ __forceinline__ uint16_t narrow(float x)
    {
        return half_bits<kind>(x);
    }
};

/* Numbers of a matrix as they lie there, in 16 bits where halves is set; and what they are. */
template <class numbers, int half, int halves> struct stored {
    typedef numbers type;
    static __device__ __forceinline__ type load(const struct mixed &m, uint64_t place)
    {
        return numbers::load(m.at + place);
    }
    static __device__ __forceinline__ numbers value(const type &x)
    {
        return x;
    }
};

template <class numbers, int half> struct stored<numbers, half, 1> {
    typedef typename numbers::narrow type;
    static __device__ __forceinline__ type load(const struct mixed &m, uint64_t place)
    {
        return *(const type *)(m.halves + place);
    }
    static __device__ __forceinline__ numbers value(const type &x)
    {
        return numbers::template widen<half_kind<half>>(x);
    }
};

template <int half, class numbers>
static __device__ __forceinline__ void mixed_store(const struct mixed &m, uint64_t place,
                                                   const numbers &x)
{
    if (half != HALF_NONE && m.halves)
        x.template store<half_kind<half>>(m.halves + place);
    else
        x.store(m.at + place);
}

template <class numbers> static __device__ __forceinline__ void numbers_zero(numbers &x)
{
    UNROLL(8)
    for (int i = 0; i < numbers::COUNT; i++)
        x.at[i] = 0;
}

template <class numbers>
static __device__ __forceinline__ void numbers_add(numbers &sum, float factor, const numbers &x)
{
    UNROLL(8)
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

template <class numbers, int half, int halves> struct rows_of {
    typedef struct stored<numbers, half, halves> of_x;
    typedef typename of_x::type taken;
    struct mixed x;
    __device__ __forceinline__ taken take(uint64_t r, uint64_t c) const
    {
        return of_x::load(x, r * x.stride + c);
    }
    __device__ __forceinline__ numbers value(const taken &x) const
    {
        return of_x::value(x);
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

/* Can so many of its numbers be had at a time? at NULL: nobody asks for any. */
static int goes_by(unsigned count, const struct mixed &m)
{
    uintptr_t at = m.halves ? (uintptr_t)m.halves : (uintptr_t)m.at;
    uint64_t bytes = count * (m.halves ? sizeof *m.halves : sizeof *m.at);
    return at % (bytes < sizeof(float4) ? bytes : sizeof(float4)) == 0 && m.stride % count == 0 &&
           m.columns % count == 0;
}

static int goes_by(unsigned count, const void *kept, const float *bias, const float *skip)
{
    return ((uintptr_t)bias | (uintptr_t)skip) % sizeof(float4) == 0 &&
           (uintptr_t)kept % (count * sizeof(uint16_t)) == 0;
}

/* work<numbers, half, halves>(...): whether a matrix has them is known when it is compiled. */
#define BY_HALF(work, numbers, half, halves, ...)                                                  \
    ((half) == HALF_NONE  ? work<numbers, HALF_NONE, 0>(__VA_ARGS__)                               \
     : (half) == HALF_F16 ? (halves) ? work<numbers, HALF_F16, 1>(__VA_ARGS__)                     \
                                     : work<numbers, HALF_F16, 0>(__VA_ARGS__)                     \
     : (halves) ? work<numbers, HALF_BF16, 1>(__VA_ARGS__)                                         \
                          : work<numbers, HALF_BF16, 0>(__VA_ARGS__))

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

/* ---- backward ---- */

/* Rows of a block, at least; numbers across it, at most, of threads that have some; and what adds
 * up the parts of sums that blocks leave. */
enum { BACK_ROWS = 8, BACK_WIDTH = 256, BACK_THREADS = 512, PARTS_WIDTH = 16 };
#ifdef CUDA_EMULATED
enum { PARTS_ROWS = 4 };
#else
enum { PARTS_ROWS = 64 };
#endif

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

/* e of sparse_backward takes d's place. What was kept is in 16 bits where there is a half. */
template <class numbers, int half, int halves>
__global__ void gradients_take(enum activation kind, struct mixed kept, struct mixed d)
{
    typedef struct stored<numbers, half, halves> of_d;
    typedef struct stored<numbers, half, half != HALF_NONE> of_kept;
    launch_wait();
    FOR_ITEMS(i, d.rows * d.columns / numbers::COUNT)
    {
        uint64_t place = i * numbers::COUNT;
        numbers x = of_d::value(of_d::load(d, place));
        numbers y = of_kept::value(of_kept::load(kept, place));
        UNROLL(8)
        for (int n = 0; n < numbers::COUNT; n++)
            x.at[n] = half_rounded((enum half)half, undone(kind, y.at[n], x.at[n]));
        mixed_store<half>(d, place, x);
    }
}

/* The rows of e, which is d, or where the kind is relu, whose derivative costs nothing, made from
 * it. */
template <class numbers, int half, int halves> struct gradient_rows {
    typedef struct stored<numbers, half, halves> of_d;
    typedef struct stored<numbers, half, half != HALF_NONE> of_kept;
    struct taken {
        typename of_d::type d;
        typename of_kept::type kept;
    };
    int relu;
    struct mixed kept, d;
    __device__ __forceinline__ struct taken take(uint64_t r, uint64_t c) const
    {
        struct taken t = {};
        t.d = of_d::load(d, r * d.columns + c);
        if (relu)
            t.kept = of_kept::load(kept, r * d.columns + c);
        return t;
    }
    __device__ __forceinline__ numbers value(const struct taken &t) const
    {
        numbers e = of_d::value(t.d), y = of_kept::value(t.kept);
        UNROLL(8)
        for (int i = 0; i < numbers::COUNT; i++)
            e.at[i] = half_rounded((enum half)half,
                                   relu ? scalar_relu_backward(y.at[i], e.at[i]) : e.at[i]);
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

/* A block of its rows' threads has blockDim.x times a few columns, and of each row's e the sums of
 * its own rows at parts[blockIdx.y, columns], unless that is NULL. */
template <class numbers, int half, int halves>
__global__ void __launch_bounds__(numbers::COUNT == 8 ? BACK_THREADS / 2 : BACK_THREADS,
                                  numbers::COUNT == 8 ? 3 : 2)
    sparse_rows_back(struct sparse a, struct gradient_rows<numbers, half, halves> e, float *parts,
                     uint64_t part_rows, struct mixed g)
{
    __shared__ numbers shared[BACK_THREADS];
    uint64_t c = ((uint64_t)blockIdx.x * blockDim.x + threadIdx.x) * numbers::COUNT;
    uint64_t begin = blockIdx.y * part_rows, end = begin + part_rows;
    uint64_t most = g.rows > e.d.rows ? g.rows : e.d.rows;
    numbers sum;
    numbers_zero(sum);
    end = end < most ? end : most;
    launch_wait();
    for (uint64_t r = begin + threadIdx.y; c < g.columns && r < end; r += blockDim.y) {
        numbers row;
        numbers_zero(row);
        typename gradient_rows<numbers, half, halves>::taken own = e.take(r < e.d.rows ? r : 0, c);
        if (r < g.rows) {
            row_sum(a, r, c, e, row);
            mixed_store<half>(g, r * g.columns + c, row);
        }
        if (r < e.d.rows)
            numbers_add(sum, 1, e.value(own));
    }
    if (!parts)
        return;
    sum = rows_reduce(sum, shared);
    if (threadIdx.y == 0 && c < g.columns)
        sum.store(parts + blockIdx.y * g.columns + c);
}

/* sums = the rows of parts, of which there are some hundred, added to what it is if adds. */
__global__ void __launch_bounds__(PARTS_WIDTH *PARTS_ROWS)
    parts_add(struct matrix parts, int adds, float *sums)
{
    enum { BATCH = 13 };
    __shared__ one_number shared[PARTS_WIDTH * PARTS_ROWS];
    uint64_t c = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    one_number sum = {{0}};
    launch_wait();
    for (uint64_t first = threadIdx.y; c < parts.columns && first < parts.rows;
         first += BATCH * blockDim.y) {
        float in[BATCH];
        UNROLL(13)
        for (unsigned i = 0; i < BATCH; i++) {
            uint64_t r = first + i * blockDim.y;
            in[i] = r < parts.rows ? parts.at[r * parts.stride + c] : 0;
        }
        UNROLL(13)
        for (unsigned i = 0; i < BATCH; i++)
            sum.at[0] += in[i];
    }
    sum = rows_reduce(sum, shared);
    if (threadIdx.y == 0 && c < parts.columns)
        sums[c] = (adds ? sums[c] : 0) + sum.at[0];
}

template <class numbers, int half, int halves>
static void back_run(struct sparse a, enum activation kind, struct mixed kept, struct mixed d,
                     int adds, float *sums, struct mixed g)
{
    struct gradient_rows<numbers, half, halves> e = {
        kind == ACTIVATION_RELU, kept, d
    };
    uint64_t rows = d.rows > g.rows ? d.rows : g.rows, width = g.columns / numbers::COUNT;
    uint64_t room = CUDA_SCRATCH_FLOATS / g.columns, most = CUDA_BLOCKS_MAX;
    unsigned across = 1, down = BACK_ROWS;
    ensure(room > 0);
    most = room < most ? room : most;
    while (across < width && across * numbers::COUNT < BACK_WIDTH &&
           across < BACK_THREADS / BACK_ROWS)
        across *= 2;
    while (2 * across * down <= BACK_THREADS / 2)
        down *= 2;
    dim3 threads(across, down);
    uint64_t part_rows = (rows + most - 1) / most;
    part_rows = (part_rows + threads.y - 1) / threads.y * threads.y;
    dim3 blocks((unsigned)((width + across - 1) / across),
                (unsigned)((rows + part_rows - 1) / part_rows));
    if (kind != ACTIVATION_RELU && kind != ACTIVATION_COUNT)
        LAUNCH_EARLY((gradients_take<numbers, half, halves>), cuda_blocks(d.rows * width, THREADS),
                     THREADS, kind, kept, d);
    CUDA_MAIN_LANE();
    LAUNCH_EARLY((sparse_rows_back<numbers, half, halves>), blocks, threads, a, e,
                 sums ? cuda_scratch : NULL, part_rows, g);
    if (sums)
        LAUNCH_EARLY(parts_add, (unsigned)((g.columns + PARTS_WIDTH - 1) / PARTS_WIDTH),
                     dim3(PARTS_WIDTH, PARTS_ROWS), matrix_of(cuda_scratch, blocks.y, g.columns),
                     adds, sums);
}

void cuda_sparse_backward(struct sparse a, enum activation kind, enum half half, struct mixed kept,
                          struct mixed d, int adds, float *sums, struct mixed g)
{
    unsigned by = d.halves ? EIGHT : EIGHT / 2; /* more would not fit the registers */
    while (by > 1 &&
           !(goes_by(by, d) && goes_by(by, g) && (kind == ACTIVATION_COUNT || goes_by(by, kept))))
        by = by == EIGHT ? EIGHT / 2 : 1;
    if (by == EIGHT)
        half == HALF_F16 ? back_run<eight_numbers, HALF_F16, 1>(a, kind, kept, d, adds, sums, g)
                         : back_run<eight_numbers, HALF_BF16, 1>(a, kind, kept, d, adds, sums, g);
    else if (by == FOUR)
        BY_HALF(back_run, four_numbers, half, d.halves, a, kind, kept, d, adds, sums, g);
    else
        BY_HALF(back_run, one_number, half, d.halves, a, kind, kept, d, adds, sums, g);
}
