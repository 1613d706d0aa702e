/* tensor.cu - c = op(a) op(b) on the tensor cores: of 16 bits one product, of float32 three of
 * TF32.
 *
 * A number of float32 is the sum of its upper 11 digits and of a rest; the product of the rests is
 * below its last bit, the other three make what float32 gives. The tensor cores' own sums do not
 * round to nearest, so the sum over each piece of k begins at 0 and is added to the others in
 * float32.
 *
 * A block makes a patch of c, 64 or 48 rows by 32 columns a warp. A piece of both operands lies in
 * shared memory as words, each a number of float32 or two of 16 bits that follow one another along
 * k, while the next one is on its way to registers, where it is narrowed. An operand is stored as
 * it is read: words next to one another along k, or along its rows where op transposes; rows are
 * padded so that a warp's reads are from different banks. Where a patch's sum is long, and there
 * are few patches, blocks share it, and a second launch adds their parts in order.
 */
#include "engine/cuda/tensor.h"

#include <stdlib.h>

#include "engine/cuda/blas.h"
#include "engine/cuda/mma.h"

enum {
    THREADS = 256,
    WARPS_ROWS = 2,
    WARPS_COLUMNS = 4,
    WORDS = 32, /* of a piece, along k */
    STEP = 8,   /* words of one product of the tensor cores */
    ACROSS = 4, /* of those of a warp, beside one another: 32 columns */
    COLUMNS = WARPS_COLUMNS * ACROSS * 8,
    CHUNK = 4 /* words of a store */
};
static_assert(THREADS == WARPS_ROWS * WARPS_COLUMNS * WARP, "a warp has a part of the patch");

/* op(a) as [rows, k], op(b) as [rows, k] too: its rows are c's columns. */
struct side {
    const char *at;
    uint64_t stride, rows; /* in numbers */
    int halves;
};

struct work {
    struct side a, b;
    struct mixed c;
    uint64_t k, part; /* of a block: whole pieces */
    float beta;
    float *parts; /* [blocks.z, M, N]; NULL: each block has the whole sum */
};

template <int kind> struct number {
    enum { IN_WORD = kind == HALF_NONE ? 1 : 2, PIECE = WORDS * IN_WORD };
};

/* Where the words of `rows` rows of a piece lie. */
template <int rows, int turned> struct tile {
    enum {
        STRIDE = turned ? rows + 8 : WORDS + 4,
        SIZE = turned ? WORDS * STRIDE : rows * STRIDE,
        CHUNKS = rows * WORDS / CHUNK,
        EACH = (CHUNKS + THREADS - 1) / THREADS
    };
    static __device__ __forceinline__ uint32_t at(const uint32_t *words, unsigned row, unsigned k)
    {
        return words[turned ? k * STRIDE + row : row * STRIDE + k];
    }
};

/* What becomes four words: as many numbers of float32; or as many of 16 bits, or eight of float32
 * that are to be narrowed. */
struct chunk {
    uint4 first, second;
};

template <int kind>
static __device__ __forceinline__ uint32_t word_of(uint32_t first, uint32_t second)
{
    return mma_pack<kind>(__uint_as_float(first), __uint_as_float(second));
}

