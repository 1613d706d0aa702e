/* panel.c - the packing of what patches read (engine/cpu/patch.h). */
#include "engine/cpu/patch.h"

#include <string.h>

#include "engine/cpu/prefetch.h"
#include "engine/cpu/turn.h"

/* Of up to so many steps, rows of memory, all panels and strips are filled together, a row after
 * the other; of more they lie too far apart for the first-level cache. */
enum { STEPS_TOGETHER = 64 };

#ifdef __x86_64__
/* A panel whose columns are rows of memory: 8 rows and 8 steps at a time; `behind` columns come
 * after it. Returns how many steps are done. */
__attribute__((target("avx2"))) static uint64_t
panel_turn(struct factor b, uint64_t steps, uint64_t columns, uint64_t behind, float *panel)
{
    uint64_t k = 0;
    for (; k + TURN <= steps; k += TURN) {
        for (uint64_t i = 0; i < behind && k % LINE_FLOATS == 0; i++)
            prefetch_read(b.at + (columns + i) * b.next + k, 1);
        for (uint64_t first = 0; first < columns; first += TURN) {
            __m256 r[TURN];
            uint64_t from = first < b.count ? first : b.count - 1;
            turned_load(r, b.at + from * b.next + k, b.next, b.count - from);
#pragma GCC unroll 8
            for (uint64_t j = 0; j < TURN; j++)
                _mm256_storeu_ps(panel + (k + j) * columns + first, r[j]);
        }
    }
    return k;
}

/* A whole panel whose steps are rows of memory. */
__attribute__((target("avx2"))) static void panel_copy(struct factor b, uint64_t steps,
                                                       uint64_t behind, float *panel)
{
    for (uint64_t k = 0; k < steps; k++, panel += b.count) {
        prefetch_read(b.at + k * b.step + b.count, behind);
        for (uint64_t i = 0; i < b.count; i += TURN)
            _mm256_storeu_ps(panel + i, _mm256_loadu_ps(b.at + k * b.step + i));
    }
}

/* All panels of `width` columns that are whole. Returns how many columns those are. */
__attribute__((target("avx2"))) static uint64_t panels_copy(struct factor b, uint64_t steps,
                                                            uint64_t width, float *panels)
{
    uint64_t columns = b.count / width * width;
    for (uint64_t k = 0; k < steps; k++)
        for (uint64_t j = 0; j < columns; j += width)
            for (uint64_t i = 0; i < width; i += TURN)
                _mm256_storeu_ps(panels + j * steps + k * width + i,
                                 _mm256_loadu_ps(b.at + k * b.step + j + i));
    return columns;
}
#endif

/* Of `behind` columns after it as many are asked for as a panel has. */
static void panel_pack(const struct patches *p, struct factor b, uint64_t steps, uint64_t behind,
                       float *panel)
{
    uint64_t width = panel_columns(p, b.count), k = 0;
    behind = behind < width ? behind : width;
#ifdef __x86_64__
    if (p->fused && b.next == 1 && b.count == width) {
        panel_copy(b, steps, behind, panel);
        return;
    }
    if (p->fused && b.step == 1)
        k = panel_turn(b, steps, width, behind, panel);
#endif
    for (; k < steps; k++)
        if (b.next == 1) {
            memset(panel + k * width, 0, width * sizeof *panel);
            memcpy(panel + k * width, b.at + k * b.step, b.count * sizeof *panel);
        } else
            for (uint64_t j = 0; j < width; j++)
                panel[k * width + j] = b.at[(j < b.count ? j : b.count - 1) * b.next + k * b.step];
}

void panels_pack(const struct patches *p, struct factor b, uint64_t steps, float *panels)
{
    uint64_t j = 0;
#ifdef __x86_64__
    if (p->fused && b.next == 1 && steps <= STEPS_TOGETHER)
        j = panels_copy(b, steps, p->columns, panels);
#endif
    for (; j < b.count; j += p->columns) {
        uint64_t rest = b.count - j;
        struct factor one = {b.at + j * b.next, rest < p->columns ? rest : p->columns, b.next,
                             b.step};
        panel_pack(p, one, steps, rest - one.count, panels + j * steps);
    }
}

void strip_pack(struct factor a, uint64_t steps, float *strip)
{
    int whole = a.count == PATCH_ROWS && a.next == 1;
    for (uint64_t k = 0; k < steps; k++, strip += PATCH_ROWS)
        if (whole)
            memcpy(strip, a.at + k * a.step, PATCH_ROWS * sizeof *strip);
        else
            for (uint64_t i = 0; i < PATCH_ROWS; i++)
                strip[i] = i < a.count ? a.at[i * a.next + k * a.step] : 0;
}

void strips_pack(struct factor a, uint64_t steps, float *strips)
{
    int together = a.next == 1 && steps <= STEPS_TOGETHER;
    uint64_t whole = together ? a.count / PATCH_ROWS * PATCH_ROWS : 0;
    for (uint64_t k = 0; k < steps && whole; k++)
        for (uint64_t i = 0; i < whole; i += PATCH_ROWS)
            memcpy(strips + i * steps + k * PATCH_ROWS, a.at + k * a.step + i,
                   PATCH_ROWS * sizeof *strips);
    for (uint64_t i = whole; i < a.count; i += PATCH_ROWS) {
        struct factor one = {a.at + i * a.next, a.count - i, a.next, a.step};
        one.count = one.count < PATCH_ROWS ? one.count : PATCH_ROWS;
        strip_pack(one, steps, strips + i * steps);
    }
}
