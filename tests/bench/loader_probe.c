/* loader_probe.c - a consumer of loaderd that does nothing with the rows, for the benchmark.
 *
 *   loader_probe RUN FILE SPLIT [key=value ...]   epochs=1 shuffle=1 limit_mb=256 span_rows=0
 *
 * A loaderd must serve RUN. Every row is gathered into a batch buffer, as trainerd does, first in
 * `epochs` timed epochs, then once more for the digest. One JSON line on standard output tells what
 * it took: seconds of the timed epochs, CPU seconds of loaderd and its reader over the same time,
 * seconds to the first row, and loaderd's memory besides the arena. With epochs=0 it ends at the
 * first row.
 */
#include <dirent.h>
#include <inttypes.h>
#include <sys/types.h>
#include <unistd.h>

#include "proto/rowhash.h"
#include "proto/run.h"
#include "tests/probe.h"

enum { BATCH_ROWS = 1000, PROCESSES_MAX = 8 };

struct loader {
    pid_t pid[PROCESSES_MAX]; /* loaderd, then its readers */
    int count;
};

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void loader_find(struct loader *l)
{
    char path[64], line[512];
    struct dirent *entry;
    l->pid[0] = run_lock_holder("loaderd");
    l->count = 1;
    DIR *proc = opendir("/proc");
    if (!l->pid[0] || !proc)
        probe_fail("no loaderd serves this run");
    while ((entry = readdir(proc)) && l->count < PROCESSES_MAX) {
        int pid = atoi(entry->d_name), parent = 0;
        snprintf(path, sizeof path, "/proc/%d/stat", pid);
        FILE *f = pid ? fopen(path, "r") : NULL;
        if (f && fgets(line, sizeof line, f) && strrchr(line, ')') &&
            sscanf(strrchr(line, ')') + 1, " %*c %d", &parent) == 1 && parent == l->pid[0])
            l->pid[l->count++] = pid;
        if (f)
            fclose(f);
    }
    closedir(proc);
}

static double loader_cpu_s(const struct loader *l)
{
    double sum = 0;
    for (int i = 0; i < l->count; i++) {
        clockid_t clock;
        struct timespec t = {0};
        if (clock_getcpuclockid(l->pid[i], &clock) != 0 || clock_gettime(clock, &t) != 0)
            probe_fail("a process of the loader died");
        sum += (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    }
    return sum;
}

/* Proportional set size without the arena's mappings. */
static uint64_t loader_pss_bytes(const struct loader *l)
{
    uint64_t sum = 0;
    for (int i = 0; i < l->count; i++) {
        char path[64], line[4352], range[64];
        unsigned long long kib;
        int arena = 0;
        snprintf(path, sizeof path, "/proc/%d/smaps", (int)l->pid[i]);
        FILE *f = fopen(path, "r");
        while (f && fgets(line, sizeof line, f))
            if (sscanf(line, "Pss: %llu kB", &kib) == 1)
                sum += arena ? 0 : kib << 10;
            else if (sscanf(line, "%63[0-9a-f]-", range) == 1 && line[strlen(range)] == '-')
                arena = strstr(line, "memfd:") != NULL;
        if (f)
            fclose(f);
    }
    return sum;
}

struct gathered {
    uint64_t rows, digest;
    int digested;
    char *features, *targets;
};

static void rows_gather(const struct feed *f, struct gathered *g, const struct feed_row *rows,
                        uint64_t count)
{
    const struct msg_field_info *x = &f->info.features, *y = &f->info.targets;
    uint64_t x_bytes = x->row_bytes, y_bytes = y->row_bytes;
    int targets = y->name[0] != 0;
    for (uint64_t i = 0; i < count; i++) {
        memcpy(g->features + i * x_bytes, feed_field(x, rows[i]), x_bytes);
        if (targets)
            memcpy(g->targets + i * y_bytes, feed_field(y, rows[i]), y_bytes);
    }
    g->rows += count;
    if (g->digested)
        g->digest +=
            rowhash_sum((struct rowhash_field[]){{g->features, x_bytes}, {g->targets, y_bytes}},
                        1 + targets, count);
}

static void epoch_read(struct feed *f, struct gathered *g, uint64_t epoch, uint64_t last)
{
    struct feed_row batch[BATCH_ROWS];
    uint64_t rows = f->info.order.rows;
    feed_seek(f, epoch, 0, last);
    for (uint64_t at = 0; at < rows;) {
        uint64_t wanted = rows - at < BATCH_ROWS ? rows - at : BATCH_ROWS;
        uint64_t got = feed_rows(f, epoch, at, wanted, batch);
        rows_gather(f, g, batch, got);
        at += got;
        if (at < rows)
            feed_seek(f, epoch, at, last);
        if (got < wanted)
            probe_wait(f, FEED_IDLE_MS);
    }
}

int main(int argc, char **argv)
{
    if (argc < 4 || chdir(argv[1]) != 0)
        probe_fail("usage: loader_probe RUN FILE SPLIT [key=value ...]");
    struct feed *f = calloc(1, sizeof *f);
    struct feed_config config = probe_config(argc, argv);
    uint64_t epochs = probe_number(argc, argv, "epochs", 1);
    struct feed_row first;
    struct loader loader;
    double begin = now_s();
    feed_open(f, &config);
    while (!feed_ready(f))
        probe_wait(f, FEED_IDLE_MS);
    feed_seek(f, 0, 0, epochs + 1);
    while (!feed_rows(f, 0, 0, 1, &first))
        probe_wait(f, FEED_IDLE_MS);
    double first_row_s = now_s() - begin;
    if (!epochs) {
        printf("{\"first_row_s\": %.6f}\n", first_row_s);
        feed_close(f);
        free(f);
        return 0;
    }
    loader_find(&loader);

    struct gathered g = {.features = malloc(BATCH_ROWS * f->info.features.row_bytes),
                         .targets = malloc(BATCH_ROWS * f->info.targets.row_bytes + 1)};
    epoch_read(f, &g, 0, epochs + 1); /* warms the arena's pages and the page cache */
    uint64_t pss = loader_pss_bytes(&loader);
    double cpu = loader_cpu_s(&loader), start = now_s();
    g.rows = 0;
    for (uint64_t epoch = 1; epoch <= epochs; epoch++)
        epoch_read(f, &g, epoch, epochs + 1);
    double seconds = now_s() - start, cpu_s = loader_cpu_s(&loader) - cpu;
    uint64_t rows = g.rows, pss_after = loader_pss_bytes(&loader);
    g.digested = 1;
    epoch_read(f, &g, epochs + 1, epochs + 1);
    printf("{\"rows\": %" PRIu64 ", \"seconds\": %.6f, \"cpu_seconds\": %.6f, "
           "\"first_row_s\": %.6f, \"digest\": \"%016" PRIx64 "\", \"pss_bytes\": %" PRIu64
           ", \"pss_growth_bytes\": %" PRId64 ", \"span_rows\": %" PRIu64
           ", \"arena_bytes\": %" PRIu64 "}\n",
           rows, seconds, cpu_s, first_row_s, g.digest, pss_after, (int64_t)(pss_after - pss),
           f->info.order.span_rows, f->info.arena_bytes);
    feed_close(f);
    free(g.features);
    free(g.targets);
    free(f);
    return 0;
}
