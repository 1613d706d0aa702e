/* activation.c - the activations: a pair of loops a kind over scalar.h's functions.
 *
 * In-place calls pass the same pointer twice, so the loops have no restrict; gcc then checks for
 * overlap once before the loop.
 */
#include "engine/cpu/cpu.h"

#define LOOPS(KIND, NAME)                                                                          \
    CPU_CLONES static void NAME##_forward(const float *x, float *y, uint64_t count)                \
    {                                                                                              \
        for (uint64_t i = 0; i < count; i++)                                                       \
            y[i] = scalar_##NAME(x[i]);                                                            \
    }                                                                                              \
    CPU_CLONES static void NAME##_backward(const float *kept, const float *dy, float *dx,          \
                                           uint64_t count)                                         \
    {                                                                                              \
        for (uint64_t i = 0; i < count; i++)                                                       \
            dx[i] = scalar_##NAME##_backward(kept[i], dy[i]);                                      \
    }
ACTIVATIONS(LOOPS)

void cpu_activation_forward(enum activation kind, const float *x, float *y, uint64_t count)
{
    static void (*const loops[ACTIVATION_COUNT])(const float *, float *, uint64_t) = {
#define FORWARD(KIND, NAME) [ACTIVATION_##KIND] = NAME##_forward,
        ACTIVATIONS(FORWARD)};
    loops[kind](x, y, count);
}

void cpu_activation_backward(enum activation kind, const float *kept, const float *dy, float *dx,
                             uint64_t count)
{
    static void (*const loops[ACTIVATION_COUNT])(const float *, const float *, float *,
                                                 uint64_t) = {
#define BACKWARD(KIND, NAME) [ACTIVATION_##KIND] = NAME##_backward,
        ACTIVATIONS(BACKWARD)};
    loops[kind](kept, dy, dx, count);
}
