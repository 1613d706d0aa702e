/* convolution_tiles.cu - (a x) w of a sparse a, a tile of the result to a block, on the tensor
 * cores in 16 bits: what a layer of a graph network does in one direction, in one launch.
 *
 * A block gathers a x of its rows, some columns of it at a time, to shared memory, while the part
 * of w that they meet is on its way there; then it multiplies them. The blocks of one row of tiles
 * gather the same rows: they are few, and what they read of x is in the cache. Which entries of a
 * are a row's they have in shared memory, so that what they point to is waited for once.
 */
#include "engine/cuda/convolution_tiles.h"

#include "engine/cuda/copies.h"
#include "engine/cuda/early.h"
#include "engine/cuda/finish.h"
#include "engine/cuda/mma.h"
#include "engine/cuda/sparse.h"

enum {
    ROWS = 64, /* of a tile: of two rows of warps */
    WARP_ROWS = 32,
    WARP_COLUMNS = 32,
    DOWN = WARP_ROWS / 16, /* products of a warp below and beside one another */
    ACROSS = WARP_COLUMNS / 8,
    STEP = 16,     /* of k, of a product on the tensor cores */
    DEEP = 256,    /* of k, in shared memory at a time */
    GROUP = 64,    /* of k, of w's part: the next products' are on their way during these */
    PIECE = 8,     /* numbers of 16 bytes */
    ENTRIES = 512, /* of the tile's rows of a; more are read where they are */
    AT_ONCE = 2,   /* rows that a thread gathers together */
    BATCH = 4,     /* entries of each */
    COLUMNS_MAX = 512,
    SPAN_K = DEEP + PIECE, /* a row in shared memory, see mma_load */
    GATHERED = ROWS * SPAN_K
};

/* Shared memory of a block, and what it has for a tile of so many columns: two blocks to a
 * multiprocessor, or one that gathers no row again. */
enum { NARROW = 128, WIDE = 256 };
template <int columns> struct workplace {
    enum {
        COLUMNS = columns,
        THREADS = 2 * columns,
        BLOCKS = WIDE / columns, /* at a time */
        WARPS_ACROSS = columns / WARP_COLUMNS,
        SPAN_COLUMNS = columns + PIECE,
        WEIGHTS = DEEP * SPAN_COLUMNS
    };
    static_assert(THREADS / WARP == ROWS / WARP_ROWS * WARPS_ACROSS, "a warp has a part of it");
    static_assert(columns * SPAN_K <= WEIGHTS, "w as it is, or turned");
    static_assert(ROWS * SPAN_COLUMNS <= GATHERED, "results lie where the gathered rows were");
    static_assert(THREADS * PIECE * sizeof(float) <= GATHERED * sizeof(uint16_t), "so do sums");
    static_assert((int)DEEP <= (int)THREADS, "a sum a thread");
    uint16_t gathered[GATHERED], weights[WEIGHTS];
    uint32_t begin[ROWS + 1], column[ENTRIES];
    float value[ENTRIES];
};

/* c[R, N] = (a x)[R, K] op(w)[K, N]; w is [N, K], or turned [K, N]. */
struct tiles_work {
    struct sparse a;
    const uint16_t *w;
    unsigned depth, columns, tiles_across; /* K, N */
};

/* A block's tile. */
struct tile {
    unsigned row, column, across; /* across: its place among those beside one another */
};

/* ---- the rows of a ---- */

template <class place>
static __device__ __forceinline__ void entries_take(const struct sparse &a, const struct tile &t,
                                                    place *s)
{
    for (unsigned r = threadIdx.x; r <= ROWS; r += place::THREADS)
        s->begin[r] = a.begin[t.row + r < a.rows ? t.row + r : a.rows];
    __syncthreads();
    uint32_t first = s->begin[0], count = s->begin[ROWS] - first;
    for (unsigned k = threadIdx.x; k < count && k < ENTRIES; k += place::THREADS) {
        s->column[k] = a.column[first + k];
        s->value[k] = a.value[first + k];
    }
    __syncthreads();
}

