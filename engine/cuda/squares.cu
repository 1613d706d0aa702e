/* squares.cu - sums of squared products: what per-sample squared gradients cost (engine/squares.h).
 *
 * A block has a tile of y, ROWS x COLUMNS, and some of the samples. A sample's product is summed in
 * registers over its steps, DEPTH of them at a time in shared memory while the next ones are on
 * their way; at its end the sums are squared and added to others in registers. A sample's gradient
 * is never in memory. Where y has few tiles the samples are divided among several blocks, whose
 * sums go to the scratch, and a second launch adds them in the order of the blocks.
 *
 * squares_product_add is the same with pieces of its steps for samples: the factors are squared
 * when they are staged, and nothing at the end.
 */
#include "engine/cuda/cuda.h"

enum {
    ROWS = 128,
    COLUMNS = 64,
    DEPTH = 16,
    SIDE = 8, /* a thread has SIDE x SIDE numbers: two groups of 4 rows by two of 4 columns */
    GROUP = 4,
    THREADS = ROWS * COLUMNS / (SIDE * SIDE),
    LOADS_D = ROWS * DEPTH / THREADS,
    LOADS_X = COLUMNS * DEPTH / THREADS,
    BLOCKS_WANTED = 288, /* two a multiprocessor of the largest GPUs; fixed: it decides the order */
};

/* d [steps, D] and x [steps, X] of all samples. */
struct work {
    const float *d, *x;
    uint64_t d_stride, x_stride, d_distance, x_distance;
    const uint64_t *begin; /* as struct samples */
    uint64_t steps;        /* of a sample, where begin is NULL */
    uint64_t last;         /* those of the last sample */
    uint64_t count;        /* samples */
    uint64_t each;         /* samples of a block */
};

/* Where a block is: a sample, what is left of it. */
struct cursor {
    uint64_t n, end, left;
    const float *d, *x;
};

static __device__ __forceinline__ void cursor_begin(struct cursor *c, const struct work *w)
{
    uint64_t n = c->n;
    if (n >= c->end)
        return;
    uint64_t first = w->begin ? w->begin[n] - w->begin[0] : 0;
    c->left = w->begin ? w->begin[n + 1] - w->begin[n] : n + 1 == w->count ? w->last : w->steps;
    c->d = w->d + (w->begin ? first * w->d_stride : n * w->d_distance);
    c->x = w->x + (w->begin ? first * w->x_stride : n * w->x_distance);
}

/* Goes DEPTH steps on; 1 where the sample ends before them. */
static __device__ __forceinline__ int cursor_next(struct cursor *c, const struct work *w)
{
    int ends = c->left <= DEPTH;
    if (ends) {
        c->n++;
        cursor_begin(c, w);
        return 1;
    }
    c->left -= DEPTH;
    c->d += DEPTH * w->d_stride;
    c->x += DEPTH * w->x_stride;
    return 0;
}

/* This thread's numbers of DEPTH steps; what is not there is 0. */
struct staged {
    float d[LOADS_D], x[LOADS_X];
};

template <int factors>
static __device__ __forceinline__ void staged_load(struct staged *s, const struct cursor *c,
                                                   const struct work *w, uint64_t row,
                                                   uint64_t rows, uint64_t column, uint64_t columns)
{
    unsigned i = threadIdx.x % ROWS, j = threadIdx.x % COLUMNS;
    UNROLL(LOADS_D)
    for (int load = 0; load < LOADS_D; load++) {
        unsigned k = (unsigned)load * (THREADS / ROWS) + threadIdx.x / ROWS;
        float value = k < c->left && row + i < rows ? c->d[k * w->d_stride + row + i] : 0;
        s->d[load] = factors ? value * value : value;
    }
    UNROLL(LOADS_X)
    for (int load = 0; load < LOADS_X; load++) {
        unsigned k = (unsigned)load * (THREADS / COLUMNS) + threadIdx.x / COLUMNS;
        float value = k < c->left && column + j < columns ? c->x[k * w->x_stride + column + j] : 0;
        s->x[load] = factors ? value * value : value;
    }
}

struct __align__(16) tiles
{
    float d[DEPTH][ROWS], x[DEPTH][COLUMNS];
};

