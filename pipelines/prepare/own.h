/* own.h - the frame of the commands that turn a user's data into one HDF5 file, once.
 *
 * Arguments, options and --help are the same for all of them. The file is left alone while its
 * source has the same absolute name, links resolved, and its stamp (a line with the layout's
 * version and the options; names, sizes and times of the source's files) is what it was. A file
 * that prepare did not make is never replaced; one that begins as HDF5 and cannot be read may be
 * either, and is replaced when --rebuild says so.
 */
#ifndef PIPELINES_PREPARE_OWN_H
#define PIPELINES_PREPARE_OWN_H

#include <stddef.h>
#include <sys/stat.h>

#include "proto/err.h"
#include "proto/h5file.h"
#include "proto/options.h"

enum { OWN_STAMP_BYTES = 4096 };

struct maker {
    const char *name; /* of the command */
    const char *does; /* for --help: sentences in lines of at most 100 characters */
    /* Of the layout and how it is made: what changes a file of the same source and options changes
     * this. */
    const char *version;
    /* Open o->data_source. 0, or -1 and nothing to close. o outlives what is opened. */
    int (*open)(void **self_p, const struct options *o, struct err *e);
    /* Write what must differ for a rebuild: a line of options, then the sources. */
    int (*stamp)(void *self, char *stamp, size_t bytes, struct err *e);
    /* Make the file `out` at once or not at all (place_begin, place_commit), with the stamp in it
     * (own_attributes). */
    int (*make)(void *self, const char *out, const char *stamp, struct err *e);
    void (*close)(void *self);
};

/* The command: its exit code. */
int own_prepare(int argc, char **argv, const struct maker *m);

/* A source's line of a stamp: the last part of its name, its size and time. */
void own_stamp_file(char *line, size_t bytes, const char *path, const struct stat *st);

/* 1: `out` is there, of that source and with that stamp, and rebuild is 0; 0: it is to be made; -1
 * and *e: it is something else, which stays. */
int own_is_current(const char *out, const char *source, const char *stamp, int rebuild,
                   struct err *e);

/* Enter into a fingerprint what the data alone do not say: the layout's version and the options
 * (the stamp's first line). */
void own_digest_options(struct digest *d, const char *stamp);

/* The root's attributes of every prepared file: fingerprint (ends the digest), source (its absolute
 * name), source_stamp, layout. */
int own_attributes(struct h5writer *w, struct digest **d_p, const char *source, const char *stamp,
                   const char *layout, struct err *e);

#endif
