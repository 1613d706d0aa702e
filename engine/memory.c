/* memory.c - see memory.h. */
#include "engine/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE_BYTES = 4096 };

static struct {
    uint64_t limit, used, fail_first, fail_count;
} memory = {.limit = UINT64_MAX};

void memory_limit_set(uint64_t bytes)
{
    memory.limit = bytes;
}

uint64_t memory_used(void)
{
    return memory.used;
}

void memory_fail(uint64_t first, uint64_t count)
{
    memory.fail_first = first;
    memory.fail_count = count;
}

static int fails_by_request(void)
{
    if (!memory.fail_count)
        return 0;
    if (memory.fail_first > 1)
        return memory.fail_first--, 0;
    memory.fail_count--;
    return 1;
}

uint64_t size_times(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

uint64_t size_plus(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

uint64_t size_padded(uint64_t count, uint64_t unit)
{
    uint64_t sum = size_plus(count, unit - 1);
    return sum == UINT64_MAX ? sum : sum / unit * unit;
}

uint64_t region_bytes(uint64_t bytes)
{
    if (bytes > UINT64_MAX - PAGE_BYTES)
        return UINT64_MAX;
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

uint64_t region_small_bytes(uint64_t bytes)
{
    return bytes < REGION_SMALL_BYTES
               ? (bytes + MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT
               : region_bytes(bytes);
}

/* Where a region lies, and since when: in pages of the heap; of its own, resident from the start,
 * or as they are written. */
enum place { PLACE_HEAP, PLACE_RESIDENT, PLACE_LATER };

/* Zeroes; NULL: no room. */
static void *region_take(uint64_t size, enum place place)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | (place == PLACE_RESIDENT ? MAP_POPULATE : 0);
    void *at;
    if (place == PLACE_HEAP) {
        at = aligned_alloc(MEMORY_ALIGNMENT, size);
        return at ? memset(at, 0, size) : NULL;
    }
    at = size > SIZE_MAX / 2 ? MAP_FAILED
                             : mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, flags, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

/* `size` is what it costs. */
static int region_reserve(struct region *r, uint64_t size, enum place place, const char *what,
                          struct err *e)
{
    uint64_t left = memory.used < memory.limit ? memory.limit - memory.used : 0;
    if (size > left)
        return err_set(
            e, EXIT_CODE_TEMPORARY,
            "cannot reserve %.1f MiB for %s: of the %.1f MiB that the limit leaves for it "
            "%.1f are taken",
            (double)size / (1024 * 1024), what, (double)memory.limit / (1024 * 1024),
            (double)memory.used / (1024 * 1024));
    errno = ENOMEM;
    void *at = fails_by_request() ? NULL : region_take(size, place);
    if (!at)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot reserve %.1f MiB for %s",
                         (double)size / (1024 * 1024), what);
    memory.used += size;
    *r = (struct region){at, size, place == PLACE_HEAP};
    return 0;
}

int region_open(struct region *r, uint64_t bytes, const char *what, struct err *e)
{
    *r = (struct region){0};
    return bytes == 0 ? 0 : region_reserve(r, region_bytes(bytes), PLACE_RESIDENT, what, e);
}

int region_open_later(struct region *r, uint64_t bytes, const char *what, struct err *e)
{
    *r = (struct region){0};
    return bytes == 0 ? 0 : region_reserve(r, region_bytes(bytes), PLACE_LATER, what, e);
}

int region_small_open(struct region *r, uint64_t bytes, const char *what, struct err *e)
{
    *r = (struct region){0};
    return bytes == 0
               ? 0
               : region_reserve(r, region_small_bytes(bytes),
                                bytes < REGION_SMALL_BYTES ? PLACE_HEAP : PLACE_RESIDENT, what, e);
}

void region_close(struct region *r)
{
    if (r->of_heap)
        free(r->at);
    else if (r->at)
        munmap(r->at, (size_t)r->bytes);
    memory.used -= r->bytes;
    *r = (struct region){0};
}
