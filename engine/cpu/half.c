/* half.c - numbers of 16 bits: storing, loading, rounding.
 *
 * The loops over scalar.h vectorise; where the processor has F16C, binary16 takes its two
 * instructions instead, which give the same bits. That is asked for at run time, and nothing else
 * of this file is compiled for it.
 */
#include "engine/cpu/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define LOOPS(KIND, WIDEN, NARROW)                                                                 \
    CPU_CLONES static void store_##KIND(float *restrict x, uint16_t *restrict h, uint64_t count)   \
    {                                                                                              \
        for (uint64_t i = 0; i < count; i++) {                                                     \
            h[i] = NARROW(x[i]);                                                                   \
            x[i] = WIDEN(h[i]);                                                                    \
        }                                                                                          \
    }                                                                                              \
    CPU_CLONES static void load_##KIND(const uint16_t *restrict h, float *restrict x,              \
                                       uint64_t count)                                             \
    {                                                                                              \
        for (uint64_t i = 0; i < count; i++)                                                       \
            x[i] = WIDEN(h[i]);                                                                    \
    }                                                                                              \
    CPU_CLONES static void add_##KIND(const uint16_t *restrict h, float *restrict y,               \
                                      uint64_t count)                                              \
    {                                                                                              \
        for (uint64_t i = 0; i < count; i++)                                                       \
            y[i] += WIDEN(h[i]);                                                                   \
    }                                                                                              \
    CPU_CLONES static void round_##KIND(float *x, uint64_t count)                                  \
    {                                                                                              \
        for (uint64_t i = 0; i < count; i++)                                                       \
            x[i] = WIDEN(NARROW(x[i]));                                                            \
    }
HALVES(LOOPS)

#if defined(__x86_64__)
#define WITH_F16C __attribute__((target("avx,f16c")))

static int has_f16c(void)
{
    return __builtin_cpu_supports("avx") && __builtin_cpu_supports("f16c");
}

WITH_F16C static uint64_t store_f16c(float *x, uint16_t *h, uint64_t count)
{
    uint64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m128i narrow = _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(void *)(h + i), narrow);
        _mm256_storeu_ps(x + i, _mm256_cvtph_ps(narrow));
    }
    return i;
}

WITH_F16C static uint64_t load_f16c(const uint16_t *h, float *x, uint64_t count)
{
    uint64_t i = 0;
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(x + i,
                         _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(h + i))));
    return i;
}

WITH_F16C static uint64_t round_f16c(float *x, uint64_t count)
{
    uint64_t i = 0;
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(x + i, _mm256_cvtph_ps(_mm256_cvtps_ph(_mm256_loadu_ps(x + i),
                                                                _MM_FROUND_TO_NEAREST_INT)));
    return i;
}
#else
static int has_f16c(void)
{
    return 0;
}
static uint64_t store_f16c(float *x, uint16_t *h, uint64_t count)
{
    (void)x, (void)h, (void)count;
    return 0;
}
static uint64_t load_f16c(const uint16_t *h, float *x, uint64_t count)
{
    (void)x, (void)h, (void)count;
    return 0;
}
static uint64_t round_f16c(float *x, uint64_t count)
{
    (void)x, (void)count;
    return 0;
}
#endif

void cpu_store_half(enum half kind, float *x, uint16_t *h, uint64_t count)
{
    uint64_t done = kind == HALF_F16 && has_f16c() ? store_f16c(x, h, count) : 0;
    if (kind == HALF_F16)
        store_F16(x + done, h + done, count - done);
    else
        store_BF16(x, h, count);
}

void cpu_load_half(enum half kind, const uint16_t *h, float *x, uint64_t count)
{
    uint64_t done = kind == HALF_F16 && has_f16c() ? load_f16c(h, x, count) : 0;
    if (kind == HALF_F16)
        load_F16(h + done, x + done, count - done);
    else
        load_BF16(h, x, count);
}

void cpu_add_half(enum half kind, const uint16_t *h, float *y, uint64_t count)
{
    if (kind == HALF_F16)
        add_F16(h, y, count);
    else
        add_BF16(h, y, count);
}

static void row_round(enum half kind, float *x, uint64_t count)
{
    uint64_t done = kind == HALF_F16 && has_f16c() ? round_f16c(x, count) : 0;
    if (kind == HALF_F16)
        round_F16(x + done, count - done);
    else
        round_BF16(x, count);
}

void cpu_round_half(enum half kind, struct matrix x)
{
    if (x.stride == x.columns)
        row_round(kind, x.at, x.rows * x.columns);
    else
        for (uint64_t r = 0; r < x.rows; r++)
            row_round(kind, x.at + r * x.stride, x.columns);
}
