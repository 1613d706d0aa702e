/* prefetch.h - numbers that come nearer while something else is computed. A processor does so by
 * itself for what lies behind what it reads, up to the end of a page; for rows that lie apart, and
 * for what is written, it waits: 130 to 180 ns if they are in memory.
 *
 * Of numbers that do not begin with a line of the cache the last line may be left out.
 */
#ifndef ENGINE_CPU_PREFETCH_H
#define ENGINE_CPU_PREFETCH_H

#include <stdint.h>

enum { LINE_FLOATS = 16 }; /* of a cache */

/* `count` numbers that will be read, into the second-level cache. */
static inline void prefetch_read(const float *at, uint64_t count)
{
    for (uint64_t i = 0; i < count; i += LINE_FLOATS)
        __builtin_prefetch(at + i, 0, 2);
}

/* Numbers that will be written, or read and written, into the first-level cache. */
static inline void prefetch_write(const float *at, uint64_t count)
{
    for (uint64_t i = 0; i < count; i += LINE_FLOATS)
        __builtin_prefetch(at + i, 1);
}

#endif