static __device__ __forceinline__ void staged_store(const struct staged *s, struct tiles *t)
{
    UNROLL(LOADS_D)
    for (int load = 0; load < LOADS_D; load++)
        t->d[(unsigned)load * (THREADS / ROWS) + threadIdx.x / ROWS][threadIdx.x % ROWS] =
            s->d[load];
    UNROLL(LOADS_X)
    for (int load = 0; load < LOADS_X; load++)
        t->x[(unsigned)load * (THREADS / COLUMNS) + threadIdx.x / COLUMNS][threadIdx.x % COLUMNS] =
            s->x[load];
}

/* SIDE numbers: GROUP at `at` and GROUP half a tile behind. */
static __device__ __forceinline__ void side_load(const float *at, unsigned half, float side[SIDE])
{
    float4 low = *(const float4 *)at, high = *(const float4 *)(at + half);
    side[0] = low.x, side[1] = low.y, side[2] = low.z, side[3] = low.w;
    side[4] = high.x, side[5] = high.y, side[6] = high.z, side[7] = high.w;
}

static __device__ __forceinline__ void tiles_multiply(const struct tiles *t, unsigned i, unsigned j,
                                                      float sums[SIDE][SIDE])
{
    UNROLL(DEPTH)
    for (int k = 0; k < DEPTH; k++) {
        float d[SIDE], x[SIDE];
        side_load(&t->d[k][i], ROWS / 2, d);
        side_load(&t->x[k][j], COLUMNS / 2, x);
        UNROLL(SIDE)
        for (int a = 0; a < SIDE; a++)
            UNROLL(SIDE)
        for (int b = 0; b < SIDE; b++)
            sums[a][b] += d[a] * x[b];
    }
}

template <int factors>
static __device__ __forceinline__ void sums_end(float sums[SIDE][SIDE], float squares[SIDE][SIDE])
{
    UNROLL(SIDE)
    for (int a = 0; a < SIDE; a++)
        UNROLL(SIDE)
    for (int b = 0; b < SIDE; b++) {
        squares[a][b] += factors ? sums[a][b] : sums[a][b] * sums[a][b];
        sums[a][b] = 0;
    }
}

/* blockIdx.x: tile; blockIdx.y: which of the samples. parts NULL: y += the sums; else they go to
 * parts[blockIdx.y][D][X]. */
template <int factors>
__global__ void __launch_bounds__(THREADS, 2)
    tile_squares(struct work w, struct matrix y, float *parts)
{
    __shared__ struct tiles t[2];
    uint64_t across = (y.columns + COLUMNS - 1) / COLUMNS;
    uint64_t row = blockIdx.x / across * ROWS, column = blockIdx.x % across * COLUMNS;
    unsigned i = threadIdx.x / (COLUMNS / SIDE) * GROUP, j = threadIdx.x % (COLUMNS / SIDE) * GROUP;
    float sums[SIDE][SIDE] = {{0}}, squares[SIDE][SIDE] = {{0}};
    struct staged s;
    struct cursor c = {blockIdx.y * w.each, (blockIdx.y + 1) * w.each, 0, NULL, NULL};
    c.end = c.end < w.count ? c.end : w.count;
    cursor_begin(&c, &w);
    staged_load<factors>(&s, &c, &w, row, y.rows, column, y.columns);
    for (int which = 0; c.n < c.end; which ^= 1) {
        staged_store(&s, &t[which]);
        __syncthreads(); /* and whoever reads the other one has begun on this one's round */
        int ends = cursor_next(&c, &w);
        if (c.n < c.end)
            staged_load<factors>(&s, &c, &w, row, y.rows, column, y.columns);
        tiles_multiply(&t[which], i, j, sums);
        if (ends)
            sums_end<factors>(sums, squares);
    }
    float *out = parts ? parts + blockIdx.y * y.rows * y.columns : y.at;
    uint64_t stride = parts ? y.columns : y.stride;
    UNROLL(SIDE)
    for (unsigned a = 0; a < SIDE; a++)
        UNROLL(SIDE)
    for (unsigned b = 0; b < SIDE; b++) {
        uint64_t r = row + i + a / GROUP * (ROWS / 2) + a % GROUP;
        uint64_t q = column + j + b / GROUP * (COLUMNS / 2) + b % GROUP;
        if (r < y.rows && q < y.columns)
            out[r * stride + q] = parts ? squares[a][b] : out[r * stride + q] + squares[a][b];
    }
}

