/* test_metrics.c - monitord: logs/metrics.csv, its columns, and what becomes of the file when
 * monitord is restarted, the disk is full, or it is as large as it may be. */
#include "monitord/metrics.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/durable.h"
#include "tests/test.h"

static const char path[] = "logs/metrics.csv", old_path[] = "logs/metrics.csv.old";
static struct metrics metrics;
static struct sample_round samples;

static void begin(uint64_t bytes_max)
{
    CHECK(mkdir("logs", 0700) == 0);
    metrics_open(&metrics, bytes_max);
}

static void row(double unix_s)
{
    samples.unix_s = unix_s;
    metrics_row(&metrics, &samples, NULL);
}

/* The file's text, its lines counted; it stays until two more are read. */
static char *read_file(const char *name, int *lines)
{
    static char texts[3][1 << 14];
    static int next;
    struct err e;
    char *data, *text = texts[next++ % 3];
    size_t bytes;
    CHECK_OK(durable_read(name, sizeof texts[0] - 1, &data, &bytes, &e), e);
    CHECK(bytes > 0 && data[bytes - 1] == '\n');
    memcpy(text, data, bytes + 1);
    free(data);
    *lines = 0;
    for (char *c = text; *c; c++)
        *lines += *c == '\n';
    return text;
}

/* The cell of that column in the line that begins at `line`. */
static const char *cell(const char *text, const char *line, const char *column)
{
    static char value[64];
    const char *at = strstr(text, column);
    CHECK(at && at[-1] == ',');
    int commas = 0;
    for (const char *c = text; c < at; c++)
        commas += *c == ',';
    while (commas > 0)
        commas -= *line++ == ',';
    snprintf(value, sizeof value, "%.*s", (int)strcspn(line, ",\n"), line);
    return value;
}

static const char *line_of(const char *text, int index)
{
    while (index--)
        text = strchr(text, '\n') + 1;
    return text;
}

TEST(metrics_have_a_cell_for_each_column)
{
    struct msg_trainer_step step = {
        .task = "A", .step = 12, .loss = NAN, .learning_rate = 1e-3, .steps_per_s = 400.5};
    int lines, commas[3];
    begin(1 << 20);
    samples = (struct sample_round){.unix_s = 1000.125, .there = {[1] = 1, [SAMPLE_SYSTEM] = 1}};
    samples.of[1] = (struct msg_memory_sample){.rss_bytes = 77, .swap_bytes = 5, .cpu_s = 1.5};
    samples.of[0].rss_bytes = 123456; /* left over: it does not run */
    samples.of[SAMPLE_SYSTEM].peak_bytes = 1ull << 40;
    metrics_row(&metrics, &samples, NULL);
    samples.gpu_there = 1;
    samples.gpu = (struct msg_gpu_sample){
        .utilisation = 0.25, .used_bytes = 1ull << 36, .temperature_c = 61, .power_w = NAN};
    metrics_row(&metrics, &samples, &step);
    metrics_close(&metrics);
    char *text = read_file(path, &lines);
    CHECK_EQ(lines, 3);
    for (int i = 0; i < 3; i++) {
        commas[i] = 0;
        for (const char *c = line_of(text, i); *c != '\n'; c++)
            commas[i] += *c == ',';
        CHECK(commas[i] == commas[0] && commas[0] == 37);
    }
    const char *first = line_of(text, 1), *second = line_of(text, 2);
    CHECK(strncmp(text, "time_unix_s,loaderd_rss_bytes,", 30) == 0);
    CHECK(strncmp(first, "1000.125,,", 10) == 0); /* no loaderd */
    CHECK_STR(cell(text, first, "trainerd_rss_bytes"), "77");
    CHECK_STR(cell(text, first, "trainerd_swap_bytes"), "5");
    CHECK_STR(cell(text, first, "trainerd_cpu_s"), "1.5");
    CHECK_STR(cell(text, first, "system_total_bytes"), "1099511627776");
    CHECK_STR(cell(text, first, "container_limit_bytes"), "");
    CHECK_STR(cell(text, first, "loss"), "");
    CHECK_STR(cell(text, first, "gpu_utilisation"), "");
    CHECK_STR(cell(text, second, "gpu_utilisation"), "0.25");
    CHECK_STR(cell(text, second, "gpu_used_bytes"), "68719476736");
    CHECK_STR(cell(text, second, "gpu_temperature_c"), "61");
    CHECK_STR(cell(text, second, "gpu_power_w"), "nan");
    CHECK_STR(cell(text, second, "loss"), "nan");
    CHECK_STR(cell(text, second, "task"), "A");
    CHECK_STR(cell(text, second, "step,"), "12");
    CHECK_STR(cell(text, second, "learning_rate"), "0.001");
    CHECK_STR(cell(text, second, "steps_per_s"), "400.5");
}

