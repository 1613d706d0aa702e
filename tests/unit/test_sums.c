/* test_sums.c - the sums of an estimate: what a kill at any moment leaves of them. */
#include "fisherd/sums.h"

#include <sys/stat.h>
#include <unistd.h>

#include "proto/durable.h"
#include "tests/test.h"

enum { PARAMETERS = 10000, RESIDENT = 3000, HALF = 4 };

static const struct sums_config config = {"parts", "A-1", PARAMETERS, RESIDENT, HALF};

/* 0 when nothing is left to do, or -1. Each turn does at most a block. */
static int settle(struct sums *s, struct err *e)
{
    int done;
    for (uint64_t before = s->next; (done = sums_turn(s, e)) == 0; before = s->next)
        CHECK(s->next <= before + RESIDENT);
    return done < 0 ? -1 : 0;
}

static void begin(struct sums *s, const struct sums_config *c)
{
    struct err e;
    CHECK_OK(sums_open(s, c, &e), e);
    CHECK_OK(settle(s, &e), e);
}

static int half(struct sums *s, struct err *e)
{
    sums_half(s);
    return settle(s, e);
}

static int commit(struct sums *s, uint64_t position, struct err *e)
{
    sums_commit(s, position, 1);
    return settle(s, e);
}

static void add(struct sums *s, float what)
{
    for (uint64_t i = 0; i < PARAMETERS; i++)
        s->at[i] += what * (float)(i % 7);
    s->weight += 0.1 * (double)what;
    sums_release(s, 0, PARAMETERS);
}

static void hold(const float *at, float what)
{
    for (uint64_t i = 0; i < PARAMETERS; i++)
        CHECK(at[i] == what * (float)(i % 7));
}

TEST(sums_go_on_where_they_were_committed)
{
    struct sums s;
    struct err e;
    begin(&s, &config);
    CHECK(s.position == 0 && !s.has_half && s.weight == 0);
    hold(s.at, 0);
    add(&s, 1);
    CHECK_OK(commit(&s, 2, &e), e);
    add(&s, 2); /* lost */
    sums_close(&s);
    begin(&s, &config);
    CHECK(s.position == 2 && s.weight == 0.1 && s.half_weight == 0);
    hold(s.at, 1);
    add(&s, 1);
    CHECK_OK(half(&s, &e), e);
    CHECK_OK(commit(&s, 5, &e), e);
    add(&s, 1);
    CHECK_OK(commit(&s, 6, &e), e);
    add(&s, 9); /* lost */
    sums_close(&s);
    begin(&s, &config);
    CHECK(s.position == 6 && s.has_half);
    CHECK(s.weight == 0.1 + 0.1 + 0.1 && s.half_weight == 0.1 + 0.1);
    hold(s.at, 3);
    hold(s.half, 2);
    sums_close(&s);
    sums_close(&s);
    sums_remove("parts");
    CHECK(rmdir("parts") == 0);
}

TEST(sums_of_another_job_or_without_their_half_begin_anew)
{
    struct sums s;
    struct err e;
    struct sums_config other = config;
    other.job = "A-2";
    for (int round = 0; round < 2; round++) {
        begin(&s, &config);
        add(&s, 1);
        CHECK_OK(half(&s, &e), e);
        CHECK_OK(commit(&s, 5, &e), e);
        sums_close(&s);
        if (round)
            CHECK(truncate("parts/half", 0) == 0);
        begin(&s, round ? &config : &other);
        CHECK(s.position == 0 && !s.has_half && s.weight == 0 && s.half_weight == 0);
        hold(s.at, 0);
        sums_close(&s);
    }
}

/* A kill between two writes of a commit leaves the old generation or the new one. */
TEST(a_commit_that_fails_anywhere_leaves_one_generation)
{
    struct sums s;
    struct err e;
    for (int call = 1; call <= 6; call++) {
        char fail[32];
        begin(&s, &config);
        add(&s, 1);
        CHECK_OK(commit(&s, 1, &e), e);
        add(&s, 1);
        snprintf(fail, sizeof fail, "%s:%d:EIO", call % 2 ? "fsync" : "write", (call + 1) / 2);
        CHECK_OK(durable_fail_after(fail, &e), e);
        int failed = commit(&s, 2, &e) < 0;
        CHECK_OK(durable_fail_after("", &e), e);
        sums_close(&s);
        begin(&s, &config);
        CHECK(s.position == 1 || s.position == 2);
        CHECK(failed || s.position == 2);
        hold(s.at, (float)s.position);
        sums_close(&s);
        sums_remove("parts");
    }
}

TEST(sums_take_their_disk_at_the_start)
{
    struct sums s;
    struct err e;
    struct stat st;
    CHECK_OK(durable_fail_after("write:2:ENOSPC", &e), e);
    CHECK(sums_open(&s, &config, &e) < 0 && e.code == EXIT_CODE_TEMPORARY);
    CHECK_HAS(e.text, "cannot keep 10000 sums in parts/sums-1");
    CHECK_HAS(e.text, "No space left on device");
    sums_close(&s);
    CHECK(access("parts/sums-0", F_OK) < 0 && access("parts/sums-1", F_OK) < 0);
    CHECK_OK(durable_fail_after("", &e), e);
    begin(&s, &config);
    CHECK(stat("parts/half", &st) == 0 &&
          st.st_blocks * 512 >= (off_t)(PARAMETERS * sizeof(float)));
    sums_close(&s);
}

TEST(sums_of_one_block_stay_in_memory)
{
    struct sums s;
    struct err e;
    struct sums_config c = config;
    c.resident = PARAMETERS;
    begin(&s, &c);
    add(&s, 1);
    CHECK_OK(half(&s, &e), e);
    add(&s, 1);
    CHECK_OK(commit(&s, 5, &e), e);
    hold(s.half, 1);
    hold(s.at, 2);
    CHECK(s.weight == 0.1 + 0.1 && s.half_weight == 0.1);
    CHECK(access("parts", F_OK) < 0);
    sums_close(&s);
}
