/* patch.c - see patch.h: the patches of each instruction set, their edges, and transposed ones. */
#include "engine/cpu/patch.h"

#include <string.h>

#include "engine/cpu/prefetch.h"
#include "engine/cpu/turn.h"

#define LANES                        4
#define FUSED                        0
#define NEAR                         0
#define TURNED                       NULL
#define PATCH(name)                  plain_##name
#define FACTOR(at)                   (*(at))
#define MULTIPLY_ADD(sum, factor, x) (sum) += (factor) * (x)
#include "engine/cpu/patch.def"

#ifdef __x86_64__
#pragma GCC push_options
#pragma GCC target("avx2,fma")
static patch_function fma_turned;
#define LANES       8
#define FUSED       1
#define NEAR        0
#define TURNED      fma_turned
#define PATCH(name) fma_##name
#define FACTOR(at)  _mm256_broadcast_ss(at)
#define MULTIPLY_ADD(sum, factor, x)                                                               \
    (sum) = (fma_vector)_mm256_fmadd_ps(factor, (__m256)(x), (__m256)(sum))
#include "engine/cpu/patch.def"

/* y[TURN, PATCH_ROWS] into r's first PATCH_ROWS, and back. */
__attribute__((always_inline)) static inline void columns_load(const float *y, uint64_t stride,
                                                               __m256 r[TURN])
{
    const __m256i six = _mm256_setr_epi32(-1, -1, -1, -1, -1, -1, 0, 0);
#pragma GCC unroll 8
    for (int j = 0; j < TURN; j++, y += stride)
        r[j] = _mm256_maskload_ps(y, six);
    turn(r);
}

__attribute__((always_inline)) static inline void columns_store(__m256 r[TURN], int adds, float *y,
                                                                uint64_t stride)
{
    const __m256i six = _mm256_setr_epi32(-1, -1, -1, -1, -1, -1, 0, 0);
    turn(r);
#pragma GCC unroll 8
    for (int j = 0; j < TURN; j++, y += stride) {
        if (adds)
            r[j] = _mm256_add_ps(_mm256_maskload_ps(y, six), r[j]);
        _mm_storeu_ps(y, _mm256_castps256_ps128(r[j]));
        _mm_storel_pi((__m64 *)(y + 4), _mm256_extractf128_ps(r[j], 1));
    }
}

/* The same of sums[PATCH_ROWS, columns], a multiple of TURN. */
static void sums_load(const float *y, uint64_t stride, uint64_t columns, float *sums)
{
    for (uint64_t first = 0; first < columns; first += TURN) {
        __m256 r[TURN];
        columns_load(y + first * stride, stride, r);
#pragma GCC unroll 6
        for (uint64_t i = 0; i < PATCH_ROWS; i++)
            _mm256_storeu_ps(sums + i * columns + first, r[i]);
    }
}

static void sums_store(const float *sums, uint64_t columns, int adds, float *y, uint64_t stride)
{
    for (uint64_t first = 0; first < columns; first += TURN) {
        __m256 r[TURN] = {{0}};
#pragma GCC unroll 6
        for (uint64_t i = 0; i < PATCH_ROWS; i++)
            r[i] = _mm256_loadu_ps(sums + i * columns + first);
        columns_store(r, adds, y + first * stride, stride);
    }
}

__attribute__((always_inline)) static inline void turned_store(fma_vector (*s)[2], int adds,
                                                               float *y, uint64_t stride)
{
#pragma GCC unroll 2
    for (uint64_t v = 0; v < 2; v++) {
        __m256 r[TURN] = {{0}};
#pragma GCC unroll 6
        for (int i = 0; i < PATCH_ROWS; i++)
            r[i] = (__m256)s[i][v];
        columns_store(r, adds, y + v * TURN * stride, stride);
    }
}

static void fma_turned(const float *a, uint64_t next, uint64_t step, struct panel b, uint64_t steps,
                       enum patch_use use, float *y, uint64_t stride)
{
    fma_vector s[PATCH_ROWS][2];
    if (use == PATCH_GO_ON) {
#pragma GCC unroll 2
        for (uint64_t v = 0; v < 2; v++) {
            __m256 r[TURN];
            columns_load(y + v * TURN * stride, stride, r);
#pragma GCC unroll 6
            for (int i = 0; i < PATCH_ROWS; i++)
                s[i][v] = (fma_vector)r[i];
        }
        fma_more(PATCH_ROWS, 2, a, next, step, b, steps, s);
        turned_store(s, 0, y, stride);
        return;
    }
    fma_zero(PATCH_ROWS, s);
    fma_sums(PATCH_ROWS, 2, a, next, step, b, steps, s);
    turned_store(s, use == PATCH_ADD, y, stride);
}

