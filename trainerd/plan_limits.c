/* plan_limits.c - what a plan (plan.c) is held against: the memory of the host and of the device,
 * and the sentence where it is more.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/device.h"
#include "proto/limits.h"

uint64_t plan_device_limit(const struct options *o, const struct device *d)
{
    return d && d->apart ? device_bytes_of(d, o->device_limit_mb) : 0;
}

uint64_t plan_host_limit(const struct options *o)
{
    char source[64];
    return limits_host("", o->host_limit_mb, source, sizeof source);
}

uint64_t plan_regions_limit(const struct plan *p, const struct options *o)
{
    uint64_t limit = plan_host_limit(o);
    return p->beside_regions < limit ? limit - p->beside_regions : 0;
}

uint64_t plan_mib(uint64_t bytes)
{
    return (bytes + (1 << 20) - 1) >> 20;
}

/* Where an option is less than there is it can be raised. */
static int too_large(const char *memory, uint64_t total, const char *source, uint64_t limit,
                     struct err *e)
{
    return err_set(e, EXIT_CODE_PERMANENT,
                   "the run needs %" PRIu64
                   " MiB of %s (--plan shows what takes it) and %s is %" PRIu64 " MiB%s",
                   plan_mib(total), memory, source, limit >> 20,
                   strncmp(source, "memory.", 7) == 0 ? "; raise it" : "");
}

static int device_too_large(const struct options *o, const struct device *d, uint64_t total,
                            struct err *e)
{
    struct device_facts f;
    char source[64] = "that of the GPU";
    d->facts(&f);
    uint64_t has_mb =
        f.memory_bytes >> 20; /* which finetune.sh makes the limit where there is none */
    if (o->device_limit_mb && o->device_limit_mb < has_mb)
        snprintf(source, sizeof source, "memory.device_limit_mb, of %" PRIu64 " MiB,", has_mb);
    return too_large("device memory", total, source, plan_device_limit(o, d), e);
}

int plan_check(const struct plan *p, const struct options *o, const struct device *d, struct err *e)
{
    char source[64];
    uint64_t limit = limits_host("", o->host_limit_mb, source, sizeof source);
    uint64_t total = plan_total(p, NULL), on_device = plan_total(p, PLAN_DEVICE);
    if (total > limit)
        return too_large("memory", total, source, limit, e);
    if (on_device <= plan_device_limit(o, d))
        return 0;
    return device_too_large(o, d, on_device, e);
}
