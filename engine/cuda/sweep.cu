/* sweep.cu - operations over all parameters: penalty, norm, the optimizer's step, compressed Fisher
 * information.
 *
 * Each is bound by the bytes that it moves, so a thread has four neighbouring numbers in one load
 * where the addresses allow it. Of a sum each block leaves its part in cuda_partials, and the last
 * one adds those; the order depends on the count alone.
 */
#include "engine/cuda/early.h"
#include "engine/cuda/half.h"

enum { THREADS = 256, BLOCK_NUMBERS = 4 * THREADS, SUM_BLOCKS_MAX = 1024 };
/* Of the sum of squares, which a step waits for: few blocks, much on its way in each. */
enum { SQUARES_THREADS = 512, SQUARES_AHEAD = 8 };

/* ---- sums ---- */

static unsigned sum_blocks(uint64_t items)
{
    unsigned blocks = cuda_blocks(items, BLOCK_NUMBERS);
    CUDA_MAIN_LANE();
    return blocks < SUM_BLOCKS_MAX ? blocks : (unsigned)SUM_BLOCKS_MAX;
}

static __device__ unsigned sum_ticket;

/* Adds up what the threads of all blocks have; all of them call it, once. 1 in one thread, whose *x
 * is the sum then. */
static __device__ __forceinline__ int grid_total(double *x, double *partials)
{
    __shared__ double part[WARP];
    *x = block_sum(*x, part);
    if (gridDim.x > 1) {
        if (threadIdx.x == 0)
            partials[blockIdx.x] = *x;
        if (!block_is_last(&sum_ticket, gridDim.x))
            return 0;
        *x = 0;
        for (unsigned i = threadIdx.x; i < gridDim.x; i += blockDim.x)
            *x += partials[i];
        *x = block_sum(*x, part);
    }
    return threadIdx.x == 0;
}

/* *sum += factor times it. */
static __device__ __forceinline__ void grid_add(double x, double *partials, double factor,
                                                double *sum)
{
    if (grid_total(&x, partials))
        *sum += factor * x;
}

__global__ void doubles_sum(const double *x, uint64_t count, double *partials, double *sum)
{
    double mine = 0;
    FOR_ITEMS(i, count)
    mine += x[i];
    grid_add(mine, partials, 1, sum);
}

void cuda_sum_add(const double *x, uint64_t count, double *sum)
{
    LAUNCH(doubles_sum, sum_blocks(count), THREADS, x, count, cuda_partials, sum);
}

static __device__ __forceinline__ double square(float x)
{
    return (double)x * (double)x;
}

static __device__ __forceinline__ double square(float4 v)
{
    return square(v.x) + square(v.y) + square(v.z) + square(v.w);
}

/* f(sum), in one thread. A thread has SQUARES_AHEAD groups of four on their way at a time. */
template <typename finish>
__global__ void __launch_bounds__(SQUARES_THREADS, 1)
    squares_sum(const float *x, uint64_t count, uint64_t fours, double *partials, finish f)
{
    uint64_t step = (uint64_t)gridDim.x * blockDim.x;
    double mine = 0;
    launch_wait();
    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < fours;
         i += SQUARES_AHEAD * step) {
        float4 in[SQUARES_AHEAD] = {};
        UNROLL(SQUARES_AHEAD)
        for (unsigned k = 0; k < SQUARES_AHEAD; k++)
            if (i + k * step < fours)
                in[k] = ((const float4 *)x)[i + k * step];
        UNROLL(SQUARES_AHEAD)
        for (unsigned k = 0; k < SQUARES_AHEAD; k++)
            mine += square(in[k]);
    }
    FOR_ITEMS(i, count - fours * FOUR)
    mine += square(x[fours * FOUR + i]);
    if (grid_total(&mine, partials))
        f(mine);
}

/* Groups of four among `count` numbers at addresses that have these lower bits. */
static uint64_t fours_of(uint64_t count, uintptr_t addresses)
{
    return addresses % sizeof(float4) ? 0 : count / FOUR;
}

