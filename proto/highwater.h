/* highwater.h - the largest memory a stage ever had, in a page that survives it.
 *
 * RUN/highwater/<stage> is one mapped page that the stage itself raises after each turn at most
 * every 100 ms and at its end: its own VmHWM and CPU time, private memory and CPU time of its live
 * helpers, and figures it knows better (arena bytes). So a kill loses at most the CPU time since
 * the last raise. Readers (monitord --report) read the file.
 */
#ifndef PROTO_HIGHWATER_H
#define PROTO_HIGHWATER_H

#include <stdint.h>
#include <sys/types.h>

#include "proto/err.h"

/* A figure that was measured again and again. */
struct highwater_mean {
    uint64_t count;
    double sum, most;
};

struct highwater_page {
    uint64_t magic, version;
    uint64_t rss_peak_bytes;     /* VmHWM of the process, largest over incarnations */
    uint64_t helpers_peak_bytes; /* summed RssAnon of loaderd's readers alive together */
    uint64_t arena_peak_bytes;   /* shared memory it made */
    uint64_t cpu_us; /* CPU time of all finished incarnations and this one, helpers included */
    uint64_t device_bytes; /* that it has of a GPU's memory now, 0: none, and the most so far */
    uint64_t device_peak_bytes;
    uint64_t locked_peak_bytes; /* of its own memory, page-locked for a GPU */
    uint64_t heap_bytes; /* that malloc has handed out now, without its helpers'; 0: not known */
    /* monitord's: of the GPU that the training computes on, whoever uses it */
    struct highwater_mean gpu_utilisation, gpu_used_bytes, gpu_temperature_c, gpu_power_w;
};

enum { HIGHWATER_HELPERS_MAX = 32 };

struct highwater {
    struct highwater_page *page; /* NULL: closed; write the known fields directly, then raise */
    uint64_t cpu_us_before;
    pid_t helper[HIGHWATER_HELPERS_MAX]; /* live ones */
    int helpers;
};

int highwater_open(struct highwater *h, const char *stage,
                   struct err *e);         /* below the present dir */
void highwater_raise(struct highwater *h); /* measure this process and raise the page */

/* The stage has so much of a GPU's memory now, and had up to `high` since it last said so; and up
 * to `locked` of its own memory, page-locked for it. */
void highwater_device(struct highwater *h, uint64_t bytes, uint64_t high, uint64_t locked);

/* NaN: it is not known this time. */
void highwater_mean_add(struct highwater_mean *m, double value);

/* A helper process runs its program (between fork and exec it would have its parent's memory); it
 * is measured at each raise until it is removed. Harmless twice. */
void highwater_helper_add(struct highwater *h, pid_t pid);

/* Measures it for the last time; to be called before it is waited for (its CPU time counts as that
 * of a waited-for child from then on). One that was never added is ignored. */
void highwater_helper_remove(struct highwater *h, pid_t pid);

void highwater_close(struct highwater *h);

/* A figure of /proc/PID/status in bytes, 0 if the process is dead; name is "VmHWM", "RssAnon". */
uint64_t highwater_bytes(pid_t pid, const char *name);

int highwater_read(const char *path, struct highwater_page *page, struct err *e);

#endif
