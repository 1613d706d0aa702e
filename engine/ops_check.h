/* ops_check.h - the checks of operations' shapes and aliasing: check_NAME has the arguments of
 * ops.def's row NAME. A failed check is our own mistake: ensure() aborts.
 *
 *   ops_check_layers.c  products and what layers are made of
 *   ops_check_losses.c  losses, targets and what they weigh, gathers
 *   ops_check_sums.c    operations over all parameters
 */
#ifndef ENGINE_OPS_CHECK_H
#define ENGINE_OPS_CHECK_H

#include "engine/ops.h"
#include "proto/err.h"

#define OP(name, args, names, what) void check_##name args;
#include "engine/ops.def"
#undef OP

static inline int matrix_valid(struct matrix m)
{
    return m.at != NULL && m.rows > 0 && m.columns > 0 && m.stride >= m.columns;
}

static inline int matrix_same_shape(struct matrix a, struct matrix b)
{
    return a.rows == b.rows && a.columns == b.columns;
}

static inline int ranges_disjoint(const void *a, uint64_t a_bytes, const void *b, uint64_t b_bytes)
{
    uintptr_t x = (uintptr_t)a, y = (uintptr_t)b;
    return x + a_bytes <= y || y + b_bytes <= x;
}

static inline uint64_t matrix_bytes(struct matrix m)
{
    return ((m.rows - 1) * m.stride + m.columns) * sizeof(float);
}

static inline int matrix_disjoint(struct matrix a, struct matrix b)
{
    return ranges_disjoint(a.at, matrix_bytes(a), b.at, matrix_bytes(b));
}

/* Either the very same numbers or none in common. */
static inline int matrix_same_or_disjoint(struct matrix a, struct matrix b)
{
    return (a.at == b.at && a.stride == b.stride) || matrix_disjoint(a, b);
}

static inline int floats_disjoint(const float *a, const float *b, uint64_t count)
{
    return ranges_disjoint(a, count * sizeof *a, b, count * sizeof *b);
}

static inline int half_valid(enum half half)
{
    return half == HALF_F16 || half == HALF_BF16;
}

static inline int mixed_valid(struct mixed m, enum half half)
{
    return !m.at == (m.halves != NULL) && m.rows > 0 && m.columns > 0 && m.stride >= m.columns &&
           (half || !m.halves);
}

static inline int mixed_disjoint(struct mixed a, struct mixed b)
{
    uint64_t a_count = (a.rows - 1) * a.stride + a.columns;
    uint64_t b_count = (b.rows - 1) * b.stride + b.columns;
    return ranges_disjoint(a.halves ? (void *)a.halves : (void *)a.at,
                           a_count * (a.halves ? sizeof *a.halves : sizeof *a.at),
                           b.halves ? (void *)b.halves : (void *)b.at,
                           b_count * (b.halves ? sizeof *b.halves : sizeof *b.at));
}

#endif
