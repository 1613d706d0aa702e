/* grad_scaler.h - the dynamic loss scale of float16, as torch.cuda.amp.GradScaler.
 *
 * The loss is multiplied by the scale, so that small gradients do not become 0 in 16 bits; the
 * batch's gradient is divided by it. Where a gradient is not finite the step is skipped and the
 * scale halved; after `interval` steps without it is doubled, unless that is infinite.
 */
#ifndef ENGINE_GRAD_SCALER_H
#define ENGINE_GRAD_SCALER_H

#include <stdint.h>

struct grad_scaler {
    float scale;
    uint64_t tracker; /* steps since it changed */
};

/* PyTorch's: init_scale 65536, growth_interval 2000. */
struct grad_scaler_config {
    double init_scale;
    uint64_t growth_interval;
};

void grad_scaler_begin(struct grad_scaler *g, const struct grad_scaler_config *c);

/* What the gradient of a scaled loss is multiplied by. */
float grad_scaler_inverse(const struct grad_scaler *g);

/* After a batch whose gradient is (skipped) not finite, or with which a step was made. */
void grad_scaler_update(struct grad_scaler *g, const struct grad_scaler_config *c, int skipped);

#endif
