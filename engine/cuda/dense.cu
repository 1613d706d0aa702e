/* dense.cu - linear layers on few rows, a tile of the result to a block (tile.h).
 *
 * Where a result has fewer tiles than there are multiprocessors several blocks share one, each with
 * a part of the inner dimension: in float32's own products forward twice as many.
 * Backward makes dw, db and dx in one launch: the blocks of dx come first, being the longer ones.
 * 16-bit operands are floats in memory that hold them, packed on their way to the tensor cores.
 */
#include "engine/cuda/dense.h"

#include "engine/cuda/early.h"
#include "engine/cuda/finish.h"
#include "engine/cuda/tile.h"

static __device__ unsigned tickets[TILE_TICKETS];

/* A product's tiles: rows of them first. */
struct tiling {
    unsigned rows, columns, parts, depth; /* depth: of a part */
    unsigned inner;
};

static __device__ __forceinline__ struct tile_at tile_of(const struct tiling &t,
                                                         const struct tile_share &s)
{
    unsigned first = s.part * t.depth < t.inner ? s.part * t.depth : t.inner;
    unsigned left = t.inner - first;
    return {s.tile % t.rows * TILE, s.tile / t.rows * TILE, first, left < t.depth ? left : t.depth};
}

static __device__ __forceinline__ struct tile_share share_of(const struct tiling &t, unsigned block)
{
    return {block / t.parts, t.parts, block % t.parts};
}

/* ---- forward ---- */

template <int half> struct forward_finish {
    struct matrix y;
    const float *bias;
    enum activation kind;
    uint16_t *kept;
    struct tile_at at;
    __device__ __forceinline__ float4 ahead(unsigned, unsigned c) const
    {
        uint64_t column = at.column + c;
        return column < y.columns ? *(const float4 *)(bias + column) : make_float4(0, 0, 0, 0);
    }
    __device__ __forceinline__ void operator()(unsigned r, unsigned c, float4 v, float4 b) const
    {
        uint64_t row = at.row + r, column = at.column + c;
        if (row >= y.rows || column >= y.columns)
            return;
        v = four_sum(v, b);
        *(float4 *)(y.at + row * y.stride + column) =
            four_finished<half>(kind, kept ? kept + row * y.columns + column : NULL, v);
    }
};

template <int half, int sums>
__global__ void __launch_bounds__(TILE_THREADS, 2)
    dense_tiles(struct tiling t, struct matrix x, struct matrix w, struct forward_finish<half> f,
                float *scratch)
{
    SHARED_DYNAMIC(float, shared);
    struct tile_share s = share_of(t, blockIdx.x);
    f.at = tile_of(t, s);
    factor<float, 1> a = {x.at, x.stride, (unsigned)x.rows};
    factor<float, 1> b = {w.at, w.stride, (unsigned)w.rows};
    tile_product<sums>(a, b, f.at, shared, 0);
    tile_finish<tile_sums<sums>::GROUPS>(shared, s, scratch, tickets, f);
}

/* ---- backward ---- */

/* x: of the numbers that are there. */
template <int half, typename number> struct input_finish {
    struct matrix dx;
    const number *x; /* as long in its rows as dx */
    enum activation kind;
    int rounds;
    struct tile_at at;
    __device__ __forceinline__ float4 ahead(unsigned r, unsigned c) const
    {
        uint64_t row = at.row + r, column = at.column + c;
        int wanted = kind != ACTIVATION_COUNT && row < dx.rows && column < dx.columns;
        return wanted ? four_read<half>(x + row * dx.stride + column) : make_float4(0, 0, 0, 0);
    }
    __device__ __forceinline__ void operator()(unsigned r, unsigned c, float4 v, float4 y) const
    {
        uint64_t row = at.row + r, column = at.column + c;
        if (row >= dx.rows || column >= dx.columns)
            return;
        uint64_t place = row * dx.stride + column;
        *(float4 *)(dx.at + place) = sloped_rounded<half>(kind, rounds, y, v);
    }
};

struct weight_finish {
    struct matrix dw;
    int adds;
    struct tile_at at;
    __device__ __forceinline__ float4 ahead(unsigned r, unsigned c) const
    {
        uint64_t row = at.row + r, column = at.column + c;
        int wanted = adds && row < dw.rows && column < dw.columns;
        return wanted ? *(const float4 *)(dw.at + row * dw.stride + column)
                      : make_float4(0, 0, 0, 0);
    }
    __device__ __forceinline__ void operator()(unsigned r, unsigned c, float4 v, float4 w) const
    {
        uint64_t row = at.row + r, column = at.column + c;
        if (row < dw.rows && column < dw.columns)
            *(float4 *)(dw.at + row * dw.stride + column) = four_sum(w, v);
    }
};

