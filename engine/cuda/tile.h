/* tile.h - c[64, 64] = a b of a block, with float32's own products or on the tensor cores, for
 * products that are waited for rather than worked at: of few rows, where a launch takes
 * microseconds.
 *
 * A block takes a part of the inner dimension k, TILE_DEEP of it at a time, on their way to shared
 * memory (a panel of each factor) while those before them are multiplied. Its threads are in
 * groups, each of which has all of the tile, but some of a panel's k; the groups' sums are added up
 * at the end, and so are those of the blocks that share a tile, by the last of them. Every order is
 * fixed by the shape. (Clusters, whose blocks read each other's shared memory, were slower on an
 * H200: 31 of four blocks are there at a time, and the 32nd shares its multiprocessors with
 * another.)
 *
 * A thread has `wide` rows and columns of a tile, tile_index says which, and reads a few k of them
 * at a time. In float32's own products wide is 8 and a group has 64 threads; on the tensor cores it
 * is 4, and a group has four warps, each with a quarter [32, 32] of the tile.
 */
#ifndef ENGINE_CUDA_TILE_H
#define ENGINE_CUDA_TILE_H

#include "engine/cuda/copies.h"
#include "engine/cuda/early.h"
#include "engine/cuda/split.h"

enum {
    TILE = 64,
    TILE_DEEP = 64,
    TILE_DEEP_STEP = 16, /* of a product on the tensor cores */
    TILE_STAGES = 3,
    TILE_THREADS = 256,
    TILE_PARTS_MAX = 8,
    TILE_SPAN = TILE_DEEP + 4,
    TILE_PANEL = TILE * TILE_SPAN,              /* floats, the larger of the two layouts */
    TILE_SUMS_SPAN = TILE + 8,                  /* a row of a group's sums */
    TILE_SUMS = TILE * TILE_SUMS_SPAN,          /* floats */
    TILE_FLOATS = 2 * TILE_STAGES * TILE_PANEL, /* of shared memory */
    TILE_CHUNKS = TILE * TILE / FOUR,           /* of results, four columns each */
    TILE_TICKETS = CUDA_SCRATCH_FLOATS / (TILE * TILE)
};
static_assert(4 * TILE_SUMS <= TILE_FLOATS, "sums lie where the panels were");

/* How sums are made: of a half, in float32's own products (HALF_NONE), or of float32 split. */
enum { TILE_SPLIT = HALF_COUNT };

/* Where a block's tile begins, and its part of k. */
struct tile_at {
    unsigned row, column, k_first, k_count;
};

/* ---- to shared memory ---- */

/* Four numbers, or zeros where they are not there; some time before copy_wait returns. */
template <typename number>
static __device__ __forceinline__ void four_copy(number *to, const number *from, int there)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    if (sizeof(number) == 4)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from),
                     "r"(there ? 16 : 0)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(at), "l"(from),
                     "r"(there ? 8 : 0)
                     : "memory");
#else
    for (int n = 0; n < FOUR; n++)
        to[n] = there ? from[n] : 0;
#endif
}

/* A factor of a product: number (i, k) of it, i a row or column of the result, lies at at[i stride
 * + k] or at[k stride + i]. Four of them that lie together are there all or none. In a panel the
 * rows of the first are apart by what keeps 8 of them in different banks, and those of the second
 * are turned, so that fours of four rows are. */
template <typename number_, int along_k> struct factor {
    typedef number_ number;
    enum { ALONG_K = along_k, TURN = 32 / sizeof(number) };
    const number *at;
    uint64_t stride;
    unsigned count; /* of i */

    __device__ __forceinline__ float number_at(unsigned i, unsigned k) const
    {
        return i < count ? (float)at[along_k ? i * stride + k : k * stride + i] : 0;
    }
    static __device__ __forceinline__ unsigned place(unsigned i, unsigned k)
    {
        return along_k ? i * TILE_SPAN + k : k * TILE + (i ^ k / 4 % 4 * TURN);
    }
};

/* A thread's fours of each panel, panel after panel: TILE_FOURS of them, `apart` from one to the
 * next. */
