/* progress.h - how far a command of `prepare` is: one line on a terminal, rewritten in place ten
 * times a second; nothing where nobody watches.
 */
#ifndef PIPELINES_PREPARE_PROGRESS_H
#define PIPELINES_PREPARE_PROGRESS_H

struct progress {
    double shown_s; /* when it was shown last; 0: never */
};

/* "prepare csv: reading,  42 %". share: 0 to 1. Looks at the clock: not for every row. */
void progress_show(struct progress *p, const char *command, const char *what, double share);

/* Take the line away, if there is one. */
void progress_end(struct progress *p);

#endif
