/* like.h - prepare.like: what new rows must have in common with a file that prepare made of other
 * ones, so that a model trained on that one can be asked about them: columns, normalisation,
 * classes.
 */
#ifndef PIPELINES_PREPARE_LIKE_H
#define PIPELINES_PREPARE_LIKE_H

#include <stdint.h>

#include "pipelines/prepare/csv.h"
#include "proto/err.h"
#include "proto/h5file.h"

struct like {
    char *path;               /* own copy; NULL: there is no such file to follow */
    char fingerprint[65];     /* of that file */
    uint32_t features;        /* of a row */
    uint32_t targets;         /* values; 0: classes */
    uint32_t classes;         /* how many */
    char *class_names;        /* one a line, where prepare gave them their numbers, else NULL */
    char *columns;            /* the features' names, one a line, or NULL */
    double *mean, *deviation; /* [features], or NULL: not normalised */
};

/* Read it; an empty path gives a zeroed struct. -1 and *e (permanent) when the file was not made by
 * `prepare csv` or `npy`; like_close is due in both cases. */
int like_read(struct like *l, const char *path, struct err *e);
void like_close(struct like *l); /* harmless twice, and on a zeroed struct */

/* Is the text one of class_names? 0 where there are none. */
int like_has_class(const struct like *l, const char *text);

/* Has a source these features (names: one a line, or NULL where it has none)? -1 and a sentence
 * that names what differs. Always, where there is no file to follow. */
int like_check(const struct like *l, const char *source, uint32_t features, const char *names,
               struct err *e);

/* The first name that is another one in two lists of one a line, which are not the same: its
 * number, and both names for a sentence, empty where there is none left. */
uint32_t like_names_differ(const char *ours, const char *theirs, char a[CSV_SHOWN_BYTES],
                           char b[CSV_SHOWN_BYTES]);

#endif
