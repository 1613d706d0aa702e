/* watch.c - see watch.h. Called once an epoch by tasks.c, before the checkpoint at its end. */
#include "trainerd/watch.h"

#include <math.h>
#include <string.h>

#include "engine/plateau.h"
#include "proto/metric.h"

static const double RATE_STEP_MIN = 1e-8; /* eps of torch's ReduceLROnPlateau */

static const char *watched(const struct checkpoint_meta *m, const struct options *o)
{
    return strcmp(o->watch, "loss") == 0 ? "loss" : m->metric;
}

static int larger_is_better(const struct checkpoint_meta *m, const struct options *o)
{
    return metric_better(watched(m, o), 1, 0);
}

static int has_plateau(const struct options *o)
{
    return o->use_reduce_on_plateau || strcmp(o->scheduler_type, "plateau") == 0;
}

static void plateau_keep(struct checkpoint_meta *m, const struct plateau *p)
{
    m->plateau_best = p->best;
    m->plateau_scale = p->scale;
    m->plateau_bad = p->bad;
    m->plateau_cooldown = p->cooldown;
}

void watch_begin(struct checkpoint_meta *m, const struct options *o)
{
    struct plateau p = plateau_begin(larger_is_better(m, o));
    plateau_keep(m, &p);
    m->stop_best = p.best;
    m->stop_bad = 0;
}

double watch_value(const struct options *o, double metric, double loss)
{
    return strcmp(o->watch, "loss") == 0 ? loss : metric;
}

/* What rates are a share of. */
static double whole_rate(const struct options *o)
{
    return o->learning_rate > 0 ? o->learning_rate : 1;
}

double watch_scale(const struct checkpoint_meta *m, const struct options *o)
{
    if (!has_plateau(o))
        return 1;
    return fmax(m->plateau_scale, fmin(1, o->plateau_min_lr / whole_rate(o)));
}

static int plateau_epoch(struct checkpoint_meta *m, const struct options *o, double value)
{
    double rate = whole_rate(o);
    struct plateau_config c = {.larger_is_better = larger_is_better(m, o),
                               .absolute = strcmp(o->plateau_threshold_mode, "abs") == 0,
                               .threshold = o->plateau_threshold,
                               .factor = o->plateau_factor,
                               .scale_min = o->plateau_min_lr / rate,
                               .step_min = RATE_STEP_MIN / rate,
                               .patience = o->plateau_patience,
                               .cooldown = o->plateau_cooldown};
    struct plateau p = {m->plateau_best, m->plateau_scale, m->plateau_bad, m->plateau_cooldown};
    int reduced = plateau_step(&p, &c, value);
    plateau_keep(m, &p);
    return reduced;
}

int watch_epoch(struct checkpoint_meta *m, const struct options *o, double value)
{
    int better = metric_better(watched(m, o), value, m->stop_best);
    if (better)
        m->stop_best = value;
    m->stop_bad = better ? 0 : m->stop_bad + 1;
    if (has_plateau(o))
        return plateau_epoch(m, o, value);
    struct plateau none = plateau_begin(larger_is_better(m, o));
    plateau_keep(m, &none);
    return 0;
}

int watch_stops(const struct checkpoint_meta *m, const struct options *o, double value)
{
    return o->early_stopping_patience && !metric_better(watched(m, o), value, m->stop_best) &&
           m->stop_bad + 1 >= o->early_stopping_patience;
}
