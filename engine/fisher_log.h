/* fisher_log.h - the form log_rank1 from inside: its limits, and one piece while it is encoded.
 * fisher_log.c goes through a block and says what the form is, fisher_log_tables.c makes a piece's
 * tables, fisher_log_decode.c reads.
 */
#ifndef ENGINE_FISHER_LOG_H
#define ENGINE_FISHER_LOG_H

#include "engine/fisher_code_private.h"
#include "engine/fisher_grid.h"

enum {
    LOG_NUMBERS = 4, /* of a piece in the part `shapes`: rows, columns, levels, expected levels */
    LOG_MEAN_MAX = 254,   /* a mean is stored as a byte */
    LOG_DEAD = 255,       /* in its place: a row or column without any F */
    LOG_LEVELS_MAX = 255, /* a code is a byte, and 0 is F = 0 */
    LOG_EXPECTED_MAX = 2 * LOG_MEAN_MAX + 1
};

/* Columns with codes in the order of their means, equal ones as they lie; a run is what has the
 * same mean. */
struct log_columns {
    uint64_t count;
    uint32_t *order; /* [count] */
    uint32_t runs;
    struct log_run {
        uint32_t first, count, mean;
    } run[LOG_MEAN_MAX + 1];
};

/* Sort `columns` columns by mean[], LOG_DEAD ones left out; mean NULL: all are 0. c->order has room
 * for all. */
void log_columns_sort(struct log_columns *c, const uint8_t *mean, uint64_t columns);

/* How many codes of each expected level a row of that mean has, added to count[]. */
static inline void log_row_count(const struct log_columns *c, const uint8_t *expected,
                                 uint64_t *count)
{
    for (uint32_t k = 0; k < c->runs; k++)
        count[expected[c->run[k].mean]] += c->run[k].count;
}

/* One piece, [rows][columns] row by row; a group is what a thread takes of them at once. */
struct log_piece {
    uint64_t rows, columns, group_rows, groups;
    const float *values;
    double step, knee;
    struct grid_sums all, *of_group;
    int16_t *grid;
    uint8_t *weight, *level;
    uint8_t *levels_of;    /* [groups]: how many levels */
    int32_t *row, *column; /* means; the column's are 0 where there is one row */
    uint8_t *row_some, *column_some;
    struct log_columns columns_of; /* those with codes, by their stored means */
    uint64_t alive_rows;
    uint64_t (*code_at)[LOG_LEVELS_MAX]; /* [groups]: of each expected level, where the group's
                                            codes begin */
    struct grid_levels *of_levels;       /* [groups] */
    uint32_t levels, expecteds;          /* how many */
    uint8_t expected[LOG_EXPECTED_MAX];
    uint8_t *means; /* as stored: rows, then columns where there are several rows */
    uint8_t *codes;
};

static inline uint64_t log_means_count(uint64_t rows, uint64_t columns)
{
    return rows + (rows > 1 ? columns : 0);
}

/* What log2 must be multiplied by to count steps. */
static inline double log_per_log2(double step)
{
    return 0.6931471805599453 / step;
}

/* Sums of all groups into p->all, and p->knee: where levels run together. 0: there is no F. */
void log_knee_find(struct log_piece *p);

/* Means as they are stored, the order of rows and columns with codes, and the level expected at
 * each sum of two means. */
void log_means_store(struct log_piece *p);

/* The value of each level, value[p->levels], and the squared differences of the values from those
 * of their levels. */
double log_level_values(const struct log_piece *p, float *value);

int log_encode(struct fisher_code *c, const struct fisher_coding *coding,
               const struct fisher_piece *pieces, uint64_t piece_count, const float *values,
               struct pool *pool, struct err *e);
int log_decode(const struct fisher_code *c, float *values, struct err *e);

#endif
