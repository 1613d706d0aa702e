/* importance_private.h - what the files of importance.h share; nobody else includes it. */
#ifndef ENGINE_IMPORTANCE_PRIVATE_H
#define ENGINE_IMPORTANCE_PRIVATE_H

#include "engine/importance.h"

/* f->build, for tensors whose forms are chosen. 0, or -1 and *e (temporary). */
int importance_build_open(struct importance *f, struct err *e);
uint64_t importance_build_bytes_of(const struct importance_tensor *tensors, uint32_t count);
void importance_build_close(struct importance *f); /* harmless twice */

#endif
