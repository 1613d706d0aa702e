/* device_probe.c - a device by itself: what it is, the ceilings that figures are held against, and
 * the sweep over all parameters. For gpu_check.py.
 *
 *   device_probe DEVICE [parameters=N] [copy_mb=N] [upload_mb=N] [repeats=5]
 *
 * One JSON line on standard output: the device's facts; copy_bytes_per_second of copies of copy_mb
 * on the device, bytes read and bytes written counted; upload_bytes_per_second of copies of
 * upload_mb from page-locked memory on the copy stream; and for `parameters` parameters
 * adamw_seconds of one AdamW step and norm_seconds of the gradient's sum of squares, both the
 * median of `repeats`, and the largest relative difference of what a step leaves from the CPU's.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/device.h"
#include "engine/optimizer.h"

enum { PATTERN = 1 << 20, VECTORS = 4 /* p, m, v, g */, REPEATS_MAX = 100, LAUNCHES = 4 };

static const struct device *device;
static uint64_t repeats;

_Noreturn static void probe_fail(const char *what)
{
    fprintf(stderr, "device_probe: %s\n", what);
    exit(1);
}

static uint64_t argument(int argc, char **argv, const char *key, uint64_t normal)
{
    for (int i = 2; i < argc; i++)
        if (strncmp(argv[i], key, strlen(key)) == 0 && argv[i][strlen(key)] == '=')
            return strtoull(argv[i] + strlen(key) + 1, NULL, 10);
    return normal;
}

static void *allocated(uint64_t bytes, const char *what)
{
    struct err e;
    void *at;
    if (device->allocate(bytes, what, &at, &e) < 0)
        probe_fail(e.text);
    return at;
}

