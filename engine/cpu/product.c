/* product.c - matrix products of float32, in the calling thread.
 *
 * c = op(a) op(b) is cut into blocks: up to PATCH_STEPS steps of so many columns of one factor are
 * panels, which stay in the second-level cache while all rows of the other go by, a patch
 * (engine/cpu/patch.h) after the other. An element's sums over the blocks of steps are added in
 * their order: its bits depend on its row, its column and beta c alone, not on what else is in the
 * call, how matrices lie in memory or how they are cut. Where a is transposed, as for a gradient of
 * weights, the steps are rows, and an element is summed step by step from beta c on: a second
 * product may go on with more rows where a first one ended, to the bits of one over all.
 *
 * What is packed is a question of time only. A product's transpose has the same sums: a few rows
 * against many weights pack the rows and leave the weights where they are. And what lies near
 * enough is read in place: of panels those that columns_in_place names, of rows those that
 * strips_pay leaves.
 *
 * What is packed lies on the stack, PACKED_BYTES of it: nothing is allocated.
 */
#include "engine/cpu/cpu.h"

#include <math.h>

#include "engine/cpu/line.h"
#include "engine/cpu/prefetch.h"
#include "engine/threads.h"
#include "proto/err.h"

enum {
    PANELS = PATCH_STEPS * 256, /* numbers of packed panels: half of a second-level cache */
    STRIP_ROWS = 96,            /* of a, packed: whole patches */
    STEP_NEAR = 256, /* steps of a that lie up to so many numbers apart are read where they lie */
    ROWS_IN_PLACE = 1024, /* of a, at most, for b to be read where it lies */
    STEPS_FEW = 64,       /* up to here panels fit the first-level cache together: rows go first */
    PACKED_BYTES = (PANELS + PATCH_STEPS * STRIP_ROWS) * sizeof(float)
};

_Static_assert(STRIP_ROWS % PATCH_ROWS == 0 && PANELS % PATCH_COLUMNS_MAX == 0, "whole patches");
_Static_assert((int)PACKED_BYTES <= (int)POOL_STACK_PACKED, "what threads.h has for them");

/* y[i, j] = the sum over the steps of a[i, k] b[j, k]; y is the transpose of that if turned. */
struct product {
    const struct patches *patches;
    struct factor a, b;
    uint64_t steps;
    int turned;
    enum patch_use use; /* of what y holds already */
    struct matrix y;
    float *panels, *strips;
};

/* Rows and columns of y that take part in some of the steps. */
struct block {
    uint64_t row, rows, column, columns, step, steps;
    struct factor a; /* its rows, from its first step on, or NULL: they are packed */
    struct factor b; /* its columns, as many of them as are read where they lie */
};

