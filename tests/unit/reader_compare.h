/* reader_compare.h - does a reader process deliver what H5Dread gives?
 *
 * A real reader_main is forked on a file, handed an arena, and all spans of two epochs are
 * compared, row by row and item by item, with libhdf5's own reading in the order of proto/order.h:
 * any layout.
 */
#ifndef TESTS_READER_COMPARE_H
#define TESTS_READER_COMPARE_H

#include "tests/unit/reader_process.h"

struct compared {
    uint64_t spans;
    uint64_t decoded, delivered; /* bytes of the first epoch */
    uint64_t digest;             /* of each epoch */
    uint64_t chunk_rows;
};

/* Ends the test at the first difference. */
struct compared file_compare_all(const char *path, const struct reader_open *open);

/* The number of spans compared. */
static inline uint64_t file_compare(const char *path, const struct reader_open *open)
{
    return file_compare_all(path, open).spans;
}

/* A whole data set in that type, to be freed. *items: of its first dimension (NULL: not wanted). */
void *set_read(const char *path, const char *name, hid_t type, uint64_t *items);

#endif
