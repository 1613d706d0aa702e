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
    struct fisherfile_block b = {.first = index * BLOCK,
                                 .count = index < 2 ? BLOCK : 17,
                                 .form = "gzip",
                                 .sum = (double)index,
                                 .norm = 3,
                                 .error = 0.1,
                                 .arrays = 2,
                                 .array = {{.name = "values"}, {.name = "head"}}};
    snprintf(b.tensors, sizeof b.tensors, "%s", index == 1 ? "" : "0.weight 0.bias");
    return b;
}

/* Two arrays: the values packed as gzip, and the first 9 bytes of them, not packed. */
static int block_write(uint64_t index, const char *job, struct fisherfile_block *b, int level,
                       struct err *e)
{
    struct h5packed packed[2];
    CHECK_OK(h5packed_open(&packed[0], H5PACK_GZIP, H5TYPE_F32, level, b->count, 65536,
                           values + index * BLOCK, e),
             *e);
    CHECK_OK(h5packed_open(&packed[1], H5PACK_NONE, H5TYPE_U8, level, 9, 9, values, e), *e);
    for (uint64_t i = packed[0].chunks; i-- > 0;) /* in any order */
        CHECK_OK(h5packed_chunk(&packed[0], i, e), *e);
    int result = fisherfile_write_part("fisher/A.part", index, job, b, packed, e);
    CHECK(result < 0 || b->bytes == h5packed_bytes(&packed[0]) + 9);
    h5packed_free(&packed[0]);
    return result;
}

static void part_write(uint64_t index, const char *job)
{
    struct err e;
    struct fisherfile_block b = block_at(index);
    CHECK_OK(block_write(index, job, &b, 6, &e), e);
}

/* All blocks of the file into back[]; what ends it. */
static int file_read(struct fisherfile_meta *meta, struct err *e)
{
    struct fisherfile *f;
    struct fisherfile_block b;
    int more = fisherfile_open(&f, "fisher/A.h5", meta, e);
    if (more < 0)
        return -1;
    while ((more = fisherfile_next(f, &b, e)) > 0) {
        CHECK_EQ(b.arrays, 2);
        CHECK_STR(b.form, "gzip");
        CHECK_STR(b.array[0].name, "values");
        CHECK_STR(b.array[1].name, "head");
        CHECK(b.array[0].count == b.count && memcmp(b.array[1].data, values, 9) == 0);
        memcpy(back + b.first, b.array[0].data, b.count * sizeof *back);
        fisherfile_block_free(&b);
    }
    fisherfile_close(&f);
    return more;
}

static struct fisherfile_meta meta_make(void)
{
    return (struct fisherfile_meta){.job = "A-1",
                                    .task = "A",
                                    .checkpoint = "checkpoints/a.h5",
                                    .parameters_sha256 = "f00d",
                                    .estimator = "empirical",
                                    .compression = "gzip",
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
    begin();
    for (uint64_t i = 0; i < BLOCKS; i++)
        part_write(i, "A-1");
    CHECK_OK(fisherfile_join("fisher/A.h5", "fisher/A.part", &meta, &e), e);
    CHECK(access("fisher/A.part", F_OK) < 0);
    CHECK_OK(fisherfile_read_meta("fisher/A.h5", &found, &e), e);
    CHECK(memcmp(&meta, &found, sizeof meta) == 0);
    CHECK(found.trace == 0 + 1 + 2 && strlen(found.digest) == 64);
    CHECK(found.error > 0.0999 && found.error < 0.1001 && found.bytes > 27);
    CHECK_OK(file_read(&found, &e), e);
    CHECK(memcmp(values, back, sizeof values) == 0);
}

TEST(fisherfile_level_does_not_change_the_digest)
{
    struct err e;
    struct fisherfile_meta meta[2] = {meta_make(), meta_make()};
    struct stat st[2];
    begin();
    for (int level = 0; level < 2; level++) {
        for (uint64_t i = 0; i < BLOCKS; i++) {
            struct fisherfile_block b = block_at(i);
            CHECK_OK(block_write(i, "A-1", &b, level ? 9 : 1, &e), e);
        }
        CHECK_OK(fisherfile_join("fisher/A.h5", "fisher/A.part", &meta[level], &e), e);
        CHECK(stat("fisher/A.h5", &st[level]) == 0);
    }
    CHECK_STR(meta[0].digest, meta[1].digest);
    CHECK(st[0].st_size != st[1].st_size && st[0].st_size < (off_t)sizeof values);
}

/* Find the bytes in the file and change the last of them. */
static void file_change(const uint8_t *bytes, size_t count)
{
    static uint8_t text[1 << 20];
    FILE *f = fopen("fisher/A.h5", "r+b");
    size_t got = fread(text, 1, sizeof text, f), at = 0;
    while (at + count <= got && memcmp(text + at, bytes, count) != 0)
        at++;
    CHECK(at + count <= got);
    text[at + count - 1] ^= 1;
    CHECK(fseek(f, 0, SEEK_SET) == 0 && fwrite(text, 1, got, f) == got && fclose(f) == 0);
}

TEST(fisherfile_that_was_changed_is_damaged)
{
    struct err e;
    struct fisherfile_meta meta = meta_make(), found;
    struct stat st;
    begin();
    meta.blocks = 1, meta.parameters = BLOCK;
    part_write(0, "A-1");
    CHECK_OK(fisherfile_join("fisher/A.h5", "fisher/A.part", &meta, &e), e);
    CHECK(stat("fisher/A.h5", &st) == 0);
    file_change((const uint8_t *)values, 9);
    CHECK(file_read(&found, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "blocks/00000 of fisher/A.h5 is damaged");
    CHECK(truncate("fisher/A.h5", st.st_size / 2) == 0);
    CHECK(file_read(&found, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
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
    CHECK(fisherfile_join("fisher/A.h5", "fisher/A.part", &meta, &e) < 0);
    CHECK_HAS(e.text, "is of the job A-2, not of A-1");
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY); /* the next process finds it and makes it again */
    struct fisherfile_block gap = block_at(1);
    gap.first++;
    CHECK_OK(block_write(1, "A-1", &gap, 6, &e), e);
    CHECK(fisherfile_join("fisher/A.h5", "fisher/A.part", &meta, &e) < 0);
    CHECK_HAS(e.text, "covers 70000 parameters from 70001 on, wanted from 70000");
    meta.blocks = 1;
    CHECK(fisherfile_join("fisher/A.h5", "fisher/A.part", &meta, &e) < 0);
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
    CHECK(block_write(1, "A-1", &b, 6, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    CHECK_OK(durable_fail_after(NULL, NULL), e);
    CHECK_EQ(fisherfile_has_part("fisher/A.part", 0, "A-1", &e), 1);
    part_write(1, "A-1");
    part_write(2, "A-1");
    CHECK_OK(durable_fail_after("write:5:ENOSPC", &e), e);
    CHECK(fisherfile_join("fisher/A.h5", "fisher/A.part", &meta, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    CHECK_OK(durable_fail_after(NULL, NULL), e);
    CHECK_EQ(fisherfile_has_part("fisher/A.part", 2, "A-1", &e), 1);
    CHECK_OK(fisherfile_join("fisher/A.h5", "fisher/A.part", &meta, &e), e);
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
