/* fisher_log_tables.c - see fisher_log.h: what is computed once a piece or once a level. */
#include "engine/fisher_log.h"

#include <math.h>

#include "engine/scalar.h"

/* Of the root mean square of what is not zero. Elements below it are so small that all of them
 * together make less of the penalty's gradient than a step's error does. */
static const double KNEE = 1.0 / 64;

void log_knee_find(struct log_piece *p)
{
    struct grid_sums all = {0};
    for (uint64_t i = 0; i < p->groups; i++) {
        const struct grid_sums *g = &p->of_group[i];
        all.sum += g->sum;
        all.squares += g->squares;
        all.some += g->some;
        all.peak = g->peak > all.peak ? g->peak : all.peak;
        all.bad |= g->bad;
    }
    double knee = all.some ? KNEE * sqrt(all.squares / (double)all.some) : 0;
    double least =
        (double)all.peak * exp(-(LOG_LEVELS_MAX - 4) * p->step); /* else more levels than codes */
    knee = knee > least ? knee : least;
    p->all = all;
    p->knee = !all.some ? 0 : knee > 0x1p-120 ? knee : 0x1p-120; /* its inverse is a float32 */
}

/* Means in 0 .. LOG_MEAN_MAX, from the least on; what does not fit is held at the end, which costs
 * only bytes. Returns the greatest. */
static uint32_t means_pack(const int32_t *mean, const uint8_t *some, uint64_t count, int32_t *least,
                           uint8_t *stored)
{
    uint32_t top = 0;
    *least = INT32_MAX;
    for (uint64_t i = 0; i < count; i++)
        if (some[i] && mean[i] < *least)
            *least = mean[i];
    for (uint64_t i = 0; i < count; i++) {
        stored[i] = LOG_DEAD;
        if (!some[i])
            continue;
        uint32_t above = (uint32_t)(mean[i] - *least);
        stored[i] = (uint8_t)(above > LOG_MEAN_MAX ? LOG_MEAN_MAX : above);
        top = stored[i] > top ? stored[i] : top;
    }
    return top;
}

void log_columns_sort(struct log_columns *c, const uint8_t *mean, uint64_t columns)
{
    uint32_t count[256] = {0}, next[256], first = 0;
    for (uint64_t j = 0; j < columns; j++)
        count[mean ? mean[j] : 0]++;
    c->runs = 0;
    for (uint32_t m = 0; m <= LOG_MEAN_MAX; m++) {
        next[m] = first;
        if (count[m])
            c->run[c->runs++] = (struct log_run){first, count[m], m};
        first += count[m];
    }
    c->count = first;
    for (uint64_t j = 0; j < columns; j++)
        if (!mean || mean[j] != LOG_DEAD)
            c->order[next[mean ? mean[j] : 0]++] = (uint32_t)j;
}

/* The level of a point of the grid, by the formula of grid_row. */
static uint32_t level_at(const struct log_piece *p, int32_t m)
{
    double level = rint(log(exp(p->step * m) / p->knee + 1) / p->step);
    return level < 0 ? 0 : level < p->levels ? (uint32_t)level : p->levels - 1;
}

void log_means_store(struct log_piece *p)
{
    int32_t row_least, column_least = 0;
    uint32_t top = means_pack(p->row, p->row_some, p->rows, &row_least, p->means);
    if (p->rows > 1)
        top += means_pack(p->column, p->column_some, p->columns, &column_least, p->means + p->rows);
    p->expecteds = top + 1;
    for (uint32_t i = 0; i <= top; i++)
        p->expected[i] = (uint8_t)level_at(p, row_least + column_least + (int32_t)i);
    for (uint64_t i = 0; i < p->rows; i++)
        p->alive_rows += p->means[i] != LOG_DEAD;
    log_columns_sort(&p->columns_of, p->rows > 1 ? p->means + p->rows : NULL, p->columns);
}

/* In 16 bits: an eighth of a percent is nothing beside a step, and it packs better. Never so small
 * that a processor may take it for zero. The differences: sum (F - L)^2 = sum F^2 - sum over the
 * levels of L (2 sum F - L count). */
double log_level_values(const struct log_piece *p, float *value)
{
    double differences = p->all.squares;
    for (uint32_t n = 0; n < p->levels; n++) {
        double sum = 0, count = 0;
        for (uint64_t i = 0; i < p->groups; i++)
            for (int k = 0; k < GRID_PARTS; k++) {
                sum += p->of_levels[i].at[n][k][0];
                count += p->of_levels[i].at[n][k][1];
            }
        float mean = count > 0 ? (float)(sum / count) : n ? value[n - 1] : 0;
        mean = mean < 0x1p-126f ? 0x1p-126f : mean > 0x1.fep127f ? 0x1.fep127f : mean;
        value[n] = scalar_brain(scalar_to_brain(mean));
        differences -= (double)value[n] * (2 * sum - (double)value[n] * count);
    }
    return differences > 0 ? differences : 0;
}
