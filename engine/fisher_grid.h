/* fisher_grid.h - the loops of the form log_rank1 (fisher_log.c) over one row or one strip of
 * columns. Except for the first all is in whole numbers. */
#ifndef ENGINE_FISHER_GRID_H
#define ENGINE_FISHER_GRID_H

#include <stdint.h>

enum { GRID_WEIGHT_MAX = 64, GRID_STRIP_COLUMNS = 256 };

struct grid_scale {
    float per_log2; /* log2 F times this is ln F / step */
    float weight;   /* F times this is its weight */
};

struct grid_range {
    int32_t low, high; /* low > high: no F at all */
};

/* grid[i] = round(ln F / step), weight[i] = F's weight, 1 to GRID_WEIGHT_MAX; both 0 where F is 0.
 */
void grid_row(struct grid_scale scale, const float *values, uint64_t count, int16_t *grid,
              uint8_t *weight);

struct grid_range grid_row_range(const int16_t *grid, const uint8_t *weight, uint64_t count);

/* Mean of grid[i] - column_mean[i] by weight, to the nearest whole number; *some: there is weight.
 */
int32_t grid_row_mean(const int16_t *grid, const uint8_t *weight, const int32_t *column_mean,
                      uint64_t count, int *some);

/* The same down each of `count` columns (at most GRID_STRIP_COLUMNS) of a matrix with rows `stride`
 * apart. */
void grid_column_means(const int16_t *grid, const uint8_t *weight, const int32_t *row_mean,
                       uint64_t rows, uint64_t stride, uint64_t count, int32_t *mean,
                       uint8_t *some);

#endif
