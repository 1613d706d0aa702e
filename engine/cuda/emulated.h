/* emulated.h - how a test wants the emulated device, from the environment variable
 * FINETUNED_EMULATED: key=value words with `;` between them, read when they are first asked for. A
 * key or value that is not known ends the process: a test that wants what is not there must fail.
 *
 *   allocation=N   the N-th allocation on the device, from 1, finds no room
 *   work=N         the N-th launch or copy, from 1, fails, and nothing that is asked for behind it is
 *                  done: a GPU that fell off its bus, or whose kernel wrote where it may not
 */
#ifndef ENGINE_CUDA_EMULATED_H
#define ENGINE_CUDA_EMULATED_H

#include <stdint.h>

struct emulated {
    uint64_t allocation, work; /* 0: none */
};

const struct emulated *emulated(void);

#endif
