/* molecule_fixture.h - for the tests of `prepare molecules`: columns by name, and a record of
 * MassBank.
 */
#ifndef TESTS_UNIT_MOLECULE_FIXTURE_H
#define TESTS_UNIT_MOLECULE_FIXTURE_H

#include <stdint.h>

/* The name of the one column of this kind that is 1: "N" of element_N; it must be one. names: one a
 * line. One of four texts in turn. */
const char *class_of(const uint8_t *row, const char *names, const char *kind);

/* A record of ethanol with these lines behind its head. One of four texts in turn. */
const char *record_text(const char *name, const char *rest);

#define RECORD_PEAKS                                                                               \
    "PK$NUM_PEAK: 2\nPK$PEAK: m/z int. rel.int.\n  31.018 500 500\n  47.049 1000 999\n"

#endif
