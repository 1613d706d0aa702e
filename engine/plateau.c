/* plateau.c - see plateau.h. */
#include "engine/plateau.h"

#include <math.h>

struct plateau plateau_begin(int larger_is_better)
{
    return (struct plateau){.best = larger_is_better ? -INFINITY : INFINITY, .scale = 1};
}

static int is_better(const struct plateau_config *c, double value, double best)
{
    if (c->larger_is_better)
        return value > (c->absolute ? best + c->threshold : best * (1 + c->threshold));
    return value < (c->absolute ? best - c->threshold : best * (1 - c->threshold));
}

int plateau_step(struct plateau *p, const struct plateau_config *c, double value)
{
    int better = is_better(c, value, p->best);
    if (better)
        p->best = value;
    p->bad = better ? 0 : p->bad + 1;
    if (p->cooldown > 0) {
        p->cooldown--;
        p->bad = 0;
    }
    if (p->bad <= c->patience)
        return 0;
    p->cooldown = c->cooldown;
    p->bad = 0;
    double scale = fmax(p->scale * c->factor, c->scale_min);
    if (p->scale - scale <= c->step_min)
        return 0;
    p->scale = scale;
    return 1;
}
