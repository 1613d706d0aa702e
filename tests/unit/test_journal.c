/* test_journal.c - Journals: facts come back in order; a torn or damaged tail ends the list and is
 * cut at the next open. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/durable.h"
#include "proto/journal.h"
#include "tests/test.h"

static struct err e;

struct seen {
    int count;
    uint64_t steps[64];
    int stop_at;
};

static int visit(void *self, enum msg_type type, const union msg *m)
{
    struct seen *s = self;
    CHECK_EQ(type, MSG_event_task);
    CHECK_STR(m->event_task.what, "epoch-end");
    CHECK_EQ(m->head.incarnation, 3);
    s->steps[s->count++] = m->event_task.step;
    return s->count == s->stop_at;
}

static void open_it(struct journal *j)
{
    mkdir("journals", 0700);
    CHECK_OK(journal_open(j, "trainerd", &e), e);
}

static int append(struct journal *j, uint64_t step)
{
    struct msg_event_task m = {.head = {3, step, 1.5}, .step = step, .loss = 0.25};
    MSG_STR(m.what, "epoch-end");
    MSG_STR(m.task, "A");
    return journal_append(j, MSG_event_task, &m, &e);
}

/* The steps in the journal must be first .. first + count - 1. */
static void holds(uint64_t first, int count)
{
    struct seen s = {0};
    CHECK_OK(journal_read("journals/trainerd", visit, &s, &e), e);
    CHECK_EQ(s.count, count);
    for (int i = 0; i < count; i++)
        CHECK_EQ(s.steps[i], first + (uint64_t)i);
}

static off_t size_of(const char *path)
{
    struct stat st;
    CHECK(stat(path, &st) == 0);
    return st.st_size;
}

/* What has been appended since, and of a torn tail nothing until it is whole. */
TEST(journal_is_read_on)
{
    struct journal j;
    uint64_t at = 0;
    open_it(&j);
    for (int round = 0; round < 3; round++) {
        struct seen s = {0};
        for (uint64_t i = 0; i < 4; i++)
            CHECK_OK(append(&j, 4 * (uint64_t)round + i), e);
        CHECK_OK(journal_read_on(j.path, &at, visit, &s, &e), e);
        CHECK_EQ(s.count, 4);
        CHECK_EQ(s.steps[0], 4 * round);
        CHECK_EQ(at, size_of(j.path));
        CHECK_OK(journal_read_on(j.path, &at, visit, &s, &e), e);
        CHECK_EQ(s.count, 4);
    }
    struct seen s = {0};
    uint64_t whole = at;
    CHECK_OK(append(&j, 12), e);
    off_t full = size_of(j.path);
    char tail[512];
    int fd = open(j.path, O_RDWR);
    CHECK(pread(fd, tail, sizeof tail, (off_t)whole) == full - (off_t)whole);
    CHECK(ftruncate(fd, full - 3) == 0);
    CHECK_OK(journal_read_on(j.path, &at, visit, &s, &e), e);
    CHECK(s.count == 0 && at == whole);
    CHECK(pwrite(fd, tail, (size_t)(full - (off_t)whole), (off_t)whole) == full - (off_t)whole);
    CHECK_OK(journal_read_on(j.path, &at, visit, &s, &e), e);
    CHECK(s.count == 1 && s.steps[0] == 12 && at == (uint64_t)full);
    close(fd);
    journal_close(&j);
}

TEST(journal_facts_come_back_in_order)
{
    struct journal j;
    open_it(&j);
    holds(0, 0);
    for (uint64_t step = 1; step <= 5; step++)
        CHECK_OK(append(&j, step), e);
    holds(1, 5);
    journal_close(&j);
    journal_close(&j);
    open_it(&j);
    CHECK_OK(append(&j, 6), e);
    journal_close(&j);
    holds(1, 6);
    struct seen s = {.stop_at = 2};
    CHECK_OK(journal_read("journals/trainerd", visit, &s, &e), e);
    CHECK_EQ(s.count, 2);
    CHECK_OK(journal_read("journals/absent", visit, &s, &e), e);
    CHECK_EQ(s.count, 2);
}

/* Cut the file at every length: what is whole stays, and the next record follows it directly. */
TEST(journal_torn_tails_are_cut)
{
    struct journal j;
    open_it(&j);
    CHECK_OK(append(&j, 1), e);
    off_t one = size_of("journals/trainerd");
    CHECK_OK(append(&j, 2), e);
    off_t two = size_of("journals/trainerd");
    journal_close(&j);
    for (off_t length = two - 1; length > one; length--) {
        CHECK(truncate("journals/trainerd", length) == 0);
        holds(1, 1);
        open_it(&j);
        CHECK_EQ(size_of("journals/trainerd"), one);
        CHECK_OK(append(&j, 2), e);
        journal_close(&j);
        holds(1, 2);
        CHECK_EQ(size_of("journals/trainerd"), two);
    }
}

TEST(journal_damage_ends_the_list)
{
    struct journal j;
    open_it(&j);
    CHECK_OK(append(&j, 1), e);
    off_t one = size_of("journals/trainerd");
    CHECK_OK(append(&j, 2), e);
    off_t two = size_of("journals/trainerd");
    for (off_t at = one; at < two; at++) {
        unsigned char old, bad;
        CHECK(pread(j.fd, &old, 1, at) == 1);
        bad = old ^ 0x41;
        CHECK(pwrite(j.fd, &bad, 1, at) == 1);
        holds(1, 1);
        CHECK(pwrite(j.fd, &old, 1, at) == 1);
    }
    holds(1, 2);
    journal_close(&j);
}

TEST(journal_random_bytes_hold_no_facts)
{
    CHECK(mkdir("journals", 0700) == 0);
    for (int round = 0; round < 200; round++) {
        unsigned char noise[512];
        for (size_t i = 0; i < sizeof noise; i++)
            noise[i] = (unsigned char)test_random();
        noise[1] = noise[2] = noise[3] = 0; /* a believable length */
        CHECK_OK(durable_write("journals/trainerd", noise, sizeof noise, &e), e);
        holds(0, 0);
    }
}

TEST(journal_failed_append_leaves_no_debris)
{
    struct journal j;
    open_it(&j);
    CHECK_OK(append(&j, 1), e);
    off_t one = size_of("journals/trainerd");
    CHECK_OK(durable_fail_after("write:1:ENOSPC", &e), e);
    CHECK(append(&j, 2) < 0);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    CHECK_HAS(e.text, "No space left");
    CHECK_OK(durable_fail_after(NULL, &e), e);
    CHECK_EQ(size_of("journals/trainerd"), one);
    CHECK_OK(append(&j, 2), e);
    holds(1, 2);
    journal_close(&j);
}
