/* loss_text.h - a loss as one text and back: "l1", "huber delta=0.5", "softmax_cross_entropy
 * missing weights=1,4,0.5". Used by model.c and model_text.c. */
#ifndef ENGINE_LOSS_TEXT_H
#define ENGINE_LOSS_TEXT_H

#include <stddef.h>

#include "engine/model.h"
#include "proto/err.h"

enum { LOSS_TEXT_MAX = 40960 };

/* The loss's name and keys into m; m->target_weights is the model's to free. -1 (permanent): the
 * text is none, or temporary: no memory. */
int loss_parse(struct model *m, const char *text, struct err *e);

/* The text that loss_parse reads back to the same numbers; -1 (permanent) when there is no room. */
int loss_format(const struct model *m, char text[LOSS_TEXT_MAX], struct err *e);

/* Are the weights as many as the loss takes of the model's outputs? */
int loss_weights_check(const struct model *m, struct err *e);

#endif
