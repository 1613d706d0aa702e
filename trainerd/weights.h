/* weights.h - the weights in a file, by name: a checkpoint of the house or a safetensors file from
 * anywhere. Which of the two it is the file's first bytes tell.
 *
 * Weights are a model's parameters and its module buffers (running statistics), one list here. A
 * checkpoint's are verified against its digest when it is opened. Numbers are converted
 * to float32 while they are read: of F16, BF16, F32, F64, and I8 where the file has a tensor of
 * that name and ".scale" behind it, F32, one number a row (what `weights.sh export --int8` writes:
 * weight = scale of its row times the number). Others, and numbers that are not finite as float32,
 * are refused with the tensor's name.
 */
#ifndef TRAINERD_WEIGHTS_H
#define TRAINERD_WEIGHTS_H

#include <stdint.h>

#include "engine/model.h"
#include "proto/h5file.h"
#include "proto/safetensors.h"

struct weights {
    char *path;                     /* own copy */
    struct safetensors safetensors; /* where there is no reader; of a checkpoint: the list only */
    struct h5reader *reader;        /* of a checkpoint */
    uint64_t batches_tracked;       /* that its module buffers have seen; 0: not known */
    char *model;                    /* the model's text (engine/model.h); NULL: it does not say */
    char sha256[65];                /* of the file's bytes */
};

/* 0, or -1 and *e (permanent where the file is not usable). */
int weights_open(struct weights *w, const char *path, struct err *e);
void weights_close(struct weights *w); /* harmless twice, and on zeroed storage */

/* All of them, sorted by name, are w->safetensors.tensors. Borrowed. */
const struct safetensor *weights_find(const struct weights *w, const char *name);

/* Is it the scales of another one of the file? */
int weights_is_scale(const struct weights *w, const struct safetensor *t);

/* The model's tensors and module buffers as one list. */
uint32_t weights_count(const struct model *m);
const struct tensor_info *weights_info(const struct model *m, uint32_t i);
/* Where number `i`'s values are: `parameters` and `buffers` being those of the whole model. */
float *weights_place(const struct model *m, uint32_t i, float *parameters, float *buffers);

/* All that the model has, by name, each in its shape. -1 (permanent) names what is missing. */
int weights_load(const struct weights *w, const struct model *m, float *parameters, float *buffers,
                 struct err *e);

/* Is the tensor of the file of that shape? */
int weights_fits(const struct safetensor *t, const struct tensor_info *info);

/* All numbers of one of them into out[safetensor_items(t)]. */
int weights_read(const struct weights *w, const struct safetensor *t, float *out, struct err *e);

#endif