enum { TILE_FOURS = TILE * TILE_DEEP / FOUR / TILE_THREADS };
template <typename factor> struct panel_copies {
    typedef typename factor::number number;
    enum {
        LINE = (factor::ALONG_K ? TILE_DEEP : TILE) / FOUR, /* threads */
        APART = TILE_THREADS / LINE                         /* i, or k */
    };
    const number *from;
    unsigned apart, step;
    unsigned to, at_k; /* the first one's place in a panel, and its k there */
    unsigned there;    /* so many of them, or more, are rows or columns of the factor */

    __device__ __forceinline__ panel_copies(const factor &f, unsigned i_first, unsigned k_first)
    {
        unsigned along = threadIdx.x % LINE * FOUR, across = threadIdx.x / LINE;
        unsigned i = factor::ALONG_K ? across : along, k = factor::ALONG_K ? along : across;
        to = factor::place(i, k), at_k = k;
        i += i_first, k += k_first;
        from = f.at + (factor::ALONG_K ? i * f.stride + k : k * f.stride + i);
        apart = APART * (unsigned)f.stride;
        step = TILE_DEEP * (factor::ALONG_K ? 1 : (unsigned)f.stride);
        unsigned left = i < f.count ? f.count - i : 0;
        there = factor::ALONG_K ? (left + APART - 1) / APART : left;
    }
    /* Of the next panel, in which there are so many k. */
    __device__ __forceinline__ void next(number *panel, unsigned deep)
    {
        UNROLL(TILE_FOURS)
        for (unsigned n = 0; n < TILE_FOURS; n++) {
            unsigned k = at_k + (factor::ALONG_K ? 0 : n * APART);
            four_copy(panel + to + n * APART * (factor::ALONG_K ? TILE_SPAN : TILE),
                      from + n * apart, (factor::ALONG_K ? n : 0) < there && k < deep);
        }
        from += step;
    }
};
static_assert(TILE * TILE_DEEP == TILE_FOURS * FOUR * TILE_THREADS, "whole fours");
/* What turns a row of a panel (factor::place) is the same APART rows on. */
static_assert(TILE_THREADS / (TILE / FOUR) % 16 == 0, "as many rows as there are turns of four");

/* ---- to registers ---- */

template <int kind> static __device__ __forceinline__ float4 four_read(const float *at)
{
    return *(const float4 *)at;
}

template <int kind> static __device__ __forceinline__ float4 four_read(const uint16_t *at)
{
    struct four_halves h = *(const struct four_halves *)at;
    return make_float4(half_value<kind>(h.at[0]), half_value<kind>(h.at[1]),
                       half_value<kind>(h.at[2]), half_value<kind>(h.at[3]));
}

/* Row or column j of the thread whose place in its group is t. */
template <int wide, typename factor>
static __device__ __forceinline__ unsigned tile_index(unsigned t, unsigned j)
{
    return factor::ALONG_K && wide == 8 ? t + 8 * j : 4 * t + j % 4 + 32 * (j / 4);
}

/* f[n][j]: number (tile_index(t, j), k + n), for `deep` n, 2 or 4: of float32. */
template <int kind, int wide, int deep, typename factor>
static __device__ __forceinline__ void numbers_take(const typename factor::number *panel,
                                                    unsigned t, unsigned k, float f[deep][wide])
{
    if (factor::ALONG_K) {
        UNROLL(8)
        for (unsigned j = 0; j < wide; j++) {
            const typename factor::number *at =
                panel + factor::place(tile_index<wide, factor>(t, j), k);
            if (deep == 2) {
                float2 v = *(const float2 *)at;
                f[0][j] = v.x, f[1][j] = v.y;
            } else {
                float4 v = four_read<kind>(at);
                f[0][j] = v.x, f[1][j] = v.y, f[2 % deep][j] = v.z, f[3 % deep][j] = v.w;
            }
        }
    }
    UNROLL(4)
    for (unsigned n = 0; n < deep; n++)
        UNROLL(2)
    for (unsigned j = 0; j < wide && !factor::ALONG_K; j += FOUR) {
        float4 v = four_read<kind>(panel + factor::place(tile_index<wide, factor>(t, j), k + n));
        f[n][j] = v.x, f[n][j + 1] = v.y, f[n][j + 2] = v.z, f[n][j + 3] = v.w;
    }
}