TEST(metrics_go_on_after_a_kill_and_never_mix_columns)
{
    int lines;
    begin(1 << 20);
    row(1);
    metrics_close(&metrics);
    CHECK(system("printf 3.000,1234 >>logs/metrics.csv") == 0); /* it was killed while it wrote */
    metrics_open(&metrics, 1 << 20);
    row(2);
    metrics_close(&metrics);
    char *text = read_file(path, &lines);
    CHECK_EQ(lines, 3);
    CHECK(strncmp(line_of(text, 2), "2.000,", 6) == 0);
    CHECK(access(old_path, F_OK) < 0);
    test_file_write(path, "time_unix_s,other_bytes\n1,2\n");
    metrics_open(&metrics, 1 << 20);
    row(4);
    metrics_close(&metrics);
    read_file(path, &lines);
    CHECK_EQ(lines, 2);
    CHECK_STR(read_file(old_path, &lines), "time_unix_s,other_bytes\n1,2\n");
    test_file_write(path, "time_un"); /* killed at the first line */
    metrics_open(&metrics, 1 << 20);
    row(5);
    metrics_close(&metrics);
    CHECK(strncmp(line_of(read_file(path, &lines), 1), "5.000,", 6) == 0);
    CHECK_STR(read_file(old_path, &lines), "time_unix_s,other_bytes\n1,2\n");
}

TEST(metrics_begin_anew_when_the_file_is_full)
{
    int lines, old_lines;
    begin(4000);
    for (int i = 0; i < 1000; i++) {
        row(1000 + i);
        CHECK(metrics.bytes <= 4000);
    }
    metrics_close(&metrics);
    CHECK_EQ(metrics.lost, 0);
    char *text = read_file(path, &lines), *old = read_file(old_path, &old_lines);
    CHECK(old_lines > 20 && strncmp(line_of(text, lines - 1), "1999.000,", 9) == 0);
    CHECK(strncmp(text, old, 200) == 0); /* the header of both */
    CHECK(atoi(line_of(text, 1)) == atoi(line_of(old, old_lines - 1)) + 1);
}

TEST(metrics_lose_rows_on_a_full_disk_and_nothing_else)
{
    struct err e;
    int lines;
    begin(1 << 20);
    row(1);
    CHECK_OK(durable_fail_after("write:1:ENOSPC", &e), e);
    for (int i = 0; i < 20; i++)
        row(2);
    CHECK_EQ(metrics.lost, 20);
    CHECK_OK(durable_fail_after("", &e), e);
    row(3);
    CHECK_EQ(metrics.lost, 20);
    /* half a row finds room */
    struct rlimit limit = {.rlim_cur = metrics.bytes + 10, .rlim_max = RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    row(4);
    CHECK_EQ(metrics.lost, 21);
    limit.rlim_cur = RLIM_INFINITY;
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    row(5);
    metrics_close(&metrics);
    char *text = read_file(path, &lines);
    CHECK_EQ(lines, 4);
    CHECK(strncmp(line_of(text, 1), "1.000,", 6) == 0);
    CHECK(strncmp(line_of(text, 2), "3.000,", 6) == 0);
    CHECK(strncmp(line_of(text, 3), "5.000,", 6) == 0);
}

/* As where the directory is not there: nothing is written, and monitord goes on. */
TEST(metrics_that_cannot_be_opened_are_lost)
{
    metrics_open(&metrics, 1 << 20);
    row(1);
    row(2);
    CHECK_EQ(metrics.lost, 2);
    metrics_close(&metrics);
}
