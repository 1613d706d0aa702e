/* convolution.cu - a graph convolution's backward: the sparse product (sparse.h) with the sums for
 * the bias, then the gradients of weights and input.
 *
 * Where the products are on the tensor cores in float32 both are one launch (tensor.h), and what
 * adds up the parts that its blocks leave of dw adds up those of the bias, too: three launches a
 * layer. Where all operands are in 16 bits the sparse product and dx are one launch if they can be
 * (convolution_tiles.h), and dw and db are made in lanes of their own, beside the next layer's.
 * Else each product is op_product's.
 */
#include "engine/cuda/blas.h"
#include "engine/cuda/convolution_tiles.h"
#include "engine/cuda/early.h"
#include "engine/cuda/sparse.h"
#include "engine/cuda/tensor.h"

enum { THREADS = 256 };

/* Rows of a block, at least; numbers across it, at most, of threads that have some. */
enum { BACK_ROWS = 8, BACK_WIDTH = 256, BACK_THREADS = 512 };

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

/* e of convolution_backward takes d's place. What was kept is in 16 bits where there is a half. */
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
        for (int n = 0; n < numbers::COUNT; n++) {
            float dy = halves ? x.at[n] : half_rounded((enum half)half, x.at[n]);
            x.at[n] = half_rounded((enum half)half, undone(kind, y.at[n], dy));
        }
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
        for (int i = 0; i < numbers::COUNT; i++) {
            float x = relu ? scalar_relu_backward(y.at[i], e.at[i]) : e.at[i]; /* rounded or not */
            e.at[i] = halves ? x : half_rounded((enum half)half, x); /* of halves it is one */
        }
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

template <class numbers, int half, int halves>
static void derivative_take(enum activation kind, struct mixed kept, struct mixed d)
{
    LAUNCH_EARLY((gradients_take<numbers, half, halves>),
                 cuda_blocks(d.rows * (d.columns / numbers::COUNT), THREADS), THREADS, kind, kept,
                 d);
}

/* The same of numbers in 16 bits. */
static void derivative_take(enum activation kind, enum half half, struct mixed kept, struct mixed d)
{
    int f16 = half == HALF_F16;
    if (goes_by(EIGHT, d) && goes_by(EIGHT, kept))
        f16 ? derivative_take<eight_numbers, HALF_F16, 1>(kind, kept, d)
            : derivative_take<eight_numbers, HALF_BF16, 1>(kind, kept, d);
    else
        f16 ? derivative_take<one_number, HALF_F16, 1>(kind, kept, d)
            : derivative_take<one_number, HALF_BF16, 1>(kind, kept, d);
}

/* The parts of a column's sum that blocks leave; at NULL: none are wanted. */
template <class numbers, int half, int halves>
static struct matrix sparse_back(struct sparse a, enum activation kind, struct mixed kept,
                                 struct mixed d, float *parts, uint64_t room, struct mixed g)
{
    struct gradient_rows<numbers, half, halves> e = {
        kind == ACTIVATION_RELU, kept, d
    };
    uint64_t rows = d.rows > g.rows ? d.rows : g.rows, width = g.columns / numbers::COUNT;
    uint64_t most = CUDA_BLOCKS_MAX;
    unsigned across = 1, down = BACK_ROWS;
    room /= g.columns;
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
        derivative_take<numbers, half, halves>(kind, kept, d);
    LAUNCH_EARLY((sparse_rows_back<numbers, half, halves>), blocks, threads, a, e, parts, part_rows,
                 g);
    return matrix_of(parts, blocks.y, g.columns);
}

static struct matrix sparse_run(struct sparse a, enum activation kind, enum half half,
                                struct mixed kept, struct mixed d, float *parts, uint64_t room,
                                struct mixed g)
{
    unsigned by = d.halves ? EIGHT : EIGHT / 2; /* more would not fit the registers */
    while (by > 1 &&
           !(goes_by(by, d) && goes_by(by, g) && (kind == ACTIVATION_COUNT || goes_by(by, kept))))
        by = by == EIGHT ? EIGHT / 2 : 1;
    if (by == EIGHT && half == HALF_F16)
        return sparse_back<eight_numbers, HALF_F16, 1>(a, kind, kept, d, parts, room, g);
    if (by == EIGHT)
        return sparse_back<eight_numbers, HALF_BF16, 1>(a, kind, kept, d, parts, room, g);
    if (by == FOUR)
        return BY_HALF(sparse_back, four_numbers, half, d.halves, a, kind, kept, d, parts, room, g);
    return BY_HALF(sparse_back, one_number, half, d.halves, a, kind, kept, d, parts, room, g);
}

/* ---- the sums of parts ---- */

/* A block has FINISH_ITEMS fours of dw, of whose parts each of FINISH_GROUPS groups of threads
 * takes some, so that many are on their way; or FINISH_COLUMNS numbers of db. */
