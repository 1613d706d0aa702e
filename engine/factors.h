/* factors.h - the Fisher information of a matrix by its row and column sums alone: those are exact,
 * the matrix is their product over their sum (Adafactor's form, FORMULAS "Exact per-sample Fisher"
 * 4).
 *
 *   R_i  = sum over samples and j of (d_n^T x_n)_ij^2 = sum over steps t of d_ti (x x^T d)_ti
 *   C_j  = the same over i                             = sum over steps t of x_tj (d d^T x)_tj
 *   F_ij = R_i C_j / sum of R
 *
 * so that no matrix [D, X] is formed. All tensors one after the other make a vector: of a matrix R,
 * then C; of a vector its own numbers, which are exact.
 */
#ifndef ENGINE_FACTORS_H
#define ENGINE_FACTORS_H

#include "engine/model.h"
#include "engine/squares.h"

/* Numbers of that vector, and where the tensor's begin. */
uint64_t factors_count(const struct model *m);
uint64_t factors_first(const struct model *m, uint32_t tensor);

/* The parameters first .. first + count - 1 of the flat vector, from factors that are multiplied
 * with `factor` on the way: values[count]. */
void factors_expand(const struct model *m, const float *factors, double factor, uint64_t first,
                    uint64_t count, float *values);

/* Do w's tiles of `tile` floats take samples of so many steps? */
int factors_fit(struct samples d, uint64_t tile);

/* rows[D] += R, columns[X] += C of these samples; `tile` floats are in each of w's tiles. */
void factors_of_products(const struct backend *b, struct samples d, struct samples x,
                         const struct tile_work *w, uint64_t tile, float *rows, float *columns);

/* The same of squares[D, X] that are there. */
void factors_of_squares(struct matrix squares, float *rows, float *columns);

#endif