struct entry {
    uint32_t column;
    float value;
};

template <class place>
static __device__ __forceinline__ struct entry entry_at(const struct sparse &a, const place *s,
                                                        uint32_t k)
{
    uint32_t i = k - s->begin[0];
    if (i < ENTRIES)
        return {s->column[i], s->value[i]};
    return {a.column[k], a.value[k]};
}

/* A thread's rows of the tile, of each of which it has PIECE columns: r, r + apart, .. */
struct share {
    unsigned r, apart, column; /* column: of the DEEP ones that are gathered at a time */
};

static __device__ __forceinline__ struct share share_of(unsigned threads, unsigned k_count)
{
    unsigned pieces = STEP / PIECE;
    while (pieces * PIECE < k_count)
        pieces *= 2;
    return {threadIdx.x / pieces, threads / pieces, threadIdx.x % pieces * PIECE};
}

/* Sums of AT_ONCE rows from r on, `apart` from each other, at column c of x: their first entries
 * are on their way together. Rows that are not there have none. */
template <class place, class source>
static __device__ __forceinline__ void rows_sum(const struct sparse &a, const place *s,
                                                const source &x, const struct share &of, unsigned r,
                                                uint64_t c, struct eight_numbers sum[AT_ONCE])
{
    typename source::taken taken[AT_ONCE][BATCH] = {};
    float value[AT_ONCE][BATCH] = {};
    uint32_t next[AT_ONCE], end[AT_ONCE];
    UNROLL(2)
    for (unsigned i = 0; i < AT_ONCE; i++) {
        unsigned row = r + i * of.apart < ROWS ? r + i * of.apart : ROWS - 1;
        next[i] = s->begin[row], end[i] = r + i * of.apart < ROWS ? s->begin[row + 1] : next[i];
        UNROLL(4)
        for (unsigned k = 0; k < BATCH; k++)
            if (next[i] + k < end[i]) {
                struct entry e = entry_at(a, s, next[i] + k);
                value[i][k] = e.value;
                taken[i][k] = x.take(e.column, c);
            }
    }
    UNROLL(2)
    for (unsigned i = 0; i < AT_ONCE; i++) {
        numbers_zero(sum[i]);
        UNROLL(4)
        for (unsigned k = 0; k < BATCH; k++)
            if (next[i] + k < end[i])
                numbers_add(sum[i], value[i][k], x.value(taken[i][k]));
        UNROLL(1)
        for (uint32_t k = next[i] + BATCH; k < end[i]; k++) {
            struct entry e = entry_at(a, s, k);
            numbers_add(sum[i], e.value, x.value(x.take(e.column, c)));
        }
    }
}

/* Columns k_first .. k_first + k_count - 1 of the tile's rows of a x, zeros up to a whole STEP. */
template <int half, class place, class source, class finish>
static __device__ __forceinline__ void
tile_gather(const struct tiles_work &w, const struct tile &t, const source &x, unsigned k_first,
            unsigned k_count, const struct share &of, place *s, finish &f)
{
    unsigned padded = (k_count + STEP - 1) / STEP * STEP;
    UNROLL(1)
    for (unsigned r = of.r; r < ROWS && of.column < padded; r += AT_ONCE * of.apart) {
        struct eight_numbers sum[AT_ONCE];
        numbers_zero(sum[0]), numbers_zero(sum[1]);
        if (of.column < k_count)
            rows_sum(w.a, s, x, of, r, k_first + of.column, sum);
        UNROLL(2)
        for (unsigned i = 0; i < AT_ONCE; i++) {
            unsigned row = r + i * of.apart;
            if (row >= ROWS)
                continue;
            uint16_t *to = s->gathered + row * SPAN_K + of.column;
            sum[i].template store<half_kind<half>>(to);
            if (of.column < k_count)
                f.gathered(t.row + row, k_first + of.column, *(const uint4 *)to);
        }
    }
}