/* A thread's sums on the tensor cores: two by four of their tiles. */
template <int kind> struct tile_sums {
    enum { WIDE = 4, GROUPS = 2 };
    float c[2][4][4];
    static __device__ __forceinline__ unsigned group(void)
    {
        return threadIdx.x / (4 * WARP);
    }
    static __device__ __forceinline__ unsigned row(void)
    {
        return threadIdx.x / WARP % 2 * 8 + threadIdx.x % WARP / 4;
    }
    static __device__ __forceinline__ unsigned column(void)
    {
        return threadIdx.x / (2 * WARP) % 2 * 8 + threadIdx.x % WARP / 4;
    }
    /* Of two panels, the first `deep` k of which are there. */
    template <typename left, typename right>
    __device__ __forceinline__ void add(const typename left::number *a,
                                        const typename right::number *b, unsigned deep)
    {
        enum { STEP = TILE_DEEP_STEP };
        UNROLL(2)
        for (unsigned k = group() * STEP; k < TILE_DEEP && k < deep; k += GROUPS * STEP)
            step<left, right>(a, b, k + threadIdx.x % 4 * FOUR);
    }
    template <typename left, typename right>
    __device__ __forceinline__ void step(const typename left::number *a,
                                         const typename right::number *b, unsigned k)
    {
        float x[FOUR][WIDE], y[FOUR][WIDE];
        numbers_take<kind, WIDE, FOUR, left>(a, row(), k, x);
        numbers_take<kind, WIDE, FOUR, right>(b, column(), k, y);
        if (kind == TILE_SPLIT)
            split_step(x, y);
        else
            half_step(x, y);
    }
    __device__ __forceinline__ void half_step(const float x[FOUR][WIDE], const float y[FOUR][WIDE])
    {
        UNROLL(2)
        for (int i = 0; i < 2; i++) {
            uint32_t rows[4] = {mma_pack<kind>(x[0][2 * i], x[1][2 * i]),
                                mma_pack<kind>(x[0][2 * i + 1], x[1][2 * i + 1]),
                                mma_pack<kind>(x[2][2 * i], x[3][2 * i]),
                                mma_pack<kind>(x[2][2 * i + 1], x[3][2 * i + 1])};
            UNROLL(4)
            for (int j = 0; j < 4; j++) {
                uint32_t columns[2] = {mma_pack<kind>(y[0][j], y[1][j]),
                                       mma_pack<kind>(y[2][j], y[3][j])};
                mma<kind>(c[i][j], rows, columns);
            }
        }
    }
    /* The same of float32; of k `first` and the next one a register of TF32 each. */
    static __device__ __forceinline__ void columns_take(const float y[FOUR][WIDE], unsigned j,
                                                        struct columns_split *b)
    {
        UNROLL(2)
        for (int n = 0; n < 2; n++) {
            struct split s = split_of(y[2 * n][j], y[2 * n + 1][j]);
            b->big[n][0] = s.first, b->big[n][1] = s.second;
            b->both[n] = s.both, b->rests[n] = s.rests;
        }
    }
    __device__ __forceinline__ void split_step(const float x[FOUR][WIDE], const float y[FOUR][WIDE])
    {
        struct columns_split b[4];
        UNROLL(4)
        for (unsigned j = 0; j < 4; j++)
            columns_take(y, j, &b[j]);
        UNROLL(2)
        for (int i = 0; i < 2; i++) {
            struct rows_split a;
            UNROLL(4)
            for (int part = 0; part < 4; part++) {
                unsigned r = 2 * i + part % 2, n = part / 2;
                struct split s = split_of(x[2 * n][r], x[2 * n + 1][r]);
                a.big[n][part % 2] = s.first, a.big[n][part % 2 + 2] = s.second;
                a.both[part] = s.both, a.rests[part] = s.rests;
            }
            UNROLL(4)
            for (int j = 0; j < 4; j++) {
                float piece[4] = {};
                mma<HALF_BF16>(piece, a.rests, b[j].both);
                mma<HALF_BF16>(piece, a.both, b[j].rests);
                mma<HALF_NONE>(piece, a.big[0], b[j].big[0]);
                mma<HALF_NONE>(piece, a.big[1], b[j].big[1]);
                UNROLL(4)
                for (int n = 0; n < 4; n++)
                    c[i][j][n] += piece[n];
            }
        }
    }
    __device__ __forceinline__ int are_finite(void) const
    {
        float none = 0;
        UNROLL(2)
        for (int i = 0; i < 2; i++)
            UNROLL(4)
        for (int j = 0; j < 4; j++)
            UNROLL(4)
        for (int n = 0; n < 4; n++)
            none += 0 * c[i][j][n];
        return none == 0;
    }
    /* What put has written, in float32: a sum after the other. */
    template <typename left, typename right>
    static __device__ __forceinline__ void again(const left &a, const right &b,
                                                 const struct tile_at &at, float *sums)
    {
        unsigned rows = 4 * row(),
                 columns = threadIdx.x / (2 * WARP) % 2 * 32 + threadIdx.x % 4 * 8;
        UNROLL(1)
        for (unsigned n = 0; n < 32; n++) {
            unsigned r = rows + n / 8, column = columns + n % 8;
            float sum = 0;
            UNROLL(1)
            for (unsigned k = 0; k < at.k_count; k++)
                if (k / TILE_DEEP_STEP % GROUPS == group())
                    sum += a.number_at(at.row + r, at.k_first + k) *
                           b.number_at(at.column + column, at.k_first + k);
            sums[group() * TILE_SUMS + r * TILE_SUMS_SPAN + column] = sum;
        }
    }
    /* Column 4 x + j of its 32 is column x of tile j. */
    template <typename left, typename right> __device__ __forceinline__ void put(float *sums) const
    {
        float *at = sums + group() * TILE_SUMS + 4 * row() * TILE_SUMS_SPAN +
                    threadIdx.x / (2 * WARP) % 2 * 32 + threadIdx.x % 4 * 8;
        UNROLL(2)
        for (int i = 0; i < 2; i++)
            UNROLL(4)
        for (int n = 0; n < 4; n++)
            *(float4 *)(at + (2 * i + n / 2) * TILE_SUMS_SPAN + n % 2 * 4) =
                make_float4(c[i][0][n], c[i][1][n], c[i][2][n], c[i][3][n]);
    }
};

