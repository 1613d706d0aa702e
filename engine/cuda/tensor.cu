/* tensor.cu - c = op(a) op(b) of float32 on the tensor cores, in two parts of each number
 * (split.h).
 *
 * A block makes a patch of c, 48 or 64 rows by 32 columns a warp. A piece of both operands lies in
 * shared memory, while the next one is on its way to registers. An operand is stored as it is read:
 * numbers next to one another along k, or along its rows where op transposes; rows are padded so
 * that a warp's reads are from different banks. Where a patch's sum is long, and there are few
 * patches, blocks share it, and a second launch adds their parts in order.
 */
#include "engine/cuda/tensor.h"

#include "engine/cuda/blas.h"
#include "engine/cuda/early.h"
#include "engine/cuda/split.h"

enum {
    THREADS = 256,
    WARPS_ROWS = 2,
    WARPS_COLUMNS = 4,
    PIECE = 32, /* numbers along k */
    STEP = 8,   /* of a product of TF32; those of bfloat16 take two of them */
    ACROSS = 4, /* products of a warp beside one another: 32 columns */
    COLUMNS = WARPS_COLUMNS * ACROSS * 8
};
static_assert(THREADS == WARPS_ROWS * WARPS_COLUMNS * WARP, "a warp has a part of the patch");

/* op(a) as [rows, k], op(b) as [rows, k] too: its rows are c's columns. */
struct side {
    const float *at;
    uint64_t stride, rows;
};

struct product_work {
    struct side a, b;
    struct matrix c;
    uint64_t k, part; /* of a block: whole pieces */
    float beta;
    float *parts; /* [blocks.z, M, N]; NULL: each block has the whole sum */
};

/* Where `rows` rows of a piece lie, and which fours of it are a thread's. */
template <int rows, int turned> struct tile {
    enum {
        STRIDE = turned ? rows + 8 : PIECE + 4,
        SIZE = turned ? PIECE * STRIDE : rows * STRIDE,
        LINE = (turned ? rows : PIECE) / FOUR, /* fours that lie together */
        EACH = rows * PIECE / FOUR / THREADS
    };
    static_assert(rows * PIECE % (FOUR * THREADS) == 0, "the same for all threads");
    static __device__ __forceinline__ float at(const float *numbers, unsigned row, unsigned k)
    {
        return numbers[turned ? k * STRIDE + row : row * STRIDE + k];
    }
    static __device__ __forceinline__ unsigned row_of(int i)
    {
        unsigned index = threadIdx.x + i * THREADS;
        return turned ? index % LINE * FOUR : index / LINE;
    }
    static __device__ __forceinline__ unsigned k_of(int i)
    {
        unsigned index = threadIdx.x + i * THREADS;
        return turned ? index / LINE : index % LINE * FOUR;
    }
};

/* A thread's fours of one operand's pieces, from one to the next. Instead of rows that are not
 * there, of whose numbers nothing becomes, it takes the last ones. */
template <int rows, int turned> struct feed {
    typedef struct tile<rows, turned> of;
    float4 fours[of::EACH];
    const float *from[of::EACH];
    uint64_t next;

    __device__ __forceinline__ void begin(const struct side &s, uint64_t row, uint64_t k)
    {
        uint64_t last = s.rows - (turned ? FOUR : 1);
        next = PIECE * (turned ? s.stride : 1);
        UNROLL(4)
        for (int i = 0; i < of::EACH; i++) {
            uint64_t r = row + of::row_of(i), at = k + of::k_of(i);
            r = r < last ? r : last;
            from[i] = s.at + (turned ? at * s.stride + r : r * s.stride + at);
        }
    }

    /* left: of k from the piece's first one on. */
    __device__ __forceinline__ void load(uint64_t left)
    {
        UNROLL(4)
        for (int i = 0; i < of::EACH; i++) {
            fours[i] = of::k_of(i) < left ? *(const float4 *)from[i] : make_float4(0, 0, 0, 0);
            from[i] += next;
        }
    }

    __device__ __forceinline__ void store(float *numbers) const
    {
        UNROLL(4)
        for (int i = 0; i < of::EACH; i++)
            *(float4 *)(numbers + (turned ? of::k_of(i) * of::STRIDE + of::row_of(i)
                                          : of::row_of(i) * of::STRIDE + of::k_of(i))) = fours[i];
    }
};

