/* sample.h - memory and CPU time of every stage, from /proc.
 *
 * A probe keeps the descriptors of /proc/PID/statm and /proc/PID/stat open, so that a sample costs
 * two reads a process and can never mix up a process with a later one of the same id (a kept
 * descriptor of a dead process reads as an error). Helpers (loaderd's readers) are the children of
 * the stage's main thread. /proc/PID/smaps_rollup would give proportional sizes, but walks the page
 * tables under the lock that page faults need: it is left to benchmarks.
 */
#ifndef MONITORD_SAMPLE_H
#define MONITORD_SAMPLE_H

#include <stdint.h>
#include <sys/types.h>

#include "monitord/stages.h"
#include "proto/msg.h"

enum { SAMPLE_HELPERS_MAX = 16 }; /* further ones of a stage are not counted */

struct probe_process { /* pid 0: none */
    pid_t pid;
    int statm, stat;
};

struct probe {
    const char *stage;
    struct probe_process main, helpers[SAMPLE_HELPERS_MAX];
    int children;        /* /proc/PID/task/PID/children, or -1 */
    uint64_t peak_bytes; /* largest sum so far, over all incarnations */
};

struct sampler {
    struct probe probes[STAGE_COUNT];
    int meminfo;
    uint64_t page_bytes;
    double tick_s;
    uint64_t device_peak_bytes; /* largest sum so far */
};

/* Relative to the run's directory, like everything below. Cannot fail: what is not there is not
 * sampled. */
void sampler_open(struct sampler *s);
void sampler_close(struct sampler *s);

/* Sample one stage. 1: *m is filled (its head excepted); 0: the stage is not running. */
int sampler_stage(struct sampler *s, int stage, struct msg_memory_sample *m);

/* Sample the machine. 1: *m is filled; 0: /proc/meminfo is not as expected. */
int sampler_system(struct sampler *s, struct msg_memory_sample *m);

/* What the stages that were sampled last have of a GPU's memory, as their pages of peaks say. 1: *m
 * is filled; 0: none. */
int sampler_device(struct sampler *s, struct msg_memory_sample *m);

/* Parsers of what /proc gives; pure, for the tests. 0, or -1 if the text is not of that form. */
int sample_parse_statm(const char *text, uint64_t page_bytes, uint64_t *rss_bytes,
                       uint64_t *shared_bytes);
int sample_parse_stat(const char *text, double tick_s, double *cpu_s);
int sample_parse_meminfo(const char *text, uint64_t *total, uint64_t *available, uint64_t *cached);

#endif
