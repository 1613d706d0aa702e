/* line.c - see line.h. Sums of many numbers of y are in registers at a time, so that there is work
 * while one of them is added. */
#include "engine/cpu/line.h"

#include "engine/cpu/turn.h"

#ifdef __x86_64__
#pragma GCC push_options
#pragma GCC target("avx2,fma")

enum {
    GROUPS_ACROSS = 8,
    GROUPS_ALONG = 4,
    SUMS = GROUPS_ACROSS * TURN
}; /* of TURN numbers of y */

/* sums[groups TURN], from what they are on, over some steps, each of which is a row of memory. */
static inline __attribute__((always_inline)) void
rows_across(const uint64_t groups, struct factor a, struct factor b, uint64_t steps, float *sums)
{
    __m256 s[GROUPS_ACROSS];
#pragma GCC unroll 8
    for (uint64_t g = 0; g < groups; g++)
        s[g] = _mm256_loadu_ps(sums + g * TURN);
    for (uint64_t k = 0; k < steps; k++) {
        __m256 factor = _mm256_broadcast_ss(a.at + k * a.step);
#pragma GCC unroll 8
        for (uint64_t g = 0; g < groups; g++)
            s[g] = _mm256_fmadd_ps(factor, _mm256_loadu_ps(b.at + k * b.step + g * TURN), s[g]);
    }
#pragma GCC unroll 8
    for (uint64_t g = 0; g < groups; g++)
        _mm256_storeu_ps(sums + g * TURN, s[g]);
}

/* TURN rows of b, steps k .. k + TURN - 1; rows that are not there are the last. */
static inline __attribute__((always_inline)) __m256
group_along(struct factor a, struct factor b, uint64_t first, uint64_t k, __m256 sum)
{
    __m256 r[TURN];
    turned_load(r, b.at + first * b.next + k, b.next, b.count - first);
#pragma GCC unroll 8
    for (uint64_t q = 0; q < TURN; q++)
        sum = _mm256_fmadd_ps(_mm256_broadcast_ss(a.at + (k + q) * a.step), r[q], sum);
    return sum;
}

/* The same, rows of memory being numbers of y. */
static inline __attribute__((always_inline)) void
rows_along(const uint64_t groups, struct factor a, struct factor b, uint64_t steps, float *sums)
{
    __m256 s[GROUPS_ALONG];
    uint64_t k = 0;
#pragma GCC unroll 4
    for (uint64_t g = 0; g < groups; g++)
        s[g] = _mm256_loadu_ps(sums + g * TURN);
    for (; k + 2 * TURN <= steps; k += 2 * TURN) /* of each row a cache line */
#pragma GCC unroll 4
        for (uint64_t g = 0; g < groups; g++) {
            s[g] = group_along(a, b, g * TURN, k, s[g]);
            s[g] = group_along(a, b, g * TURN, k + TURN, s[g]);
        }
#pragma GCC unroll 4
    for (uint64_t g = 0; g < groups; g++)
        _mm256_storeu_ps(sums + g * TURN, s[g]);
    for (; k < steps; k++)
        for (uint64_t j = 0; j < b.count; j++)
            sums[j] = __builtin_fmaf(a.at[k * a.step], b.at[j * b.next + k], sums[j]);
}

/* Of the most numbers of y that there are at a time; returns how many. */
static uint64_t sums_run(struct factor a, struct factor b, uint64_t steps, float *sums)
{
    enum { MOST = GROUPS_ACROSS * TURN, FEW = GROUPS_ALONG * TURN };
    if (b.next == 1 && b.count >= MOST) {
        rows_across(GROUPS_ACROSS, a, b, steps, sums);
        return MOST;
    }
    if (b.next == 1 && b.count >= TURN) {
        rows_across(1, a, b, steps, sums);
        return TURN;
    }
    if (b.next != 1 && b.count >= FEW) {
        b.count = FEW;
        rows_along(GROUPS_ALONG, a, b, steps, sums);
        return FEW;
    }
    b.count = b.count < TURN ? b.count : TURN;
    if (b.next != 1) {
        rows_along(1, a, b, steps, sums);
        return b.count;
    }
    for (uint64_t k = 0; k < steps; k++)
        for (uint64_t j = 0; j < b.count; j++)
            sums[j] = __builtin_fmaf(a.at[k * a.step], b.at[k * b.step + j], sums[j]);
    return b.count;
}
#pragma GCC pop_options
#endif

int line_run(const struct patches *p, struct factor a, struct factor b, uint64_t steps, int add,
             enum patch_use use, float *y, uint64_t y_next)
{
#ifdef __x86_64__
    if (!p->fused || (b.next != 1 && b.step != 1))
        return 0;
    for (uint64_t j = 0, done = 0; j < b.count; j += done)
        for (uint64_t k = 0; k < steps; k += PATCH_STEPS) {
            uint64_t some = steps - k < PATCH_STEPS ? steps - k : PATCH_STEPS;
            struct factor part = {a.at + k * a.step, 1, a.next, a.step};
            struct factor rest = {b.at + j * b.next + k * b.step, b.count - j, b.next, b.step};
            float sums[SUMS] = {0}, *to = y + j * y_next;
            enum patch_use of_y = add || k ? use : PATCH_SET;
            for (uint64_t i = 0; of_y == PATCH_GO_ON && i < rest.count && i < SUMS; i++)
                sums[i] = to[i * y_next];
            done = sums_run(part, rest, some, sums);
            for (uint64_t i = 0; i < done; i++, to += y_next)
                *to = of_y == PATCH_ADD ? *to + sums[i] : sums[i];
        }
    return 1;
#else
    (void)p, (void)a, (void)b, (void)steps, (void)add, (void)use, (void)y, (void)y_next;
    return 0;
#endif
}
