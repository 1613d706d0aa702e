/* emulated.cc - see emulated.h. */
#include "engine/cuda/emulated.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct emulated none = {{{"emulated", 80}}, 1, 13000, 0, 0};
static struct emulated wanted;

static uint64_t number_of(const char *text)
{
    char *end;
    uint64_t number = strtoull(text, &end, 10);
    ensure(*text && !*end);
    return number;
}

static void gpus_read(char *list)
{
    wanted.count = 0;
    for (char *word; list && *list && (word = strsep(&list, ","));) {
        ensure(wanted.count < EMULATED_GPUS_MAX);
        struct gpu *g = &wanted.gpus[wanted.count++];
        char *name = strchr(word, ' ');
        ensure(name);
        *name++ = 0;
        g->capability = (int)number_of(word);
        snprintf(g->name, sizeof g->name, "%s", name);
    }
}

static void word_read(char *word)
{
    char *value = strchr(word, '=');
    ensure(value);
    *value++ = 0;
    if (strcmp(word, "gpus") == 0)
        gpus_read(value);
    else if (strcmp(word, "driver") == 0)
        wanted.driver = (int)number_of(value);
    else if (strcmp(word, "allocation") == 0)
        wanted.allocation = number_of(value);
    else if (strcmp(word, "work") == 0)
        wanted.work = number_of(value);
    else
        ensure(!"a key of FINETUNED_EMULATED");
}

void emulated_read(void)
{
    const char *given = getenv("FINETUNED_EMULATED");
    char text[1024], *left = text;
    wanted = none;
    if (!given || !*given)
        return;
    ensure(strlen(given) < sizeof text);
    strcpy(text, given);
    for (char *word; (word = strsep(&left, ";"));)
        word_read(word);
}

const struct emulated *emulated(void)
{
    return &wanted;
}