/* ---- w ---- */

/* Begins to copy its part of the tile's columns and of DEEP of k, in groups of GROUP of k; what is
 * beyond w is 0. */
template <int turned, class place>
static __device__ __forceinline__ void weights_begin(const struct tiles_work &w,
                                                     const struct tile &t, unsigned k_first,
                                                     unsigned k_count, place *s)
{
    enum {
        LINE = (turned ? place::COLUMNS : (int)GROUP) / PIECE,
        EACH = GROUP * place::COLUMNS / PIECE / place::THREADS
    };
    UNROLL(1)
    for (unsigned first = 0; first < DEEP; first += GROUP, copy_group()) {
        UNROLL(4)
        for (unsigned j = 0; j < EACH && first < k_count; j++) {
            unsigned i = threadIdx.x + j * place::THREADS, along = i % LINE * PIECE,
                     across = i / LINE;
            unsigned n = turned ? along : across, k = first + (turned ? across : along);
            uint16_t *to = s->weights + (turned ? k * place::SPAN_COLUMNS + n : n * SPAN_K + k);
            uint64_t row = turned ? k_first + k : t.column + n;
            uint64_t column = turned ? t.column + n : k_first + k;
            if (k < k_count && t.column + n < w.columns)
                copy_begin(to, w.w + row * (turned ? w.columns : w.depth) + column);
            else
                *(uint4 *)to = uint4{0, 0, 0, 0};
        }
    }
}

/* For the group that begins at that k, and all threads. */
static __device__ __forceinline__ void weights_await(unsigned first)
{
    if (first == 0)
        copy_wait<DEEP / GROUP - 1>();
    else if (first == GROUP)
        copy_wait<DEEP / GROUP - 2>();
    else if (first == 2 * GROUP)
        copy_wait<1>();
    else
        copy_wait<0>();
    __syncthreads();
}
static_assert(DEEP / GROUP == 4, "weights_await tells them apart");

/* ---- the product ---- */

/* The warp's place in the tile. */
template <class place> static __device__ __forceinline__ unsigned warp_row(void)
{
    return threadIdx.x / WARP / place::WARPS_ACROSS * WARP_ROWS;
}
template <class place> static __device__ __forceinline__ unsigned warp_column(void)
{
    return threadIdx.x / WARP % place::WARPS_ACROSS * WARP_COLUMNS;
}

/* sum += the gathered rows times w, STEP of k from k on. */
template <int half, int turned, class place>
static __device__ __forceinline__ void step_multiply(const place *s, unsigned k,
                                                     float sum[DOWN][ACROSS][4])
{
    unsigned lane = threadIdx.x % WARP, low = lane % 8, upper = lane / 8 % 2 * 8;
    unsigned right = lane / 16 * 8, row = warp_row<place>(), column = warp_column<place>();
    uint32_t a[DOWN][4], b[ACROSS / 2][4];
    UNROLL(2)
    for (unsigned i = 0; i < DOWN; i++)
        mma_load<0>(a[i], s->gathered + (row + i * 16 + upper + low) * SPAN_K + k + right);
    UNROLL(2)
    for (unsigned j = 0; j < ACROSS / 2; j++) {
        unsigned n = column + j * 16;
        if (turned)
            mma_load<1>(b[j], s->weights + (k + upper + low) * place::SPAN_COLUMNS + n + right);
        else
            mma_load<0>(b[j], s->weights + (n + right + low) * SPAN_K + k + upper);
    }
    UNROLL(2)
    for (unsigned i = 0; i < DOWN; i++)
        UNROLL(4)
    for (unsigned j = 0; j < ACROSS; j++)
        mma<half>(sum[i][j], a[i], b[j / 2] + j % 2 * 2);
}

