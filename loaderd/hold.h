/* hold.h - the data files that this loaderd's run uses, held so that nobody replaces them.
 *
 * A shared lock (flock) on each, from the start to the end of this process, between tasks too:
 * `prepare` makes a file anew under the same name only where it gets the exclusive one
 * (pipelines/prepare/place.h). Any number of runs hold one file. The locks are of descriptors that
 * no reader inherits, so they end with this process, however that ends. Where a file system has no
 * such locks a run goes on without.
 */
#ifndef LOADERD_HOLD_H
#define LOADERD_HOLD_H

#include "proto/options.h"

/* The files of all tasks, and those that took a name's place meanwhile. */
enum { HOLDS_MAX = 2 * OPTION_TASKS_MAX };

struct holds {
    int fd[HOLDS_MAX];
    int count;
};

/* Hold the file that now has this name, unless it is held. What cannot be opened is left to who
 * reads it. */
void hold_file(struct holds *h, const char *path);

/* Hold the files of all tasks. */
void hold_tasks(struct holds *h, const struct options *o);

void holds_close(struct holds *h); /* harmless twice */

#endif
