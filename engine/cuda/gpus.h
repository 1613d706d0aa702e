/* gpus.h - which of a machine's GPUs is meant, and can this build compute on it? Without CUDA's
 * libraries: the emulated device says the same sentences. */
#ifndef ENGINE_CUDA_GPUS_H
#define ENGINE_CUDA_GPUS_H

#include <stdint.h>

extern "C" {
#include "engine/device.h"
}

struct gpu {
    char name[DEVICE_NAME_MAX];
    int capability; /* 10 major + minor */
};

/* What a machine has. */
struct gpus {
    int driver, runtime; /* versions as CUDA counts them: 13000; driver 0: there is none */
    int too_old;         /* is that driver, for this runtime */
    int count;
    int least; /* the least capability that this build has code for */
    int (*look)(int index, struct gpu *g, struct err *e); /* -1 and *e: it does not answer */
};

/* Index of the GPU that `which` names ("": the first; its number; a part of its name, in letters of
 * any case); -1 (permanent, but where it does not answer) and one sentence where none can be had.
 */
int gpus_choose(const struct gpus *all, const char *which, struct err *e);

/* What a device took when it was opened, of which `ours` bytes are known to be ours: the free
 * memory before and behind, of which the driver tells what all processes have together. Of one that
 * takes or gives back memory at that moment no more is believed than libraries may need (measured:
 * 136 MiB), and no less than what is ours for certain. */
uint64_t gpus_context_bytes(uint64_t before, uint64_t after, uint64_t ours);

#endif
