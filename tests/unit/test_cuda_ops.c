/* test_cuda_ops.c - every operation of ops.def on the CUDA backend against the CPU's: a case for
 * each, made from the list, whose trial (cuda_trial.h) is in one of the files trials_*.c. */
#include "tests/test.h"
#include "tests/unit/cuda_fixture.h"
#include "tests/unit/cuda_trial.h"

#define OP(name, args, names, what)                                                                \
    TEST_LIMIT(cuda_##name, 60)                                                                    \
    {                                                                                              \
        trial_run(cuda_fixture_device(), #name, trial_##name);                                     \
    }
#include "engine/ops.def"
#undef OP
