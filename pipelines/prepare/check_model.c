/* check_model.c - see check_model.h. */
#include "pipelines/prepare/check_model.h"

#include <stdlib.h>
#include <string.h>

static int is_layer(const char *layer, const char *name)
{
    size_t length = strlen(name);
    return strncmp(layer, name, length) == 0 && layer[length] == ' ';
}

/* The number behind " key=", or 0. */
static uint64_t key_number(const char *layer, const char *key)
{
    const char *at = strstr(layer, key);
    return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

uint64_t check_model_outputs(const struct options *o)
{
    uint64_t outputs = 0;
    int steps = 0;
    for (uint32_t i = 0; i < o->layer_count; i++) {
        const char *layer = o->layers[i];
        if (is_layer(layer, "linear") || is_layer(layer, "gcn"))
            outputs = key_number(layer, " out=");
        else if (is_layer(layer, "lstm") || strcmp(layer, "pool kind=mean_sum") == 0)
            outputs = 0; /* perhaps in both directions; twice as many */
        if (is_layer(layer, "sequence"))
            steps = strcmp(layer, "sequence steps=1") != 0;
        else if (is_layer(layer, "pool"))
            steps = 0;
    }
    return steps ? 0 : outputs;
}

uint64_t check_model_tokens(const struct options *o)
{
    return o->layer_count && is_layer(o->layers[0], "embedding")
               ? key_number(o->layers[0], " count=")
               : 0;
}
