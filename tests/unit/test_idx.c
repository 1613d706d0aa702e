/* test_idx.c - `prepare idx`: what it writes, when it leaves a file alone, and its sentence for
 * each way in which idx files can be wrong.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "pipelines/prepare/idx_labels.h"
#include "pipelines/prepare/prepare.h"
#include "proto/err.h"
#include "proto/h5file.h"
#include "tests/test.h"

enum { TRAIN = 600, TEST_ROWS = 70, ROWS = 6, COLUMNS = 5, PIXELS = ROWS * COLUMNS };

struct idx_bytes {
    unsigned char data[16 + TRAIN * PIXELS];
    size_t bytes;
};

static void big_endian_put(struct idx_bytes *b, uint32_t value)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        b->data[b->bytes++] = (unsigned char)(value >> shift);
}

static unsigned char pixel(uint32_t i)
{
    return (unsigned char)(i * 7 + i / 11);
}

static struct idx_bytes images_make(uint32_t count)
{
    struct idx_bytes b = {.bytes = 0};
    big_endian_put(&b, 0x803);
    big_endian_put(&b, count);
    big_endian_put(&b, ROWS);
    big_endian_put(&b, COLUMNS);
    for (uint32_t i = 0; i < count * PIXELS; i++)
        b.data[b.bytes++] = pixel(i);
    return b;
}

static struct idx_bytes labels_make(uint32_t count)
{
    struct idx_bytes b = {.bytes = 0};
    big_endian_put(&b, 0x801);
    big_endian_put(&b, count);
    for (uint32_t i = 0; i < count; i++)
        b.data[b.bytes++] = (unsigned char)(i % 10);
    return b;
}

static void plain_write(const char *path, const struct idx_bytes *b)
{
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(b->data, 1, b->bytes, f) == b->bytes && fclose(f) == 0);
}

static void gz_write(const char *path, const struct idx_bytes *b)
{
    gzFile f = gzopen(path, "wb");
    CHECK(f && gzwrite(f, b->data, (unsigned)b->bytes) == (int)b->bytes && gzclose(f) == Z_OK);
}

/* A good source directory: two files plain, two gzipped. */
static void source_make(void)
{
    struct idx_bytes b;
    mkdir("source", 0700);
    b = images_make(TRAIN);
    gz_write("source/train-images-idx3-ubyte.gz", &b);
    b = labels_make(TRAIN);
    plain_write("source/train-labels-idx1-ubyte", &b);
    b = images_make(TEST_ROWS);
    plain_write("source/t10k-images-idx3-ubyte", &b);
    b = labels_make(TEST_ROWS);
    gz_write("source/t10k-labels-idx1-ubyte.gz", &b);
}

