/* fisher_log.c - the form log_rank1: ln F on a grid, less what its row and column say.
 *
 * Of each piece:
 *   grid   m = round(ln F / step), a whole number; F = 0 has none.
 *   level  n = round(ln(e^(step m) + knee) / step), counted from the piece's least: where F is
 * large a level is a step of ln F wide; below the knee, KNEE of the root mean square, levels run
 * together, because an error there is nothing in the whole. The value of a level is the mean of the
 * F that are on it. means  R, C: what the row and the column add to m, whole numbers; means over
 * what is not zero, an F below the knee counting in proportion, because its level hardly depends on
 * it. code   1 + (n - level expected at R + C) modulo the number of levels; 0 for F = 0. Rows and
 * columns without any F have no codes. From m on everything is in whole numbers: threads do not
 * change it, and a reader needs two tables and no arithmetic.
 */
#include "engine/fisher_log.h"

#include <math.h>
#include <stdlib.h>

#include "engine/fisher_grid.h"
#include "engine/scalar.h"

/* 32768: of the rows that a thread takes at once. */
enum { GROUP_VALUES = 32768 };
static const double KNEE = 1.0 / 32;

struct level_sums {
    double sum[LOG_LEVELS_MAX + 1];
    uint64_t count[LOG_LEVELS_MAX + 1];
};

/* One piece being encoded; everything in whole rows of `columns`. */
struct log_piece {
    uint64_t rows, columns, group_rows, groups;
    const float *values;
    double step, knee;
    double *squares;          /* [2 groups]: sum of the squares, how many are not zero */
    int16_t *grid;            /* [rows][columns] */
    uint8_t *weight;          /* [rows][columns] */
    struct grid_range *range; /* [groups] */
    int32_t *row, *column;    /* means; the column's are 0 where there is one row */
    uint8_t *row_some, *column_some;
    int32_t low, high;          /* of the grid */
    uint8_t *level_of;          /* [high - low + 1] */
    uint32_t levels, expecteds; /* how many */
    uint8_t expected[LOG_EXPECTED_MAX];
    uint32_t *alive; /* columns with any F */
    uint64_t alive_columns, alive_rows;
    uint8_t *means;          /* as stored: rows, then columns */
    struct level_sums *sums; /* [groups] */
    uint8_t *codes;          /* [alive_rows][alive_columns] */
    uint64_t *code_row;      /* [rows]: alive rows before */
};

static uint64_t group_end(const struct log_piece *p, uint64_t group)
{
    uint64_t end = (group + 1) * p->group_rows;
    return end < p->rows ? end : p->rows;
}

static void squares_item(void *argument, uint64_t group, int thread)
{
    struct log_piece *p = argument;
    uint64_t end = group_end(p, group) * p->columns;
    double sum[4] = {0};
    uint64_t some = 0;
    (void)thread;
    for (uint64_t i = group * p->group_rows * p->columns; i < end; i++) {
        double x = (double)p->values[i];
        sum[i & 3] += x * x;
        some += (uint64_t)fisher_is_some(p->values[i]);
    }
    p->squares[2 * group] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    p->squares[2 * group + 1] = (double)some;
}

static void grid_item(void *argument, uint64_t group, int thread)
{
    struct log_piece *p = argument;
    const struct grid_scale scale = {(float)(0.6931471805599453 / p->step),
                                     (float)(GRID_WEIGHT_MAX / p->knee)};
    uint64_t first = group * p->group_rows * p->columns,
             count = group_end(p, group) * p->columns - first;
    (void)thread;
    grid_row(scale, p->values + first, count, p->grid + first, p->weight + first);
    p->range[group] = grid_row_range(p->grid + first, p->weight + first, count);
}

static void rows_item(void *argument, uint64_t group, int thread)
{
    struct log_piece *p = argument;
    (void)thread;
    for (uint64_t i = group * p->group_rows; i < group_end(p, group); i++) {
        int some;
        p->row[i] = grid_row_mean(p->grid + i * p->columns, p->weight + i * p->columns, p->column,
                                  p->columns, &some);
        p->row_some[i] = (uint8_t)some;
    }
}

