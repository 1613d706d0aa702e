/* patch.h - what matrix products are made of: a patch of the result, PATCH_ROWS rows by two
 * vectors, is summed in registers over a block of steps.
 *
 * Of its two factors one, a, is read a number at a time, from wherever it lies; the other, b, from
 * a panel, where the patch's columns of each step lie one behind the other. An element is the sum
 * of a[i, k] b[k, j] over the steps k in their order, begun at 0 or at what y holds, each one fused
 * multiply-add, whatever patch it is in and however wide the vectors are: its bits are those of
 * every machine with AVX2 and FMA. In plain C, for other machines, products are rounded before they
 * are added, and the bits are others.
 *
 * On a machine with AVX2 and FMA but without AVX-512 tests run its patches as two halves of AVX2
 * (PATCHES_WIDE); with it `unit engine_product` checks them themselves, bit for bit.
 */
#ifndef ENGINE_CPU_PATCH_H
#define ENGINE_CPU_PATCH_H

#include "engine/ops.h"

enum {
    PATCH_ROWS =
        6, /* 12 sums of a vector, two vectors of b and a factor: the 16 registers of AVX2 */
    PATCH_COLUMNS_MAX = 32,
    PATCH_STEPS = 256 /* of a block, at most: a packed panel stays in the first-level cache */
};

/* What becomes of the sums s at y: y = s; y = s, begun at what y holds; y += s; y += s^2. */
enum patch_use { PATCH_SET, PATCH_GO_ON, PATCH_ADD, PATCH_ADD_SQUARE };

/* A factor: number k of its row (or column) i lies at[i * next + k * step]. */
struct factor {
    const float *at;
    uint64_t count, next, step;
};

SCALAR struct factor factor_of_rows(struct matrix m)
{
    return (struct factor){m.at, m.rows, m.stride, 1};
}

SCALAR struct factor factor_of_columns(struct matrix m)
{
    return (struct factor){m.at, m.columns, 1, m.stride};
}

/* Whole vectors of b: column j of step k lies at[k * step + j]. */
struct panel {
    const float *at;
    uint64_t step;
};

typedef void patch_function(const float *a, uint64_t next, uint64_t step, struct panel b,
                            uint64_t steps, enum patch_use use, float *y, uint64_t stride);

/* One instruction set's. [rows]: of as many rows; narrow: of one vector, half a panel's columns. */
struct patches {
    uint64_t columns; /* two vectors' */
    patch_function *whole[PATCH_ROWS + 1], *narrow[PATCH_ROWS + 1];
    /* y[PATCH_ROWS, columns] += s^2 of a packed strip and whole panels: patches in one call. */
    void (*squares)(const float *strip, const float *panels, uint64_t steps, uint64_t columns,
                    float *y, uint64_t stride);
    patch_function *turned; /* NULL, or the largest for a transposed y, not of PATCH_ADD_SQUARE */
    int fused;              /* multiply-adds are, and there is AVX2 */
    uint64_t near; /* steps of b up to so many numbers apart may be read in place; 0: never */
};

/* This machine's best. */
const struct patches *patches_choose(void);

/* For tests: PATCHES_WIDE is the code for vectors of 16, in halves where the machine has none;
 * PATCHES_FMA is PATCHES_PLAIN where it has no FMA. */
enum patches_kind { PATCHES_BEST, PATCHES_PLAIN, PATCHES_FMA, PATCHES_WIDE };
void patches_force(enum patches_kind kind);

/* Columns that the panel of `count` columns has: half of p's where they are enough, else all. */
SCALAR uint64_t panel_columns(const struct patches *p, uint64_t count)
{
    return count <= p->columns / 2 ? p->columns / 2 : p->columns;
}

SCALAR patch_function *patch_of(const struct patches *p, uint64_t rows, uint64_t columns)
{
    return columns <= p->columns / 2 ? p->narrow[rows] : p->whole[rows];
}

/* A patch that reaches over the edge of y goes by way of one that does not. */
void patch_at_edge(const struct patches *p, struct factor a, struct panel b, uint64_t steps,
                   enum patch_use use, struct matrix y);

/* y[rows, columns], up to PATCH_ROWS and p->columns, of a, whose count is not read, and a panel of
 * panel_columns(p, columns) columns. */
SCALAR void patch_run(const struct patches *p, struct factor a, struct panel b, uint64_t steps,
                      enum patch_use use, struct matrix y)
{
    if (y.columns == panel_columns(p, y.columns))
        patch_of(p, y.rows, y.columns)(a.at, a.next, a.step, b, steps, use, y.at, y.stride);
    else
        patch_at_edge(p, a, b, steps, use, y);
}

/* The same, y being transposed: y[columns, rows]. */
void patch_run_turned(const struct patches *p, struct factor a, struct panel b, uint64_t steps,
                      enum patch_use use, struct matrix y);

/* The panels of b, p->columns columns each but for the last: that of column j, [steps,
 * panel_columns], begins at panels + j * steps. What pads the last is of no account. */
void panels_pack(const struct patches *p, struct factor b, uint64_t steps, float *panels);

/* a's first a.count rows, up to PATCH_ROWS: number k of row i at[k * PATCH_ROWS + i]. */
void strip_pack(struct factor a, uint64_t steps, float *strip);

/* Strips of all rows of a, that of row i, a multiple of PATCH_ROWS, at strips + i * steps. */
void strips_pack(struct factor a, uint64_t steps, float *strips);

#endif
