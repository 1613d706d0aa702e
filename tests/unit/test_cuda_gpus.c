/* test_cuda_gpus.c - which GPU of a machine is taken, and what is said where none can be: the
 * emulated device's machines (engine/cuda/emulated.h), which are described as a GPU's are. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "engine/device.h"
#include "tests/test.h"
#include "tests/unit/cuda_fixture.h"

#define MACHINE "gpus=75 Tesla T4,90 NVIDIA H100 80GB HBM3,89 NVIDIA GeForce RTX 4090"

static const struct {
    const char *emulated, *wanted;
    int index; /* -1: none */
    const char *says;
} machines[] = {
    {MACHINE, "cuda", 0, "Tesla T4"},
    {MACHINE, "cuda:2", 2, "RTX 4090"},
    {MACHINE, "cuda:H100", 1, "H100"},
    {MACHINE, "cuda:h100 80gb", 1, "H100"},
    {MACHINE, "cuda:NVIDIA", 1, "H100"},
    {MACHINE, "cuda:4090", 2, "RTX 4090"},
    {MACHINE, "cuda:4", 0, "Tesla T4"},
    {MACHINE, "auto", 0, "Tesla T4"},
    {"", "cuda:EMU", 0, "emulated"},
    {MACHINE, "cuda:77", -1,
     "device cuda:77: there is no such GPU; there are 0 (Tesla T4), 1 (NVIDIA H100 80GB HBM3), 2 "
     "(NVIDIA GeForce RTX 4090)"},
    {MACHINE, "cuda:Voodoo", -1,
     "device cuda:Voodoo: there is no such GPU; there are 0 (Tesla T4)"},
    {"gpus=70 Tesla V100,75 Tesla T4", "cuda:T4", 1, "Tesla T4"},
    {"gpus=70 Tesla V100,75 Tesla T4", "cuda", -1,
     "cannot compute on Tesla V100: its compute capability is 7.0; this build has code for 7.5 and "
     "later (SM= of the Makefile)"},
    {"gpus=", "cuda", -1, "device cuda: there is an NVIDIA driver, but no GPU that it shows"},
    {"driver=0", "cuda:1", -1, "device cuda: there is no NVIDIA driver; use --device cpu"},
    {"driver=12080", "cuda", -1,
     "device cuda: the driver knows CUDA 12.8, this build needs 13.0; update the driver"},
};

/* Where the cases of devices run on a GPU there is no other device. */
static void emulated_take(void)
{
    const char *library = getenv("FINETUNED_CUDA_LIBRARY");
    if (library && !strstr(library, "emulated"))
        test_skip("the emulated device alone has machines to choose from");
    cuda_fixture_device()->close();
}

TEST(cuda_gpus_are_found_by_number_and_name)
{
    struct device_facts f;
    const struct device *d;
    unsigned bus;
    emulated_take();
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        struct err e = {0};
        setenv("FINETUNED_EMULATED", machines[i].emulated, 1);
        int result = device_open(&d, machines[i].wanted, 0, &e);
        if (machines[i].index < 0) {
            CHECK(result == -1 && e.code == EXIT_CODE_PERMANENT);
            CHECK_HAS(e.text, machines[i].says);
        } else {
            CHECK_OK(result, e);
            d->facts(&f);
            CHECK_EQ(f.index, machines[i].index);
            CHECK(sscanf(f.bus, "ffff:%x:00.0", &bus) == 1 && (int)bus == machines[i].index);
            CHECK_HAS(f.name, machines[i].says);
        }
        d->close();
    }
}

/* "auto" computes on the CPU, and why can be told. */
TEST(cuda_gpus_that_cannot_be_used_leave_the_cpu)
{
    static const char *const without[] = {"gpus=", "gpus=70 Tesla V100", "driver=0",
                                          "driver=12080"};
    const struct device *d;
    emulated_take();
    for (size_t i = 0; i < sizeof without / sizeof *without; i++) {
        struct err e = {0};
        setenv("FINETUNED_EMULATED", without[i], 1);
        CHECK_EQ(device_open(&d, "auto", 0, &e), DEVICE_UNUSABLE);
        CHECK(d == &device_cpu);
        CHECK_HAS(e.text, "cannot compute on ");
        CHECK_OK(device_open_again(&d, "cpu", "cuda: Tesla T4", 0, &e), e);
        CHECK_EQ(device_open_again(&d, "auto", "x86-64", 0, &e), DEVICE_UNUSABLE);
        CHECK_EQ(device_open_again(&d, "auto", "cuda: Tesla T4", 0, &e), -1);
        CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
        CHECK_HAS(e.text,
                  "cannot go on with what was computed on cuda: Tesla T4: with device auto");
    }
}

TEST(cuda_without_a_driver_says_so)
{
    const struct device *d;
    struct err e = {0};
    if (system(
            "echo | gcc -shared -o libcuda.so.1 -Wl,-soname,libcuda.so.1 -x c - && "
            "echo | gcc -shared -o without.so -x c - -x none -Wl,--no-as-needed ./libcuda.so.1 && "
            "rm libcuda.so.1") != 0)
        test_skip("gcc makes no library here");
    if (dlopen("libcuda.so.1", RTLD_NOW))
        test_skip("there is a driver");
    setenv("FINETUNED_CUDA_LIBRARY", "./without.so", 1);
    CHECK_EQ(device_open(&d, "cuda", 0, &e), -1);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_STR(e.text,
              "cannot compute on device cuda: there is no NVIDIA driver (libcuda.so.1 comes "
              "with it); use --device cpu");
    CHECK_EQ(device_open(&d, "auto", 0, &e), DEVICE_ABSENT);
    CHECK(d == &device_cpu);
}