template <typename finish> static void squares_run(const float *x, uint64_t count, finish f)
{
    unsigned blocks = cuda_blocks(count, SQUARES_THREADS * SQUARES_AHEAD * FOUR);
    CUDA_MAIN_LANE();
    LAUNCH_EARLY(squares_sum<finish>, blocks < SUM_BLOCKS_MAX ? blocks : (unsigned)SUM_BLOCKS_MAX,
                 SQUARES_THREADS, x, count, fours_of(count, (uintptr_t)x), cuda_partials, f);
}

struct sum_put {
    double *sum;
    __device__ void operator()(double x) const
    {
        *sum = x;
    }
};

void cuda_sum_squares(const float *x, uint64_t count, double *sum)
{
    squares_run(x, count, sum_put{sum});
}

/* The gradient's norm is the last that a step's verdict waits for: no launch lies between. One
 * thread makes it and the next launch waits: what it reads is asked for before anything is written.
 */
struct verdict_make {
    double *sums;
    const uint64_t (*bad)[STEP_BADS];
    struct step_limits limits;
    struct step_verdict *verdict;
    struct step_told *told;
    __device__ void operator()(double squares) const
    {
        struct step_told t = {{squares, sums[1], sums[2], sums[3]}, *verdict};
        t.verdict.refused |= (uint32_t)step_refuses(t.sums, bad, &limits);
        t.verdict.clip = (float)scalar_clip(sqrt(squares), limits.max_grad_norm);
        *told = t;
        *verdict = t.verdict;
        for (int i = 0; i < 4; i++)
            sums[i] = 0;
    }
};

void cuda_step_verdict(const float *g, uint64_t count, double *sums,
                       const uint64_t (*bad)[STEP_BADS], const struct step_limits *limits,
                       struct step_verdict *verdict, struct step_told *told)
{
    squares_run(g, count, verdict_make{sums, bad, *limits, verdict, told});
}

/* ---- penalty ---- */

/* F of parameter i, by form. */
struct fisher_exact {
    const float *f;
    __device__ float at(uint64_t i) const
    {
        return f[i];
    }
};

struct fisher_half {
    const uint16_t *f;
    __device__ float at(uint64_t i) const
    {
        return scalar_brain(f[i]);
    }
};

/* The outlier at `at`, or 0 where there is none: the last one of its tile that is not behind it. */
static __device__ __forceinline__ float outlier_value(const struct coded_matrix *m, uint64_t at)
{
    uint64_t tile = at / CODED_TILE;
    uint32_t place = (uint32_t)(at % CODED_TILE);
    uint32_t first = m->outlier_first[tile], end = m->outlier_first[tile + 1];
    if (first == end)
        return 0;
    while (end - first > 1) {
        uint32_t middle = first + (end - first) / 2;
        if (m->outlier[middle] >> OUTLIER_BITS <= place)
            first = middle;
        else
            end = middle;
    }
    uint32_t word = m->outlier[first];
    return word >> OUTLIER_BITS == place ? scalar_outlier(word) : 0;
}

static __device__ __forceinline__ float code_value(const struct coded_matrix *m, uint64_t at)
{
    enum { HALF_GROUP = CODED_GROUP / 2 };
    uint64_t row = at / m->columns, column = at % m->columns;
    unsigned in_group = (unsigned)(at % CODED_GROUP);
    uint8_t byte = m->codes[at / CODED_GROUP * HALF_GROUP + in_group % HALF_GROUP];
    unsigned code = in_group < HALF_GROUP ? byte & 15u : byte >> 4;
    if (!code)
        return outlier_value(m, at);
    const float *level = m->level + CODED_LEVELS * coded_table(m->row[row], m->tables);
    return scalar_share(m->row[row]) * scalar_share(m->column[column]) * level[code];
}