/* Runs `prepare idx` with its standard error in `said`. Returns the exit code. */
static int idx_run(const char *extra, char said[4096])
{
    char *argv[] = {"idx", "--source", "source", "--out", "made/data.h5", (char *)extra, NULL};
    fflush(stderr);
    int kept = dup(STDERR_FILENO), file = open("said", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(kept >= 0 && file >= 0 && dup2(file, STDERR_FILENO) >= 0);
    int code = prepare_idx(extra ? 6 : 5, argv);
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    ssize_t got = pread(file, said, 4095, 0);
    said[got > 0 ? got : 0] = 0;
    close(kept);
    close(file);
    return code;
}

static void expect_refused(const char *words)
{
    char said[4096];
    int code = idx_run(NULL, said);
    CHECK_HAS(said, words);
    CHECK_EQ(code, EXIT_CODE_PERMANENT);
    CHECK(access("made/data.h5", F_OK) != 0);
}

TEST(idx_files_become_dense_data_sets)
{
    char said[4096], fingerprint[65], text[65];
    struct err e = {0};
    struct h5reader *r;
    struct h5array array;
    static unsigned char data[TRAIN * PIXELS];
    uint64_t value;
    source_make();
    CHECK_EQ(idx_run(NULL, said), EXIT_CODE_DONE);
    CHECK_HAS(said, "train/features 600 of 600 rows");

    CHECK_OK(h5reader_open(&r, "made/data.h5", &e), e);
    CHECK_OK(h5reader_array(r, "train/features", &array, &e), e);
    CHECK(array.type == H5TYPE_U8 && array.rank == 2 && array.dims[0] == TRAIN &&
          array.dims[1] == PIXELS);
    CHECK_OK(h5reader_read(r, &array, data, &e), e);
    struct idx_bytes images = images_make(TRAIN), labels = labels_make(TEST_ROWS);
    CHECK(memcmp(data, images.data + 16, sizeof data) == 0);
    CHECK_OK(h5reader_array(r, "validation/targets", &array, &e), e);
    CHECK(array.rank == 1 && array.dims[0] == TEST_ROWS);
    CHECK_OK(h5reader_read(r, &array, data, &e), e);
    CHECK(memcmp(data, labels.data + 8, TEST_ROWS) == 0);
    CHECK_OK(h5reader_u64(r, "", "image_columns", &value, &e), e);
    CHECK_EQ(value, COLUMNS);
    CHECK_OK(h5reader_text(r, "", "layout", text, sizeof text, &e), e);
    CHECK_STR(text, "dense");
    CHECK_OK(h5reader_text(r, "", "fingerprint", fingerprint, sizeof fingerprint, &e), e);
    CHECK_EQ(strlen(fingerprint), 64);
    h5reader_close(&r);

    /* The same contents packed otherwise have the same fingerprint, but are read again. */
    unlink("source/train-images-idx3-ubyte.gz");
    plain_write("source/train-images-idx3-ubyte", &images);
    CHECK_EQ(idx_run(NULL, said), EXIT_CODE_DONE);
    CHECK_HAS(said, "600 of 600");
    CHECK_OK(h5reader_open(&r, "made/data.h5", &e), e);
    CHECK_OK(h5reader_text(r, "", "fingerprint", text, sizeof text, &e), e);
    CHECK_STR(text, fingerprint);
    h5reader_close(&r);
}

TEST(idx_is_done_once_per_source)
{
    char said[4096];
    struct stat before, after;
    source_make();
    CHECK_EQ(idx_run(NULL, said), EXIT_CODE_DONE);
    CHECK(stat("made/data.h5", &before) == 0);
    CHECK_EQ(idx_run(NULL, said), EXIT_CODE_DONE);
    CHECK_HAS(said, "up to date");
    CHECK(stat("made/data.h5", &after) == 0 && after.st_ino == before.st_ino);

    CHECK_EQ(idx_run("--rebuild", said), EXIT_CODE_DONE);
    CHECK(stat("made/data.h5", &after) == 0 && after.st_ino != before.st_ino);

    struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    CHECK(utimensat(AT_FDCWD, "source/train-labels-idx1-ubyte", times, 0) == 0);
    CHECK_EQ(idx_run(NULL, said), EXIT_CODE_DONE);
    CHECK_HAS(said, "600 of 600");
}

TEST(idx_replaces_a_damaged_cache_when_told_to_and_nothing_else)
{
    char said[4096];
    struct stat whole, after;
    source_make();
    CHECK_EQ(idx_run(NULL, said), EXIT_CODE_DONE);
    CHECK(stat("made/data.h5", &whole) == 0);
    off_t cuts[] = {whole.st_size / 2, 100, 0};
    for (int i = 0; i < 3; i++) {
        CHECK(truncate("made/data.h5", cuts[i]) == 0);
        CHECK_EQ(idx_run(NULL, said), EXIT_CODE_PERMANENT);
        CHECK_HAS(said, "made/data.h5 is damaged");
        CHECK_HAS(said, "--rebuild-cache");
        CHECK(stat("made/data.h5", &after) == 0 && after.st_size == cuts[i]);
        CHECK_EQ(idx_run("--rebuild", said), EXIT_CODE_DONE);
        CHECK(stat("made/data.h5", &after) == 0 && after.st_size == whole.st_size);
    }
    FILE *f = fopen("made/data.h5", "w");
    CHECK(f && fputs("a file of somebody's", f) >= 0 && fclose(f) == 0);
    CHECK_EQ(idx_run("--rebuild", said), EXIT_CODE_PERMANENT);
    CHECK_HAS(said, "not made by prepare");
    CHECK(stat("made/data.h5", &after) == 0 && after.st_size == 20);
}

TEST(idx_bad_source_keeps_the_old_file)
{
    char said[4096];
    struct stat before, after;
    source_make();
    CHECK_EQ(idx_run(NULL, said), EXIT_CODE_DONE);
    CHECK(stat("made/data.h5", &before) == 0);
    CHECK(truncate("source/t10k-images-idx3-ubyte", 500) == 0);
    CHECK_EQ(idx_run(NULL, said), EXIT_CODE_PERMANENT);
    CHECK(stat("made/data.h5", &after) == 0 && after.st_ino == before.st_ino);
    CHECK_EQ(system("test \"$(ls made)\" = data.h5"), 0); /* no temporary is left */
}

TEST(idx_wrong_magic)
{
    struct idx_bytes b = labels_make(TRAIN);
    source_make();
    unlink("source/train-images-idx3-ubyte.gz");
    plain_write("source/train-images-idx3-ubyte", &b);
    expect_refused("source/train-images-idx3-ubyte has the magic number 0x00000801; expected "
                   "0x00000803 (images of unsigned bytes)");
}

TEST(idx_wrong_length)
{
    struct idx_bytes b = images_make(TEST_ROWS);
    source_make();
    b.bytes -= 3;
    plain_write("source/t10k-images-idx3-ubyte", &b);
    expect_refused("is too short: it ends after 2113 bytes and its header announces 2116");
    b.bytes += 4;
    plain_write("source/t10k-images-idx3-ubyte", &b);
    expect_refused("is too long: its header announces 2116 bytes");
    b.bytes = 10;
    plain_write("source/t10k-images-idx3-ubyte", &b);
    expect_refused("is too short: it ends after 10 bytes");
}

TEST(idx_damaged_gzip)
{
    source_make();
    CHECK(truncate("source/train-images-idx3-ubyte.gz", 400) == 0);
    expect_refused("source/train-images-idx3-ubyte.gz is too short");
    source_make();
    int fd = open("source/train-images-idx3-ubyte.gz", O_WRONLY);
    CHECK(fd >= 0 && pwrite(fd, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, 60) == 8);
    close(fd);
    expect_refused("source/train-images-idx3-ubyte.gz is damaged: gzip says");
}

TEST(idx_counts_and_sizes_disagree)
{
    struct idx_bytes b = labels_make(TRAIN - 1);
    source_make();
    plain_write("source/train-labels-idx1-ubyte", &b);
    expect_refused("announces 600 images and train-labels-idx1-ubyte 599 labels");
    source_make();
    b = images_make(TEST_ROWS);
    b.data[11] = COLUMNS; /* 5 x 6 instead of 6 x 5 */
    b.data[15] = ROWS;
    plain_write("source/t10k-images-idx3-ubyte", &b);
    expect_refused("has images of 5 x 6; expected 6 x 5");
    b.data[8] = 0x7f;
    plain_write("source/t10k-images-idx3-ubyte", &b);
    expect_refused("announces images of");
}

TEST(idx_labels_have_a_limit_where_one_is_given)
{
    char *argv[] = {"idx", "--source", "source", "--out", "made/data.h5", "--classes", "10", NULL};
    struct idx_bytes b = labels_make(TRAIN);
    char said[4096];
    source_make();
    b.data[8 + 123] = 255; /* of EMNIST's families up to 61, without an option of the pipeline */
    plain_write("source/train-labels-idx1-ubyte", &b);
    CHECK_EQ(prepare_idx(7, argv), EXIT_CODE_PERMANENT);
    CHECK(access("made/data.h5", F_OK) != 0);
    CHECK_EQ(idx_run(NULL, said), EXIT_CODE_DONE);
    argv[5] = "--only";
    argv[6] = "3,255";
    argv[4] = "made/two.h5";
    CHECK_EQ(prepare_idx(7, argv), EXIT_CODE_DONE);
}

TEST(idx_missing_file_and_arguments)
{
    char said[4096];
    source_make();
    unlink("source/t10k-labels-idx1-ubyte.gz");
    expect_refused("cannot find t10k-labels-idx1-ubyte (with or without .gz) in source");
    CHECK_EQ(idx_run("--fast", said), EXIT_CODE_PERMANENT);
    CHECK_HAS(said, "cannot use --fast");
    char *none[] = {"idx", "--source", "source", NULL};
    CHECK_EQ(prepare_idx(3, none), EXIT_CODE_PERMANENT);
}

TEST(idx_of_some_classes_has_their_rows_only)
{
    char *argv[] = {"idx",    "--source", "source",   "--out",    "made/data.h5",
                    "--only", "7,2",      "--labels", "position", NULL};
    static unsigned char data[TRAIN * PIXELS], targets[TRAIN];
    struct err e = {0};
    struct h5reader *r;
    struct h5array array;
    source_make();
    CHECK_EQ(prepare_idx(9, argv), EXIT_CODE_DONE);
    CHECK_OK(h5reader_open(&r, "made/data.h5", &e), e);
    CHECK_OK(h5reader_array(r, "train/targets", &array, &e), e);
    CHECK_EQ(array.dims[0], TRAIN / 10 * 2);
    CHECK_OK(h5reader_read(r, &array, targets, &e), e);
    CHECK_OK(h5reader_array(r, "train/features", &array, &e), e);
    CHECK_EQ(array.dims[0], TRAIN / 10 * 2);
    CHECK_OK(h5reader_read(r, &array, data, &e), e);
    for (uint32_t i = 0; i < TRAIN / 10 * 2; i++) { /* rows 2, 7, 12, 17: classes 2, 7, 2, 7 */
        uint32_t row = 2 + 5 * i;
        CHECK_EQ(targets[i], i % 2 ? 0 : 1);
        for (uint32_t k = 0; k < PIXELS; k++)
            CHECK_EQ(data[i * PIXELS + k], pixel(row * PIXELS + k));
    }
    h5reader_close(&r);
    argv[8] = "kept"; /* another file */
    CHECK_EQ(prepare_idx(9, argv), EXIT_CODE_DONE);
    CHECK_OK(h5reader_open(&r, "made/data.h5", &e), e);
    CHECK_OK(h5reader_array(r, "train/targets", &array, &e), e);
    CHECK_OK(h5reader_read(r, &array, targets, &e), e);
    CHECK(targets[0] == 2 && targets[1] == 7);
    h5reader_close(&r);
    static const char *const wrong[] = {"1,1", "256", "a", "1,", ",1", "-1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        argv[6] = (char *)wrong[i];
        CHECK_EQ(prepare_idx(9, argv), EXIT_CODE_PERMANENT);
    }
    argv[6] = "200"; /* no row has it */
    CHECK_EQ(prepare_idx(9, argv), EXIT_CODE_PERMANENT);
    /* Long lists are told apart to their ends, or refused. */
    struct idx_selection selection[2];
    char list[2][1200] = {""};
    for (int i = 0; i < 256; i++)
        snprintf(list[0] + strlen(list[0]), 8, "%s%d", i ? "," : "", i);
    memcpy(list[1], list[0], sizeof list[0]);
    memcpy(list[1] + strlen(list[1]) - 7, "255,254", 7);
    for (int i = 0; i < 2; i++)
        CHECK_OK(idx_selection_read(&selection[i], list[i], 0, &e), e);
    CHECK(strcmp(selection[0].text, selection[1].text) != 0);
    memset(list[0], '0', 1100);
    CHECK_EQ(idx_selection_read(&selection[0], list[0], 0, &e), -1);
}