/* A thread's chunks of one operand's pieces, from one to the next. */
template <int kind, int rows, int turned> struct feed {
    typedef struct tile<rows, turned> tile_of;
    enum { IN_WORD = number<kind>::IN_WORD, PIECE = number<kind>::PIECE };
    struct chunk chunks[tile_of::EACH];
    const char *from[tile_of::EACH]; /* NULL: rows that are not there */
    uint64_t next_piece, next_k;     /* bytes */
    int halves;

    /* Chunk number i of the thread: its first row and its first k. */
    static __device__ __forceinline__ unsigned index(int i)
    {
        return threadIdx.x + i * THREADS;
    }
    static __device__ __forceinline__ unsigned row_of(int i)
    {
        return turned ? index(i) % (rows / CHUNK) * CHUNK : index(i) / (WORDS / CHUNK);
    }
    static __device__ __forceinline__ unsigned word_at(int i)
    {
        return turned ? index(i) / (rows / CHUNK) : index(i) % (WORDS / CHUNK) * CHUNK;
    }

    __device__ __forceinline__ void begin(const struct side &s, uint64_t row, uint64_t k)
    {
        uint64_t bytes = s.halves ? sizeof(uint16_t) : sizeof(float);
        halves = kind != HALF_NONE && s.halves;
        next_k = s.stride * bytes;
        next_piece = PIECE * (turned ? next_k : bytes);
        UNROLL(4)
        for (int i = 0; i < tile_of::EACH; i++) {
            uint64_t r = row + row_of(i), first = k + word_at(i) * IN_WORD;
            int there = r < s.rows && index(i) < tile_of::CHUNKS;
            from[i] = there ? s.at + (turned ? first * s.stride + r : r * s.stride + first) * bytes
                            : NULL;
        }
    }

    /* left: of k from the piece's first one on. */
    __device__ __forceinline__ void load(uint64_t left)
    {
        UNROLL(4)
        for (int i = 0; i < tile_of::EACH; i++) {
            unsigned k = word_at(i) * IN_WORD;
            struct chunk c = {};
            if (from[i] && k < left) {
                if (!turned || IN_WORD == 1) {
                    c.first = *(const uint4 *)from[i];
                    if (IN_WORD == 2 && !halves)
                        c.second = *(const uint4 *)(from[i] + sizeof(uint4));
                } else if (halves) {
                    *(uint64_t *)&c.first = *(const uint64_t *)from[i];
                    if (k + 1 < left)
                        *(uint64_t *)&c.second = *(const uint64_t *)(from[i] + next_k);
                } else {
                    c.first = *(const uint4 *)from[i];
                    if (k + 1 < left)
                        c.second = *(const uint4 *)(from[i] + next_k);
                }
            }
            chunks[i] = c;
            if (from[i])
                from[i] += next_piece;
        }
    }

    static __device__ __forceinline__ uint4 words_of(const struct chunk &c, int halves)
    {
        const uint4 &a = c.first, &b = c.second;
        if (IN_WORD == 1 || (halves && !turned))
            return a;
        if (halves) /* two rows of k, one number of each to a word */
            return uint4{(a.x & 0xffff) | b.x << 16, a.x >> 16 | (b.x & 0xffff0000),
                         (a.y & 0xffff) | b.y << 16, a.y >> 16 | (b.y & 0xffff0000)};
        if (turned)
            return uint4{word_of<kind>(a.x, b.x), word_of<kind>(a.y, b.y), word_of<kind>(a.z, b.z),
                         word_of<kind>(a.w, b.w)};
        return uint4{word_of<kind>(a.x, a.y), word_of<kind>(a.z, a.w), word_of<kind>(b.x, b.y),
                     word_of<kind>(b.z, b.w)};
    }

    __device__ __forceinline__ void store(uint32_t *words) const
    {
        UNROLL(4)
        for (int i = 0; i < tile_of::EACH; i++)
            if (index(i) < tile_of::CHUNKS)
                *(uint4 *)(words + (turned ? word_at(i) * tile_of::STRIDE + row_of(i)
                                           : row_of(i) * tile_of::STRIDE + word_at(i))) =
                    words_of(chunks[i], halves);
    }
};

/* Numbers of float32 become their upper 11 digits, rounded; returns the rests. */
static __device__ __forceinline__ uint32_t rest_of(uint32_t *x)
{
    float all = __uint_as_float(*x);
    *x = (*x + 0x1000) & 0xffffe000;
    return __float_as_uint(all - __uint_as_float(*x));
}