/* The same in float32. */
template <> struct tile_sums<HALF_NONE> {
    enum { WIDE = 8, GROUPS = 4 };
    float c[WIDE][WIDE];
    static __device__ __forceinline__ unsigned group(void)
    {
        return threadIdx.x / (2 * WARP);
    }
    static __device__ __forceinline__ unsigned row(void)
    {
        return threadIdx.x / 8 % 8;
    }
    static __device__ __forceinline__ unsigned column(void)
    {
        return threadIdx.x % 8;
    }
    template <typename left, typename right>
    __device__ __forceinline__ void add(const typename left::number *a,
                                        const typename right::number *b, unsigned deep)
    {
        enum { STEP = 2 };
        unsigned end = deep < TILE_DEEP ? deep : (unsigned)TILE_DEEP;
        UNROLL(1)
        for (unsigned k = group() * STEP; k < end; k += GROUPS * STEP) {
            float x[STEP][WIDE], y[STEP][WIDE];
            numbers_take<HALF_NONE, WIDE, STEP, left>(a, row(), k, x);
            numbers_take<HALF_NONE, WIDE, STEP, right>(b, column(), k, y);
            UNROLL(STEP)
            for (int n = 0; n < STEP; n++)
                UNROLL(8)
            for (int i = 0; i < WIDE; i++)
                UNROLL(8)
            for (int j = 0; j < WIDE; j++)
                c[i][j] += x[n][i] * y[n][j];
        }
    }
    template <typename left, typename right> __device__ __forceinline__ void put(float *sums) const
    {
        UNROLL(8)
        for (unsigned i = 0; i < WIDE; i++)
            UNROLL(8)
        for (unsigned j = 0; j < WIDE; j++)
            sums[group() * TILE_SUMS + tile_index<WIDE, left>(row(), i) * TILE_SUMS_SPAN +
                 tile_index<WIDE, right>(column(), j)] = c[i][j];
    }
};

