/* cuda_trial.h - one operation on the CPU backend and on the CUDA backend, compared.
 *
 * A trial of an operation is one function, trial_NAME, that asks for operands, which lie in the
 * memory of the backend that is tried, and calls op_NAME once or several times. It runs three times
 * from the same random numbers: on the CPU, on the device and on the device again. Then inputs and
 * what lies around and between the rows of an operand must have kept their bits, results must be
 * near the CPU's, and the device's the same twice.
 */
#ifndef TESTS_UNIT_CUDA_TRIAL_H
#define TESTS_UNIT_CUDA_TRIAL_H

#include "engine/device.h"

enum trial_role {
    TRIAL_INPUT,   /* random numbers, not written */
    TRIAL_OUTPUT,  /* NaNs before */
    TRIAL_CHANGED, /* random numbers before */
    TRIAL_SCRATCH, /* NaNs before, anything afterwards */
};

enum trial_number { TRIAL_U8, TRIAL_U16, TRIAL_U32, TRIAL_U64, TRIAL_F32, TRIAL_F64 };

/* How far results may be from the CPU's: the norm of the difference by the CPU's norm. Whole
 * numbers never. */
enum trial_bar {
    TRIAL_SAME, /* the same bits; on a GPU, whose compiler contracts and whose libraries are others,
                   2e-6 */
    TRIAL_FLOAT,  /* sums in float32: 1e-6; on a GPU 2e-6 */
    TRIAL_ROWS,   /* sums in float32 of one number a row of the shape, which the CPU takes in
                     their order: 6e-8, half a float's last digit, times the root of their number */
    TRIAL_HALF,   /* numbers rounded to 16 bits on the way, which once in a while fall on the other
                     side   of a border: 4e-3 */
    TRIAL_DOUBLE, /* sums in double: 1e-12; on a GPU 1e-11 */
    TRIAL_TERMS,  /* sums in double of float32: 1e-12; on a GPU, which contracts, 1e-9 */
};

/* What a trial is to be shaped like. Odd, one row, one column, more than a grid has threads; on a
 * GPU, which is fast enough, TRIAL_ROWS_LARGE rows. */
enum { TRIAL_ROWS_LARGE = 40000 };
struct trial_shape {
    uint64_t rows, columns;
    uint64_t pad;  /* a matrix's stride is this much more than its columns */
    uint64_t skew; /* operands begin this many numbers behind an aligned address */
};

struct trial;

/* Operands. A matrix has the shape's pad. Inputs are uniform in [-1, 1) where they are floating-
 * point numbers, and any number where they are not. */
struct matrix trial_matrix(struct trial *t, enum trial_role role, enum trial_bar bar, uint64_t rows,
                           uint64_t columns);
/* A matrix of multiples of 1/64 in [-1, 1): sums of some ten thousand of them, or of products of
 * two, are exact in float32, in any order. */
struct matrix trial_coarse(struct trial *t, enum trial_role role, uint64_t rows, uint64_t columns);
void *trial_numbers(struct trial *t, enum trial_role role, enum trial_bar bar,
                    enum trial_number type, uint64_t count);
/* The same of float32. */
float *trial_floats(struct trial *t, enum trial_role role, enum trial_bar bar, uint64_t count);
/* An input or changed operand of these numbers. */
void *trial_given(struct trial *t, enum trial_role role, enum trial_number type, const void *from,
                  uint64_t count);

const struct backend *trial_backend(struct trial *t);
uint64_t trial_random(struct trial *t); /* the same in each of the three */
double trial_uniform(struct trial *t);  /* [-1, 1) */

typedef void trial_function(struct trial *t, struct trial_shape s);

/* trial_NAME for every operation: without it the tests do not link. */
#define OP(name, args, names, what) trial_function trial_##name;
#include "engine/ops.def"
#undef OP

/* Runs it in every shape. */
void trial_run(const struct device *device, const char *name, trial_function *f);

#endif
