/* activation.c - the activations: a pair of loops a kind over scalar.h's functions.
 *
 * In-place calls pass the same pointer twice, so the loops have no restrict; gcc then checks for
 * overlap once before the loop.
 */
#include "engine/cpu/cpu.h"

#include <string.h>

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

/* Numbers that are converted at a time, near the processor between two loops. */
enum { PIECE = 2048 };

static uint64_t piece_of(uint64_t left)
{
    return left < PIECE ? left : PIECE;
}

void cpu_activation_forward_half(enum activation kind, enum half half, const float *x, float *y,
                                 uint16_t *h, uint64_t count)
{
    for (uint64_t at = 0, piece; at < count; at += piece) {
        piece = piece_of(count - at);
        cpu_activation_forward(kind, x + at, y + at, piece);
        if (h)
            cpu_store_half(half, y + at, h + at, piece);
        else
            cpu_round_half(half, matrix_of(y + at, 1, piece));
    }
}

void cpu_activation_backward_half(enum activation kind, enum half half, const uint16_t *kept,
                                  const float *dy, float *dx, uint64_t count)
{
    float wide[PIECE];
    for (uint64_t at = 0, piece; at < count; at += piece) {
        piece = piece_of(count - at);
        cpu_load_half(half, kept + at, wide, piece);
        memmove(dx + at, dy + at, piece * sizeof *dx);
        cpu_round_half(half, matrix_of(dx + at, 1, piece));
        cpu_activation_backward(kind, wide, dx + at, dx + at, piece);
        cpu_round_half(half, matrix_of(dx + at, 1, piece));
    }
}
