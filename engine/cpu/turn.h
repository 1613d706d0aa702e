/* turn.h - 8 x 8 numbers transposed in the registers of AVX2, for the files that pack and store. */
#ifndef ENGINE_CPU_TURN_H
#define ENGINE_CPU_TURN_H

#ifdef __x86_64__
#include <immintrin.h>
#include <stdint.h>

#define TURN 8
/* 8 rows of 8 numbers become their columns. */
__attribute__((target("avx2"), always_inline)) static inline void turn(__m256 r[TURN])
{
    __m256 pairs[TURN], fours[TURN];
#pragma GCC unroll 4
    for (int i = 0; i < TURN; i += 2) {
        pairs[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < TURN; i += 4) {
        fours[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
        fours[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
        fours[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
        fours[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < TURN / 2; i++) {
        r[i] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31);
    }
}

/* r[q] = number q of each of the `count` rows at `at`, `next` apart; TURN of them, rows that are
 * not there being the last. */
__attribute__((target("avx2"), always_inline)) static inline void
turned_load(__m256 r[TURN], const float *at, uint64_t next, uint64_t count)
{
#pragma GCC unroll 8
    for (uint64_t j = 0; j < TURN; j++)
        r[j] = _mm256_loadu_ps(at + (j < count ? j : count - 1) * next);
    turn(r);
}
#endif

#endif