static void columns_item(void *argument, uint64_t strip, int thread)
{
    struct log_piece *p = argument;
    uint64_t first = strip * GRID_STRIP_COLUMNS, left = p->columns - first;
    (void)thread;
    grid_column_means(p->grid + first, p->weight + first, p->row, p->rows, p->columns,
                      left < GRID_STRIP_COLUMNS ? left : GRID_STRIP_COLUMNS, p->column + first,
                      p->column_some + first);
}

/* Where levels run together; never so low that there would be more levels than codes. 0: there is
 * no F. */
static double knee_of(const struct log_piece *p)
{
    double squares = 0, some = 0, peak = 0;
    for (uint64_t i = 0; i < p->groups; i++) {
        squares += p->squares[2 * i];
        some += p->squares[2 * i + 1];
    }
    if (some == 0)
        return 0;
    for (uint64_t i = 0; i < p->rows * p->columns; i++)
        peak = (double)p->values[i] > peak ? (double)p->values[i] : peak;
    double knee = KNEE * sqrt(squares / some), least = peak * exp(-(LOG_LEVELS_MAX - 3) * p->step);
    knee = knee > least ? knee : least;
    return knee > 0x1p-120 ? knee : 0x1p-120; /* its inverse is a float32 */
}

static double level_at(const struct log_piece *p, int32_t m)
{
    return rint(log(exp(p->step * m) + p->knee) / p->step);
}

/* Three sweeps settle the means: the fourth hardly moves one. */
static void means_fit(struct log_piece *p, struct pool *pool)
{
    uint64_t strips = (p->columns - 1) / GRID_STRIP_COLUMNS + 1;
    pool_run(pool, rows_item, p, p->groups);
    if (p->rows == 1) {
        memset(p->column_some, 1, p->columns);
        return;
    }
    pool_run(pool, columns_item, p, strips);
    pool_run(pool, rows_item, p, p->groups);
}

/* The means in 0 .. LOG_MEAN_MAX, from the least on; what does not fit is held at the end, which
 * costs only bytes. */
static uint32_t means_store(const int32_t *mean, const uint8_t *some, uint64_t count,
                            int32_t *least, uint8_t *stored)
{
    uint32_t top = 0;
    *least = INT32_MAX;
    for (uint64_t i = 0; i < count; i++)
        if (some[i] && mean[i] < *least)
            *least = mean[i];
    for (uint64_t i = 0; i < count; i++) {
        uint32_t above = some[i] ? (uint32_t)(mean[i] - *least) : LOG_DEAD;
        stored[i] = (uint8_t)(some[i] && above > LOG_MEAN_MAX ? LOG_MEAN_MAX : above);
        if (some[i] && stored[i] > top)
            top = stored[i];
    }
    return top;
}

/* Both tables: the level at each point of the grid, and the level expected at each sum of two
 * means. */
static int levels_make(struct log_piece *p, struct err *e)
{
    int32_t row_least, column_least = 0;
    uint32_t top = means_store(p->row, p->row_some, p->rows, &row_least, p->means);
    if (p->rows > 1)
        top +=
            means_store(p->column, p->column_some, p->columns, &column_least, p->means + p->rows);
    double first = level_at(p, p->low);
    p->levels = (uint32_t)(level_at(p, p->high) - first) + 1;
    ensure(p->levels <= LOG_LEVELS_MAX);
    p->level_of = malloc((uint64_t)(p->high - p->low) + 1);
    if (!p->level_of)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot encode a block of the Fisher information");
    for (int32_t m = p->low; m <= p->high; m++)
        p->level_of[m - p->low] = (uint8_t)(level_at(p, m) - first);
    p->expecteds = top + 1;
    for (uint32_t i = 0; i <= top; i++) {
        int32_t m = row_least + column_least + (int32_t)i;
        m = m < p->low ? p->low : m > p->high ? p->high : m;
        p->expected[i] = p->level_of[m - p->low];
    }
    return 0;
}

