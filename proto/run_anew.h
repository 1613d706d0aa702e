/* run_anew.h - of run.c: a run that ended before its first checkpoint has nothing to lose.
 */
#ifndef PROTO_RUN_ANEW_H
#define PROTO_RUN_ANEW_H

#include "proto/err.h"

/* Would the run begin at its first step again, and is no stage of it alive? Then it has no
 * checkpoint, and its lineage does not tell of one that is lost. What cannot be looked at is not
 * so. */
int run_is_untrained(const char *run);

/* Remove what such a run's starts left that tells of their options: RUN/changed, lineage, the
 * journals and high-water pages, what was kept of prepared data. Numbers that must not come again
 * (locks, launch) and logs stay. A death in between leaves an untrained run. */
int run_forget(const char *run, struct err *e);

#endif