/* sum += the warp's part of a piece's product. */
template <int kind, int down, int a_t, int b_t>
static __device__ __forceinline__ void
piece_multiply(const uint32_t *a_words, const uint32_t *b_words, float sum[down][ACROSS][4])
{
    typedef tile<WARPS_ROWS * down * 16, a_t> tile_a;
    typedef tile<COLUMNS, b_t> tile_b;
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, q = lane % 4;
    unsigned row = warp / WARPS_COLUMNS * down * 16 + g;
    unsigned column = warp % WARPS_COLUMNS * ACROSS * 8 + g;
    UNROLL(4)
    for (unsigned step = 0; step < WORDS / STEP; step++) {
        unsigned k = step * STEP + q;
        uint32_t a[down][4], b[ACROSS][2], a_rest[down][4], b_rest[ACROSS][2];
        UNROLL(4)
        for (int i = 0; i < down; i++)
            UNROLL(4)
        for (unsigned r = 0; r < 4; r++) {
            a[i][r] = tile_a::at(a_words, row + i * 16 + r % 2 * 8, k + r / 2 * 4);
            a_rest[i][r] = kind == HALF_NONE ? rest_of(&a[i][r]) : 0;
        }
        UNROLL(4)
        for (int j = 0; j < ACROSS; j++)
            UNROLL(2)
        for (unsigned r = 0; r < 2; r++) {
            b[j][r] = tile_b::at(b_words, column + j * 8, k + r * 4);
            b_rest[j][r] = kind == HALF_NONE ? rest_of(&b[j][r]) : 0;
        }
        UNROLL(4)
        for (int i = 0; i < down; i++) {
            UNROLL(4)
            for (int j = 0; kind == HALF_NONE && j < ACROSS; j++)
                mma<kind>(sum[i][j], a_rest[i], b[j]);
            UNROLL(4)
            for (int j = 0; kind == HALF_NONE && j < ACROSS; j++)
                mma<kind>(sum[i][j], a[i], b_rest[j]);
            UNROLL(4)
            for (int j = 0; j < ACROSS; j++)
                mma<kind>(sum[i][j], a[i], b[j]);
        }
    }
}

/* Two numbers beside one another. */
template <int kind>
static __device__ __forceinline__ void pair_put(const struct work &w, uint64_t row, uint64_t column,
                                                float first, float second)
{
    if (row >= w.c.rows || column >= w.c.columns)
        return;
    uint64_t place = row * w.c.stride + column;
    if (w.parts) {
        uint64_t part = blockIdx.z * w.c.rows * w.c.columns + row * w.c.columns + column;
        *(float2 *)(w.parts + part) = float2{first, second};
    } else if (kind != HALF_NONE && w.c.halves) {
        *(uint32_t *)(w.c.halves + place) = mma_pack<kind>(first, second);
    } else {
        float2 *at = (float2 *)(w.c.at + place);
        float2 was = w.beta == 0 ? float2{0, 0} : *at;
        *at = float2{first + w.beta * was.x, second + w.beta * was.y};
    }
}

template <int kind, int down>
static __device__ __forceinline__ void part_put(const struct work &w, uint64_t row, uint64_t column,
                                                const float sum[down][ACROSS][4])
{
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    row += warp / WARPS_COLUMNS * down * 16 + lane / 4;
    column += warp % WARPS_COLUMNS * ACROSS * 8 + lane % 4 * 2;
    UNROLL(4)
    for (int i = 0; i < down; i++)
        UNROLL(4)
    for (int j = 0; j < ACROSS; j++) {
        pair_put<kind>(w, row + i * 16, column + j * 8, sum[i][j][0], sum[i][j][1]);
        pair_put<kind>(w, row + i * 16 + 8, column + j * 8, sum[i][j][2], sum[i][j][3]);
    }
}

/* Words of shared memory: two pieces of both operands. */
template <int down, int a_t, int b_t> struct shared_words {
    enum {
        A = tile<WARPS_ROWS * down * 16, a_t>::SIZE,
        B = tile<COLUMNS, b_t>::SIZE,
        BYTES = 2 * (A + B) * sizeof(uint32_t)
    };
};

template <int kind, int down, int a_t, int b_t>
__global__ void __launch_bounds__(THREADS, down == 2 ? 2 : 1) product_patches(struct work w)
{
    typedef shared_words<down, a_t, b_t> size;
    SHARED_DYNAMIC(uint32_t, words);
    enum { ROWS = WARPS_ROWS * down * 16, PIECE = number<kind>::PIECE };
    uint64_t row = (uint64_t)blockIdx.y * ROWS, column = (uint64_t)blockIdx.x * COLUMNS;
    uint64_t k = blockIdx.z * w.part, end = k + w.part < w.k ? k + w.part : w.k;
    float sum[down][ACROSS][4] = {};
    struct feed<kind, ROWS, a_t> a;
    struct feed<kind, COLUMNS, b_t> b;
    a.begin(w.a, row, k);
    b.begin(w.b, column, k);
    a.load(end - k);
    b.load(end - k);
    for (unsigned piece = 0; k < end; piece++, k += PIECE) {
        uint32_t *now = words + piece % 2 * (size::A + size::B);
        a.store(now);
        b.store(now + size::A);
        __syncthreads();
        if (k + PIECE < end) {
            a.load(end - k - PIECE);
            b.load(end - k - PIECE);
        }
        if (kind == HALF_NONE) {
            float part[down][ACROSS][4] = {};
            piece_multiply<kind, down, a_t, b_t>(now, now + size::A, part);
            UNROLL(4)
            for (int i = 0; i < down; i++)
                UNROLL(4)
            for (int j = 0; j < ACROSS; j++)
                UNROLL(4)
            for (int r = 0; r < 4; r++)
                sum[i][j][r] += part[i][j][r];
        } else {
            piece_multiply<kind, down, a_t, b_t>(now, now + size::A, sum);
        }
    }
    part_put<kind, down>(w, row, column, sum);
}

