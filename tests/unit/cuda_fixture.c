/* cuda_fixture.c - see cuda_fixture.h. */
#include "tests/unit/cuda_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/test.h"

const struct device *cuda_fixture_device(void)
{
    char path[4096] = "";
    const struct device *d;
    struct err e;
    if (!getenv("FINETUNED_CUDA_LIBRARY")) {
        CHECK(readlink("/proc/self/exe", path, sizeof path - 64) > 0);
        for (int up = 0; up < 2; up++)
            *strrchr(path, '/') = 0;
        strcat(path, "/lib/libengine-cuda-emulated.so");
        setenv("FINETUNED_CUDA_LIBRARY", path, 1);
    }
    CHECK_OK(device_open(&d, "cuda", 0, &e), e);
    return d;
}
