/* nvml.h - what the driver tells of a GPU, by NVIDIA's management library.
 *
 * The library, libnvidia-ml.so.1, comes with the driver and is opened when a GPU is to be looked
 * at; FINETUNED_NVML_LIBRARY names another one. Its functions are declared here, from its public
 * documentation, since not every toolkit has its header. Calls may wait for a driver that is busy:
 * milliseconds, as a rule.
 */
#ifndef MONITORD_NVML_H
#define MONITORD_NVML_H

#include "proto/err.h"
#include "proto/msg.h"

struct nvml_utilisation {
    unsigned gpu, memory; /* percent */
};

struct nvml_memory {
    unsigned long long total, free, used; /* bytes */
};

/* CALL(field, "its name in the library", arguments): each returns 0, or the number of an error. */
#define NVML_CALLS(CALL)                                                                           \
    CALL(init, "nvmlInit_v2", (void))                                                              \
    CALL(shutdown, "nvmlShutdown", (void))                                                         \
    CALL(find, "nvmlDeviceGetHandleByPciBusId_v2", (const char *bus, void **gpu))                  \
    CALL(mig_mode, "nvmlDeviceGetMigMode", (void *gpu, unsigned *now, unsigned *later))            \
    CALL(utilisation, "nvmlDeviceGetUtilizationRates", (void *gpu, struct nvml_utilisation *u))    \
    CALL(memory, "nvmlDeviceGetMemoryInfo", (void *gpu, struct nvml_memory *m))                    \
    CALL(temperature, "nvmlDeviceGetTemperature", (void *gpu, int sensor, unsigned *celsius))      \
    CALL(power, "nvmlDeviceGetPowerUsage", (void *gpu, unsigned *milliwatts))                      \
    CALL(power_limit, "nvmlDeviceGetEnforcedPowerLimit", (void *gpu, unsigned *milliwatts))        \
    CALL(clock, "nvmlDeviceGetClockInfo", (void *gpu, int which, unsigned *mhz))

struct nvml {
    void *library, *gpu; /* NULL: not open */
    const char *(*error_text)(int error);
#define NVML_FIELD(field, name, arguments) int(*field) arguments;
    NVML_CALLS(NVML_FIELD)
#undef NVML_FIELD
};

/* The GPU at that place of the PCI bus. -1 and *e, and nothing is open: the library or the GPU is
 * not there, it does not answer, or it is divided (MIG), where the driver tells nothing of the part
 * that computes. */
int nvml_open(struct nvml *n, const char *bus, struct err *e);
void nvml_close(struct nvml *n); /* harmless twice */

/* All figures of *m, but for its head and bus. -1 and *e: it tells none of them. */
int nvml_read(const struct nvml *n, struct msg_gpu_sample *m, struct err *e);

#endif
