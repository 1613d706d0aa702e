/* gpus.cu - see gpus.h. */
#include "engine/cuda/gpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int driver_check(const struct gpus *all, struct err *e)
{
    int driver = all->driver, runtime = all->runtime;
    if (driver == 0)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "cannot compute on device cuda: there is no NVIDIA driver; use --device cpu");
    if (all->too_old)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "cannot compute on device cuda: the driver knows CUDA %d.%d, this build needs "
            "%d.%d; update the driver or build with an older toolkit",
            driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    if (all->count == 0)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "cannot compute on device cuda: there is an NVIDIA driver, but no GPU that it shows; "
            "use --device cpu, or look at nvidia-smi and CUDA_VISIBLE_DEVICES");
    return 0;
}

/* The first that answers and has that in its name; -1: none. All names, for the sentence. */
static int name_find(const struct gpus *all, const char *part, char *names, size_t bytes)
{
    struct gpu g;
    size_t used = 0;
    names[0] = 0;
    for (int i = 0; i < all->count; i++) {
        if (all->look(i, &g, NULL) < 0)
            continue;
        if (strcasestr(g.name, part))
            return i;
        if (used < bytes)
            used += (size_t)snprintf(names + used, bytes - used, "%s%d (%s)", used ? ", " : "", i,
                                     g.name);
    }
    return -1;
}

/* A number that no GPU has is a part of a name: 4090. */
static int index_find(const struct gpus *all, const char *which, struct err *e)
{
    char *end, names[512];
    long number = strtol(which, &end, 10);
    if (!*which)
        return 0;
    if (!*end && number >= 0 && number < all->count)
        return (int)number;
    int found = name_find(all, which, names, sizeof names);
    if (found >= 0)
        return found;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "cannot compute on device cuda:%s: there is no such GPU; there are %s", which,
                   names);
}

int gpus_choose(const struct gpus *all, const char *which, struct err *e)
{
    struct gpu g;
    int index = driver_check(all, e) < 0 ? -1 : index_find(all, which, e);
    if (index < 0 || all->look(index, &g, e) < 0)
        return -1;
    if (g.capability >= all->least)
        return index;
    return err_set(
        e, EXIT_CODE_PERMANENT,
        "cannot compute on %s: its compute capability is %d.%d; this build has code for %d.%d "
        "and later (SM= of the Makefile)",
        g.name, g.capability / 10, g.capability % 10, all->least / 10, all->least % 10);
}

uint64_t gpus_context_bytes(uint64_t before, uint64_t after, uint64_t ours)
{
    const uint64_t most = ours + ((uint64_t)512 << 20), taken = before > after ? before - after : 0;
    return taken < ours ? ours : taken < most ? taken : most;
}
