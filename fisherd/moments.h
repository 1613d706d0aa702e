/* moments.h - the Fisher information that training has left behind: Adam's second moment of a
 * task's checkpoint.
 *
 * v is a decaying mean of the squared gradients of whole batches, as they met the optimizer: of the
 * mean over a batch's rows, clipped, with the penalty of earlier tasks. F = v / (1 - beta2^t) times
 * the rows of a batch: near an optimum, where a batch's mean gradient is noise alone, that is the
 * mean over rows of their squared gradients. It costs nothing and takes no samples; it is of the
 * parameters of the last 1 / (1 - beta2) steps, not of those at the end.
 */
#ifndef FISHERD_MOMENTS_H
#define FISHERD_MOMENTS_H

#include <stdint.h>

#include "engine/model.h"
#include "proto/err.h"

struct moments {
    const struct model *model;
    int fd;
    double factor;     /* of v */
    uint64_t *offsets; /* of the tensors' v in the file; 0: it has none, it was frozen */
};

/* Of a checkpoint whose parameters have that digest; all of it is verified. -1: permanent where it
 * has no second moments, or no step was made. moments_close is due either way. */
int moments_open(struct moments *m, const char *path, const char *sha256, const struct model *model,
                 double beta2, uint64_t batch_rows, struct err *e);
void moments_close(struct moments *m); /* harmless twice */

/* F of the parameters first .. first + count - 1: values[count]. */
int moments_read(const struct moments *m, uint64_t first, uint64_t count, float *values,
                 struct err *e);

#endif
