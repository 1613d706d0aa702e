/* fisher_log_decode.c - reading the form log_rank1 (fisher_log.c): tables and whole numbers, so
 * that any reader has the same bits. Believes nothing: every count is compared with what is there
 * before it is used. */
#include "engine/fisher_log.h"

#include <stdlib.h>

/* What is left of each part. */
struct log_cursor {
    const uint32_t *shape;
    const uint8_t *codes, *means, *expected;
    const float *levels;
    uint64_t shapes_left, codes_left, means_left, expected_left, levels_left, values_left;
};

struct log_shape {
    uint64_t rows, columns, means;
    uint32_t levels, expected;
    uint64_t codes;
};

static int cursor_open(struct log_cursor *r, const struct fisher_code *c, struct err *e)
{
    struct fisher_part shapes = {0}, codes = {0}, means = {0}, levels = {0}, expected = {0};
    if (fisher_part_find(c, "shapes", "u32", &shapes, e) < 0 ||
        fisher_part_find(c, "codes", "u8", &codes, e) < 0 ||
        fisher_part_find(c, "means", "u8", &means, e) < 0 ||
        fisher_part_find(c, "levels", "f32", &levels, e) < 0 ||
        fisher_part_find(c, "expected", "u8", &expected, e) < 0)
        return -1;
    *r = (struct log_cursor){shapes.data,    codes.data,   means.data,  expected.data,
                             levels.data,    shapes.count, codes.count, means.count,
                             expected.count, levels.count, c->count};
    return 0;
}

static int shape_next(struct log_cursor *r, struct log_shape *s, struct err *e)
{
    if (r->shapes_left < LOG_NUMBERS)
        return err_set(e, EXIT_CODE_PERMANENT, "the shapes of a block end %llu values too early",
                       (unsigned long long)r->values_left);
    *s = (struct log_shape){.rows = r->shape[0],
                            .columns = r->shape[1],
                            .levels = r->shape[2],
                            .expected = r->shape[3]};
    s->means = s->rows + (s->rows > 1 ? s->columns : 0);
    if (s->rows == 0 || s->columns == 0 || s->rows > r->values_left / s->columns ||
        s->means > r->means_left || s->levels > r->levels_left || s->levels > LOG_LEVELS_MAX ||
        s->expected > r->expected_left)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "a piece of %llu x %llu values, %u levels and %u expected levels does not "
                       "fit what is left of its "
                       "block",
                       (unsigned long long)s->rows, (unsigned long long)s->columns, s->levels,
                       s->expected);
    r->shape += LOG_NUMBERS;
    r->shapes_left -= LOG_NUMBERS;
    return 0;
}

/* How many rows or columns have codes, and their greatest mean. */
static uint64_t alive_count(const uint8_t *means, uint64_t count, uint32_t *top)
{
    uint64_t alive = 0;
    *top = 0;
    for (uint64_t i = 0; i < count; i++) {
        if (means[i] == LOG_DEAD)
            continue;
        alive++;
        *top = means[i] > *top ? means[i] : *top;
    }
    return alive;
}

static int tables_check(const struct log_cursor *r, struct log_shape *s, struct err *e)
{
    uint32_t row_top, column_top = 0;
    uint64_t rows = alive_count(r->means, s->rows, &row_top), columns = s->columns;
    if (s->rows > 1)
        columns = alive_count(r->means + s->rows, s->columns, &column_top);
    s->codes = rows && columns <= r->codes_left / rows ? rows * columns : 0;
    if (rows > 0 && columns > 0 && row_top + column_top >= s->expected)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the means of a piece reach to %u, expected levels to %u",
                       row_top + column_top, s->expected);
    if (rows > 0 && columns > 0 && s->codes == 0)
        return err_set(e, EXIT_CODE_PERMANENT, "a piece of %llu x %llu codes has %llu left",
                       (unsigned long long)rows, (unsigned long long)columns,
                       (unsigned long long)r->codes_left);
    for (uint32_t i = 0; i < s->expected; i++)
        if (r->expected[i] >= s->levels)
            return err_set(e, EXIT_CODE_PERMANENT, "level %u is expected, there are %u",
                           r->expected[i], s->levels);
    return 0;
}