/* sum += the warp's part of a piece's product. */
template <int down, int a_t, int b_t>
static __device__ __forceinline__ void
piece_multiply(const float *a_numbers, const float *b_numbers, float sum[down][ACROSS][4])
{
    typedef tile<WARPS_ROWS * down * 16, a_t> tile_a;
    typedef tile<COLUMNS, b_t> tile_b;
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, q = lane % 4;
    unsigned row = warp / WARPS_COLUMNS * down * 16 + g;
    unsigned column = warp % WARPS_COLUMNS * ACROSS * 8 + g;
    UNROLL(1) /* more would not fit the registers */
    for (unsigned k = 0; k < PIECE; k += 2 * STEP) {
        struct columns_split b[ACROSS];
        UNROLL(4)
        for (int j = 0; j < ACROSS; j++)
            UNROLL(2)
        for (unsigned step = 0; step < 2; step++) {
            unsigned at = k + step * STEP + q;
            struct split s = split_of(tile_b::at(b_numbers, column + j * 8, at),
                                      tile_b::at(b_numbers, column + j * 8, at + 4));
            b[j].big[step][0] = s.first, b[j].big[step][1] = s.second;
            b[j].both[step] = s.both, b[j].rests[step] = s.rests;
        }
        UNROLL(4)
        for (int i = 0; i < down; i++) {
            struct rows_split a;
            UNROLL(4)
            for (unsigned part = 0; part < 4; part++) {
                unsigned r = row + i * 16 + part % 2 * 8, at = k + part / 2 * STEP + q;
                struct split s =
                    split_of(tile_a::at(a_numbers, r, at), tile_a::at(a_numbers, r, at + 4));
                a.big[part / 2][part % 2] = s.first, a.big[part / 2][part % 2 + 2] = s.second;
                a.both[part] = s.both, a.rests[part] = s.rests;
            }
            UNROLL(4)
            for (int j = 0; j < ACROSS; j++)
                mma<HALF_BF16>(sum[i][j], a.rests, b[j].both);
            UNROLL(4)
            for (int j = 0; j < ACROSS; j++)
                mma<HALF_BF16>(sum[i][j], a.both, b[j].rests);
            UNROLL(2)
            for (int step = 0; step < 2; step++)
                UNROLL(4)
            for (int j = 0; j < ACROSS; j++)
                mma<HALF_NONE>(sum[i][j], a.big[step], b[j].big[step]);
        }
    }
}

/* Which patch of c is a block's, and which part of k. */
struct patch {
    unsigned row, column, part;
};

/* Two numbers beside one another. */
static __device__ __forceinline__ void pair_put(const struct product_work &w, unsigned part,
                                                uint64_t row, uint64_t column, float first,
                                                float second)
{
    if (row >= w.c.rows || column >= w.c.columns)
        return;
    if (w.parts) {
        uint64_t place = part * w.c.rows * w.c.columns + row * w.c.columns + column;
        *(float2 *)(w.parts + place) = float2{first, second};
        return;
    }
    float2 *at = (float2 *)(w.c.at + row * w.c.stride + column);
    float2 was = w.beta == 0 ? float2{0, 0} : *at;
    *at = float2{first + w.beta * was.x, second + w.beta * was.y};
}

/* A number of op(a) or op(b). */
template <int turned>
static __device__ __forceinline__ float side_number(const struct side &s, uint64_t row, uint64_t k)
{
    return s.at[turned ? k * s.stride + row : row * s.stride + k];
}

/* What part_put writes, in float32: the sums over the block's k, one number of it after the other.
 */
template <int down, int a_t, int b_t>
static __device__ __forceinline__ void part_again(const struct product_work &w, unsigned part,
                                                  uint64_t row, uint64_t column)
{
    uint64_t first = part * w.part, end = first + w.part < w.k ? first + w.part : w.k;
    UNROLL(1)
    for (unsigned n = 0; n < 2 * down * ACROSS; n++) {
        uint64_t r = row + n / ACROSS * 8, c = column + n % ACROSS * 8;
        float2 sum = {0, 0};
        UNROLL(1)
        for (uint64_t k = first; r < w.c.rows && c < w.c.columns && k < end; k++) {
            float x = side_number<a_t>(w.a, r, k);
            sum.x += x * side_number<b_t>(w.b, c, k);
            sum.y += x * side_number<b_t>(w.b, c + 1, k);
        }
        pair_put(w, part, r, c, sum.x, sum.y);
    }
}

