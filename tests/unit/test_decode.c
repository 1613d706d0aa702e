/* test_decode.c - what a reader process delivers of a dense file is what H5Dread gives, for every
 * type, filter and shape of chunk (reader_compare.h).
 */
#include "loaderd/decode.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "loaderd/layout.h"
#include "proto/h5file_type.h"
#include "tests/test.h"
#include "tests/unit/reader_compare.h"

static void every_filter(const char *type, enum filters first, enum filters last)
{
    for (enum filters filters = first; filters <= last; filters++) {
        hsize_t rows = 60 + test_random() % 200, values = 1 + test_random() % 40;
        hsize_t chunk = 1 + test_random() % 50;
        struct set_config sets[2] = {
            {"features", h5_type(h5type_of(type)), 2, {rows, values}, {chunk, values}, filters, 0},
            {"targets", H5T_STD_U8LE, 1, {rows}, {1 + test_random() % rows}, filters, 0},
        };
        struct reader_open open = open_default();
        open.span_rows = 1 + test_random() % rows;
        open.shuffle = test_random() % 4 != 0;
        open.streams = open.shuffle ? 0 : test_random() % 9;
        open.rest = filters % 2;
        open.workers = test_random() % 4;
        file_make("every.h5", sets, 2);
        CHECK(file_compare("every.h5", &open) >= 2);
    }
}

TEST_LIMIT(every_type_with_every_filter_equals_h5dread, 120)
{
    static const char *const types[] = {"u8",  "i8",  "u16", "i16", "u32", "i32",
                                        "u64", "i64", "f16", "f32", "f64"};
    for (int i = 0; i < 11; i++) /* 11 types with all filters (floats without NBIT) */
        every_filter(types[i], PLAIN, i < 8 ? NBIT : GZIP_TWICE);
}

TEST_LIMIT(every_shape_of_chunk_equals_h5dread, 60)
{
    static const struct set_config features[] = {
        {"features", 0, 2, {100, 12}, {0}, PLAIN, 0},                     /* contiguous */
        {"features", 0, 2, {100, 12}, {8, 5}, SHUFFLE_GZIP, 0},           /* part of a row */
        {"features", 0, 2, {100, 12}, {100, 12}, SHUFFLE_GZIP, 0},        /* one chunk */
        {"features", 0, 2, {100, 12}, {128, 12}, SHUFFLE_GZIP, 1000},     /* one chunk, not full */
        {"features", 0, 2, {100, 12}, {1, 12}, SHUFFLE_GZIP_FLETCHER, 0}, /* a row */
        {"features", 0, 3, {77, 6, 5}, {10, 6, 5}, SHUFFLE_GZIP, 0},
        {"features", 0, 3, {77, 6, 5}, {10, 6, 2}, SHUFFLE_GZIP, 0},
        {"features", 0, 3, {77, 6, 5}, {10, 1, 5}, GZIP, 0},
        {"features", 0, 3, {77, 6, 5}, {0}, PLAIN, 0},
    };
    static const struct set_config targets[] = {
        {"targets", 0, 2, {0, 3}, {0}, PLAIN, 0},
        {"targets", 0, 2, {0, 3}, {10, 3}, GZIP, 0},
        {"targets", 0, 2, {0, 3}, {7, 3}, SHUFFLE_GZIP, 0},
        {"targets", 0, 2, {0, 3}, {70, 2}, GZIP, 0},
        {"targets", 0, 1, {0}, {64}, SHUFFLE_GZIP, 0},
    };
    for (size_t i = 0; i < sizeof features / sizeof *features; i++)
        for (size_t j = 0; j < sizeof targets / sizeof *targets; j++) {
            struct set_config sets[2] = {features[i], targets[j]};
            struct reader_open open = open_default();
            sets[0].stored = i % 2 ? H5T_IEEE_F32LE : H5T_STD_I16LE;
            sets[1].stored = j % 2 ? H5T_IEEE_F64LE : H5T_STD_U8LE;
            sets[1].dims[0] = sets[0].dims[0];
            open.span_rows = j ? 1 + test_random() % 60 : 0;
            file_make("shape.h5", sets, 2);
            file_compare("shape.h5", &open);
        }
}