#ifdef CUDA_EMULATED
enum { FINISH_THREADS = 32 };
#else
enum { FINISH_THREADS = 512 };
#endif
enum {
    FINISH_GROUPS = 4,
    FINISH_ITEMS = FINISH_THREADS / FINISH_GROUPS,
    FINISH_COLUMNS = 8,
    FINISH_ROWS = FINISH_THREADS / FINISH_COLUMNS
};

struct finish_work {
    const float *parts;     /* [count, rows, columns of dw] */
    unsigned count, blocks; /* blocks: the first ones, which are dw's */
    struct matrix dw, sums; /* sums: those of db, a part a row */
    float *db;
    int adds;
};

static __device__ __forceinline__ float4 fours_add(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

static __device__ __forceinline__ void weights_finish(const struct finish_work &w, float4 *shared)
{
    enum { BATCH = 8 };
    uint64_t width = w.dw.columns / FOUR, all = w.dw.rows * width;
    unsigned item = threadIdx.x % FINISH_ITEMS, group = threadIdx.x / FINISH_ITEMS;
    for (uint64_t first = (uint64_t)blockIdx.x * FINISH_ITEMS; first < all;
         first += (uint64_t)w.blocks * FINISH_ITEMS) {
        uint64_t i = first + item, row = i / width;
        const float4 *part = (const float4 *)w.parts + i;
        float4 sum = make_float4(0, 0, 0, 0);
        UNROLL(1)
        for (unsigned p = group; i < all && p < w.count; p += BATCH * FINISH_GROUPS) {
            float4 in[BATCH];
            UNROLL(8)
            for (unsigned n = 0; n < BATCH; n++) {
                unsigned at = p + n * FINISH_GROUPS;
                in[n] = at < w.count ? part[at * all] : make_float4(0, 0, 0, 0);
            }
            UNROLL(8)
            for (unsigned n = 0; n < BATCH; n++)
                sum = fours_add(sum, in[n]);
        }
        shared[threadIdx.x] = sum;
        __syncthreads();
        if (group == 0 && i < all) {
            float4 *at = (float4 *)(w.dw.at + row * w.dw.stride) + (i - row * width);
            UNROLL(4)
            for (unsigned n = 1; n < FINISH_GROUPS; n++)
                sum = fours_add(sum, shared[n * FINISH_ITEMS + item]);
            *at = w.adds ? fours_add(*at, sum) : sum;
        }
        __syncthreads();
    }
}

/* Of some hundred parts. */
static __device__ __forceinline__ void bias_finish(const struct finish_work &w, float *shared)
{
    enum { BATCH = 12 };
    unsigned row = threadIdx.x / FINISH_COLUMNS;
    uint64_t c = (uint64_t)(blockIdx.x - w.blocks) * FINISH_COLUMNS + threadIdx.x % FINISH_COLUMNS;
    float sum = 0;
    for (uint64_t first = row; c < w.sums.columns && first < w.sums.rows;
         first += BATCH * FINISH_ROWS) {
        float in[BATCH];
        UNROLL(12)
        for (unsigned i = 0; i < BATCH; i++) {
            uint64_t r = first + i * FINISH_ROWS;
            in[i] = r < w.sums.rows ? w.sums.at[r * w.sums.stride + c] : 0;
        }
        UNROLL(12)
        for (unsigned i = 0; i < BATCH; i++)
            sum += in[i];
    }
    shared[threadIdx.x] = sum;
    for (unsigned left = FINISH_ROWS / 2; left > 0; left /= 2) {
        __syncthreads();
        if (row < left)
            shared[threadIdx.x] += shared[threadIdx.x + left * FINISH_COLUMNS];
    }
    if (row == 0 && c < w.sums.columns)
        w.db[c] = (w.adds ? w.db[c] : 0) + shared[threadIdx.x];
}

__global__ void __launch_bounds__(FINISH_THREADS, 2) gradients_finish(struct finish_work w)
{
    __shared__ float4 shared[FINISH_THREADS];
    launch_wait();
    if (blockIdx.x < w.blocks)
        weights_finish(w, shared);
    else
        bias_finish(w, (float *)shared);
}

static void finish_launch(const struct finish_work &f)
{
    unsigned blocks = f.blocks + (unsigned)((f.dw.rows + FINISH_COLUMNS - 1) / FINISH_COLUMNS);
    LAUNCH_EARLY(gradients_finish, blocks, FINISH_THREADS, f);
}

/* ---- in lanes ---- */

/* Of two turns, one after the other, dw and db are made in lanes of their own. */
enum { TURNS = 2 };
enum { MARK_FORK, MARK_WEIGHTS, MARK_BIAS = MARK_WEIGHTS + TURNS };
static int turn_open[TURNS];

static void turn_await(unsigned place)
{
    if (!turn_open[place])
        return;
    turn_open[place] = 0;
    cuda_lane_await(MARK_WEIGHTS + place);
    cuda_lane_await(MARK_BIAS + place);
}

/* g and the parts of db's sums are there. */
static void weights_begin(unsigned place, enum half half, struct mixed g, struct mixed x,
                          const struct finish_work &f)
{
    cuda_lane_mark(MARK_FORK);
    cuda_lane_take(LANE_PRODUCTS);
    cuda_lane_await(MARK_FORK);
    cuda_product_mixed(half, g, 1, x, 0, (float)f.adds, mixed_of(f.dw));
    cuda_lane_mark(MARK_WEIGHTS + place);
    cuda_lane_take(LANE_FIRST);
    cuda_lane_await(MARK_FORK);
    finish_launch(f);
    cuda_lane_mark(MARK_BIAS + place);
    cuda_lane_take(LANE_MAIN);
    turn_open[place] = 1;
}

/* Of the scratch each of them has the parts of db's sums, and x where it comes in float32. */
enum { TURN_ROOM = CUDA_SCRATCH_FLOATS / (2 * TURNS) };

static float *turn_parts(unsigned place)
{
    return cuda_scratch + 2 * place * TURN_ROOM;
}

/* dx, unless it was made with g. */
static void input_gradient(const struct convolution_back &b, int made)
{
    if (!made)
        cuda_product_mixed(b.half, b.g, 0, b.w, 0, 0, b.dx);
    if (!made && b.before != ACTIVATION_COUNT)
        derivative_take(b.before, b.half, b.x, b.dx);
}

/* g and w are in 16 bits. The layer before waits for dx alone. 0: there is no room for x, and
 * nothing was done. */
static int turn_take(struct convolution_back b, struct finish_work f)
{
    unsigned place = b.turn.number % TURNS;
    float *parts = turn_parts(place);
    int wanted = b.dx.at || b.dx.halves;
    struct mixed x = b.x;
    turn_await(place);
    if (b.turn.ends && wanted) /* dx may lie where their g is */
        turn_await(1 - place);
    if (!cuda_operand_narrow(b.half, &x, (uint16_t *)(parts + TURN_ROOM), 2 * TURN_ROOM))
        return 0;
    if (b.behind != ACTIVATION_COUNT && b.d.halves) {
        derivative_take(b.behind, b.half, b.kept, b.d);
        b.behind = ACTIVATION_COUNT;
    }
    uint64_t rows = convolution_tiles_backward(b, parts, TURN_ROOM);
    if (rows)
        f.sums = matrix_of(parts, rows, b.g.columns);
    else
        f.sums = sparse_run(b.a, b.behind, b.half, b.kept, b.d, parts, TURN_ROOM, b.g);
    weights_begin(place, b.half, b.g, x, f);
    if (wanted)
        input_gradient(b, rows > 0);
    return 1;
}

/* ---- the operation ---- */

static struct matrix wide_of(struct mixed m)
{
    return {m.at, m.rows, m.columns, m.stride};
}

/* One behind the other. */
static void serial_take(const struct convolution_back &b, struct finish_work f)
{
    enum { ROOM = CUDA_SCRATCH_FLOATS / 2 };
    f.sums = sparse_run(b.a, b.behind, b.half, b.kept, b.d, b.db ? cuda_scratch : NULL, ROOM, b.g);
    if (b.db && !b.g.halves && goes_by(FOUR, mixed_of(b.dw))) {
        uint64_t taken = (f.sums.rows * f.sums.columns + FOUR - 1) / FOUR * FOUR;
        f.parts = cuda_scratch + taken;
        f.count = tensor_gradients(wide_of(b.g), wide_of(b.x), wide_of(b.w), wide_of(b.dx),
                                   cuda_scratch + taken, CUDA_SCRATCH_FLOATS - taken);
    }
    if (f.count)
        f.blocks = cuda_blocks(b.dw.rows * b.dw.columns / FOUR, FINISH_ITEMS);
    if (b.db)
        finish_launch(f);
    if (f.count)
        return;
    if (b.dw.at && b.g.halves)
        cuda_product_mixed(b.half, b.g, 1, b.x, 0, (float)b.adds, mixed_of(b.dw));
    else if (b.dw.at)
        cuda_product(wide_of(b.g), 1, wide_of(b.x), 0, (float)b.adds, b.dw);
    if (b.g.halves && (b.dx.at || b.dx.halves))
        input_gradient(b, 0);
    else if (b.dx.at)
        cuda_product(wide_of(b.g), 0, wide_of(b.w), 0, 0, wide_of(b.dx));
}

void cuda_convolution_backward(struct convolution_back b)
{
    struct finish_work f = {};
    CUDA_MAIN_LANE();
    ensure(b.before == ACTIVATION_COUNT || b.dx.halves);
    f.dw = b.dw, f.db = b.db, f.adds = b.adds;
    if (!b.db || !b.g.halves || !b.w.halves || !turn_take(b, f)) {
        turn_await(0), turn_await(1);
        serial_take(b, f);
    }
    if (b.turn.ends)
        turn_await(0), turn_await(1);
}
