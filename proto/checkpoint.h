/* checkpoint.h - the state of training between two optimizer steps, as a durable HDF5 file.
 *
 * checkpoints/step-<10 digits>-<task index>.h5 holds, as contiguous data sets h5py reads:
 *   parameters/<tensor>      float32, PyTorch's names and layouts ("0.weight" [out, in], "0.bias")
 *   moments/m/<tensor>, moments/v/<tensor>
 *   buffers/<tensor>         where the model has module buffers: "1.running_mean", "1.running_var"
 *   carried/<tensor>         inside an epoch of rows that go on from batch to batch:
 *                            "0.h_l0", "0.c_l0" [rows of a batch, values]
 *   results                  uint8, text: a line a result; its fields, separated by tabs, are
 *                            task, after, metric, value, loss, weights_sha256
 *
 * and as attributes of the root: every other field of struct checkpoint_meta, `model` (the layer
 * list, so the file explains itself), `parameters_sha256` and `digest` (over everything above but
 * what was measured, parameters and buffers by their own digests: the same training gives the same
 * digest).
 * Texts are of fixed length, UTF-8: h5py gives them as bytes. The rename is the commit; the newest
 * file whose digest verifies is the state. Written by trainerd, read by trainerd, fisherd
 * (parameters only) and monitord (attributes only).
 */
#ifndef PROTO_CHECKPOINT_H
#define PROTO_CHECKPOINT_H

#include <stdint.h>

#include "proto/err.h"
#include "proto/h5file.h"

enum { CHECKPOINT_TENSORS_MAX = 4096, CHECKPOINT_RESULTS_MAX = 1024, CHECKPOINT_MODEL_MAX = 65536 };

/* Instead of a task that had ended: the weights are those that the run began with. No task is
 * called that. */
#define CHECKPOINT_AFTER_NONE "start"

struct checkpoint_result { /* one evaluation at the end of a task */
    char task[64];         /* whose data */
    char after[64];        /* task that had ended, or CHECKPOINT_AFTER_NONE */
    char metric[32];
    double value, loss;
    char weights_sha256[65]; /* of the parameters evaluated */
};

struct checkpoint_meta {
    uint64_t version; /* 6, or of a file read 5, without what was measured, or 4, without bad_steps
                         and epoch_rows_bad either */
    uint64_t seed;
    uint64_t task; /* index of the task being trained; task_count: all are done */
    char task_name[64];
    uint64_t epoch;     /* epochs of the task finished */
    uint64_t position;  /* rows of the present epoch consumed: the data cursor */
    uint64_t step;      /* optimizer steps of the run so far */
    uint64_t task_step; /* of this task */
    uint64_t slice_rows, micro_batch_rows, threads;
    double epoch_loss_sum; /* sum over rows of the present epoch's losses so far, fixed order */
    double best_value;     /* best evaluation of the present task so far; NaN: none */
    char metric[32];       /* what it is (proto/metric.h) */
    double plateau_best, plateau_scale; /* engine/plateau.h, of the present task */
    uint64_t plateau_bad, plateau_cooldown;
    double stop_best;        /* best of what early stopping watches; infinite: none */
    uint64_t stop_bad;       /* epochs since then */
    uint64_t average_count;  /* epochs in the average of the weights; 0: there is none yet */
    char average_sha256[65]; /* of its file (trainerd/average.h); else empty */
    uint64_t steps_skipped;  /* steps of the schedule that tasks which ended early did not make */
    uint64_t restores;       /* times this task went back to a checkpoint after a bad number ... */
    double restore_scale;    /* ... and the factor of its rates since then */
    uint64_t bad_steps;      /* steps of this task with a bad number that were skipped ... */
    uint64_t epoch_rows_bad; /* ... and rows of the present epoch in them, or in steps in which
                                nothing counts: not in epoch_loss_sum */
    char fingerprint[65];    /* of the data: checkpoint_fingerprint */
    char cpu[64]; /* what computes, a CPU's arithmetic and name, or "cuda: " and a GPU's name: bits
                     hold for one */
    char pretrained_sha256[65]; /* of model.pretrained's bytes, once a task began with it */
    char parameters_sha256[65];
    char buffers_sha256[65];  /* empty: there are none */
    double loss_scale;        /* of float16; 0: none */
    uint64_t scale_tracker;   /* steps since it changed */
    uint64_t task_skipped;    /* of task_step: steps that changed nothing. AdamW's t is the rest */
    uint64_t moment_steps;    /* at a task's end, where task_step is the next one's: AdamW's t of
                                 the moments */
    uint64_t batches_tracked; /* micro-batches that the module buffers have taken in: PyTorch's
                                 num_batches_tracked of every batchnorm */
    /* Measured, and so not in the digest: rows of the present epoch trained on so far, the time
     * they took without evaluations and checkpoints, and what of it was spent waiting. */
    uint64_t epoch_rows_timed;
    double epoch_seconds, epoch_wait_seconds;
    uint32_t result_count;
    struct checkpoint_result results[CHECKPOINT_RESULTS_MAX];
};

