/* codes.c - matrices in 4-bit codes, row by row: a level is looked up, and multiplied with what row
 * and column say. Outliers are put over that.
 *
 * With AVX2 it is half a group of codes at a time, which are 16 values whose codes are the lower,
 * or the upper, halves of 16 bytes; a level comes from two registers. The rest of a row, and all
 * where there is no AVX2, in plain C. The bits are the same.
 */
#include "engine/cpu/cpu.h"

#include "engine/scalar.h"
#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { UNIT = CODED_GROUP / 2 };

/* What the values of a row have in common. */
struct coded_row {
    const float *level; /* [CODED_LEVELS] */
    float share;
};

/* Values of one row: the first is number `at` of the matrix. */
static void values_plain(const struct coded_matrix *m, uint64_t at, struct coded_row row,
                         const uint8_t *column, uint64_t count, float *x)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t unit = (at + i) / UNIT;
        uint8_t both = m->codes[unit / 2 * UNIT + (at + i) % UNIT];
        x[i] = row.level[unit % 2 ? both >> 4 : both & 15] * (row.share * scalar_share(column[i]));
    }
}

#ifdef __x86_64__
/* Eight values: the first eight of the codes and of the columns' shares. */
__attribute__((target("avx2"))) static void eight_values(__m256 low, __m256 high, __m256 row,
                                                         __m128i codes, __m128i shares, float *x)
{
    __m256i code = _mm256_cvtepu8_epi32(codes); /* its bit 3 chooses the register */
    __m256 level =
        _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, code), _mm256_permutevar8x32_ps(high, code),
                         _mm256_castsi256_ps(_mm256_slli_epi32(code, 28)));
    __m256i share = _mm256_add_epi32(_mm256_slli_epi32(_mm256_cvtepu8_epi32(shares), 20),
                                     _mm256_set1_epi32(96 << 23)); /* scalar_share */
    _mm256_storeu_ps(x, _mm256_mul_ps(level, _mm256_mul_ps(row, _mm256_castsi256_ps(share))));
}

__attribute__((target("avx2"))) static void units_avx2(const struct coded_matrix *m, uint64_t unit,
                                                       uint64_t count, struct coded_row row,
                                                       const uint8_t *column, float *x)
{
    __m256 low = _mm256_loadu_ps(row.level), high = _mm256_loadu_ps(row.level + 8);
    __m256 rows = _mm256_set1_ps(row.share);
    for (uint64_t end = unit + count; unit < end; unit++, column += UNIT, x += UNIT) {
        const uint8_t *bytes = m->codes + unit / 2 * UNIT;
        __m128i both = _mm_loadu_si128((const __m128i *)(const void *)bytes);
        __m128i shares = _mm_loadu_si128((const __m128i *)(const void *)column);
        __m128i codes = _mm_and_si128(unit % 2 ? _mm_srli_epi16(both, 4) : both, _mm_set1_epi8(15));
        eight_values(low, high, rows, codes, shares, x);
        eight_values(low, high, rows, _mm_srli_si128(codes, 8), _mm_srli_si128(shares, 8), x + 8);
    }
}
#else
static void units_avx2(const struct coded_matrix *m, uint64_t unit, uint64_t count,
                       struct coded_row row, const uint8_t *column, float *x)
{
    values_plain(m, unit * UNIT, row, column, count * UNIT, x);
}
#endif

/* Values of one row from column `first` on. */
static void row_expand(const struct coded_matrix *m, uint64_t at, uint64_t first, uint64_t count,
                       float *x)
{
    const uint8_t *column = m->column + first;
    uint8_t share = m->row[at / m->columns];
    struct coded_row row = {m->level + CODED_LEVELS * coded_table(share, m->tables),
                            scalar_share(share)};
    uint64_t head = (UNIT - at % UNIT) % UNIT, units;
    if (!cpu_has_avx2() || head >= count) {
        values_plain(m, at, row, column, count, x);
        return;
    }
    values_plain(m, at, row, column, head, x);
    units = (count - head) / UNIT;
    units_avx2(m, (at + head) / UNIT, units, row, column + head, x + head);
    head += units * UNIT;
    values_plain(m, at + head, row, column + head, count - head, x + head);
}

/* Those among values from .. from + count - 1: of each tile the first ones may lie before them. */
static void outliers_put(const struct coded_matrix *m, uint64_t from, uint64_t count, float *x)
{
    for (uint64_t tile = from / CODED_TILE; tile < coded_tiles(from + count); tile++) {
        const uint32_t *word = m->outlier + m->outlier_first[tile],
                       *end = m->outlier + m->outlier_first[tile + 1];
        uint64_t begins = tile * CODED_TILE, low = from > begins ? from - begins : 0;
        while (word < end && *word >> OUTLIER_BITS < low)
            word++;
        for (; word < end && begins + (*word >> OUTLIER_BITS) < from + count; word++)
            x[begins + (*word >> OUTLIER_BITS) - from] = scalar_outlier(*word);
    }
}

static void levels_expand(struct coded_matrix m, uint64_t from, uint64_t count, float *x)
{
    for (uint64_t column = from % m.columns; count > 0; column = 0) {
        uint64_t left = m.columns - column, piece = count < left ? count : left;
        row_expand(&m, from, column, piece, x);
        from += piece;
        x += piece;
        count -= piece;
    }
}

void cpu_expand_codes(struct coded_matrix m, uint64_t from, uint64_t count, float *x)
{
    levels_expand(m, from, count, x);
    outliers_put(&m, from, count, x);
}

/* Parameters of a piece: weights, theta*, Fisher information and gradient take 16 KiB. */
enum { PIECE = 1024 };

void cpu_ewc_coded_add(const float *theta, const float *theta_star, struct coded_matrix f,
                       uint64_t from, double damping, double lambda, float *g, uint64_t count,
                       double *penalty)
{
    float expanded[PIECE];
    for (uint64_t done = 0, piece; done < count; done += piece) {
        piece = count - done < PIECE ? count - done : PIECE;
        cpu_expand_codes(f, from + done, piece, expanded);
        cpu_ewc_add(theta + done, theta_star + done, expanded, damping, lambda, g + done, piece,
                    penalty);
    }
}

void cpu_ewc_half_add(const float *theta, const float *theta_star, const uint16_t *fisher,
                      double damping, double lambda, float *g, uint64_t count, double *penalty)
{
    float expanded[PIECE];
    for (uint64_t done = 0, piece; done < count; done += piece) {
        piece = count - done < PIECE ? count - done : PIECE;
        cpu_load_half(HALF_BF16, fisher + done, expanded, piece);
        cpu_ewc_add(theta + done, theta_star + done, expanded, damping, lambda, g + done, piece,
                    penalty);
    }
}
