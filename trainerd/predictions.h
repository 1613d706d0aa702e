/* predictions.h - a file of predictions, row by row in the order of the data: HDF5 or CSV, as the
 * name ends (.h5, .hdf5, .csv).
 *
 * A model that leaves a class for each of S steps has K outputs a step: [N, S, K], [N, S], and in
 * CSV a line a step, with a column step before its numbers.
 *
 *   HDF5  outputs [N, K] float32; where the loss makes them, probabilities [N, K] float32; where it
 *         is of classes, classes [N] uint32; where rows have one, times [N] int64. What else is
 *         known are attributes of the root: class_names and target_names, one a line.
 *   CSV   a header, then row (from 0), time (UTC, "2022-08-15 10:06:00"), class, name (of the
 *         class), and the probabilities (p_0..) or outputs (y_0..), each with the 9 digits that
 *         give the same float32 back. Of targets with names the columns are called so, but for a
 *         name that is empty or one of the columns before. Names are quoted where RFC 4180 says so.
 *
 * Nothing is kept but a batch. The file appears whole or not at all (proto/durable.h).
 */
#ifndef TRAINERD_PREDICTIONS_H
#define TRAINERD_PREDICTIONS_H

#include <stdint.h>

#include "engine/model.h"
#include "proto/err.h"

struct predictions;

/* Does the name end as it must? -1 (permanent) if not. */
int predictions_name_check(const char *path, struct err *e);

/* What is known beside the model. Lists are of one name a line, at most H5FILE_TEXT_MAX bytes;
 * NULL: there are none. */
struct predictions_known {
    const char *class_names;  /* a class beyond them has none */
    const char *target_names; /* of a loss of values; no good unless there is one for each output */
    int has_times;            /* each row is of a moment */
};

/* Begin a file of `rows` rows that come batch_rows at a time. Borrows path and model. */
int predictions_open(struct predictions **p_p, const char *path, const struct model *m,
                     const struct predictions_known *known, uint64_t rows, uint64_t batch_rows,
                     struct err *e);

/* outputs[rows, m->outputs] of the next rows: batch_rows of them, but of the last ones; with
 * has_times times[rows], Unix time. */
int predictions_add(struct predictions *p, const float *outputs, const int64_t *times,
                    uint64_t rows, struct err *e);

/* An attribute; nothing in a CSV file. */
int predictions_text(struct predictions *p, const char *name, const char *text, struct err *e);
int predictions_number(struct predictions *p, const char *name, double value, struct err *e);

/* All rows were added. *p_p is NULL afterwards; on failure an older file of that name stays. */
int predictions_commit(struct predictions **p_p, struct err *e);
void predictions_abandon(struct predictions **p_p); /* harmless on NULL */

#endif
