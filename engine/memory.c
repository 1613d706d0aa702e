/* memory.c - see memory.h. */
#include "engine/memory.h"

#include <errno.h>
#include <sys/mman.h>

enum { PAGE_BYTES = 4096 };

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

uint64_t region_bytes(uint64_t bytes)
{
    if (bytes > UINT64_MAX - PAGE_BYTES)
        return UINT64_MAX;
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

int region_open(struct region *r, uint64_t bytes, const char *what, struct err *e)
{
    *r = (struct region){NULL, 0};
    if (bytes == 0)
        return 0;
    uint64_t size = region_bytes(bytes);
    errno = ENOMEM;
    void *at = size > SIZE_MAX / 2 ? MAP_FAILED
                                   : mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot reserve %.1f MiB for %s",
                         (double)size / (1024 * 1024), what);
    *r = (struct region){at, size};
    return 0;
}

void region_close(struct region *r)
{
    if (r->at)
        munmap(r->at, (size_t)r->bytes);
    *r = (struct region){NULL, 0};
}
