/* metrics.h - logs/metrics.csv: a row a round of samples, for spreadsheets and scripts.
 *
 * Only when monitor.csv asks for it. The columns are the same for the life of a file (metrics.c has
 * them, the first line their names with units); a cell is empty where there is nothing to say. A
 * restarted monitord goes on with a file whose first line is its own, and cuts off a last row that
 * is not whole; any other file becomes metrics.csv.old, and so does one that has reached its limit,
 * in place of the one before. Rows are neither synced nor waited for: one that cannot be written is
 * lost, and told now and then.
 */
#ifndef MONITORD_METRICS_H
#define MONITORD_METRICS_H

#include <stdint.h>

#include "monitord/sample.h"

enum { METRICS_ROW_BYTES_MAX = 2048 };

struct metrics {
    int fd;         /* -1: not open, the next row tries to */
    uint64_t bytes; /* of its whole rows */
    uint64_t bytes_max;
    uint64_t lost; /* rows */
};

/* Below the present directory; the file is made with its first row. */
void metrics_open(struct metrics *m, uint64_t bytes_max);
void metrics_close(struct metrics *m);

/* step: the newest trainer.step of the trainerd that runs, NULL: none. */
void metrics_row(struct metrics *m, const struct sample_round *round,
                 const struct msg_trainer_step *step);

#endif
