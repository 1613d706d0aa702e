/* sample.c - reads /proc for memory.sample; see sample.h. */
#include "monitord/sample.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/daemon.h"
#include "proto/highwater.h"
#include "proto/limits.h"
#include "proto/run.h"

static const double container_every_s = 1; /* the kernel sums it up for whoever asks */

struct figures {
    uint64_t rss_bytes, shared_bytes, swap_bytes;
    double cpu_s;
};

/* ---- texts of /proc ---- */

/* Read a kept descriptor from its beginning into text. 0, or -1: the process is gone. */
static int text_read(int fd, char *text, size_t bytes)
{
    ssize_t n = fd < 0 ? -1 : pread(fd, text, bytes - 1, 0);
    if (n <= 0)
        return -1;
    text[n] = '\0';
    return 0;
}

int sample_parse_statm(const char *text, uint64_t page_bytes, uint64_t *rss_bytes,
                       uint64_t *shared_bytes)
{
    uint64_t size, resident, shared;
    if (sscanf(text, "%" SCNu64 " %" SCNu64 " %" SCNu64, &size, &resident, &shared) != 3)
        return -1;
    *rss_bytes = resident * page_bytes;
    *shared_bytes = shared * page_bytes;
    return 0;
}

int sample_parse_stat(const char *text, double tick_s, double *cpu_s)
{
    uint64_t user, system, user_waited, system_waited;
    /* The name may hold spaces and parentheses: the fields begin after the last one. Fields 14
     * to 17. */
    const char *after = strrchr(text, ')');
    if (!after || sscanf(after + 1,
                         " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64
                         " %" SCNu64 " %" SCNu64,
                         &user, &system, &user_waited, &system_waited) != 4)
        return -1;
    *cpu_s = (double)(user + system + user_waited + system_waited) * tick_s;
    return 0;
}

