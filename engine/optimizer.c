/* optimizer.c - see optimizer.h. Formulas of one element are in scalar.h. */
#include "engine/optimizer.h"

#include <math.h>

int optimizer_moments(enum optimizer_kind kind)
{
    static const int moments[] = {
        [OPTIMIZER_ADAMW] = 2, [OPTIMIZER_SGD_MOMENTUM] = 1, [OPTIMIZER_SGD] = 0};
    return moments[kind];
}

static struct adamw_scalars adamw_make(const struct optimizer_config *c, uint64_t t, double rate,
                                       double clip)
{
    return (struct adamw_scalars){
        .clip = (float)clip,
        .decay = (float)(rate * c->weight_decay),
        .beta1 = (float)c->beta1,
        .one_beta1 = (float)(1.0 - c->beta1),
        .beta2 = (float)c->beta2,
        .one_beta2 = (float)(1.0 - c->beta2),
        .rate = (float)(rate / (1.0 - pow(c->beta1, (double)t))),
        .root = (float)(1.0 / sqrt(1.0 - pow(c->beta2, (double)t))),
        .eps = (float)c->eps,
    };
}

static struct sgd_scalars sgd_make(const struct optimizer_config *c, double rate, double clip)
{
    return (struct sgd_scalars){
        .clip = (float)clip,
        .decay = (float)c->weight_decay,
        .momentum = (float)c->momentum,
        .of_moment = c->nesterov ? (float)c->momentum : 1.0f,
        .of_gradient = c->nesterov ? 1.0f : 0.0f,
        .rate = (float)rate,
    };
}

/* The norm is that over both groups. */
struct optimizer_scalars optimizer_scalars_make(const struct optimizer_config *c, uint64_t t,
                                                double norm, const struct step_verdict *late)
{
    double clip = scalar_clip(norm, c->max_grad_norm);
    const double rates[2] = {c->backbone_rate, c->learning_rate};
    struct optimizer_scalars o;
    for (int group = 0; group < 2; group++) {
        o.adamw[group] = adamw_make(c, t, rates[group], clip);
        o.sgd[group] = sgd_make(c, rates[group], clip);
        o.adamw[group].late = o.sgd[group].late = late;
    }
    return o;
}

static void group_update(const struct stepper *s, const struct optimizer_scalars *o, int group,
                         uint64_t first, uint64_t count)
{
    uint64_t at = first - s->layout.frozen;
    float *p = s->parameters + first;
    const float *g = s->gradient + at;
    enum half half = s->device->apart ? s->layout.half : HALF_NONE;
    float *weights = s->weights + first;
    if (s->config.optimizer == OPTIMIZER_ADAMW)
        op_adamw(s->backend, p, s->moment_m + at, s->moment_v + at, g, count, &o->adamw[group],
                 half, weights);
    else if (s->config.optimizer == OPTIMIZER_SGD_MOMENTUM)
        op_sgd_momentum(s->backend, p, s->moment_m + at, g, count, &o->sgd[group], half, weights);
    else
        op_sgd(s->backend, p, g, count, &o->sgd[group], half, weights);
}

void optimizer_update(const struct stepper *s, const struct optimizer_scalars *o, uint64_t first,
                      uint64_t count)
{
    uint64_t backbone = s->layout.backbone;
    uint64_t slow = first >= backbone ? 0 : first + count <= backbone ? count : backbone - first;
    if (slow)
        group_update(s, o, 0, first, slow);
    if (slow < count)
        group_update(s, o, 1, first + slow, count - slow);
}
