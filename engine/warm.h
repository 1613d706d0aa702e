/* warm.h - the engine used once, so that what it takes besides its plan can be measured before a
 * run: pages of the program, of libraries and a little of the stack. */
#ifndef ENGINE_WARM_H
#define ENGINE_WARM_H

#include "proto/err.h"

/* A tiny model takes one step (with_optimizer), or the squares of one batch. Everything of ours is
 * given back. */
int engine_warm(int with_optimizer, struct err *e);

#endif