/* c = the parts, in their order, + beta c; all begin at multiples of 16 bytes. */
__global__ void parts_finish(const float *parts, unsigned count, float beta, struct matrix c)
{
    uint64_t width = c.columns / FOUR;
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
static uint64_t parts_of(const struct work *w, uint64_t patches, uint64_t piece)
{
    enum { PIECES_LEAST = 4 };
    static const int share = getenv("FT_PARTS") ? atoi(getenv("FT_PARTS")) : 1; /* VARIANT */
    uint64_t wanted = (uint64_t)cuda_processors / patches / (uint64_t)share,
             most = w->k / (PIECES_LEAST * piece);
    uint64_t room = CUDA_SCRATCH_FLOATS / (w->c.rows * w->c.columns);
    wanted = wanted < most ? wanted : most;
    wanted = wanted < room ? wanted : room;
    return wanted ? wanted : 1;
}

template <int kind, int down, int a_t, int b_t> static int patches_launch(struct work *w)
{
    enum { ROWS = WARPS_ROWS * down * 16, BYTES = shared_words<down, a_t, b_t>::BYTES };
    struct matrix c = {w->c.at, w->c.rows, w->c.columns, w->c.stride};
    uint64_t rows = shares(w->c.rows, ROWS), columns = shares(w->c.columns, COLUMNS), parts = 1;
    if (rows > 65535 || !SHARED_ALLOW((product_patches<kind, down, a_t, b_t>), BYTES))
        return 0;
    if (a_t)
        parts = parts_of(w, rows * columns, number<kind>::PIECE);
    w->part = shares(shares(w->k, parts), number<kind>::PIECE) * number<kind>::PIECE;
    parts = shares(w->k, w->part);
    w->parts = parts > 1 ? cuda_scratch : NULL;
    LAUNCH_SHARED((product_patches<kind, down, a_t, b_t>),
                  dim3((unsigned)columns, (unsigned)rows, (unsigned)parts), THREADS, BYTES, *w);
    if (parts > 1)
        LAUNCH(parts_finish, cuda_blocks(w->c.rows * w->c.columns / FOUR, THREADS), THREADS,
               cuda_scratch, (unsigned)parts, w->beta, c);
    return 1;
}

/* What so many rows a warp cost: rounds of blocks, times the rows. */
static uint64_t rounds(const struct work *w, uint64_t down)
{
    uint64_t blocks = shares(w->c.rows, WARPS_ROWS * down * 16) * shares(w->c.columns, COLUMNS);
    return shares(blocks, (uint64_t)cuda_processors) * down;
}

template <int kind> static int patches_run(struct work *w, int a_t, int b_t)
{
    if (a_t)
        return patches_launch<kind, 4, 1, 1>(w);
    static const int down = getenv("FT_DOWN") ? atoi(getenv("FT_DOWN")) : 0; /* VARIANT */
    if (down == 2)
        return b_t ? patches_launch<kind, 2, 0, 0>(w) : patches_launch<kind, 2, 0, 1>(w);
    if (down ? down == 4 : rounds(w, 4) <= rounds(w, 3))
        return b_t ? patches_launch<kind, 4, 0, 0>(w) : patches_launch<kind, 4, 0, 1>(w);
    return b_t ? patches_launch<kind, 3, 0, 0>(w) : patches_launch<kind, 3, 0, 1>(w);
}

/* The matrix's rows are the operand's, or its columns are. 0: its numbers cannot be read a chunk at
 * a time. */
static int side_make(enum half kind, struct mixed m, int turned, struct side *s)
{
    uint64_t most = m.halves ? sizeof(uint4) / sizeof *m.halves : sizeof(uint4) / sizeof *m.at;
    uint64_t each = turned ? FOUR : kind == HALF_NONE ? FOUR : 2 * FOUR;
    s->at = m.halves ? (const char *)m.halves : (const char *)m.at;
    s->stride = m.stride;
    s->rows = turned ? m.columns : m.rows;
    s->halves = m.halves != NULL;
    return (uintptr_t)s->at % sizeof(uint4) == 0 && m.stride % most == 0 && m.columns % each == 0;
}

int tensor_product(enum half kind, struct mixed a, int a_t, struct mixed b, int b_t, float beta,
                   struct mixed c)
{
    struct work w = {};
    if (cuda_capability < 80 || (a_t && (b_t || c.halves)) || !side_make(kind, a, a_t, &w.a) ||
        !side_make(kind, b, !b_t, &w.b))
        return 0;
    if ((uintptr_t)(c.halves ? (void *)c.halves : (void *)c.at) % sizeof(float4) ||
        c.stride % FOUR || c.columns % FOUR)
        return 0;
    w.c = c;
    w.k = a_t ? a.rows : a.columns;
    w.beta = beta;
    switch (kind) {
    case HALF_F16:
        return patches_run<HALF_F16>(&w, a_t, b_t);
    case HALF_BF16:
        return patches_run<HALF_BF16>(&w, a_t, b_t);
    default:
        return patches_run<HALF_NONE>(&w, a_t, b_t);
    }
}

/* ---- the operations ---- */

/* A number as a product takes it. */
static __device__ __forceinline__ float mixed_number(enum half half, const struct mixed &m,
                                                     uint64_t i)
{
    if (m.halves)
        return half == HALF_F16 ? half_F16::widen(m.halves[i]) : half_BF16::widen(m.halves[i]);
    return half_rounded(half, m.at[i]);
}

/* Of matrices that the tensor cores' kernel does not take: a number a thread. */
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
    FOR_ITEMS(i, x.rows * x.columns)
    {
        uint64_t row = i / x.columns;
        float number = x.at[row * x.stride + (i - row * x.columns)];
        h[i] = half == HALF_F16 ? half_F16::narrow(number) : half_BF16::narrow(number);
    }
}

