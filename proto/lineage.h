/* lineage.h - RUN/lineage: what every optimizer step saw and gave, so that a recomputed step can be
 * compared.
 *
 * 32 bytes a step at offset step * 32. A hole (a machine that died before the page was written) is
 * zero, which no record is: `step_plus_1` is the step's number from 1. Not fsynced: it is a
 * witness, not state. Trainerd writes it; who makes a run's directory asks whether there was a
 * step.
 */
#ifndef PROTO_LINEAGE_H
#define PROTO_LINEAGE_H

#include <stdint.h>

#include "proto/err.h"

struct lineage_record {
    uint64_t step_plus_1;
    uint64_t task_epoch;       /* lineage_task_epoch */
    uint64_t position;         /* of the batch's first row in the epoch */
    uint32_t micro_batch_rows; /* and LINEAGE_SKIPPED */
    uint32_t loss_bits;        /* of the float that the batch's mean loss rounds to */
};

/* The step changed nothing: its gradient overflowed in float16, or it had a bad number and was
 * skipped. */
#define LINEAGE_SKIPPED (1u << 31)

struct lineage {
    int fd; /* -1: closed */
};

int lineage_open(struct lineage *l, const char *path, struct err *e);
void lineage_close(struct lineage *l); /* harmless twice */

uint64_t lineage_task_epoch(uint64_t task, uint64_t epoch);
uint32_t lineage_loss_bits(double loss);
double lineage_loss(const struct lineage_record *r);

/* Write a step's record. 1: the step was done before and gave another record, now in *before; 0: it
 * is new or the same; -1 and *e. */
int lineage_write(struct lineage *l, const struct lineage_record *now,
                  struct lineage_record *before, struct err *e);

/* What was written of steps from `step` (from 0) on is forgotten: they come again, but otherwise.
 */
int lineage_cut(struct lineage *l, uint64_t step, struct err *e);

/* The last record of the file at `path`. 1; 0: there is none; -1 and *e. */
int lineage_last(const char *path, struct lineage_record *last, struct err *e);

/* May the run have had no checkpoint yet when it wrote this record? The one at the end of an epoch
 * is there before the steps of the second epoch after it are. */
int lineage_is_beginning(const struct lineage_record *last);

#endif
