/* metrics.c - see metrics.h. */
#include "monitord/metrics.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/durable.h"
#include "proto/log.h"

static const char path[] = "logs/metrics.csv", old_path[] = "logs/metrics.csv.old";

/* ---- columns ---- */

enum kind { WHOLE, NUMBER, TEXT };
enum { OF_STEP = -1, OF_GPU = -2 };

struct column {
    const char *name;
    enum kind kind;
    int series; /* of the samples, or OF_STEP, OF_GPU */
    size_t offset;
};

#define SAMPLE(name, kind, series, field)                                                          \
    {                                                                                              \
        name, kind, series, offsetof(struct msg_memory_sample, field)                              \
    }
#define STEP(name, kind, field)                                                                    \
    {                                                                                              \
        name, kind, OF_STEP, offsetof(struct msg_trainer_step, field)                              \
    }
#define GPU(name, kind, field)                                                                     \
    {                                                                                              \
        name, kind, OF_GPU, offsetof(struct msg_gpu_sample, field)                                 \
    }
#define STAGE(name, series)                                                                        \
    SAMPLE(name "_rss_bytes", WHOLE, series, rss_bytes),                                           \
        SAMPLE(name "_swap_bytes", WHOLE, series, swap_bytes),                                     \
        SAMPLE(name "_cpu_s", NUMBER, series, cpu_s)

/* Behind time_unix_s. A change here makes another header, and so another file. */
static const struct column columns[] = {
    STAGE("loaderd", 0),
    STAGE("trainerd", 1),
    STAGE("fisherd", 2),
    STAGE("monitord", 3),
    SAMPLE("system_used_bytes", WHOLE, SAMPLE_SYSTEM, rss_bytes),
    SAMPLE("system_total_bytes", WHOLE, SAMPLE_SYSTEM, peak_bytes),
    SAMPLE("system_swap_bytes", WHOLE, SAMPLE_SYSTEM, swap_bytes),
    SAMPLE("container_used_bytes", WHOLE, SAMPLE_CONTAINER, rss_bytes),
    SAMPLE("container_limit_bytes", WHOLE, SAMPLE_CONTAINER, peak_bytes),
    SAMPLE("device_bytes", WHOLE, SAMPLE_DEVICE, rss_bytes),
    STEP("device_free_bytes", WHOLE, device_free_bytes),
    GPU("gpu_utilisation", NUMBER, utilisation),
    GPU("gpu_memory_utilisation", NUMBER, memory_utilisation),
    GPU("gpu_used_bytes", WHOLE, used_bytes),
    GPU("gpu_temperature_c", NUMBER, temperature_c),
    GPU("gpu_power_w", NUMBER, power_w),
    GPU("gpu_power_limit_w", NUMBER, power_limit_w),
    GPU("gpu_clock_mhz", NUMBER, clock_mhz),
    GPU("gpu_memory_clock_mhz", NUMBER, memory_clock_mhz),
    STEP("task", TEXT, task),
    STEP("epoch", WHOLE, epoch),
    STEP("step", WHOLE, step),
    STEP("steps_per_s", NUMBER, steps_per_s),
    STEP("samples_per_s", NUMBER, samples_per_s),
    STEP("wait_share", NUMBER, wait_share),
    STEP("loss", NUMBER, loss),
    STEP("penalty", NUMBER, penalty),
    STEP("learning_rate", NUMBER, learning_rate),
    STEP("gradient_norm", NUMBER, gradient_norm),
};

enum { COLUMNS = sizeof columns / sizeof columns[0] };

struct row {
    const struct sample_round *round;
    const struct msg_trainer_step *step; /* or NULL */
};

static void header_print(FILE *out, const struct row *row)
{
    (void)row;
    fputs("time_unix_s", out);
    for (int i = 0; i < COLUMNS; i++)
        fprintf(out, ",%s", columns[i].name);
    fputc('\n', out);
}

/* A task's name has no comma and no quotation mark. */
static void cell_print(FILE *out, const struct column *c, const char *of)
{
    double number;
    fputc(',', out);
    if (!of)
        return;
    switch (c->kind) {
    case WHOLE:
        fprintf(out, "%" PRIu64, *(const uint64_t *)(of + c->offset));
        break;
    case NUMBER:
        number = *(const double *)(of + c->offset);
        isnan(number) ? fputs("nan", out) : fprintf(out, "%.9g", number);
        break;
    case TEXT:
        fputs(of + c->offset, out);
        break;
    }
}

/* The struct that has the column's value; NULL: there is none in this row. */
static const void *column_of(const struct column *c, const struct row *row)
{
    const struct sample_round *r = row->round;
    if (c->series == OF_STEP)
        return row->step;
    if (c->series == OF_GPU)
        return r->gpu_there ? &r->gpu : NULL;
    return r->there[c->series] ? &r->of[c->series] : NULL;
}

