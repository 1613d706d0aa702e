/* embedding.cu - rows of a table by number: taken, added to, and squared.
 *
 * What adds or squares gives a block SPAN rows of the table. The block looks through all tokens for
 * those rows, THREADS tokens at a time, and takes the ones it finds in their order, a column a
 * thread: no two threads add to the same number, and the order is the tokens'.
 */
#include "engine/cuda/cuda.h"

enum { THREADS = 256, WARPS = THREADS / WARP, SPAN = 32 };

__global__ void rows_take(const float *tokens, struct matrix w, struct matrix y)
{
    FOR_ITEMS(i, y.rows * y.columns)
    {
        uint64_t r = i / y.columns, c = i % y.columns;
        y.at[r * y.stride + c] = w.at[(uint64_t)tokens[r] * w.stride + c];
    }
}

void cuda_embedding_forward(const float *tokens, struct matrix w, struct matrix y)
{
    LAUNCH(rows_take, cuda_blocks(y.rows * y.columns, THREADS), THREADS, tokens, w, y);
}

/* The places among THREADS tokens that are of the block's rows, and the rows, in order. */
struct found {
    unsigned count[WARPS];
    uint32_t place[THREADS], row[THREADS];
};

/* Token `place` of all, if there is one, is of row `first` + *row, *row < rows. */
static __device__ __forceinline__ int is_of(const float *tokens, uint64_t count, uint64_t place,
                                            uint64_t first, uint64_t rows, uint32_t *row)
{
    uint64_t at = place < count ? (uint64_t)tokens[place] - first : UINT64_MAX;
    *row = (uint32_t)at;
    return at < rows;
}

/* All threads call it; returns how many there are. */
static __device__ __forceinline__ unsigned tokens_find(const float *tokens, uint64_t count,
                                                       uint64_t from, uint64_t first, uint64_t rows,
                                                       struct found *f)
{
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, before = 0, all = 0;
    uint32_t row;
    int is = is_of(tokens, count, from + threadIdx.x, first, rows, &row);
    unsigned bits = __ballot_sync(0xffffffffu, is);
    __syncthreads(); /* the last ones are read */
    if (lane == 0)
        f->count[warp] = (unsigned)__popc(bits);
    __syncthreads();
    for (unsigned k = 0; k < WARPS; k++) {
        before += k < warp ? f->count[k] : 0;
        all += f->count[k];
    }
    if (is) {
        unsigned at = before + (unsigned)__popc(bits & ((1u << lane) - 1));
        f->place[at] = threadIdx.x;
        f->row[at] = row;
    }
    __syncthreads();
    return all;
}

/* Column c of the rows at sums += that of what was found, whose dy begins at dy: a row's sum stays
 * in a register while the row is the same. */
static __device__ void column_add(const struct found *f, unsigned count, struct matrix dy,
                                  struct matrix sums, uint64_t c)
{
    float *at = sums.at + f->row[0] * sums.stride + c, sum = *at;
    for (unsigned k = 0; k < count; k++) {
        float *next = sums.at + f->row[k] * sums.stride + c;
        if (next != at) {
            *at = sum;
            at = next;
            sum = *at;
        }
        sum += dy.at[f->place[k] * dy.stride + c];
    }
    *at = sum;
}

static __device__ struct matrix rows_from(struct matrix m, uint64_t row, uint64_t most)
{
    uint64_t rows = m.rows - row < most ? m.rows - row : most;
    m.at += row * m.stride;
    m.rows = rows;
    return m;
}

/* What is found of the tokens, THREADS at a time, is added to the rows from table row `first`. */
static __device__ void span_add(const float *tokens, uint64_t first, struct matrix dy,
                                struct matrix rows, struct found *f)
{
    for (uint64_t from = 0; from < dy.rows; from += THREADS) {
        unsigned count = tokens_find(tokens, dy.rows, from, first, rows.rows, f);
        for (uint64_t c = threadIdx.x; count && c < rows.columns; c += THREADS)
            column_add(f, count, rows_from(dy, from, THREADS), rows, c);
    }
}

__global__ void rows_add(const float *tokens, uint64_t first, struct matrix dy, struct matrix dw)
{
    __shared__ struct found f;
    for (uint64_t row = (uint64_t)blockIdx.x * SPAN; row < dw.rows;
         row += (uint64_t)gridDim.x * SPAN)
        span_add(tokens, first + row, dy, rows_from(dw, row, SPAN), &f);
}

void cuda_embedding_add(const float *tokens, uint64_t first, struct matrix dy, struct matrix dw)
{
    LAUNCH(rows_add, cuda_blocks(dw.rows, SPAN), THREADS, tokens, first, dy, dw);
}

/* y += sums^2, sums = 0 for the rows found. */
static __device__ void column_square(const struct found *f, unsigned count, struct matrix sums,
                                     struct matrix y, uint64_t c)
{
    for (unsigned k = 0; k < count; k++) {
        float *sum = sums.at + f->row[k] * sums.stride + c;
        if (*sum == 0)
            continue; /* a row that was found before */
        y.at[f->row[k] * y.stride + c] += *sum * *sum;
        *sum = 0;
    }
}

static __device__ void rows_clear(struct matrix rows)
{
    for (uint64_t r = 0; r < rows.rows; r++)
        for (uint64_t c = threadIdx.x; c < rows.columns; c += THREADS)
            rows.at[r * rows.stride + c] = 0;
}

/* sums is a tile like y. A thread touches its own columns alone. */
__global__ void rows_square(const float *tokens, struct samples dy, uint64_t first,
                            struct matrix sums, struct matrix y)
{
    __shared__ struct found f;
    uint64_t steps = dy.first.rows, row = (uint64_t)blockIdx.x * SPAN;
    for (; row < y.rows; row += (uint64_t)gridDim.x * SPAN) {
        struct matrix sum = rows_from(sums, row, SPAN), out = rows_from(y, row, SPAN);
        rows_clear(sum);
        for (uint64_t n = 0; n < dy.count; n++) {
            struct matrix d = dy.first;
            d.at += n * dy.distance;
            span_add(tokens + n * steps, first + row, d, sum, &f);
            for (uint64_t from = 0; from < steps; from += THREADS) {
                unsigned count =
                    tokens_find(tokens + n * steps, steps, from, first + row, out.rows, &f);
                for (uint64_t c = threadIdx.x; count && c < out.columns; c += THREADS)
                    column_square(&f, count, sum, out, c);
            }
        }
    }
}

void cuda_embedding_square_add(const float *tokens, struct samples dy, uint64_t first,
                               struct squares_work work, struct matrix y)
{
    struct matrix sums = matrix_of(work.tile, y.rows, y.columns);
    LAUNCH(rows_square, cuda_blocks(y.rows, SPAN), THREADS, tokens, dy, first, sums, y);
}
