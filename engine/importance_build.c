/* importance_build.c - see importance.h: values in order, five times over -> codes; exact, only
 * once.
 *
 *   sums     each column's share of the matrix's sum, to begin with
 *   fit      row r: the mean over its values of ln F - ln share of the column, weighted by F;
 *            then column c: that of ln F - what its row has just got
 *   levels   for each octave of the rows' shares a histogram of q = F / (row share x column share),
 *            from which the levels follow
 *   outliers a histogram of what is off then: which are off by so much that they are kept apart
 *   codes    the code of each value: that of the level nearest to its q; the outliers
 *
 * Values are gathered to whole rows first. Only one tensor is in work at a time, and everything is
 * in the order of the values.
 */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/importance_private.h"
#include "engine/scalar.h"

enum { PASS_NONE, PASS_SUMS, PASS_FIT, PASS_LEVELS, PASS_OUTLIERS, PASS_CODES };

/* A bin is a 32nd of an octave, by the bits of a float32. */
enum { BIN_SHIFT = 18, BINS = 1 << (31 - BIN_SHIFT), LEVELS = CODED_LEVELS - 1, ROUNDS = 50 };

/* So that its product with the smallest shares is still above 0. */
static const double LEVEL_MIN = 0x1p-80;

/* Of the values whose q is in a bin: sums of w, w / q and w / q^2. In the pass for outliers: how
 * many values are off by so much. */
struct bin {
    double weight, over_q, over_q2;
};

/* Of a row or a column, while it is fitted: its weight, and the mean that it has. */
struct centre {
    double weight, mean;
};

struct importance_build {
    int pass;
    uint32_t tensor;               /* in work */
    uint64_t row;                  /* of it */
    uint64_t gathered, taken;      /* values of that row; of all */
    float *values;                 /* that row */
    double *logs;                  /* of its values, or of what the columns have */
    struct centre *rows, *columns; /* of that tensor */
    struct bin *bins;              /* [CODED_TABLES, BINS]; for outliers the first table */
    uint32_t outlier_bin;          /* what is in a higher one is an outlier, */
    uint64_t outliers_in_bin;      /* and so many of this one */
    uint64_t outliers;             /* so far */
    double sum, square, off;       /* of all values: theirs, their squares, the errors' squares */
    double sum_before;             /* in the pass before; -1: there was none */
};

/* Of the longest in either direction. */
static void extents(const struct importance_tensor *tensors, uint32_t count, uint64_t *rows,
                    uint64_t *columns)
{
    *rows = *columns = 1;
    for (uint32_t i = 0; i < count; i++) {
        *rows = tensors[i].rows > *rows ? tensors[i].rows : *rows;
        *columns = tensors[i].columns > *columns ? tensors[i].columns : *columns;
    }
}

uint64_t importance_build_bytes_of(const struct importance_tensor *tensors, uint32_t count)
{
    uint64_t rows, columns;
    extents(tensors, count, &rows, &columns);
    return columns * (sizeof(float) + sizeof(double) + sizeof(struct centre)) +
           rows * sizeof(struct centre) + CODED_TABLES * BINS * sizeof(struct bin);
}

int importance_build_open(struct importance *f, struct err *e)
{
    uint64_t rows, columns;
    extents(f->tensors, f->count, &rows, &columns);
    struct importance_build *b = f->build = calloc(1, sizeof *b);
    if (b) {
        b->values = calloc(columns, sizeof *b->values);
        b->logs = calloc(columns, sizeof *b->logs);
        b->rows = calloc(rows, sizeof *b->rows);
        b->columns = calloc(columns, sizeof *b->columns);
        b->bins = calloc(CODED_TABLES * BINS, sizeof *b->bins);
    }
    if (!b || !b->values || !b->logs || !b->rows || !b->columns || !b->bins)
        return err_set(e, EXIT_CODE_TEMPORARY, "no memory to compress the Fisher information");
    return 0;
}

void importance_build_close(struct importance *f)
{
    struct importance_build *b = f->build;
    if (!b)
        return;
    free(b->values);
    free(b->logs);
    free(b->rows);
    free(b->columns);
    free(b->bins);
    free(b);
    f->build = NULL;
}

uint64_t importance_taken(const struct importance *f)
{
    return f->build->taken;
}

int importance_next(struct importance *f)
{
    struct importance_build *b = f->build;
    ensure(b->pass == PASS_NONE || b->tensor == f->count);
    if (b->pass == PASS_CODES) {
        importance_build_close(f);
        return 0;
    }
    b->sum_before = b->pass == PASS_NONE ? -1 : b->sum;
    b->sum = 0;
    b->pass = f->tensors[0].exact ? PASS_CODES : b->pass + 1;
    b->tensor = 0;
    b->taken = 0;
    return 1;
}