template <int down>
static __device__ __forceinline__ int are_finite(const float sum[down][ACROSS][4])
{
    float none = 0;
    UNROLL(4)
    for (int i = 0; i < down; i++)
        UNROLL(4)
    for (int j = 0; j < ACROSS; j++)
        UNROLL(4)
    for (int r = 0; r < 4; r++)
        none += 0 * sum[i][j][r];
    return none == 0;
}

template <int down, int a_t, int b_t>
static __device__ __forceinline__ void part_put(const struct product_work &w, const struct patch &p,
                                                const float sum[down][ACROSS][4])
{
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    uint64_t row = p.row + warp / WARPS_COLUMNS * down * 16 + lane / 4;
    uint64_t column = p.column + warp % WARPS_COLUMNS * ACROSS * 8 + lane % 4 * 2;
    if (!are_finite<down>(sum)) {
        part_again<down, a_t, b_t>(w, p.part, row, column);
        return;
    }
    UNROLL(4)
    for (int i = 0; i < down; i++)
        UNROLL(4)
    for (int j = 0; j < ACROSS; j++) {
        pair_put(w, p.part, row + i * 16, column + j * 8, sum[i][j][0], sum[i][j][1]);
        pair_put(w, p.part, row + i * 16 + 8, column + j * 8, sum[i][j][2], sum[i][j][3]);
    }
}

/* Shared memory: two pieces of both operands. */
template <int down, int a_t, int b_t> struct shared_numbers {
    enum {
        A = tile<WARPS_ROWS * down * 16, a_t>::SIZE,
        B = tile<COLUMNS, b_t>::SIZE,
        BYTES = 2 * (A + B) * sizeof(float)
    };
};

template <int down, int a_t, int b_t>
static __device__ __forceinline__ void patch_make(const struct product_work &w,
                                                  const struct patch &p, float *numbers)
{
    typedef shared_numbers<down, a_t, b_t> size;
    enum { ROWS = WARPS_ROWS * down * 16 };
    uint64_t k = p.part * w.part, end = k + w.part < w.k ? k + w.part : w.k;
    float sum[down][ACROSS][4] = {};
    struct feed<ROWS, a_t> a;
    struct feed<COLUMNS, b_t> b;
    a.begin(w.a, p.row, k);
    b.begin(w.b, p.column, k);
    launch_wait();
    a.load(end - k);
    b.load(end - k);
    for (unsigned piece = 0; k < end; piece++, k += PIECE) {
        float *now = numbers + piece % 2 * (size::A + size::B);
        float part[down][ACROSS][4] = {};
        a.store(now);
        b.store(now + size::A);
        __syncthreads();
        if (k + PIECE < end) {
            a.load(end - k - PIECE);
            b.load(end - k - PIECE);
        }
        piece_multiply<down, a_t, b_t>(now, now + size::A, part);
        UNROLL(4)
        for (int i = 0; i < down; i++)
            UNROLL(4)
        for (int j = 0; j < ACROSS; j++)
            UNROLL(4)
        for (int r = 0; r < 4; r++)
            sum[i][j][r] += part[i][j][r];
    }
    part_put<down, a_t, b_t>(w, p, sum);
}

/* What a product's blocks are: patches of c, rows of them one behind the other, times parts. */
struct grid {
    unsigned across, patches, parts;
};

template <int down>
static __device__ __forceinline__ struct patch patch_of(const struct grid &g, unsigned block)
{
    unsigned patch = block % g.patches;
    return {patch / g.across * (WARPS_ROWS * down * 16), patch % g.across * COLUMNS,
            block / g.patches};
}

template <int down, int a_t, int b_t>
__global__ void __launch_bounds__(THREADS, 1) product_patches(struct product_work w, struct grid g)
{
    SHARED_DYNAMIC(float, numbers);
    patch_make<down, a_t, b_t>(w, patch_of<down>(g, blockIdx.x), numbers);
}

/* Rows of a warp that turned operands have: of a product that is summed over rows. */
enum { DOWN_TURNED = 4 };

/* Two products that wait for the same: dx's blocks first, being the longer ones. */
template <int down>
__global__ void __launch_bounds__(THREADS, 1)
    gradient_patches(struct product_work of_x, struct grid x, struct product_work of_w,
                     struct grid w)
{
    SHARED_DYNAMIC(float, numbers);
    unsigned blocks_x = x.patches * x.parts;
    if (blockIdx.x < blocks_x)
        patch_make<down, 0, 1>(of_x, patch_of<down>(x, blockIdx.x), numbers);
    else
        patch_make<DOWN_TURNED, 1, 1>(of_w, patch_of<DOWN_TURNED>(w, blockIdx.x - blocks_x),
                                      numbers);
}