/* The KiB in the line that begins with `key`. 0, or -1: there is none. */
static int kib_line(const char *text, const char *key, uint64_t *bytes)
{
    const char *line = text;
    while (line && strncmp(line, key, strlen(key)) != 0) {
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    if (!line)
        return -1;
    *bytes = strtoull(line + strlen(key), NULL, 10) * 1024;
    return 0;
}

int sample_parse_meminfo(const char *text, struct sample_meminfo *m)
{
    *m = (struct sample_meminfo){0};
    if (kib_line(text, "MemTotal:", &m->total) < 0 ||
        kib_line(text, "MemAvailable:", &m->available) < 0 ||
        kib_line(text, "Cached:", &m->cached) < 0)
        return -1;
    if (kib_line(text, "SwapTotal:", &m->swap_total) < 0 || /* a kernel without swap */
        kib_line(text, "SwapFree:", &m->swap_free) < 0)
        m->swap_total = m->swap_free = 0;
    return m->available <= m->total && m->swap_free <= m->swap_total ? 0 : -1;
}

int sample_parse_swap(const char *status, uint64_t *bytes)
{
    return kib_line(status, "VmSwap:", bytes);
}

/* ---- processes ---- */

static void descriptor_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static int descriptor_open(pid_t pid, const char *what)
{
    char path[96];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, what);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static void process_close(struct probe_process *p)
{
    descriptor_close(&p->statm);
    descriptor_close(&p->stat);
    descriptor_close(&p->status);
    p->pid = 0;
}

static void process_open(struct probe_process *p, pid_t pid)
{
    *p = (struct probe_process){pid, descriptor_open(pid, "statm"), descriptor_open(pid, "stat"),
                                descriptor_open(pid, "status")};
}

/* Add a process to the sum. A helper counts with its private pages: what it shares (program and
 * libraries with its parent, the arena with its consumer) is counted there. 0, or -1: it is gone.
 */
static int process_add(const struct sampler *s, const struct probe_process *p, int helper,
                       struct figures *sum)
{
    char text[4096];
    struct figures f = {0};
    if (text_read(p->statm, text, sizeof text) < 0 ||
        sample_parse_statm(text, s->page_bytes, &f.rss_bytes, &f.shared_bytes) < 0)
        return -1;
    if (text_read(p->stat, text, sizeof text) < 0 ||
        sample_parse_stat(text, s->tick_s, &f.cpu_s) < 0)
        return -1;
    if (s->swap_bytes &&
        (text_read(p->status, text, sizeof text) < 0 || sample_parse_swap(text, &f.swap_bytes) < 0))
        return -1;
    sum->swap_bytes += f.swap_bytes;
    sum->rss_bytes += helper ? f.rss_bytes - f.shared_bytes : f.rss_bytes;
    sum->shared_bytes += helper ? 0 : f.shared_bytes;
    sum->cpu_s += f.cpu_s;
    return 0;
}

static void probe_close(struct probe *p)
{
    process_close(&p->main);
    descriptor_close(&p->children);
    for (int i = 0; i < SAMPLE_HELPERS_MAX; i++)
        process_close(&p->helpers[i]);
}

/* What the stage tells of itself. 0, or -1. */
static int page_read(const struct probe *p, struct highwater_page *page)
{
    char path[64];
    snprintf(path, sizeof path, "highwater/%s", p->stage);
    return highwater_read(path, page, NULL);
}

/* What earlier incarnations reached before we looked. */
static void peak_recall(struct probe *p)
{
    struct highwater_page page;
    if (page_read(p, &page) == 0 && page.rss_peak_bytes + page.helpers_peak_bytes > p->peak_bytes)
        p->peak_bytes = page.rss_peak_bytes + page.helpers_peak_bytes;
}

/* Follow the stage to its present process. 0, or -1: it is not running. */
static int probe_follow(struct probe *p)
{
    pid_t pid = run_lock_holder(p->stage);
    if (pid == p->main.pid && pid)
        return 0;
    probe_close(p);
    if (!pid)
        return -1;
    char children[64];
    snprintf(children, sizeof children, "task/%d/children", (int)pid);
    process_open(&p->main, pid);
    p->children = descriptor_open(pid, children);
    /* Still the holder, so the descriptors are its own and not those of a later process of that id.
     */
    if (run_lock_holder(p->stage) != pid) {
        probe_close(p);
        return -1;
    }
    peak_recall(p);
    return 0;
}

/* Keep the probes of helpers that are still there, open those of new ones. */
static void helpers_follow(struct probe *p)
{
    char text[1024];
    pid_t now[SAMPLE_HELPERS_MAX];
    int count = 0;
    if (text_read(p->children, text, sizeof text) == 0)
        for (char *at = text, *end; count < SAMPLE_HELPERS_MAX; at = end) {
            long pid = strtol(at, &end, 10);
            if (end == at)
                break;
            now[count++] = (pid_t)pid;
        }
    for (int i = 0; i < SAMPLE_HELPERS_MAX; i++) {
        int at = 0;
        while (at < count && now[at] != p->helpers[i].pid)
            at++;
        if (at < count)
            now[at] = 0; /* known */
        else
            process_close(&p->helpers[i]);
    }
    for (int i = 0, free_at = 0; i < count; i++) {
        if (!now[i])
            continue;
        while (p->helpers[free_at].pid)
            free_at++;
        process_open(&p->helpers[free_at], now[i]);
    }
}

/* ---- samples ---- */

void sampler_open(struct sampler *s)
{
    *s = (struct sampler){.meminfo = open("/proc/meminfo", O_RDONLY | O_CLOEXEC),
                          .page_bytes = (uint64_t)sysconf(_SC_PAGESIZE),
                          .tick_s = 1.0 / (double)sysconf(_SC_CLK_TCK)};
    for (int i = 0; i < STAGE_COUNT; i++) {
        struct probe *p = &s->probes[i];
        p->stage = stage_names[i];
        p->children = -1;
        p->main = (struct probe_process){0, -1, -1, -1};
        for (int k = 0; k < SAMPLE_HELPERS_MAX; k++)
            p->helpers[k] = p->main;
    }
}

void sampler_close(struct sampler *s)
{
    for (int i = 0; i < STAGE_COUNT; i++)
        if (s->probes[i].stage)
            probe_close(&s->probes[i]);
    if (s->page_bytes)
        descriptor_close(&s->meminfo);
    *s = (struct sampler){0};
}

/* 1: *m is filled (its head excepted); 0: the stage is not running. */
static int stage_sample(struct sampler *s, int stage, struct msg_memory_sample *m)
{
    struct probe *p = &s->probes[stage];
    struct figures sum = {0};
    struct highwater_page page;
    uint64_t processes = 1;
    if (probe_follow(p) < 0)
        return 0;
    if (process_add(s, &p->main, 0, &sum) < 0) {
        probe_close(p);
        return 0;
    }
    helpers_follow(p);
    for (int i = 0; i < SAMPLE_HELPERS_MAX; i++)
        if (p->helpers[i].pid)
            processes += process_add(s, &p->helpers[i], 1, &sum) == 0;
    if (sum.rss_bytes > p->peak_bytes)
        p->peak_bytes = sum.rss_bytes;
    if (page_read(p, &page) < 0)
        page.device_bytes = page.heap_bytes = 0;
    p->device_bytes = page.device_bytes;
    *m = (struct msg_memory_sample){.pid = (uint64_t)p->main.pid,
                                    .processes = processes,
                                    .rss_bytes = sum.rss_bytes,
                                    .shared_bytes = sum.shared_bytes,
                                    .swap_bytes = sum.swap_bytes,
                                    .peak_bytes = p->peak_bytes,
                                    .heap_bytes = page.heap_bytes,
                                    .cpu_s = sum.cpu_s};
    return 1;
}

/* The machine. 0: /proc/meminfo is not as expected. */
static int system_sample(struct sampler *s, struct msg_memory_sample *m)
{
    char text[4096];
    struct sample_meminfo i;
    if (text_read(s->meminfo, text, sizeof text) < 0 || sample_parse_meminfo(text, &i) < 0)
        return 0;
    s->swap_bytes = i.swap_total - i.swap_free;
    *m = (struct msg_memory_sample){.rss_bytes = i.total - i.available,
                                    .shared_bytes = i.cached,
                                    .swap_bytes = s->swap_bytes,
                                    .peak_bytes = i.total};
    return 1;
}

/* The container. 0: there is none. */
static int container_sample(struct sampler *s, struct msg_memory_sample *m)
{
    double now_s = clock_monotonic_s();
    if (now_s >= s->container_due_s) {
        s->container_due_s = now_s + container_every_s;
        if (!limits_group("", &s->container_used, &s->container_limit))
            s->container_limit = 0;
    }
    *m = (struct msg_memory_sample){.rss_bytes = s->container_used,
                                    .peak_bytes = s->container_limit};
    return s->container_limit > 0;
}

/* What the stages that were sampled last have of a GPU's memory, as their pages of peaks say. 0:
 * none. */
static int device_sample(struct sampler *s, struct msg_memory_sample *m)
{
    uint64_t bytes = 0;
    for (int i = 0; i < STAGE_COUNT; i++)
        bytes += s->probes[i].main.pid ? s->probes[i].device_bytes : 0;
    if (bytes > s->device_peak_bytes)
        s->device_peak_bytes = bytes;
    *m = (struct msg_memory_sample){.rss_bytes = bytes, .peak_bytes = s->device_peak_bytes};
    return bytes > 0;
}

const char *sample_name(int series)
{
    static const char *const others[] = {"system", "container", "device"};
    return series < STAGE_COUNT ? stage_names[series] : others[series - STAGE_COUNT];
}

/* The machine comes first: what it has swapped out decides what is asked of the stages. */
void sampler_round(struct sampler *s, struct sample_round *round)
{
    round->unix_s = clock_unix_s();
    round->there[SAMPLE_SYSTEM] = system_sample(s, &round->of[SAMPLE_SYSTEM]);
    round->there[SAMPLE_CONTAINER] = container_sample(s, &round->of[SAMPLE_CONTAINER]);
    for (int i = 0; i < STAGE_COUNT; i++)
        round->there[i] = stage_sample(s, i, &round->of[i]);
    round->there[SAMPLE_DEVICE] = device_sample(s, &round->of[SAMPLE_DEVICE]);
    for (int i = 0; i < SAMPLE_SERIES; i++)
        if (round->there[i])
            MSG_STR(round->of[i].stage, sample_name(i));
}