template <int half, int turned, class place>
static __device__ __forceinline__ void tile_multiply(const struct tiles_work &w,
                                                     const struct tile &t, unsigned k_count,
                                                     const place *s, float sum[DOWN][ACROSS][4])
{
    int works = t.column + warp_column<place>() < w.columns;
    UNROLL(1)
    for (unsigned first = 0; first < k_count; first += GROUP) {
        weights_await(first);
        UNROLL(4)
        for (unsigned k = first; k < first + GROUP; k += STEP)
            if (works && k < k_count)
                step_multiply<half, turned>(s, k, sum);
    }
    __syncthreads(); /* shared memory is free again */
}

/* ---- the result ---- */

/* Its numbers go to shared memory first, so that whole lines are written. */
template <class place, class finish>
static __device__ __forceinline__ void tile_finish(const struct tiles_work &w, const struct tile &t,
                                                   const float sum[DOWN][ACROSS][4], place *s,
                                                   const finish &f)
{
    unsigned lane = threadIdx.x % WARP, row = warp_row<place>() + lane / 4, pair = lane % 4 * 2;
    UNROLL(4)
    for (unsigned j = 0; j < ACROSS; j++) {
        unsigned column = warp_column<place>() + j * 8 + pair;
        if (t.column + column >= w.columns)
            continue;
        float2 bias = f.pair(t.column + column);
        UNROLL(2)
        for (unsigned i = 0; i < DOWN; i++)
            UNROLL(2)
        for (unsigned n = 0; n < 2; n++) {
            uint16_t *to = s->gathered + (row + i * 16 + n * 8) * place::SPAN_COLUMNS + column;
            *(uint32_t *)to = f.packed(sum[i][j][2 * n], sum[i][j][2 * n + 1], bias);
        }
    }
    __syncthreads();
    enum { LINE = place::COLUMNS / PIECE };
    for (unsigned i = threadIdx.x; i < ROWS * LINE; i += place::THREADS) {
        unsigned r = i / LINE, c = i % LINE * PIECE;
        if (t.row + r < w.a.rows && t.column + c < w.columns)
            f.store((uint64_t)(t.row + r) * w.columns + t.column + c,
                    *(const uint4 *)(s->gathered + r * place::SPAN_COLUMNS + c));
    }
}

template <int half, int turned, class place, class source, class finish>
__global__ void __launch_bounds__(place::THREADS, place::BLOCKS)
    convolution_tiles(struct tiles_work w, source x, finish f)
{
    SHARED_DYNAMIC(uint4, shared);
    place *s = (place *)shared;
    struct tile t = {blockIdx.x / w.tiles_across * ROWS, 0, blockIdx.x % w.tiles_across};
    float sum[DOWN][ACROSS][4] = {};
    t.column = t.across * place::COLUMNS;
    launch_wait();
    UNROLL(1)
    for (unsigned k = 0; k < w.depth; k += DEEP) {
        unsigned count = w.depth - k < DEEP ? w.depth - k : (unsigned)DEEP;
        weights_begin<turned>(w, t, k, count, s);
        if (k == 0)
            entries_take(w.a, t, s);
        struct share of = share_of(place::THREADS, count);
        f.begin(w, t);
        tile_gather<half>(w, t, x, k, count, of, s, f);
        tile_multiply<half, turned>(w, t, count, s, sum);
        f.end(k, count, of, (float *)s->gathered);
    }
    tile_finish(w, t, sum, s, f);
}

/* ---- forward: bias, activation ---- */

template <int half> struct layer_finish {
    const float *bias;
    enum activation kind;
    uint16_t *kept; /* NULL: not wanted, as y */
    float *y;
    __device__ __forceinline__ void begin(const struct tiles_work &, const struct tile &)
    {
    }
    __device__ __forceinline__ void gathered(unsigned, unsigned, const uint4 &)
    {
    }
    __device__ __forceinline__ void end(unsigned, unsigned, const struct share &, float *)
    {
    }
    __device__ __forceinline__ float2 pair(unsigned column) const
    {
        return {bias[column], bias[column + 1]};
    }
    __device__ __forceinline__ uint32_t packed(float low, float high, float2 b) const
    {
        low = finished_apart(kind, (enum half)half, NULL, 0, low + b.x);
        high = finished_apart(kind, (enum half)half, NULL, 0, high + b.y);
        return mma_pack<half>(low, high);
    }
    __device__ __forceinline__ void store(uint64_t place, const uint4 &numbers) const
    {
        if (kept)
            *(uint4 *)(kept + place) = numbers;
        if (y)
            eight_numbers::widen<half_kind<half>>(numbers).store(y + place);
    }
};

