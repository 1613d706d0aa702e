/* trainer_fixture.h - options of a run of a few tasks, and what its memory is reckoned from, for
 * the tests of trainerd.
 */
#ifndef TESTS_UNIT_TRAINER_FIXTURE_H
#define TESTS_UNIT_TRAINER_FIXTURE_H

#include "proto/options.h"
#include "trainerd/plan_bases.h"
#include "trainerd/trainer.h"

/* One more task. Texts of its own are on the heap and stay there. */
void trainer_fixture_task(struct options *o, const char *name, const char *comparison_of,
                          uint64_t epochs);

/* A, B, the comparison of B, C, the comparison of C: all that a schedule asks for. */
void trainer_fixture_tasks(struct options *o);

/* The same with a small model of 784 inputs, and all that a plan asks for. */
void trainer_fixture_options(struct options *o);

extern const struct plan_bases trainer_fixture_bases;
extern const struct split_shape trainer_fixture_images; /* 60,000 rows of 784 values */

#endif
