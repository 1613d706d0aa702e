/* stamp.h - what a source file is known by without reading it: "name bytes seconds.nanoseconds". */
#ifndef PIPELINES_PREPARE_STAMP_H
#define PIPELINES_PREPARE_STAMP_H

#include <stddef.h>

#include "proto/err.h"

/* Write the stamp of a regular file; a long name is cut at its end. */
int stamp_file(const char *path, char *stamp, size_t bytes, struct err *e);

#endif