/* ---- sums and fit: rows and columns ---- */

static void sums_row(struct importance_build *b, const struct importance_tensor *t)
{
    for (uint64_t c = 0; c < t->columns; c++)
        b->columns[c].weight += (double)b->values[c];
}

static void sums_end(struct importance_build *b, struct importance_tensor *t)
{
    double most = 0;
    for (uint64_t c = 0; c < t->columns; c++)
        most = b->columns[c].weight > most ? b->columns[c].weight : most;
    for (uint64_t c = 0; c < t->columns; c++) {
        t->column[c] = scalar_to_share(most > 0 ? b->columns[c].weight / most : 1);
        b->columns[c] = (struct centre){0};
    }
}

/* One more value of weight w in the mean. */
static void centre_add(struct centre *c, double w, double value)
{
    c->weight += w;
    c->mean += w / c->weight * (value - c->mean);
}

static void fit_row(struct importance_build *b, const struct importance_tensor *t)
{
    struct centre *row = &b->rows[b->row];
    for (uint64_t c = 0; c < t->columns; c++) {
        if (!(b->values[c] > 0))
            continue;
        b->logs[c] = log((double)b->values[c]);
        centre_add(row, (double)b->values[c], b->logs[c] - log((double)scalar_share(t->column[c])));
    }
    for (uint64_t c = 0; c < t->columns; c++)
        if (b->values[c] > 0)
            centre_add(&b->columns[c], (double)b->values[c], b->logs[c] - row->mean);
}

/* Relative to the largest of them. */
static void shares_store(struct centre *centres, uint64_t count, uint8_t *shares)
{
    double most = -INFINITY;
    for (uint64_t i = 0; i < count; i++)
        if (centres[i].weight > 0 && centres[i].mean > most)
            most = centres[i].mean;
    for (uint64_t i = 0; i < count; i++) {
        shares[i] =
            centres[i].weight > 0 ? scalar_to_share(exp(centres[i].mean - most)) : SHARE_ONE;
        centres[i] = (struct centre){0};
    }
}

/* ---- levels ---- */

/* The bin of x, 0 <= x <= FLT_MAX. */
static uint32_t bin_of(double x)
{
    float narrow = (float)x;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    return bits >> BIN_SHIFT;
}

/* As it is expanded; above 0. */
static float shares_of(const struct importance_tensor *t, uint64_t row, uint64_t column)
{
    return scalar_share(t->row[row]) * scalar_share(t->column[column]);
}

static void bins_row(struct importance_build *b, const struct importance_tensor *t)
{
    struct bin *bins = b->bins + BINS * coded_table(t->row[b->row], t->tables);
    for (uint64_t c = 0; c < t->columns; c++) {
        if (!(b->values[c] > 0))
            continue;
        double wide = (double)(b->values[c] / shares_of(t, b->row, c)),
               weight = (double)b->values[c];
        wide = fmin(fmax(wide, (double)FLT_MIN), (double)FLT_MAX);
        struct bin *bin = &bins[bin_of(wide)];
        bin->weight += weight;
        bin->over_q += weight / wide;
        bin->over_q2 += weight / wide / wide;
    }
}

/* The bins that hold something, moved to the front. */
static uint32_t bins_pack(struct bin *bins)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < BINS; i++)
        if (bins[i].weight > 0)
            bins[used++] = bins[i];
    return used;
}

/* The level with the least error for all of the bin. */
static double bin_centre(const struct bin *bin)
{
    return bin->over_q / bin->over_q2;
}

/* To begin with: each level has as much of the sum of the bins' fourth roots below as above it. */
static void levels_begin(const struct bin *bins, uint32_t used, double level[LEVELS])
{
    double all = 0, below = 0;
    int k = 0;
    for (uint32_t i = 0; i < used; i++)
        all += sqrt(sqrt(bins[i].weight));
    for (uint32_t i = 0; i < used; i++) {
        below += sqrt(sqrt(bins[i].weight));
        while (k < LEVELS && (below >= all * (k + 0.5) / LEVELS || i + 1 == used))
            level[k++] = bin_centre(&bins[i]);
    }
}

/* Each bin to the level that it is nearest to, each level to where the error of its bins is least.
 * A level without bins stays; all stay in order. */
