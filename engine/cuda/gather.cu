/* gather.cu - stored rows, anywhere on the device and of any alignment, become float32; and the
 * first row that has a bad number.
 *
 * The number of that row is the least of all that threads find. Blocks agree on it by an atomic
 * minimum of whole numbers, which does not depend on their order; the last block to end has it.
 */
#include "engine/cuda/early.h"
#include "engine/cuda/map.h"
#include "engine/cuda/team.h"

#include <float.h>

enum { UNROLLED = 4 }; /* numbers that a thread has on their way at a time */

static __device__ unsigned long long least_bad = ~0ull; /* of the launch that runs */
static __device__ unsigned blocks_done;

/* All threads of all blocks call it, once, `mine` being the first bad row that this one found, or
 * any number from `rows` on. */
static __device__ __forceinline__ void bad_row_tell(uint64_t mine, uint64_t rows, uint64_t *bad_row)
{
    if (mine < rows)
        atomicMin(&least_bad, (unsigned long long)mine);
    if (!block_is_last(&blocks_done, gridDim.x * gridDim.y) || threadIdx.x > 0 || threadIdx.y > 0)
        return;
    unsigned long long least = atomicMin(&least_bad, ~0ull);
    *bad_row = least < rows ? least : rows;
    least_bad = ~0ull; /* for the next launch */
}

template <typename stored>
static __device__ __forceinline__ stored stored_read(const void *row, uint64_t j)
{
    const stored *at = (const stored *)row;
    stored x;
    if ((uintptr_t)row % sizeof x == 0)
        return at[j];
    memcpy(&x, (const char *)row + j * sizeof x, sizeof x);
    return x;
}

/* How each type is read. */
#define READERS(NAME, TYPE, VALUE)                                                                 \
    struct read_##NAME {                                                                           \
        typedef TYPE stored;                                                                       \
        static __device__ __forceinline__ double value(TYPE x)                                     \
        {                                                                                          \
            return VALUE(x);                                                                       \
        }                                                                                          \
    };
ELEMENTS(READERS)

/* What is converted to what, what that is rounded to, and which numbers are good: low .. high, or
 * all of them. */
struct conversion {
    const void *const *rows;
    const uint32_t *permutation;
    double scale;
    float low, high;
    int all_good;
    enum half half;
    int holds;   /* what is outside of low .. high becomes low */
    int missing; /* a NaN is good */
};

template <typename reader>
__global__ void rows_convert(reader, struct conversion v, struct matrix x, uint64_t *bad_row)
{
    typename reader::stored in[UNROLLED];
    uint64_t bad = x.rows, step = (uint64_t)gridDim.x * blockDim.x;
    FOR_ROWS(r, x.rows)
    {
        const void *row = v.rows[r];
        for (uint64_t first = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; first < x.columns;
             first += UNROLLED * step) {
            for (uint64_t k = 0, c = first; k < UNROLLED; k++, c += step)
                if (c < x.columns)
                    in[k] = stored_read<typename reader::stored>(
                        row, v.permutation ? v.permutation[c] : c);
            for (uint64_t k = 0, c = first; k < UNROLLED; k++, c += step)
                if (c < x.columns) {
                    float out = half_rounded(v.half, scalar_convert(reader::value(in[k]), v.scale));
                    int good = (out >= v.low && out <= v.high) || (v.missing && out != out);
                    /* a token is a place in a table before anybody asks whether it was good */
                    x.at[r * x.stride + c] = good || !v.holds ? out : v.low;
                    if (!good && r < bad)
                        bad = r;
                }
        }
    }
    if (!v.all_good)
        bad_row_tell(bad, x.rows, bad_row);
    else if (blockIdx.x + blockIdx.y + threadIdx.x + threadIdx.y == 0)
        *bad_row = x.rows;
}

