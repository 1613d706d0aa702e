/* fake_nvml.c - libnvidia-ml.so.1 of the tests: the part of NVIDIA's management library that
 * monitord uses, for a machine with one GPU, the emulated one (engine/cuda/device_emulated.cc).
 *
 * FINETUNED_FAKE_NVML has words, looked at in each call: init, find and read let that fail, power
 * is a figure that the GPU does not have, mig divides it, with slow a look takes 25 ms. The k-th
 * look since nvmlInit_v2 finds a utilisation of 50 % where k is odd, of 90 % where it is even.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

int nvmlInit_v2(void);
int nvmlShutdown(void);
const char *nvmlErrorString(int error);
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **gpu);
int nvmlDeviceGetMigMode(void *gpu, unsigned *now, unsigned *later);
int nvmlDeviceGetUtilizationRates(void *gpu, unsigned *percent);
int nvmlDeviceGetMemoryInfo(void *gpu, unsigned long long *bytes);
int nvmlDeviceGetTemperature(void *gpu, int sensor, unsigned *celsius);
int nvmlDeviceGetPowerUsage(void *gpu, unsigned *milliwatts);
int nvmlDeviceGetEnforcedPowerLimit(void *gpu, unsigned *milliwatts);
int nvmlDeviceGetClockInfo(void *gpu, int which, unsigned *mhz);

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, LOST = 15 };

static int open, looks, gpu_found;

static int wanted(const char *word)
{
    const char *words = getenv("FINETUNED_FAKE_NVML");
    return words && strstr(words, word) != NULL;
}

/* What a call that reads a figure of a GPU returns. */
static int figure(const void *gpu, const char *word)
{
    if (!open || gpu != &gpu_found)
        abort();
    return wanted("read") ? LOST : word && wanted(word) ? NOT_SUPPORTED : SUCCESS;
}

int nvmlInit_v2(void)
{
    looks = 0;
    open += !wanted("init");
    return wanted("init") ? LOST : SUCCESS;
}

int nvmlShutdown(void)
{
    if (!open--)
        abort();
    return SUCCESS;
}

const char *nvmlErrorString(int error)
{
    return error == NOT_FOUND ? "Not Found" : error == LOST ? "GPU is lost" : "Not Supported";
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **gpu)
{
    *gpu = &gpu_found;
    return wanted("find") || strncmp(bus, "ffff:00:", 8) != 0 ? NOT_FOUND : SUCCESS;
}

int nvmlDeviceGetMigMode(void *gpu, unsigned *now, unsigned *later)
{
    *now = *later = (unsigned)wanted("mig");
    return figure(gpu, NULL);
}

int nvmlDeviceGetUtilizationRates(void *gpu, unsigned *percent)
{
    const struct timespec busy = {.tv_nsec = 25000000};
    if (wanted("slow"))
        nanosleep(&busy, NULL);
    percent[0] = ++looks % 2 ? 50 : 90;
    percent[1] = 20;
    return figure(gpu, NULL);
}

int nvmlDeviceGetMemoryInfo(void *gpu, unsigned long long *bytes)
{
    bytes[0] = 1ull << 30;
    bytes[1] = 700ull << 20;
    bytes[2] = bytes[0] - bytes[1];
    return figure(gpu, NULL);
}

int nvmlDeviceGetTemperature(void *gpu, int sensor, unsigned *celsius)
{
    *celsius = sensor == 0 ? 61 : 0;
    return figure(gpu, NULL);
}

int nvmlDeviceGetPowerUsage(void *gpu, unsigned *milliwatts)
{
    *milliwatts = 345600;
    return figure(gpu, "power");
}

int nvmlDeviceGetEnforcedPowerLimit(void *gpu, unsigned *milliwatts)
{
    *milliwatts = 700000;
    return figure(gpu, "power");
}

int nvmlDeviceGetClockInfo(void *gpu, int which, unsigned *mhz)
{
    *mhz = which == 1 ? 1980 : which == 2 ? 2619 : 0;
    return figure(gpu, NULL);
}
