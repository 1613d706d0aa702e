/* cuda_fixture.h - the device of the tests: the emulated one, or what FINETUNED_CUDA_LIBRARY names.
 */
#ifndef TESTS_UNIT_CUDA_FIXTURE_H
#define TESTS_UNIT_CUDA_FIXTURE_H

#include "engine/device.h"

const struct device *cuda_fixture_device(void); /* open */

#endif