struct fisher_coded {
    struct coded_matrix m;
    uint64_t from;
    __device__ float at(uint64_t i) const
    {
        return code_value(&m, from + i);
    }
};

template <typename fisher>
__global__ void penalty_kernel(const float *theta, const float *theta_star, fisher f, float floor,
                               float strength, float *g, uint64_t count, double *partials,
                               double *penalty)
{
    double sum = 0;
    FOR_ITEMS(i, count)
    {
        float pull = scalar_ewc_gradient(theta[i], theta_star[i], f.at(i) + floor, strength);
        sum += (double)(pull * (theta[i] - theta_star[i]));
        g[i] += pull;
    }
    grid_add(sum, partials, 0.5, penalty);
}

template <typename fisher>
static void penalty_run(const float *theta, const float *theta_star, fisher f, double damping,
                        double lambda, float *g, uint64_t count, double *penalty)
{
    LAUNCH(penalty_kernel<fisher>, sum_blocks(count), THREADS, theta, theta_star, f, (float)damping,
           (float)lambda, g, count, cuda_partials, penalty);
}

void cuda_ewc_add(const float *theta, const float *theta_star, const float *fisher, double damping,
                  double lambda, float *g, uint64_t count, double *penalty)
{
    penalty_run(theta, theta_star, fisher_exact{fisher}, damping, lambda, g, count, penalty);
}

void cuda_ewc_half_add(const float *theta, const float *theta_star, const uint16_t *fisher,
                       double damping, double lambda, float *g, uint64_t count, double *penalty)
{
    penalty_run(theta, theta_star, fisher_half{fisher}, damping, lambda, g, count, penalty);
}

void cuda_ewc_coded_add(const float *theta, const float *theta_star, struct coded_matrix f,
                        uint64_t from, double damping, double lambda, float *g, uint64_t count,
                        double *penalty)
{
    penalty_run(theta, theta_star, fisher_coded{f, from}, damping, lambda, g, count, penalty);
}

__global__ void codes_expand(struct coded_matrix m, uint64_t from, uint64_t count, float *x)
{
    FOR_ITEMS(i, count)
    x[i] = code_value(&m, from + i);
}

void cuda_expand_codes(struct coded_matrix m, uint64_t from, uint64_t count, float *x)
{
    LAUNCH(codes_expand, cuda_blocks(count, THREADS), THREADS, m, from, count, x);
}

/* ---- the optimizer's step ---- */

__global__ void commit_kernel(const struct step_verdict *verdict, const float *x, float *y,
                              uint64_t count)
{
    if (verdict->refused)
        return;
    FOR_ITEMS(i, count)
    y[i] = x[i];
}

void cuda_commit(const struct step_verdict *verdict, const float *x, float *y, uint64_t count)
{
    LAUNCH(commit_kernel, cuda_blocks(count, THREADS), THREADS, verdict, x, y, count);
}

/* Of a step whose verdict comes late: 0: nothing is to be done. */
template <typename scalars> static __device__ __forceinline__ int goes_on(scalars *a)
{
    if (!a->late)
        return 1;
    a->clip = a->late->clip;
    return !a->late->refused;
}

static __device__ __forceinline__ void adamw_element_update(float *p, float *m, float *v, float g,
                                                            const struct adamw_scalars *a)
{
    struct adamw_element out = scalar_adamw(*p, *m, *v, g, a);
    *p = out.p;
    *m = out.m;
    *v = out.v;
}

/* Four neighbouring parameters. */
struct adamw_four {
    float4 p, m, v, g;
};

static __device__ __forceinline__ struct adamw_four
adamw_read(const float *p, const float *m, const float *v, const float *g, uint64_t i)
{
    return {((const float4 *)p)[i], ((const float4 *)m)[i], ((const float4 *)v)[i],
            ((const float4 *)g)[i]};
}