/* Share of the file's pages that stand in the page cache. */
static double cached_share(const char *path)
{
    int fd = open(path, O_RDONLY);
    struct stat st;
    CHECK(fd >= 0 && fsync(fd) == 0 && fstat(fd, &st) == 0);
    size_t pages = ((size_t)st.st_size + 4095) / 4096, cached = 0;
    unsigned char *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    unsigned char *resident = malloc(pages);
    CHECK(map != MAP_FAILED && mincore(map, (size_t)st.st_size, resident) == 0);
    for (size_t i = 0; i < pages; i++)
        cached += resident[i] & 1;
    munmap(map, (size_t)st.st_size);
    free(resident);
    close(fd);
    return (double)cached / (double)pages;
}

TEST(what_was_read_of_a_large_file_leaves_the_page_cache)
{
    static const hsize_t chunks[] = {0, 250};
    struct statfs here;
    if (statfs(".", &here) == 0 && here.f_type == 0x01021994) /* TMPFS_MAGIC */
        test_skip("this directory lies in a tmpfs, whose pages are the file");
    for (int i = 0; i < 8; i++) {
        struct set_config set = {"features",           H5T_IEEE_F32LE, 2, {8000, 300},
                                 {chunks[i % 2], 300}, PLAIN,          0};
        struct reader_open open = open_default();
        struct reader_done done;
        struct harness h;
        file_make("large.h5", &set, 1);
        CHECK(cached_share("large.h5") > 0.9); /* it was just written */
        open.drop_behind = i / 2 % 2;
        open.shuffle = i / 4;
        CHECK(harness_open(&h, "large.h5", &open) == 0);
        harness_arm(&h, 1);
        for (uint64_t span = 0; span < h.described.spans; span++)
            CHECK(harness_read(&h, 0, span, 0, &done) == 0);
        double share = cached_share("large.h5");
        CHECK(open.drop_behind ? share < 0.3 : share > 0.9); /* a folio (2 MiB) may stay */
        harness_close(&h);
    }
}

TEST(big_endian_and_odd_precision_are_converted)
{
    hid_t odd = H5Tcopy(H5T_STD_U16LE);
    H5Tset_precision(odd, 11);
    hid_t stored[] = {H5T_STD_U16BE,  H5T_STD_I32BE, H5T_IEEE_F32BE,
                      H5T_IEEE_F64BE, odd,           type_short_float(5, 1)};
    for (int i = 0; i < 6; i++) {
        struct set_config sets[2] = {
            {"features", stored[i], 2, {90, 7}, {16, 7}, SHUFFLE_GZIP, 0},
            {"targets", H5T_STD_I64BE, 1, {90}, {16}, PLAIN, 0},
        };
        struct reader_open open = open_default();
        file_make("be.h5", sets, 2);
        file_compare("be.h5", &open);
    }
}

