/* loader_probe.c - a consumer of loaderd that does nothing with the rows, for the benchmark.
 *
 *   loader_probe RUN FILE SPLIT [key=value ...]   epochs=1 shuffle=1 limit_mb=256 span_rows=0
 *                                     window=256
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

/* A batch of one field: items one after the other, and of a ragged one where each row's begin. */
struct gathered_field {
    const struct msg_field_info *info;
    char *at;
    uint64_t *pointer; /* NULL: an item a row */
    uint64_t items_max;
};

struct gathered {
    uint64_t rows, digest;
    int digested;
    struct gathered_field field[SPAN_FIELDS_MAX];
    uint32_t field_count;
};

static void gathered_open(struct gathered *g, const struct feed *f)
{
    for (uint32_t i = 0; i < f->info.field_count; i++) {
        const struct msg_field_info *info = &f->info.fields[i];
        if (span_is_pointer(f->info.fields, f->info.field_count, i))
            continue;
        struct gathered_field *to = &g->field[g->field_count++];
        to->info = info;
        to->items_max = info->pointer[0] ? info->batch_items_max : BATCH_ROWS;
        to->at = malloc(to->items_max * info->row_bytes + 1);
        to->pointer = info->pointer[0] ? calloc(BATCH_ROWS + 1, sizeof *to->pointer) : NULL;
    }
}

static void row_gather(const struct feed *f, struct gathered_field *to, struct feed_row row,
                       uint64_t i)
{
    uint64_t count = 1, first = to->pointer ? to->pointer[i] : i, bytes = to->info->row_bytes;
    const void *items =
        to->pointer ? feed_items(f, to->info, row, &count) : feed_field(to->info, row);
    if (!items || first + count > to->items_max)
        probe_fail("a batch has more items than the loader said");
    memcpy(to->at + first * bytes, items, count * bytes);
    if (to->pointer)
        to->pointer[i + 1] = first + count;
}

static void rows_gather(const struct feed *f, struct gathered *g, const struct feed_row *rows,
                        uint64_t count)
{
    struct rowhash_field hashed[SPAN_FIELDS_MAX];
    for (uint32_t i = 0; i < g->field_count; i++) {
        struct gathered_field *to = &g->field[i];
        for (uint64_t row = 0; row < count; row++)
            row_gather(f, to, rows[row], row);
        hashed[i] = (struct rowhash_field){to->at, to->info->row_bytes, to->pointer};
    }
    g->rows += count;
    if (g->digested)
        g->digest += rowhash_sum(hashed, g->field_count, count);
}

static void epoch_read(struct feed *f, struct gathered *g, uint64_t epoch, uint64_t last)
{
    struct feed_row batch[BATCH_ROWS];
    uint64_t rows = f->info.order.rows;
    feed_seek(f, epoch, 0, last);
    for (uint64_t at = 0; at < rows;) {
        uint64_t in_batch = BATCH_ROWS - at % BATCH_ROWS; /* a piece of one batch, never of two */
        uint64_t wanted = rows - at < in_batch ? rows - at : in_batch;
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
    config.window = probe_number(argc, argv, "window", 256);
    config.batch_rows = BATCH_ROWS;
    config.epochs = &(struct msg_epoch_range){.count = epochs + 2};
    config.epoch_count = 1;
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

    struct gathered g = {0};
    gathered_open(&g, f);
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
    for (uint32_t i = 0; i < g.field_count; i++) {
        free(g.field[i].at);
        free(g.field[i].pointer);
    }
    free(f);
    return 0;
}
