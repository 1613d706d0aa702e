/* sample.h - memory and CPU time of every stage, from /proc.
 *
 * A probe keeps the descriptors of /proc/PID/statm and /proc/PID/stat open, so that a sample costs
 * two reads a process (a third, of status, where the machine has swapped anything out) and can
 * never mix up a process with a later one of the same id (a kept descriptor of a dead process reads
 * as an error). Helpers (loaderd's readers) are the children of the stage's main thread.
 * /proc/PID/smaps_rollup would give proportional sizes, but walks the page tables under the lock
 * that page faults need: it is left to benchmarks.
 */
#ifndef MONITORD_SAMPLE_H
#define MONITORD_SAMPLE_H

#include <stdint.h>
#include <sys/types.h>

#include "monitord/stages.h"
#include "proto/msg.h"

enum {
    SAMPLE_HELPERS_MAX = 16,     /* further ones of a stage are not counted */
    SAMPLE_SYSTEM = STAGE_COUNT, /* series: the stages, the machine, ... */
    SAMPLE_CONTAINER,            /* ... its control group with a limit, where there is one, ... */
    SAMPLE_DEVICE,               /* ... and what the stages have of a GPU's memory */
    SAMPLE_SERIES
};

/* What was measured at one moment. */
struct sample_round {
    double unix_s;
    int there[SAMPLE_SERIES]; /* 0: the stage is not running, or there is no such thing */
    struct msg_memory_sample of[SAMPLE_SERIES];
    int gpu_there;             /* 0: the training computes on the CPU, or the GPU does not tell */
    struct msg_gpu_sample gpu; /* the newest: gpu.c */
};

struct probe_process { /* pid 0: none */
    pid_t pid;
    int statm, stat, status;
};

struct probe {
    const char *stage;
    struct probe_process main, helpers[SAMPLE_HELPERS_MAX];
    int children;          /* /proc/PID/task/PID/children, or -1 */
    uint64_t peak_bytes;   /* largest sum so far, over all incarnations */
    uint64_t device_bytes; /* of a GPU's memory, as its page of peaks said last */
};

struct sampler {
    struct probe probes[STAGE_COUNT];
    int meminfo;
    uint64_t page_bytes;
    double tick_s;
    uint64_t device_peak_bytes;               /* largest sum so far */
    uint64_t swap_bytes;                      /* in use on the machine, at the last look */
    double container_due_s;                   /* monotonic; asking the kernel may be dear */
    uint64_t container_used, container_limit; /* limit 0: there is none */
};

/* Relative to the run's directory, like everything below. Cannot fail: what is not there is not
 * sampled. */
void sampler_open(struct sampler *s);
void sampler_close(struct sampler *s);

/* Measure all of them now. */
void sampler_round(struct sampler *s, struct sample_round *round);

/* "trainerd", "system": what memory.sample calls a series; borrowed for ever. */
const char *sample_name(int series);

/* Parsers of what /proc gives; pure, for the tests. 0, or -1 if the text is not of that form. */
int sample_parse_statm(const char *text, uint64_t page_bytes, uint64_t *rss_bytes,
                       uint64_t *shared_bytes);
int sample_parse_stat(const char *text, double tick_s, double *cpu_s);
struct sample_meminfo {
    uint64_t total, available, cached, swap_total, swap_free; /* bytes */
};
int sample_parse_meminfo(const char *text, struct sample_meminfo *m);
int sample_parse_swap(const char *status, uint64_t *bytes);

#endif
