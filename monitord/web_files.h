/* web_files.h - what of a run's files may be looked at over HTTP: its report, the pictures and
 * tables of its memory, the ends of its stages' logs. Nothing else has a name here.
 *
 * One stands in the run's directory.
 */
#ifndef MONITORD_WEB_FILES_H
#define MONITORD_WEB_FILES_H

#include <stddef.h>

#include "monitord/json.h"

enum { WEB_LOG_BYTES = 64 << 10, WEB_FILES_MAX = 64 };

/* "files": their names; the newest of the memory profiles, if there are many. */
void web_files_write(struct json *j);

/* A descriptor of the file of such a name, which has so many bytes now; -1: there is none. */
int web_file_open(const char *name, size_t *bytes, const char **type);

/* The last lines of a stage's log, malloc'ed; NULL: it has none, or there is no memory. */
char *web_log_read(const char *stage, size_t *bytes);

#endif