/* All of it, which is more than a few registers. */
template <int half, typename number> struct backward_work {
    struct tiling of_x, of_w;
    unsigned blocks_x; /* the first ones; the others are of_w's */
    factor<float, 1> dy_rows;
    factor<float, 0> w, dy;
    factor<number, 0> x;
    struct input_finish<half, number> f_x;
    struct weight_finish f_w;
    float *db;
};

/* db of the tile's rows, of which four threads have a share each. */
static __device__ __forceinline__ void bias_finish(float share, float *shared,
                                                   const struct weight_finish &f, float *db)
{
    unsigned column = f.at.row + threadIdx.x;
    __syncthreads();
    shared[threadIdx.x] = share;
    __syncthreads();
    if (threadIdx.x >= TILE || column >= f.dw.rows)
        return;
    float sum = f.adds ? db[column] : 0;
    for (unsigned n = 0; n < TILE_THREADS; n += TILE)
        sum += shared[n + threadIdx.x];
    db[column] = sum;
}

template <int half, int sums, typename number>
__global__ void __launch_bounds__(TILE_THREADS, 2)
    dense_tiles_back(struct backward_work<half, number> b, float *scratch)
{
    SHARED_DYNAMIC(float, shared);
    enum { GROUPS = tile_sums<sums>::GROUPS };
    if (blockIdx.x < b.blocks_x) {
        struct tile_share s = share_of(b.of_x, blockIdx.x);
        b.f_x.at = tile_of(b.of_x, s);
        tile_product<sums>(b.dy_rows, b.w, b.f_x.at, shared, 0);
        tile_finish<GROUPS>(shared, s, scratch, tickets, b.f_x);
        return;
    }
    struct tile_share s = share_of(b.of_w, blockIdx.x - b.blocks_x);
    b.f_w.at = tile_of(b.of_w, s);
    float bias = tile_product<sums>(b.dy, b.x, b.f_w.at, shared, b.f_w.at.column == 0);
    tile_finish<GROUPS>(shared, s, scratch, tickets, b.f_w);
    if (b.f_w.at.column == 0)
        bias_finish(bias, shared, b.f_w, b.db);
}

/* ---- which, and how it is cut ---- */

static struct tiling tiling_of(uint64_t rows, uint64_t columns, uint64_t inner, int shares)
{
    struct tiling t = {};
    t.rows = (unsigned)((rows + TILE - 1) / TILE),
    t.columns = (unsigned)((columns + TILE - 1) / TILE);
    t.inner = (unsigned)inner;
    t.parts = 1;
    while (shares && t.parts < TILE_PARTS_MAX && 2 * t.parts * TILE_DEEP < inner &&
           2 * t.parts * t.rows * t.columns <= (unsigned)shares * (unsigned)cuda_processors)
        t.parts *= 2;
    unsigned steps = (t.inner + TILE_DEEP_STEP - 1) / TILE_DEEP_STEP;
    t.depth = (steps + t.parts - 1) / t.parts * TILE_DEEP_STEP;
    return t;
}

/* Rows of four numbers at a time. */
static int by_fours(struct matrix m)
{
    const uint64_t far = 1 << 24; /* TILE_DEEP rows on is no more than 32 bits count */
    return m.stride < far && (uintptr_t)m.at % sizeof(float4) == 0 && m.stride % FOUR == 0 &&
           m.columns % FOUR == 0;
}

static int sized(uint64_t rows, uint64_t inputs, uint64_t outputs, enum half half)
{
    enum { WIDTH_MAX = 1 << 13 };
    return rows <= DENSE_ROWS_MAX && inputs <= WIDTH_MAX && outputs <= WIDTH_MAX &&
           outputs > NARROW_OUTPUTS_MAX && (!half || cuda_capability >= 80);
}

/* Sums of so many numbers of float32 go by the tensor cores where there are some. They lose as much
 * of a short sum as of a long one (split.h), and of a short one there is little to gain. */
static int splits(enum half half, uint64_t longest)
{
    enum { SPLIT_LEAST = TILE_DEEP };
    return half == HALF_NONE && cuda_capability >= 80 && longest >= SPLIT_LEAST;
}

static unsigned blocks_of(const struct tiling *t)
{
    return t->rows * t->columns * t->parts;
}

template <int half, int sums>
static int forward_run(struct tiling t, struct matrix x, struct matrix w, const float *bias,
                       enum activation kind, uint16_t *kept, struct matrix y)
{
    const unsigned bytes = TILE_FLOATS * sizeof(float);
    struct forward_finish<half> f = {
        y, bias, kind, kept, tile_at()
    };
    if (!SHARED_ALLOW((dense_tiles<half, sums>), bytes))
        return 0;
    CUDA_MAIN_LANE();
    LAUNCH_EARLY_SHARED((dense_tiles<half, sums>), blocks_of(&t), TILE_THREADS, bytes, t, x, w, f,
                        cuda_scratch);
    return 1;
}

