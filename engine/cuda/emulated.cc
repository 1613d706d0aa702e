/* emulated.cc - see emulated.h. */
#include "engine/cuda/emulated.h"

#include <stdlib.h>
#include <string.h>

extern "C" {
#include "proto/err.h"
}

static struct emulated wanted;

static uint64_t number_of(const char *text)
{
    char *end;
    uint64_t number = strtoull(text, &end, 10);
    ensure(*text && !*end);
    return number;
}

static void word_read(char *word)
{
    char *value = strchr(word, '=');
    ensure(value);
    *value++ = 0;
    if (strcmp(word, "allocation") == 0)
        wanted.allocation = number_of(value);
    else if (strcmp(word, "work") == 0)
        wanted.work = number_of(value);
    else
        ensure(!"a key of FINETUNED_EMULATED");
}

const struct emulated *emulated(void)
{
    static int known;
    const char *given = known++ ? NULL : getenv("FINETUNED_EMULATED");
    char text[1024], *left = text;
    if (!given || !*given)
        return &wanted;
    ensure(strlen(given) < sizeof text);
    strcpy(text, given);
    for (char *word; (word = strsep(&left, ";"));)
        word_read(word);
    return &wanted;
}
