/* fisher_grid.c - see fisher_grid.h. */
#include "engine/fisher_grid.h"

#include <string.h>

#include "engine/clones.h"

/* Sums of SEGMENT products of a weight and a distance on the grid fit 32 bits: 64 * 2^13 * 4096. */
enum { SEGMENT = 4096 };

/* log2 of a number that is not negative, to 6e-5: exponent, and a polynomial of the rest from
 * sqrt(1/2) to sqrt(2). Denormal numbers are whole multiples of 2^-149. */
static inline float log2_of(uint32_t bits)
{
    float whole = (float)(int32_t)bits, rest;
    uint32_t wide;
    memcpy(&wide, &whole, sizeof wide);
    uint32_t normal = bits < 0x00800000u ? wide : bits;
    int32_t exponent =
        (int32_t)(normal - 0x3f3504f3u) >> 23; /* of the power of two nearest in ratio */
    uint32_t mantissa = normal - ((uint32_t)exponent << 23);
    memcpy(&rest, &mantissa, sizeof rest);
    rest -= 1.0f;
    float p = -0.38679895f + rest * 0.25271839f;
    p = 1.44265926f + rest * (-0.72077566f + rest * (0.48478392f + rest * p));
    return rest * p + (float)(exponent - (bits < 0x00800000u ? 149 : 0));
}

CPU_CLONES void grid_row(struct grid_scale scale, const float *values, uint64_t count,
                         int16_t *grid, uint8_t *weight)
{
    const float shift = 12582912.0f; /* 1.5 2^23: a float this large keeps whole numbers only */
    for (uint64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        bits &= 0x7fffffffu;
        float at = log2_of(bits) * scale.per_log2 + shift - shift;
        float w = values[i] * scale.weight;
        w = w > 1.0f ? w : 1.0f;
        w = w < (float)GRID_WEIGHT_MAX ? w : (float)GRID_WEIGHT_MAX;
        grid[i] = (int16_t)(bits ? (int32_t)at : 0);
        weight[i] = (uint8_t)(bits ? (int32_t)w : 0);
    }
}

CPU_CLONES struct grid_range grid_row_range(const int16_t *grid, const uint8_t *weight,
                                            uint64_t count)
{
    int16_t low = INT16_MAX, high = INT16_MIN;
    for (uint64_t i = 0; i < count; i++) {
        int16_t down = weight[i] ? grid[i] : INT16_MAX, up = weight[i] ? grid[i] : INT16_MIN;
        low = down < low ? down : low;
        high = up > high ? up : high;
    }
    return (struct grid_range){low, high};
}

static int32_t nearest(int64_t sum, int64_t weight)
{
    int64_t half = sum < 0 ? -weight / 2 : weight / 2;
    return weight ? (int32_t)((sum + half) / weight) : 0;
}

CPU_CLONES int32_t grid_row_mean(const int16_t *grid, const uint8_t *weight,
                                 const int32_t *column_mean, uint64_t count, int *some)
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