static void alive_find(struct log_piece *p)
{
    p->alive_rows = p->alive_columns = 0;
    for (uint64_t i = 0; i < p->rows; i++) {
        p->code_row[i] = p->alive_rows;
        p->alive_rows += p->row_some[i];
    }
    for (uint64_t j = 0; j < p->columns; j++)
        if (p->column_some[j])
            p->alive[p->alive_columns++] = (uint32_t)j;
}

/* Codes of a row, and its part of the levels' sums. */
static void row_encode(const struct log_piece *p, uint64_t i, struct level_sums *sums)
{
    const float *value = p->values + i * p->columns;
    const int16_t *grid = p->grid + i * p->columns;
    const uint8_t *weight = p->weight + i * p->columns,
                  *column_mean = p->rows > 1 ? p->means + p->rows : NULL;
    const uint8_t *expected = p->expected + p->means[i];
    uint8_t *code = p->codes + p->code_row[i] * p->alive_columns;
    for (uint64_t k = 0; k < p->alive_columns; k++) {
        uint32_t j = p->alive[k];
        if (!weight[j]) {
            code[k] = 0;
            continue;
        }
        uint32_t level = p->level_of[grid[j] - p->low];
        int32_t above = (int32_t)level - expected[column_mean ? column_mean[j] : 0];
        code[k] = (uint8_t)(1 + above + (above < 0 ? (int32_t)p->levels : 0));
        sums->sum[level] += (double)value[j];
        sums->count[level]++;
    }
}

static void codes_item(void *argument, uint64_t group, int thread)
{
    struct log_piece *p = argument;
    (void)thread;
    for (uint64_t i = group * p->group_rows; i < group_end(p, group); i++)
        if (p->row_some[i])
            row_encode(p, i, &p->sums[group]);
}

/* The mean of what is on the level, in 16 bits: an eighth of a percent is nothing beside a step,
 * and it packs better. Never so small that a processor may take it for zero. */
static void level_values(const struct log_piece *p, float *value)
{
    for (uint32_t n = 0; n < p->levels; n++) {
        double sum = 0;
        uint64_t count = 0;
        for (uint64_t i = 0; i < p->groups; i++) {
            sum += p->sums[i].sum[n];
            count += p->sums[i].count[n];
        }
        float mean = count ? (float)(sum / (double)count) : n ? value[n - 1] : 0;
        mean = mean < 0x1p-126f ? 0x1p-126f : mean > 0x1.fep127f ? 0x1.fep127f : mean;
        value[n] = scalar_brain(scalar_to_brain(mean));
    }
}

static void piece_close(struct log_piece *p)
{
    free(p->squares);
    free(p->grid);
    free(p->weight);
    free(p->range);
    free(p->row);
    free(p->column);
    free(p->row_some);
    free(p->column_some);
    free(p->level_of);
    free(p->alive);
    free(p->sums);
    free(p->code_row);
}

static int piece_open(struct log_piece *p, const struct fisher_piece *shape, const float *values,
                      double step, struct err *e)
{
    uint64_t rows = shape->rows, columns = shape->columns;
    *p = (struct log_piece){.rows = rows, .columns = columns, .values = values, .step = step};
    p->group_rows = GROUP_VALUES / columns ? GROUP_VALUES / columns : 1;
    p->groups = (rows - 1) / p->group_rows + 1;
    p->squares = calloc(p->groups, 2 * sizeof *p->squares);
    p->grid = malloc(rows * columns * sizeof *p->grid);
    p->weight = malloc(rows * columns);
    p->range = calloc(p->groups, sizeof *p->range);
    p->row = calloc(rows, sizeof *p->row);
    p->column = calloc(columns, sizeof *p->column);
    p->row_some = calloc(rows, 1);
    p->column_some = calloc(columns, 1);
    p->alive = malloc(columns * sizeof *p->alive);
    p->sums = calloc(p->groups, sizeof *p->sums);
    p->code_row = calloc(rows, sizeof *p->code_row);
    return p->squares && p->grid && p->weight && p->range && p->row && p->column && p->row_some &&
                   p->column_some && p->alive && p->sums && p->code_row
               ? 0
               : err_errno(e, EXIT_CODE_TEMPORARY,
                           "cannot encode a block of the Fisher information");
}

