/* limits.c - see limits.h. Called at the start, by --plan, and now and then (limits_available).
 *
 * A process is in one group a hierarchy; the limit of every group above it holds as well. Inside a
 * container the path of /proc/self/cgroup may be the host's and not exist below the mount: then the
 * mount's root is the container's own group, which the walk ends at.
 */
#include "proto/limits.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 4200, LINE_BYTES = 4096 };

/* Whole numbers at the start of a file; "max" counts as none. Returns how many were read (0 to 2).
 */
static int numbers_read(const char *path, long long values[2])
{
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    int n = fscanf(f, "%lld %lld", &values[0], &values[1]);
    fclose(f);
    return n < 0 ? 0 : n;
}

/* Path of this process's group in the hierarchy of `controller` (version 1), or of version 2 for
 * "". */
static int group_path(const char *root, const char *controller, char *path, size_t bytes)
{
    char line[LINE_BYTES], name[PATH_BYTES];
    snprintf(name, sizeof name, "%s/proc/self/cgroup", root);
    FILE *f = fopen(name, "re");
    int found = 0;
    while (f && !found && fgets(line, sizeof line, f)) {
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = 0;
        group[strcspn(group, "\n")] = 0;
        for (char *rest = controllers + 1, *word; !found && (word = strsep(&rest, ","));)
            found = strcmp(word, controller) == 0;
        if (found)
            snprintf(path, bytes, "%s", strcmp(group, "/") == 0 ? "" : group);
    }
    if (f)
        fclose(f);
    return found;
}

/* Call visit for the group and each one above it, up to the hierarchy's root. */
static void groups_each(const char *root, const char *mount, char *group,
                        void (*visit)(void *self, const char *directory), void *self)
{
    char directory[2 * PATH_BYTES];
    for (;;) {
        snprintf(directory, sizeof directory, "%s/sys/fs/cgroup%s%s", root, mount, group);
        visit(self, directory);
        char *slash = strrchr(group, '/');
        if (!slash)
            return;
        *slash = 0;
    }
}

static void memory_visit(void *self, const char *directory)
{
    uint64_t *least = self;
    static const char *const names[] = {"memory.max", "memory.limit_in_bytes"};
    for (int i = 0; i < 2; i++) {
        char path[2 * PATH_BYTES + 32];
        long long values[2];
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        if (numbers_read(path, values) >= 1 && values[0] > 0 && (uint64_t)values[0] < *least)
            *least = (uint64_t)values[0];
    }
}

/* The number behind a line's first word `key`, or 0. */
static uint64_t line_number(const char *path, const char *key)
{
    char line[LINE_BYTES];
    size_t length = strlen(key);
    unsigned long long number = 0;
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, key, length) == 0 && line[length] == ' ') {
            number = strtoull(line + length, NULL, 10);
            break;
        }
    if (f)
        fclose(f);
    return number;
}

static uint64_t machine_memory(const char *root, const char *key)
{
    char name[PATH_BYTES];
    snprintf(name, sizeof name, "%s/proc/meminfo", root);
    uint64_t kib = line_number(name, key);
    return kib ? kib << 10 : UINT64_MAX;
}

/* A group's limit and what it uses of it: less the page cache that nobody has used lately, which is
 * given back first, and less all page cache. */
struct group {
    uint64_t used, without_files, limit;
};

/* Of version 2 or (1) 1. 1, or 0: it has no limit, or is not there. */
static int group_read(const char *directory, int version_1, struct group *g)
{
    static const struct {
        const char *limit, *usage, *cache, *used_cache;
    } names[] = {{"memory.max", "memory.current", "inactive_file", "active_file"},
                 {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file",
                  "total_active_file"}};
    char path[2 * PATH_BYTES + 32];
    long long limit[2], usage[2];
    snprintf(path, sizeof path, "%s/%s", directory, names[version_1].limit);
    if (numbers_read(path, limit) < 1 || limit[0] <= 0)
        return 0;
    snprintf(path, sizeof path, "%s/%s", directory, names[version_1].usage);
    if (numbers_read(path, usage) < 1)
        return 0;
    snprintf(path, sizeof path, "%s/memory.stat", directory);
    uint64_t cache = line_number(path, names[version_1].cache), used = (uint64_t)usage[0];
    uint64_t files = cache + line_number(path, names[version_1].used_cache);
    *g = (struct group){used > cache ? used - cache : 0, used > files ? used - files : 0,
                        (uint64_t)limit[0]};
    return 1;
}