enum checkpoint_kind {
    CHECKPOINT_PARAMETER,
    CHECKPOINT_BUFFER,
    CHECKPOINT_CARRIED,
    CHECKPOINT_KINDS
};

struct checkpoint_tensor {
    char name[64]; /* "0.weight" */
    int rank;
    uint64_t dims[2];
    float *parameter, *m, *v;  /* m and v may be NULL: absent, of this tensor alone or of all;
                                  borrowed */
    enum checkpoint_kind kind; /* the numbers at `parameter` are; only parameters have moments */
};

/* SHA-256 over the arrays parameters/<tensor> in order (name, type, shape and bytes of each; no
 * moments, no module buffers): what parameters_sha256 and weights_sha256 are. */
int checkpoint_parameters_digest(const struct checkpoint_tensor *tensors, uint32_t count,
                                 char hex[65], struct err *e);

/* Write one durably. Fills meta->parameters_sha256 and buffers_sha256; *digest is that of the whole
 * state; path (relative to the run) and *bytes say what was written. */
int checkpoint_write(const char *path, struct checkpoint_meta *meta, const char *model,
                     const struct checkpoint_tensor *tensors, uint32_t count, char digest[65],
                     uint64_t *bytes, struct err *e);

/* Read attributes only. */
int checkpoint_read_meta(const char *path, struct checkpoint_meta *meta, char *model,
                         size_t model_bytes, struct err *e);

/* Read tensors into the borrowed pointers of `tensors`, whose names, order and shapes must be the
 * file's, as must be which of them have an m and a v, and verify the digest over everything.
 * want_moments 0 leaves m and v alone and verifies parameters_sha256, and buffers_sha256 where
 * `tensors` has module buffers; without them it takes the parameters alone. */
int checkpoint_read(const char *path, struct checkpoint_meta *meta,
                    const struct checkpoint_tensor *tensors, uint32_t count, int want_moments,
                    struct err *e);

/* What a checkpoint says of `count` data files with these fingerprints, in the order of the tasks
 * that read them first: one digest for all, that of the file where there is one. */
int checkpoint_fingerprint(const char (*each)[65], uint32_t count, char all[65], struct err *e);

/* The newest checkpoint of directory `dir` (by step, then task) whose digest verifies; bad ones are
 * named in a warning and passed over. Where no step-... is good it is one that another name keeps:
 * the end of a task, the best of one, restore.h5. 1: found, `path` filled; 0: there are none; -1,
 * also (permanent) where none of those that are there is good, or a file that would be looked at is
 * of a version that this program does not read: going on without it would lose it. */
int checkpoint_newest(const char *dir, char *path, size_t path_bytes, struct err *e);

#endif
