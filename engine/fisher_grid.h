/* fisher_grid.h - the loops of the form log_rank1 (fisher_log.c) over the values of some rows or of
 * a strip of columns. After grid_row all is in whole numbers. */
#ifndef ENGINE_FISHER_GRID_H
#define ENGINE_FISHER_GRID_H

#include <stdint.h>

enum { GRID_WEIGHT_MAX = 64, GRID_STRIP_COLUMNS = 256, GRID_PARTS = 8, GRID_ZERO = 255 };

struct grid_sums {
    double sum, squares;
    float peak;
    uint64_t some; /* not zero */
    int bad;       /* a number is negative, or not finite */
};

struct grid_sums grid_sums(const float *values, uint64_t count);

struct grid_scale {
    float per_log2; /* log2 F times this is ln F / step */
    float weight;   /* F times this is its weight */
    float knee;
    float first; /* ln knee / step */
};

/* grid[i] = ln F / step, to the nearest where log2 F is known to 0.06, weight[i] = F's weight, 1 to
 * GRID_WEIGHT_MAX, both 0 where F is 0; level[i] = round(ln(F + knee) / step - first), below
 * GRID_ZERO, which F = 0 has. Returns how many levels there are below it. */
uint8_t grid_row(const struct grid_scale *scale, const float *values, uint64_t count, int16_t *grid,
                 uint8_t *weight, uint8_t *level);

/* Mean of grid[i] - column_mean[i] by weight, to the nearest whole number; *some: there is weight.
 */
int32_t grid_row_mean(const int16_t *grid, const uint8_t *weight, const int32_t *column_mean,
                      uint64_t count, uint8_t *some);

/* The same down each of `count` columns (at most GRID_STRIP_COLUMNS) of a matrix with rows `stride`
 * apart. */
void grid_column_means(const int16_t *grid, const uint8_t *weight, const int32_t *row_mean,
                       uint64_t rows, uint64_t stride, uint64_t count, int32_t *mean,
                       uint8_t *some);

/* code[k] of the column column[k]: 1 + (level - expected) modulo `levels`, 0 of GRID_ZERO. */
void grid_codes(const uint8_t *level, uint32_t expected, const uint32_t *column, uint64_t count,
                uint32_t levels, uint8_t *code);

/* What lies on each level: the sum of the values and how many there are, side by side, so that both
 * are one addition; in several such sums, because neighbours are mostly on the same level, and one
 * would make each wait for the one before. */
typedef double grid_pair __attribute__((vector_size(16)));
struct grid_levels {
    grid_pair at[GRID_ZERO + 1][GRID_PARTS];
};

void grid_levels_add(struct grid_levels *levels, const float *values, const uint8_t *level,
                     uint64_t count);

#endif
