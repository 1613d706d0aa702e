/* fisherdir.h - where a run's Fisher information lies: RUN/fisher, a directory, or with
 * continual_learning.fisher_dir a link to FISHER_DIR/<name>-<8 hex>, on a disk of its own.
 *
 * Everybody opens RUN/fisher/... and need not know. That directory holds a file `run` that says
 * whose it is ("Fisher information of the run in RUN"), so that what is removed with a run
 * (pipelines/clean.sh) is never somebody else's. A link that somebody made by hand leads to a
 * directory without that file; it stays as it is.
 */
#ifndef PROTO_FISHERDIR_H
#define PROTO_FISHERDIR_H

#include <limits.h>

#include "proto/err.h"
#include "proto/options.h"

/* The directory that the option names, absolute and without links: 1; 0: none, or no task protects
 * another; -1 and *e (permanent): it is not there. It is never made: where a disk is not mounted
 * that would fill another one. */
int fisherdir_parent(const struct options *o, char parent[PATH_MAX], struct err *e);

/* Does RUN/fisher hold anything but whose it is? 1 also where that cannot be looked at. */
int fisherdir_holds(const char *run);

/* What the link RUN/fisher says; empty: it is none. */
void fisherdir_link(const char *run, char target[PATH_MAX]);

/* Can what RUN/fisher leads to be reached? -1 (temporary: a disk may be mounted later) names it. */
int fisherdir_reach(const char *run, struct err *e);

/* Make RUN/fisher durably as the options have it; what holds anything stays where it is. Whose it
 * is follows a run that was moved. -1: it cannot be reached or made, or is that of another run, as
 * in a copy of a run's directory. */
int fisherdir_make(const char *run, const struct options *o, struct err *e);

#endif