/* ---- the product ---- */

/* The panels of one stage. */
template <typename factor>
static __device__ __forceinline__ typename factor::number *panel_of(float *shared, unsigned stage,
                                                                    int right)
{
    return (typename factor::number *)(shared + (stage * 2 + (unsigned)right) * TILE_PANEL);
}

/* The groups' sums into shared memory; of float32 split those that are not finite again (split.h).
 */
template <int kind> struct sums_end {
    template <typename left, typename right>
    static __device__ __forceinline__ void put(const struct tile_sums<kind> &sums, const left &,
                                               const right &, const struct tile_at &, float *shared)
    {
        sums.template put<left, right>(shared);
    }
};

template <> struct sums_end<TILE_SPLIT> {
    template <typename left, typename right>
    static __device__ __forceinline__ void put(const struct tile_sums<TILE_SPLIT> &sums,
                                               const left &a, const right &b,
                                               const struct tile_at &at, float *shared)
    {
        sums.put<left, right>(shared);
        if (!sums.are_finite())
            sums.again(a, b, at, shared);
    }
};

/* The groups' sums of the tile into `shared`, behind a barrier. Waits for the launches before
 * (early.h) when it knows where to read. Where sums_left, returns this thread's share of the sum
 * over k of a's numbers of tile row threadIdx.x % TILE. */
template <int kind, typename left, typename right>
static __device__ __forceinline__ float
tile_product(const left &a, const right &b, const struct tile_at &at, float *shared, int sums_left)
{
    enum { AHEAD = TILE_STAGES - 1, SHARE = TILE_DEEP * TILE / TILE_THREADS };
    tile_sums<kind> sums = {};
    panel_copies<left> a_copies(a, at.row, at.k_first);
    panel_copies<right> b_copies(b, at.column, at.k_first);
    float left_sum = 0;
    launch_wait();
    UNROLL(1)
    for (unsigned n = 0; n < TILE_STAGES; n++) {
        if (n * TILE_DEEP < at.k_count) {
            a_copies.next(panel_of<left>(shared, n, 0), at.k_count - n * TILE_DEEP);
            b_copies.next(panel_of<right>(shared, n, 1), at.k_count - n * TILE_DEEP);
        }
        copy_group();
    }
    unsigned now = 0; /* the stage of the panel that is multiplied */
    UNROLL(1)
    for (unsigned k = 0; k < at.k_count; k += TILE_DEEP) {
        if (k == 0)
            copy_wait<TILE_STAGES - 1>();
        else
            copy_wait<AHEAD - 1>();
        __syncthreads(); /* and the panel before, whose stage takes another one, is read */
        if (k > 0) {
            unsigned before = now ? now - 1 : (unsigned)AHEAD;
            if (k + AHEAD * TILE_DEEP < at.k_count) {
                a_copies.next(panel_of<left>(shared, before, 0),
                              at.k_count - k - AHEAD * TILE_DEEP);
                b_copies.next(panel_of<right>(shared, before, 1),
                              at.k_count - k - AHEAD * TILE_DEEP);
            }
            copy_group();
        }
        sums.template add<left, right>(panel_of<left>(shared, now, 0),
                                       panel_of<right>(shared, now, 1), at.k_count - k);
        UNROLL(4)
        for (unsigned n = 0; n < SHARE && sums_left; n++)
            left_sum += panel_of<left>(
                shared, now, 0)[left::place(threadIdx.x % TILE, threadIdx.x / TILE * SHARE + n)];
        now = now < AHEAD ? now + 1 : 0;
    }
    __syncthreads();
    sums_end<kind>::put(sums, a, b, at, shared);
    __syncthreads();
    return left_sum;
}

/* ---- what the blocks that share a tile make of it ---- */

struct tile_share {
    unsigned tile, parts, part; /* parts: 1, 2, 4 or 8 */
};

