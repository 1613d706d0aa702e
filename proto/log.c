/* log.c - see log.h. */
#include "proto/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES_MAX = 2048 };

static const char *log_stage = "-";
static enum log_level log_threshold = LOG_LEVEL_INFO;

void log_stage_set(const char *stage)
{
    log_stage = stage;
}

void log_level_set(enum log_level level)
{
    log_threshold = level;
}

void log_line(enum log_level level, const char *format, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    if (level < log_threshold)
        return;

    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);

    char line[LINE_BYTES_MAX];
    size_t used = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &utc);
    used += (size_t)snprintf(line + used, sizeof line - used, ".%03ldZ %s %s ",
                             now.tv_nsec / 1000000, log_stage, names[level]);
    va_list args;
    va_start(args, format);
    int added = vsnprintf(line + used, sizeof line - used - 1, format, args);
    va_end(args);
    if (added > 0)
        used += (size_t)added;
    if (used > sizeof line - 2)
        used = sizeof line - 2;
    for (size_t i = 0; i < used; i++)
        if (line[i] == '\n')
            line[i] = ' ';
    line[used++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, used);
    (void)written; /* nowhere left to say so */
}