static void levels_round(const struct bin *bins, uint32_t used, double level[LEVELS])
{
    struct bin cells[LEVELS] = {{0}};
    int k = 0;
    for (uint32_t i = 0; i < used; i++) {
        while (k + 1 < LEVELS && bin_centre(&bins[i]) >= (level[k] + level[k + 1]) / 2)
            k++;
        cells[k].over_q += bins[i].over_q;
        cells[k].over_q2 += bins[i].over_q2;
    }
    for (k = 0; k < LEVELS; k++)
        if (cells[k].over_q2 > 0)
            level[k] = bin_centre(&cells[k]);
}

/* One table of levels, of bins that are empty afterwards; all zero where they were before. */
static void levels_store(struct bin *bins, float *kept)
{
    double level[LEVELS] = {0};
    uint32_t used = bins_pack(bins);
    if (!used)
        return;
    levels_begin(bins, used, level);
    for (int i = 0; i < ROUNDS; i++)
        levels_round(bins, used, level);
    for (int k = 0; k < LEVELS; k++)
        kept[k + 1] = (float)fmax(level[k], LEVEL_MIN);
    memset(bins, 0, BINS * sizeof *bins);
}

/* ---- codes ---- */

static void off_add(struct importance_build *b, float value, float kept)
{
    double off = (double)kept - (double)value;
    b->square += (double)value * (double)value;
    b->off += off * off;
}

static void code_store(uint8_t *codes, uint64_t at, unsigned code)
{
    uint64_t group = at / CODED_GROUP, place = at % CODED_GROUP, half = CODED_GROUP / 2;
    codes[group * half + place % half] |= (uint8_t)(place < half ? code : code << 4);
}

/* The levels of one row, and where the next one is as near. */
struct row_levels {
    const float *level; /* [CODED_LEVELS] */
    float middle[LEVELS - 1];
};

static struct row_levels row_levels_of(const struct importance_build *b,
                                       const struct importance_tensor *t)
{
    struct row_levels l = {t->level + CODED_LEVELS * coded_table(t->row[b->row], t->tables), {0}};
    for (int k = 0; k + 1 < LEVELS; k++)
        l.middle[k] = l.level[k + 1] / 2 + l.level[k + 2] / 2;
    return l;
}

static unsigned code_nearest(const struct row_levels *l, float q)
{
    unsigned code = 1;
    for (int k = 0; k + 1 < LEVELS; k++)
        code += q >= l->middle[k];
    return code;
}

/* How far off a value above 0 is; one that is not at all is in bin 0. */
static uint32_t off_bin(float value, float kept)
{
    double off = fabs((double)kept - (double)value) / sqrt((double)value);
    return bin_of(fmin(off, (double)FLT_MAX));
}

static void outliers_row(struct importance_build *b, const struct importance_tensor *t)
{
    struct row_levels l = row_levels_of(b, t);
    for (uint64_t c = 0; c < t->columns; c++) {
        float value = b->values[c], shares = shares_of(t, b->row, c);
        if (value > 0)
            b->bins[off_bin(value, l.level[code_nearest(&l, value / shares)] * shares)].weight++;
    }
}

/* The largest ones, as many as there is room for; none of bin 0. */
static void outliers_end(struct importance_build *b, uint64_t most)
{
    uint32_t bin = BINS - 1;
    while (bin > 0 && b->bins[bin].weight <= (double)most)
        most -= (uint64_t)b->bins[bin--].weight;
    b->outlier_bin = bin;
    b->outliers_in_bin = bin > 0 ? most : 0;
}

/* There is room for all of them, unless these values are not those of the pass before. */
static int outlier_take(struct importance_build *b, uint32_t bin, uint64_t most)
{
    if (b->outliers == most)
        return 0;
    if (bin > b->outlier_bin)
        return 1;
    if (bin < b->outlier_bin || !b->outliers_in_bin)
        return 0;
    b->outliers_in_bin--;
    return 1;
}

/* Values come in order, and with them the outliers of all tensors. */
static void outlier_add(struct importance_build *b, struct importance_tensor *t, uint64_t at,
                        float value)
{
    uint32_t word = (uint32_t)(at % CODED_TILE) << OUTLIER_BITS | scalar_to_outlier(value);
    t->outlier[t->outlier_first[at / CODED_TILE + 1]++] = word;
    b->outliers++;
    off_add(b, value, scalar_outlier(word));
}

static void codes_row(struct importance *f, struct importance_build *b, struct importance_tensor *t)
{
    struct row_levels l = row_levels_of(b, t);
    uint64_t at = b->row * t->columns;
    if (b->row == 0)
        t->outlier = f->outliers + b->outliers;
    for (uint64_t c = 0; c < t->columns; c++, at++) {
        float value = b->values[c], shares = shares_of(t, b->row, c);
        if (at % CODED_TILE == 0)
            t->outlier_first[at / CODED_TILE + 1] = t->outlier_first[at / CODED_TILE];
        if (!(value > 0))
            continue;
        unsigned code = code_nearest(&l, value / shares);
        float kept = l.level[code] * shares;
        if (outlier_take(b, off_bin(value, kept), f->outliers_max)) {
            outlier_add(b, t, at, value);
        } else {
            code_store(t->codes, at, code);
            off_add(b, value, kept);
        }
    }
}

