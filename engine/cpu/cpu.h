/* cpu.h - the CPU backend's functions, declared from ops.def: cpu_NAME for every operation.
 *
 * Shared by the files of engine/cpu/ only. Reductions are written with a fixed number of partial
 * sums, so that the instruction set chosen at run time does not change the order of additions, and
 * the build has no contraction (-ffp-contract=off): the bits are those of plain C, but for products
 * where the machine has FMA (engine/cpu/patch.h).
 */
#ifndef ENGINE_CPU_CPU_H
#define ENGINE_CPU_CPU_H

#include "engine/clones.h"
#include "engine/ops.h"

#define OP(name, args, names, what) void cpu_##name args;
#include "engine/ops.def"
#undef OP

/* What linear_forward and sparse_forward do with their sums. */
void cpu_finish(enum activation kind, enum half half, uint16_t *kept, struct matrix y);

/* sparse_forward, as slow as it is plain. */
void cpu_mixed_forward(struct sparse a, struct mixed x, const float *bias, float beta,
                       const float *skip, enum activation kind, enum half half, uint16_t *kept,
                       struct matrix y);

/* For tests: products in 8 bits, and the expansion of codes, in plain C even where there are
 * vectors. */
void cpu_plain(int on);
int cpu_has_avx2(void); /* 0 where plain C is asked for */

/* Partial sums of a reduction: enough for two vectors of 8 doubles, and the same on every machine.
 */
enum { PARTS = 16 };

static inline double parts_sum(const double *parts)
{
    double sum = 0;
    for (int k = 0; k < PARTS; k++)
        sum += parts[k];
    return sum;
}

#endif
