/* highwater.h - the largest memory a stage ever had, in a page that survives it.
 *
 * RUN/highwater/<stage> is one mapped page that the stage itself raises after each turn at most
 * every 100 ms and at its end (getrusage and /proc/self/status VmHWM, plus figures it knows better:
 * arena bytes). Readers (monitord --report) read the file.
 */
#ifndef PROTO_HIGHWATER_H
#define PROTO_HIGHWATER_H

#include <stdint.h>

#include "proto/err.h"

struct highwater_page {
    uint64_t magic, version;
    uint64_t rss_peak_bytes;     /* VmHWM of the process, largest over incarnations */
    uint64_t helpers_peak_bytes; /* of its helper processes together (loaderd's readers), as it saw
                                    them */
    uint64_t arena_peak_bytes;   /* shared memory it made */
    uint64_t planned_bytes;      /* what its plan said, without the libraries' base */
    uint64_t cpu_us; /* CPU time of all finished incarnations and this one, helpers included */
};

struct highwater {
    struct highwater_page *page; /* NULL: closed; write the known fields directly, then raise */
    uint64_t cpu_us_before;
};

int highwater_open(struct highwater *h, const char *stage,
                   struct err *e);         /* below the present dir */
void highwater_raise(struct highwater *h); /* measure this process and raise the page */
void highwater_close(struct highwater *h);
int highwater_read(const char *path, struct highwater_page *page, struct err *e);

#endif
