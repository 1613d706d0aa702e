/* layer_reference.h - what model.layers and model.loss accept, for people: docs/LAYERS.md. */
#ifndef ENGINE_LAYER_REFERENCE_H
#define ENGINE_LAYER_REFERENCE_H

#include <stdio.h>

/* The page, in Markdown, made from the declarations of the layers and losses. */
void layer_reference_print(FILE *out);

#endif
