/* weights.h - the weights in a file, by name: a checkpoint of the house or a safetensors file from
 * anywhere. Which of the two it is the file's first bytes tell.
 *
 * A checkpoint's weights are verified against its digest when it is opened. Numbers are converted
 * to float32 while they are read: of F16, BF16, F32 and F64; others, and numbers that are not
 * finite as float32, are refused with the tensor's name.
 */
#ifndef TRAINERD_WEIGHTS_H
#define TRAINERD_WEIGHTS_H

#include <stdint.h>

#include "proto/h5file.h"
#include "proto/safetensors.h"

struct weights {
    char *path;                     /* own copy */
    struct safetensors safetensors; /* where there is no reader; of a checkpoint: the list only */
    struct h5reader *reader;        /* of a checkpoint */
    char *model;                    /* the model's text (engine/model.h); NULL: it does not say */
    char sha256[65];                /* of the file's bytes */
};

/* 0, or -1 and *e (permanent where the file is not usable). */
int weights_open(struct weights *w, const char *path, struct err *e);
void weights_close(struct weights *w); /* harmless twice, and on zeroed storage */

/* All of them, sorted by name, are w->safetensors.tensors. Borrowed. */
const struct safetensor *weights_find(const struct weights *w, const char *name);

/* All numbers of one of them into out[safetensor_items(t)]. */
int weights_read(const struct weights *w, const struct safetensor *t, float *out, struct err *e);

#endif
