/* nvml.c - see nvml.h: the one place that knows the library. */
#include "monitord/nvml.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>

/* Numbers of the library. */
enum { NVML_SUCCESS = 0, NVML_NOT_FOUND = 13 };
enum { NVML_SENSOR_CHIP = 0, NVML_CLOCK_PROCESSORS = 1, NVML_CLOCK_MEMORY = 2 };

/* A library older than a function does without its figure, not without one of these. */
static int is_whole(const struct nvml *n)
{
    return n->init && n->shutdown && n->find && n->error_text;
}

static int library_open(struct nvml *n, struct err *e)
{
    const char *named = getenv("FINETUNED_NVML_LIBRARY");
    *n = (struct nvml){.library = dlopen(named ? named : "libnvidia-ml.so.1", RTLD_NOW)};
    if (!n->library)
        return err_set(e, EXIT_CODE_TEMPORARY,
                       "there is no management library of NVIDIA's driver: %s", dlerror());
    n->error_text = dlsym(n->library, "nvmlErrorString");
#define NVML_FIND(field, name, arguments) n->field = dlsym(n->library, name);
    NVML_CALLS(NVML_FIND)
#undef NVML_FIND
    if (is_whole(n))
        return 0;
    dlclose(n->library);
    return err_set(e, EXIT_CODE_TEMPORARY,
                   "the management library of NVIDIA's driver is too old: it does not know a GPU "
                   "by its place on the bus");
}

static int gpu_find(struct nvml *n, const char *bus, struct err *e)
{
    unsigned now = 0, later = 0;
    int error = n->find(bus, &n->gpu);
    if (error != NVML_SUCCESS)
        return err_set(e, EXIT_CODE_TEMPORARY, "the driver finds no GPU at %s: %s", bus,
                       n->error_text(error));
    if (n->mig_mode && n->mig_mode(n->gpu, &now, &later) == NVML_SUCCESS && now)
        return err_set(e, EXIT_CODE_TEMPORARY,
                       "the GPU at %s is divided (MIG), and the driver tells nothing of the part "
                       "that computes",
                       bus);
    return 0;
}

int nvml_open(struct nvml *n, const char *bus, struct err *e)
{
    if (library_open(n, e) < 0)
        goto absent;
    int error = n->init();
    if (error != NVML_SUCCESS) {
        err_set(e, EXIT_CODE_TEMPORARY, "the driver does not answer: %s", n->error_text(error));
        dlclose(n->library);
        goto absent;
    }
    if (gpu_find(n, bus, e) == 0)
        return 0;
    nvml_close(n);
    return -1;
absent:
    *n = (struct nvml){0};
    return -1;
}

void nvml_close(struct nvml *n)
{
    if (n->library) {
        n->shutdown();
        dlclose(n->library);
    }
    *n = (struct nvml){0};
}

/* What came of the calls so far. */
struct reading {
    const struct nvml *n;
    int known, error; /* figures; the last one's that is not known */
};

static int reading_add(struct reading *r, int error)
{
    if (error == NVML_SUCCESS)
        r->known++;
    else
        r->error = error;
    return error == NVML_SUCCESS;
}

static double number_read(struct reading *r, int (*call)(void *gpu, unsigned *), double scale)
{
    unsigned value = 0;
    int there = reading_add(r, call ? call(r->n->gpu, &value) : NVML_NOT_FOUND);
    return there ? value * scale : NAN;
}

static double number_of_read(struct reading *r, int (*call)(void *gpu, int which, unsigned *),
                             int which)
{
    unsigned value = 0;
    int there = reading_add(r, call ? call(r->n->gpu, which, &value) : NVML_NOT_FOUND);
    return there ? value : NAN;
}

static void utilisation_read(struct reading *r, struct msg_gpu_sample *m)
{
    const struct nvml *n = r->n;
    struct nvml_utilisation u = {0, 0};
    int there = reading_add(r, n->utilisation ? n->utilisation(n->gpu, &u) : NVML_NOT_FOUND);
    m->utilisation = there ? u.gpu / 100.0 : NAN;
    m->memory_utilisation = there ? u.memory / 100.0 : NAN;
}

static void memory_read(struct reading *r, struct msg_gpu_sample *m)
{
    const struct nvml *n = r->n;
    struct nvml_memory b = {0, 0, 0};
    int there = reading_add(r, n->memory ? n->memory(n->gpu, &b) : NVML_NOT_FOUND);
    m->used_bytes = there ? b.used : 0;
    m->total_bytes = there ? b.total : 0;
}

int nvml_read(const struct nvml *n, struct msg_gpu_sample *m, struct err *e)
{
    struct reading r = {.n = n};
    utilisation_read(&r, m);
    memory_read(&r, m);
    m->temperature_c = number_of_read(&r, n->temperature, NVML_SENSOR_CHIP);
    m->power_w = number_read(&r, n->power, 1e-3);
    m->power_limit_w = number_read(&r, n->power_limit, 1e-3);
    m->clock_mhz = number_of_read(&r, n->clock, NVML_CLOCK_PROCESSORS);
    m->memory_clock_mhz = number_of_read(&r, n->clock, NVML_CLOCK_MEMORY);
    if (r.known)
        return 0;
    return err_set(e, EXIT_CODE_TEMPORARY, "the GPU does not tell how it does: %s",
                   n->error_text(r.error));
}
