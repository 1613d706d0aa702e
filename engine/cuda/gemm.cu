/* gemm.cu - c = op(a) op(b) on the tensor cores, three products of TF32 for one of float32
 * (tf32.h).
 *
 * For the sizes of small models, where a library's kernels leave most of the GPU idle: a block
 * makes a patch of c, small ones where there are few of them, whose warps then share the sum over
 * k; long sums are cut into parts, one a block, that a second launch adds in order. Operands come
 * through shared memory in STAGES pieces of k, asynchronously, in the order in which they are
 * stored: k next to k, or row next to row (op transposes). Sums of a piece of k begin at 0 and are
 * then added in float32: the tensor cores' own addition does not round to nearest.
 */
#include "engine/cuda/gemm.h"

#include "engine/cuda/tf32.h"

enum { THREADS = 128, WARPS = THREADS / WARP, STAGES = 4, CHUNK = 4 };

/* Rows and columns of a patch, k of a piece, and how the warps share them. */
struct large_patch {
    enum { ROWS = 64, COLUMNS = 64, PIECE = 16, WARPS_ROWS = 2, WARPS_COLUMNS = 2, WARPS_K = 1 };
};
struct small_patch {
    enum { ROWS = 32, COLUMNS = 32, PIECE = 32, WARPS_ROWS = 1, WARPS_COLUMNS = 1, WARPS_K = 4 };
};

/* One operand: rows [rows, k], or transposed [k, rows]. */
struct operand {
    const float *at;
    uint64_t stride, rows;
    int transposed, aligned; /* whole chunks begin at multiples of 16 bytes */
};

struct problem {
    struct operand a, b; /* b as [N, K] */
    struct matrix c;
    uint64_t k, part; /* of a block: whole pieces */
    float *parts;     /* [splits, M, N], and behind them [splits, M] of the sums; NULL: one part */
    struct gemm_finish finish;
};

/* Numbers of an operand's piece in shared memory; padded so that a warp's reads hit all banks. */
template <int rows, int piece> struct tile {
    enum {
        STRIDE = piece + 4,           /* k next to k */
        STRIDE_TRANSPOSED = rows + 8, /* row next to row */
        FLOATS = rows * STRIDE > piece *STRIDE_TRANSPOSED ? rows *STRIDE : piece *STRIDE_TRANSPOSED
    };
};

/* Up to four numbers to shared memory, zeroes for the rest, by the time of the next wait. */
static __device__ __forceinline__ void chunk_fetch(float *to, const float *from, int count,
                                                   int aligned)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    if (aligned) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from),
                     "r"(count * 4));
        return;
    }
    for (int i = 0; i < CHUNK; i++)
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(at + 4 * i),
                     "l"(from + (i < count ? i : 0)), "r"(i < count ? 4 : 0));
#else
    (void)aligned;
    for (int i = 0; i < CHUNK; i++)
        to[i] = i < count ? from[i] : 0;
#endif
}

static __device__ __forceinline__ void piece_commit(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;");
#endif
}

/* All pieces but the newest `left` have come. */
template <int left> static __device__ __forceinline__ void piece_await(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(left));
#endif
}

/* The chunks of an operand's pieces that a thread fetches: where the next one begins, how many of
 * its rows are inside, and where it goes in a stage. */
template <int rows, int piece, int transposed> struct chunks {
    enum {
        COUNT = rows * piece / CHUNK / THREADS,
        ACROSS = (transposed ? rows : piece) / CHUNK, /* chunks side by side */
        STRIDE = transposed ? tile<rows, piece>::STRIDE_TRANSPOSED : tile<rows, piece>::STRIDE
    };
    const float *from[COUNT];
    int inside[COUNT];

    __device__ __forceinline__ void begin(const struct operand *o, uint64_t row_first, uint64_t k)
    {
        UNROLL()
        for (int i = 0; i < COUNT; i++) {
            int chunk = (int)threadIdx.x + i * THREADS;
            uint64_t row = row_first + (transposed ? chunk % ACROSS * CHUNK : chunk / ACROSS);
            uint64_t at_k = k + (transposed ? chunk / ACROSS : chunk % ACROSS * CHUNK);
            int64_t left = (int64_t)o->rows - (int64_t)row;
            inside[i] = left <= 0 ? 0 : !transposed || left > CHUNK ? CHUNK : (int)left;
            /* of rows that are outside nothing is read, but an address is asked for */
            from[i] = left <= 0    ? o->at
                      : transposed ? o->at + at_k * o->stride + row
                                   : o->at + row * o->stride + at_k;
        }
    }

    /* The next piece, of which `left` k are there, into a stage. */
    __device__ __forceinline__ void fetch(const struct operand *o, int64_t left, float *to)
    {
        UNROLL()
        for (int i = 0; i < COUNT; i++) {
            int chunk = (int)threadIdx.x + i * THREADS, count = inside[i];
            int at_k = transposed ? chunk / ACROSS : chunk % ACROSS * CHUNK;
            if (left < piece) {
                int64_t here = left - at_k;
                if (transposed)
                    count = here > 0 ? count : 0;
                else if (count)
                    count = here <= 0 ? 0 : here < CHUNK ? (int)here : CHUNK;
            }
            chunk_fetch(to + chunk / ACROSS * STRIDE + chunk % ACROSS * CHUNK,
                        count ? from[i] : o->at, count, o->aligned);
            if (inside[i])
                from[i] += transposed ? piece * o->stride : piece;
        }
    }
};

