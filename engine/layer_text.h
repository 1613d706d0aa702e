/* layer_text.h - a layer's line of text ("linear out=256") and back. Used by model.c,
 * model_text.c and who looks at layers that are no model yet. */
#ifndef ENGINE_LAYER_TEXT_H
#define ENGINE_LAYER_TEXT_H

#include <stddef.h>

#include "engine/layer.h"
#include "proto/err.h"

enum { LAYER_LINE_MAX = 512 };

/* Type and values of `l` from text; l->place names it in errors (permanent). */
int layer_parse(struct layer_instance *l, const char *text, struct err *e);

/* The line that layer_parse reads back to the same values. Returns its length as snprintf does. */
int layer_format(const struct layer_instance *l, char *text, size_t bytes);

/* The shortest decimal that reads back as the same double. */
void value_format(double value, char *text, size_t bytes);

#endif
