/* check.h - shared by check*.c only: what is found in the two splits of a data file. */
#ifndef PIPELINES_PREPARE_CHECK_H
#define PIPELINES_PREPARE_CHECK_H

#include <stdint.h>

#include "pipelines/prepare/hashes.h"
#include "proto/err.h"
#include "proto/h5file.h"
#include "proto/options.h"

enum { CHECK_CLASSES_MAX = 65536 };

struct split {
    const char *group;
    struct h5array part[H5NAMES_MAX]; /* of the features: one, or one a timeframe */
    int part_count;
    struct h5array targets;
    uint64_t row_values, row_bytes;    /* of all parts */
    double *low, *high;                /* [row_values], of the finite values */
    uint64_t nan, infinite, first_bad; /* first_bad: row */
    int64_t class_low, class_high;
    uint64_t *class_rows; /* [CHECK_CLASSES_MAX] */
};

struct check {
    struct h5reader *reader;
    const struct options *options;
    struct split split[2]; /* train, validation */
    unsigned char *block, *block_targets;
    struct hashes hashes; /* of the validation rows */
    uint64_t equal, compared;
    char wrong[700]; /* the first thing that makes training impossible */
};

/* Note it, if it is the first. */
void check_wrong(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "train/features", or the name alone in the file's root. */
void check_path(char path[H5FILE_NAME_MAX + 1], const char *group, const char *name);

/* If the splits hold graphs or tokens: print their shapes. 1: they do; 0: they do not; -1 and *e.
 */
int check_other_layout(const struct check *c, struct err *e);

void check_print(const struct check *c); /* what was found */
void check_judge(struct check *c);       /* check_wrong what makes training impossible */

#endif