/* ---- backward: what is gathered is g ---- */

/* The blocks beside one another write every so manyth row of g, and add up the same rows of e. */
template <int half> struct gradient_finish {
    struct rows_of<eight_numbers, half, 1> e;
    uint16_t *g, *dx;
    enum activation before;
    const uint16_t *x; /* its output */
    float *parts;      /* [blocks, columns of e] */
    unsigned across, tiles_across;
    struct eight_numbers sum;
    __device__ __forceinline__ void begin(const struct tiles_work &w, const struct tile &t)
    {
        across = t.across, tiles_across = w.tiles_across;
        numbers_zero(sum);
    }
    __device__ __forceinline__ void gathered(unsigned row, unsigned column, const uint4 &numbers)
    {
        if (row >= e.x.rows || row % tiles_across != across)
            return;
        uint4 own = e.take(row, column);
        *(uint4 *)(g + (uint64_t)row * e.x.columns + column) = numbers;
        numbers_add(sum, 1, e.value(own));
    }
    /* All threads that have a share of a column have one of the same columns. */
    __device__ __forceinline__ void end(unsigned k, unsigned count, const struct share &of,
                                        float *shared)
    {
        unsigned pieces = blockDim.x / of.apart, column = threadIdx.x;
        sum.store(shared + threadIdx.x * PIECE);
        __syncthreads();
        float all = 0;
        for (unsigned i = 0; column < count && i < of.apart; i++)
            all += shared[i * pieces * PIECE + column];
        if (column < count)
            parts[(uint64_t)blockIdx.x * e.x.columns + k + column] = all;
        __syncthreads();
    }
    __device__ __forceinline__ float2 pair(unsigned) const
    {
        return {0, 0};
    }
    __device__ __forceinline__ uint32_t packed(float low, float high, float2) const
    {
        return mma_pack<half>(low, high);
    }
    __device__ __forceinline__ void store(uint64_t place, const uint4 &numbers) const
    {
        if (before == ACTIVATION_COUNT) {
            *(uint4 *)(dx + place) = numbers;
            return;
        }
        struct eight_numbers d = eight_numbers::widen<half_kind<half>>(numbers);
        struct eight_numbers y = eight_numbers::widen<half_kind<half>>(*(const uint4 *)(x + place));
        UNROLL(8)
        for (int i = 0; i < PIECE; i++)
            d.at[i] = sloped(before, y.at[i], d.at[i]);
        d.template store<half_kind<half>>(dx + place);
    }
};

/* ---- which ---- */

static int by_eights(const struct mixed &m)
{
    return goes_by(EIGHT, m) && m.stride == m.columns;
}
static int narrow_by_eights(const struct mixed &m)
{
    return m.halves && by_eights(m);
}

/* *columns of a tile, and the blocks of R by N results of sums of K; 0: two launches are better, or
 * cannot be told from that. Every tile of a row of tiles gathers the same rows, and one is enough
 * where there are rows of them for half of the multiprocessors. */
static unsigned tiles_make(struct tiles_work *w, struct sparse a, uint64_t depth, uint64_t columns,
                           const uint16_t *weights, int *of_tile)
{
    const uint64_t rows_max = 1 << 30;
    uint64_t down = (a.rows + ROWS - 1) / ROWS;
    if (cuda_capability < 80 || columns > COLUMNS_MAX || depth > 2 * columns || a.rows > rows_max)
        return 0;
    *of_tile = columns > NARROW && down > (uint64_t)cuda_processors / 2 &&
                       sizeof(struct workplace<WIDE>) <= cuda_shared_bytes
                   ? WIDE
                   : NARROW;
    uint64_t across = (columns + (uint64_t)*of_tile - 1) / (uint64_t)*of_tile;
    *w = {a, weights, (unsigned)depth, (unsigned)columns, (unsigned)across};
    return (unsigned)(across * down);
}

