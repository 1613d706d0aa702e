/* layers_check.h - model.layers by itself, before there is any data: the words of each layer
 * against what the engine's layers accept.
 */
#ifndef TRAINERD_LAYERS_CHECK_H
#define TRAINERD_LAYERS_CHECK_H

#include "proto/err.h"
#include "proto/options.h"

/* 0, or -1 and *e (permanent): file and line of the first layer whose type, key or value is none,
 * what is accepted, and the type or key that was probably meant. How layers fit each other and the
 * data's rows is seen when the model is made (setup.c). */
int layers_check(const struct options *o, struct err *e);

#endif
