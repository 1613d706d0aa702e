/* importance.h - the Fisher information of a protected task as training holds it: 0.55 bytes a
 * parameter, expanded where the penalty needs it.
 *
 *   matrix [R, C]   F[r, c] = share of row r x share of column c x level of the code: a byte a row
 *                   and a column, 4 bits a value; levels are those of the rows whose shares are of
 *                   one octave
 *   outliers        the values of the matrices that this would hold worst, with 12 bits of
 *                   mantissa: 4 bytes each, as many as fit in IMPORTANCE_BYTES a parameter
 *   else            bfloat16: vectors, matrices that would take no less, and the smallest ones as
 *                   long as that leaves room for outliers
 *
 * How many there are of each follows from the shapes, so the plan is exact. Row and column are
 * fitted to ln F; 15 levels an octave to what is left of F (Lloyd-Max, least error relative to F);
 * outliers are the largest errors relative to F of all matrices. Each of these is weighted by F: a
 * displacement without a penalty is as large everywhere, which is a weight of F^2, but one that it
 * has shaped is the larger the smaller F is, and what is held badly there moves. A value that is
 * not zero does not become zero.
 *
 * It is made from the values in order, several times over, so that nobody has to hold them all:
 *
 *   importance_open(&f, m, 0, e);
 *   while (importance_next(&f)) for all blocks: importance_take(&f, values, count, e);
 *
 * Where it is to be exact, every tensor is float32.
 */
#ifndef ENGINE_IMPORTANCE_H
#define ENGINE_IMPORTANCE_H

#include <stdint.h>

#include "engine/memory.h"
#include "engine/model.h"
#include "engine/ops.h"
#include "proto/err.h"

#define IMPORTANCE_BYTES 0.55 /* a parameter */

struct importance_tensor {
    uint64_t first, count; /* range of the flat vector */
    uint64_t rows, columns;
    float *exact;                  /* float32; NULL: one of the others */
    uint16_t *values;              /* bfloat16 */
    uint8_t *codes, *row, *column; /* as struct coded_matrix has them */
    float *level;                  /* [tables, CODED_LEVELS] */
    uint32_t *outlier, *outlier_first;
    unsigned tables;
};

struct importance_build; /* importance_build.c: what is known on the way */

struct importance {
    struct region region; /* of all tensors */
    uint32_t count;
    struct importance_tensor *tensors; /* in the order of the flat vector */
    uint32_t *outliers;                /* [outliers_max]: room for those of all tensors */
    uint64_t outliers_max;
    struct importance_build *build; /* NULL when done */
    double mean;                    /* of the values that it was made from */
    double error; /* norm of what the values differ by, as a share of theirs: the relative error of
                     the penalty's gradient where the displacement is equally large everywhere */
};

/* Bytes that it takes for this model. */
uint64_t importance_bytes(const struct model *m, int exact);

/* What it takes besides while it is made. */
uint64_t importance_build_bytes(const struct model *m);

/* 0, or -1 and *e (temporary); importance_close is due either way. */
int importance_open(struct importance *f, const struct model *m, int exact, struct err *e);
void importance_close(struct importance *f); /* harmless twice, and on zeroed storage */

/* Begin the next pass over the values, all of which came in the one before: 1; 0: it is made. */
int importance_next(struct importance *f);
/* The next `count` values of the flat vector. -1 (permanent) when one is negative or not finite,
 * there are more of them than parameters, or the last ones of a pass show that they are not those
 * of the pass before; *e says which. */
int importance_take(struct importance *f, const float *values, uint64_t count, struct err *e);
/* How many have come in this pass. */
uint64_t importance_taken(const struct importance *f);

/* How a tensor's values are kept: one of the three, the others NULL. */
struct importance_view {
    const float *exact;
    const uint16_t *values;
    struct coded_matrix coded;
};
struct importance_view importance_view(const struct importance *f, uint32_t tensor);

/* Values from .. from + count - 1 of tensor `tensor` into out[count]. The bits do not depend on how
 * a tensor is cut into ranges. */
void importance_expand(const struct importance *f, const struct backend *backend, uint32_t tensor,
                       uint64_t from, uint64_t count, float *out);

#endif
