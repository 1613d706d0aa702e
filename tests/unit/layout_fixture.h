/* layout_fixture.h - for the tests of layouts: random types, filters and chunks, data sets with
 * these numbers or any.
 */
#ifndef TESTS_LAYOUT_FIXTURE_H
#define TESTS_LAYOUT_FIXTURE_H

#include "tests/unit/reader_process.h"

/* u8 i8 u16 i16 u32 i32 u64 i64 f16 f32 f64 */
enum { TYPES = 11 };

/* One of `count` of them from `first` on, or an unsigned one (close it). Big-endian every third
 * time: those go through libhdf5's conversion. */
hid_t type_random(int first, int count);
hid_t type_random_unsigned(void);

/* PLAIN to GZIP_TWICE. */
enum filters filters_random(void);

/* Of so many items; 0: contiguous. */
hsize_t chunk_random(hsize_t items);

/* A data set of a group with these numbers; NULL: those of set_fill. One without items is in no
 * chunks, one without chunks has no filters. */
void set_write(hid_t group, struct set_config c, hid_t memory, const void *data);

#endif
