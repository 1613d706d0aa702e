/* seen.h - what a source's file was when it was first looked at.
 *
 * Sources are read more than once, and what the first pass found (kinds, ranges, lengths) is
 * believed in the last one. So each pass ends with a look whether the file is still what it was:
 * its size, when its content was written and when anything of it was changed last. Not its inode
 * number, which some file systems give anew at every look.
 */
#ifndef PIPELINES_PREPARE_SEEN_H
#define PIPELINES_PREPARE_SEEN_H

#include <stdint.h>
#include <sys/stat.h>

#include "proto/err.h"

struct seen {
    int64_t bytes, modified_ns, changed_ns;
};

struct seen seen_of(const struct stat *st);

/* 0; or -1 and *e, temporary: the file is another one now, or gone. */
int seen_check(const struct seen *s, const char *path, struct err *e);

/* The sentence for who notices it by what a later pass brings. Returns -1. */
int seen_changed(const char *path, struct err *e);

#endif