enum { PARTS_THREADS = 128 };

/* c = the parts, in their order, + beta c; all begin at multiples of 16 bytes. */
__global__ void parts_finish(const float *parts, unsigned count, float beta, struct matrix c)
{
    uint64_t width = c.columns / FOUR;
    launch_wait();
    FOR_ITEMS(i, c.rows * width)
    {
        uint64_t row = i / width, column = i - row * width;
        const float4 *part = (const float4 *)parts + i;
        float4 *at = (float4 *)(c.at + row * c.stride) + column, sum = {};
        UNROLL(8)
        for (unsigned p = 0; p < count; p++) {
            float4 x = part[p * c.rows * width];
            sum = make_float4(sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w);
        }
        if (beta != 0) {
            float4 was = *at;
            sum = make_float4(sum.x + beta * was.x, sum.y + beta * was.y, sum.z + beta * was.z,
                              sum.w + beta * was.w);
        }
        *at = sum;
    }
}

static uint64_t shares(uint64_t count, uint64_t each)
{
    return (count + each - 1) / each;
}

/* Parts of the sum: so that every multiprocessor has a block, which has some work, and there is
 * room for them. */
static uint64_t parts_of(const struct product_work *w, uint64_t patches, uint64_t room)
{
    enum { PIECES_LEAST = 4 };
    uint64_t wanted = (uint64_t)cuda_processors / patches, most = w->k / (PIECES_LEAST * PIECE);
    room /= w->c.rows * w->c.columns;
    wanted = wanted < most ? wanted : most;
    wanted = wanted < room ? wanted : room;
    return wanted ? wanted : 1;
}

/* The blocks, with parts of the sum if there is room for some, whose size w then has; no patches:
 * there are too many, or numbers to a side. */
static struct grid grid_make(struct product_work *w, uint64_t down, uint64_t room)
{
    enum { BLOCKS_MAX = 1 << 30 };
    uint64_t across = shares(w->c.columns, COLUMNS);
    uint64_t patches = across * shares(w->c.rows, WARPS_ROWS * down * 16);
    uint64_t parts = room ? parts_of(w, patches, room) : 1;
    w->part = shares(shares(w->k, parts), PIECE) * PIECE;
    parts = shares(w->k, w->part);
    if (patches > BLOCKS_MAX / parts || (w->c.rows | w->c.columns) >> 31)
        return {0, 0, 0};
    return {(unsigned)across, (unsigned)patches, (unsigned)parts};
}

template <int down, int a_t, int b_t> static int patches_launch(struct product_work *w)
{
    enum { BYTES = shared_numbers<down, a_t, b_t>::BYTES };
    struct grid g = grid_make(w, down, a_t ? CUDA_SCRATCH_FLOATS : 0);
    if (!g.patches || !SHARED_ALLOW((product_patches<down, a_t, b_t>), BYTES))
        return 0;
    CUDA_MAIN_LANE();
    w->parts = g.parts > 1 ? cuda_scratch : NULL;
    LAUNCH_EARLY_SHARED((product_patches<down, a_t, b_t>), g.patches * g.parts, THREADS, BYTES, *w,
                        g);
    if (g.parts > 1)
        LAUNCH_EARLY(parts_finish, cuda_blocks(w->c.rows * w->c.columns / FOUR, PARTS_THREADS),
                     PARTS_THREADS, cuda_scratch, g.parts, w->beta, w->c);
    return 1;
}

/* What so many rows a warp cost: rounds of blocks, times the rows. */
static uint64_t rounds(const struct product_work *w, uint64_t down)
{
    uint64_t blocks = shares(w->c.rows, WARPS_ROWS * down * 16) * shares(w->c.columns, COLUMNS);
    return shares(blocks, (uint64_t)cuda_processors) * down;
}

/* The matrix's rows are the operand's, or its columns are. 0: its numbers cannot be read by fours.
 */
static int side_make(struct matrix m, int turned, struct side *s)
{
    s->at = m.at;
    s->stride = m.stride;
    s->rows = turned ? m.columns : m.rows;
    return (uintptr_t)m.at % sizeof(float4) == 0 && m.stride % FOUR == 0 && m.columns % FOUR == 0;
}

