/* stages.h - the stages of a run, in the order they are shown. Each has a lock, a journal and a
 * high-water page named after the process, and sockets named without the final d. */
#ifndef MONITORD_STAGES_H
#define MONITORD_STAGES_H

enum { STAGE_COUNT = 4 };

extern const char *const stage_names[STAGE_COUNT];

/* Index of a stage's name, or -1. */
int stage_index(const char *name);

#endif