/* An operand in float32 becomes one in 16 bits, in one half of the scratch. 0: it has no room. */
static int operand_narrow(enum half half, struct mixed *m, uint16_t *scratch)
{
    struct matrix x = {m->at, m->rows, m->columns, m->stride};
    if (m->halves)
        return 1;
    if (m->rows * m->columns > CUDA_SCRATCH_FLOATS)
        return 0;
    LAUNCH(numbers_narrow, cuda_blocks(m->rows * m->columns, THREADS), THREADS, half, x, scratch);
    *m = mixed_at(scratch, NULL, m->rows, m->columns);
    return 1;
}

static int blas_product_half(enum half half, struct mixed a, int a_t, struct mixed b, int b_t,
                             float beta, struct mixed c)
{
    uint16_t *scratch = (uint16_t *)cuda_scratch;
    return operand_narrow(half, &a, scratch) &&
           operand_narrow(half, &b, scratch + CUDA_SCRATCH_FLOATS) &&
           cuda_blas_product_half(half, a, a_t, b, b_t, beta, c);
}

void cuda_product_half(enum half half, struct mixed a, int a_t, struct mixed b, int b_t, float beta,
                       struct mixed c)
{
    static const int own = getenv("FT_OWN") != NULL; /* VARIANT */
    if (own && tensor_product(half, a, a_t, b, b_t, beta, c))
        return;
    if (!blas_product_half(half, a, a_t, b, b_t, beta, c) &&
        !tensor_product(half, a, a_t, b, b_t, beta, c))
        LAUNCH(product_numbers, cuda_blocks(c.rows * c.columns, THREADS), THREADS, half, a, a_t, b,
               b_t, beta, c);
}

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
    static const int no_tensor = getenv("FT_NO_TENSOR") != NULL; /* VARIANT */
    if (no_tensor || cuda_products_rounded || !is_large(a, a_t, c) ||
        !tensor_product(HALF_NONE, mixed_of(a), a_t, mixed_of(b), b_t, beta, mixed_of(c)))
        cuda_blas_product(a, a_t, b, b_t, beta, c);
}