int tensor_product(struct matrix a, int a_t, struct matrix b, int b_t, float beta, struct matrix c)
{
    struct product_work w = {};
    struct side of_c;
    if (cuda_capability < 80 || (a_t && b_t) || !side_make(a, a_t, &w.a) ||
        !side_make(b, !b_t, &w.b) || !side_make(c, 0, &of_c))
        return 0;
    w.c = c;
    w.k = a_t ? a.rows : a.columns;
    w.beta = beta;
    if (a_t)
        return patches_launch<DOWN_TURNED, 1, 1>(&w);
    if (rounds(&w, 4) <= rounds(&w, 3))
        return b_t ? patches_launch<4, 0, 0>(&w) : patches_launch<4, 0, 1>(&w);
    return b_t ? patches_launch<3, 0, 0>(&w) : patches_launch<3, 0, 1>(&w);
}

/* ---- the operations ---- */

/* Rows and columns, and what is added up, from which on float32 is worth it here: below cuBLAS has
 * smaller patches. */
#ifdef CUDA_EMULATED
enum { ROWS_LEAST = 60, SUM_LEAST = 60 }; /* seldom: fibers are slow */
#else
enum { ROWS_LEAST = 64, SUM_LEAST = 1024 };
#endif

/* Its blocks are for half of the multiprocessors at least, or share long sums. */
static int is_large(struct matrix a, int a_t, struct matrix c)
{
    uint64_t patches = shares(c.rows, WARPS_ROWS * 3 * 16) * shares(c.columns, COLUMNS);
    if (c.rows < ROWS_LEAST || c.columns < ROWS_LEAST)
        return 0;
    return a_t ? a.rows >= SUM_LEAST : patches >= (uint64_t)cuda_processors / 2;
}

void cuda_product(struct matrix a, int a_t, struct matrix b, int b_t, float beta, struct matrix c)
{
    if (cuda_products_rounded || !is_large(a, a_t, c) || !tensor_product(a, a_t, b, b_t, beta, c))
        cuda_blas_product(a, a_t, b, b_t, beta, c);
}

/* As is_large, of both products. Of dw a quarter of a patch's columns will do: without it two
 * launches more make it, and one of them waits for the other. */
static int gradients_are_large(struct matrix g, struct matrix x, struct matrix dx)
{
    enum { COLUMNS_LEAST = COLUMNS / 4 };
    return g.rows >= SUM_LEAST && g.columns >= ROWS_LEAST && x.columns >= COLUMNS_LEAST &&
           (!dx.at || is_large(g, 0, dx));
}

template <int down>
static int gradients_launch(struct product_work *of_x, struct product_work *of_w, struct grid w)
{
    typedef shared_numbers<down, 0, 1> size_x;
    typedef shared_numbers<DOWN_TURNED, 1, 1> size_w;
    const unsigned bytes =
        (int)size_x::BYTES > (int)size_w::BYTES ? (unsigned)size_x::BYTES : (unsigned)size_w::BYTES;
    struct grid x = {0, 0, 0};
    if (of_x->c.at)
        x = grid_make(of_x, down, 0);
    if ((of_x->c.at && !x.patches) || !SHARED_ALLOW(gradient_patches<down>, bytes))
        return 0;
    CUDA_MAIN_LANE();
    LAUNCH_EARLY_SHARED(gradient_patches<down>, x.patches * x.parts + w.patches * w.parts, THREADS,
                        bytes, *of_x, x, *of_w, w);
    return 1;
}

unsigned tensor_gradients(struct matrix g, struct matrix x, struct matrix w, struct matrix dx,
                          float *parts, uint64_t room)
{
    struct product_work of_x = {}, of_w = {};
    struct side of_dx;
    struct matrix dw = {parts, g.columns, x.columns, x.columns};
    if (cuda_capability < 80 || cuda_products_rounded || dw.rows * dw.columns > room ||
        !gradients_are_large(g, x, dx) || !side_make(g, 1, &of_w.a) || !side_make(x, 1, &of_w.b) ||
        !side_make(g, 0, &of_x.a) ||
        (dx.at && (!side_make(w, 1, &of_x.b) || !side_make(dx, 0, &of_dx))))
        return 0;
    of_w.c = dw, of_w.k = g.rows, of_w.parts = parts;
    of_x.c = dx, of_x.k = g.columns;
    struct grid grid = grid_make(&of_w, DOWN_TURNED, room);
    int made = !grid.patches                          ? 0
               : rounds(&of_x, 4) <= rounds(&of_x, 3) ? gradients_launch<4>(&of_x, &of_w, grid)
                                                      : gradients_launch<3>(&of_x, &of_w, grid);
    return made ? grid.parts : 0;
}
