/* compute.c - the device of a run: opened once, told, closed; and what follows from it for the
 * stepper. Copies to and from it are the stepper's (engine/step.h) and the mega-batch's.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "engine/device.h"
#include "proto/highwater.h"
#include "proto/log.h"

static uint64_t driver_bytes; /* of the device that is open */

int compute_open(const struct device **d, const struct options *o, const char *before,
                 struct err *e)
{
    struct err why = {0};
    uint64_t resident = highwater_bytes(getpid(), "VmRSS");
    if (o->debug_mode)
        log_level_set(LOG_LEVEL_DEBUG);
    int found = device_open_again(d, o->device, before, o->debug_mode, &why);
    if (found < 0) {
        *d = NULL;
        *e = why;
        return -1;
    }
    uint64_t after = highwater_bytes(getpid(), "VmRSS");
    driver_bytes = (*d)->apart && after > resident ? after - resident : 0;
    if (found)
        log_line(found == DEVICE_UNUSABLE ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG,
                 "device=cpu no GPU can be had: %s", why.text);
    return 0;
}

void compute_close(const struct device **d)
{
    if (*d)
        (*d)->close();
    *d = NULL;
}

void compute_bases(struct plan_bases *b, const struct device *d)
{
    b->device = d;
    b->driver = driver_bytes;
}

int compute_fact(struct trainer *t, struct err *e)
{
    struct device_facts f;
    struct msg_event_device m = {0};
    t->device->facts(&f);
    t->device_context_bytes = f.context_bytes;
    MSG_STR(m.kind, t->device->kind);
    MSG_STR(m.name, f.name);
    MSG_STR(m.bus, f.bus);
    m.index = (uint64_t)f.index;
    m.memory_bytes = f.memory_bytes;
    m.context_bytes = f.context_bytes;
    m.capability = (uint64_t)f.capability;
    m.driver = (uint64_t)f.driver;
    m.runtime = (uint64_t)f.runtime;
    log_info("device=%s name=\"%s\" memory_mib=%" PRIu64 " computing there", t->device->kind,
             f.name, f.memory_bytes >> 20);
    return daemon_fact(t->daemon, MSG_event_device, &m, e);
}

void compute_name(const struct device *d, char *text, size_t bytes)
{
    struct device_facts f;
    if (!d->apart) {
        engine_cpu_arithmetic(text, bytes);
        return;
    }
    d->facts(&f);
    snprintf(text, bytes, "%s: %s", d->kind, f.name);
}

uint64_t compute_threads(const struct trainer *t)
{
    return t->device->apart ? 1 : (uint64_t)setup_threads(t->options);
}

int compute_keeps_rows(const struct options *o, const struct device *d)
{
    int there = d && d->apart;
    return strcmp(o->loader_use_chunk_loader, "true") == 0 ||
           (there && strcmp(o->loader_use_chunk_loader, "gpu") == 0);
}

void compute_feed_config(struct feed_config *c, const struct options *o, const struct device *d)
{
    int there = compute_keeps_rows(o, d); /* else batches are gathered by the host */
    if (!d || !d->apart || strcmp(o->loader_pin_memory, "false") == 0 ||
        (!there && strcmp(o->loader_pin_memory, "true") != 0))
        return;
    c->lock = d->host_lock;
    c->unlock = d->host_unlock;
}

void compute_measure(struct trainer *t, struct msg_trainer_step *m)
{
    struct device_memory memory;
    if (!t->device->apart)
        return;
    t->device->memory(&memory);
    m->device_bytes = t->device_context_bytes + memory.used_bytes;
    m->device_peak_bytes = t->device_context_bytes + memory.high_bytes;
    m->device_free_bytes = memory.free_bytes;
    highwater_device(&t->daemon->highwater, m->device_bytes, m->device_peak_bytes,
                     memory.locked_high_bytes);
}

static void idle_print(void *self, const char *sentence)
{
    (void)self;
    fprintf(stderr, "warning: %s\n", sentence);
}

int compute_command(int argc, char **argv)
{
    static struct options o; /* large */
    const char *config, *set[OPTION_SETS_MAX];
    const struct device *d = NULL;
    struct device_facts f;
    int set_count;
    struct err e = {0};
    if (options_arguments(argc, argv, 2, &config, set, &set_count, &e) == 0 &&
        options_read(&o, config, set, set_count, &e) == 0 && setup_options_check(&o, &e) == 0 &&
        compute_open(&d, &o, "", &e) == 0) {
        options_idle(&o, idle_print, NULL);
        d->facts(&f);
        printf("%" PRIu64 "\n", d->apart ? f.memory_bytes >> 20 : 0);
        e = (struct err){0};
    }
    compute_close(&d);
    options_free(&o);
    if (e.code == 0 && fflush(stdout) == 0)
        return EXIT_CODE_DONE;
    fprintf(stderr, "trainerd --device: %s\n", e.code ? e.text : "cannot print its memory");
    return e.code ? e.code : EXIT_CODE_TEMPORARY;
}