/* Number [row, k] of a piece in shared memory. */
template <int rows, int piece, int transposed>
static __device__ __forceinline__ float piece_at(const float *at, int row, int k)
{
    return transposed ? at[k * tile<rows, piece>::STRIDE_TRANSPOSED + row]
                      : at[row * tile<rows, piece>::STRIDE + k];
}

/* The warp's part of a patch: ACROSS x DOWN products of the tensor cores. */
template <class patch> struct warp_part {
    enum {
        ROWS = patch::ROWS / patch::WARPS_ROWS,
        COLUMNS = patch::COLUMNS / patch::WARPS_COLUMNS,
        DOWN = ROWS / 16,
        ACROSS = COLUMNS / 8
    };
};

/* sum += the piece's product, for the warp's part and its share of the piece's k. */
template <class patch, int a_t, int b_t, int exact>
static __device__ __forceinline__ void piece_multiply(const float *a, const float *b,
                                                      float sum[][warp_part<patch>::ACROSS][4])
{
    typedef warp_part<patch> part;
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, q = lane % 4;
    int row = warp / patch::WARPS_K / patch::WARPS_COLUMNS * part::ROWS;
    int column = warp / patch::WARPS_K % patch::WARPS_COLUMNS * part::COLUMNS;
    float now[part::DOWN][part::ACROSS][4];
    for (int i = 0; i < part::DOWN; i++)
        for (int j = 0; j < part::ACROSS; j++)
            for (int c = 0; c < 4; c++)
                now[i][j][c] = 0;
    UNROLL()
    for (int k = warp % patch::WARPS_K * 8; k < patch::PIECE; k += patch::WARPS_K * 8) {
        uint32_t big_a[part::DOWN][4], rest_a[part::DOWN][4];
        uint32_t big_b[part::ACROSS][2], rest_b[part::ACROSS][2];
        UNROLL()
        for (int i = 0; i < part::DOWN; i++)
            UNROLL()
        for (int c = 0; c < 4; c++) {
            struct tf32_pair p = tf32_split(piece_at<patch::ROWS, patch::PIECE, a_t>(
                a, row + i * 16 + g + c % 2 * 8, k + q + c / 2 * 4));
            big_a[i][c] = p.big;
            rest_a[i][c] = p.rest;
        }
        UNROLL()
        for (int j = 0; j < part::ACROSS; j++)
            UNROLL()
        for (int c = 0; c < 2; c++) {
            struct tf32_pair p = tf32_split(
                piece_at<patch::COLUMNS, patch::PIECE, b_t>(b, column + j * 8 + g, k + q + c * 4));
            big_b[j][c] = p.big;
            rest_b[j][c] = p.rest;
        }
        UNROLL()
        for (int i = 0; i < part::DOWN; i++)
            UNROLL()
        for (int j = 0; j < part::ACROSS; j++) {
            if (!exact) {
                tf32_mma(now[i][j], rest_a[i], big_b[j]);
                tf32_mma(now[i][j], big_a[i], rest_b[j]);
            }
            tf32_mma(now[i][j], big_a[i], big_b[j]);
        }
    }
    UNROLL()
    for (int i = 0; i < part::DOWN; i++)
        UNROLL()
    for (int j = 0; j < part::ACROSS; j++)
        UNROLL()
    for (int c = 0; c < 4; c++)
        sum[i][j][c] += now[i][j][c];
}

