/* int8.c - rows in 8 bits, and products of them: engine/quantised.h has the formula.
 *
 * A product takes INT8_ROWS rows of x at a time: they are quantised into the caller's scratch, as
 * 16-bit numbers so that a pair of products adds up to 32 bits without saturating, and then go
 * against four rows of weights at once, which stay in the first-level cache. What multiplies is two
 * rows by four; with AVX2 where the machine has it, else in plain C. Both are exact, so their bits
 * are the same.
 */
#include "engine/cpu/cpu.h"

#include <float.h>
#include <math.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

enum {
    PAIR = 2,        /* rows of x that are multiplied at once */
    EXACT = 1 << 17, /* products of 127 x 127 that 31 bits hold the sum of; whole INT8_COLUMNS */
};

_Static_assert(EXACT % INT8_COLUMNS == 0 && (int64_t)EXACT * 127 * 127 < INT32_MAX, "exact");

/* Largest magnitude of a row; NaN where one of it is no number, or infinite. */
CPU_CLONES static float row_largest(const float *x, uint64_t count)
{
    float largest = 0;
    int bad = 0;
    for (uint64_t k = 0; k < count; k++) {
        float magnitude = fabsf(x[k]);
        largest = magnitude > largest ? magnitude : largest;
        bad |= !(magnitude <= FLT_MAX);
    }
    return bad ? NAN : largest;
}

#define ROW_QUANTISE(TYPE)                                                                         \
    CPU_CLONES static void row_quantise_##TYPE(const float *restrict x, uint64_t count,            \
                                               float inverse, TYPE *restrict q)                    \
    {                                                                                              \
        for (uint64_t k = 0; k < count; k++)                                                       \
            q[k] = (TYPE)scalar_quantise(x[k], inverse);                                           \
    }
ROW_QUANTISE(int8_t)
ROW_QUANTISE(int16_t)

/* The row's scale, and what its numbers are multiplied with. */
static float scale_of(const float *x, uint64_t count, float *inverse)
{
    float largest = row_largest(x, count);
    *inverse = scalar_quantise_inverse(largest);
    return scalar_quantise_scale(largest);
}

void cpu_quantise(struct matrix w, struct int8_matrix q)
{
    for (uint64_t r = 0; r < w.rows; r++) {
        float inverse;
        q.scales[r] = scale_of(w.at + r * w.stride, w.columns, &inverse);
        row_quantise_int8_t(w.at + r * w.stride, w.columns, inverse, q.at + r * q.stride);
    }
}

/* sums[i][j] = sum over `count` columns of a[i] b[j]; count is a multiple of INT8_COLUMNS and at
 * most EXACT. */
static void sums_plain(const int16_t *const a[PAIR], const int8_t *b, uint64_t stride,
                       uint64_t count, int32_t sums[PAIR][INT8_OUTPUTS])
{
    for (int i = 0; i < PAIR; i++)
        for (int j = 0; j < INT8_OUTPUTS; j++) {
            const int8_t *row = b + (uint64_t)j * stride;
            int32_t sum = 0;
            for (uint64_t k = 0; k < count; k++)
                sum += a[i][k] * row[k];
            sums[i][j] = sum;
        }
}

#ifdef __x86_64__
__attribute__((target("avx2"))) static int32_t lanes_sum(__m256i v)
{
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    sum = _mm_hadd_epi32(sum, sum);
    return _mm_cvtsi128_si32(_mm_hadd_epi32(sum, sum));
}

