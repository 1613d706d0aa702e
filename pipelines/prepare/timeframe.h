/* timeframe.h - lengths of bars, the windows asked for in them, and moments written as text. */
#ifndef PIPELINES_PREPARE_TIMEFRAME_H
#define PIPELINES_PREPARE_TIMEFRAME_H

#include <stdint.h>

#include "proto/err.h"

enum { TIMEFRAMES_MAX = 6, TIMEFRAME_BARS_MAX = 65536 };

/* A length that divides the day, so that its bars begin by the clock: M1 to M30, H1 to H12, D1. */
struct timeframe {
    char name[4];
    uint32_t seconds;
};

/* The timeframe of that length or name, or NULL. */
const struct timeframe *timeframe_of(int64_t seconds);
const struct timeframe *timeframe_named(const char *name);

struct window {
    const struct timeframe *frame;
    uint32_t bars;
};

/* "M1:480 M5:288" -> windows in that order, each timeframe once. */
int windows_parse(const char *text, struct window windows[TIMEFRAMES_MAX], uint32_t *count,
                  struct err *e);

/* A moment as seconds since 1970 UTC. Read is what can mean one moment only: a date with the year
 * first (2022-08-15, 2022.08.15, 2022/08/15, 20220815), then blanks or a T and a time of day
 * (10:06, 10:06:30, 100630, fractions that are 0), then Z, UTC, GMT or an offset (+02:00); or Unix
 * time from 2001 to 2033 (10 digits; 13: milliseconds). Without a zone it is taken as UTC, so that
 * days and hours are those of the file. clock: the time of day from another column, or NULL. 0, or
 * -1. */
int moment_read(const char *date, const char *clock, int64_t *seconds);

/* "2022-08-15 10:06" */
enum { MOMENT_BYTES = 32 };
const char *moment_show(int64_t seconds, char text[MOMENT_BYTES]);

#endif
