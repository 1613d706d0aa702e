/* warm.h - the engine's libraries used once, so that their memory can be measured before a run. */
#ifndef ENGINE_WARM_H
#define ENGINE_WARM_H

#include "proto/err.h"

/* A tiny model takes one step (with_optimizer), or the squares of one batch. Everything of ours is
 * given back; what the matrix library keeps stays. */
int engine_warm(int with_optimizer, struct err *e);

#endif
