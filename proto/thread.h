/* thread.h - a thread for one piece of work beside the one that starts it. */
#ifndef PROTO_THREAD_H
#define PROTO_THREAD_H

#include <pthread.h>

enum { THREAD_STACK_BYTES = 256 * 1024 };

/* work(argument), by a thread that is called `name` (15 letters at most), has THREAD_STACK_BYTES of
 * stack and takes no signals: those are the main thread's. 0, or an errno: there is none to be had,
 * and nothing was done. The caller joins it. */
int thread_start(pthread_t *thread, const char *name, void *(*work)(void *), void *argument);

#endif
