/* fisher_grid.c - see fisher_grid.h. */
#include "engine/fisher_grid.h"

#include <string.h>

#include "engine/clones.h"

/* Sums of SEGMENT products of a weight and a distance on the grid fit 32 bits: 64 * 2^13 * 4096. */
enum { SEGMENT = 4096 };

/* log2 of a number by its bits, to 9e-4, an eightieth of the finest step: exponent, and a
 * polynomial of the rest that is exact at 1 and 2, so that a larger number never has a smaller one.
 * Below 2^-126 it is only that. */
static inline float log2_of(uint32_t bits)
{
    uint32_t mantissa = (bits & 0x007fffffu) | 0x3f800000u;
    float rest, exponent = (float)(int32_t)(bits >> 23);
    memcpy(&rest, &mantissa, sizeof rest);
    float p = -1.0597403f + rest * 0.15921894f;
    return exponent + (rest * (3.0646884f + rest * p) - 129.16417f);
}

/* The same to 0.06, which is enough for what goes into a mean: a straight line from each power of
 * two to the next, as high as its mean asks for. */
static inline float log2_about(uint32_t bits)
{
    return (float)(int32_t)bits * 0x1p-23f - 126.943f;
}

/* Sixteen sums, in a fixed order whatever the vectors. */
CPU_CLONES struct grid_sums grid_sums(const float *values, uint64_t count)
{
    enum { PARTS = 16 };
    double sum[PARTS] = {0}, squares[PARTS] = {0};
    float peak[PARTS] = {0};
    uint32_t some[PARTS] = {0}, bad[PARTS] = {0};
    struct grid_sums all = {0};
    for (uint64_t first = 0; first < count; first += PARTS) {
        uint64_t end = count - first < PARTS ? count - first : PARTS;
        for (uint64_t k = 0; k < end; k++) {
            float x = values[first + k];
            uint32_t bits;
            memcpy(&bits, &x, sizeof bits);
            sum[k] += (double)x;
            squares[k] += (double)x * (double)x;
            peak[k] = x > peak[k] ? x : peak[k];
            some[k] += bits << 1 != 0;
            bad[k] |= (bits >= 0x7f800000u) & (bits != 0x80000000u);
        }
    }
    for (int k = 0; k < PARTS; k++) {
        all.sum += sum[k];
        all.squares += squares[k];
        all.peak = peak[k] > all.peak ? peak[k] : all.peak;
        all.some += some[k];
        all.bad |= (int)bad[k];
    }
    return all;
}

CPU_CLONES uint8_t grid_row(const struct grid_scale *scale, const float *values, uint64_t count,
                            int16_t *restrict grid, uint8_t *restrict weight,
                            uint8_t *restrict level)
{
    const float shift = 12582912.0f; /* 1.5 2^23: a float this large keeps whole numbers only */
    const float per_log2 = scale->per_log2, by_weight = scale->weight, knee = scale->knee,
                first = scale->first;
    uint8_t levels = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t bits, raised;
        float above = values[i] + knee, w = values[i] * by_weight;
        memcpy(&bits, &values[i], sizeof bits);
        memcpy(&raised, &above, sizeof raised);
        bits &= 0x7fffffffu;
        w = w > 1.0f ? w : 1.0f;
        w = w < (float)GRID_WEIGHT_MAX ? w : (float)GRID_WEIGHT_MAX;
        int32_t at = (int32_t)(log2_about(bits) * per_log2 + shift - shift);
        int32_t n = (int32_t)(log2_of(raised) * per_log2 - first + shift - shift);
        grid[i] = (int16_t)(bits ? at : 0);
        weight[i] = (uint8_t)(bits ? (int32_t)w : 0);
        level[i] = (uint8_t)((n > 0 ? n : 0) | (bits ? 0 : GRID_ZERO));
    }
    for (uint64_t i = 0; i < count; i++) {
        uint8_t above = (uint8_t)(level[i] + 1); /* GRID_ZERO: 0 */
        levels = above > levels ? above : levels;
    }
    return levels;
}

