/* warm.h - the engine used once, so that what it takes besides its plan can be measured before a
 * run: pages of the program, of libraries and of the calling thread's stack (those of other threads
 * are in the plan). */
#ifndef ENGINE_WARM_H
#define ENGINE_WARM_H

#include "proto/err.h"

/* A large product, and a tiny model that takes one step (with_optimizer), or the squares of one
 * batch. Everything of ours is
 * given back. */
int engine_warm(int with_optimizer, struct err *e);

#endif
