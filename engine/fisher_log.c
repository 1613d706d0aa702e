/* fisher_log.c - the form log_rank1: ln F on a grid, less what its row and column say.
 *
 * Of each piece:
 *   grid    m = round(ln F / step), a whole number; F = 0 has none.
 *   level   n = round(ln(F / knee + 1) / step): where F is large a level is a step of ln F wide;
 *           below the knee levels run together, because an error there is nothing in the whole.
 *           The value of a level is the mean of the F that are on it.
 *   means   R, C: what the row and the column add to m, whole numbers; means over what is not
 *           zero, an F below the knee counting in proportion: its level hardly depends on it.
 *   code    1 + (n - level expected at R + C) modulo the number of levels; 0 for F = 0. Rows and
 *           columns without any F have no codes. Codes lie by the level expected, those of one
 *           level together: codes that are alike pack better.
 *
 * From m and n on everything is in whole numbers: threads do not change it, and a reader needs two
 * tables and no arithmetic.
 */
#include "engine/fisher_log.h"

#include <math.h>
#include <stdlib.h>

/* 32768: of the rows that a thread takes at once. */
enum { GROUP_VALUES = 32768, ALIGNMENT = 64 };

static uint64_t group_rows(const struct log_piece *p, uint64_t group)
{
    uint64_t left = p->rows - group * p->group_rows;
    return left < p->group_rows ? left : p->group_rows;
}

static void values_item(void *argument, uint64_t group, int thread)
{
    struct log_piece *p = argument;
    (void)thread;
    p->of_group[group] = grid_sums(p->values + group * p->group_rows * p->columns,
                                   group_rows(p, group) * p->columns);
}

static void rows_item(void *argument, uint64_t group, int thread)
{
    struct log_piece *p = argument;
    uint64_t first = group * p->group_rows, end = first + group_rows(p, group);
    (void)thread;
    for (uint64_t i = first; i < end; i++)
        p->row[i] = grid_row_mean(p->grid + i * p->columns, p->weight + i * p->columns, p->column,
                                  p->columns, &p->row_some[i]);
}