static struct factor factor_part(struct factor f, uint64_t first, uint64_t count, uint64_t step)
{
    return (struct factor){f.at + first * f.next + step * f.step, count, f.next, f.step};
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The panel of b that begins with that column of the block. */
static struct panel block_panel(const struct product *p, const struct block *b, uint64_t column)
{
    if (column < b->b.count)
        return (struct panel){b->b.at + column, b->b.step};
    return (struct panel){p->panels + column * b->steps,
                          panel_columns(p->patches, b->columns - column)};
}

/* The patch whose first row and column are row, column of the block. */
static void block_patch(const struct product *p, const struct block *b, uint64_t row,
                        uint64_t column, enum patch_use use)
{
    uint64_t rows = least(b->rows - row, PATCH_ROWS);
    uint64_t columns = least(b->columns - column, p->patches->columns);
    uint64_t i = b->row + row, j = b->column + column, stride = p->y.stride;
    struct factor a = {p->strips + row * b->steps, rows, 1, PATCH_ROWS};
    struct panel panel = block_panel(p, b, column);
    if (b->a.at)
        a = factor_part(b->a, row, rows, 0);
    if (p->turned)
        patch_run_turned(p->patches, a, panel, b->steps, use,
                         (struct matrix){p->y.at + j * stride + i, columns, rows, stride});
    else
        patch_run(p->patches, a, panel, b->steps, use,
                  (struct matrix){p->y.at + i * stride + j, rows, columns, stride});
}

/* A part of the panel behind that of column j, or of the next steps' first one: all of it is asked
 * for while the first strip's patches go by. */
static void panel_ask(const struct product *p, const struct block *b, uint64_t i, uint64_t j)
{
    uint64_t width = p->patches->columns, patches = (b->rows + PATCH_ROWS - 1) / PATCH_ROWS;
    uint64_t panel = j + width, steps = b->steps; /* where it begins, counted from b->b.at */
    if (panel >= b->b.count) {
        panel = b->steps * b->b.step;
        steps = least(p->steps - b->step - b->steps, PATCH_STEPS);
    }
    uint64_t share = (steps + patches - 1) / patches, first = i / PATCH_ROWS * share;
    for (uint64_t k = first; k < least(first + share, steps); k++)
        prefetch_read(b->b.at + panel + k * b->b.step, width);
}

/* As many rows of the next strip as a patch has, from row i on. */
static void rows_ask(const struct product *p, const struct block *b, uint64_t i)
{
    uint64_t end = p->a.count - b->row; /* counted from the block's first */
    for (uint64_t r = b->rows + i; r < least(b->rows + i + PATCH_ROWS, end); r++)
        prefetch_read(b->a.at + r * b->a.next, b->steps);
}

/* What later patches are the first to read, and where it lies (engine/cpu/prefetch.h): panels while
 * the first strip goes by, and rows, if each is read once. */
static void block_ask(const struct product *p, const struct block *b, uint64_t i, uint64_t j)
{
    if (b->row == 0 && j < b->b.count)
        panel_ask(p, b, i, j);
    if (b->a.at && b->a.step == 1 && b->columns <= p->patches->columns)
        rows_ask(p, b, i);
}

/* A packed panel stays in the first-level cache while rows go by (one in place need not: lines 1 KB
 * apart crowd few of its sets); of few steps, where writing y takes most of the time, it is written
 * along its rows. */
static void block_run(const struct product *p, const struct block *b, enum patch_use use)
{
    uint64_t width = p->patches->columns;
    if (b->steps > STEPS_FEW)
        for (uint64_t j = 0; j < b->columns; j += width)
            for (uint64_t i = 0; i < b->rows; i += PATCH_ROWS) {
                block_ask(p, b, i, j);
                block_patch(p, b, i, j, use);
            }
    else
        for (uint64_t i = 0; i < b->rows; i += PATCH_ROWS)
            for (uint64_t j = 0; j < b->columns; j += width)
                block_patch(p, b, i, j, use);
}

/* Rows of a whose steps lie far apart are packed if they are read several times. */
static int strips_pay(const struct product *p)
{
    return p->a.step > STEP_NEAR && p->a.count > PATCH_ROWS && p->b.count > 4 * p->patches->columns;
}

static void block_rows(const struct product *p, struct block *b, enum patch_use use)
{
    b->a = factor_part(p->a, b->row, b->rows, b->step);
    if (strips_pay(p)) {
        for (uint64_t i = 0; i < b->rows; i += PATCH_ROWS)
            strip_pack(factor_part(b->a, i, least(b->rows - i, PATCH_ROWS), 0), b->steps,
                       p->strips + i * b->steps);
        b->a.at = NULL;
    }
    block_run(p, b, use);
}

/* Columns of b, whole panels, that are read where they lie: where their steps are near each other
 * and not so many rows go by that packing is nothing beside them. */
static uint64_t columns_in_place(const struct product *p, uint64_t columns)
{
    int pays = p->b.next == 1 && p->b.step <= p->patches->near && p->a.count <= ROWS_IN_PLACE;
    return pays ? columns / p->patches->columns * p->patches->columns : 0;
}

/* Nothing has asked for the first panel in place of the first steps. */
static void block_columns_pack(const struct product *p, struct block *b)
{
    b->b = factor_part(p->b, b->column, columns_in_place(p, b->columns), b->step);
    for (uint64_t k = 0; b->b.count && b->step == 0 && k < b->steps; k++)
        prefetch_read(b->b.at + k * b->b.step, p->patches->columns);
    panels_pack(p->patches,
                factor_part(p->b, b->column + b->b.count, b->columns - b->b.count, b->step),
                b->steps, p->panels + b->b.count * b->steps);
}

/* Columns of a block: as many as there is room for. */
static uint64_t block_columns(const struct product *p)
{
    uint64_t steps = least(p->steps, PATCH_STEPS);
    return PANELS / steps / PATCH_COLUMNS_MAX * PATCH_COLUMNS_MAX;
}

static void product_run(const struct product *p, int add)
{
    struct block b = {0};
    uint64_t most = block_columns(p);
    for (b.column = 0; b.column < p->b.count; b.column += most) {
        b.columns = least(p->b.count - b.column, most);
        for (b.step = 0; b.step < p->steps; b.step += PATCH_STEPS) {
            b.steps = least(p->steps - b.step, PATCH_STEPS);
            block_columns_pack(p, &b);
            for (b.row = 0; b.row < p->a.count; b.row += STRIP_ROWS) {
                b.rows = least(p->a.count - b.row, STRIP_ROWS);
                block_rows(p, &b, add || b.step ? p->use : PATCH_SET);
            }
        }
    }
}

/* Cycles that it takes, as measured: patches, packing b, turning patches. */
static double product_cost(const struct product *p)
{
    uint64_t width = p->patches->columns, rest = p->b.count % width;
    double rows = (double)(p->a.count / PATCH_ROWS), left = (double)(p->a.count % PATCH_ROWS);
    double whole = rows * 6.2 + (left ? fmax(left, 4) : 0), narrow = rows * 4.3 + (left ? 4 : 0);
    double panels = (double)(p->b.count / width) + (rest > width / 2);
    double patches = panels * whole + (rest && rest <= width / 2 ? narrow : 0);
    double packed = (double)(p->b.count - columns_in_place(p, p->b.count));
    double packing = packed * (p->b.next == 1 ? 0.2 : 0.5);
    double turning = p->turned ? (double)(p->b.count * p->a.count) * 0.6 *
                                     (double)(1 + (p->steps - 1) / PATCH_STEPS)
                               : 0;
    return (double)p->steps * (patches + packing) + turning;
}

static void rows_scale(struct matrix y, float factor)
{
    for (uint64_t r = 0; r < y.rows; r++)
        cpu_scale(factor, y.at + r * y.stride, y.columns);
}

void cpu_product(struct matrix a, int a_t, struct matrix b, int b_t, float beta, struct matrix c)
{
    _Alignas(64) float panels[PANELS], strips[PATCH_STEPS * STRIP_ROWS];
    struct product p = {.patches = patches_choose(),
                        .a = a_t ? factor_of_columns(a) : factor_of_rows(a),
                        .b = b_t ? factor_of_rows(b) : factor_of_columns(b),
                        .steps = a_t ? a.rows : a.columns,
                        .use = a_t ? PATCH_GO_ON : PATCH_ADD,
                        .y = c,
                        .panels = panels,
                        .strips = strips};
    struct product turned = p;
    turned.a = p.b, turned.b = p.a, turned.turned = 1;
    ensure(p.a.count > 0 && p.b.count > 0 && p.steps > 0);
    if (beta != 0 && beta != 1)
        rows_scale(c, beta);
    if (c.rows == 1 && line_run(p.patches, p.a, p.b, p.steps, beta != 0, p.use, c.at, 1))
        return;
    if (c.columns == 1 && line_run(p.patches, p.b, p.a, p.steps, beta != 0, p.use, c.at, c.stride))
        return;
    product_run(product_cost(&turned) < product_cost(&p) ? &turned : &p, beta != 0);
}

void cpu_finish(enum activation kind, enum half half, uint16_t *kept, struct matrix y)
{
    if (half)
        cpu_round_half(half, y);
    for (uint64_t r = 0; kind != ACTIVATION_COUNT && r < y.rows; r++)
        cpu_activation_forward(kind, y.at + r * y.stride, y.at + r * y.stride, y.columns);
    if (half && kind != ACTIVATION_COUNT)
        cpu_round_half(half, y);
    if (kept)
        cpu_store_half(half, y.at, kept, y.rows * y.columns);
}

void cpu_linear_forward(struct matrix x, struct matrix w, const float *bias, enum activation kind,
                        enum half half, uint16_t *kept, struct matrix y)
{
    cpu_product(x, 0, w, 1, 0, y);
    cpu_bias_add(y, bias);
    cpu_finish(kind, half, kept, y);
}

void cpu_linear_backward(struct matrix dy, struct matrix x, const uint16_t *x_half, struct matrix w,
                         int adds, struct matrix dw, float *db, enum activation kind,
                         enum half half, int rounds, struct matrix dx)
{
    if (x_half)
        cpu_load_half(half, x_half, x.at, x.rows * x.columns);
    if (dw.at) {
        cpu_product(dy, 1, x, 0, (float)adds, dw);
        cpu_column_sums(dy, adds, db);
    }
    if (!dx.at)
        return;
    cpu_product(dy, 0, w, 0, 0, dx);
    if (rounds)
        cpu_round_half(half, dx);
    if (kind != ACTIVATION_COUNT)
        cpu_activation_backward(kind, x.at, dx.at, dx.at, dx.rows * dx.columns);
    if (rounds)
        cpu_round_half(half, dx);
}