static void exact_row(struct importance_build *b, struct importance_tensor *t)
{
    memcpy(t->exact + b->row * t->columns, b->values, t->columns * sizeof *t->exact);
    for (uint64_t c = 0; c < t->columns; c++)
        off_add(b, b->values[c], b->values[c]);
}

/* A value that is not zero stays one. */
static void values_row(struct importance_build *b, struct importance_tensor *t)
{
    uint16_t *kept = t->values + b->row * t->columns;
    for (uint64_t c = 0; c < t->columns; c++) {
        kept[c] = scalar_to_brain(b->values[c]);
        kept[c] = kept[c] == 0 && b->values[c] > 0 ? 1 : kept[c];
        off_add(b, b->values[c], scalar_brain(kept[c]));
    }
}

/* ---- all passes ---- */

static void row_take(struct importance *f, struct importance_build *b, struct importance_tensor *t)
{
    for (uint64_t c = 0; c < t->columns; c++)
        b->sum += (double)b->values[c];
    if (t->exact)
        exact_row(b, t);
    else if (b->pass == PASS_CODES && t->values)
        values_row(b, t);
    else if (t->values)
        return;
    else if (b->pass == PASS_SUMS)
        sums_row(b, t);
    else if (b->pass == PASS_FIT)
        fit_row(b, t);
    else if (b->pass == PASS_LEVELS)
        bins_row(b, t);
    else if (b->pass == PASS_OUTLIERS)
        outliers_row(b, t);
    else
        codes_row(f, b, t);
}

static void tensor_end(struct importance_build *b, struct importance_tensor *t)
{
    if (t->codes && b->pass == PASS_SUMS)
        sums_end(b, t);
    if (t->codes && b->pass == PASS_LEVELS)
        for (unsigned table = 0; table < t->tables; table++)
            levels_store(b->bins + table * BINS, t->level + table * CODED_LEVELS);
    if (t->codes && b->pass == PASS_FIT) {
        shares_store(b->rows, t->rows, t->row);
        shares_store(b->columns, t->columns, t->column);
    }
}

static int values_check(const struct importance_build *b, const float *values, uint64_t count,
                        struct err *e)
{
    for (uint64_t i = 0; i < count; i++)
        if (!(values[i] >= 0 && values[i] <= FLT_MAX))
            return err_set(e, EXIT_CODE_PERMANENT,
                           "the Fisher information of parameter %" PRIu64
                           " is %g; accepted: a finite number that is not negative",
                           b->taken + i, (double)values[i]);
    return 0;
}

/* All values have come. */
static int pass_end(struct importance *f, struct importance_build *b, struct err *e)
{
    if (b->sum_before >= 0 && b->sum != b->sum_before)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the Fisher information has changed while it was read: its sum is %g, and "
                       "was %g",
                       b->sum, b->sum_before);
    if (b->pass == PASS_OUTLIERS)
        outliers_end(b, f->outliers_max);
    if (b->pass == PASS_CODES) {
        f->mean = b->sum / (double)b->taken;
        f->error = b->square > 0 ? sqrt(b->off / b->square) : 0;
    }
    return 0;
}

/* The row is complete. */
static int row_end(struct importance *f, struct importance_build *b, struct importance_tensor *t,
                   struct err *e)
{
    row_take(f, b, t);
    b->gathered = 0;
    if (++b->row < t->rows)
        return 0;
    tensor_end(b, t);
    b->row = 0;
    b->tensor++;
    return b->tensor < f->count ? 0 : pass_end(f, b, e);
}

int importance_take(struct importance *f, const float *values, uint64_t count, struct err *e)
{
    struct importance_build *b = f->build;
    if (values_check(b, values, count, e) < 0)
        return -1;
    while (count > 0 && b->tensor < f->count) {
        struct importance_tensor *t = &f->tensors[b->tensor];
        uint64_t left = t->columns - b->gathered, piece = count < left ? count : left;
        memcpy(b->values + b->gathered, values, piece * sizeof *values);
        b->gathered += piece;
        b->taken += piece;
        values += piece;
        count -= piece;
        if (b->gathered == t->columns && row_end(f, b, t, e) < 0)
            return -1;
    }
    if (count > 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "there is Fisher information of more than the %" PRIu64
                       " parameters that the model has",
                       b->taken);
    return 0;
}