static void convert(enum element type, struct conversion v, struct matrix x, uint64_t *bad_row)
{
    struct map_grid g = map_grid(x.rows, (x.columns + UNROLLED - 1) / UNROLLED);
    CUDA_MAIN_LANE();
    switch (type) {
#define CONVERT(NAME, TYPE, VALUE)                                                                 \
    case ELEMENT_##NAME:                                                                           \
        LAUNCH(rows_convert, g.blocks, g.threads, read_##NAME(), v, x, bad_row);                   \
        return;
        ELEMENTS(CONVERT)
    case ELEMENT_COUNT:
        return;
    }
}

void cuda_gather_features(enum element type, const void *const *rows, const uint32_t *permutation,
                          double scale, struct matrix x, enum half half, uint64_t *bad_row)
{
    /* Whole numbers times a scale below FLT_MAX / 2^64 are finite, and in bfloat16 too: nothing to
     * look for. */
    int finite = element_is_whole(type) && fabs(scale) < 1e19 && half != HALF_F16;
    convert(type, {rows, permutation, scale, -FLT_MAX, FLT_MAX, finite, half}, x, bad_row);
}

void cuda_gather_values(enum element type, const void *const *rows, double low, double high,
                        int missing, struct matrix y, uint64_t *bad_row)
{
    convert(type, {rows, NULL, 1, (float)low, (float)high, 0, HALF_NONE, 1, missing}, y, bad_row);
}

/* A class that is none becomes class 0: what follows does not wait for who asks for *bad_row, and
 * must read within its rows. A negative one is a number above every class. */
template <typename reader>
__global__ void classes_read(reader, const void *const *rows, uint64_t count, uint64_t steps,
                             uint64_t classes, int missing, uint32_t *targets, uint64_t *bad_row)
{
    uint64_t bad = count;
    launch_wait();
    FOR_ROWS(r, count)
    FOR_COLUMNS(j, steps)
    {
        uint64_t number = (uint64_t)(int64_t)stored_read<typename reader::stored>(rows[r], j);
        int none = missing && (int64_t)number < 0, good = none || number < classes;
        targets[r * steps + j] = none ? CLASS_MISSING : good ? (uint32_t)number : 0;
        if (!good && r < bad)
            bad = r;
    }
    bad_row_tell(bad, count, bad_row);
}

void cuda_gather_classes(enum element type, const void *const *rows, uint64_t count, uint64_t steps,
                         uint64_t classes, int missing, uint32_t *targets, uint64_t *bad_row)
{
    struct map_grid g = map_grid(count, steps);
    CUDA_MAIN_LANE();
    missing = missing && element_is_signed(type);
    switch (type) {
#define CLASSES(NAME)                                                                              \
    case ELEMENT_##NAME:                                                                           \
        LAUNCH_EARLY(classes_read<read_##NAME>, g.blocks, g.threads, read_##NAME(), rows, count,   \
                     steps, classes, missing, targets, bad_row);                                   \
        return;
        CLASSES(U8)
        CLASSES(I8)
        CLASSES(U16)
        CLASSES(I16)
        CLASSES(U32)
        CLASSES(I32)
        CLASSES(U64)
        CLASSES(I64)
    default:
        return;
    }
}

/* ---- what targets weigh ---- */

/* Given for all of a row, or for each: then in the place where the thread alone writes. */
static __device__ __forceinline__ float weight_given(struct matrix given, uint64_t r, uint64_t c)
{
    return given.at ? given.at[r * given.stride + (given.columns == 1 ? 0 : c)] : 1;
}

__global__ void values_weigh(struct matrix given, const float *of_columns, struct matrix y,
                             struct matrix w)
{
    FOR_ROWS(r, w.rows)
    FOR_COLUMNS(c, w.columns)
    {
        float *value = &y.at[r * y.stride + c];
        int missing = *value != *value;
        float weight = weight_given(given, r, c) * (of_columns ? of_columns[c] : 1);
        w.at[r * w.stride + c] = missing ? 0 : weight;
        if (missing)
            *value = 0;
    }
}

void cuda_weigh_values(struct matrix given, const float *of_columns, struct matrix y,
                       struct matrix w)
{
    struct map_grid g = map_grid(w.rows, w.columns);
    LAUNCH(values_weigh, g.blocks, g.threads, given, of_columns, y, w);
}

__global__ void classes_weigh(struct matrix given, const float *of_classes, uint32_t *classes,
                              struct matrix w)
{
    FOR_ROWS(r, w.rows)
    FOR_COLUMNS(c, w.columns)
    {
        uint32_t *at = &classes[r * w.columns + c], it = *at == CLASS_MISSING ? 0 : *at;
        float weight = weight_given(given, r, c) * (of_classes ? of_classes[it] : 1);
        w.at[r * w.stride + c] = *at == CLASS_MISSING ? 0 : weight;
        *at = it;
    }
}

void cuda_weigh_classes(struct matrix given, const float *of_classes, uint32_t *classes,
                        struct matrix w)
{
    struct map_grid g = map_grid(w.rows, w.columns);
    LAUNCH(classes_weigh, g.blocks, g.threads, given, of_classes, classes, w);
}

template <unsigned size>
__global__ void weights_of(team<size> t, struct weighting w, uint64_t rows, uint64_t columns,
                           int largest, double *sums)
{
    __shared__ double part[TEAM_PART];
    FOR_TEAM_ROWS(t, r, rows)
    {
        double sum = 0, most = 0;
        FOR_LANES(t, c, columns)
        {
            double weight = weight_at(w, r, c);
            sum += weight;
            most = weight > most ? weight : most;
        }
        sum = largest ? t.max(most, part) : t.sum(sum, part) / (double)columns;
        if (t.lane() == 0)
            sums[r] = sum;
    }
}

void cuda_row_weights(struct weighting w, uint64_t rows, uint64_t columns, int largest,
                      double *sums)
{
    LAUNCH_TEAMS(weights_of, rows, columns, w, rows, columns, largest, sums);
}

struct divided {
    const double *weight;
    double rows;
    float factor;
    __device__ float operator()(float x) const
    {
        return x * scalar_mean_factor(*weight, rows, factor);
    }
};

void cuda_divide_weight(const double *weight, double rows, float factor, float *x, uint64_t count)
{
    map(divided{weight, rows, factor}, x, x, count);
}