static void row_print(FILE *out, const struct row *row)
{
    fprintf(out, "%.3f", row->round->unix_s);
    for (int i = 0; i < COLUMNS; i++)
        cell_print(out, &columns[i], column_of(&columns[i], row));
    fputc('\n', out);
}

/* The line that `print` writes; returns its bytes. */
static size_t line_print(char text[METRICS_ROW_BYTES_MAX],
                         void (*print)(FILE *, const struct row *), const struct row *row)
{
    FILE *out = fmemopen(text, METRICS_ROW_BYTES_MAX, "w");
    ensure(out);
    print(out, row);
    long bytes = ftell(out);
    ensure(bytes > 0 && bytes < METRICS_ROW_BYTES_MAX && fclose(out) == 0);
    return (size_t)bytes;
}

/* ---- the file ---- */

void metrics_open(struct metrics *m, uint64_t bytes_max)
{
    *m = (struct metrics){.fd = -1, .bytes_max = bytes_max};
}

void metrics_close(struct metrics *m)
{
    if (m->fd >= 0)
        close(m->fd);
    m->fd = -1;
}

/* Bytes of the file up to its last newline. Where it has none as far back as a row may reach it is
 * not ours: all of it. */
static uint64_t whole_bytes(int fd, uint64_t bytes)
{
    char text[METRICS_ROW_BYTES_MAX];
    uint64_t from = bytes > sizeof text ? bytes - sizeof text : 0;
    ssize_t n = pread(fd, text, sizeof text, (off_t)from);
    while (n > 0 && text[n - 1] != '\n')
        n--;
    return n > 0 ? from + (uint64_t)n : from ? bytes : 0;
}

/* Is its first line that of this version? */
static int header_is_ours(int fd, const char *header, size_t bytes)
{
    char text[METRICS_ROW_BYTES_MAX];
    return pread(fd, text, bytes, 0) == (ssize_t)bytes && memcmp(text, header, bytes) == 0;
}

static int set_aside(struct metrics *m, struct err *e)
{
    metrics_close(m);
    return rename(path, old_path) == 0
               ? 0
               : err_errno(e, EXIT_CODE_TEMPORARY, "cannot rename %s to %s", path, old_path);
}

static int descriptor_open(struct metrics *m, struct err *e)
{
    struct stat st;
    m->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (m->fd < 0 || fstat(m->fd, &st) < 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot open %s", path);
    m->bytes = whole_bytes(m->fd, (uint64_t)st.st_size);
    if (m->bytes < (uint64_t)st.st_size && ftruncate(m->fd, (off_t)m->bytes) < 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot cut a row that is not whole off %s", path);
    return 0;
}

/* Open behind its last row; the first line is ours. */
static int file_open(struct metrics *m, struct err *e)
{
    char header[METRICS_ROW_BYTES_MAX];
    size_t bytes = line_print(header, header_print, NULL);
    if (descriptor_open(m, e) < 0)
        return -1;
    if (m->bytes && !header_is_ours(m->fd, header, bytes))
        if (set_aside(m, e) < 0 || descriptor_open(m, e) < 0)
            return -1;
    if (m->bytes == 0) {
        if (durable_pwrite_all(m->fd, header, bytes, 0, path, e) < 0)
            return -1;
        m->bytes = bytes;
    }
    return 0;
}

static int row_append(struct metrics *m, const char *row, size_t bytes, struct err *e)
{
    if (m->fd < 0 && file_open(m, e) < 0)
        return -1;
    if (m->bytes + bytes > m->bytes_max)
        if (set_aside(m, e) < 0 || file_open(m, e) < 0)
            return -1;
    if (durable_pwrite_all(m->fd, row, bytes, m->bytes, path, e) < 0)
        return -1;
    m->bytes += bytes;
    return 0;
}

/* The first one is worth a line, then every tenfold: the disk may be full for long. */
static void lost_count(struct metrics *m, const struct err *why)
{
    uint64_t n = ++m->lost;
    while (n % 10 == 0)
        n /= 10;
    if (n == 1)
        log_warn("path=%s lost=%" PRIu64 " A row was not written: %s", path, m->lost, why->text);
}

void metrics_row(struct metrics *m, const struct sample_round *round,
                 const struct msg_trainer_step *step)
{
    char text[METRICS_ROW_BYTES_MAX];
    const struct row row = {round, step};
    struct err why = {0};
    if (row_append(m, text, line_print(text, row_print, &row), &why) == 0)
        return;
    metrics_close(m); /* what was half written is cut off when it is opened again */
    lost_count(m, &why);
}
