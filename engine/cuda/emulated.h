/* emulated.h - how a test wants the emulated device, from the environment variable
 * FINETUNED_EMULATED: key=value words with `;` between them, read each time that it is opened. A
 * key or value that is not known ends the process: a test that wants what is not there must fail.
 *
 *   gpus=LIST      those of the machine, with `,` between them, each its compute capability and
 * name: gpus=90 NVIDIA H100 80GB HBM3,75 Tesla T4. One of 8.0, named emulated driver=N       the
 * driver's version as CUDA counts them, 0: there is none. 13000 allocation=N   the N-th allocation
 * on the device, from 1, finds no room work=N         the N-th launch or copy, from 1, fails, and
 * nothing that is asked for behind it is done: a GPU that fell off its bus, or whose kernel wrote
 * where it may not
 */
#ifndef ENGINE_CUDA_EMULATED_H
#define ENGINE_CUDA_EMULATED_H

#include "engine/cuda/gpus.h"

enum { EMULATED_GPUS_MAX = 8 };

struct emulated {
    struct gpu gpus[EMULATED_GPUS_MAX];
    int count, driver;
    uint64_t allocation, work; /* 0: none */
};

void emulated_read(void);
const struct emulated *emulated(void); /* as read last */

#endif