static __device__ __forceinline__ void adamw_four_update(struct adamw_four *f,
                                                         const struct adamw_scalars *a)
{
    adamw_element_update(&f->p.x, &f->m.x, &f->v.x, f->g.x, a);
    adamw_element_update(&f->p.y, &f->m.y, &f->v.y, f->g.y, a);
    adamw_element_update(&f->p.z, &f->m.z, &f->v.z, f->g.z, a);
    adamw_element_update(&f->p.w, &f->m.w, &f->v.w, f->g.w, a);
}

/* The first numbers are on their way before a late verdict is read. */
__global__ void adamw_kernel(float *p, float *m, float *v, const float *g, uint64_t count,
                             uint64_t fours, struct adamw_scalars a, enum half half, float *weights)
{
    uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    uint64_t step = (uint64_t)gridDim.x * blockDim.x;
    struct adamw_four f = {};
    launch_wait();
    if (i < fours)
        f = adamw_read(p, m, v, g, i);
    if (!goes_on(&a))
        return;
    for (; i < fours; i += step) {
        adamw_four_update(&f, &a);
        ((float4 *)p)[i] = f.p;
        ((float4 *)m)[i] = f.m;
        ((float4 *)v)[i] = f.v;
        if (half)
            ((float4 *)weights)[i] = half_rounded(half, f.p);
        if (i + step < fours)
            f = adamw_read(p, m, v, g, i + step);
    }
    FOR_ITEMS(n, count - fours * FOUR)
    {
        uint64_t k = fours * FOUR + n;
        adamw_element_update(&p[k], &m[k], &v[k], g[k], &a);
        if (half)
            weights[k] = half_rounded(half, p[k]);
    }
}

/* Blocks for items that are not summed: as many as there are, each thread one group of four. */
static unsigned sweep_blocks(uint64_t count)
{
    enum { BLOCKS_MAX = 1 << 20 };
    uint64_t blocks = (count + BLOCK_NUMBERS - 1) / BLOCK_NUMBERS, most = BLOCKS_MAX;
    return (unsigned)(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

void cuda_adamw(float *p, float *m, float *v, const float *g, uint64_t count,
                const struct adamw_scalars *a, enum half half, float *weights)
{
    uintptr_t addresses = (uintptr_t)p | (uintptr_t)m | (uintptr_t)v | (uintptr_t)g;
    uint64_t fours = fours_of(count, half ? addresses | (uintptr_t)weights : addresses);
    LAUNCH_EARLY(adamw_kernel, sweep_blocks(count), THREADS, p, m, v, g, count, fours, *a, half,
                 weights);
}

__global__ void sgd_momentum_kernel(float *p, float *m, const float *g, uint64_t count,
                                    struct sgd_scalars a, enum half half, float *weights)
{
    if (!goes_on(&a))
        return;
    FOR_ITEMS(i, count)
    {
        struct sgd_element out = scalar_sgd_momentum(p[i], m[i], g[i], &a);
        p[i] = out.p;
        m[i] = out.m;
        if (half)
            weights[i] = half_rounded(half, out.p);
    }
}

void cuda_sgd_momentum(float *p, float *m, const float *g, uint64_t count,
                       const struct sgd_scalars *a, enum half half, float *weights)
{
    LAUNCH(sgd_momentum_kernel, sweep_blocks(count), THREADS, p, m, g, count, *a, half, weights);
}

__global__ void sgd_kernel(float *p, const float *g, uint64_t count, struct sgd_scalars a,
                           enum half half, float *weights)
{
    if (!goes_on(&a))
        return;
    FOR_ITEMS(i, count)
    {
        p[i] = scalar_sgd(p[i], g[i], &a);
        if (half)
            weights[i] = half_rounded(half, p[i]);
    }
}

void cuda_sgd(float *p, const float *g, uint64_t count, const struct sgd_scalars *a, enum half half,
              float *weights)
{
    LAUNCH(sgd_kernel, sweep_blocks(count), THREADS, p, g, count, *a, half, weights);
}