/* Where the codes of each expected level begin. */
static void codes_place(const struct log_cursor *r, const struct log_shape *s,
                        const struct log_columns *c, const uint8_t *at[LOG_LEVELS_MAX])
{
    uint64_t count[LOG_LEVELS_MAX] = {0};
    const uint8_t *next = r->codes;
    for (uint64_t i = 0; i < s->rows; i++)
        if (r->means[i] != LOG_DEAD)
            log_row_count(c, r->expected + r->means[i], count);
    for (uint32_t level = 0; level < LOG_LEVELS_MAX; level++) {
        at[level] = next;
        next += count[level];
    }
}

/* A row with codes; the greatest code found. */
static uint32_t row_decode(const struct log_shape *s, const struct log_columns *c,
                           const uint8_t *expected, const float *levels,
                           const uint8_t *at[LOG_LEVELS_MAX], float *values)
{
    uint32_t top = 0;
    for (uint32_t k = 0; k < c->runs; k++) {
        uint32_t from = expected[c->run[k].mean];
        const uint32_t *column = c->order + c->run[k].first;
        const uint8_t *code = at[from];
        for (uint32_t i = 0; i < c->run[k].count; i++) {
            uint32_t level = code[i] - 1u + from;
            top = code[i] > top ? code[i] : top;
            level -= level >= s->levels ? s->levels : 0;
            values[column[i]] = code[i] && level < s->levels ? levels[level] : 0;
        }
        at[from] += c->run[k].count;
    }
    return top;
}

static int rows_decode(const struct log_cursor *r, const struct log_shape *s,
                       const struct log_columns *c, float *values, struct err *e)
{
    const uint8_t *at[LOG_LEVELS_MAX];
    uint32_t top = 0;
    codes_place(r, s, c, at);
    memset(values, 0, s->rows * s->columns * sizeof *values);
    for (uint64_t i = 0; i < s->rows; i++, values += s->columns) {
        if (r->means[i] == LOG_DEAD)
            continue;
        uint32_t here = row_decode(s, c, r->expected + r->means[i], r->levels, at, values);
        top = here > top ? here : top;
    }
    return top > s->levels
               ? err_set(e, EXIT_CODE_PERMANENT, "a code is %u, of %u levels", top, s->levels)
               : 0;
}

static int piece_decode(struct log_cursor *r, const struct log_shape *s, float *values,
                        struct err *e)
{
    struct log_columns c = {.order = malloc(s->columns * sizeof *c.order)};
    int result = -1;
    if (!c.order)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read a block of the Fisher information");
    log_columns_sort(&c, s->rows > 1 ? r->means + s->rows : NULL, s->columns);
    result = rows_decode(r, s, &c, values, e);
    free(c.order);
    r->codes += s->codes;
    r->codes_left -= s->codes;
    r->means += s->means;
    r->means_left -= s->means;
    r->levels += s->levels;
    r->levels_left -= s->levels;
    r->expected += s->expected;
    r->expected_left -= s->expected;
    r->values_left -= s->rows * s->columns;
    return result;
}

int log_decode(const struct fisher_code *c, float *values, struct err *e)
{
    struct log_cursor r;
    if (cursor_open(&r, c, e) < 0)
        return -1;
    while (r.values_left > 0) {
        struct log_shape s = {0};
        if (shape_next(&r, &s, e) < 0 || tables_check(&r, &s, e) < 0 ||
            piece_decode(&r, &s, values, e) < 0)
            return -1;
        values += s.rows * s.columns;
    }
    if (r.shapes_left || r.codes_left || r.means_left || r.levels_left || r.expected_left)
        return err_set(e, EXIT_CODE_PERMANENT, "a block has more codes or tables than values");
    return 0;
}

const struct fisher_form_type fisher_form_log_rank1 = {"log_rank1", 1, log_encode, log_decode};
