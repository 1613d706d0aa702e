/* layer_text.c - see layer_text.h. */
#include "engine/layer_text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLANKS " \t"

static int type_unknown(uint32_t place, const char *name, struct err *e)
{
    char accepted[512] = "";
    for (int i = 0; layer_types[i]; i++) {
        size_t used = strlen(accepted);
        snprintf(accepted + used, sizeof accepted - used, "%s%s", i ? ", " : "",
                 layer_types[i]->name);
    }
    return err_set(e, EXIT_CODE_PERMANENT, "layer %u: unknown type '%.64s'; accepted: %s", place,
                   name, accepted);
}

static int key_unknown(const struct layer_instance *l, const char *name, struct err *e)
{
    char accepted[256] = "";
    for (const struct layer_key *k = l->type->keys; k->name; k++) {
        size_t used = strlen(accepted);
        snprintf(accepted + used, sizeof accepted - used, "%s%s",
                 used ? ", " : "; accepted: ", k->name);
    }
    return err_set(e, EXIT_CODE_PERMANENT, "layer %u (%s): unknown key '%.64s'%s", l->place,
                   l->type->name, name, *accepted ? accepted : "; it has no keys");
}

static int key_index(const struct layer_type *type, const char *name)
{
    for (int i = 0; type->keys[i].name; i++)
        if (strcmp(type->keys[i].name, name) == 0)
            return i;
    return -1;
}

static int value_accepted(const struct layer_key *k, double value)
{
    return isfinite(value) && value >= k->low && value <= k->high &&
           !(k->below_high && value >= k->high) && !(k->whole && value != floor(value));
}

static int word_value(const struct layer_instance *l, const struct layer_key *k, const char *text,
                      double *value, struct err *e)
{
    char accepted[256] = "";
    for (int i = 0; k->words[i]; i++) {
        size_t used = strlen(accepted);
        *value = i;
        if (strcmp(k->words[i], text) == 0)
            return 0;
        snprintf(accepted + used, sizeof accepted - used, "%s%s", i ? ", " : "", k->words[i]);
    }
    return err_set(e, EXIT_CODE_PERMANENT, "layer %u (%s): key '%s' is '%.64s'; accepted: %s",
                   l->place, l->type->name, k->name, text, accepted);
}

static int value_parse(const struct layer_instance *l, const struct layer_key *k, const char *text,
                       double *value, struct err *e)
{
    if (k->words)
        return word_value(l, k, text, value, e);
    char *end = NULL;
    *value = strtod(text, &end);
    if (end != text && *end == '\0' && value_accepted(k, *value))
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "layer %u (%s): key '%s' is '%.64s'; accepted: a %snumber from %.15g to %s%.15g",
                   l->place, l->type->name, k->name, text, k->whole ? "whole " : "", k->low,
                   k->below_high ? "below " : "", k->high);
}

/* One word "key=value". */
static int word_parse(struct layer_instance *l, char *word, unsigned *given, struct err *e)
{
    char *equals = strchr(word, '=');
    if (!equals)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "layer %u (%s): '%.64s' is not of the form key=value", l->place,
                       l->type->name, word);
    *equals = '\0';
    int index = key_index(l->type, word);
    if (index < 0)
        return key_unknown(l, word, e);
    if (*given & 1u << index)
        return err_set(e, EXIT_CODE_PERMANENT, "layer %u (%s): key '%s' is given twice", l->place,
                       l->type->name, word);
    *given |= 1u << index;
    return value_parse(l, &l->type->keys[index], equals + 1, &l->keys[index], e);
}

static int keys_complete(const struct layer_instance *l, unsigned given, struct err *e)
{
    for (int i = 0; l->type->keys[i].name; i++)
        if (l->type->keys[i].required && !(given & 1u << i))
            return err_set(e, EXIT_CODE_PERMANENT, "layer %u (%s): key '%s' is missing", l->place,
                           l->type->name, l->type->keys[i].name);
    return 0;
}

int layer_parse(struct layer_instance *l, const char *text, struct err *e)
{
    char line[LAYER_LINE_MAX], *rest = NULL;
    unsigned given = 0;
    if (strlen(text) >= sizeof line)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "layer %u: its text has %zu bytes; accepted: up to %d", l->place,
                       strlen(text), LAYER_LINE_MAX - 1);
    strcpy(line, text);
    const char *name = strtok_r(line, BLANKS, &rest);
    l->type = layer_type_named(name ? name : "");
    if (!l->type)
        return type_unknown(l->place, name ? name : "", e);
    for (int i = 0; l->type->keys[i].name; i++)
        l->keys[i] = l->type->keys[i].normal;
    for (char *word; (word = strtok_r(NULL, BLANKS, &rest));)
        if (word_parse(l, word, &given, e) < 0)
            return -1;
    return keys_complete(l, given, e);
}

void value_format(double value, char *text, size_t bytes)
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, bytes, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            return;
    }
}

int layer_format(const struct layer_instance *l, char *text, size_t bytes)
{
    int used = snprintf(text, bytes, "%s", l->type->name);
    for (int i = 0; l->type->keys[i].name && (size_t)used < bytes; i++) {
        char value[32];
        if (l->type->keys[i].words)
            snprintf(value, sizeof value, "%s", l->type->keys[i].words[(int)l->keys[i]]);
        else if (l->type->keys[i].whole)
            snprintf(value, sizeof value, "%.0f", l->keys[i]);
        else
            value_format(l->keys[i], value, sizeof value);
        used += snprintf(text + used, bytes - (size_t)used, " %s=%s", l->type->keys[i].name, value);
    }
    return used;
}
