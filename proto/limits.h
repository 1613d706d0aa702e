/* limits.h - how much memory and how many processors this process may use: what the stages take,
 * and what trainerd plans for them, must be the same. */
#ifndef PROTO_LIMITS_H
#define PROTO_LIMITS_H

#include <stddef.h>
#include <stdint.h>

enum {
    LIMITS_THREADS_MAX = 16
}; /* of `threads: auto`: more gain nothing at the batch sizes of one host */

/* The smallest memory limit of the control groups (version 2 or 1) this process is in, else the
 * machine's memory. `source` says which, for people. root: "" (a test gives a directory with proc/
 * and sys/). */
uint64_t limits_memory(const char *root, char *source, size_t source_bytes);

/* Processors: the scheduler's affinity mask, less if the control group's quota is less; 1 to
 * LIMITS_THREADS_MAX. */
int limits_threads(const char *root);

/* Decoding threads of a reader: as asked, or (0) one for each two processors, at least one. */
uint64_t limits_decoders(const char *root, uint64_t asked);

#endif
