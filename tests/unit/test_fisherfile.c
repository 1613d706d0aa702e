/* test_fisherfile.c - blocks that are durable one by one, and the file they are joined to. */
#include "proto/fisherfile.h"

#include <sys/stat.h>
#include <unistd.h>

#include "proto/durable.h"
#include "tests/test.h"

enum { BLOCKS = 3, BLOCK = 70000, PARAMETERS = 2 * BLOCK + 17 };

static float values[PARAMETERS], back[PARAMETERS];

static void values_make(void)
{
    for (int i = 0; i < PARAMETERS; i++)
        values[i] = (float)(test_random() % 1000) * 1e-6f;
}

static struct fisherfile_block block_at(uint64_t index)
{
    struct fisherfile_block b = {.first = index * BLOCK, .count = index < 2 ? BLOCK : 17};
    snprintf(b.tensors, sizeof b.tensors, "%s", index == 1 ? "" : "0.weight 0.bias");
    return b;
}

static void part_write(uint64_t index, const char *job)
{
    struct err e;
    struct fisherfile_block b = block_at(index);
    CHECK_OK(fisherfile_write_part("fisher/A.part", index, job, &b, values + b.first, 6, &e), e);
}

static struct fisherfile_meta meta_make(void)
{
    return (struct fisherfile_meta){.job = "A-1",
                                    .task = "A",
                                    .checkpoint = "checkpoints/a.h5",
                                    .parameters_sha256 = "f00d",
                                    .estimator = "empirical",
                                    .samples = 4096,
                                    .parameters = PARAMETERS,
                                    .blocks = BLOCKS,
                                    .block_size = BLOCK};
}

static void begin(void)
{
    values_make();
    CHECK(mkdir("fisher", 0700) == 0);
}

TEST(fisherfile_round_trip)
{
    struct err e;
    struct fisherfile_meta meta = meta_make(), found;
    double trace = 0;
    begin();
    for (uint64_t i = 0; i < BLOCKS; i++)
        part_write(i, "A-1");
    for (int i = 0; i < PARAMETERS; i++)
        trace += (double)values[i];
    CHECK_OK(fisherfile_join("fisher/A.h5", "fisher/A.part", &meta, 9, &e), e);
    CHECK(access("fisher/A.part", F_OK) < 0);
    CHECK_OK(fisherfile_read_meta("fisher/A.h5", &found, &e), e);
    CHECK(memcmp(&meta, &found, sizeof meta) == 0);
    CHECK(found.trace == trace && strlen(found.digest) == 64);
    CHECK_OK(fisherfile_read("fisher/A.h5", &found, back, &e), e);
    CHECK(memcmp(values, back, sizeof values) == 0);
    found.digest[3] ^= 1;
    CHECK(fisherfile_read("fisher/A.h5", &found, back, &e) < 0);
    CHECK_HAS(e.text, "is damaged");
    found.parameters = PARAMETERS - 1; /* less room than the file fills */
    CHECK(fisherfile_read("fisher/A.h5", &found, back, &e) < 0);
    CHECK_HAS(e.text, "does not follow");
}

TEST(fisherfile_level_does_not_change_the_digest)
{
    struct err e;
    struct fisherfile_meta meta[2] = {meta_make(), meta_make()};
    struct stat st[2];
    begin();
    for (int level = 0; level < 2; level++) {
        for (uint64_t i = 0; i < BLOCKS; i++)
            part_write(i, "A-1");
        CHECK_OK(fisherfile_join("fisher/A.h5", "fisher/A.part", &meta[level], level ? 9 : 1, &e),
                 e);
        CHECK(stat("fisher/A.h5", &st[level]) == 0);
    }
    CHECK_STR(meta[0].digest, meta[1].digest);
    CHECK(st[0].st_size != st[1].st_size && st[0].st_size < (off_t)sizeof values);
}

TEST(fisherfile_a_part_belongs_to_its_job_and_is_whole)
{
    struct err e;
    struct stat st;
    begin();
    CHECK_EQ(fisherfile_has_part("fisher/A.part", 0, "A-1", &e), 0);
    part_write(0, "A-1");
    CHECK_EQ(fisherfile_has_part("fisher/A.part", 0, "A-1", &e), 1);
    CHECK_EQ(fisherfile_has_part("fisher/A.part", 1, "A-1", &e), 0);
    CHECK_EQ(fisherfile_has_part("fisher/A.part", 0, "A-2", &e), 0);
    CHECK(access("fisher/A.part/00000.h5", F_OK) < 0);
    part_write(0, "A-1");
    CHECK(stat("fisher/A.part/00000.h5", &st) == 0);
    CHECK(truncate("fisher/A.part/00000.h5", st.st_size / 2) == 0);
    CHECK_EQ(fisherfile_has_part("fisher/A.part", 0, "A-1", &e), 0);
    CHECK(access("fisher/A.part/00000.h5", F_OK) < 0);
}

TEST(fisherfile_parts_that_do_not_fit_are_not_joined)
{
    struct err e;
    struct fisherfile_meta meta = meta_make();
    begin();
    part_write(0, "A-1");
    part_write(1, "A-2");
    CHECK(fisherfile_join("fisher/A.h5", "fisher/A.part", &meta, 6, &e) < 0);
    CHECK_HAS(e.text, "is of the job A-2, not of A-1");
    struct fisherfile_block gap = block_at(1);
    gap.first++;
    CHECK_OK(fisherfile_write_part("fisher/A.part", 1, "A-1", &gap, values, 6, &e), e);
    CHECK(fisherfile_join("fisher/A.h5", "fisher/A.part", &meta, 6, &e) < 0);
    CHECK_HAS(e.text, "covers parameters from 70001 on, wanted from 70000");
    meta.blocks = 1;
    CHECK(fisherfile_join("fisher/A.h5", "fisher/A.part", &meta, 6, &e) < 0);
    CHECK_HAS(e.text, "cover 70000 of 140017 parameters");
    CHECK(access("fisher/A.h5", F_OK) < 0);
}

TEST(fisherfile_on_a_full_disk_keeps_the_finished_blocks)
{
    struct err e;
    struct fisherfile_meta meta = meta_make();
    struct fisherfile_block b = block_at(1);
    begin();
    part_write(0, "A-1");
    CHECK_OK(durable_fail_after("write:2:ENOSPC", &e), e);
    CHECK(fisherfile_write_part("fisher/A.part", 1, "A-1", &b, values + b.first, 6, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    CHECK_OK(durable_fail_after(NULL, NULL), e);
    CHECK_EQ(fisherfile_has_part("fisher/A.part", 0, "A-1", &e), 1);
    part_write(1, "A-1");
    part_write(2, "A-1");
    CHECK_OK(durable_fail_after("write:5:ENOSPC", &e), e);
    CHECK(fisherfile_join("fisher/A.h5", "fisher/A.part", &meta, 6, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    CHECK_OK(durable_fail_after(NULL, NULL), e);
    CHECK_EQ(fisherfile_has_part("fisher/A.part", 2, "A-1", &e), 1);
    CHECK_OK(fisherfile_join("fisher/A.h5", "fisher/A.part", &meta, 6, &e), e);
}

TEST(fisherfile_missing_or_foreign_is_permanent)
{
    struct err e;
    struct fisherfile_meta meta;
    CHECK(fisherfile_read_meta("none.h5", &meta, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_OK(durable_write("text.h5", "text", 4, &e), e);
    CHECK(fisherfile_read_meta("text.h5", &meta, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
}