/* The piece's grid, means, levels and codes, to where p->means and p->codes point. */
static int piece_encode(struct log_piece *p, struct pool *pool, struct err *e)
{
    pool_run(pool, squares_item, p, p->groups);
    p->knee = knee_of(p);
    if (p->knee == 0) {
        memset(p->means, LOG_DEAD, p->rows + (p->rows > 1 ? p->columns : 0));
        return 0;
    }
    pool_run(pool, grid_item, p, p->groups);
    p->low = INT32_MAX, p->high = INT32_MIN;
    for (uint64_t i = 0; i < p->groups; i++) {
        p->low = p->range[i].low < p->low ? p->range[i].low : p->low;
        p->high = p->range[i].high > p->high ? p->range[i].high : p->high;
    }
    means_fit(p, pool);
    if (levels_make(p, e) < 0)
        return -1;
    alive_find(p);
    pool_run(pool, codes_item, p, p->groups);
    return 0;
}

/* The parts of a block, filled piece after piece; their counts say how far. */
struct log_parts {
    struct fisher_part *shapes, *codes, *means, *levels, *expected;
};

static int parts_open(struct fisher_code *c, struct log_parts *parts,
                      const struct fisher_piece *pieces, uint64_t piece_count, struct err *e)
{
    uint64_t means = 0;
    for (uint64_t i = 0; i < piece_count; i++)
        means += pieces[i].rows + (pieces[i].rows > 1 ? pieces[i].columns : 0);
    if (!fisher_part_add(c, "shapes", "u32", LOG_NUMBERS * piece_count, e) ||
        !fisher_part_add(c, "codes", "u8", c->count, e) ||
        !fisher_part_add(c, "means", "u8", means, e) ||
        !fisher_part_add(c, "levels", "f32", LOG_LEVELS_MAX * piece_count, e) ||
        !fisher_part_add(c, "expected", "u8", LOG_EXPECTED_MAX * piece_count, e))
        return -1;
    *parts = (struct log_parts){&c->part[0], &c->part[1], &c->part[2], &c->part[3], &c->part[4]};
    for (int i = 0; i < c->parts; i++)
        c->part[i].count = 0;
    return 0;
}

static void piece_add(const struct log_piece *p, struct log_parts *parts)
{
    const uint32_t shape[LOG_NUMBERS] = {(uint32_t)p->rows, (uint32_t)p->columns, p->levels,
                                         p->expecteds};
    memcpy((uint32_t *)parts->shapes->data + parts->shapes->count, shape, sizeof shape);
    level_values(p, (float *)parts->levels->data + parts->levels->count);
    memcpy((uint8_t *)parts->expected->data + parts->expected->count, p->expected, p->expecteds);
    parts->shapes->count += LOG_NUMBERS;
    parts->levels->count += p->levels;
    parts->expected->count += p->expecteds;
    parts->means->count += p->rows + (p->rows > 1 ? p->columns : 0);
    parts->codes->count += p->alive_rows * p->alive_columns;
}

int log_encode(struct fisher_code *c, const struct fisher_coding *coding,
               const struct fisher_piece *pieces, uint64_t piece_count, const float *values,
               struct pool *pool, struct err *e)
{
    struct log_parts parts;
    int result = parts_open(c, &parts, pieces, piece_count, e);
    for (uint64_t i = 0; result == 0 && i < piece_count; i++) {
        struct log_piece p;
        result = piece_open(&p, &pieces[i], values, coding->step, e);
        if (result == 0) {
            p.means = (uint8_t *)parts.means->data + parts.means->count;
            p.codes = (uint8_t *)parts.codes->data + parts.codes->count;
            result = piece_encode(&p, pool, e);
        }
        if (result == 0)
            piece_add(&p, &parts);
        values += pieces[i].rows * pieces[i].columns;
        piece_close(&p);
    }
    return result;
}
