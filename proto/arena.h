/* arena.h - the shared memory that a loader fills and a consumer reads.
 *
 * The consumer makes it (memfd_create, fallocate, seals against shrinking, growing and further
 * seals), maps it and hands the descriptor over through the door. It has no name, outlives any
 * number of loader restarts and vanishes with its last holder. Slot i begins at i * slot_bytes;
 * slot_bytes is rounded up to the page size. There are no locks and no state in it: slot state is
 * the consumer's private memory.
 */
#ifndef PROTO_ARENA_H
#define PROTO_ARENA_H

#include <stdint.h>

#include "proto/err.h"

enum { ARENA_SLOTS_MAX = 4096 };

struct arena {
    int fd; /* the memfd; -1: closed. Zero-initialise with ARENA_CLOSED */
    void *base;
    uint64_t slots, slot_bytes, bytes;
};
#define ARENA_CLOSED ((struct arena){.fd = -1})

/* Make one of `slots` slots of at least slot_bytes each. Memory is reserved now: no page fault can
 * fail later. 0, or -1 and *e (temporary when memory is short). */
int arena_create(struct arena *a, uint64_t slots, uint64_t slot_bytes, struct err *e);

/* Map one that came through the door; takes ownership of fd on success only. Refuses a descriptor
 * that is not a memfd sealed as above, or whose size is not slots * slot_bytes. */
int arena_attach(struct arena *a, int fd, uint64_t slots, uint64_t slot_bytes, struct err *e);

/* Lock its pages in memory. 0, or -1 and *e (permanent): the limit on locked memory forbids it. */
int arena_pin(struct arena *a, struct err *e);

void arena_close(struct arena *a); /* harmless twice */

static inline void *arena_slot(const struct arena *a, uint64_t slot)
{
    return (char *)a->base + slot * a->slot_bytes;
}

#endif