int dense_forward(struct matrix x, struct matrix w, const float *bias, enum activation kind,
                  enum half half, uint16_t *kept, struct matrix y)
{
    int split = splits(half, x.columns);
    struct tiling t = tiling_of(y.rows, y.columns, x.columns, half || split ? 1 : 2);
    if (!sized(x.rows, x.columns, y.columns, half) || !by_fours(x) || !by_fours(w) ||
        !by_fours(y) || (uintptr_t)bias % sizeof(float4) ||
        (uintptr_t)kept % sizeof(struct four_halves) || blocks_of(&t) > TILE_TICKETS)
        return 0;
    if (split)
        return forward_run<HALF_NONE, TILE_SPLIT>(t, x, w, bias, kind, kept, y);
    if (half == HALF_NONE)
        return forward_run<HALF_NONE, HALF_NONE>(t, x, w, bias, kind, kept, y);
    if (half == HALF_F16)
        return forward_run<HALF_F16, HALF_F16>(t, x, w, bias, kind, kept, y);
    return forward_run<HALF_BF16, HALF_BF16>(t, x, w, bias, kind, kept, y);
}

/* What dense_backward is asked for, x's numbers apart. */
struct backward_asked {
    struct tiling of_x, of_w;
    struct matrix dy, x, w, dw, dx;
    float *db;
    enum activation kind;
    int adds, rounds;
};

template <int half, int sums, typename number>
static int backward_run(const struct backward_asked *a, const number *x)
{
    const unsigned bytes = TILE_FLOATS * sizeof(float);
    struct backward_work<half, number> b = {
    };
    b.of_x = a->of_x, b.of_w = a->of_w;
    b.blocks_x = blocks_of(&a->of_x);
    b.dy_rows = {a->dy.at, a->dy.stride, (unsigned)a->dy.rows};
    b.dy = {a->dy.at, a->dy.stride, (unsigned)a->dy.columns};
    b.w = {a->w.at, a->w.stride, (unsigned)a->w.columns};
    b.x = {x, a->x.stride, (unsigned)a->x.columns};
    b.f_x = {a->dx, x, a->kind, a->rounds, tile_at()};
    b.f_w = {a->dw, a->adds, tile_at()};
    b.db = a->db;
    if (!SHARED_ALLOW((dense_tiles_back<half, sums, number>), bytes))
        return 0;
    unsigned blocks = b.blocks_x + blocks_of(&a->of_w);
    CUDA_MAIN_LANE();
    if (blocks)
        LAUNCH_EARLY_SHARED((dense_tiles_back<half, sums, number>), blocks, TILE_THREADS, bytes, b,
                            cuda_scratch);
    return 1;
}

int dense_backward(struct matrix dy, struct matrix x, const uint16_t *x_half, struct matrix w,
                   int adds, struct matrix dw, float *db, enum activation kind, enum half half,
                   int rounds, struct matrix dx)
{
    struct tiling of_x = tiling_of(x.rows, x.columns, dy.columns, 1);
    struct tiling of_w = tiling_of(dy.columns, x.columns, x.rows, 0);
    if (!sized(x.rows, x.columns, dy.columns, half) || !by_fours(dy) || !by_fours(x) ||
        !by_fours(w) || (dw.at && !by_fours(dw)) || (dx.at && !by_fours(dx)) ||
        (uintptr_t)x_half % sizeof(struct four_halves) || blocks_of(&of_x) > TILE_TICKETS)
        return 0;
    of_x.rows = dx.at ? of_x.rows : 0;
    of_w.rows = dw.at ? of_w.rows : 0;
    struct backward_asked a = {of_x, of_w, dy, x, w, dw, dx, db, kind, adds, rounds};
    uint64_t of_dx = dx.at ? dy.columns : 0, of_dw = dw.at ? x.rows : 0;
    if (splits(half, of_dx > of_dw ? of_dx : of_dw))
        return backward_run<HALF_NONE, TILE_SPLIT>(&a, x.at);
    if (half == HALF_NONE)
        return backward_run<HALF_NONE, HALF_NONE>(&a, x.at);
    if (half == HALF_F16)
        return x_half ? backward_run<HALF_F16, HALF_F16>(&a, x_half)
                      : backward_run<HALF_F16, HALF_F16>(&a, x.at);
    return x_half ? backward_run<HALF_BF16, HALF_BF16>(&a, x_half)
                  : backward_run<HALF_BF16, HALF_BF16>(&a, x.at);
}
