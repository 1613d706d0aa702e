/* log.h - one line an event on standard error.
 *
 *   2026-01-31T12:00:00.123Z loaderd info stream=1 span=7 "sentence"
 *
 * Measurements are messages (messages.def), not log lines. The supervisor turns standard error into
 * logs/<stage>/. Thread-safe: a line is one write(2) of at most 2,048 bytes.
 */
#ifndef PROTO_LOG_H
#define PROTO_LOG_H

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

/* Name this process in every line (borrowed, must outlive the process; default "-"). */
void log_stage_set(const char *stage);

/* Lines below `level` are dropped (default LOG_LEVEL_INFO). */
void log_level_set(enum log_level level);

/* Write one line. By custom the text starts with key=value words and ends with a sentence. */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...)  log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)

#endif