static void available_visit(void *self, const char *directory)
{
    uint64_t *least = self;
    struct group g;
    for (int version_1 = 0; version_1 < 2; version_1++) {
        if (!group_read(directory, version_1, &g))
            continue;
        uint64_t left = g.used < g.limit ? g.limit - g.used : 0;
        if (left < *least)
            *least = left;
    }
}

static double group_share(const struct group *g)
{
    return (double)g->without_files / (double)g->limit;
}

struct fullest {
    struct group group;
    uint64_t machine; /* bytes; a limit that is no less is none */
};

static void fullest_visit(void *self, const char *directory)
{
    struct fullest *f = self;
    struct group g;
    for (int version_1 = 0; version_1 < 2; version_1++)
        if (group_read(directory, version_1, &g) && g.limit < f->machine &&
            group_share(&g) >= group_share(&f->group))
            f->group = g;
}

/* Call visit for all groups that limit this process's memory. */
static void memory_groups_each(const char *root, void (*visit)(void *self, const char *directory),
                               void *self)
{
    char group[PATH_BYTES];
    if (group_path(root, "", group, sizeof group))
        groups_each(root, "", group, visit, self);
    if (group_path(root, "memory", group, sizeof group))
        groups_each(root, "/memory", group, visit, self);
}

uint64_t limits_available(const char *root)
{
    uint64_t least = machine_memory(root, "MemAvailable:");
    memory_groups_each(root, available_visit, &least);
    return least;
}

int limits_group(const char *root, uint64_t *used, uint64_t *limit)
{
    struct fullest f = {{.limit = UINT64_MAX}, machine_memory(root, "MemTotal:")};
    memory_groups_each(root, fullest_visit, &f);
    *used = f.group.without_files;
    *limit = f.group.limit;
    return f.group.limit != UINT64_MAX;
}

uint64_t limits_memory(const char *root, char *source, size_t source_bytes)
{
    uint64_t machine = machine_memory(root, "MemTotal:"), least = machine;
    memory_groups_each(root, memory_visit, &least);
    snprintf(source, source_bytes, "%s",
             least < machine ? "the container's limit" : "the machine's memory");
    return least;
}

static void quota_take(int *least, long long quota_us, long long period_us)
{
    if (quota_us <= 0 || period_us <= 0)
        return;
    long long whole = (quota_us + period_us - 1) / period_us;
    if (whole < *least)
        *least = (int)whole;
}

static void quota_visit(void *self, const char *directory)
{
    char path[2 * PATH_BYTES + 32];
    long long two[2], quota[2], period[2];
    snprintf(path, sizeof path, "%s/cpu.max", directory);
    if (numbers_read(path, two) == 2)
        quota_take(self, two[0], two[1]);
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", directory);
    int there = numbers_read(path, quota);
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", directory);
    if (there && numbers_read(path, period))
        quota_take(self, quota[0], period[0]);
}

int limits_threads(const char *root)
{
    char group[PATH_BYTES];
    cpu_set_t mask;
    int threads = sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : 1;
    if (group_path(root, "", group, sizeof group))
        groups_each(root, "", group, quota_visit, &threads);
    if (group_path(root, "cpu", group, sizeof group))
        groups_each(root, "/cpu", group, quota_visit, &threads);
    if (threads > LIMITS_THREADS_MAX)
        threads = LIMITS_THREADS_MAX;
    return threads < 1 ? 1 : threads;
}

uint64_t limits_decoders(const char *root, uint64_t asked)
{
    if (asked != LIMITS_AUTO)
        return asked;
    int half = limits_threads(root) / 2;
    return half > 1 ? (uint64_t)half : 1;
}

uint64_t limits_readers(const char *root, uint64_t asked)
{
    int threads = limits_threads(root), spared = threads / 4 > 1 ? threads / 4 : 1;
    uint64_t decoders = limits_decoders(root, asked), all = (uint64_t)(threads - spared);
    return asked == LIMITS_AUTO && all > decoders ? all - decoders : 0;
}

uint64_t limits_host(const char *root, uint64_t asked_mb, char *source, size_t source_bytes)
{
    if (!asked_mb)
        return limits_memory(root, source, source_bytes);
    snprintf(source, source_bytes, "memory.host_limit_mb");
    return asked_mb << 20;
}

uint64_t limits_batch_rows(uint64_t device_bytes)
{
    uint64_t rows = device_bytes / (1 << 27); /* 8 a GiB */
    uint64_t steps = (rows + LIMITS_BATCH_STEP / 2) / LIMITS_BATCH_STEP;
    return (steps ? steps : 1) * LIMITS_BATCH_STEP;
}