static __device__ __forceinline__ float4 four_sum(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

static __device__ __forceinline__ float *chunk_at(float *sums, unsigned chunk)
{
    return sums + chunk / (TILE / FOUR) * TILE_SUMS_SPAN + chunk % (TILE / FOUR) * FOUR;
}

static __device__ __forceinline__ unsigned chunk_row(unsigned chunk)
{
    return chunk / (TILE / FOUR);
}

static __device__ __forceinline__ unsigned chunk_column(unsigned chunk)
{
    return chunk % (TILE / FOUR) * FOUR;
}

/* A thread has every TILE_THREADS-th four of a tile, threadIdx.x the first. */
enum { TILE_EACH = TILE_CHUNKS / TILE_THREADS };

static __device__ __forceinline__ unsigned chunk_of(unsigned n)
{
    return threadIdx.x + n * TILE_THREADS;
}

/* A thread's sums over the groups. */
template <int groups>
static __device__ __forceinline__ void groups_sum(float *sums, float4 v[TILE_EACH])
{
    UNROLL(4)
    for (unsigned n = 0; n < TILE_EACH; n++) {
        v[n] = *(const float4 *)chunk_at(sums, chunk_of(n));
        UNROLL(4)
        for (unsigned g = 1; g < groups; g++)
            v[n] = four_sum(v[n], *(const float4 *)chunk_at(sums + g * TILE_SUMS, chunk_of(n)));
    }
}

/* The same over so many parts in memory, as many of them on their way at a time as registers hold.
 */
template <int parts>
static __device__ __forceinline__ void parts_sum(const float4 *at, float4 v[TILE_EACH])
{
    enum { AT_ONCE = parts > 4 ? 2 : 4 };
    static_assert(TILE_EACH % AT_ONCE == 0, "whole rounds");
    UNROLL(4)
    for (unsigned first = 0; first < TILE_EACH; first += AT_ONCE) {
        float4 in[AT_ONCE][parts];
        UNROLL(4)
        for (unsigned n = 0; n < AT_ONCE; n++)
            UNROLL(8)
        for (unsigned p = 0; p < parts; p++)
            in[n][p] = at[p * TILE_CHUNKS + chunk_of(first + n)];
        UNROLL(4)
        for (unsigned n = 0; n < AT_ONCE; n++) {
            v[first + n] = in[n][0];
            UNROLL(8)
            for (unsigned p = 1; p < parts; p++)
                v[first + n] = four_sum(v[first + n], in[n][p]);
        }
    }
}

/* Of what tile_product left: f(row, column, four numbers, f.ahead(row, column)) for each four of
 * the tile, in one block of those that share it. scratch: [tiles, parts, TILE * TILE]; tickets: one
 * a tile. */
template <int groups, typename finish>
static __device__ __forceinline__ void tile_finish(float *sums, const struct tile_share &s,
                                                   float *scratch, unsigned *tickets,
                                                   const finish &f)
{
    float4 *parts = (float4 *)scratch + (uint64_t)s.tile * s.parts * TILE_CHUNKS;
    float4 v[TILE_EACH], more[TILE_EACH];
    groups_sum<groups>(sums, v);
    if (s.parts > 1) {
        UNROLL(4)
        for (unsigned n = 0; n < TILE_EACH; n++)
            parts[s.part * TILE_CHUNKS + chunk_of(n)] = v[n];
        if (!block_is_last(&tickets[s.tile], s.parts))
            return;
    }
    UNROLL(4)
    for (unsigned n = 0; n < TILE_EACH; n++)
        more[n] = f.ahead(chunk_row(chunk_of(n)), chunk_column(chunk_of(n)));
    if (s.parts == 2)
        parts_sum<2>(parts, v);
    else if (s.parts == 4)
        parts_sum<4>(parts, v);
    else if (s.parts == 8)
        parts_sum<8>(parts, v);
    UNROLL(4)
    for (unsigned n = 0; n < TILE_EACH; n++)
        f(chunk_row(chunk_of(n)), chunk_column(chunk_of(n)), v[n], more[n]);
}

#endif
