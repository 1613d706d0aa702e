/* place.h - the name that a prepared file gets: what is left there of files that were not finished,
 * and who uses the file that has it.
 *
 * loaderd holds a shared lock (flock) on each data file of its run, and libhdf5 one on each file
 * that a program has open; who replaces the file has the exclusive one while it does so. Where a
 * file system has no such locks the file is replaced without.
 */
#ifndef PIPELINES_PREPARE_PLACE_H
#define PIPELINES_PREPARE_PLACE_H

#include "proto/err.h"
#include "proto/h5file.h"

/* Before the work: make the directories that lead to the file, remove what makers of it that were
 * killed left. 0; -1 and *e if a file
 * `out` is there and in use. */
int place_ready(const char *out, struct err *e);

/* h5writer_open; a signal that ends this process removes what it has written first. */
int place_begin(struct h5writer **w_p, const char *out, struct err *e);

/* h5writer_commit of the writer of `out`; -1 as well if the file that is there is in use by now.
 * *w_p is NULL afterwards, and on failure the file that is there stays. */
int place_commit(struct h5writer **w_p, const char *out, struct err *e);

#endif