/* All that is known before the columns' means, while the group is in the cache. */
static void grid_item(void *argument, uint64_t group, int thread)
{
    struct log_piece *p = argument;
    const struct grid_scale scale = {(float)log_per_log2(p->step),
                                     (float)(GRID_WEIGHT_MAX / p->knee), (float)p->knee,
                                     (float)(log(p->knee) / p->step)};
    uint64_t first = group * p->group_rows * p->columns, count = group_rows(p, group) * p->columns;
    p->levels_of[group] = grid_row(&scale, p->values + first, count, p->grid + first,
                                   p->weight + first, p->level + first);
    memset(&p->of_levels[group], 0, sizeof p->of_levels[group]);
    grid_levels_add(&p->of_levels[group], p->values + first, p->level + first, count);
    rows_item(p, group, thread);
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

/* After the rows' first means two sweeps settle them: a third hardly moves one. */
static void means_fit(struct log_piece *p, struct pool *pool)
{
    if (p->rows == 1) {
        memset(p->column_some, 1, p->columns);
        return;
    }
    pool_run(pool, columns_item, p, (p->columns - 1) / GRID_STRIP_COLUMNS + 1);
    pool_run(pool, rows_item, p, p->groups);
}

static void counts_item(void *argument, uint64_t group, int thread)
{
    struct log_piece *p = argument;
    uint64_t first = group * p->group_rows, end = first + group_rows(p, group);
    (void)thread;
    memset(p->code_at[group], 0, sizeof p->code_at[group]);
    for (uint64_t i = first; i < end; i++)
        if (p->means[i] != LOG_DEAD)
            log_row_count(&p->columns_of, p->expected + p->means[i], p->code_at[group]);
}

/* Counts become places: one expected level after the other, and of each one group after the other.
 */
static void codes_place(struct log_piece *p)
{
    uint64_t next = 0;
    for (uint32_t level = 0; level < LOG_LEVELS_MAX; level++)
        for (uint64_t i = 0; i < p->groups; i++) {
            uint64_t count = p->code_at[i][level];
            p->code_at[i][level] = next;
            next += count;
        }
}

/* A row's codes go to as many places as it has runs, all over the piece, and its levels are not
 * read in their order: the processor is told where the next row's will be. */
static void row_encode(struct log_piece *p, uint64_t i, uint64_t *code_at)
{
    enum { LINE = 64 };
    const struct log_columns *c = &p->columns_of;
    const uint8_t *level = p->level + i * p->columns, *expected = p->expected + p->means[i];
    for (uint64_t j = 0; j < p->columns; j += LINE)
        __builtin_prefetch(level + p->columns + j);
    for (uint32_t k = 0; k < c->runs; k++) {
        uint8_t of = expected[c->run[k].mean];
        grid_codes(level, of, c->order + c->run[k].first, c->run[k].count, p->levels,
                   p->codes + code_at[of]);
        code_at[of] += c->run[k].count;
        __builtin_prefetch(p->codes + code_at[of] + LINE, 1);
        __builtin_prefetch(p->codes + code_at[of] + 2 * LINE, 1);
    }
}

static void codes_item(void *argument, uint64_t group, int thread)
{
    struct log_piece *p = argument;
    uint64_t first = group * p->group_rows, end = first + group_rows(p, group);
    (void)thread;
    for (uint64_t i = first; i < end; i++)
        if (p->means[i] != LOG_DEAD)
            row_encode(p, i, p->code_at[group]);
}

/* The piece's grid, means, levels and codes, to where p->means and p->codes point. -1: a value is
 * bad. */
static int piece_encode(struct log_piece *p, struct pool *pool)
{
    pool_run(pool, values_item, p, p->groups);
    log_knee_find(p);
    if (p->all.bad)
        return -1;
    if (p->knee == 0) {
        memset(p->means, LOG_DEAD, log_means_count(p->rows, p->columns));
        return 0;
    }
    pool_run(pool, grid_item, p, p->groups);
    for (uint64_t i = 0; i < p->groups; i++)
        p->levels = p->levels_of[i] > p->levels ? p->levels_of[i] : p->levels;
    ensure(p->levels <= LOG_LEVELS_MAX);
    means_fit(p, pool);
    log_means_store(p);
    pool_run(pool, counts_item, p, p->groups);
    codes_place(p);
    pool_run(pool, codes_item, p, p->groups);
    return 0;
}

/* Give *array_p the next `bytes` bytes of what begins at `base`, or only count them where that is
 * NULL. */
static void carve(uint8_t *base, uint64_t *used, uint64_t bytes, void *array_p)
{
    void *at = base ? base + *used : NULL;
    memcpy(array_p, &at, sizeof at);
    *used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* A piece of that shape, its arrays in `base`. Returns the bytes they take. */
static uint64_t piece_open(struct log_piece *p, const struct fisher_piece *shape, uint8_t *base)
{
    uint64_t rows = shape->rows, columns = shape->columns, used = 0;
    *p = (struct log_piece){.rows = rows, .columns = columns};
    p->group_rows = GROUP_VALUES / columns ? GROUP_VALUES / columns : 1;
    p->groups = (rows - 1) / p->group_rows + 1;
    carve(base, &used, p->groups * sizeof *p->of_group, &p->of_group);
    carve(base, &used, rows * columns * sizeof *p->grid, &p->grid);
    carve(base, &used, rows * columns, &p->weight);
    carve(base, &used, rows * columns, &p->level);
    carve(base, &used, p->groups, &p->levels_of);
    carve(base, &used, rows * sizeof *p->row, &p->row);
    carve(base, &used, columns * sizeof *p->column, &p->column);
    carve(base, &used, rows, &p->row_some);
    carve(base, &used, columns, &p->column_some);
    carve(base, &used, columns * sizeof *p->columns_of.order, &p->columns_of.order);
    carve(base, &used, p->groups * sizeof *p->code_at, &p->code_at);
    carve(base, &used, p->groups * sizeof *p->of_levels, &p->of_levels);
    return used;
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
        means += log_means_count(pieces[i].rows, pieces[i].columns);
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

static void piece_add(const struct log_piece *p, struct log_parts *parts, struct fisher_sums *sums)
{
    const uint32_t shape[LOG_NUMBERS] = {(uint32_t)p->rows, (uint32_t)p->columns, p->levels,
                                         p->expecteds};
    memcpy((uint32_t *)parts->shapes->data + parts->shapes->count, shape, sizeof shape);
    sums->differences += log_level_values(p, (float *)parts->levels->data + parts->levels->count);
    memcpy((uint8_t *)parts->expected->data + parts->expected->count, p->expected, p->expecteds);
    parts->shapes->count += LOG_NUMBERS;
    parts->levels->count += p->levels;
    parts->expected->count += p->expecteds;
    parts->means->count += log_means_count(p->rows, p->columns);
    parts->codes->count += p->alive_rows * p->columns_of.count;
    sums->values += p->all.sum;
    sums->squares += p->all.squares;
}

int log_encode(struct fisher_code *c, const struct fisher_coding *coding,
               const struct fisher_piece *pieces, uint64_t piece_count, const float *values,
               struct pool *pool, struct err *e)
{
    struct log_parts parts;
    struct fisher_sums sums = {0};
    const float *first = values;
    if (parts_open(c, &parts, pieces, piece_count, e) < 0)
        return -1;
    for (uint64_t i = 0; i < piece_count; i++) {
        struct log_piece p;
        uint8_t *scratch = fisher_scratch(c, piece_open(&p, &pieces[i], NULL), e);
        if (!scratch)
            return -1;
        piece_open(&p, &pieces[i], scratch);
        memset(p.column, 0, p.columns * sizeof *p.column);
        p.step = coding->step;
        p.values = values;
        p.means = (uint8_t *)parts.means->data + parts.means->count;
        p.codes = (uint8_t *)parts.codes->data + parts.codes->count;
        if (piece_encode(&p, pool) < 0)
            return fisher_values_check(first, c->count, "store", e);
        piece_add(&p, &parts, &sums);
        values += p.rows * p.columns;
    }
    fisher_sums_take(c, &sums);
    return 0;
}
