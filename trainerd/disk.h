/* disk.h - what a run will write below its directory, before it does: for --plan, and at the start
 * against what the file system has free. */
#ifndef TRAINERD_DISK_H
#define TRAINERD_DISK_H

#include <limits.h>
#include <stdint.h>

#include "engine/model.h"
#include "proto/err.h"
#include "proto/options.h"

/* Bytes. Names that share a file are counted as if each had its own, so a run may take less. */
struct disk_forecast {
    uint64_t checkpoint;       /* one of them, of an end of a task */
    uint64_t carried;          /* more inside an epoch of rows that go on (data.stateful) */
    uint64_t checkpoints;      /* how many at most, the one being written included */
    uint64_t averages, fisher; /* of use_swa; Fisher files; sums and parts of one being made */
    uint64_t lineage;          /* a record a step */
    uint64_t metrics;          /* monitor.csv: the file and the one before it */
    uint64_t most, least;      /* all together; what no luck makes less: the ends of tasks, and a
                                  checkpoint being written. Not lineage: tasks may end early */
    uint64_t fisher_least;     /* the same of the Fisher information alone */
};

/* What the file systems have free, for whoever asks. */
struct disk_room {
    uint64_t run, fisher; /* bytes; fisher: apart only */
    int apart;            /* the Fisher information lies on another file system than the run */
    char place[PATH_MAX]; /* where, for people */
};

/* steps: optimizer steps of the whole run. Where tasks freeze layers the moments are counted of all
 * parameters that `frozen` leaves. */
struct disk_forecast disk_forecast_make(const struct options *o, const struct model *m,
                                        uint64_t frozen, uint64_t steps);

/* At `run` and where its Fisher information is or will be; that may not be there yet, and is on the
 * run's then. -1 and *e when it cannot be said. */
int disk_room_find(struct disk_room *r, const char *run, const char *fisher, struct err *e);

/* What the run's own file system takes at most. */
uint64_t disk_most(const struct disk_forecast *f, const struct disk_room *r);

/* One line for people, without its end. */
void disk_text(const struct disk_forecast *f, const struct disk_room *r, char *text, size_t bytes);

/* In the run's directory: does it fit beside what the run has written already? 0, with a warning if
 * the most may not; -1 (permanent) when a run that begins (`fresh`) cannot end. */
int disk_check(const struct disk_forecast *f, int fresh, struct err *e);

#endif
