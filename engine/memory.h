/* memory.h - one region of memory a kind of data, mapped as a whole: zeroed, page-aligned, exact in
 * the plan. */
#ifndef ENGINE_MEMORY_H
#define ENGINE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "proto/err.h"

/* Every buffer inside a region starts at a multiple of this: a cache line, the widest vector. */
enum { MEMORY_ALIGNMENT = 64, MEMORY_ALIGNMENT_FLOATS = 16 };

enum { REGION_SMALL_BYTES = 65536 };

struct region {
    void *at;       /* NULL when bytes is 0 */
    uint64_t bytes; /* whole pages, but of a small one */
    int of_heap;    /* a small one: it shares pages */
};

/* What `bytes` cost as a region: whole pages. UINT64_MAX stays UINT64_MAX (a size that overflowed).
 */
uint64_t region_bytes(uint64_t bytes);

/* a * b and a + b, UINT64_MAX where they do not fit. */
uint64_t size_times(uint64_t a, uint64_t b);
uint64_t size_plus(uint64_t a, uint64_t b);
/* `count` to a whole number of units; UINT64_MAX stays. */
uint64_t size_padded(uint64_t count, uint64_t unit);
/* Floats of a buffer inside a region. */
static inline uint64_t floats_padded(uint64_t floats)
{
    return size_padded(floats, MEMORY_ALIGNMENT_FLOATS);
}

/* No more than this in regions at a time; UINT64_MAX (from the start): no limit. Regions that are
 * open stay. */
void memory_limit_set(uint64_t bytes);
uint64_t memory_used(void); /* by open regions */

/* For tests: of the regions that will be asked for, `count` fail as if there were no room, from
 * number `first` (from 1) on; 0, 0: none. */
void memory_fail(uint64_t first, uint64_t count);

/* Map region_bytes(bytes) of zeroes; what: "parameters", for the sentence. -1 (temporary) when
 * there is no room or the limit does not allow it. Not for two threads at once. All of it is
 * resident at once: a process takes what was planned when it reserves it, not when its largest
 * batch comes hours later. Memory that is short then is no error here: the kernel kills. */
int region_open(struct region *r, uint64_t bytes, const char *what, struct err *e);
/* Its pages come as they are written: for what fills up little by little, and may be most of the
 * machine's memory. */
int region_open_later(struct region *r, uint64_t bytes, const char *what, struct err *e);
/* The same for what there may be many of: where it is below REGION_SMALL_BYTES, of which half a
 * page more is much, it shares pages with others and costs region_small_bytes. */
uint64_t region_small_bytes(uint64_t bytes);
int region_small_open(struct region *r, uint64_t bytes, const char *what, struct err *e);
void region_close(struct region *r); /* harmless twice */

#endif