static int32_t nearest(int64_t sum, int64_t weight)
{
    int64_t half = sum < 0 ? -weight / 2 : weight / 2;
    return weight ? (int32_t)((sum + half) / weight) : 0;
}

CPU_CLONES int32_t grid_row_mean(const int16_t *grid, const uint8_t *weight,
                                 const int32_t *column_mean, uint64_t count, uint8_t *some)
{
    int64_t sum = 0, total = 0;
    for (uint64_t first = 0; first < count; first += SEGMENT) {
        uint64_t end = count - first < SEGMENT ? count : first + SEGMENT;
        int32_t part = 0, weights = 0;
        for (uint64_t i = first; i < end; i++) {
            part += (grid[i] - column_mean[i]) * weight[i];
            weights += weight[i];
        }
        sum += part;
        total += weights;
    }
    *some = total > 0;
    return nearest(sum, total);
}

CPU_CLONES void grid_column_means(const int16_t *grid, const uint8_t *weight,
                                  const int32_t *row_mean, uint64_t rows, uint64_t stride,
                                  uint64_t count, int32_t *mean, uint8_t *some)
{
    int64_t sum[GRID_STRIP_COLUMNS] = {0}, total[GRID_STRIP_COLUMNS] = {0};
    for (uint64_t first = 0; first < rows; first += SEGMENT) {
        int32_t part[GRID_STRIP_COLUMNS] = {0}, weights[GRID_STRIP_COLUMNS] = {0};
        uint64_t end = rows - first < SEGMENT ? rows : first + SEGMENT;
        for (uint64_t i = first; i < end; i++)
            for (uint64_t k = 0; k < count; k++) {
                part[k] += (grid[i * stride + k] - row_mean[i]) * weight[i * stride + k];
                weights[k] += weight[i * stride + k];
            }
        for (uint64_t k = 0; k < count; k++) {
            sum[k] += part[k];
            total[k] += weights[k];
        }
    }
    for (uint64_t k = 0; k < count; k++) {
        mean[k] = nearest(sum[k], total[k]);
        some[k] = total[k] > 0;
    }
}

static inline uint8_t code_of(uint8_t n, uint8_t low, uint8_t below, uint8_t above)
{
    uint8_t code = (uint8_t)(n + (n < low ? below : above));
    return n == GRID_ZERO ? 0 : code;
}

/* Fetched first, then changed a whole VECTOR at a time; what is left of a run, which is short, goes
 * with the end of the vector before once more. */
CPU_CLONES void grid_codes(const uint8_t *restrict level, uint32_t expected,
                           const uint32_t *restrict column, uint64_t count, uint32_t levels,
                           uint8_t *restrict code)
{
    enum { VECTOR = 32, PIECE = 512 };
    const uint8_t low = (uint8_t)expected, above = (uint8_t)(1 - expected),
                  below = (uint8_t)(1 - expected + levels);
    uint8_t fetched[PIECE];
    for (uint64_t done = 0, piece; done < count; done += piece) {
        piece = count - done < PIECE ? count - done : PIECE;
#pragma GCC unroll 8
        for (uint64_t k = 0; k < piece; k++)
            fetched[k] = level[column[done + k]];
        for (uint64_t k = 0; k < piece && piece < VECTOR; k++)
            code[done + k] = code_of(fetched[k], low, below, above);
        for (uint64_t first = 0, next; first < piece && piece >= VECTOR; first = next) {
            for (uint64_t k = first; k < first + VECTOR; k++)
                code[done + k] = code_of(fetched[k], low, below, above);
            next = first + VECTOR;
            next = next < piece && next + VECTOR > piece ? piece - VECTOR : next;
        }
    }
}

void grid_levels_add(struct grid_levels *levels, const float *values, const uint8_t *level,
                     uint64_t count)
{
    uint64_t i = 0;
    for (; i + GRID_PARTS <= count; i += GRID_PARTS)
#pragma GCC unroll 8
        for (uint64_t k = 0; k < GRID_PARTS; k++)
            levels->at[level[i + k]][k] += (grid_pair){(double)values[i + k], 1};
    for (; i < count; i++)
        levels->at[level[i]][i % GRID_PARTS] += (grid_pair){(double)values[i], 1};
}