static int double_order(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds of work(argument), several launches between two waits: the median, the first not counted.
 */
static double seconds_median(void (*work)(void *), void (*wait)(void), void *argument)
{
    double seconds[REPEATS_MAX];
    for (uint64_t k = 0; k <= repeats; k++) {
        struct timespec from, to;
        wait();
        clock_gettime(CLOCK_MONOTONIC, &from);
        for (int i = 0; i < LAUNCHES; i++)
            work(argument);
        wait();
        clock_gettime(CLOCK_MONOTONIC, &to);
        double taken =
            (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) * 1e-9;
        if (k)
            seconds[k - 1] = taken / LAUNCHES;
    }
    qsort(seconds, repeats, sizeof *seconds, double_order);
    return seconds[repeats / 2];
}

struct copied {
    char *to, *from;
    uint64_t bytes;
};

static void copy_work(void *argument)
{
    const struct copied *c = argument;
    device->copy(c->to, c->from, c->bytes);
}

static void upload_work(void *argument)
{
    const struct copied *c = argument;
    device->copy_in(c->to, c->from, c->bytes);
}

static void upload_wait(void)
{
    device->copy_mark(0);
    device->copy_await(0);
    device->wait();
}

static double copy_rate(uint64_t bytes)
{
    struct copied c = {allocated(bytes, "a copy"), allocated(bytes, "a copy"), bytes};
    double seconds = seconds_median(copy_work, device->wait, &c);
    device->release(c.to);
    device->release(c.from);
    return 2 * (double)bytes / seconds;
}

static double upload_rate(uint64_t bytes)
{
    struct err e;
    void *host;
    if (device->allocate_host(bytes, "an upload", &host, &e) < 0)
        probe_fail(e.text);
    struct copied c = {allocated(bytes, "an upload"), host, bytes};
    double seconds = seconds_median(upload_work, upload_wait, &c);
    device->release(c.to);
    device->release_host(host);
    return (double)bytes / seconds;
}

struct sweep {
    float *at[VECTORS], *pattern[VECTORS];
    double *sum;
    uint64_t count;
    struct adamw_scalars scalars;
};

static void adamw_work(void *argument)
{
    const struct sweep *w = argument;
    op_adamw(device->backend, w->at[0], w->at[1], w->at[2], w->at[3], w->count, &w->scalars,
             HALF_NONE, NULL);
}

static void norm_work(void *argument)
{
    const struct sweep *w = argument;
    op_sum_squares(device->backend, w->at[3], w->count, w->sum);
}

/* Each vector has the same PATTERN numbers again and again. */
static void sweep_fill(struct sweep *w)
{
    uint32_t state = 1;
    for (int k = 0; k < VECTORS; k++) {
        w->pattern[k] = malloc(PATTERN * sizeof(float));
        if (!w->pattern[k])
            probe_fail("no memory");
        for (int i = 0; i < PATTERN; i++) {
            state = state * 1664525 + 1013904223;
            float x = (float)(state >> 8) / (1 << 24);
            w->pattern[k][i] = k == 2 ? x * x : x - 0.5f; /* v is not below 0 */
        }
        w->at[k] = allocated(w->count * sizeof(float), "parameters");
        for (uint64_t at = 0; at < w->count; at += PATTERN) {
            uint64_t count = w->count - at < PATTERN ? w->count - at : PATTERN;
            device->upload(w->at[k] + at, w->pattern[k], count * sizeof(float));
        }
        device->wait();
    }
}

/* Of the last whole pattern and of what is behind it. */
static double sweep_compare(struct sweep *w)
{
    double largest = 0;
    float *found = malloc(PATTERN * sizeof *found);
    uint64_t behind = w->count % PATTERN, ends[2] = {w->count - behind, w->count};
    if (!found)
        probe_fail("no memory");
    op_adamw(&backend_cpu, w->pattern[0], w->pattern[1], w->pattern[2], w->pattern[3], PATTERN,
             &w->scalars, HALF_NONE, NULL);
    for (int part = 0; part < 2; part++)
        for (int k = 0; k < VECTORS - 1; k++) {
            uint64_t count = part ? behind : PATTERN;
            device->download(found, w->at[k] + (ends[part] - count), count * sizeof(float));
            for (uint64_t i = 0; i < count; i++) {
                double wanted = (double)w->pattern[k][i];
                double off = fabs((double)found[i] - wanted) / (fabs(wanted) + 1e-3);
                largest = off > largest || isnan(off) ? off : largest;
            }
        }
    free(found);
    return largest;
}

static void sweep_run(uint64_t count)
{
    const struct optimizer_config config = {
        .learning_rate = 1e-3, .weight_decay = 1e-2, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    struct sweep w = {.count = count,
                      .scalars = optimizer_scalars_make(&config, 10, 1, NULL).adamw[1]};
    w.sum = allocated(sizeof *w.sum, "a sum");
    sweep_fill(&w);
    adamw_work(&w);
    double difference = sweep_compare(&w);
    printf(", \"parameters\": %" PRIu64 ", \"difference\": %g, \"adamw_seconds\": %.9f", count,
           difference, seconds_median(adamw_work, device->wait, &w));
    printf(", \"norm_seconds\": %.9f", seconds_median(norm_work, device->wait, &w));
    for (int k = 0; k < VECTORS; k++) {
        device->release(w.at[k]);
        free(w.pattern[k]);
    }
    device->release(w.sum);
}

int main(int argc, char **argv)
{
    struct err e;
    struct device_facts f;
    if (argc < 2)
        probe_fail("usage: device_probe DEVICE [key=value ...]");
    uint64_t parameters = argument(argc, argv, "parameters", 0);
    repeats = argument(argc, argv, "repeats", 5);
    if (device_open(&device, argv[1], 0, &e) < 0)
        probe_fail(e.text);
    if (!device->apart || repeats < 1 || repeats > REPEATS_MAX ||
        (parameters && parameters < PATTERN))
        probe_fail("the device is to be a GPU, repeats 1 to 100, parameters at least 2^20");
    device->facts(&f);
    printf("{\"name\": \"%s\", \"capability\": %d, \"processors\": %d, \"driver\": %d, "
           "\"runtime\": %d, \"memory_bytes\": %" PRIu64 ", \"context_bytes\": %" PRIu64,
           f.name, f.capability, f.processors, f.driver, f.runtime, f.memory_bytes,
           f.context_bytes);
    printf(", \"copy_bytes_per_second\": %g",
           copy_rate(argument(argc, argv, "copy_mb", 4096) << 20));
    printf(", \"upload_bytes_per_second\": %g",
           upload_rate(argument(argc, argv, "upload_mb", 256) << 20));
    if (parameters)
        sweep_run(parameters);
    printf("}\n");
    device->wait();
    int failed = device->failure(&e) < 0;
    if (failed)
        fprintf(stderr, "device_probe: %s\n", e.text);
    device->close();
    return failed;
}
