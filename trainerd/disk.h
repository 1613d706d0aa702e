/* disk.h - what a run will write below its directory, before it does: for --plan, and at the start
 * against what the file system has free. */
#ifndef TRAINERD_DISK_H
#define TRAINERD_DISK_H

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
};

/* steps: optimizer steps of the whole run. Where tasks freeze layers the moments are counted of all
 * parameters that `frozen` leaves. */
struct disk_forecast disk_forecast_make(const struct options *o, const struct model *m,
                                        uint64_t frozen, uint64_t steps);

/* Free on the file system of `path`, for whoever asks; -1 and *e when it cannot be said. */
int disk_free(const char *path, uint64_t *bytes, struct err *e);

/* One line for people, without its end. */
void disk_text(const struct disk_forecast *f, uint64_t free_bytes, char *text, size_t bytes);

/* In the run's directory: does it fit beside what the run has written already? 0, with a warning if
 * the most may not; -1 (permanent) when a run that begins (`fresh`) cannot end. */
int disk_check(const struct disk_forecast *f, int fresh, struct err *e);

#endif
