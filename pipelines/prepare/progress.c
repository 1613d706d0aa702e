/* progress.c - see progress.h. */
#include "pipelines/prepare/progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { ROWS = 1024 }; /* between looks at the clock */

void progress_show(struct progress *p, const char *what, uint64_t row, double share)
{
    struct timespec now;
    if (row % ROWS || !isatty(STDERR_FILENO))
        return;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double now_s = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    if (now_s - p->shown_s < 0.1)
        return;
    p->shown_s = now_s;
    fprintf(stderr, "\rprepare %s: %s, %3.0f %%", p->command, what, 100 * share);
}

void progress_end(const struct progress *p)
{
    if (p->shown_s > 0)
        fputs("\r\033[K", stderr);
}