template <int half, int turned, int columns, class source, class finish>
static int tiles_run(const struct tiles_work &w, unsigned blocks, const source &x, const finish &f)
{
    typedef struct workplace<columns> place;
    const unsigned bytes = sizeof(place);
    if (!SHARED_ALLOW((convolution_tiles<half, turned, place, source, finish>), bytes))
        return 0;
    LAUNCH_EARLY_SHARED((convolution_tiles<half, turned, place, source, finish>), blocks,
                        place::THREADS, bytes, w, x, f);
    return 1;
}

template <int half, int turned, class source, class finish>
static int tiles_run(int columns, const struct tiles_work &w, unsigned blocks, const source &x,
                     const finish &f)
{
    return columns == WIDE ? tiles_run<half, turned, WIDE>(w, blocks, x, f)
                           : tiles_run<half, turned, NARROW>(w, blocks, x, f);
}

template <int half>
static int forward_run(int columns, const struct tiles_work &w, unsigned blocks, struct mixed x,
                       const struct layer_finish<half> &f)
{
    typedef struct rows_of<eight_numbers, half, 0> wide;
    typedef struct rows_of<eight_numbers, half, 1> narrow;
    return x.halves ? tiles_run<half, 0>(columns, w, blocks, narrow{x}, f)
                    : tiles_run<half, 0>(columns, w, blocks, wide{x}, f);
}

int convolution_tiles_forward(struct sparse a, struct mixed x, struct mixed w, const float *bias,
                              enum activation kind, enum half half, uint16_t *kept, struct matrix y)
{
    struct tiles_work work;
    if ((uintptr_t)kept % sizeof(uint4) || !by_eights(x) || !by_eights(w) || w.rows % EIGHT ||
        (y.at && !(goes_by(EIGHT, mixed_of(y)) && y.stride == y.columns)))
        return 0;
    int columns;
    unsigned blocks = tiles_make(&work, a, x.columns, w.rows, w.halves, &columns);
    if (!blocks)
        return 0;
    if (half == HALF_F16)
        return forward_run<HALF_F16>(columns, work, blocks, x, {bias, kind, kept, y.at});
    return forward_run<HALF_BF16>(columns, work, blocks, x, {bias, kind, kept, y.at});
}

template <int half>
static int backward_run(int columns, const struct tiles_work &w, unsigned blocks,
                        const struct convolution_back &b, float *parts)
{
    struct gradient_finish<half> f = {
        {b.d}, b.g.halves, b.dx.halves, b.before, b.x.halves, parts, 0, 0,
        {
        }
    };
    return tiles_run<half, 1>(columns, w, blocks, f.e, f);
}

uint64_t convolution_tiles_backward(const struct convolution_back &b, float *parts, uint64_t room)
{
    struct tiles_work work;
    if (b.behind != ACTIVATION_COUNT || !narrow_by_eights(b.d) || !narrow_by_eights(b.g) ||
        !narrow_by_eights(b.dx) || !narrow_by_eights(b.w) || b.d.rows != b.g.rows ||
        (b.before != ACTIVATION_COUNT && !narrow_by_eights(b.x)))
        return 0;
    int columns;
    unsigned blocks = tiles_make(&work, b.a, b.d.columns, b.dx.columns, b.w.halves, &columns);
    if (!blocks || (uint64_t)blocks * b.d.columns > room)
        return 0;
    int made = b.half == HALF_F16 ? backward_run<HALF_F16>(columns, work, blocks, b, parts)
                                  : backward_run<HALF_BF16>(columns, work, blocks, b, parts);
    return made ? blocks : 0;
}
