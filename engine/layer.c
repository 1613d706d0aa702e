/* layer.c - the list of layer types. A new one is a file in engine/layers/ and a line
 * here. */
#include "engine/layer.h"

#include <string.h>

extern const struct layer_type layer_linear, layer_relu, layer_dropout;

const struct layer_type *const layer_types[] = {&layer_linear, &layer_relu, &layer_dropout, NULL};

const struct layer_type *layer_type_named(const char *name)
{
    for (int i = 0; layer_types[i]; i++)
        if (strcmp(layer_types[i]->name, name) == 0)
            return layer_types[i];
    return NULL;
}

uint64_t layer_tile_floats_max(const struct layer_instance *l)
{
    uint64_t max = 0;
    for (uint64_t tile = 0, first = 0, count = 1; l->type->tile_range && count > 0; tile++) {
        l->type->tile_range(l, tile, &first, &count);
        max = count > max ? count : max;
    }
    return max;
}
