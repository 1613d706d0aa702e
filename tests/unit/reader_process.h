/* reader_process.h - for the loader's tests: a real reader_main in a forked child, and HDF5 files
 * for it. */
#ifndef TESTS_READER_PROCESS_H
#define TESTS_READER_PROCESS_H

#include <hdf5.h>

#include "loaderd/child.h"
#include "loaderd/reader.h"
#include "proto/arena.h"

/* A reader process with its arena and door. */
struct harness {
    struct child child;
    struct reader_open open;
    struct reader_described described;
    struct arena arena;
    int door[2];
    char reason[768]; /* of the rejection; "died" if it died */
};

/* Of the split "train", shuffled by a random seed, spans of at most 8 MiB, two threads, verified.
 */
struct reader_open open_default(void);

/* Start on `path` and open the split. 0, or -1 and h->reason. */
int harness_open(struct harness *h, const char *path, const struct reader_open *open);

/* Make an arena of `slots` slots and hand it over. */
void harness_arm(struct harness *h, uint64_t slots);

/* Read one span into a slot; its generation is span + 1. 0, or -1 and h->reason. */
int harness_read(struct harness *h, uint64_t epoch, uint64_t span, uint64_t slot,
                 struct reader_done *done);

/* The two halves of that: up to READER_SPANS_MAX may be sent before the first answer is taken. */
void harness_send(struct harness *h, uint64_t epoch, uint64_t span, uint64_t slot);
int harness_answer(struct harness *h, uint64_t span, struct reader_done *done);

void harness_close(struct harness *h);

/* In the order in which they are applied; those from GZIP to GZIP_TWICE deflate, at a random level.
 */
enum filters {
    PLAIN,
    SHUFFLE,
    FLETCHER,
    GZIP,
    SHUFFLE_GZIP,
    GZIP_SHUFFLE,
    SHUFFLE_GZIP_FLETCHER,
    FLETCHER_SHUFFLE_GZIP,
    GZIP_TWICE,
    NBIT,
    SCALE_OFFSET,
    SZIP,
    FILTERS_COUNT
};

/* Add them to a creation list. */
void filters_set(hid_t dcpl, enum filters filters);

struct set_config {
    const char *name;
    hid_t stored;
    int rank;
    hsize_t dims[4], chunk[4]; /* chunk[0] 0: contiguous */
    enum filters filters;
    hsize_t dims_max0; /* not 0: first dimension can grow to this */
};

/* A 2-byte float with that many bits of exponent, of either byte order (close it): 5 is IEEE's. */
hid_t type_short_float(size_t exponent_bits, int big_endian);

/* Create a file with one group (close both). */
hid_t file_create(const char *path, const char *group, hid_t *group_p);

/* Create one data set of a group; fill it with values that compress somewhat. */
hid_t set_create(hid_t group, const struct set_config *c);
void set_fill(hid_t set, const struct set_config *c);

/* A file with these filled data sets in the group train. */
void file_make(const char *path, const struct set_config *sets, int count);

/* The file cannot be opened, or one of its spans not be read, for a reason with these words. */
void file_refused(const char *path, const struct reader_open *open, const char *words);

#endif