/* The warp's sums into shared memory [WARPS_K, ROWS, COLUMNS]. */
template <class patch>
static __device__ __forceinline__ void part_store(const float sum[][warp_part<patch>::ACROSS][4],
                                                  float *to)
{
    typedef warp_part<patch> part;
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int row = warp / patch::WARPS_K / patch::WARPS_COLUMNS * part::ROWS + lane / 4;
    int column = warp / patch::WARPS_K % patch::WARPS_COLUMNS * part::COLUMNS + lane % 4 * 2;
    to += warp % patch::WARPS_K * patch::ROWS * patch::COLUMNS;
    UNROLL()
    for (int i = 0; i < part::DOWN; i++)
        UNROLL()
    for (int j = 0; j < part::ACROSS; j++)
        UNROLL()
    for (int c = 0; c < 4; c++)
        to[(row + i * 16 + c / 2 * 8) * patch::COLUMNS + column + j * 8 + c % 2] = sum[i][j][c];
}

static __device__ __forceinline__ float activated(enum activation kind, float x)
{
    switch (kind) {
#define ACTIVATED(NAME, name)                                                                      \
    case ACTIVATION_##NAME:                                                                        \
        return scalar_##name(x);
        ACTIVATIONS(ACTIVATED)
#undef ACTIVATED
    case ACTIVATION_COUNT:
        break;
    }
    return x;
}

static __device__ __forceinline__ float rounded(enum half half, float x)
{
    return half == HALF_NONE  ? x
           : half == HALF_F16 ? scalar_half(scalar_to_half(x))
                              : scalar_brain(scalar_to_brain(x));
}

static __device__ __forceinline__ void number_finish(const struct gemm_finish *f, struct matrix c,
                                                     uint64_t row, uint64_t column, float x)
{
    float *at = c.at + row * c.stride + column;
    if (f->beta != 0)
        x += f->beta * *at;
    if (f->bias)
        x += f->bias[column];
    x = rounded(f->half, x);
    if (f->activation != ACTIVATION_COUNT)
        x = rounded(f->half, activated(f->activation, x));
    *at = x;
    if (f->kept)
        f->kept[row * c.columns + column] =
            f->half == HALF_F16 ? scalar_to_half(x) : scalar_to_brain(x);
}

/* The patch's sums, all parts of which are in shared memory, to where they go. */
template <class patch>
static __device__ __forceinline__ void patch_finish(const struct problem *p, uint64_t row,
                                                    uint64_t column, const float *sums)
{
    for (int i = threadIdx.x; i < patch::ROWS * patch::COLUMNS; i += THREADS) {
        uint64_t r = row + i / patch::COLUMNS, c = column + i % patch::COLUMNS;
        float x = 0;
        for (int part = 0; part < patch::WARPS_K; part++)
            x += sums[part * patch::ROWS * patch::COLUMNS + i];
        if (r >= p->c.rows || c >= p->c.columns)
            continue;
        if (p->parts)
            p->parts[(blockIdx.z * p->c.rows + r) * p->c.columns + c] = x;
        else
            number_finish(&p->finish, p->c, r, c, x);
    }
}