/* The text for AVX-512 on a machine without it: a vector is two halves. */
static inline __m256 half_multiply_add(__m256 factor, const float *x, const float *sum)
{
    return _mm256_fmadd_ps(factor, _mm256_loadu_ps(x), _mm256_loadu_ps(sum));
}
#define LANES       16
#define FUSED       1
#define NEAR        256
#define TURNED      NULL
#define PATCH(name) halves_##name
#define FACTOR(at)  _mm256_broadcast_ss(at)
#define MULTIPLY_ADD(sum, factor, x)                                                               \
    for (int half_ = 0; half_ < 16; half_ += 8)                                                    \
    _mm256_storeu_ps(                                                                              \
        (float *)&(sum) + half_,                                                                   \
        half_multiply_add(factor, (const float *)&(x) + half_, (const float *)&(sum) + half_))
#include "engine/cpu/patch.def"
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f")
#define LANES       16
#define FUSED       1
#define NEAR        256
#define TURNED      NULL
#define PATCH(name) wide_##name
#define FACTOR(at)  _mm512_set1_ps(*(at))
#define MULTIPLY_ADD(sum, factor, x)                                                               \
    (sum) = (wide_vector)_mm512_fmadd_ps(factor, (__m512)(x), (__m512)(sum))
#include "engine/cpu/patch.def"
#pragma GCC pop_options
#endif

static enum patches_kind forced = PATCHES_BEST;

void patches_force(enum patches_kind kind)
{
    forced = kind;
}

const struct patches *patches_choose(void)
{
#ifdef __x86_64__
    int wide = __builtin_cpu_supports("avx512f"); /* which has FMA of its own */
    if (forced == PATCHES_PLAIN || !__builtin_cpu_supports("avx2") ||
        !__builtin_cpu_supports("fma"))
        return &plain_all;
    if (forced == PATCHES_WIDE && !wide)
        return &halves_all;
    return wide && forced != PATCHES_FMA ? &wide_all : &fma_all;
#else
    return &plain_all;
#endif
}

void patch_at_edge(const struct patches *p, struct factor a, struct panel b, uint64_t steps,
                   enum patch_use use, struct matrix y)
{
    float whole[PATCH_ROWS * PATCH_COLUMNS_MAX] = {0};
    uint64_t width = panel_columns(p, y.columns);
    for (uint64_t i = 0; use != PATCH_SET && i < y.rows; i++)
        memcpy(whole + i * width, y.at + i * y.stride, y.columns * sizeof *whole);
    patch_of(p, y.rows, y.columns)(a.at, a.next, a.step, b, steps, use, whole, width);
    for (uint64_t i = 0; i < y.rows; i++)
        memcpy(y.at + i * y.stride, whole + i * width, y.columns * sizeof *whole);
}

/* sums[rows of y, width], a row a column of y. */
static void matrix_turn_in(struct matrix y, uint64_t width, float *sums)
{
    for (uint64_t j = 0; j < y.rows; j++)
        for (uint64_t i = 0; i < y.columns; i++)
            sums[i * width + j] = y.at[j * y.stride + i];
}

static void matrix_turn_out(const float *sums, uint64_t width, struct matrix y)
{
    for (uint64_t j = 0; j < y.rows; j++)
        for (uint64_t i = 0; i < y.columns; i++)
            y.at[j * y.stride + i] = sums[i * width + j];
}

void patch_run_turned(const struct patches *p, struct factor a, struct panel b, uint64_t steps,
                      enum patch_use use, struct matrix y)
{
    float sums[PATCH_ROWS * PATCH_COLUMNS_MAX];
    uint64_t width = panel_columns(p, y.rows);
    patch_function *patch = patch_of(p, y.columns, y.rows);
    int whole = p->fused && y.columns == PATCH_ROWS && y.rows == width;
    for (uint64_t j = 0; j < y.rows; j++) /* on its way while the sums are made */
        prefetch_write(y.at + j * y.stride, PATCH_ROWS);
    if (p->turned && whole && y.rows == p->columns) {
        p->turned(a.at, a.next, a.step, b, steps, use, y.at, y.stride);
        return;
    }
#ifdef __x86_64__
    if (whole) {
        if (use == PATCH_GO_ON)
            sums_load(y.at, y.stride, width, sums);
        patch(a.at, a.next, a.step, b, steps, use == PATCH_ADD ? PATCH_SET : use, sums, width);
        sums_store(sums, width, use == PATCH_ADD, y.at, y.stride);
        return;
    }
#endif
    if (use != PATCH_SET)
        matrix_turn_in(y, width, sums);
    patch(a.at, a.next, a.step, b, steps, use, sums, width);
    matrix_turn_out(sums, width, y);
}
