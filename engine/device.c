/* device.c - see device.h: the CPU as a device, and the library of the other one. */
#include "engine/device.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/memory.h"
#include "engine/step.h"

static int cpu_open(const char *which, int debug, struct err *e)
{
    (void)which, (void)debug, (void)e;
    return 0;
}

static void nothing(void)
{
}

static void cpu_facts(struct device_facts *f)
{
    *f = (struct device_facts){.memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) *
                                               (uint64_t)sysconf(_SC_PAGESIZE)};
    engine_cpu_name(f->name, sizeof f->name);
}

static void copy(void *to, const void *from, uint64_t bytes)
{
    if (to != from)
        memcpy(to, from, bytes);
}

static void clear(void *at, uint64_t bytes)
{
    memset(at, 0, bytes);
}

static int no_failure(struct err *e)
{
    (void)e;
    return 0;
}

/* What has a meaning on another device only is NULL: nobody asks for it where `apart` is 0. */
const struct device device_cpu = {
    .kind = "cpu",
    .backend = &backend_cpu,
    .open = cpu_open,
    .close = nothing,
    .facts = cpu_facts,
    .upload = copy,
    .download = copy,
    .copy = copy,
    .clear = clear,
    .wait = nothing,
    .failure = no_failure,
};

enum { PATH_MAX_BYTES = 4096 };

static const char library_name[] = "libengine-cuda.so";

/* ../lib of the directory that the program is in. */
static int library_path(char path[PATH_MAX_BYTES], struct err *e)
{
    const char *named = getenv("FINETUNED_CUDA_LIBRARY");
    if (named && strlen(named) < PATH_MAX_BYTES)
        return strcpy(path, named), 0;
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX_BYTES - 64);
    if (length < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot find the directory of this program");
    path[length] = 0;
    for (int up = 0; up < 2; up++)
        *strrchr(path, '/') = 0;
    strcat(path, "/lib/");
    strcat(path, library_name);
    return 0;
}

const struct device *device_cuda(struct err *e)
{
    static const struct device *found;
    char path[PATH_MAX_BYTES];
    if (found || library_path(path, e) < 0)
        return found;
    if (access(path, R_OK) < 0) {
        err_set(
            e, EXIT_CODE_PERMANENT,
            "cannot compute on device cuda: this build has no CUDA backend (%s is not there; it "
            "is built where nvcc of CUDA 12 or later is installed); use --device cpu or auto",
            library_name);
        return NULL;
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library)
        found = dlsym(library, "device_of_library");
    const char *why = found ? "" : dlerror(); /* names the library that is missing */
    if (strstr(why, "libcuda.so.1"))
        err_set(e, EXIT_CODE_PERMANENT,
                "cannot compute on device cuda: there is no NVIDIA driver (libcuda.so.1 comes with "
                "it); use --device cpu");
    else if (!found)
        err_set(e, EXIT_CODE_PERMANENT, "cannot compute on device cuda: %s", why);
    return found;
}

int device_open(const struct device **d, const char *wanted, int debug, struct err *e)
{
    *d = &device_cpu;
    if (strcmp(wanted, "cpu") == 0)
        return 0;
    const char *colon = strchr(wanted, ':');
    const struct device *cuda = device_cuda(e);
    if (cuda && cuda->open(colon ? colon + 1 : "", debug, e) == 0) {
        *d = cuda;
        return 0;
    }
    if (strcmp(wanted, "auto") != 0 || e->code != EXIT_CODE_PERMANENT)
        return -1;
    return cuda ? DEVICE_UNUSABLE : DEVICE_ABSENT;
}

int device_open_again(const struct device **d, const char *wanted, const char *before, int debug,
                      struct err *e)
{
    int found = device_open(d, wanted, debug, e);
    if (found <= 0 || strncmp(before, "cuda:", strlen("cuda:")) != 0)
        return found;
    return err_prefix(e,
                      "cannot go on with what was computed on %s: with device auto only a GPU goes "
                      "on, with device cpu the CPU does, at other bits",
                      before);
}

static uint64_t limit_bytes = UINT64_MAX;

void device_limit_set(uint64_t bytes)
{
    limit_bytes = bytes;
}

uint64_t device_bytes_of(const struct device *d, uint64_t limit_mb)
{
    struct device_facts f;
    uint64_t limit = limit_mb << 20;
    d->facts(&f);
    return limit && limit < f.memory_bytes ? limit : f.memory_bytes;
}

uint64_t device_limit_of(const struct device *d, uint64_t limit_mb)
{
    struct device_facts f;
    uint64_t limit = device_bytes_of(d, limit_mb);
    d->facts(&f);
    return f.context_bytes < limit ? limit - f.context_bytes : 0;
}

int device_reserve(const struct device *d, uint64_t bytes, const char *what, void **at,
                   struct err *e)
{
    static const double MIB = 1024 * 1024;
    struct device_memory m;
    d->memory(&m);
    uint64_t left = m.used_bytes < limit_bytes ? limit_bytes - m.used_bytes : 0;
    if (bytes <= left)
        return d->allocate(bytes, what, at, e);
    *at = NULL;
    return err_set(e, EXIT_CODE_TEMPORARY,
                   "no device memory for %s: %.1f MiB are wanted, and of the %.1f that the limit "
                   "leaves for it %.1f are taken",
                   what, (double)bytes / MIB, (double)limit_bytes / MIB,
                   (double)m.used_bytes / MIB);
}

void device_step_config(const struct device *d, struct step_config *c)
{
    c->device = d;
    if (!d || !d->apart)
        return;
    c->slice_rows = c->batch_rows_max;
    c->slice_nodes_max = c->batch_nodes_max;
    c->threads = 1;
}
