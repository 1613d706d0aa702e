/* check_graphs.h - what a data file of layout graph holds, for `prepare check`. */
#ifndef PIPELINES_PREPARE_CHECK_GRAPHS_H
#define PIPELINES_PREPARE_CHECK_GRAPHS_H

#include "proto/err.h"
#include "proto/h5file.h"

/* 1 if `group` holds graphs. */
int check_graphs_has(struct h5reader *r, const char *group);

/* Read the data sets of the group once and print shapes, ranges, constant features, sizes of the
 * graphs and how many are empty. Refuses pointers that are not in order (cuts.h), data sets that do
 * not fit together and edges that leave their graph; what else stands in the way of training goes
 * to *wrong, unless it says something already: values that are no finite float32, graphs without
 * nodes, no targets. Of the targets only the number of rows is looked at here. */
int check_graphs(struct h5reader *r, const char *group, struct err *wrong, struct err *e);

#endif
