/* predictions.h - a file of predictions, row by row in the order of the data: HDF5 or CSV, as the
 * name ends (.h5, .hdf5, .csv).
 *
 * A model that leaves a class for each of S steps has K outputs a step: [N, S, K], [N, S], and in
 * CSV a line a step, with a column step behind row.
 *
 *   HDF5  outputs [N, K] float32; where the loss makes them, probabilities [N, K] float32; where it
 *         is of classes, classes [N] uint32. What else is known are attributes of the root:
 *         class_names, one a line, where they are known.
 *   CSV   a header, then row (from 0), class, name (of the class, where those are known; quoted
 *         where RFC 4180 says so), and p_0.. (probabilities) or y_0.. (outputs), each
 *         with the 9 digits that give the same float32 back
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

/* Begin a file of `rows` rows that come batch_rows at a time. class_names: one a line, or NULL, at
 * most H5FILE_TEXT_MAX bytes; a class beyond them has none. Borrows path and model. */
int predictions_open(struct predictions **p_p, const char *path, const struct model *m,
                     const char *class_names, uint64_t rows, uint64_t batch_rows, struct err *e);

/* outputs[rows, m->outputs] of the next rows: batch_rows of them, but of the last ones. */
int predictions_add(struct predictions *p, const float *outputs, uint64_t rows, struct err *e);

/* An attribute; nothing in a CSV file. */
int predictions_text(struct predictions *p, const char *name, const char *text, struct err *e);
int predictions_number(struct predictions *p, const char *name, double value, struct err *e);

/* All rows were added. *p_p is NULL afterwards; on failure an older file of that name stays. */
int predictions_commit(struct predictions **p_p, struct err *e);
void predictions_abandon(struct predictions **p_p); /* harmless on NULL */

#endif
