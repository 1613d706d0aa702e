/* grad_scaler.c - see grad_scaler.h. The arithmetic is float32, as PyTorch's. */
#include "engine/grad_scaler.h"

#include <math.h>

static const float GROWTH = 2, BACKOFF = 0.5f;

void grad_scaler_begin(struct grad_scaler *g, const struct grad_scaler_config *c)
{
    *g = (struct grad_scaler){.scale = (float)c->init_scale};
}

float grad_scaler_inverse(const struct grad_scaler *g)
{
    return (float)(1 / (double)g->scale);
}

void grad_scaler_update(struct grad_scaler *g, const struct grad_scaler_config *c, int skipped)
{
    if (skipped) {
        g->scale *= BACKOFF;
        g->tracker = 0;
    } else if (++g->tracker >= c->growth_interval) { /* which may have been longer before */
        if (isfinite(g->scale * GROWTH))
            g->scale *= GROWTH;
        g->tracker = 0;
    }
}
