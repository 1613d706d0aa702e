/* layers_check.c - see layers_check.h.
 *
 * proto reads the lines and knows no layers, the engine knows its layers and neither files nor
 * lines: here they meet, for a run's start, --plan and --device, which finetune.sh asks first.
 */
#include "trainerd/layers_check.h"

#include <stdio.h>
#include <string.h>

#include "engine/layer.h"
#include "engine/layer_text.h"

enum { TYPES_MAX = 64 }; /* more than there are */

static const char *type_nearest(const char *name)
{
    const char *names[TYPES_MAX + 1] = {NULL};
    for (int i = 0; layer_types[i]; i++) {
        ensure(i < TYPES_MAX);
        names[i] = layer_types[i]->name;
    }
    return options_nearest(names, name);
}

/* NULL: the type has that key, or none at all. */
static const char *key_nearest(const struct layer_type *type, const char *key)
{
    const char *names[LAYER_KEYS_MAX + 1] = {NULL};
    for (int i = 0; type->keys[i].name; i++) {
        names[i] = type->keys[i].name;
        if (strcmp(key, names[i]) == 0)
            return NULL;
    }
    return names[0] ? options_nearest(names, key) : NULL;
}

/* What the first unknown word of the line ("lstm out=4 layer=2") was meant to be; NULL: all are
 * known. */
static const char *word_meant(const char *text)
{
    char word[OPTION_LAYER_TEXT_MAX + 1];
    const char *nearest = NULL;
    snprintf(word, sizeof word, "%.*s", (int)strcspn(text, " "), text);
    const struct layer_type *type = layer_type_named(word);
    if (!type)
        return type_nearest(word);
    while (!nearest && (text = strchr(text, ' '))) {
        text++;
        snprintf(word, sizeof word, "%.*s", (int)strcspn(text, "="), text);
        nearest = key_nearest(type, word);
    }
    return nearest;
}

int layers_check(const struct options *o, struct err *e)
{
    for (uint32_t i = 0; i < o->layer_count; i++) {
        struct layer_instance l = {.place = i};
        struct err why;
        if (layer_parse(&l, o->layers[i], &why) == 0)
            continue;
        const char *meant = word_meant(o->layers[i]);
        return err_set(e, EXIT_CODE_PERMANENT, "%.200s:%d: model.layers, %.400s%s%s",
                       o->layers_source, o->layer_lines[i], why.text,
                       meant ? "; the nearest is " : "", meant ? meant : "");
    }
    return 0;
}
