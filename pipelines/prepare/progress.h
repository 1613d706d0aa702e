/* progress.h - a line on the terminal that is rewritten in place while a source is read. */
#ifndef PIPELINES_PREPARE_PROGRESS_H
#define PIPELINES_PREPARE_PROGRESS_H

#include <stdint.h>

struct progress {
    const char *command; /* "csv" */
    double shown_s;
};

/* Call it at every row: now and then it looks at the clock, ten times a second it writes. Nothing
 * where nobody watches. share: 0 to 1. */
void progress_show(struct progress *p, const char *what, uint64_t row, double share);
void progress_end(const struct progress *p);

#endif
