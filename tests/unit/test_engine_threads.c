/* test_engine_threads.c - the pool: every item once, any number of items, many short jobs, no stray
 * threads. */
#include <dirent.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "engine/threads.h"
#include "tests/test.h"

enum { ITEMS = 70000 };

struct counts {
    _Atomic unsigned char item[ITEMS];
    _Atomic uint64_t total;
    int threads;
};

static void count_item(void *argument, uint64_t item, int thread)
{
    struct counts *c = argument;
    CHECK(item < ITEMS && thread >= 0 && thread < c->threads);
    atomic_fetch_add(&c->item[item], 1);
    atomic_fetch_add(&c->total, 1);
}

static int tasks_count(void)
{
    int count = 0;
    DIR *d = opendir("/proc/self/task");
    for (struct dirent *entry; (entry = readdir(d));)
        count += entry->d_name[0] != '.';
    closedir(d);
    return count;
}

TEST(pool_runs_every_item_once)
{
    static struct counts c;
    static const uint64_t items[] = {0, 1, 2, 3, 100, ITEMS};
    struct err e;
    for (int threads = 1; threads <= 4; threads++) {
        struct pool *pool;
        CHECK_OK(pool_open(&pool, threads, &e), e);
        for (size_t k = 0; k < sizeof items / sizeof *items; k++) {
            memset(&c, 0, sizeof c);
            c.threads = threads;
            pool_run(pool, count_item, &c, items[k]);
            CHECK_EQ(c.total, items[k]);
            for (uint64_t i = 0; i < items[k]; i++)
                CHECK_EQ(c.item[i], 1);
        }
        pool_close(&pool);
        pool_close(&pool);
        CHECK(pool == NULL);
    }
}

TEST(pool_survives_many_short_jobs_and_pauses)
{
    static struct counts c;
    struct pool *pool;
    struct err e;
    CHECK_OK(pool_open(&pool, 3, &e), e);
    c.threads = 3;
    for (int job = 0; job < 3000; job++) {
        pool_run(pool, count_item, &c, 1 + (uint64_t)job % 7);
        if (job % 500 == 0)
            usleep(2000); /* longer than a thread spins: the next job must wake it */
    }
    uint64_t wanted = 0;
    for (int job = 0; job < 3000; job++)
        wanted += 1 + (uint64_t)job % 7;
    CHECK_EQ(c.total, wanted);
    pool_close(&pool);
}

TEST(pool_has_as_many_threads_as_it_says)
{
    struct pool *pool;
    struct err e;
    CHECK_OK(pool_open(&pool, 2, &e), e); /* whatever a first thread brings with it */
    pool_close(&pool);
    for (int i = 0; i < 1000 && tasks_count() != 1; i++)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    int before = tasks_count();
    CHECK_OK(pool_open(&pool, 4, &e), e);
    CHECK_EQ(tasks_count(), before + 3);
    pool_close(&pool);
    /* A joined thread leaves /proc a moment later. */
    for (int i = 0; i < 1000 && tasks_count() != before; i++)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    CHECK_EQ(tasks_count(), before);
}
