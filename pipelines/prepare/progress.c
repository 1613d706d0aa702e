/* progress.c - see progress.h. */
#include "pipelines/prepare/progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

void progress_show(struct progress *p, const char *command, const char *what, double share)
{
    struct timespec now;
    if (!isatty(STDERR_FILENO))
        return;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double now_s = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    if (now_s - p->shown_s < 0.1)
        return;
    p->shown_s = now_s;
    fprintf(stderr, "\rprepare %s: %s, %3.0f %%", command, what, 100 * share);
}

void progress_end(struct progress *p)
{
    if (p->shown_s > 0)
        fputs("\r\033[K", stderr);
    p->shown_s = 0;
}
