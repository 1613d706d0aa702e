/* codes.c - matrices in 4-bit codes: the levels first, 32 codes at a time, then what row and column
 * say of them. With AVX2 a level is looked up in two registers, else in memory; the bits are the
 * same.
 */
#include "engine/cpu/cpu.h"

#include "engine/scalar.h"
#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { HALF_GROUP = CODED_GROUP / 2 };

/* Values first .. end - 1 of one group. */
static void group_part(const uint8_t *bytes, const float *level, uint64_t first, uint64_t end,
                       float *x)
{
    for (uint64_t k = first; k < end; k++)
        *x++ = level[k < HALF_GROUP ? bytes[k] & 15 : bytes[k - HALF_GROUP] >> 4];
}

static void groups_plain(const uint8_t *bytes, uint64_t groups, const float *level, float *x)
{
    for (uint64_t g = 0; g < groups; g++, bytes += HALF_GROUP, x += CODED_GROUP)
        for (uint64_t k = 0; k < HALF_GROUP; k++) {
            x[k] = level[bytes[k] & 15];
            x[k + HALF_GROUP] = level[bytes[k] >> 4];
        }
}

#ifdef __x86_64__
/* The levels of the first eight codes. */
__attribute__((target("avx2"))) static __m256 eight_levels(__m256 low, __m256 high, __m128i codes)
{
    __m256i code = _mm256_cvtepu8_epi32(codes); /* its bit 3 chooses the register */
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, code),
                            _mm256_permutevar8x32_ps(high, code),
                            _mm256_castsi256_ps(_mm256_slli_epi32(code, 28)));
}

__attribute__((target("avx2"))) static void groups_avx2(const uint8_t *bytes, uint64_t groups,
                                                        const float *level, float *x)
{
    __m256 low = _mm256_loadu_ps(level), high = _mm256_loadu_ps(level + 8);
    __m128i mask = _mm_set1_epi8(15);
    for (uint64_t g = 0; g < groups; g++, bytes += HALF_GROUP, x += CODED_GROUP) {
        __m128i both = _mm_loadu_si128((const __m128i *)(const void *)bytes);
        __m128i first = _mm_and_si128(both, mask);
        __m128i second = _mm_and_si128(_mm_srli_epi16(both, 4), mask);
        _mm256_storeu_ps(x, eight_levels(low, high, first));
        _mm256_storeu_ps(x + 8, eight_levels(low, high, _mm_srli_si128(first, 8)));
        _mm256_storeu_ps(x + 16, eight_levels(low, high, second));
        _mm256_storeu_ps(x + 24, eight_levels(low, high, _mm_srli_si128(second, 8)));
    }
}
#endif

static void levels_expand(struct coded_matrix m, uint64_t from, uint64_t count, float *x)
{
    uint64_t end = from + count, skip = from % CODED_GROUP;
    const uint8_t *bytes = m.codes + from / CODED_GROUP * HALF_GROUP;
    if (skip) {
        uint64_t part = CODED_GROUP - skip < count ? CODED_GROUP - skip : count;
        group_part(bytes, m.level, skip, skip + part, x);
        bytes += HALF_GROUP;
        from += part;
        x += part;
    }
    uint64_t groups = (end - from) / CODED_GROUP;
#ifdef __x86_64__
    if (cpu_has_avx2())
        groups_avx2(bytes, groups, m.level, x);
    else
#endif
        groups_plain(bytes, groups, m.level, x);
    group_part(bytes + groups * HALF_GROUP, m.level, 0, (end - from) % CODED_GROUP,
               x + groups * CODED_GROUP);
}

CPU_CLONES static void row_multiply(const uint8_t *restrict column, float row, float *restrict x,
                                    uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        x[i] *= row * scalar_share(column[i]);
}

void cpu_expand_codes(struct coded_matrix m, uint64_t from, uint64_t count, float *x)
{
    levels_expand(m, from, count, x);
    for (uint64_t row = from / m.columns, column = from % m.columns; count > 0; row++, column = 0) {
        uint64_t left = m.columns - column, piece = count < left ? count : left;
        row_multiply(m.column + column, scalar_share(m.row[row]), x, piece);
        x += piece;
        count -= piece;
    }
}
