/* hashes.h - a set of 64-bit hashes in bounded memory.
 *
 * When more different ones come than fit, those are kept whose low bits are 0, one bit more each
 * time: the same share of any other set is then comparable, and the share found in both is an
 * estimate.
 */
#ifndef PIPELINES_PREPARE_HASHES_H
#define PIPELINES_PREPARE_HASHES_H

#include <stdint.h>

#include "proto/err.h"

struct hashes {
    uint64_t *value;
    uint64_t count, capacity;
    uint64_t mask; /* kept are those with (hash & mask) == 0 */
};

/* capacity: at least 2. */
int hashes_open(struct hashes *h, uint64_t capacity, struct err *e);
void hashes_close(struct hashes *h); /* harmless twice */

void hashes_add(struct hashes *h, uint64_t hash);

/* All are added: hashes_has may be asked. */
void hashes_seal(struct hashes *h);

/* Would it have been kept? Then hashes_has tells whether it was added. */
static inline int hashes_comparable(const struct hashes *h, uint64_t hash)
{
    return (hash & h->mask) == 0;
}
int hashes_has(const struct hashes *h, uint64_t hash);

#endif