template <class patch, int a_t, int b_t, int exact>
__global__ void __launch_bounds__(THREADS) gemm_kernel(struct problem p)
{
    enum {
        A_FLOATS = tile<patch::ROWS, patch::PIECE>::FLOATS,
        B_FLOATS = tile<patch::COLUMNS, patch::PIECE>::FLOATS,
        STAGED = STAGES * (A_FLOATS + B_FLOATS),
        SUMMED = patch::WARPS_K * patch::ROWS * patch::COLUMNS
    };
    static_assert(STAGED >= SUMMED, "sums take the operands' place");
    __shared__ __align__(16) float staged[STAGED];
    float *a = staged, *b = staged + STAGES * A_FLOATS;
    uint64_t row = (uint64_t)blockIdx.x * patch::ROWS,
             column = (uint64_t)blockIdx.y * patch::COLUMNS;
    uint64_t first = blockIdx.z * p.part, end = first + p.part < p.k ? first + p.part : p.k;
    int pieces = (int)((end - first + patch::PIECE - 1) / patch::PIECE);
    float sum[warp_part<patch>::DOWN][warp_part<patch>::ACROSS][4] = {};
    float row_sum = 0;
    chunks<patch::ROWS, patch::PIECE, a_t> chunks_a;
    chunks<patch::COLUMNS, patch::PIECE, b_t> chunks_b;
    int64_t left = (int64_t)(end - first); /* of k, not yet fetched */
    chunks_a.begin(&p.a, row, first);
    chunks_b.begin(&p.b, column, first);
    for (int i = 0; i < STAGES - 1; i++, left -= patch::PIECE) {
        if (left > 0) {
            chunks_a.fetch(&p.a, left, a + i * A_FLOATS);
            chunks_b.fetch(&p.b, left, b + i * B_FLOATS);
        }
        piece_commit();
    }
    for (int i = 0; i < pieces; i++, left -= patch::PIECE) {
        int next = (i + STAGES - 1) % STAGES;
        piece_await<STAGES - 2>();
        __syncthreads();
        if (left > 0) {
            chunks_a.fetch(&p.a, left, a + next * A_FLOATS);
            chunks_b.fetch(&p.b, left, b + next * B_FLOATS);
        }
        piece_commit();
        const float *now = a + i % STAGES * A_FLOATS;
        piece_multiply<patch, a_t, b_t, exact>(now, b + i % STAGES * B_FLOATS, sum);
        if (p.finish.sums && blockIdx.y == 0 && threadIdx.x < patch::ROWS)
            for (int k = 0; k < patch::PIECE; k++)
                row_sum += piece_at<patch::ROWS, patch::PIECE, a_t>(now, (int)threadIdx.x, k);
    }
    piece_await<0>();
    __syncthreads();
    part_store<patch>(sum, staged);
    __syncthreads();
    patch_finish<patch>(&p, row, column, staged);
    row += threadIdx.x;
    if (p.finish.sums && blockIdx.y == 0 && threadIdx.x < patch::ROWS && row < p.c.rows) {
        if (p.parts)
            p.parts[gridDim.z * p.c.rows * p.c.columns + blockIdx.z * p.c.rows + row] = row_sum;
        else
            p.finish.sums[row] = row_sum;
    }
}

/* Parts of k are added in their order. */
__global__ void parts_finish(struct problem p, unsigned parts)
{
    uint64_t numbers = p.c.rows * p.c.columns;
    FOR_ITEMS(i, numbers)
    {
        float x = 0;
        for (unsigned part = 0; part < parts; part++)
            x += p.parts[part * numbers + i];
        number_finish(&p.finish, p.c, i / p.c.columns, i % p.c.columns, x);
    }
    if (p.finish.sums)
        FOR_ITEMS(row, p.c.rows)
        {
            float x = 0;
            for (unsigned part = 0; part < parts; part++)
                x += p.parts[parts * numbers + part * p.c.rows + row];
            p.finish.sums[row] = x;
        }
}

static uint64_t shares(uint64_t count, uint64_t each)
{
    return (count + each - 1) / each;
}

/* How many parts of k: so that there are blocks enough, each with some work, and room for the sums.
 */
static uint64_t parts_of(uint64_t patches, uint64_t m, uint64_t n, uint64_t k)
{
    enum { K_LEAST = 256 };
    uint64_t wanted = 2 * (uint64_t)cuda_processors / patches, most = shares(k, K_LEAST);
    uint64_t room = CUDA_SCRATCH_FLOATS / (m * n + m);
    wanted = wanted < most ? wanted : most;
    wanted = wanted < room ? wanted : room;
    return wanted ? wanted : 1;
}

template <class patch, int a_t, int b_t> static void patches_run(struct problem *p, int exact)
{
    uint64_t rows = shares(p->c.rows, patch::ROWS), columns = shares(p->c.columns, patch::COLUMNS);
    uint64_t parts = parts_of(rows * columns, p->c.rows, p->c.columns, p->k);
    p->part = shares(shares(p->k, parts), patch::PIECE) * patch::PIECE;
    parts = shares(p->k, p->part);
    p->parts = parts > 1 ? cuda_scratch : NULL;
    dim3 blocks((unsigned)rows, (unsigned)columns, (unsigned)parts);
    /* several blocks share a multiprocessor: what they keep of it is shared memory */
    ALL_SHARED((gemm_kernel<patch, a_t, b_t, 1>));
    ALL_SHARED((gemm_kernel<patch, a_t, b_t, 0>));
    if (exact)
        LAUNCH((gemm_kernel<patch, a_t, b_t, 1>), blocks, THREADS, *p);
    else
        LAUNCH((gemm_kernel<patch, a_t, b_t, 0>), blocks, THREADS, *p);
    if (parts > 1)
        LAUNCH(parts_finish, cuda_blocks(p->c.rows * p->c.columns, 256), 256, *p, (unsigned)parts);
}

