/* options_layers.c - model.layers, a list of maps, as one line of text a layer. Which types and
 * keys there are the engine knows (engine/model.h), and trainerd says.
 */
#include <string.h>

#include "proto/options_parts.h"

static int layer_word_valid(const char *word)
{
    return word[0] && word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                        "0123456789_.+-")] == '\0';
}

/* {type: linear, out: 256} as "linear out=256": one line, no quoting needed, `type` first. */
static int layer_set(struct options *o, const struct node *n, uint32_t index, const char *path,
                     struct err *e)
{
    char *text = o->layers[index];
    const struct node *type = NULL;
    struct origin at = {path, n->line};
    if (n->kind != NODE_MAP)
        return origin_error(
            at, e, "model.layers.%u is no map; accepted is for example {type: relu}", index);
    for (const struct node *c = n->first; c; c = c->next) {
        if (c->kind != NODE_SCALAR || !layer_word_valid(c->text) || !layer_word_valid(c->key))
            return origin_error((struct origin){path, c->line}, e,
                                "model.layers.%u holds a key or value that is no word; accepted "
                                "are letters, digits, and _ . + -",
                                index);
        if (strcmp(c->key, "type") == 0)
            type = c;
    }
    if (!type)
        return origin_error(at, e, "model.layers.%u has no type; type: linear is an example",
                            index);
    size_t used = (size_t)snprintf(text, OPTION_LAYER_TEXT_MAX + 1, "%s", type->text);
    for (const struct node *c = n->first; c && used <= OPTION_LAYER_TEXT_MAX; c = c->next)
        if (c != type)
            used += (size_t)snprintf(text + used, OPTION_LAYER_TEXT_MAX + 1 - used, " %s=%s",
                                     c->key, c->text);
    if (used > OPTION_LAYER_TEXT_MAX)
        return origin_error(at, e, "model.layers.%u is longer than %d bytes", index,
                            OPTION_LAYER_TEXT_MAX);
    o->layer_lines[index] = n->line;
    return 0;
}

int layers_set(struct options *o, const struct node *list, const char *path, struct err *e)
{
    if (list->kind != NODE_LIST || list->entries == 0 || list->entries > OPTION_LAYERS_MAX)
        return origin_error((struct origin){path, list->line}, e,
                            "model.layers is a list of 1 to %d layers, each for example {type: "
                            "relu}",
                            OPTION_LAYERS_MAX);
    uint32_t index = 0;
    for (const struct node *n = list->first; n; n = n->next)
        if (layer_set(o, n, index++, path, e) < 0)
            return -1;
    o->layer_count = index;
    snprintf(o->layers_source, sizeof o->layers_source, "%s", path);
    return 0;
}
