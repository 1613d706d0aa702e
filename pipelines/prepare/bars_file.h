/* bars_file.h - a CSV file of bars (time, open, high, low, close and, if there is one, volume), bar
 * by bar, in order of time.
 *
 * Told by content: the delimiter (, ; tab or |), whether the first row names the columns (one of
 * them is then called open), where the columns are, how times are written (timeframe.h). Without
 * names they are the time, or date and time of day, open, high, low, close and perhaps volume, and
 * no other. Refused with line and column: what can be read in two ways, bars out of order or twice,
 * prices that are not above 0 or contradict each other.
 */
#ifndef PIPELINES_PREPARE_BARS_FILE_H
#define PIPELINES_PREPARE_BARS_FILE_H

#include <stdint.h>

#include "pipelines/prepare/csv.h"

struct bar {
    int64_t time; /* its beginning, seconds since 1970 */
    double open, high, low, close, volume;
};

enum bar_column {
    BAR_DATE, /* with the time of day unless BAR_CLOCK is there */
    BAR_CLOCK,
    BAR_OPEN,
    BAR_HIGH,
    BAR_LOW,
    BAR_CLOSE,
    BAR_VOLUME,
    BAR_COLUMNS
};

struct bars_file {
    struct csv csv;
    int64_t column[BAR_COLUMNS]; /* -1: it is not there */
    char *names[BAR_COLUMNS];    /* of the columns, or NULL */
    uint32_t columns;
    int header, drop;
    uint64_t first_line;
    uint64_t dropped, dropped_line; /* bars, and where the first of them stands */
    int64_t last;                   /* time of the bar before; INT64_MIN: none */
};

/* drop: bars with a missing value are left out and counted. 0 or -1; bars_file_close is due in both
 * cases. */
int bars_file_open(struct bars_file *f, const char *path, int drop, struct err *e);
void bars_file_close(struct bars_file *f); /* harmless twice, and on a zeroed struct */

/* Begin again; from now on bytes go to `digest` unless it is NULL. */
int bars_file_begin(struct bars_file *f, struct digest *digest, struct err *e);

/* 1 and the next bar; 0: there is none; -1. */
int bars_file_next(struct bars_file *f, struct bar *bar, struct err *e);

static inline int bars_file_has_volume(const struct bars_file *f)
{
    return f->column[BAR_VOLUME] >= 0;
}

#endif