template <class patch> static void order_choose(struct problem *p, int exact)
{
    if (p->a.transposed && p->b.transposed)
        patches_run<patch, 1, 1>(p, exact);
    else if (p->a.transposed)
        patches_run<patch, 1, 0>(p, exact);
    else if (p->b.transposed)
        patches_run<patch, 0, 1>(p, exact);
    else
        patches_run<patch, 0, 0>(p, exact);
}

/* The matrix's rows are the operand's, or its columns are. */
static struct operand operand_of(struct matrix m, int transposed)
{
    struct operand o;
    o.at = m.at;
    o.stride = m.stride;
    o.rows = transposed ? m.columns : m.rows;
    o.transposed = transposed;
    o.aligned = (uintptr_t)m.at % 16 == 0 && m.stride % CHUNK == 0;
    return o;
}

void gemm_run(struct matrix a, int a_t, struct matrix b, int b_t, struct matrix c, int exact,
              const struct gemm_finish *f)
{
    enum { LONG = 2048 };
    struct problem p;
    p.a = operand_of(a, a_t);
    p.b = operand_of(b, !b_t);
    p.c = c;
    p.k = a_t ? a.rows : a.columns;
    p.finish = *f;
    uint64_t large = shares(c.rows, large_patch::ROWS) * shares(c.columns, large_patch::COLUMNS);
    if (large >= (uint64_t)cuda_processors || p.k >= LONG)
        order_choose<large_patch>(&p, exact);
    else
        order_choose<small_patch>(&p, exact);
}

/* ---- the operations ---- */

static int is_taken(struct matrix a, int a_t, struct matrix c)
{
    return gemm_takes(c.rows, c.columns, a_t ? a.rows : a.columns, cuda_products_rounded);
}

static const struct gemm_finish PLAIN = {0, NULL, ACTIVATION_COUNT, HALF_NONE, NULL, NULL};

void cuda_product(struct matrix a, int a_t, struct matrix b, int b_t, float beta, struct matrix c)
{
    struct gemm_finish f = PLAIN;
    f.beta = beta;
    if (is_taken(a, a_t, c))
        gemm_run(a, a_t, b, b_t, c, cuda_products_rounded, &f);
    else
        cuda_blas_product(a, a_t, b, b_t, beta, c);
}

__global__ void sums_finish(struct matrix c, struct gemm_finish f)
{
    FOR_ITEMS(i, c.rows * c.columns)
    {
        uint64_t row = i / c.columns, column = i % c.columns;
        number_finish(&f, c, row, column, c.at[row * c.stride + column]);
    }
}

void cuda_linear_forward(struct matrix x, struct matrix w, const float *bias, enum activation kind,
                         enum half half, uint16_t *kept, struct matrix y)
{
    struct gemm_finish f = {0, bias, kind, half, kept, NULL};
    if (is_taken(x, 0, y)) {
        gemm_run(x, 0, w, 1, y, cuda_products_rounded, &f);
        return;
    }
    if (cuda_blas_linear(x, w, bias, kind == ACTIVATION_RELU, y)) {
        f.bias = NULL;
        if (kind == ACTIVATION_RELU) /* of a rounded number is that of the number, rounded */
            f.activation = ACTIVATION_COUNT;
    } else {
        cuda_blas_product(x, 0, w, 1, 0, y);
    }
    if (f.bias || f.half || f.activation != ACTIVATION_COUNT)
        LAUNCH(sums_finish, cuda_blocks(y.rows * y.columns, 256), 256, y, f);
}

void cuda_weight_gradient(struct matrix dy, struct matrix x, struct matrix dw, float *db)
{
    struct gemm_finish f = PLAIN;
    f.sums = db;
    if (is_taken(dy, 1, dw)) {
        gemm_run(dy, 1, x, 0, dw, cuda_products_rounded, &f);
        return;
    }
    if (cuda_blas_gradient(dy, x, dw, db))
        return;
    cuda_blas_product(dy, 1, x, 0, 0, dw);
    cuda_column_sums(dy, db);
}