/* More chunks in one row of them than libhdf5 is given in one read. */
TEST_LIMIT(many_small_chunks_are_read_in_boxes, 60)
{
    static const struct set_config cases[] = {
        {"features", 0, 2, {10, 4500}, {4, 1}, PLAIN, 0},
        {"features", 0, 2, {5, 8300}, {5, 2}, PLAIN, 0},
        {"features", 0, 3, {7, 70, 61}, {3, 1, 1}, PLAIN, 0},
        {"features", 0, 3, {3, 2, 4200}, {2, 1, 1}, PLAIN, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct set_config set = cases[i];
        struct reader_open open = open_default();
        set.stored = H5T_STD_U16BE;
        file_make("boxes.h5", &set, 1);
        file_compare("boxes.h5", &open);
    }
}

TEST(without_targets_and_in_the_root)
{
    struct set_config set = {"features", H5T_IEEE_F32LE, 2, {500, 9}, {32, 9}, SHUFFLE_GZIP, 0};
    struct reader_open open = open_default();
    hid_t file = H5Fcreate("root.h5", H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t made = set_create(file, &set);
    set_fill(made, &set);
    H5Dclose(made);
    H5Fclose(file);
    open.split[0] = 0;
    open.span_rows = 64;
    CHECK_EQ(file_compare("root.h5", &open), 16);
}

static void user_block_compare(hsize_t chunk_rows)
{
    struct set_config set = {"features", H5T_STD_U8LE, 2, {50, 9}, {chunk_rows, 9}, GZIP, 0};
    struct reader_open open = open_default();
    hid_t fcpl = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_userblock(fcpl, 1024);
    hid_t file = H5Fcreate("user.h5", H5F_ACC_TRUNC, fcpl, H5P_DEFAULT);
    hid_t group = H5Gcreate2(file, "train", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    hid_t made = set_create(group, &set);
    set_fill(made, &set);
    H5Dclose(made);
    H5Gclose(group);
    H5Fclose(file);
    file_compare("user.h5", &open);
}

TEST(user_block_is_skipped)
{
    user_block_compare(8);
    user_block_compare(0); /* contiguous: read without libhdf5 */
}

TEST(chunks_never_written_hold_the_fill_value)
{
    hid_t group, file = file_create("sparse.h5", "train", &group);
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    hsize_t dims[2] = {64, 6}, chunk[2] = {8, 6}, start[2] = {16, 0}, count[2] = {16, 6};
    int32_t fill = 41, data[16 * 6];
    H5Pset_chunk(dcpl, 2, chunk);
    H5Pset_deflate(dcpl, 1);
    H5Pset_fill_value(dcpl, H5T_NATIVE_INT32, &fill);
    hid_t space = H5Screate_simple(2, dims, NULL), memory = H5Screate_simple(2, count, NULL);
    hid_t set = H5Dcreate2(group, "features", H5T_STD_I32LE, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    for (int i = 0; i < 16 * 6; i++)
        data[i] = i;
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
    CHECK(H5Dwrite(set, H5T_NATIVE_INT32, memory, space, H5P_DEFAULT, data) >= 0);
    H5Dclose(set);
    H5Gclose(group);
    H5Fclose(file);
    struct reader_open open = open_default();
    file_compare("sparse.h5", &open);
}

/* Chunks stored with some filters skipped, as H5Dwrite_chunk's mask says. */
TEST(filter_mask_of_a_chunk_is_heeded)
{
    struct set_config set = {"features", H5T_STD_U16LE, 2, {64, 10}, {16, 10}, SHUFFLE_GZIP, 0};
    hid_t group, file = file_create("mask.h5", "train", &group);
    hid_t made = set_create(group, &set);
    set_fill(made, &set);
    for (uint32_t mask = 2; mask <= 3; mask++) { /* 2: shuffled, not gzipped; 3: as it is */
        unsigned char raw[16 * 10 * 2];
        hsize_t at[2] = {16 * (mask - 2), 0};
        for (size_t i = 0; i < sizeof raw; i++)
            raw[i] = (unsigned char)test_random();
        CHECK(H5Dwrite_chunk(made, H5P_DEFAULT, mask, at, sizeof raw, raw) >= 0);
    }
    H5Dclose(made);
    H5Gclose(group);
    H5Fclose(file);
    struct reader_open open = open_default();
    file_compare("mask.h5", &open);
}

TEST(partial_last_chunk_stored_without_filters)
{
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS), dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_libver_bounds(fapl, H5F_LIBVER_V110, H5F_LIBVER_V110);
    hid_t file = H5Fcreate("edge.h5", H5F_ACC_TRUNC, H5P_DEFAULT, fapl);
    hid_t group = H5Gcreate2(file, "train", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    hsize_t dims[2] = {70, 6}, chunk[2] = {16, 6};
    int32_t data[70 * 6];
    H5Pset_chunk(dcpl, 2, chunk);
    H5Pset_deflate(dcpl, 4);
    CHECK(H5Pset_chunk_opts(dcpl, H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS) >= 0);
    hid_t space = H5Screate_simple(2, dims, NULL);
    hid_t set = H5Dcreate2(group, "features", H5T_STD_I32LE, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    for (int i = 0; i < 70 * 6; i++)
        data[i] = i / 3;
    CHECK(H5Dwrite(set, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(set);
    H5Gclose(group);
    H5Fclose(file);
    struct reader_open open = open_default();
    file_compare("edge.h5", &open);
}

/* ---- sizes of spans ------------------------------------------------------------------------- */

TEST(spans_are_of_some_mebibytes_unless_told)
{
    struct set_config sets[2] = {
        {"features", H5T_STD_U8LE, 2, {6000, 784}, {256, 784}, SHUFFLE_GZIP, 0},
        {"targets", H5T_STD_U8LE, 1, {6000}, {6000}, GZIP, 0},
    };
    struct harness h;
    struct reader_open open = open_default();
    file_make("mib.h5", sets, 2);
    CHECK(harness_open(&h, "mib.h5", &open) == 0);
    CHECK_EQ(h.described.chunk_rows, 256);
    CHECK_EQ(h.described.span_rows, 5 * 256); /* 5 x 256 x 785 = 0.96 MiB; 6 would be 1.15 */
    CHECK_EQ(h.described.spans, 5);
    CHECK_EQ(h.described.fields[0].values, 784);
    CHECK_STR(h.described.fields[1].name, "targets");
    CHECK(strlen(h.described.fingerprint) == 64);
    harness_close(&h);

    sets[0].filters = PLAIN; /* only copied: about 4 MiB */
    file_make("copied.h5", sets, 2);
    CHECK(harness_open(&h, "copied.h5", &open) == 0);
    CHECK_EQ(h.described.span_rows, 21 * 256);
    harness_close(&h);
    sets[0].chunk[0] = 0;
    file_make("copied.h5", sets, 2);
    CHECK(harness_open(&h, "copied.h5", &open) == 0);
    CHECK_EQ(h.described.chunk_rows, 334); /* 256 KiB of 784 bytes */
    CHECK_EQ(h.described.span_rows, 16 * 334);
    harness_close(&h);

    open.span_bytes_chosen = 600000; /* two chunks fit */
    CHECK(harness_open(&h, "mib.h5", &open) == 0);
    CHECK_EQ(h.described.span_rows, 2 * 256);
    harness_close(&h);
}

static uint64_t arena_limit_mb_default(void)
{
    static const char *const options[][2] = {
#define OPT(type, field, key, value, low, high, unit, meaning) {key, value},
#define TASK(type, field, key, value, low, high, unit, meaning)
#include "proto/options.def"
#undef OPT
#undef TASK
    };
    size_t i = 0;
    while (strcmp(options[i][0], "arena.limit_mb") != 0)
        i++;
    return strtoull(options[i][1], NULL, 10);
}

/* A span is chosen as if the arena had its default size. One that has less refuses it and says what
 * would do; one that has more takes the same span, and chunks that need more. */
TEST(the_arena_has_no_part_in_the_order)
{
    struct set_config sets[2] = {
        {"features", H5T_STD_U8LE, 2, {6000, 784}, {256, 784}, GZIP},
        {"targets", H5T_STD_U8LE, 1, {6000}, {0}, PLAIN},
    };
    struct harness h;
    struct reader_open open = open_default();
    CHECK_EQ(arena_limit_mb_default() << 20, LAYOUT_ARENA_BYTES);
    CHECK_EQ(layout_span_bytes_chosen(4), 53686272); /* 256 MiB / 5 in pages of 4 KiB */
    file_make("arena.h5", sets, 2);
    open.window_spans = 4;
    for (uint64_t limit = 1 << 20; limit <= 64 << 20; limit *= 4) {
        open.span_bytes_limit = limit;
        CHECK(harness_open(&h, "arena.h5", &open) == 0);
        CHECK_EQ(h.described.span_rows, 5 * 256);
        harness_close(&h);
    }
    open.span_bytes_limit = 600000;
    file_refused("arena.h5", &open,
                 "a span of 1280 rows is 0.96 MiB; arena.limit_mb allows 0.57 MiB a span; set it "
                 "to 5 or more, or lower order.window_spans or order.span_rows (e.g. to 512), "
                 "which changes the order of the rows");
    open.span_rows = 500; /* rounded up to 2 chunks */
    CHECK(harness_open(&h, "arena.h5", &open) == 0);
    CHECK_EQ(h.described.span_rows, 512);
    harness_close(&h);
    open.span_rows = 1000;
    file_refused("arena.h5", &open, "a span of 1024 rows is 0.77 MiB");
    open.span_bytes_limit = 100000;
    open.shuffle = 0;
    open.window_spans = 1;
    file_refused(
        "arena.h5", &open,
        "train/features: a chunk of 256 rows is 0.19 MiB; arena.limit_mb allows 0.10 MiB a "
        "span; set it to 1 or more, or lower the rows of its stored chunks");
    open.span_bytes_chosen = 100000; /* what a chunk needs is not chosen */
    open.span_bytes_limit = 1 << 20;
    open.span_rows = 0;
    CHECK(harness_open(&h, "arena.h5", &open) == 0);
    CHECK_EQ(h.described.span_rows, 256);
    harness_close(&h);
}

/* ---- the filters alone ---------------------------------------------------------------------- */

TEST(unshuffle_equals_its_definition)
{
    unsigned char in[700], out[700], wanted[700];
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (unsigned char)test_random();
    for (uint32_t width = 1; width <= 9; width++)
        for (size_t bytes = 0; bytes <= sizeof in; bytes += 1 + test_random() % 5) {
            size_t count = bytes / width;
            memset(out, 0, sizeof out);
            memcpy(wanted, in, bytes);
            for (size_t i = 0; i < count; i++)
                for (size_t j = 0; j < width; j++)
                    wanted[i * width + j] = in[j * count + i];
            decode_unshuffle(in, out, bytes, width);
            CHECK(memcmp(out, wanted, bytes) == 0);
        }
}

/* Streams of whole chunks where that leaves out little; then no chunk is decoded twice. */
TEST(streams_are_cut_at_chunks)
{
    static const struct {
        uint64_t rows, streams, rows_used, amplified;
        int rest;
    } cases[] = {
        {64 * 200 + 7, 2, 64 * 200, 0, 0}, /* 100 chunks a stream */
        {64 * 4, 2, 64 * 4, 0, 0},
        /* two and a half chunks: half a chunk would be too much to lose; the halves are kept */
        {64 * 5, 2, 64 * 5, 0, 0},
        {100, 8, 96, 1, 0}, /* the last chunk holds four rows more */
        {64 * 82, 4, 64 * 82, 1,
         0}, /* the second and the fourth take turns in chunks cut by spans */
        {64 * 200 + 7, 2, 64 * 200 + 7, 1, 1}, /* nothing is left out */
        {70, 80, 70, 0, 1},                    /* a row each of the first streams */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct set_config set = {"features", H5T_STD_U8LE, 2, {cases[i].rows, 8}, {64, 8}, GZIP, 0};
        struct reader_open open = open_default();
        struct harness h;
        struct reader_done done;
        uint64_t decoded = 0, delivered = 0;
        open.shuffle = 0;
        open.streams = cases[i].streams;
        open.rest = cases[i].rest;
        open.span_rows = 256;
        file_make("streams.h5", &set, 1);
        CHECK(file_compare("streams.h5", &open) > 0);
        CHECK(harness_open(&h, "streams.h5", &open) == 0);
        CHECK_EQ(h.described.rows, cases[i].rows_used);
        harness_arm(&h, 1);
        for (uint64_t span = 0; span < h.described.spans; span++) {
            CHECK(harness_read(&h, 0, span, 0, &done) == 0);
            decoded += done.bytes_decoded;
            delivered += done.bytes_delivered;
        }
        CHECK_EQ(decoded > delivered, cases[i].amplified);
        harness_close(&h);
    }
    struct set_config few = {"features", H5T_STD_U8LE, 2, {7, 8}, {4, 8}, GZIP, 0};
    struct reader_open open = open_default();
    struct harness h;
    open.shuffle = 0;
    open.streams = 8;
    file_make("few.h5", &few, 1);
    CHECK(harness_open(&h, "few.h5", &open) != 0);
    CHECK_HAS(h.reason, "the 7 rows of ");
    CHECK_HAS(h.reason, " do not fill 8 streams");
    harness_close(&h);
}
