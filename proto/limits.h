/* limits.h - how much memory and how many processors this process may use: what the stages take,
 * and what trainerd plans for them, must be the same. */
#ifndef PROTO_LIMITS_H
#define PROTO_LIMITS_H

#include <stddef.h>
#include <stdint.h>

enum {
    LIMITS_THREADS_MAX = 16, /* of `threads: auto`: more gain nothing at a host's batch sizes */
    LIMITS_BATCH_STEP = 32,  /* rows: what `batch_size: auto` is a multiple of */
};
#define LIMITS_AUTO UINT64_MAX /* OPTION_NONE */

/* The smallest memory limit of the control groups (version 2 or 1) this process is in, else the
 * machine's memory. `source` says which, for people. root: "" (a test gives a directory with proc/
 * and sys/). */
uint64_t limits_memory(const char *root, char *source, size_t source_bytes);

/* Memory that this process can still take before one of those limits, or the machine's end, is
 * reached; UINT64_MAX where nothing tells. */
uint64_t limits_available(const char *root);

/* The control group, this process's or one above it, that has a limit below the machine's memory
 * and of which the greatest share is in use, page cache not counted, which gives way. 1:
 * *used and *limit are its; 0: there is none. */
int limits_group(const char *root, uint64_t *used, uint64_t *limit);

/* Processors: the scheduler's affinity mask, less if the control group's quota is less; 1 to
 * LIMITS_THREADS_MAX. */
int limits_threads(const char *root);

/* Decoding threads of a reader: as asked, or (LIMITS_AUTO) one for each two processors, at least
 * one. */
uint64_t limits_decoders(const char *root, uint64_t asked);

/* Threads besides those `decoders` ones that only read, of data that need no decoding: where auto
 * chose the decoders, as many as make all processors but a quarter (at least one, that of who
 * speaks) read; else none. More were slower where they read for a GPU: 16 processors, 44 GB/s by 14
 * threads, 50 by 12. */
uint64_t limits_readers(const char *root, uint64_t asked);

/* Memory the run may plan with: memory.host_limit_mb, or (0) limits_memory. */
uint64_t limits_host(const char *root, uint64_t asked_mb, char *source, size_t source_bytes);

/* Rows of a batch for a device of so much memory: 8 a GiB, to the nearest multiple of
 * LIMITS_BATCH_STEP, so that a "12 GB" card that has 11.6 gets 96. */
uint64_t limits_batch_rows(uint64_t device_bytes);

#endif
