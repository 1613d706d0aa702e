/* test_limits.c - what a container's groups leave of memory and processors.
 */
#include "tests/test.h"

#include "proto/limits.h"

/* A machine's files in the working directory: the process's groups, and what one file of them says.
 */
static void tree_make(const char *cgroup, const char *file, const char *text)
{
    char path[256];
    CHECK_EQ(
        system(
            "mkdir -p proc/self sys/fs/cgroup/a/b sys/fs/cgroup/memory/docker sys/fs/cgroup/cpu"),
        0);
    test_file_write("proc/self/cgroup", cgroup);
    test_file_write("proc/meminfo", "MemTotal:        8388608 kB\nMemFree: 1 kB\n");
    snprintf(path, sizeof path, "sys/fs/cgroup/%s", file);
    test_file_write(path, text);
}

TEST(limits_takes_the_smallest_group_of_version_2)
{
    char source[64];
    tree_make("0::/a/b\n", "a/memory.max", "1073741824\n");
    test_file_write("sys/fs/cgroup/a/b/memory.max", "max\n");
    CHECK_EQ(limits_memory(".", source, sizeof source), 1073741824);
    CHECK_STR(source, "the container's limit");
    test_file_write("sys/fs/cgroup/a/b/memory.max", "536870912\n");
    CHECK_EQ(limits_memory(".", source, sizeof source), 536870912);
}

TEST(what_is_available_is_the_least_that_any_group_leaves)
{
    tree_make("0::/a/b\n", "a/memory.max", "1000000\n");
    CHECK_EQ(limits_available("."), UINT64_MAX); /* nothing tells */
    test_file_write("proc/meminfo",
                    "MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable:    2048 kB\n");
    CHECK_EQ(limits_available("."), 2048 << 10);
    test_file_write("sys/fs/cgroup/a/memory.current", "900000\n");
    CHECK_EQ(limits_available("."), 100000);
    test_file_write("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 50000\nactive_file 7\n");
    CHECK_EQ(limits_available("."), 150000); /* the page cache gives way */
    test_file_write("sys/fs/cgroup/a/b/memory.max", "max\n");
    test_file_write("sys/fs/cgroup/a/b/memory.current", "1\n");
    CHECK_EQ(limits_available("."), 150000);
    test_file_write("sys/fs/cgroup/a/memory.current", "2000000\n");
    CHECK_EQ(limits_available("."), 0);
}

TEST(the_fullest_group_with_a_limit_is_found)
{
    uint64_t used, limit;
    tree_make("0::/a/b\n", "a/memory.max", "max\n");
    CHECK(!limits_group(".", &used, &limit));
    test_file_write("sys/fs/cgroup/a/memory.max", "1000000\n");
    test_file_write("sys/fs/cgroup/a/memory.current", "900000\n");
    test_file_write("sys/fs/cgroup/a/memory.stat",
                    "anon 1\ninactive_file 50000\nactive_file 7000\n");
    CHECK(limits_group(".", &used, &limit));
    CHECK_EQ(used, 843000);
    CHECK_EQ(limit, 1000000);
    test_file_write("sys/fs/cgroup/a/b/memory.max", "100000\n");
    test_file_write("sys/fs/cgroup/a/b/memory.current", "10000\n");
    CHECK(limits_group(".", &used, &limit) && limit == 1000000);
    test_file_write("sys/fs/cgroup/a/b/memory.current", "95000\n");
    CHECK(limits_group(".", &used, &limit) && limit == 100000 && used == 95000);
    test_file_write("sys/fs/cgroup/a/b/memory.current", "10000\n");
    test_file_write("proc/meminfo", "MemTotal: 900 kB\n"); /* a's is none, however full it is */
    CHECK(limits_group(".", &used, &limit) && limit == 100000 && used == 10000);
    test_file_write("proc/meminfo", "MemTotal: 8388608 kB\n");
    test_file_write("proc/self/cgroup", "4:memory:/docker\n");
    test_file_write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    test_file_write("sys/fs/cgroup/memory/memory.usage_in_bytes", "7\n");
    CHECK(!limits_group(".", &used, &limit)); /* none: version 1 says so with a large number */
    test_file_write("sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "268435456\n");
    test_file_write("sys/fs/cgroup/memory/docker/memory.usage_in_bytes", "200000000\n");
    CHECK(limits_group(".", &used, &limit) && limit == 268435456 && used == 200000000);
}

TEST(limits_reads_version_1_below_a_container_mount)
{
    char source[64]; /* the group's path is the host's and does not exist here */
    tree_make("5:cpuacct,cpu:/docker/x\n4:memory:/docker/x\n0::/\n", "memory/memory.limit_in_bytes",
              "268435456\n");
    CHECK_EQ(limits_memory(".", source, sizeof source), 268435456);
    test_file_write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    CHECK_EQ(limits_memory(".", source, sizeof source), 8ull << 30);
    CHECK_STR(source, "the machine's memory");
}

TEST(limits_threads_heeds_the_quota)
{
    tree_make("0::/a\n", "a/cpu.max", "50000 100000\n");
    CHECK_EQ(limits_threads("."), 1);
    CHECK_EQ(limits_readers(".", LIMITS_AUTO), 0);
    CHECK_EQ(limits_readers(".", 3), 0);
    test_file_write("sys/fs/cgroup/a/cpu.max", "max 100000\n");
    int all = limits_threads(".");
    CHECK(all >= 1 && all <= LIMITS_THREADS_MAX);
    uint64_t reading = limits_decoders(".", LIMITS_AUTO) + limits_readers(".", LIMITS_AUTO);
    CHECK(all < 2 ? reading == 1 : reading < (uint64_t)all && reading >= (uint64_t)all / 2);
    test_file_write("proc/self/cgroup", "5:cpuacct,cpu:/\n");
    test_file_write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000\n");
    test_file_write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    CHECK_EQ(limits_threads("."), 1);
    test_file_write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    CHECK_EQ(limits_threads("."), all);
}