__attribute__((target("avx2"))) static void sums_avx2(const int16_t *const a[PAIR], const int8_t *b,
                                                      uint64_t stride, uint64_t count,
                                                      int32_t sums[PAIR][INT8_OUTPUTS])
{
    __m256i s[PAIR][INT8_OUTPUTS];
    for (int i = 0; i < PAIR; i++)
        for (int j = 0; j < INT8_OUTPUTS; j++)
            s[i][j] = _mm256_setzero_si256();
    for (uint64_t k = 0; k < count; k += INT8_COLUMNS) {
        __m256i x0 = _mm256_loadu_si256((const __m256i *)(a[0] + k));
        __m256i x1 = _mm256_loadu_si256((const __m256i *)(a[1] + k));
        for (int j = 0; j < INT8_OUTPUTS; j++) {
            const int8_t *row = b + (uint64_t)j * stride + k;
            __m256i w = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)row));
            s[0][j] = _mm256_add_epi32(s[0][j], _mm256_madd_epi16(x0, w));
            s[1][j] = _mm256_add_epi32(s[1][j], _mm256_madd_epi16(x1, w));
        }
    }
    for (int i = 0; i < PAIR; i++)
        for (int j = 0; j < INT8_OUTPUTS; j++)
            sums[i][j] = lanes_sum(s[i][j]);
}
#endif

typedef void sums_function(const int16_t *const a[PAIR], const int8_t *b, uint64_t stride,
                           uint64_t count, int32_t sums[PAIR][INT8_OUTPUTS]);

static sums_function *sums_choose(void)
{
#ifdef __x86_64__
    if (cpu_has_avx2())
        return sums_avx2;
#endif
    return sums_plain;
}

struct product { /* of one block of rows */
    struct int8_matrix w;
    struct int8_work work;
    float beta;
    struct matrix y; /* the block's rows */
    sums_function *sums;
};

/* y[row .. row + 1][output .. output + 3], as far as they are there. */
static void patch(const struct product *p, uint64_t row, uint64_t output)
{
    uint64_t rows = p->y.rows - row < PAIR ? p->y.rows - row : PAIR;
    uint64_t outputs = p->w.rows - output < INT8_OUTPUTS ? p->w.rows - output : INT8_OUTPUTS;
    int64_t all[PAIR][INT8_OUTPUTS] = {{0}};
    for (uint64_t k = 0; k < p->w.stride; k += EXACT) {
        uint64_t count = p->w.stride - k < EXACT ? p->w.stride - k : EXACT;
        const int16_t *a[PAIR] = {p->work.rows + row * p->w.stride + k,
                                  p->work.rows + (row + rows - 1) * p->w.stride + k};
        int32_t sums[PAIR][INT8_OUTPUTS];
        p->sums(a, p->w.at + output * p->w.stride + k, p->w.stride, count, sums);
        for (int i = 0; i < PAIR; i++)
            for (int j = 0; j < INT8_OUTPUTS; j++)
                all[i][j] += sums[i][j];
    }
    for (uint64_t i = 0; i < rows; i++) {
        float *y = p->y.at + (row + i) * p->y.stride + output;
        double scale = (double)p->work.scales[row + i];
        for (uint64_t j = 0; j < outputs; j++) {
            float value = (float)((double)all[i][j] * (scale * (double)p->w.scales[output + j]));
            y[j] = p->beta != 0 ? p->beta * y[j] + value : value;
        }
    }
}

static void block_quantise(const struct product *p, struct matrix x)
{
    for (uint64_t r = 0; r < x.rows; r++) {
        int16_t *q = p->work.rows + r * p->w.stride;
        float inverse;
        p->work.scales[r] = scale_of(x.at + r * x.stride, x.columns, &inverse);
        row_quantise_int16_t(x.at + r * x.stride, x.columns, inverse, q);
        memset(q + x.columns, 0, (p->w.stride - x.columns) * sizeof *q);
    }
}

void cpu_product_int8(struct matrix x, struct int8_matrix w, struct int8_work work, float beta,
                      struct matrix y)
{
    struct product p = {.w = w, .work = work, .beta = beta, .sums = sums_choose()};
    for (uint64_t first = 0; first < x.rows; first += INT8_ROWS) {
        uint64_t rows = x.rows - first < INT8_ROWS ? x.rows - first : INT8_ROWS;
        p.y = (struct matrix){y.at + first * y.stride, rows, y.columns, y.stride};
        block_quantise(&p, (struct matrix){x.at + first * x.stride, rows, x.columns, x.stride});
        for (uint64_t output = 0; output < w.rows; output += INT8_OUTPUTS)
            for (uint64_t row = 0; row < rows; row += PAIR)
                patch(&p, row, output);
    }
}
