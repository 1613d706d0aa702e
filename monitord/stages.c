/* stages.c - the names of the stages; see stages.h. */
#include "monitord/stages.h"

#include <string.h>

const char *const stage_names[STAGE_COUNT] = {"loaderd", "trainerd", "fisherd", "monitord"};

int stage_index(const char *name)
{
    for (int i = 0; i < STAGE_COUNT; i++)
        if (strcmp(stage_names[i], name) == 0)
            return i;
    return -1;
}
