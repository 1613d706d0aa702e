/* hashes.c - see hashes.h: an array that is sorted, and rid of what is there twice, when it is
 * full.
 */
#include "pipelines/prepare/hashes.h"

#include <stdlib.h>
#include <string.h>

int hashes_open(struct hashes *h, uint64_t capacity, struct err *e)
{
    ensure(capacity >= 2);
    memset(h, 0, sizeof *h);
    h->capacity = capacity;
    h->value = malloc(capacity * sizeof *h->value); /* touched only as it fills */
    return h->value ? 0 : err_errno(e, EXIT_CODE_TEMPORARY, "cannot keep hashes of rows");
}

void hashes_close(struct hashes *h)
{
    free(h->value);
    memset(h, 0, sizeof *h);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

void hashes_seal(struct hashes *h)
{
    uint64_t kept = 0;
    qsort(h->value, h->count, sizeof *h->value, by_value);
    for (uint64_t i = 0; i < h->count; i++)
        if (i == 0 || h->value[i] != h->value[i - 1])
            h->value[kept++] = h->value[i];
    h->count = kept;
}

void hashes_add(struct hashes *h, uint64_t hash)
{
    if (h->count == h->capacity) {
        hashes_seal(h);
        while (h->count > h->capacity / 2) { /* so that the next time is far away */
            uint64_t kept = 0;
            h->mask = h->mask << 1 | 1;
            for (uint64_t i = 0; i < h->count; i++)
                if (hashes_comparable(h, h->value[i]))
                    h->value[kept++] = h->value[i];
            h->count = kept;
        }
    }
    if (hashes_comparable(h, hash))
        h->value[h->count++] = hash;
}

int hashes_has(const struct hashes *h, uint64_t hash)
{
    return bsearch(&hash, h->value, h->count, sizeof hash, by_value) != NULL;
}