__global__ void parts_add(const float *parts, uint64_t count, struct matrix y)
{
    FOR_ITEMS(k, y.rows * y.columns)
    {
        float sum = 0, *at = y.at + k / y.columns * y.stride + k % y.columns;
        UNROLL(8)
        for (uint64_t part = 0; part < count; part++)
            sum += parts[part * y.rows * y.columns + k];
        *at += sum;
    }
}

/* How many blocks share the samples of a tile. */
static uint64_t shares_of(struct matrix y, uint64_t tiles, uint64_t samples)
{
    uint64_t most = CUDA_SCRATCH_FLOATS / (y.rows * y.columns), wanted = BLOCKS_WANTED / tiles;
    uint64_t shares = wanted < most ? wanted : most;
    shares = shares < samples ? shares : samples;
    CUDA_MAIN_LANE();
    return shares ? shares : 1;
}

static uint64_t tiles_of(struct matrix y)
{
    return ((y.rows + ROWS - 1) / ROWS) * ((y.columns + COLUMNS - 1) / COLUMNS);
}

template <int factors> static void squares_add(struct work w, struct matrix y)
{
    uint64_t tiles = tiles_of(y), shares = shares_of(y, tiles, w.count);
    w.each = (w.count + shares - 1) / shares;
    shares = (w.count + w.each - 1) / w.each;
    LAUNCH(tile_squares<factors>, dim3((unsigned)tiles, (unsigned)shares), THREADS, w, y,
           shares > 1 ? cuda_scratch : NULL);
    if (shares > 1)
        LAUNCH(parts_add, cuda_blocks(y.rows * y.columns, 256), 256, cuda_scratch, shares, y);
}

void cuda_products_square_add(struct samples d, struct samples x, struct squares_work work,
                              struct matrix y)
{
    struct work w = {d.first.at, x.first.at, d.first.stride, x.first.stride, d.distance,
                     x.distance, d.begin,    d.first.rows,   d.first.rows,   d.count,
                     0};
    (void)work; /* registers and the backend's own scratch do */
    squares_add<0>(w, y);
}

/* Every block has one piece of the steps. */
void cuda_squares_product_add(struct matrix d, struct matrix x, struct squares_work work,
                              struct matrix y)
{
    enum { PIECE = 4 * DEPTH };
    uint64_t pieces = (d.rows + PIECE - 1) / PIECE;
    struct work w = {d.at,
                     x.at,
                     d.stride,
                     x.stride,
                     PIECE * d.stride,
                     PIECE * x.stride,
                     NULL,
                     PIECE,
                     d.rows - (pieces - 1) * PIECE,
                     pieces,
                     0};
    (void)work;
    squares_add<1>(w, y);
}

enum { SUMS_THREADS = 256 };

/* parts[n][D] = (sum over the steps of sample first + n of d)^2 */
__global__ void step_sums(struct samples d, uint64_t first, uint64_t count, float *parts)
{
    FOR_ITEMS(k, count * d.first.columns)
    {
        uint64_t n = k / d.first.columns;
        struct matrix s = sample_at(d, first + n);
        const float *at = s.at + k % d.first.columns;
        float sum = 0;
        UNROLL(8)
        for (uint64_t r = 0; r < s.rows; r++)
            sum += at[r * s.stride];
        parts[k] = sum * sum;
    }
}

void cuda_sums_square_add(struct samples d, struct squares_work work, float *y)
{
    (void)work;
    CUDA_MAIN_LANE();
    for (uint64_t first = 0; first < d.first.columns; first += CUDA_SCRATCH_FLOATS) {
        struct samples s = d;
        uint64_t left = d.first.columns - first, most = CUDA_SCRATCH_FLOATS;
        s.first.columns = left < most ? left : most;
        s.first.at += first;
        most /= s.first.columns;
        for (uint64_t n = 0; n < d.count; n += most) {
            uint64_t count = d.count - n < most ? d.count - n : most;
            LAUNCH(step_sums, cuda_blocks(count * s.first.columns, SUMS_THREADS), SUMS_THREADS, s,
                   n, count, cuda_scratch);
            LAUNCH(parts_add, cuda_blocks(s.first.columns, SUMS_THREADS), SUMS_THREADS,
                   cuda_scratch, count, matrix_of(y + first, 1, s.first.columns));
        }
    }
}
