/* work.h - one estimate being made: model, samples, the sums, and the parts on disk.
 *
 *   work_open     checkpoint -> model, blocks, stream asked of loaderd
 *   work_ready    the stream is open: which samples, in which types, memory for their batches,
 *                 parameters (digest checked), sums where an earlier process left them
 *   work_batch    one batch of samples into the sums of all parameters
 *   work_block    the next block that has no part yet
 *   work_finish   the block's mean -> a durable part
 *   work_join     all parts -> fisher/<task>.h5
 *
 * estimate.c calls them in this order. What a kill leaves is the sums as sums.h has them, and the
 * finished parts.
 */
#ifndef FISHERD_WORK_H
#define FISHERD_WORK_H

#include <stdint.h>

#include "engine/fisher_code.h"
#include "engine/step.h"
#include "fisherd/merge.h"
#include "fisherd/moments.h"
#include "fisherd/sums.h"
#include "proto/daemon.h"
#include "proto/feed.h"
#include "proto/fisherfile.h"
#include "proto/msg.h"

/* What stands in the file's attribute `estimator`, up to the colon. From ESTIMATOR_ADAM on they
 * take no samples, and have nothing but a pool of threads and what is named after them. */
enum estimator_kind { ESTIMATOR_EXACT, ESTIMATOR_FACTORED, ESTIMATOR_ADAM, ESTIMATOR_ONLINE };

struct work {
    const struct options *options;
    enum estimator_kind kind;
    struct msg_estimate job;
    struct model model;
    const struct device *device; /* open while there is a stepper; else NULL */
    uint64_t device_context_bytes;
    char computed_on[64]; /* the checkpoint: its attribute `cpu` */
    struct stepper *stepper;
    struct feed *feed;
    struct gather_config gather;
    uint32_t *permutation;
    struct feed_row *rows; /* of a batch; their fields: */
    const void **features, **targets, **weights;
    struct graph_row *graphs; /* where rows are graphs, else NULL */
    uint64_t batch_rows;
    struct fisherfile_meta meta; /* blocks, samples, parameters; what the file will say */
    struct sums sums;            /* of all parameters; of factors (engine/factors.h) */
    struct moments moments;      /* ESTIMATOR_ADAM */
    struct merge merge;          /* ESTIMATOR_ONLINE: of several tasks' files */
    struct pool *pool;
    uint64_t position;               /* samples summed */
    uint64_t gathered;               /* rows of the next batch already in the stepper */
    int summed;                      /* all of them, and the sums are kept; or nothing is summed */
    double committed_s, commit_cost; /* when the sums were last made durable; seconds it took */
    double committing_s;             /* since when that is under way; 0: it is not */
    uint64_t block;                  /* to be written, 0 .. meta.blocks - 1 */
    struct fisherfile_block range;   /* of it */
    struct fisher_code code;         /* of a block being stored */
    struct fisherfile_join *join;    /* while parts are joined */
    float *values;                   /* room for the largest block */
    char path[96], part_dir[96];     /* relative to the run */
};

/* `number` counts the jobs of this process. 0 or -1 and *e: permanent when the job cannot be done
 * as asked. work_close is due either way. */
int work_open(struct work *w, const struct options *o, uint64_t incarnation, uint64_t number,
              const struct msg_estimate *job, struct err *e);
void work_close(struct work *w); /* gives all memory and the arena back; harmless twice */

/* 1: the stream is open and fits the model, or there is none; 0: not yet. */
int work_ready(struct work *w, struct err *e);

/* Sum one batch if its rows are there, or do a piece of what keeping the sums takes. 1: done, or
 * w->summed; 0: rows are missing, wait. */
int work_batch(struct work *w, struct err *e);

/* Behind the last batch: gives back what samples were summed with, the arena and the device too. */
int work_samples_end(struct work *w, struct err *e);

/* The memory of a device apart that it has, into the page. */
void work_device_measure(const struct work *w, struct highwater *page);

/* Go to the first block from w->block on that has no part. 1: there is one; 0: all are made. */
int work_block(struct work *w, struct err *e);

/* Write the block's part; w->range then has its size and error. */
int work_finish(struct work *w, struct err *e);
/* Join another part to the file. 1: it is committed; 0: there is more to do. */
int work_join(struct work *w, struct err *e);

/* Remove what is left of making a Fisher file that is committed; harmless when there is nothing. */
void work_clean(const char *part_dir);

/* Keys the order of the job's samples: FNV-1a of its name, mixed with the run's seed. */
uint64_t work_key(const struct work *w);

/* Where the Fisher file of a task is, and its parts while it is made. */
void work_paths(const struct msg_estimate *job, char path[96], char part_dir[96]);

#endif
